"""Names, folders, words in every script, and which language a text is in."""

from importlib import metadata

import pytest

from mothertongue import languages
from mothertongue.errors import BadInput

CODES = ", ".join(sorted(languages.NAMES))


def test_an_unknown_language_is_named_with_the_known_ones() -> None:
    with pytest.raises(BadInput) as caught:
        languages.english_name("xx")
    assert caught.value.message == f"unknown language 'xx'; take one of {CODES}"


def test_names() -> None:
    assert languages.english_name("es") == "Spanish"
    assert languages.english_name("ckb") == "Central Kurdish"
    assert set(languages.NAMES) > languages.CORPUS


def test_the_corpus_has_the_folder_of_each_of_its_languages() -> None:
    files = metadata.distribution("chatterbot-corpus").files or []
    there = {path.parts[2] for path in files if path.suffix == ".yml"}
    named = {languages.corpus_folder(code) for code in languages.CORPUS}
    assert named <= there
    assert len(named) == len(languages.CORPUS)
    assert languages.corpus_folder("or") == "oriya"  # English name: Odia
    assert languages.corpus_folder("pt") == "portuguese"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", []),
        ("  ¡... 😀!\n", []),
        ("¿Qué tal, señor Ñandú?", ["qué", "tal", "señor", "ñandú"]),
        ("En 2024 costó 3,50 €", ["en", "2024", "costó", "3", "50"]),
        ("L'acqua è fredda", ["l", "acqua", "è", "fredda"]),
        ("cafe\u0301 solo", ["caf\u00e9", "solo"]),
        ("नमस्ते, आप कैसे हैं?", ["नमस्ते", "आप", "कैसे", "हैं"]),
        ("வணக்கம் உலகம்", ["வணக்கம்", "உலகம்"]),
        ("می‌خواهم بروم", ["می‌خواهم", "بروم"]),
        ("你好，世界", ["你", "好", "世", "界"]),
        ("vLLM は速い", ["vllm", "は", "速", "い"]),
        ("👩‍👩‍👧", []),
        ("人々の「コーヒー・店」", ["人", "々", "の", "コ", "ー", "ヒ", "ー", "店"]),
        ("か\u3099く", ["が", "く"]),  # a point written apart is composed
        # Thai "the water is hot", "hello", "25 baht each": vowels and tones above and below belong to their consonant
        ("น้ำร้อน", ["น้ำ", "ร้", "อ", "น"]),
        ("สวัสดี ครับ", ["ส", "วั", "ส", "ดี", "ค", "รั", "บ"]),
        ("ตัวละ ๒๕ บาท ฿", ["ตั", "ว", "ล", "ะ", "๒๕", "บ", "า", "ท"]),
        # Lao "hello", "water"
        ("ສະບາຍດີ", ["ສ", "ະ", "ບ", "າ", "ຍ", "ດີ"]),
        ("ນ້ຳ", ["ນ້ຳ"]),
        # Khmer "Khmer", "woman" with a letter below a letter, "hello." with a full stop
        ("ខ្មែរ", ["ខ្មែ", "រ"]),
        ("ស្ត្រី", ["ស្ត្រី"]),
        ("សួស្តី។ ១២", ["សួ", "ស្តី", "១២"]),
        # Burmese "Burma", "hello!", "man" with a letter below a letter
        ("မြန်မာ", ["မြ", "န်", "မာ"]),
        ("မင်္ဂလာပါ။", ["မ", "င်္ဂ", "လာ", "ပါ"]),
        ("ပုဂ္ဂိုလ်", ["ပု", "ဂ္ဂို", "လ်"]),
    ],
)
def test_words_in_many_scripts(text: str, words: list[str]) -> None:
    assert languages.split_words(text) == words


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("Hola, ¿qué tal estás hoy?", "es"),
        ("Ciao, come stai oggi?", "it"),
        ("Hello, how are you today?", "en"),
        ("Bonjour, comment vas-tu aujourd'hui ?", "fr"),
        ("नमस्ते, आप कैसे हैं?", "hi"),
        ("Hola,\n¿qué tal\nestás hoy?", "es"),  # fastText takes one line only
    ],
)
def test_the_language_of_a_text(text: str, code: str) -> None:
    assert languages.is_in(text, code)
    assert not languages.is_in(text, "de")
    assert 0.9 < languages.probability(text, code) <= 1.01  # fastText's sum of probabilities is a little over 1
    assert languages.probability(text, "yo") == 0


@pytest.mark.parametrize("text", ["", "   \n", "12345 ...", "😀"])
def test_a_text_without_letters_is_in_no_language(text: str) -> None:
    assert not any(languages.is_in(text, code) for code in languages.NAMES)
    assert languages.detect(text) == ()


def test_the_whole_of_a_long_text_counts() -> None:
    opening = "Buenos días a todos, hoy quiero hablar de la biblioteca de nuestra pequeña ciudad. "
    text = opening + "The library opens at nine and everybody in the town is welcome to read there all day. " * 6
    assert len(opening) > 80
    assert languages.is_in(opening, "es")
    assert languages.is_in(text, "en")
