"""Training and merging, without a model: what is trained on, what is written, and how a merge is checked."""

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from project import ROOT
from ruamel.yaml import YAML

from mothertongue import merging, training, weights
from mothertongue.chat import Chat
from mothertongue.errors import BadInput
from mothertongue.origin import Origin, read_origin, write_origin
from mothertongue.params import Merged, Params, Step
from mothertongue.records import Lineage, Message, Pair, Split


class Characters:
    """A rendering with one token a character, and two around an answer."""

    def encode_example(
        self, messages: Sequence[Message], answer: str, *, ended: bool
    ) -> tuple[tuple[int, ...], tuple[int, ...]]:
        return tuple(map(ord, messages[-1].content)), (1, *map(ord, answer), *([2] if ended else []))


CHARACTERS: Any = Characters()


def pair(chosen: int, rejected: int = 1, split: Split = "train", asked: str = "12345", cut: bool = False) -> Pair:
    """A pair with sides of so many characters; the rejected one may be cut."""
    lineages = [
        Lineage(answer="w", generator="g", finish="length" if cut and side else "stop", score=1) for side in (0, 1)
    ]
    return Pair(
        id=f"{chosen}-{rejected}",
        thread="t",
        language="es",
        split=split,
        rule="r",
        judge="j",
        prompt=[Message(role="user", content=asked)],
        chosen=[Message(role="assistant", content="x" * chosen)],
        rejected=[Message(role="assistant", content="x" * rejected)],
        chosen_from=lineages[0],
        rejected_from=lineages[1],
    )


@pytest.fixture
def section(values: Params) -> Callable[..., Step]:
    return lambda **changes: values.adapter["dpo"].model_copy(update=changes)


@pytest.mark.parametrize(("cut", "end"), [(False, [2]), (True, [])])
def test_a_cut_side_has_no_end(cut: bool, end: list[int]) -> None:
    assert training.tokenize_pair(pair(2, 3, asked="12", cut=cut), CHARACTERS) == {
        "prompt_ids": [ord("1"), ord("2")],
        "chosen_ids": [1, *[ord("x")] * 2, 2],
        "rejected_ids": [1, *[ord("x")] * 3, *end],
    }


def test_lengths_are_of_the_longer_side_with_its_prompt() -> None:
    assert training.count_tokens([pair(3, 1), pair(1, 4), pair(0, 0, asked="")], CHARACTERS) == [10, 11, 2]


def test_all_pairs_fit(section: Callable[..., Step]) -> None:
    pairs = [pair(size) for size in range(1, 101)]
    kept, report = training.select_fitting(pairs, section(max_length=107, max_left_out=0.0), CHARACTERS, "dpo")
    assert kept == pairs[::-1]  # the longest first
    tokens = {"median": 58, "95th_percentile": 102, "longest": 107, "max_length": 107}
    assert report == {"pairs": 100, "left_out": 0, "tokens": tokens}


def test_pairs_that_do_not_fit_are_left_out_whole_and_counted(section: Callable[..., Step]) -> None:
    pairs = [pair(size) for size in range(1, 101)]
    kept, report = training.select_fitting(pairs, section(max_length=102, max_left_out=0.05), CHARACTERS, "dpo")
    assert kept == pairs[:95][::-1]
    assert (report["pairs"], report["left_out"], report["tokens"]["longest"]) == (100, 5, 107)


@pytest.mark.parametrize(
    ("sizes", "max_length", "max_left_out", "expected"),
    [
        ([], 512, 0.05,
         "data/pairs.jsonl: no pair to train on; loosen pairs.rules, see metrics/pairs.json for the reasons"),
        ([1] * 9 + [93], 99, 0.05,
         ("data/pairs.jsonl: 1 of 10 pairs are longer than adapter.dpo.max_length 99 (the longest has 100 tokens), over"
         " adapter.dpo.max_left_out 0.05; raise one of them")),
        ([20, 93], 10, 0.5,
         ("data/pairs.jsonl: 2 of 2 pairs are longer than adapter.dpo.max_length 10 (the longest has 100 tokens), and"
         " none is left; raise it")),
        # every pair may be left out, but then there is nothing to train on
        ([93], 10, 1.0,
         ("data/pairs.jsonl: 1 of 1 pairs are longer than adapter.dpo.max_length 10 (the longest has 100 tokens), and"
         " none is left; raise it")),
    ],
)  # fmt: skip
def test_too_little_to_train_on(
    section: Callable[..., Step], sizes: list[int], max_length: int, max_left_out: float, expected: str
) -> None:
    with pytest.raises(BadInput) as caught:
        training.select_fitting(
            [pair(size) for size in sizes], section(max_length=max_length, max_left_out=max_left_out), CHARACTERS, "dpo"
        )
    assert caught.value.message == expected


@pytest.fixture
def start(tokenizer: Callable[..., Path]) -> Path:
    """The folder of a model without weights."""
    folder = tokenizer()
    write_origin(folder, Origin(source="folder", id="toy", revision=None, dtype="float32"))
    return folder


def test_no_pair_to_train_on_stops_before_the_model_is_read(
    tmp_path: Path, start: Path, section: Callable[..., Step]
) -> None:
    out, curves = tmp_path / "adapter", tmp_path / "curves"
    with pytest.raises(BadInput) as caught:
        training.train([pair(5, split="test")], start, out, curves, section(), "dpo")
    assert caught.value.message == (
        "data/pairs.jsonl: no pair to train on; loosen pairs.rules, see metrics/pairs.json for the reasons"
    )
    assert not out.exists()
    assert not curves.exists()


def test_training_starts_from_a_folder_that_a_stage_made(
    tmp_path: Path, tokenizer: Callable[..., Path], section: Callable[..., Step]
) -> None:
    base = tokenizer()
    with pytest.raises(BadInput) as caught:
        training.train([pair(5)], base, tmp_path / "adapter", tmp_path / "curves", section(), "dpo")
    assert caught.value.message == (
        f"{base}/origin.json: cannot be read (No such file or directory); run the stage that makes this model"
    )


HISTORY = [
    {"step": 1, "loss": 0.7, "rewards/accuracies": 0.5, "rewards/margins": 0.0, "learning_rate": 1e-4},
    {"step": 2, "loss": 0.65, "rewards/accuracies": 0.75, "rewards/margins": 0.123456789, "logps/chosen": -10.0},
    {"step": 2, "eval_loss": 0.6, "eval_rewards/accuracies": 1.0, "eval_rewards/margins": 0.25},
    {"step": 2, "train_runtime": 9.9},
]


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Replaces TRL's trainer by one that trains nothing and has a history; gives what it was made with."""
    import transformers
    import trl

    found: list[dict[str, Any]] = []

    class Model:
        peft_config = {"default": SimpleNamespace(base_model_name_or_path="start", revision=None)}  # noqa: RUF012

        def save_pretrained(self, folder: Path, *, save_embedding_layers: bool) -> None:
            assert not save_embedding_layers  # which asks the hub
            (folder / "README.md").touch()
            config = self.peft_config["default"]
            (folder / "adapter_config.json").write_text(f"{config.base_model_name_or_path} {config.revision}")

    class Trainer:
        def __init__(self, **arguments: Any) -> None:
            found.append(arguments)
            self.model, self.state = Model(), SimpleNamespace(log_history=HISTORY, global_step=2)

        def train(self) -> None:
            (progress,) = found[-1]["callbacks"]
            progress.on_train_begin()
            progress.on_log(logs=HISTORY[0])
            progress.on_step_end()
            progress.on_train_end()

    monkeypatch.setattr(trl, "DPOTrainer", Trainer)
    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", lambda folder, **more: (folder, more))
    return found


def test_what_the_trainer_gets(
    tmp_path: Path, start: Path, made: list[dict[str, Any]], section: Callable[..., Step]
) -> None:
    """Token ids, the longest first, and those of validation apart; split test is for nothing here."""
    import torch

    pairs = [
        pair(3),
        pair(9),
        pair(90),
        pair(5, split="validation"),
        pair(7, split="validation"),
        pair(4, split="test"),
    ]
    params = section(max_length=80, max_left_out=0.5, batch=1)
    report = training.train(pairs, start, tmp_path / "adapter", tmp_path / "curves", params, "dpo")
    (arguments,) = made
    chat = Chat(start)
    rows = {name: arguments[name].to_list() for name in ("train_dataset", "eval_dataset")}
    assert rows["train_dataset"] == [training.tokenize_pair(pair(size), chat) for size in (9, 3)]
    assert rows["eval_dataset"] == [training.tokenize_pair(pair(size), chat) for size in (7, 5)]
    folder, more = arguments["model"]
    assert (folder, more["dtype"], more["trust_remote_code"]) == (start, torch.float32, False)
    assert (arguments["args"].bf16, arguments["args"].eval_strategy.value) == (False, "steps")
    assert (report["pairs"], report["left_out"], report["updates"]) == (3, 1, 2)
    assert report["validation"] == {"pairs": 2, "left_out": 0}
    assert report["last"] == {
        "loss": 0.65, "validation_loss": 0.6, "reward_accuracy": 0.75, "validation_reward_accuracy": 1.0,
        "reward_margin": 0.123457, "validation_reward_margin": 0.25, "chosen_log_probability": -10.0,
    }  # fmt: skip
    assert json.loads((tmp_path / "adapter/chat.json").read_text(encoding="utf-8")) == {"digest": chat.digest}
    assert sorted(path.name for path in (tmp_path / "adapter").iterdir()) == ["adapter_config.json", "chat.json"]


def test_each_curve_has_a_file_with_a_row_for_each_update(
    tmp_path: Path, start: Path, made: list[dict[str, Any]], section: Callable[..., Step]
) -> None:
    training.train([pair(3)], start, tmp_path / "adapter", tmp_path / "curves", section(), "dpo")
    assert made[0]["eval_dataset"] is None
    columns = ("chosen_log_probability", "rejected_log_probability")
    found = {
        path.relative_to(tmp_path / "curves").as_posix(): path.read_text(encoding="utf-8").splitlines()
        for path in (tmp_path / "curves").rglob("*.csv")
    }
    assert found == {
        "loss/dpo.csv": ["step,loss,validation_loss", "1,0.7,", "2,0.65,0.6"],
        "reward_accuracy/dpo.csv": ["step,reward_accuracy,validation_reward_accuracy", "1,0.5,", "2,0.75,1.0"],
        "reward_margin/dpo.csv": ["step,reward_margin,validation_reward_margin", "1,0.0,", "2,0.123457,0.25"],
        "log_probability/dpo.csv": [
            ",".join(["step", *columns, *(f"validation_{column}" for column in columns)]),
            "2,-10.0,,,",
        ],
    }


def test_the_plots_of_dvc_are_of_the_curves_and_their_columns() -> None:
    pipeline = YAML(typ="safe", pure=True).load(ROOT / "dvc.yaml")
    plots = {name: plot for each in pipeline["plots"] for name, plot in each.items()}
    assert sorted(plots) == sorted(f"metrics/curves/{curve}" for curve in training.CURVES)
    for curve, columns in training.CURVES.items():
        plot = plots[f"metrics/curves/{curve}"]
        assert plot["x"] == "step"
        assert set(plot["y"]) <= {*columns, *(f"validation_{column}" for column in columns)}
    written = [f"metrics/curves/{curve}/${{key}}.csv" for curve in training.CURVES]
    assert set(written) < set(pipeline["stages"]["adapter"]["do"]["outs"])


@pytest.mark.parametrize(
    ("origin", "written"),
    [
        (Origin(source="hub", id="someone/model", revision="a" * 40, dtype="bfloat16"), f"someone/model {'a' * 40}"),
        (Origin(source="package", id="model", revision="1.0", dtype="bfloat16"), "start None"),
    ],
)
def test_an_adapter_names_a_base_of_the_hub(
    tmp_path: Path,
    start: Path,
    made: list[dict[str, Any]],
    section: Callable[..., Step],
    origin: Origin,
    written: str,
) -> None:
    write_origin(start, origin)
    training.train([pair(3)], start, tmp_path / "adapter", tmp_path / "curves", section(), "dpo")
    assert (tmp_path / "adapter/adapter_config.json").read_text(encoding="utf-8") == written
    assert made[0]["args"].bf16


MERGED = Merged(dtype="float32", max_difference=0.5)


@pytest.fixture
def adapter(tmp_path: Path, start: Path) -> Path:
    """An adapter that was trained with the chat template of `start`."""
    folder = tmp_path / "adapter"
    folder.mkdir()
    (folder / "chat.json").write_text(json.dumps({"digest": Chat(start).digest}), encoding="utf-8")
    return folder


def test_an_adapter_of_another_template_is_refused(tmp_path: Path, start: Path, adapter: Path) -> None:
    (adapter / "chat.json").write_text(json.dumps({"digest": "0123456789abcdef"}), encoding="utf-8")
    with pytest.raises(BadInput) as caught:
        merging.merge(start, adapter, tmp_path / "dpo", MERGED, [pair(3)], "dpo")
    assert caught.value.message == (
        f"{adapter}: trained with chat template 0123456789abcdef, but {start} has {Chat(start).digest};"
        " train the adapter again"
    )
    assert not (tmp_path / "dpo").exists()


@pytest.fixture
def probed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Any, Any]]:
    """Replaces models by their names; gives (model, prompt, answer) of all that log-probabilities were computed of.

    Those of the stored model are larger by 0.25 at the first token of an answer.
    """
    import peft
    import torch

    found: list[tuple[str, Any, Any]] = []

    class Model:
        def __init__(self, name: str) -> None:
            self.name = name

        def eval(self) -> "Model":
            return self

        def merge_and_unload(self, *, safe_merge: bool) -> "Model":
            assert safe_merge
            return self

        def to(self, dtype: Any) -> "Model":
            return Model(f"{self.name} in {dtype}")

    def compute(model: Model, prompt: tuple[int, ...], answer: tuple[int, ...]) -> Any:
        found.append((model.name, prompt, answer))
        first = 0.25 if model.name == "stored" else 0.0
        return torch.tensor([first, *[0.0] * (len(answer) - 1)])

    def save(model: Any, source: Path, folder: Path) -> None:
        (folder / "saved").write_text(f"{model.name} like {source.name}", encoding="utf-8")

    monkeypatch.setattr(
        weights, "load_float32", lambda folder: Model("stored" if (folder / "saved").exists() else "start")
    )
    monkeypatch.setattr(peft.PeftModel, "from_pretrained", lambda *_: Model("adapted"))
    monkeypatch.setattr(weights, "token_log_probabilities", compute)
    monkeypatch.setattr(weights, "save_model", save)
    return found


@pytest.mark.parametrize(
    ("splits", "count"), [(["train", "test", "validation"], 2), (["train"] * 3, 3), (["test"] * 40, 32)]
)
def test_a_merge_is_compared_on_held_out_pairs_where_there_are_some(
    tmp_path: Path,
    start: Path,
    adapter: Path,
    probed: list[tuple[str, Any, Any]],
    splits: list[Split],
    count: int,
) -> None:
    pairs = [pair(size, split=split) for size, split in enumerate(splits, start=1)]
    report = merging.merge(start, adapter, tmp_path / "dpo", MERGED, pairs, "dpo")
    held_out = ([row for row in pairs if row.split != "train"] or pairs)[:32]
    expected = [Chat(start).encode_answer(row.prompt, row.chosen[0].content) for row in held_out]
    assert len(expected) == count
    assert probed == [(name, *probe) for name in ("adapted", "stored") for probe in expected]
    tokens = sum(len(answer) for _, answer in expected)
    assert report == {
        "largest_difference": 0.25, "mean_difference": pytest.approx(0.25 * count / tokens), "tokens": tokens
    }  # fmt: skip


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_merged_model_is_named_for_its_step_and_computes_as_the_one_it_started_from(
    tmp_path: Path, start: Path, adapter: Path, probed: list[tuple[str, Any, Any]], dtype: Any
) -> None:
    """Whatever its weights are stored in."""
    params = MERGED.model_copy(update={"dtype": dtype})
    merging.merge(start, adapter, tmp_path / "dpo", params, [pair(3)], "dpo")
    assert probed
    assert read_origin(tmp_path / "dpo") == Origin(source="adapter", id="dpo", revision=None, dtype="float32")
    saved = (tmp_path / "dpo/saved").read_text(encoding="utf-8")
    assert saved == f"adapted in torch.{dtype} like {start.name}"


@pytest.mark.parametrize(("factor", "shown"), [(1.0, "0.25"), (math.nan, "nan")])
def test_a_merge_that_differs_too_much_is_refused(
    tmp_path: Path,
    start: Path,
    adapter: Path,
    probed: list[tuple[str, Any, Any]],
    monkeypatch: pytest.MonkeyPatch,
    factor: float,
    shown: str,
) -> None:
    compute = weights.token_log_probabilities
    monkeypatch.setattr(weights, "token_log_probabilities", lambda *arguments: factor * compute(*arguments))
    params = MERGED.model_copy(update={"max_difference": 0.2})
    with pytest.raises(BadInput) as caught:
        merging.merge(start, adapter, tmp_path / "dpo", params, [pair(3)], "dpo")
    assert caught.value.message == (
        f"{tmp_path}/dpo: merged and adapter differ by {shown} nats in a token's log-probability, over"
        " merged.max_difference 0.2; store it as float32 or raise the limit"
    )
    assert [name for name, *_ in probed] == ["adapted", "stored"]
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "params.yaml") == ["adapter"]
