"""Prompt templates, one file per use and language: `<use>/<code>.txt`, with `<use>/en.txt` for all other languages."""

import hashlib
from importlib.resources import files

from mothertongue import languages


def render(use: str, language: str, **fields: str) -> str:
    """The template of a use, filled in. `{language}` is always the language's English name."""
    return _template(use, language).format(language=languages.english_name(language), **fields)


def digest(use: str, language: str) -> str:
    """The first 16 hex digits of the SHA-256 of a template, for the signatures of figures."""
    return hashlib.sha256(_template(use, language).encode()).hexdigest()[:16]


def _template(use: str, language: str) -> str:
    folder = files(__name__).joinpath(use)
    template = folder / f"{language}.txt"
    if not template.is_file():
        template = folder / "en.txt"
    return template.read_text(encoding="utf-8").strip()


def list_uses(folder: str) -> list[str]:
    """The uses in a folder, such as `rubric/opening` and `rubric/request` in `rubric`."""
    return sorted(f"{folder}/{each.name}" for each in files(__name__).joinpath(folder).iterdir() if each.is_dir())
