"""The row types of every file under data/ and metrics/, declared once; reading and writing them."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import PydanticCustomError

from mothertongue.errors import BadInput
from mothertongue.files import new_file

Role = Literal["system", "user", "assistant"]
Split = Literal["train", "validation", "test"]


class Row(BaseModel):
    """What all rows share: nothing unknown, nothing converted, nothing changed after reading, no NaN."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", allow_inf_nan=False)
    joined: ClassVar[bool] = True  # rows are joined by their id, so that a file holds each once


def _said(text: str) -> str:
    if not text.strip():
        raise PydanticCustomError("blank", "there should be text")
    return text


Said = Annotated[str, AfterValidator(_said)]  # not empty, and not white space alone


class Message(Row):
    """One turn."""

    role: Role
    content: str


class Conversation(Row):
    """A path from an opening message to a last one, as its source gave it."""

    joined = False  # what a source says twice has the same id; filters drop it
    id: str
    source: str
    messages: Annotated[list[Message], Field(min_length=1)]


class Thread(Row):
    """One assistant turn to learn: the turns before it, and what the expert said."""

    id: str
    conversation: str
    group: str  # conversations that open alike (a tree's branches) are not independent: one split, drawn together
    split: Split
    prompt: Annotated[list[Message], Field(min_length=1)]
    reference: str


class Answer(Row):
    """What one generator said to one thread; `index` counts its samples from 0, `tokens` includes the end token."""

    id: str
    thread: str
    generator: str
    index: int
    text: str
    tokens: int
    finish: Literal["stop", "length"]


class Verdict(Row):
    """What one judge said of one answer. `score` is in the judge's unit and there only with outcome `score`."""

    id: str
    thread: str
    answer: str
    judge: str
    outcome: Literal["score", "unparsed", "error"]
    score: float | None
    mass: float | None  # probability that the score tokens held together; None for a judge without tokens


class Side(Row):
    """One side of a pair: the answer it came from, how that ended, and its score where a judge ranked."""

    answer: str
    generator: str
    text: str
    finish: Literal["stop", "length"]  # length: cut at max_tokens, so that no end token was said
    score: float | None  # None where a rule chooses by assumption


class Pair(Row):
    """Chosen and rejected, with the rule that paired them and the judge that ranked."""

    id: str
    thread: str
    split: Split
    rule: str
    judge: str
    prompt: Annotated[list[Message], Field(min_length=1)]
    chosen: Side
    rejected: Side


class Tally(Row):
    """Rows in, rows kept, and rows dropped by named reason."""

    taken: int
    kept: int
    dropped: dict[str, int]

    def __str__(self) -> str:
        reasons = ", ".join(f"{reason} {count}" for reason, count in sorted(self.dropped.items()) if count)
        return f"{self.kept} of {self.taken}" + (f" (dropped: {reasons})" if reasons else "")


class Item(Row):
    """One measured item of one figure: sufficient statistics that add up over items (see significance.KINDS)."""

    joined = False  # an item has a row for each figure
    id: str
    group: (
        str  # items of one group (the turns of a conversation, its branches) depend on each other, are drawn together
    )
    figure: str
    values: list[float]
    text: str  # what the model said, where it said something


class Estimate(Row):
    """A value with its 95 % interval over n items, and what must be equal before it may be compared."""

    value: float
    low: float
    high: float
    n: int  # items that decide it
    groups: int  # of items that depend on each other; the figure rests on that many independent observations
    kind: str
    signature: str


class Difference(Row):
    """A value minus another over the same items, with its paired 95 % interval and the p-value of no difference."""

    value: float
    low: float
    high: float
    p: float  # of this difference alone; a page of many adjusts it (significance.holm)
    n: int
    groups: int
    kind: str
    signature: str


class Worth(Row):
    """What a judge's scores of one generator's samples tell: means of both sides, and how often the expert is over."""

    samples: int
    unscored: int  # samples that have no score, or whose expert has none: in none of the figures
    figures: dict[str, Estimate]  # expert, sample; judge, longer, language; empty where nothing has a score


R = TypeVar("R", bound=Row)


def row_id(*parts: object) -> str:
    """A stable id: the first 16 hex digits of the SHA-256 of the parts as JSON."""
    return hashlib.sha256(json.dumps(parts, ensure_ascii=False).encode()).hexdigest()[:16]


def reference_answer(thread: Thread) -> Answer:
    """The expert's answer as a row that judges can score; its generator is `reference`."""
    return Answer(
        id=row_id(thread.id, "reference", 0, thread.reference),
        thread=thread.id,
        generator="reference",
        index=0,
        text=thread.reference,
        tokens=0,
        finish="stop",
    )


def read_lines(path: Path) -> Iterable[tuple[int, str]]:
    """Numbered lines of a UTF-8 text file, without their line ends. Raises BadInput on bytes that are not UTF-8."""
    try:
        file = path.open("rb")
    except OSError as error:
        raise BadInput(
            f"{path}: cannot be read ({error.strerror}); put it there, or run the stage that makes it"
        ) from error
    with file:
        for number, line in enumerate(file, start=1):
            try:
                # A byte order mark is no part of the first line.
                yield number, line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
            except UnicodeDecodeError as error:
                raise BadInput(
                    f"{path}:{number}: not UTF-8 (byte 0x{line[error.start]:02x} at position {error.start + 1});"
                    " save the file as UTF-8"
                ) from error


def read_objects(path: Path) -> Iterable[tuple[int, dict[str, object]]]:
    """Numbered JSON objects of a JSONL file, empty lines left out. Raises BadInput on a line that is not one."""
    for number, line in read_lines(path):
        if not line.strip():
            continue
        try:
            value = json.loads(line, object_pairs_hook=_once)
            json.dumps(value, ensure_ascii=False).encode()
        except KeyError as error:
            raise BadInput(
                f"{path}:{number}: {error.args[0]}: stands twice in one object, and only one could count; delete one"
            ) from error
        except UnicodeEncodeError as error:
            raise BadInput(
                f"{path}:{number}: half a character (\\u{ord(error.object[error.start]):04x} without its other half);"
                " write the whole character or delete it"
            ) from error
        except json.JSONDecodeError as error:
            raise BadInput(
                f"{path}:{number}: not JSON ({error.msg} at character {error.pos + 1}); mend or delete the line"
            ) from error
        except (ValueError, RecursionError) as error:
            raise BadInput(f"{path}:{number}: too large a number or too deep a nesting; delete the line") from error
        if not isinstance(value, dict):
            raise BadInput(f"{path}:{number}: not a JSON object; write one object per line")
        yield number, value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON. Raises KeyError where a key stands twice: json would keep the last in silence."""
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise KeyError(key)
        found[key] = value
    return found


def read_rows(path: Path, kind: type[R]) -> list[R]:
    """All rows of a JSONL file. Raises BadInput as `file:line: field: what is wrong; what to do`."""
    rows: list[R] = []
    lines: dict[str, int] = {}
    for number, value in read_objects(path):
        rows.append(row := parse(kind, value, f"{path}:{number}"))
        if kind.joined and (before := lines.setdefault(row.id, number)) != number:  # type: ignore[attr-defined]
            raise BadInput(f"{path}:{number}: id: {value['id']!r} stands in line {before} already; delete one of them")
    return rows


def parse(kind: type[R], value: object, where: str) -> R:
    """Check one row. Raises BadInput as `where: field: what is wrong; what to do`."""
    try:
        return kind.model_validate_json(json.dumps(value, default=str))  # data sets hold dates, too
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "row"
        if first["type"] == "missing":
            what = "missing; add it"
        elif first["type"] == "extra_forbidden":
            what = "unknown field; remove it"
        else:
            what = f"{first['msg'][0].lower()}{first['msg'][1:]}, got {json.dumps(first['input'])[:60]}; mend the row"
        raise BadInput(f"{where}: {field}: {what}") from error


def write_rows(path: Path, rows: Iterable[Row], key: str = "id") -> None:
    """Write rows as JSONL, sorted by `key`, atomically. Raises BadInput when the disk is full."""
    ordered = sorted(rows, key=lambda row: str(getattr(row, key)))
    with new_file(path) as file:
        file.writelines(row.model_dump_json().encode() + b"\n" for row in ordered)


def write_json(path: Path, value: object) -> None:
    """Write one JSON document, keys sorted, atomically. Raises BadInput when the disk is full."""
    with new_file(path) as file:
        text = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
        file.write(text.encode() + b"\n")


def by_id(rows: Sequence[R]) -> dict[str, R]:
    """Rows under their id, to join by."""
    return {row.id: row for row in rows}  # type: ignore[attr-defined]
