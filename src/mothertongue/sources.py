"""Conversations and texts from packages, the Hugging Face hub and files: the one module that knows their places."""

from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Literal

from pydantic import ConfigDict

from mothertongue import languages, packages
from mothertongue.conversations import (
    Numbered,
    from_columns,
    from_exchanges,
    from_lima,
    from_messages,
    from_oasst_messages,
    from_oasst_trees,
    from_prompts,
    row_language,
)
from mothertongue.errors import BadInput
from mothertongue.params import (
    Conversations,
    FileConversations,
    FileTexts,
    HubConversations,
    HubTexts,
    PackageConversations,
    Raw,
    Texts,
)
from mothertongue.preferences import from_preferences, from_ratings, rename_sides
from mothertongue.records import Conversation, RowCounts, Text, row_id, unit_hash
from mothertongue.rows import Row, parse, read_objects

TEXTS_HELD_OUT = 50  # one text of so many is in split validation, drawn by its id


def read_sources(params: Raw, wanted: Sequence[str], folder: Path) -> tuple[list[Conversation], dict[str, RowCounts]]:
    """Conversations of all sources in the wanted languages, and for each source its number of messages, kept and
    dropped. `folder` holds the sources that are files."""
    conversations: list[Conversation] = []
    counts: dict[str, RowCounts] = {}
    for source in params.sources:
        name = _name(source)
        try:
            found, counted = _read(source, wanted, folder)
        except RecursionError as error:
            raise BadInput(f"{name}: a chain of replies goes too deep to follow; cut it into several") from error
        if not counted.total:
            raise BadInput(f"params.yaml: raw.sources: {name}: has no message; add some, or take it out")
        conversations += found
        counts[name] = counted
    return conversations, counts


class _Text(Row):
    """A row of a source of texts, which may have other fields as well."""

    model_config = ConfigDict(extra="ignore")
    text: str
    language: str | None = None
    lang: str | None = None


def read_texts(params: Raw, wanted: Sequence[str], folder: Path) -> tuple[list[Text], dict[str, RowCounts]]:
    """Texts of all sources in the wanted languages, and for each source its number of rows, kept and dropped.

    Texts without a visible character and exact duplicates are dropped, and those to train on that are not in the
    source's share. Held-out texts are the same ones for each share; their loss can be compared for one `max_length`.
    """
    texts: dict[str, Text] = {}
    counts: dict[str, RowCounts] = {}
    for source in params.texts:
        dropped = Counter(other_language=0, empty=0, duplicate=0, not_in_share=0)
        total = 0
        for where, found in _text_rows(source, folder):
            row, total = parse(_Text, found, where), total + 1
            language = row_language(row.language or row.lang, where, source.language, wanted)
            identity = row_id(language, row.text)
            held_out = int(identity, 16) % TEXTS_HELD_OUT == 0
            if language is None:
                dropped["other_language"] += 1
            elif not row.text.strip():
                dropped["empty"] += 1
            elif identity in texts:
                dropped["duplicate"] += 1
            elif not held_out and unit_hash(identity) >= source.share:
                dropped["not_in_share"] += 1
            else:
                split: Literal["train", "validation"] = "validation" if held_out else "train"
                texts[identity] = Text(id=identity, source=source.id, language=language, split=split, text=row.text)
        name = _name(source)
        if not total:
            raise BadInput(f"params.yaml: raw.texts: {name}: has no row; add some, or take it out")
        counts[f"{name} (texts)"] = RowCounts(total=total, kept=total - dropped.total(), dropped=dict(dropped))
    return list(texts.values()), counts


def _text_rows(source: Texts, folder: Path) -> Numbered:
    if isinstance(source, HubTexts):
        return _hub(source, "raw.texts")
    path = folder / source.id
    return ((f"{path}:{number}", row) for number, row in read_objects(path))


def _name(source: Conversations | Texts) -> str:
    match source:
        case PackageConversations():
            return f"{source.id} {source.language}" if source.language else source.id
        case HubConversations() | HubTexts():
            return " ".join(filter(None, (source.id, source.subset, source.split)))
        case FileConversations() | FileTexts():
            return source.id


def _read(source: Conversations, wanted: Sequence[str], folder: Path) -> tuple[list[Conversation], RowCounts]:
    match source:
        case PackageConversations():
            codes = [source.language] if source.language else wanted
            return from_exchanges(source.id, (row for code in codes for row in _corpus(source, code)))
        case HubConversations():
            return parse_source(source, _hub(source, "raw.sources"), wanted)
        case FileConversations():
            path = folder / source.id
            rows = ((f"{path}:{number}", row) for number, row in read_objects(path))
            return parse_source(source, rows, wanted)


def parse_source(
    source: HubConversations | FileConversations, rows: Numbered, wanted: Sequence[str]
) -> tuple[list[Conversation], RowCounts]:
    """The conversations of some rows of a source, with the number of messages kept and dropped."""
    find_language = partial(row_language, declared=source.language, wanted=wanted)
    match source.format:
        case "messages":
            return from_messages(source.id, rows, find_language)
        case "lima":
            return from_lima(source.id, rows, find_language)
        case "prompts":
            return from_prompts(source.id, rows, find_language)
        case "oasst_trees":
            return from_oasst_trees(source.id, rows, find_language, source.replies or "best")
        case "oasst_messages":
            return from_oasst_messages(source.id, rows, find_language, source.replies or "best")
        case "columns":
            assert source.columns is not None
            return from_columns(source.id, rows, find_language, source.columns)
        case "preferences":
            named = rows if source.sides is None else rename_sides(rows, source.sides)
            return from_preferences(source.id, named, find_language)
        case "ratings":
            assert source.ratings is not None
            return from_ratings(source.id, rows, find_language, source.ratings)


def _corpus(source: PackageConversations, language: str) -> Iterator[tuple[str, object]]:
    from ruamel.yaml import YAML

    folder = languages.corpus_folder(language)
    root = packages.locate_file(packages.find_package(source.id, source.revision), f"chatterbot_corpus/data/{folder}")
    for path in sorted(root.glob("*.yml")):
        for row in YAML(typ="safe", pure=True).load(path)["conversations"]:
            yield language, row


def _hub(source: HubConversations | HubTexts, section: str) -> Numbered:
    from datasets import load_dataset

    try:
        rows = load_dataset(source.id, source.subset, revision=source.revision, split=source.split)
    except (OSError, ValueError) as error:
        raise BadInput(
            f"params.yaml: {section}: {source.id} at {source.revision}: {' '.join(str(error).split())};"
            " correct id, revision, subset or split"
        ) from error
    return ((f"{source.id}: row {number}", row) for number, row in enumerate(rows, start=1))
