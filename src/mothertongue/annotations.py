"""The row types of data/human: answers that people have judged.

They are apart from records.py, on which the training of adapters depends.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from mothertongue import languages
from mothertongue.errors import BadInput
from mothertongue.records import Message, row_id
from mothertongue.rows import NonBlank, Row, read_rows


class Annotation(Row):
    """One person's judgment of an item's answers: a score of each of them, or the better one of two."""

    annotator: NonBlank
    scores: list[float] | None = None  # higher is better
    preferred: Annotated[int, Field(ge=0, le=2)] | None = None  # 1 the first, 2 the second, 0 equally good

    @property
    def values(self) -> list[float]:
        """A number for each answer; of a preference 1 for the better one, 0 for the other."""
        return self.scores if self.scores is not None else [float(self.preferred == 1), float(self.preferred == 2)]


class AnnotatedItem(Row):
    """A question, one or more answers, and what people said of them."""

    id: NonBlank
    language: str
    prompt: Annotated[list[Message], Field(min_length=1)]
    answers: Annotated[list[str], Field(min_length=1)]
    annotations: list[Annotation]  # empty on a sheet that nobody has filled
    origins: list[str] | None = None  # of each answer: a generator, or reference; where it is known

    @property
    def group(self) -> str:
        """The same for items whose conversations open with the same words of a user: they are not independent.

        It is that of a thread which opens alike.
        """
        text = next(turn.content for turn in self.prompt if turn.role == "user")
        return row_id(" ".join(languages.split_words(text)) or text)

    @model_validator(mode="after")
    def _check(self) -> "AnnotatedItem":
        for each in self.annotations:
            if (each.scores is None) == (each.preferred is None):
                raise PydanticCustomError("annotation", f"{each.annotator!r} should have either scores or preferred")
            if len(each.values) != len(self.answers):
                what = f"{each.annotator!r} judges {len(each.values)} answers, and there are {len(self.answers)}"
                raise PydanticCustomError("annotation", what)
        if len({each.annotator for each in self.annotations}) < len(self.annotations):
            raise PydanticCustomError("annotation", "an annotator is there twice")
        if self.origins is not None and len(self.origins) != len(self.answers):
            what = f"there are {len(self.origins)} origins of {len(self.answers)} answers"
            raise PydanticCustomError("origins", what)
        if self.prompt[-1].role != "user":
            raise PydanticCustomError("prompt", "the prompt should end with a turn of the user")
        return self


def read_items(folder: Path) -> list[AnnotatedItem]:
    """All items of the JSONL files in a folder, sorted by id; those of several people are put together.

    Raises BadInput for an item that is wrong, that nobody has judged, or that is another one elsewhere, and for a file
    that is no JSONL.
    """
    found: dict[str, AnnotatedItem] = {}
    files = [path for path in folder.iterdir() if path.name[0] != "." and path.name[-1] != "~"]
    for path in sorted(path for path in files if path.name != "README.md"):
        if path.suffix != ".jsonl":
            raise BadInput(f"{path}: no .jsonl file; read a table in with stages.annotate, or take the file away")
        for item in read_rows(path, AnnotatedItem):
            where = f"{path}: item {item.id!r}"
            if item.language not in languages.NAMES:
                known = ", ".join(languages.NAMES)
                raise BadInput(f"{where}: unknown language {item.language!r}; take one of {known}")
            if not item.annotations:
                raise BadInput(f"{where}: nobody has judged it; add an annotation, or delete it")
            if not (before := found.get(item.id)):
                found[item.id] = item
                continue
            if before.model_copy(update={"annotations": item.annotations}) != item:
                raise BadInput(f"{where}: another item of a file before has this id; change one of them")
            people = {each.annotator for each in before.annotations}
            if twice := sorted(people & {each.annotator for each in item.annotations}):
                raise BadInput(f"{where}: {twice[0]!r} has judged it in a file before; delete one of them")
            found[item.id] = item.model_copy(update={"annotations": [*before.annotations, *item.annotations]})
    _check_names(folder, found.values())
    return [item for _, item in sorted(found.items())]


def _check_names(folder: Path, items: Iterable[AnnotatedItem]) -> None:
    """Raises BadInput for two names that are probably one person's: as two people they would agree with themselves."""
    spelled: dict[str, str] = {}
    for name in sorted({each.annotator for item in items for each in item.annotations}):
        plain = " ".join(name.casefold().split())
        if spelled.setdefault(plain, name) != name:
            what = f"annotators {spelled[plain]!r} and {name!r} differ in capitals or spaces alone"
            raise BadInput(f"{folder}: {what}; write one person's name in one way, and two people's in two")
