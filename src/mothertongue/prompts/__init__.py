"""Prompt templates, one file per use and language: `<use>/<code>.txt`, with `<use>/en.txt` for all other languages."""

import hashlib
from collections.abc import Iterator
from importlib.resources import as_file, files
from pathlib import Path
from string import Formatter

from mothertongue import languages
from mothertongue.errors import BadInput


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


def check_templates() -> None:
    """Raises BadInput where a template has other fields than en.txt of the same use.

    Without the answer in it, a judge would score what it has not read.
    """
    with as_file(files(__name__)) as folder:
        for path in sorted(folder.rglob("*.txt")):
            found, wanted = ({*_find_fields(each)} - {"language"} for each in (path, path.with_name("en.txt")))
            for name in sorted(wanted - found):
                raise BadInput(f"{path}: lacks {{{name}}}, which en.txt has; add it")
            for name in sorted(found - wanted):
                raise BadInput(f"{path}: has {{{name}}}, which en.txt lacks; write {{{{ and }}}} for braces")


def _find_fields(path: Path) -> Iterator[str]:
    try:
        yield from (name for _, name, _, _ in Formatter().parse(path.read_text(encoding="utf-8")) if name is not None)
    except ValueError as error:
        raise BadInput(f"{path}: {error}; write {{{{ and }}}} for braces") from error


def list_uses(folder: str) -> list[str]:
    """The uses in a folder, such as `rubric/opening` and `rubric/request` in `rubric`."""
    return sorted(f"{folder}/{each.name}" for each in files(__name__).joinpath(folder).iterdir() if each.is_dir())
