"""What is trained on: nothing cut, nothing left out in silence; and what is written of each step."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from mothertongue import training
from mothertongue.chat import Chat
from mothertongue.errors import BadInput
from mothertongue.params import Adapter, Params
from mothertongue.records import Message, Pair, Side, Split


class Characters:
    """A rendering with one token a character, and two around an answer."""

    def rendered(
        self, messages: Sequence[Message], answer: str, *, ended: bool
    ) -> tuple[tuple[int, ...], tuple[int, ...]]:
        return tuple(map(ord, messages[-1].content)), (1, *map(ord, answer), *([2] if ended else []))


CHARACTERS: Any = Characters()


def pair(chosen: int, rejected: int = 1, split: Split = "train", asked: str = "12345") -> Pair:
    """A pair with sides of so many characters."""
    sides = [Side(answer="w", generator="g", text="x" * size, finish="stop", score=1) for size in (chosen, rejected)]
    return Pair(
        id=f"{chosen}-{rejected}", thread="t", split=split, rule="r", judge="j",
        prompt=[Message(role="user", content=asked)], chosen=sides[0], rejected=sides[1],
    )  # fmt: skip


@pytest.fixture
def section(values: Params) -> Callable[..., Adapter]:
    return lambda **changes: values.adapter.model_copy(update=changes)


def test_lengths_are_of_the_longer_side_with_its_prompt() -> None:
    assert training.lengths([pair(3, 1), pair(1, 4), pair(0, 0, asked="")], CHARACTERS) == [10, 11, 2]


def test_all_pairs_fit(section: Callable[..., Adapter]) -> None:
    pairs = [pair(size) for size in range(1, 101)]
    kept, report = training.fitting(pairs, section(max_length=107, max_cut=0.0), CHARACTERS)
    assert kept == pairs[::-1]  # the longest first
    tokens = {"median": 58, "95th_percentile": 102, "longest": 107, "max_length": 107}
    assert report == {"pairs": 100, "left_out": 0, "tokens": tokens}


def test_what_does_not_fit_is_left_out_whole_and_counted(section: Callable[..., Adapter]) -> None:
    pairs = [pair(size) for size in range(1, 101)]
    kept, report = training.fitting(pairs, section(max_length=102, max_cut=0.05), CHARACTERS)
    assert kept == pairs[:95][::-1]
    assert (report["pairs"], report["left_out"], report["tokens"]["longest"]) == (100, 5, 107)


@pytest.mark.parametrize(
    ("sizes", "max_length", "max_cut", "expected"),
    [
        ([], 512, 0.05,
         "data/pairs.jsonl: no pair to train on; loosen pairs.rules, see metrics/pairs.json for the reasons"),
        ([1] * 9 + [93], 99, 0.05,
         ("data/pairs.jsonl: 1 of 10 pairs are longer than adapter.max_length 99 (the longest has 100 tokens), over"
         " adapter.max_cut 0.05; raise one of them")),
        ([20, 93], 10, 0.5,
         ("data/pairs.jsonl: 2 of 2 pairs are longer than adapter.max_length 10 (the longest has 100 tokens), and none"
         " is left; raise it")),
        # every pair may be left out, but then there is nothing to train on
        ([93], 10, 1.0,
         ("data/pairs.jsonl: 1 of 1 pairs are longer than adapter.max_length 10 (the longest has 100 tokens), and none"
         " is left; raise it")),
    ],
)  # fmt: skip
def test_too_little_to_train_on(
    section: Callable[..., Adapter], sizes: list[int], max_length: int, max_cut: float, expected: str
) -> None:
    with pytest.raises(BadInput) as caught:
        training.fitting([pair(size) for size in sizes], section(max_length=max_length, max_cut=max_cut), CHARACTERS)
    assert caught.value.message == expected


def test_nothing_to_train_on_stops_before_the_model_is_read(
    tmp_path: Path, tokenizer: Callable[..., Path], section: Callable[..., Adapter]
) -> None:
    (tmp_path / "adapter").mkdir()
    with pytest.raises(BadInput) as caught:
        training.train(
            [pair(5, split="test")], tokenizer(), tmp_path / "adapter", tmp_path / "steps.csv", section(), "float32"
        )
    assert caught.value.message == (
        "data/pairs.jsonl: no pair to train on; loosen pairs.rules, see metrics/pairs.json for the reasons"
    )
    assert [path.name for path in tmp_path.iterdir() if path.name != "params.yaml"] == ["adapter"]


def test_an_adapter_of_another_template_is_refused(tmp_path: Path, tokenizer: Callable[..., Path], chat: Chat) -> None:
    base = tokenizer()
    (tmp_path / "chat.json").write_text(json.dumps({"digest": "0123456789abcdef"}), encoding="utf-8")
    with pytest.raises(BadInput) as caught:
        training.probes([pair(3)], base, tmp_path)
    assert caught.value.message == (
        f"{tmp_path}: trained with chat template 0123456789abcdef, but {base} has {chat.digest};"
        " train the adapter again"
    )


@pytest.mark.parametrize(
    ("splits", "count"), [(["train", "test", "validation"], 2), (["train"] * 3, 3), (["test"] * 40, 32)]
)
def test_probes_are_held_out_where_there_are_such(
    tmp_path: Path, tokenizer: Callable[..., Path], chat: Chat, splits: list[Split], count: int
) -> None:
    (tmp_path / "chat.json").write_text(json.dumps({"digest": chat.digest}), encoding="utf-8")
    pairs = [pair(size, split=split) for size, split in enumerate(splits, start=1)]
    found = training.probes(pairs, tokenizer(), tmp_path)
    assert len(found) == count
    held_out = [p for p in pairs if p.split != "train"] or pairs
    assert found[0] == chat.answered(held_out[0].prompt, held_out[0].chosen.text)


def test_steps_are_one_row_each_for_plots(tmp_path: Path) -> None:
    history = [
        {"step": 1, "loss": 0.7, "rewards/accuracies": 0.5, "rewards/margins": 0.0, "learning_rate": 1e-4},
        {"step": 2, "loss": 0.65, "rewards/accuracies": 0.75, "rewards/margins": 0.123456789, "logps/chosen": -10.0},
        {"step": 2, "eval_loss": 0.6, "eval_rewards/accuracies": 1.0, "eval_rewards/margins": 0.25},
        {"step": 2, "train_runtime": 9.9},
    ]
    last = training._write_steps(history, tmp_path / "adapter.csv")
    head, *rows = (tmp_path / "adapter.csv").read_text(encoding="utf-8").splitlines()
    columns = head.split(",")
    filled = [{name: value for name, value in zip(columns, row.split(","), strict=True) if value} for row in rows]
    assert filled == [
        {"step": "1", "loss": "0.7", "reward_accuracy": "0.5", "reward_margin": "0.0"},
        {"step": "2", "loss": "0.65", "reward_accuracy": "0.75", "reward_margin": "0.123457",
         "chosen_log_probability": "-10.0", "validation_loss": "0.6", "validation_reward_accuracy": "1.0",
         "validation_reward_margin": "0.25"},
    ]  # fmt: skip
    assert last["reward_margin"] == 0.123457
    assert last["validation_loss"] == 0.6
    assert last["loss"] == 0.65
