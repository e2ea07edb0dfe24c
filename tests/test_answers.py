"""Answers of a generator: which threads it answers, what it asks its model, and its rows."""

from collections.abc import Sequence
from typing import Any

import pytest
from conftest import make_thread

from mothertongue.answers import add_system_prompt, generate_answers
from mothertongue.chat import Chat
from mothertongue.params import Generator
from mothertongue.records import Answer, Split, Thread, row_id
from mothertongue.sampling import Completion, Generation, Model, derive_seed

SPLITS: list[Split] = ["train", "train", "train", "validation", "test"]
THREADS = [make_thread(f"¿{number}?", "Sí", split=SPLITS[number % 5]) for number in range(500)]  # 300 to train on
HELD_OUT = {row.id for row in THREADS if row.split != "train"}
PLAIN = Generator(
    model="base", engine="transformers", system_prompt=False, train_share=1.0, n=1, temperature=0.8, top_p=0.95,
    max_tokens=48,
)  # fmt: skip


class Numbering:
    """Stands for a model: its answers are the places of the requests; every second one is cut."""

    encode = Model.encode

    def __init__(self, chat: Chat) -> None:
        self.chat = chat
        self.requests: list[Generation] = []
        self.labels: list[str] = []

    def generate(self, requests: Sequence[Generation], label: str) -> list[Completion]:
        self.requests += requests
        self.labels.append(label)
        return [Completion(f"n {place}", place, "length" if place % 2 else "stop") for place in range(len(requests))]


def answer(chat: Chat, threads: Sequence[Thread] = THREADS, name: str = "plain", **changes: Any) -> list[Answer]:
    model: Any = Numbering(chat)
    return generate_answers(threads, name, PLAIN.model_copy(update=changes), 1, model)[0]


def answered(rows: Sequence[Answer]) -> set[str]:
    return {row.thread for row in rows}


def test_prompts_without_an_expert_are_answered_whatever_the_share(chat: Chat) -> None:
    new = [row.model_copy(update={"reference": None}) for row in THREADS if row.split == "train"]
    assert answered(answer(chat, new, train_share=0.01)) == {row.id for row in new}


@pytest.mark.parametrize("system_prompt", [False, True])
def test_each_thread_has_its_answers_in_order(chat: Chat, system_prompt: bool) -> None:
    model: Any = Numbering(chat)
    threads = [make_thread("Hola", "Buenas"), make_thread("Adiós", "Hasta luego", split="test")]
    params = PLAIN.model_copy(update={"n": 2, "system_prompt": system_prompt})
    rows, _ = generate_answers(threads, "plain", params, 7, model)
    order = [(thread, index) for thread in threads for index in range(2)]
    assert rows == [
        Answer(
            id=row_id(thread.id, "plain", index, f"n {place}"), thread=thread.id, generator="plain", index=index,
            text=f"n {place}", tokens=place, finish="length" if place % 2 else "stop",
        )
        for place, (thread, index) in enumerate(order)
    ]  # fmt: skip
    assert model.labels == ["generated plain"]
    assert model.requests == [
        Generation(
            chat.encode_prompt(add_system_prompt(thread.prompt, "es") if system_prompt else thread.prompt),
            48, 0.8, 0.95, derive_seed(7, thread.id, index), index,
        )
        for thread, index in order
    ]  # fmt: skip


def test_all_held_out_threads_are_answered_and_a_share_of_the_others(chat: Chat) -> None:
    """Those of a smaller share are among those of a larger one."""
    found = [answered(answer(chat, train_share=share)) for share in (0.001, 0.2, 0.6, 1.0)]
    none, fifth, most, every = (threads - HELD_OUT for threads in found)
    assert all(threads >= HELD_OUT for threads in found)
    assert none < fifth < most < every
    assert every | HELD_OUT == {row.id for row in THREADS}
    assert len(none) <= 3
    assert 40 <= len(fifth) <= 80
    assert 150 <= len(most) <= 210


def test_every_generator_answers_the_same_share(chat: Chat) -> None:
    rows = answer(chat, train_share=0.4)
    other = answer(chat, name="other", train_share=0.4, n=3, model="elsewhere", system_prompt=True, temperature=0.1)
    assert answered(other) == answered(rows)
    assert len(other) == 3 * len(rows)


def test_other_threads_do_not_change_which_are_answered(chat: Chat) -> None:
    some = THREADS[::-3]
    known = {row.id for row in some}
    assert answered(answer(chat, some, train_share=0.4)) == answered(answer(chat, train_share=0.4)) & known
