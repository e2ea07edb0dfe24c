"""Where conversations come from: packages, the Hugging Face hub, files. The one room that knows where they lie."""

from collections.abc import Iterator
from pathlib import Path

from mothertongue import languages, packages
from mothertongue.conversations import (
    Numbered,
    from_exchanges,
    from_messages,
    from_oasst_messages,
    from_oasst_trees,
)
from mothertongue.errors import BadInput
from mothertongue.params import Conversations, FileConversations, HubConversations, PackageConversations, Raw
from mothertongue.records import Conversation, Tally, read_objects


def read(params: Raw, language: str, folder: Path) -> tuple[list[Conversation], dict[str, Tally]]:
    """Conversations of all sources, and for each source its tally in messages. `folder` holds the files."""
    languages.name(language)
    conversations: list[Conversation] = []
    tallies: dict[str, Tally] = {}
    for source in params.sources:
        name = f"{source.id} {source.split}" if isinstance(source, HubConversations) else source.id
        try:
            found, tally = _read(source, language, folder)
        except RecursionError as error:
            raise BadInput(f"{name}: a chain of replies goes too deep to follow; cut it into several") from error
        if not tally.taken:
            raise BadInput(f"params.yaml: raw.sources: {name}: holds no message; fill it, or take it out")
        conversations += found
        tallies[name] = tally
    return conversations, tallies


def _read(source: Conversations, language: str, folder: Path) -> tuple[list[Conversation], Tally]:
    match source:
        case PackageConversations():
            return from_exchanges(source.id, _corpus(source, languages.corpus_folder(language)))
        case HubConversations():
            return _parsed(source, _hub(source))
        case FileConversations():
            path = folder / source.id
            rows = ((f"{path}:{number}", row) for number, row in read_objects(path))
            return _parsed(source, rows)


def _parsed(source: HubConversations | FileConversations, rows: Numbered) -> tuple[list[Conversation], Tally]:
    match source.format:
        case "messages":
            return from_messages(source.id, rows)
        case "oasst_trees":
            return from_oasst_trees(source.id, rows, source.replies)
        case "oasst_messages":
            return from_oasst_messages(source.id, rows, source.replies)


def _corpus(source: PackageConversations, folder: str) -> Iterator[tuple[str, object]]:
    from ruamel.yaml import YAML

    root = packages.place(packages.installed(source.id, source.revision), f"chatterbot_corpus/data/{folder}")
    for path in sorted(root.glob("*.yml")):
        for number, row in enumerate(YAML(typ="safe", pure=True).load(path)["conversations"], start=1):
            yield f"{folder}/{path.name}: conversation {number}", row


def _hub(source: HubConversations) -> Numbered:
    from datasets import load_dataset

    try:
        rows = load_dataset(source.id, revision=source.revision, split=source.split)
    except (OSError, ValueError) as error:
        raise BadInput(
            f"params.yaml: raw.sources: {source.id} at {source.revision}: {' '.join(str(error).split())};"
            " mend id, revision or split"
        ) from error
    return ((f"{source.id}: row {number}", row) for number, row in enumerate(rows, start=1))
