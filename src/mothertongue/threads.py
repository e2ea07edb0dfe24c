"""One row per assistant turn, and its split: a question is in one split only."""

from collections import Counter
from collections.abc import Iterable, Sequence, Set
from typing import Protocol, TypeVar

from mothertongue import languages
from mothertongue.params import Threads
from mothertongue.records import Conversation, RowCounts, Split, Thread, row_id, unit_hash

SPLITS: tuple[Split, ...] = ("test", "validation", "train")  # a text that is in one is in no later one


def extract_threads(rows: Iterable[Conversation], params: Threads) -> tuple[list[Thread], RowCounts]:
    """Every assistant turn of every conversation, with the turns before it as its prompt.

    A turn that several conversations share (the branches of a tree) becomes one thread. A held-out prompt is kept once,
    so that the items of a measurement are different questions. A thread of another split with the answer of a held-out
    one is dropped: as `held_out` if it also has its last question, else as `held_out_answer`. Answers are those that
    people rated as well. Words are compared, ignoring case and punctuation; a text without words is compared as it is.

    Rows with the same prompt whose rated answers differ are threads of their own, because their scores need not have
    the same unit, and each is a pair to learn.

    A prompt without an answer becomes a thread of split train; with the opening of a held-out one it is dropped as
    `held_out`.
    """
    threads: dict[str, Thread] = {}
    dropped: Counter[str] = Counter(repeated=0, empty=0, opening=0, repeated_held_out_prompt=0)
    held_out: set[str] = set()
    total = 0
    rows = sorted(rows, key=lambda row: row.id)
    for row in rows:
        if row.unanswered:
            continue  # see below: which openings are held out is known only then
        split, group = assign_split(row, params), row_id(opening_words(row))
        rated = {each.turn: each.answers for each in row.rated}
        for turn, message in enumerate(row.messages):
            if message.role != "assistant":
                continue
            total += 1
            prompt = row.messages[:turn]
            asked = row_id([(m.role, m.content) for m in prompt])
            answers = rated.get(turn, [])
            more = [[(each.text, each.score) for each in answers]] if answers else []
            identity = row_id(asked, message.content, *more)
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
                    language=row.language,
                    group=group,
                    split=split,
                    prompt=prompt,
                    reference=message.content,
                    rated=answers,
                )
    kept, twice = _drop_held_out(list(threads.values()))
    prompts = [row for row in rows if row.unanswered]
    held_out_groups = {thread.group for thread in kept if thread.split != "train"}
    asked_only, lost = _extract_prompts(prompts, held_out_groups)
    counts = dropped + Counter(twice) + lost
    total += len(prompts)
    kept += asked_only
    return kept, RowCounts(
        total=total, kept=len(kept), dropped={reason: counts[reason] for reason in (*dropped, *twice)}
    )


def _extract_prompts(rows: Sequence[Conversation], held_out: Set[str]) -> tuple[list[Thread], Counter[str]]:
    """Prompts without an answer as threads, and the number dropped by each reason; `held_out` are groups."""
    found: dict[str, Thread] = {}
    dropped: Counter[str] = Counter()
    for row in rows:
        group = row_id(opening_words(row))
        identity = row_id(row_id([(m.role, m.content) for m in row.messages]), None)
        if group in held_out or identity in found:
            dropped["held_out" if group in held_out else "repeated"] += 1
            continue
        found[identity] = Thread(
            id=identity,
            conversation=row.id,
            language=row.language,
            group=group,
            split="train",
            prompt=row.messages,
            reference=None,
        )
    return list(found.values()), dropped


def _drop_held_out(rows: Sequence[Thread]) -> tuple[list[Thread], dict[str, int]]:
    """Threads without those whose answer is in an earlier split, and the number dropped by each reason."""

    def key(text: str) -> object:
        return tuple(languages.split_words(text)) or text

    keyed = [
        (row, {key(text) for text in (row.expert, *(each.text for each in row.rated))}, key(row.prompt[-1].content))
        for row in rows
    ]
    answers: dict[object, Split] = {}
    exchanges: dict[object, Split] = {}
    for split in reversed(SPLITS):
        for row, texts, question in keyed:
            if row.split == split:
                answers |= dict.fromkeys(texts, split)
                exchanges |= {(question, text): split for text in texts}
    kept = []
    dropped = {"held_out": 0, "held_out_answer": 0}
    for row, texts, question in keyed:
        if any(row.split != exchanges[question, text] for text in texts):
            dropped["held_out"] += 1
        elif any(row.split != answers[text] for text in texts):
            dropped["held_out_answer"] += 1
        else:
            kept.append(row)
    return kept, dropped


class Identified(Protocol):
    """A row with an id."""

    @property
    def id(self) -> str:
        """Its id."""


R = TypeVar("R", bound=Identified)


def select_split(rows: Sequence[R], params: Threads, split: Split) -> list[R]:
    """The rows of a suite that belong to one held-out split, drawn by their ids in the proportions of the threads."""
    validation = params.validation / (params.validation + params.test)
    sides = (("validation" if unit_hash(row.id) < validation else "test", row) for row in rows)
    return [row for side, row in sides if side == split]


def assign_split(row: Conversation, params: Threads) -> Split:
    """The split of a conversation, drawn from the words of its opening user message.

    The same question in another conversation, or in another branch of a tree, is in the same split; adding a
    conversation moves no other one.
    """
    place = unit_hash(opening_words(row))
    if place < params.test:
        return "test"
    return "validation" if place < params.test + params.validation else "train"


def opening_words(row: Conversation) -> str:
    """The words of the first user message, ignoring case and punctuation; its text where it has no words, or the id of
    a conversation without a user message."""
    text = next((m.content for m in row.messages if m.role == "user"), row.id)
    return " ".join(languages.split_words(text)) or text
