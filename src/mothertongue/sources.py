"""Conversations from packages, the Hugging Face hub and files: the one module that knows where they are stored."""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from mothertongue import languages, packages
from mothertongue.conversations import (
    Numbered,
    from_exchanges,
    from_messages,
    from_oasst_messages,
    from_oasst_trees,
    row_language,
)
from mothertongue.errors import BadInput
from mothertongue.params import Conversations, FileConversations, HubConversations, PackageConversations, Raw
from mothertongue.records import Conversation, RowCounts
from mothertongue.rows import read_objects


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


def _name(source: Conversations) -> str:
    match source:
        case PackageConversations():
            return f"{source.id} {source.language}" if source.language else source.id
        case HubConversations():
            return f"{source.id} {source.split}"
        case FileConversations():
            return source.id


def _read(source: Conversations, wanted: Sequence[str], folder: Path) -> tuple[list[Conversation], RowCounts]:
    match source:
        case PackageConversations():
            codes = [source.language] if source.language else wanted
            return from_exchanges(source.id, (row for code in codes for row in _corpus(source, code)))
        case HubConversations():
            return _parse(source, _hub(source), wanted)
        case FileConversations():
            path = folder / source.id
            rows = ((f"{path}:{number}", row) for number, row in read_objects(path))
            return _parse(source, rows, wanted)


def _parse(
    source: HubConversations | FileConversations, rows: Numbered, wanted: Sequence[str]
) -> tuple[list[Conversation], RowCounts]:
    find_language = partial(row_language, declared=source.language, wanted=wanted)
    match source.format:
        case "messages":
            return from_messages(source.id, rows, find_language)
        case "oasst_trees":
            return from_oasst_trees(source.id, rows, find_language, source.replies or "best")
        case "oasst_messages":
            return from_oasst_messages(source.id, rows, find_language, source.replies or "best")


def _corpus(source: PackageConversations, language: str) -> Iterator[tuple[str, object]]:
    from ruamel.yaml import YAML

    folder = languages.corpus_folder(language)
    root = packages.locate_file(packages.find_package(source.id, source.revision), f"chatterbot_corpus/data/{folder}")
    for path in sorted(root.glob("*.yml")):
        for row in YAML(typ="safe", pure=True).load(path)["conversations"]:
            yield language, row


def _hub(source: HubConversations) -> Numbered:
    from datasets import load_dataset

    try:
        rows = load_dataset(source.id, revision=source.revision, split=source.split)
    except (OSError, ValueError) as error:
        raise BadInput(
            f"params.yaml: raw.sources: {source.id} at {source.revision}: {' '.join(str(error).split())};"
            " correct id, revision or split"
        ) from error
    return ((f"{source.id}: row {number}", row) for number, row in enumerate(rows, start=1))
