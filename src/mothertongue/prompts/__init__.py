"""Prompt templates: one file per use and language, `<use>.<code>.txt`, with `<use>.txt` in English for the rest."""

import hashlib
from importlib.resources import files

from mothertongue import languages


def text(use: str, language: str, **fields: str) -> str:
    """The template of a use, filled in. `{language}` is always the language's English name."""
    return _template(use, language).format(language=languages.name(language), **fields)


def digest(use: str, language: str) -> str:
    """What a figure's signature says of the template, 16 hex digits."""
    return hashlib.sha256(_template(use, language).encode()).hexdigest()[:16]


def _template(use: str, language: str) -> str:
    folder = files(__name__)
    template = folder / f"{use}.{language}.txt"
    if not template.is_file():
        template = folder / f"{use}.txt"
    return template.read_text(encoding="utf-8").strip()
