"""The row types of the files in data/, declared once."""

import hashlib
import json
from typing import Annotated, Literal

from pydantic import Field

from mothertongue.rows import Row

Role = Literal["system", "user", "assistant"]
Split = Literal["train", "validation", "test"]


class Message(Row):
    """One turn."""

    role: Role
    content: str


class Rated(Row):
    """An answer and what people said of it: a higher score is better, in the source's own unit."""

    text: str
    score: float


class RatedTurn(Row):
    """Several answers to one turn of a conversation, in the order of the source; the best is the message after it."""

    turn: int  # place of that message, from 0
    answers: list[Rated]


def _is_empty(rated: list[object]) -> bool:
    return not rated


class Conversation(Row):
    """A path from an opening message to a last one, as its source gave it."""

    joined = False  # duplicates in a source have the same id; filters drop them
    id: str
    source: str
    language: str
    messages: Annotated[list[Message], Field(min_length=1)]
    unanswered: bool = False  # a prompt: models answer its last turn, and there is no expert's answer to learn
    rated: list[RatedTurn] = Field(default_factory=list, exclude_if=_is_empty)


class Thread(Row):
    """One assistant turn to learn: the turns before it, and the expert's answer.

    `reference` is None for a prompt without one, which is in split train: models answer it, and nothing else. `rated`
    are the answers that people rated, where the source has such; the best of them is the reference.
    """

    id: str
    conversation: str
    language: str
    group: str  # conversations with the same opening (a tree's branches) are not independent: one split, one group
    split: Split
    prompt: Annotated[list[Message], Field(min_length=1)]
    reference: str | None
    rated: list[Rated] = Field(default_factory=list, exclude_if=_is_empty)

    @property
    def expert(self) -> str:
        """The expert's answer, for rows that have one: all held-out ones. Raises ValueError for the others."""
        if self.reference is None:
            raise ValueError(f"thread {self.id!r} has no expert's answer")
        return self.reference


class Text(Row):
    """A text to pre-train on; those of split `validation` are for the curve of the loss only."""

    id: str
    source: str
    language: str
    split: Literal["train", "validation"]
    text: str


class Answer(Row):
    """One answer of one generator to one thread; `index` counts samples from 0, `tokens` includes the eos token."""

    id: str
    thread: str
    generator: str
    index: int
    text: str
    tokens: int
    finish: Literal["stop", "length"]


class Lineage(Row):
    """The answer that a side of a pair is, how it ended, and its score where a judge ranked."""

    answer: str
    generator: str
    finish: Literal["stop", "length"]  # length: cut at max_tokens, so that there is no eos token
    score: float | None  # None where a rule chooses by assumption


class Pair(Row):
    """Chosen and rejected answer, with the rule that paired them and the judge that ranked them.

    `prompt`, `chosen` and `rejected` are lists of messages, as TRL's DPOTrainer and other trainers read them.
    """

    id: str
    thread: str
    language: str
    split: Split
    rule: str
    judge: str
    prompt: Annotated[list[Message], Field(min_length=1)]
    chosen: Annotated[list[Message], Field(min_length=1, max_length=1)]
    rejected: Annotated[list[Message], Field(min_length=1, max_length=1)]
    chosen_from: Lineage
    rejected_from: Lineage

    @property
    def sides(self) -> tuple[tuple[str, Lineage], tuple[str, Lineage]]:
        """(text, lineage) of the chosen and of the rejected answer."""
        return (self.chosen[0].content, self.chosen_from), (self.rejected[0].content, self.rejected_from)


class RowCounts(Row):
    """Rows in, rows kept, and rows dropped by named reason."""

    total: int
    kept: int
    dropped: dict[str, int]

    def __str__(self) -> str:
        reasons = ", ".join(f"{reason} {count}" for reason, count in sorted(self.dropped.items()) if count)
        return f"{self.kept} of {self.total}" + (f" (dropped: {reasons})" if reasons else "")


def row_id(*parts: object) -> str:
    """A stable id: the first 16 hex digits of the SHA-256 of the parts as JSON."""
    return hashlib.sha256(json.dumps(parts, ensure_ascii=False).encode()).hexdigest()[:16]


def unit_hash(text: str) -> float:
    """A uniform number from 0 to 1 that depends on the text alone."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]) / 2**64


def reference_answer(thread: Thread) -> Answer:
    """The expert's answer as a row that judges can score; its generator is `reference`.

    Raises ValueError where there is none.
    """
    return Answer(
        id=row_id(thread.id, "reference", 0, thread.expert),
        thread=thread.id,
        generator="reference",
        index=0,
        text=thread.expert,
        tokens=0,
        finish="stop",
    )


def rated_answers(thread: Thread) -> list[Answer]:
    """The answers that people rated, in the order of `thread.rated`; their generator is `people`."""
    return [
        Answer(
            id=row_id(thread.id, "people", index, rated.text),
            thread=thread.id,
            generator="people",
            index=index,
            text=rated.text,
            tokens=0,
            finish="stop",
        )
        for index, rated in enumerate(thread.rated)
    ]
