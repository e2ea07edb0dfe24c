"""One row per assistant turn, and the split that keeps a question on one side only."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Protocol, TypeVar

from mothertongue import languages
from mothertongue.params import Threads
from mothertongue.records import Conversation, Split, Tally, Thread, row_id

SPLITS: tuple[Split, ...] = ("test", "validation", "train")  # what stands in one is not in a later one


def cut(rows: Iterable[Conversation], params: Threads) -> tuple[list[Thread], Tally]:
    """Every assistant turn of every conversation, with the turns before it as its prompt.

    A turn that several conversations share (the branches of a tree) becomes one thread. A held-out prompt counts once,
    so that the items of a measurement are different questions. What is held out is not learned: a thread whose answer
    stands in a held-out one is dropped, as `held_out` where its last question does too, else as `held_out_answer`. The
    words are compared, letter case and punctuation aside; a text without words is compared as it is.
    """
    threads: dict[str, Thread] = {}
    dropped = Counter(repeated=0, empty=0, opening=0, repeated_held_out_prompt=0)
    held_out: set[str] = set()
    taken = 0
    for row in sorted(rows, key=lambda row: row.id):
        split, group = split_of(row, params), row_id(opening(row))
        for turn, message in enumerate(row.messages):
            if message.role != "assistant":
                continue
            taken += 1
            prompt = row.messages[:turn]
            asked = row_id([(m.role, m.content) for m in prompt])
            identity = row_id(asked, message.content)
            if not prompt or prompt[-1].role != "user":
                dropped["opening"] += 1
            elif not message.content.strip():
                dropped["empty"] += 1
            elif identity in threads:
                dropped["repeated"] += 1
            elif split != "train" and asked in held_out:
                dropped["repeated_held_out_prompt"] += 1
            else:
                held_out.add(asked)
                threads[identity] = Thread(
                    id=identity,
                    conversation=row.id,
                    group=group,
                    split=split,
                    prompt=prompt,
                    reference=message.content,
                )
    kept, twice = _apart(list(threads.values()))
    return kept, Tally(taken=taken, kept=len(kept), dropped=dict(dropped) | twice)


def _apart(rows: Sequence[Thread]) -> tuple[list[Thread], dict[str, int]]:
    """Threads without those whose answer stands in a split before theirs, and how many fell, by reason."""

    def said(text: str) -> object:
        return tuple(languages.words(text)) or text

    spoken = [(row, said(row.reference), said(row.prompt[-1].content)) for row in rows]
    answers: dict[object, Split] = {}
    exchanges: dict[object, Split] = {}
    for split in reversed(SPLITS):
        for row, answer, question in spoken:
            if row.split == split:
                answers[answer] = exchanges[question, answer] = split
    kept = []
    dropped = {"held_out": 0, "held_out_answer": 0}
    for row, answer, question in spoken:
        if row.split != exchanges[question, answer]:
            dropped["held_out"] += 1
        elif row.split != answers[answer]:
            dropped["held_out_answer"] += 1
        else:
            kept.append(row)
    return kept, dropped


class Identified(Protocol):
    """Whatever has an id."""

    @property
    def id(self) -> str:
        """A name of its own."""


R = TypeVar("R", bound=Identified)


def of_split(rows: Sequence[R], params: Threads, split: Split) -> list[R]:
    """The rows of a suite that belong to one held-out split: they are shared out as conversations are, by their ids."""
    validation = params.validation / (params.validation + params.test)
    sides = (("validation" if _place(row.id) < validation else "test", row) for row in rows)
    return [row for side, row in sides if side == split]


def split_of(row: Conversation, params: Threads) -> Split:
    """The split of a conversation, drawn from the words of its opening user message.

    The same question in another conversation, or in another branch of a tree, falls on the same side; a conversation
    that is added moves no other one.
    """
    place = _place(opening(row))
    if place < params.test:
        return "test"
    return "validation" if place < params.test + params.validation else "train"


def opening(row: Conversation) -> str:
    """The words of the opening user message, letter case and punctuation aside; its text where it has none, the id of a
    conversation without one."""
    text = next((m.content for m in row.messages if m.role == "user"), row.id)
    return " ".join(languages.words(text)) or text


def _place(text: str) -> float:
    """A number from 0 to 1 that is as good as drawn and depends on the text alone."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]) / 2**64
