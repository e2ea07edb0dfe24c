"""Rows as token ids: what is a target, what is left out, and what is cut into rows."""

from collections.abc import Callable, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
from conftest import make_pair, make_step, make_thread

from mothertongue.chat import Chat
from mothertongue.errors import BadInput
from mothertongue.records import Message, Rated, Split, Text, Thread
from mothertongue.training.examples import (
    IGNORED,
    Conversation,
    Probe,
    Sides,
    count_tokens,
    drop_repeated,
    encode,
    encode_conversations,
    encode_pair,
)


class Characters:
    """A rendering with one token a character, and two around an answer."""

    def encode_prompt(self, messages: Sequence[Message]) -> tuple[int, ...]:
        return tuple(map(ord, messages[-1].content))

    def encode_example(
        self, messages: Sequence[Message], answer: str, *, ended: bool = True
    ) -> tuple[tuple[int, ...], tuple[int, ...]]:
        return self.encode_prompt(messages), (1, *map(ord, answer), *([2] if ended else []))

    encode_answer = encode_example

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(chr(token) for token in ids if token > 2)


CHARACTERS: Any = Characters()


def learned(example: Conversation, chat: Chat) -> list[str]:
    """The texts that are targets, in their order. A target is the token in its place."""
    pairs = list(zip(example.input_ids, example.labels, strict=True))
    assert all(label in (IGNORED, token) for token, label in pairs)
    runs = ([token for token, _ in run] for target, run in groupby(pairs, lambda p: p[1] != IGNORED) if target)
    return [chat.tokenizer.decode(run) for run in runs]


ONE = ("Hola", "Buenas")
TWO = (*ONE, "¿Qué tal?", "Bien")
THREE = (*TWO, "Adiós", "Hasta luego")


@pytest.mark.parametrize(
    ("threads", "expected"),
    [
        ([ONE], ["Buenas"]),
        ([ONE, TWO, THREE], ["Buenas", "Bien", "Hasta luego"]),
        ([THREE, ONE, TWO], ["Buenas", "Bien", "Hasta luego"]),
        # a filter dropped the other answers
        ([THREE], ["Hasta luego"]),
        ([ONE, THREE], ["Buenas", "Hasta luego"]),
    ],
)
def test_every_answer_with_a_thread_is_a_target_of_one_example(
    chat: Chat, threads: list[tuple[str, ...]], expected: list[str]
) -> None:
    (example,) = encode_conversations([make_thread(*turns) for turns in threads], chat)
    longest = max(threads, key=len)
    roles = ["assistant" if place % 2 else "user" for place in range(len(longest))]
    whole = "".join(f"<|im_start|>{role}\n{text}<|im_end|>\n" for role, text in zip(roles, longest, strict=True))
    assert chat.tokenizer.decode(example.input_ids) == whole
    assert learned(example, chat) == [f"{answer}<|im_end|>\n" for answer in expected]


def test_each_conversation_has_an_example(chat: Chat) -> None:
    """Also where one has the text of another."""
    threads = [make_thread(*turns, conversation=name) for turns in (ONE, TWO) for name in ("b", "a")]
    threads.append(make_thread(*ONE, conversation="c"))
    found = encode_conversations(threads, chat)
    assert [learned(example, chat) for example in found] == [
        ["Buenas<|im_end|>\n", "Bien<|im_end|>\n"],
        ["Buenas<|im_end|>\n", "Bien<|im_end|>\n"],
        ["Buenas<|im_end|>\n"],
    ]


THINKING = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.role == 'assistant' and loop.last %}<think>{% endif %}{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def test_a_conversation_that_is_rendered_anew_after_each_turn_has_several_examples(
    tokenizer: Callable[..., Path],
) -> None:
    """As with templates of reasoning models, which leave out the reasoning of all answers but the last."""
    chat = Chat(tokenizer(template=THINKING))
    found = encode_conversations([make_thread(*ONE), make_thread(*TWO)], chat)
    assert [learned(example, chat) for example in found] == [["<think>Bien<|im_end|>\n"], ["<think>Buenas<|im_end|>\n"]]
    assert "Buenas<|im_end|>" in chat.tokenizer.decode(found[0].input_ids)


def test_no_thread_is_no_example(chat: Chat) -> None:
    assert encode_conversations([], chat) == []


@pytest.mark.parametrize(("cut", "end"), [(False, (2,)), (True, ())])
def test_a_cut_side_has_no_end(cut: bool, end: tuple[int, ...]) -> None:
    x = ord("x")
    assert encode_pair(make_pair(2, 3, asked="12", cut=cut), CHARACTERS) == Sides(
        prompt=(ord("1"), ord("2")), chosen=(1, x, x, 2), rejected=(1, x, x, x, *end)
    )


def test_the_prompt_is_what_both_sides_share() -> None:
    """Where the first characters of one answer are in one token with the last of the prompt."""

    class Merging:
        def encode_example(self, _: Any, answer: str, **__: bool) -> tuple[tuple[int, ...], tuple[int, ...]]:
            return ((7, 8), (5,)) if answer == "xx" else ((7,), (89, 6))

    merging: Any = Merging()
    assert encode_pair(make_pair(2, 1), merging) == Sides(prompt=(7,), chosen=(8, 5), rejected=(89, 6))
    assert encode_pair(make_pair(1, 2), merging) == Sides(prompt=(7,), chosen=(89, 6), rejected=(8, 5))


@pytest.mark.parametrize(
    ("example", "expected"),
    [
        (Conversation([1, 2, 3], [IGNORED] * 3), 3),
        (Sides((1, 2), (3,), (4, 5, 6)), 5),
        (Sides((1, 2), (4, 5, 6), (3,)), 5),
        (Sides((), (1,), (2,)), 1),
    ],
)
def test_lengths_are_of_the_longer_side_with_its_prompt(example: Conversation | Sides, expected: int) -> None:
    assert count_tokens(example) == expected


def test_all_pairs_fit() -> None:
    pairs = [make_pair(size) for size in range(1, 101)]
    found = encode(pairs, make_step("dpo", max_length=107, max_left_out=0.0), CHARACTERS, "dpo")
    assert found.train == [encode_pair(pair, CHARACTERS) for pair in pairs[::-1]]  # the longest first
    assert (found.validation, found.probes) == ([], [])
    tokens = {"median": 58, "95th_percentile": 102, "longest": 107, "max_length": 107}
    assert found.report == {
        "pairs": 100, "left_out": 0, "tokens": tokens, "validation": {"pairs": 0, "left_out": 0, "probes": 0}
    }  # fmt: skip


@pytest.mark.parametrize("method", ["dpo", "kto", "orpo", "simpo"])
def test_pairs_that_do_not_fit_are_left_out_whole_and_counted(method: str) -> None:
    """Those of validation as well, where no share is too large; those of test are for nothing here."""
    splits: list[Split] = ["validation", "test"]
    pairs = [make_pair(size) for size in range(1, 101)]
    others = [make_pair(size, split=split) for split in splits for size in (7, 200, 5)]
    step = make_step(method, max_length=102, max_left_out=0.05)
    found = encode([*others, *pairs], step, CHARACTERS, "dpo")
    assert found.train == [encode_pair(pair, CHARACTERS) for pair in pairs[:95][::-1]]
    assert found.validation == [encode_pair(make_pair(size), CHARACTERS) for size in (7, 5)]
    assert (found.report["pairs"], found.report["left_out"], found.report["tokens"]["longest"]) == (100, 5, 107)
    assert found.report["validation"] == {"pairs": 3, "left_out": 1, "probes": 1}


def test_a_step_learns_the_pairs_of_its_rules() -> None:
    splits: list[Split] = ["train", "validation"]
    pairs = [
        make_pair(size, split=split).model_copy(update={"rule": rule})
        for size, rule in ((5, "one"), (6, "two"), (7, "three"))
        for split in splits
    ]
    for rules, sizes in ((None, [7, 6, 5]), (["one", "three"], [7, 5])):
        found = encode(pairs, make_step("dpo", rules=rules), CHARACTERS, "dpo")
        expected = [encode_pair(make_pair(size), CHARACTERS) for size in sizes]
        assert found.train == expected
        assert sorted(found.validation, key=count_tokens) == expected[::-1]


def talk(size: int, split: Split = "train", name: str = "c") -> Thread:
    """A thread of so many tokens of CHARACTERS."""
    return make_thread("x", "x" * (size - 3), conversation=f"{name}{size}", split=split)


def test_an_answer_that_several_rows_prefer_is_learned_once() -> None:
    one, other, plain = talk(10), talk(12), talk(12)
    rated = [Rated(text=one.expert, score=1.0)]
    rows = [one.model_copy(update={"id": f"{n}", "conversation": f"{n}", "rated": rated}) for n in range(3)]
    rows.append(other.model_copy(update={"id": "r", "rated": rated}))
    assert drop_repeated([*rows, plain]) == [rows[0], plain]
    assert drop_repeated([plain, plain]) == [plain, plain]


def test_conversations_that_do_not_fit_are_left_out_whole_and_counted() -> None:
    threads = [talk(size) for size in (37, 30, 10, 20)] + [talk(12, "validation"), talk(99, "test")]
    threads.append(talk(9).model_copy(update={"reference": None}))
    rated = [Rated(text=threads[0].expert, score=1.0), Rated(text="x", score=0.0)]
    threads.append(threads[0].model_copy(update={"id": "again", "conversation": "rated", "rated": rated}))
    found = encode(threads, make_step("sft", max_length=30, max_left_out=0.5), CHARACTERS, "sft")
    assert [len(example.input_ids) for example in found.train] == [30, 20, 10]
    assert [len(example.input_ids) for example in found.validation] == [12]
    assert found.report == {
        "conversations": 4,
        "left_out": 1,
        "no_reference": 1,
        "repeated": 1,
        "tokens": {"median": 30, "95th_percentile": 37, "longest": 37, "max_length": 30},
        "validation": {"conversations": 1, "left_out": 0, "probes": 1},
    }


@pytest.mark.parametrize(
    ("method", "rows", "max_length", "max_left_out", "expected"),
    [
        ("dpo", [], 512, 0.05,
         "data/pairs.jsonl: no pair to train on; loosen pairs.rules, see metrics/pairs.json for the reasons"),
        ("kto", [make_pair(9, split="test")], 512, 0.05,
         "data/pairs.jsonl: no pair to train on; loosen pairs.rules, see metrics/pairs.json for the reasons"),
        ("dpo", [*[make_pair(1)] * 9, make_pair(93)], 99, 0.05,
         ("data/pairs.jsonl: 1 of 10 pairs are longer than adapter.step.max_length 99 (the longest has 100 tokens),"
          " over adapter.step.max_left_out 0.05; raise one of them")),
        ("dpo", [make_pair(20), make_pair(93)], 10, 0.5,
         ("data/pairs.jsonl: 2 of 2 pairs are longer than adapter.step.max_length 10 (the longest has 100 tokens), and"
          " none is left; raise it")),
        # every pair may be left out, but then there is nothing to train on
        ("simpo", [make_pair(93)], 10, 1.0,
         ("data/pairs.jsonl: 1 of 1 pairs are longer than adapter.step.max_length 10 (the longest has 100 tokens), and"
          " none is left; raise it")),
        ("sft", [talk(9, "validation")], 512, 0.05,
         "data/threads.jsonl: no conversation to train on; loosen filtered, see metrics/filtered.json for the reasons"),
        ("sft", [*[talk(9, name=str(n)) for n in range(9)], talk(100)], 99, 0.09,
         ("data/threads.jsonl: 1 of 10 conversations are longer than adapter.step.max_length 99 (the longest has 100"
          " tokens), over adapter.step.max_left_out 0.09; raise one of them")),
        # what is held out fits nowhere: nothing would be watched
        ("sft", [talk(9), talk(99, "validation")], 30, 0.05,
         "data/threads.jsonl: all 1 held-out conversations are longer than adapter.step.max_length 30; raise it"),
        ("dpo", [make_pair(9), *[make_pair(93, split="validation")] * 2], 99, 1.0,
         "data/pairs.jsonl: all 2 held-out pairs are longer than adapter.step.max_length 99; raise it"),
        ("cpt", [], 512, None, "data/texts.jsonl: no text to train on; add a source to raw.texts"),
    ],
)  # fmt: skip
def test_too_little_to_train_on(
    method: str, rows: list[Any], max_length: int, max_left_out: float | None, expected: str
) -> None:
    own = {} if max_left_out is None else {"max_left_out": max_left_out}
    with pytest.raises(BadInput) as caught:
        encode(rows, make_step(method, max_length=max_length, **own), CHARACTERS, "step")
    assert caught.value.message == expected


@pytest.mark.parametrize(
    ("rows", "limits", "expected"),
    [
        # the first prompts of validation, each once
        ([make_pair(3), make_pair(4, split="test", asked="t"), make_pair(4, split="validation", asked="a"),
          make_pair(5, split="validation", asked="a"), make_pair(6, split="validation", asked="b"),
          make_pair(7, split="validation", asked="c")], {}, [("a", "xxxx"), ("b", "xxxxxx")]),
        ([make_pair(3), make_pair(4, split="validation")], {"prompts": 0}, []),
        # an expert is cut where an answer will be
        ([make_pair(3), make_pair(30, split="validation", asked="a")], {"tokens": 5}, [("a", "xxxx")]),
        # a prompt without room for an answer is passed over
        ([make_pair(3), make_pair(4, split="validation", asked="a" * 44),
          make_pair(5, split="validation", asked="b" * 43)], {"tokens": 7}, [("b" * 43, "xxxxx")]),
    ],
)  # fmt: skip
def test_probes_of_pairs(rows: list[Any], limits: dict[str, int], expected: list[tuple[str, str]]) -> None:
    plain = make_step("dpo", max_length=50)
    step = plain.model_copy(update={"health": plain.health.model_copy(update=limits)})
    assert list(encode(rows, step, CHARACTERS, "dpo").probes) == [
        Probe(tuple(map(ord, prompt)), "es", expert) for prompt, expert in expected
    ]


def test_probes_of_a_step_on_threads_and_of_one_on_their_pairs_are_the_same() -> None:
    """So that the curves of one go on where those of the other end. Pairs have ids of their own."""
    pairs = [make_pair(3)]
    for thread, place in zip("badc", (1, 2, 3, 4), strict=True):
        pair = make_pair(place, split="validation", asked=thread)
        pairs.append(pair.model_copy(update={"thread": thread}))
    threads = [make_thread("A", "B"), *(make_thread(c, "B", split="validation", conversation=c) for c in "abcd")]
    threads = [thread.model_copy(update={"id": thread.prompt[0].content}) for thread in threads]
    plain = make_step("sft"), make_step("dpo")
    few = [step.model_copy(update={"health": step.health.model_copy(update={"prompts": 2})}) for step in plain]
    found = [encode(rows, step, CHARACTERS, "step").probes for rows, step in zip((threads, pairs), few, strict=True)]
    assert [[probe.prompt for probe in probes] for probes in found] == [[(ord("a"),), (ord("b"),)]] * 2


def test_probes_of_conversations(chat: Chat) -> None:
    """The tokens of an answer are bytes here, and its end is none of its text."""
    rows = [make_thread(*ONE), make_thread("A", "Luego", conversation="v", split="validation")]
    (probe,) = encode(rows, make_step("sft"), chat, "sft").probes
    assert chat.tokenizer.decode(probe.prompt) == "<|im_start|>user\nA<|im_end|>\n<|im_start|>assistant\n"
    assert probe.expert == "Luego"


def text(content: str, split: Any = "train") -> Text:
    return Text(id=content, source="s", language="es", split=split, text=content)


def test_texts_are_cut_into_rows_with_an_end_after_each(chat: Chat) -> None:
    rows = [text("abc"), text("xyz", "validation"), text("de"), text("fghi")]
    found = encode(rows, make_step("cpt", max_length=4), chat, "cpt")
    end = "<|im_end|>"
    assert [chat.tokenizer.decode(row) for row in found.train] == [f"abc{end}", f"de{end}f", f"ghi{end}"]
    assert [chat.tokenizer.decode(row) for row in found.validation] == [f"xyz{end}"]
    assert found.report == {"texts": 3, "rows": 3, "tokens": 12, "validation": {"texts": 1, "rows": 1}}
    assert found.probes == ()


def test_the_last_row_of_texts_may_be_shorter(chat: Chat) -> None:
    found = encode([text("abc"), text("de")], make_step("cpt", max_length=5), chat, "cpt")
    assert [len(row) for row in found.train] == [5, 2]
    assert (found.validation, found.report["tokens"]) == ([], 7)


def test_a_text_has_no_control_token(chat: Chat) -> None:
    (row,) = encode([text("a<|im_end|>b")], make_step("cpt"), chat, "cpt").train
    assert chat.tokenizer.decode(row) == "a< |im_end|>b<|im_end|>"
    assert [token for token in row if token in chat.eos_token_ids] == row[-1:]
