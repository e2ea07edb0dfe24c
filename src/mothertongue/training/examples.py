"""Rows as token ids to train on. No row is cut: one that is too long is left out whole and counted."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from mothertongue.chat import Chat
from mothertongue.errors import BadInput
from mothertongue.params import CPT, SFT, Preference, Step
from mothertongue.records import Pair, Text, Thread

IGNORED = -100  # label of a token that is no target, as torch's cross-entropy has it
T = TypeVar("T")
Ids = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Conversation:
    """Token ids of a whole conversation; `labels` are IGNORED outside of the answers that are learned."""

    input_ids: list[int]
    labels: list[int]


@dataclass(frozen=True, slots=True)
class Sides:
    """Token ids of a pair. `prompt` is what both sides share; an answer that was cut has no end token."""

    prompt: Ids
    chosen: Ids
    rejected: Ids


@dataclass(frozen=True, slots=True)
class Probe:
    """A held-out prompt that is answered during training; the expert's answer is cut where that answer will be."""

    prompt: Ids
    language: str
    expert: str


@dataclass(frozen=True, slots=True)
class Examples:
    """What a step trains on and is measured on; `report` has numbers of rows and of tokens."""

    train: Sequence[Any]
    validation: Sequence[Any]
    probes: Sequence[Probe]
    report: dict[str, Any]


def encode(rows: Sequence[Any], step: Step, chat: Chat, name: str) -> Examples:
    """The rows of splits `train` and `validation` as the step's method learns them; split `test` is for nothing here.

    Of pairs, those of the step's rules. Raises BadInput when there is nothing to train on, or too much would be left
    out.
    """
    if isinstance(step, Preference) and step.rules is not None:
        rows = [row for row in rows if row.rule in step.rules]
    asked = [row for row in rows if row.split == "train"]
    train = [row for row in asked if not isinstance(row, Thread) or row.reference is not None]
    held_out = [row for row in rows if row.split == "validation"]
    if isinstance(step, CPT):
        return _encode_texts(train, held_out, step, chat)
    probes = _encode_probes(held_out, step, chat)
    if isinstance(step, SFT):
        distinct = drop_repeated(train)
        conversations = encode_conversations(distinct, chat), encode_conversations(held_out, chat)
        found = _select(*conversations, probes, "conversations", step, name)
        found.report["no_reference"] = len(asked) - len(train)
        found.report["repeated"] = len(train) - len(distinct)
        return found
    pairs, others = ([encode_pair(row, chat) for row in part] for part in (train, held_out))
    return _select(pairs, others, probes, "pairs", step, name)


def drop_repeated(threads: Sequence[Thread]) -> list[Thread]:
    """Each prompt with the same expert's answer once, where that was preferred to several others."""

    def key(thread: Thread) -> object:
        return tuple((turn.role, turn.content) for turn in thread.prompt), thread.expert

    seen = {key(thread) for thread in threads if not thread.rated}
    found = []
    for thread in threads:
        if not thread.rated or key(thread) not in seen:
            seen.add(key(thread))
            found.append(thread)
    return found


def encode_conversations(threads: Sequence[Thread], chat: Chat) -> list[Conversation]:
    """One example for each conversation: its longest thread, with the answers of all its threads as targets.

    A conversation whose rendering depends on what follows (templates that drop earlier reasoning) gives several
    examples. An answer without a thread of its own, because a filter dropped it, is no target. All threads have an
    expert's answer.
    """
    found: list[Conversation] = []
    together: dict[str, list[Thread]] = {}
    for thread in threads:
        together.setdefault(thread.conversation, []).append(thread)
    for rows in together.values():
        made: list[Conversation] = []
        for thread in sorted(rows, key=lambda row: (-len(row.prompt), row.id)):
            prompt, answer = chat.encode_example(thread.prompt, thread.expert)
            ids = [*prompt, *answer]
            whole = next((each for each in made if each.input_ids[: len(ids)] == ids), None)
            if whole is None:
                made.append(whole := Conversation(ids, [IGNORED] * len(ids)))
            whole.labels[len(prompt) : len(ids)] = answer
        found += made
    return found


def encode_pair(pair: Pair, chat: Chat) -> Sides:
    """Where the two sides begin at different places, the prompt is what both share, as in TRL."""
    sides = [chat.encode_example(pair.prompt, text, ended=lineage.finish == "stop") for text, lineage in pair.sides]
    shared = min(len(prompt) for prompt, _ in sides)
    chosen, rejected = ((*prompt, *answer) for prompt, answer in sides)
    return Sides(chosen[:shared], chosen[shared:], rejected[shared:])


def count_tokens(example: Conversation | Sides) -> int:
    """Tokens of a conversation, or of a pair's prompt and longer side."""
    if isinstance(example, Conversation):
        return len(example.input_ids)
    return len(example.prompt) + max(len(example.chosen), len(example.rejected))


def _encode_texts(train: Sequence[Text], held_out: Sequence[Text], step: CPT, chat: Chat) -> Examples:
    """Texts with an end token each, one after the other, cut into rows of `max_length`; the last row may be shorter."""

    def cut(rows: Sequence[Text]) -> list[list[int]]:
        ids: list[int] = []
        for row in rows:
            text = chat.escape_control_tokens(row.text)
            ids += [*chat.tokenizer(text, add_special_tokens=False)["input_ids"], chat.eos_token_ids[0]]
        return [ids[start : start + step.max_length] for start in range(0, len(ids), step.max_length)]

    if not train:
        raise BadInput("data/texts.jsonl: no text to train on; add a source to raw.texts")
    rows, others = cut(train), cut(held_out)
    report = {"texts": len(train), "rows": len(rows), "tokens": sum(map(len, rows))}
    return Examples(rows, others, (), report | {"validation": {"texts": len(held_out), "rows": len(others)}})


def _encode_probes(held_out: Sequence[Thread | Pair], step: SFT | Preference, chat: Chat) -> list[Probe]:
    """The first held-out prompts by thread, each once: those of SFT are those of pairs, so that curves go on."""
    found: dict[Ids, Probe] = {}
    for row in sorted(held_out, key=lambda row: row.id if isinstance(row, Thread) else row.thread):
        if len(found) == step.health.prompts:
            break
        prompt = chat.encode_prompt(row.prompt)
        expert = row.expert if isinstance(row, Thread) else row.chosen[0].content
        _, answer = chat.encode_answer(row.prompt, expert)
        if len(prompt) + step.health.tokens <= step.max_length:
            found.setdefault(prompt, Probe(prompt, row.language, chat.decode(answer[: step.health.tokens])))
    return list(found.values())


def _select(
    train: Sequence[T],
    validation: Sequence[T],
    probes: Sequence[Probe],
    noun: str,
    step: SFT | Preference,
    name: str,
) -> Examples:
    """The examples that fit into `max_length`, longest first: neighbours are of similar length, and freed memory is
    large enough for the next batch."""
    source = f"data/{step.data}.jsonl"
    if not train:
        what = (
            "loosen pairs.rules, see metrics/pairs.json"
            if noun == "pairs"
            else "loosen filtered, see metrics/filtered.json"
        )
        raise BadInput(f"{source}: no {noun[:-1]} to train on; {what} for the reasons")
    kept, sizes = _longest_first(train, step.max_length)
    left_out = len(train) - len(kept)
    if left_out / len(train) > step.max_left_out or not kept:
        what = (
            f"over adapter.{name}.max_left_out {step.max_left_out:g}; raise one of them"
            if kept
            else "and none is left; raise it"
        )
        raise BadInput(
            f"{source}: {left_out} of {len(train)} {noun} are longer than adapter.{name}.max_length"
            f" {step.max_length} (the longest has {sizes[-1]} tokens), {what}"
        )
    held_out, _ = _longest_first(validation, step.max_length)
    if validation and not held_out:
        raise BadInput(
            f"{source}: all {len(validation)} held-out {noun} are longer than adapter.{name}.max_length"
            f" {step.max_length}; raise it"
        )
    report = {
        noun: len(train),
        "left_out": left_out,
        "tokens": {
            "median": sizes[len(sizes) // 2],
            "95th_percentile": sizes[math.ceil(0.95 * len(sizes)) - 1],
            "longest": sizes[-1],
            "max_length": step.max_length,
        },
        "validation": {noun: len(validation), "left_out": len(validation) - len(held_out), "probes": len(probes)},
    }
    return Examples(kept, held_out, probes, report)


def _longest_first(examples: Sequence[Any], longest: int) -> tuple[list[Any], list[int]]:
    """Examples that fit, and the sizes of all, in order of size."""
    sizes = [count_tokens(example) for example in examples]
    ordered = sorted(zip(sizes, examples, strict=True), key=lambda sized: -sized[0])
    return [example for size, example in ordered if size <= longest], sorted(sizes)
