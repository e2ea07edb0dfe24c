"""Training and merging, without a model: what a trainer gets, what is written, and how a merge is checked."""

import json
import math
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import make_pair, make_step, make_thread
from project import ROOT
from ruamel.yaml import YAML

from mothertongue import console, merging, training, weights
from mothertongue.chat import Chat
from mothertongue.errors import BadInput
from mothertongue.origin import Origin, digest_weights, read_origin, write_origin
from mothertongue.params import Merged
from mothertongue.records import Split, Text
from mothertongue.training.curves import CURVES, MEASURED, write_curves
from mothertongue.training.examples import encode_conversations, encode_pair

SFT_ROWS = [make_thread("Hola", "Buenas", conversation="a"), make_thread("Adiós", "Hasta luego", conversation="b")]
TEXTS = [Text(id="a", source="s", language="es", split="train", text="Había una vez")]


@pytest.fixture
def start(tokenizer: Callable[..., Path]) -> Path:
    """The folder of a model whose weights are a few bytes."""
    folder = tokenizer()
    write_origin(folder, Origin(source="folder", id="toy", revision=None, dtype="float32"))
    (folder / "model.safetensors").write_bytes(b"weights")
    return folder


class Killed(Exception):
    """What ends a training that is killed."""


class Made:
    """Stands for TRL: keeps what its trainers are made with, and has the history that a test gives it."""

    def __init__(self) -> None:
        self.trainer = ""
        self.arguments: dict[str, Any] = {}
        self.columns: list[dict[str, Any]] = []  # of each data set with its reference log-probabilities
        self.resumed: str | None = None
        self.history: list[dict[str, Any]] = HISTORY
        self.saved: set[int] = set()  # updates after which there is a checkpoint
        self.killed_at: int | None = None

    def build(self, name: str) -> type:
        """A trainer of that name."""
        made = self

        class Trainer:
            def __init__(self, **arguments: Any) -> None:
                made.trainer, made.arguments = name, arguments
                self.model, self.state = arguments["model"], SimpleNamespace(log_history=[], global_step=0)
                if getattr(arguments["args"], "precompute_ref_log_probs", False):
                    rows = self._precompute_ref_logps(arguments["train_dataset"], "train", 1)
                    made.columns = rows.to_list()

            def _precompute_ref_logps(self, dataset: Any, *_: Any) -> Any:
                return dataset.add_column("by_trl", [True] * len(dataset))

            def train(self, resume_from_checkpoint: str | None) -> None:
                made.resumed = resume_from_checkpoint
                control = SimpleNamespace(should_training_stop=False, should_save=True)
                args = made.arguments["args"]
                if resume_from_checkpoint:
                    self.state.global_step = int(resume_from_checkpoint.rpartition("-")[2])

                def call(event: str, **more: Any) -> None:
                    for callback in made.arguments["callbacks"]:
                        getattr(callback, event)(args, self.state, control, model=self.model, **more)

                call("on_train_begin")
                for entry in made.history:
                    if entry["step"] < self.state.global_step:
                        continue
                    self.state.global_step = entry["step"]
                    self.state.log_history.append(entry)
                    call("on_log", logs=entry)
                    if control.should_training_stop:
                        break
                    if "loss" in entry:
                        call("on_step_end")
                        if entry["step"] in made.saved:
                            Path(args.output_dir, f"checkpoint-{entry['step']}").mkdir()
                            call("on_save")
                        if entry["step"] == made.killed_at:
                            raise Killed
                call("on_train_end")

        return Trainer


class Model:
    """Stands for a model, with an adapter or without; its answers are empty, and it counts them."""

    device = "cpu"
    training = True

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        self.folder, self.settings = folder, settings
        self.layers: list[Any] = []
        self.answered = 0
        self.peft_config = {"default": SimpleNamespace(base_model_name_or_path="start", revision=None)}

    def get_input_embeddings(self) -> Any:
        return SimpleNamespace(register_forward_hook=lambda _: None)

    def modules(self) -> list[Any]:
        return self.layers

    def named_modules(self) -> list[tuple[str, Any]]:
        return [(f"layer.{name}", SimpleNamespace(in_features=1)) for name in ("q", "v")]

    def parameters(self) -> list[Any]:
        return []

    def eval(self) -> None:
        self.training = False

    def train(self, mode: bool) -> None:
        self.training = mode

    def generate(self, input_ids: Any, **_: Any) -> Any:
        self.answered += len(input_ids)
        return input_ids

    def save_pretrained(self, folder: Path, *, save_embedding_layers: bool) -> None:
        assert not save_embedding_layers  # which asks the hub
        (folder / "README.md").touch()
        config = self.peft_config["default"]
        (folder / "adapter_config.json").write_text(f"{config.base_model_name_or_path} {config.revision}")


class Whole(Model):
    """Stands for a model whose weights are all trained."""

    def save_pretrained(self, folder: Path) -> None:  # type: ignore[override]
        (folder / "model.safetensors").write_bytes(b"learned")
        (folder / "generation_config.json").touch()


HISTORY: list[dict[str, Any]] = [
    {"step": 0, "eval_loss": 0.7, "eval_rewards/accuracies": 0.5},
    {"step": 1, "loss": 0.7, "rewards/accuracies": 0.5, "rewards/margins": 0.0, "learning_rate": 1e-4},
    {"step": 2, "loss": 0.65, "rewards/accuracies": 0.75, "rewards/margins": 0.123456789, "logps/chosen": -10.0},
    {"step": 2, "eval_loss": 0.6, "eval_rewards/accuracies": 1.0, "eval_rewards/margins": 0.25},
    {"step": 2, "train_runtime": 9.9},
]


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Made:
    """Replaces TRL's trainers by one that trains nothing."""
    import peft
    import transformers
    import trl
    from trl.experimental import cpo, orpo

    found = Made()
    for module, name in ((trl, "SFT"), (trl, "DPO"), (trl, "KTO"), (orpo, "ORPO"), (cpo, "CPO")):
        monkeypatch.setattr(module, f"{name}Trainer", found.build(name))
    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", lambda folder, **more: load(folder, more))
    monkeypatch.setattr(peft, "PeftModel", Model)
    return found


def load(folder: Path, settings: dict[str, Any]) -> Model:
    return Model(folder, settings)


class Asked:
    """Stands for the model that training starts from: an answer's log-probability is less by 1 for each token."""

    def __init__(self) -> None:
        self.asked: list[tuple[tuple[int, ...], tuple[int, ...]]] = []
        self.labels: list[str] = []

    def __call__(self, asked: Sequence[tuple[tuple[int, ...], tuple[int, ...]]], label: str) -> list[float]:
        self.asked += asked
        self.labels.append(label)
        return [-float(len(answer)) for _, answer in asked]


@pytest.fixture
def work(tmp_path: Path, start: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    """Trains a step, by default DPO."""
    monkeypatch.setattr(console, "LOGS", tmp_path / "logs")

    def run(rows: Sequence[Any], step: Any = None, likelihood: Any = None, name: str = "dpo") -> dict[str, Any]:
        return training.train(
            rows, start, tmp_path / "adapter", tmp_path / "curves", step or make_step("dpo"), name,
            likelihood or Asked(), tmp_path / "store",
        )  # fmt: skip

    return run


Work = Callable[..., dict[str, Any]]


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ("dpo", "data/pairs.jsonl: no pair to train on; loosen pairs.rules, see metrics/pairs.json for the reasons"),
        (
            "sft",
            (
                "data/threads.jsonl: no conversation to train on; loosen filtered, see metrics/filtered.json for the"
                " reasons"
            ),
        ),
        ("cpt", "data/texts.jsonl: no text to train on; add a source to raw.texts"),
    ],
)  # fmt: skip
def test_nothing_to_train_on_stops_before_the_model_is_read(
    tmp_path: Path, work: Work, method: str, expected: str
) -> None:
    with pytest.raises(BadInput) as caught:
        work([], make_step(method))
    assert caught.value.message == expected
    assert sorted(path.name for path in tmp_path.iterdir()) == []


def test_training_starts_from_a_folder_that_a_stage_made(work: Work, start: Path) -> None:
    (start / "origin.json").unlink()
    with pytest.raises(BadInput) as caught:
        work([make_pair(5)])
    assert caught.value.message == (
        f"{start}/origin.json: cannot be read (No such file or directory); run the stage that makes this model"
    )


def test_training_does_not_start_from_a_quantised_model(work: Work, start: Path) -> None:
    (start / "config.json").write_text(json.dumps({"quantization_config": {"load_in_4bit": True}}), encoding="utf-8")
    with pytest.raises(BadInput) as caught:
        work([make_pair(5)])
    assert caught.value.message == (
        f"{start}: is quantised, and no adapter can be merged into it; start from the original"
    )


def test_what_the_trainer_gets(tmp_path: Path, start: Path, made: Made, work: Work) -> None:
    """Token ids, the longest first, and those of validation apart; split test is for nothing here."""
    import torch

    splits: list[tuple[int, Split]] = [
        (3, "train"), (9, "train"), (90, "train"), (5, "validation"), (7, "validation"), (4, "test")
    ]  # fmt: skip
    pairs = [make_pair(size, split=split) for size, split in splits]
    likelihood = Asked()
    report = work(pairs, make_step("dpo", max_length=80, max_left_out=0.5, batch=1), likelihood)
    chat = Chat(start)

    def rows(*sizes: int) -> list[dict[str, list[int]]]:
        found = [encode_pair(make_pair(size), chat) for size in sizes]
        return [
            {"prompt_ids": [*p.prompt], "chosen_ids": [*p.chosen], "rejected_ids": [*p.rejected]} for p in found
        ]  # fmt: skip

    assert made.trainer == "DPO"
    assert made.arguments["train_dataset"].to_list() == rows(9, 3)
    assert made.arguments["eval_dataset"].to_list() == rows(7, 5)
    assert made.columns == [
        row | {f"ref_{side}_logps": -float(len(row[f"{side}_ids"])) for side in ("chosen", "rejected")}
        for row in rows(9, 3)
    ]  # fmt: skip
    assert likelihood.labels == ["adapter dpo reference"]
    assert len(likelihood.asked) == 5  # the rejected side of all pairs is the same
    model = made.arguments["model"]
    assert (model.folder, model.settings["dtype"], model.settings["trust_remote_code"]) == (start, torch.float32, False)
    assert model.settings["quantization_config"] is None
    args = made.arguments["args"]
    assert (args.bf16, args.eval_strategy.value, args.save_steps) == (False, "steps", 10)
    assert (report["pairs"], report["left_out"], report["updates"]) == (3, 1, 2)
    assert report["validation"] == {"pairs": 2, "left_out": 0, "probes": 1}
    assert report["last"] == {
        "loss": 0.65, "validation_loss": 0.6, "learning_rate": 0.0001, "reward_accuracy": 0.75,
        "validation_reward_accuracy": 1.0, "reward_margin": 0.123457, "validation_reward_margin": 0.25,
        "chosen_log_probability": -10.0, "right_language": 1.0, "repetition": 0.0, "length": 0.0,
    }  # fmt: skip
    assert json.loads((tmp_path / "adapter/start.json").read_text(encoding="utf-8")) == {
        "chat": chat.digest, "weights": digest_weights(start)
    }  # fmt: skip
    travelling = {"chat_template.jinja", "origin.json", "tokenizer.json", "tokenizer_config.json"}
    there = {path.name for path in (tmp_path / "adapter").iterdir()}
    assert there == {"adapter_config.json", "start.json", *travelling}
    for name in travelling:
        assert (tmp_path / "adapter" / name).read_bytes() == (start / name).read_bytes()
    assert {path.name for path in (tmp_path / "store/training").glob("*/*")} == {"ended", "lock"}


@pytest.mark.parametrize(
    ("held_out", "batch", "expected"), [(16, 2, 8), (17, 2, 1), (15, 4, 15), (18, 4, 9), (1, 4, 1)]
)
def test_batches_of_held_out_pairs_have_one_size(
    made: Made, work: Work, held_out: int, batch: int, expected: int
) -> None:
    """TRL's accuracy is a mean over batches: in a smaller last one, a pair would count more."""
    pairs = [make_pair(3), *(make_pair(size, split="validation") for size in range(3, 3 + held_out))]
    work(pairs, make_step("dpo", batch=batch))
    assert made.arguments["args"].per_device_eval_batch_size == expected


def test_held_out_answers_of_kto_are_in_batches_of_training_s_size(made: Made, work: Work) -> None:
    """Its estimate of the divergence, and so its loss, is one of each batch."""
    work([*PAIRS, *(make_pair(size, split="validation") for size in range(3, 20))], make_step("kto", batch=6))
    assert made.arguments["args"].per_device_eval_batch_size == 6


def test_without_held_out_rows_it_is_said_that_nothing_is_watched(
    work: Work, made: Made, capsys: pytest.CaptureFixture[str]
) -> None:
    work([make_pair(3)])
    assert made.arguments["args"].eval_strategy.value == "no"
    expected = "adapter dpo: health is not watched, but for NaN: there are no held-out rows; raise threads.validation\n"
    assert expected in capsys.readouterr().out


def test_a_misspelt_layer_is_refused(made: Made, work: Work) -> None:
    step = make_step("dpo")
    named = step.weights.model_copy(update={"targets": ["q", "vv"]})
    with pytest.raises(BadInput) as caught:
        work([make_pair(3)], step.model_copy(update={"weights": named}))
    assert caught.value.message == (
        "params.yaml: adapter.dpo.weights.targets: the model has no layer vv; take some of q, v, or all-linear"
    )
    assert made.trainer == ""


METHODS: list[tuple[str, dict[str, Any], list[Any], str, dict[str, Any]]] = [
    ("cpt", {}, TEXTS, "SFT", {"max_length": 512, "packing": False}),
    ("sft", {}, SFT_ROWS, "SFT", {"max_length": 512, "packing": True, "per_device_eval_batch_size": 8}),
    ("dpo", {"losses": {"robust": 1.0, "sft": 0.5}, "label_smoothing": 0.1}, [make_pair(3)], "DPO",
     {"loss_type": ["robust", "sft"], "loss_weights": [1.0, 0.5], "label_smoothing": 0.1, "beta": 0.1,
      "precompute_ref_log_probs": True, "per_device_eval_batch_size": 32}),
    ("kto", {"undesirable_weight": 2.0}, [make_pair(3)], "KTO",
     {"beta": 0.1, "desirable_weight": 1.0, "undesirable_weight": 2.0, "precompute_ref_log_probs": True}),
    ("orpo", {"beta": 0.2}, [make_pair(3)], "ORPO", {"beta": 0.2, "remove_unused_columns": False}),
    ("simpo", {"gamma": 0.7}, [make_pair(3)], "CPO",
     {"beta": 0.1, "loss_type": "simpo", "simpo_gamma": 0.7, "cpo_alpha": 0.0, "remove_unused_columns": False}),
]  # fmt: skip


@pytest.mark.parametrize(("method", "changes", "rows", "trainer", "expected"), METHODS, ids=[m[0] for m in METHODS])
def test_each_method_has_its_trainer_and_options(
    made: Made,
    work: Work,
    method: str,
    changes: dict[str, Any],
    rows: list[Any],
    trainer: str,
    expected: dict[str, Any],
) -> None:
    likelihood = Asked()
    report = work(rows, make_step(method, **changes), likelihood)
    args = made.arguments["args"]
    assert made.trainer == trainer
    assert {name: getattr(args, name) for name in expected} == expected
    assert (args.seed, args.data_seed, args.learning_rate, args.lr_scheduler_type.value) == (2, 2, 2e-4, "cosine")
    assert bool(likelihood.asked) == (method in ("dpo", "kto"))
    assert made.arguments["eval_dataset"] is None
    assert args.eval_strategy.value == "no"
    assert report["updates"] == 2


PAIRS = [make_pair(3), make_pair(4, split="validation")]


@pytest.mark.parametrize(
    ("method", "rows", "expected"),
    [
        ("cpt", [*TEXTS, TEXTS[0].model_copy(update={"split": "validation"})], False),
        ("sft", [*SFT_ROWS, make_thread("Hola", "Buenas", conversation="c", split="validation")], False),
        # rewards are relative to the start, and 0 there
        ("dpo", PAIRS, False),
        ("kto", PAIRS, False),
        # log-probabilities themselves are compared with those before training
        ("orpo", PAIRS, True),
        ("simpo", PAIRS, True),
        ("simpo", PAIRS[:1], False),
    ],
)
def test_validation_is_measured_before_training_where_it_is_compared_with(
    made: Made, work: Work, method: str, rows: list[Any], expected: bool
) -> None:
    work(rows, make_step(method))
    args = made.arguments["args"]
    assert (args.eval_on_start, args.eval_strategy.value) == (expected, "steps" if len(rows) > 1 else "no")


def test_conversations_are_packed_and_only_answers_are_targets(made: Made, work: Work, start: Path) -> None:
    work(SFT_ROWS, make_step("sft"))
    (row,) = made.arguments["train_dataset"].to_list()
    longer, shorter = sorted(encode_conversations(SFT_ROWS, Chat(start)), key=lambda each: -len(each.input_ids))
    assert row["input_ids"] == longer.input_ids + shorter.input_ids
    assert row["labels"] == longer.labels + shorter.labels


@pytest.mark.parametrize(
    ("scheduler", "warmup", "name", "steps"),
    [("cosine", 0.1, "cosine", 1), ("linear", 0.0, "linear", 0), ("constant", 0.5, "constant_with_warmup", 5)],
)
def test_warmup_is_a_share_of_all_updates(
    made: Made, work: Work, scheduler: str, warmup: float, name: str, steps: int
) -> None:
    """Twenty pairs in updates of four, twice."""
    step = make_step("dpo", scheduler=scheduler, warmup=warmup, batch=2, accumulation=2, epochs=2, evaluations=3)
    work([*(make_pair(size) for size in range(1, 21)), make_pair(1, split="validation")], step)
    args = made.arguments["args"]
    assert (args.lr_scheduler_type.value, args.warmup_steps, args.eval_steps) == (name, steps, 4)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, (32, 64, 0.0, {"q", "v"}, False, False)),
        ({"rslora": True, "dropout": 0.1}, (32, 64, 0.1, {"q", "v"}, True, False)),
        ({"dora": True, "targets": "all-linear"}, (32, 64, 0.0, "all-linear", False, True)),
    ],
)
def test_settings_of_an_adapter(made: Made, work: Work, settings: dict[str, Any], expected: tuple[Any, ...]) -> None:
    lora = {"kind": "lora", "rank": 32, "alpha": 64, "dropout": 0.0, "targets": ["q", "v"], "rslora": False}
    work([make_pair(3)], make_step("dpo", weights=lora | {"dora": False} | settings))
    found = made.arguments["peft_config"]
    assert (
        found.r, found.lora_alpha, found.lora_dropout, found.target_modules, found.use_rslora, found.use_dora
    ) == expected  # fmt: skip


def test_beside_a_quantised_start_trl_computes_the_reference(made: Made, work: Work) -> None:
    """The start of the store is another one, in full precision."""
    likelihood = Asked()
    lora = make_step("dpo").weights.model_dump() | {"kind": "qlora"}
    work([make_pair(3)], make_step("dpo", weights=lora), likelihood)
    assert likelihood.labels == []
    assert made.columns[0]["by_trl"]
    settings = made.arguments["model"].settings["quantization_config"]
    assert (settings.load_in_4bit, settings.bnb_4bit_quant_type, settings.bnb_4bit_use_double_quant) == (
        True, "nf4", True
    )  # fmt: skip
    assert made.arguments["peft_config"].r == 16


def test_layers_in_nf4_are_not_packed_at_an_evaluation(made: Made, work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also on a CPU for which bitsandbytes would do that."""
    import torch
    from bitsandbytes.nn import Linear4bit

    quantised, other = Linear4bit(64, 64), torch.nn.Linear(64, 64)
    assert hasattr(quantised, "support_avx512bf16_for_cpu")
    quantised.support_avx512bf16_for_cpu = True

    def load_layers(folder: Path, settings: dict[str, Any]) -> Model:
        model = Model(folder, settings)
        model.layers = [other, quantised]
        return model

    monkeypatch.setattr(f"{__name__}.load", load_layers)
    work([make_pair(3)], make_step("dpo", weights=make_step("dpo").weights.model_dump() | {"kind": "qlora"}))
    assert made.arguments["model"].layers == [other, quantised]
    assert not quantised.support_avx512bf16_for_cpu
    assert not hasattr(other, "support_avx512bf16_for_cpu")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_all_weights_are_trained_in_float32(
    tmp_path: Path, start: Path, made: Made, work: Work, monkeypatch: pytest.MonkeyPatch, dtype: Any
) -> None:
    import peft
    import torch

    monkeypatch.setattr(peft, "PeftModel", type(None))
    monkeypatch.setattr(f"{__name__}.load", Whole)
    write_origin(start, Origin(source="folder", id="toy", revision=None, dtype=dtype))
    work([make_pair(3)], make_step("dpo", weights={"kind": "full"}))
    assert made.arguments["peft_config"] is None
    assert made.arguments["model"].settings["dtype"] == torch.float32
    assert made.arguments["args"].bf16 == (dtype == "bfloat16")
    travelling = {"chat_template.jinja", "origin.json", "tokenizer.json", "tokenizer_config.json"}
    there = {path.name for path in (tmp_path / "adapter").iterdir()}
    assert there == {"model.safetensors", "start.json", *travelling}


def test_a_killed_training_goes_on_from_its_last_checkpoint(tmp_path: Path, made: Made, work: Work) -> None:
    """With any other setting it is another training, which starts anew."""
    step = make_step("orpo")
    made.saved, made.killed_at = {1}, 2
    with pytest.raises(Killed):
        work(PAIRS, step)
    assert made.resumed is None
    assert made.arguments["args"].eval_on_start
    assert sorted(path.name for path in tmp_path.iterdir()) == ["store"]
    (kept,) = (tmp_path / "store/training").glob("*/kept-*")
    made.saved, made.killed_at = set(), None
    work(PAIRS, make_step("orpo", beta=0.2))
    assert made.resumed is None
    work(PAIRS, step)
    assert made.resumed == str(kept)
    assert kept.name == "kept-1"
    assert not made.arguments["args"].eval_on_start  # it was measured then
    assert list((tmp_path / "store/training").iterdir()) == [kept.parent]  # of the two that have ended
    work(PAIRS, step)
    assert made.resumed == str(kept)
    work(PAIRS, make_step("orpo", beta=0.3))
    assert not kept.exists()


def test_prompts_are_answered_before_training_and_not_again_when_it_goes_on(
    tmp_path: Path, made: Made, work: Work
) -> None:
    made.saved, made.killed_at = {1}, 1
    with pytest.raises(Killed):
        work(PAIRS)
    assert made.arguments["model"].answered == 1
    made.saved, made.killed_at = set(), None
    work(PAIRS)
    assert made.resumed is not None
    assert made.arguments["model"].answered == 0
    shutil.rmtree(tmp_path / "store")
    work(PAIRS)
    assert made.resumed is None
    assert made.arguments["model"].answered == 1
    assert read_curves(tmp_path / "curves")["answers/dpo.csv"] == [
        "step,right_language,repetition,length", "0,1.0,0.0,0.0"
    ]  # fmt: skip


OVER_FIT = [
    {"step": 1, "epoch": 1.0, "loss": 0.7, "rewards/accuracies": 1.0},
    {"step": 2, "epoch": 2.0, "loss": 0.6, "rewards/accuracies": 1.0},
    {"step": 2, "epoch": 2.0, "eval_loss": 0.6, "eval_rewards/accuracies": 0.0},
]
HEALTH = make_step("dpo").health.model_dump()


@pytest.mark.parametrize(
    ("changes", "continued"),
    [
        ({"health": HEALTH | {"max_accuracy_gap": 0.6}}, True),
        ({"health": {"prompts": 2, "tokens": 8, "max_accuracy_gap": 1.0, "max_chosen_drop": 9.0,
                     "min_right_language": 0.0, "max_repetition": 1.0, "min_length": 0.0}}, True),
        ({"health": HEALTH | {"max_accuracy_gap": 0.6, "tokens": 9}}, False),
        ({"health": HEALTH | {"max_accuracy_gap": 0.6, "prompts": 1}}, False),
        ({"health": HEALTH | {"max_accuracy_gap": 0.6}, "learning_rate": 1e-4}, False),
    ],
)  # fmt: skip
def test_with_a_higher_limit_a_training_goes_on_from_where_it_was_stopped(
    tmp_path: Path, made: Made, work: Work, changes: dict[str, Any], continued: bool
) -> None:
    """With another setting, and also with another number of prompts or tokens, it starts anew."""
    made.history, made.saved = OVER_FIT, {1}
    pairs = [make_pair(3), *(make_pair(size, split="validation", asked=f"1234{size}") for size in range(4, 8))]
    with pytest.raises(BadInput) as caught:
        work(pairs)
    (kept,) = (tmp_path / "store/training").glob("*/kept-1")
    assert caught.value.message == (
        "adapter dpo: stopped at update 2: over-fit: reward accuracy is 1.00 in training and 0.00 (95 % interval up"
        " to 0.49) on held-out pairs of 4 prompts, a gap over health.max_accuracy_gap 0.25; take fewer epochs, a lower"
        f" learning_rate or more pairs; no checkpoint is known to be good, and the newest is {kept}"
    )
    assert (tmp_path / "logs/curves/reward_accuracy/dpo.csv").exists()
    made.saved = set()
    assert work(pairs, make_step("dpo", **changes))["updates"] == 2
    assert made.resumed == (str(kept) if continued else None)
    others = [path for path in (tmp_path / "store/training").iterdir() if path != kept.parent]
    assert [len(others), kept.exists()] == [0 if continued else 1, True]  # one that was given up stays


NAN = {"step": 3, "loss": math.nan}


@pytest.mark.parametrize(
    ("saved", "there", "where"),
    [
        (set(), [], "there was no checkpoint before it"),
        ({2}, ["kept-2"], "no checkpoint is known to be good, and the newest is {}/kept-2"),
        ({1, 2}, ["kept-1", "kept-2"], "the last good checkpoint is {}/kept-1"),
    ],
)
def test_a_training_that_goes_wrong_stops_and_keeps_the_last_good_checkpoint(
    tmp_path: Path, made: Made, work: Work, saved: set[int], there: list[str], where: str
) -> None:
    """That of the last evaluation, at update 1: the loss of update 3 is of weights that update 2 may have broken."""
    healthy = [*HISTORY[:2], {"step": 1, "eval_loss": 0.6}, HISTORY[2]]
    made.history, made.saved = [*healthy, NAN, {"step": 4, "loss": 0.1}], saved
    with pytest.raises(BadInput) as caught:
        work([make_pair(3)])
    (folder,) = (tmp_path / "store/training").iterdir()
    assert sorted(path.name for path in folder.glob("kept-*")) == there
    assert caught.value.message == (
        "adapter dpo: stopped at update 3: the loss is nan; lower learning_rate, or look for a broken row; "
        + where.format(folder)
    )
    assert not (tmp_path / "adapter").exists()


def read_curves(folder: Path) -> dict[str, list[str]]:
    return {
        path.relative_to(folder).as_posix(): path.read_text(encoding="utf-8").splitlines()
        for path in folder.rglob("*.csv")
    }


def test_each_curve_has_a_file_with_a_row_for_each_update(tmp_path: Path) -> None:
    """Those of training and of validation in one."""
    answers = {"answers_right_language": 0.9, "answers_repetition": 0.1, "answers_length": 1.25}
    last = write_curves([*HISTORY, {"step": 2, **answers}], tmp_path, "dpo")
    sides = "chosen_log_probability,rejected_log_probability"
    assert read_curves(tmp_path) == {
        "loss/dpo.csv": ["step,loss,validation_loss", "0,NaN,0.7", "1,0.7,NaN", "2,0.65,0.6"],
        "learning_rate/dpo.csv": ["step,learning_rate", "1,0.0001"],
        "reward_accuracy/dpo.csv": [
            "step,reward_accuracy,validation_reward_accuracy", "0,NaN,0.5", "1,0.5,NaN", "2,0.75,1.0",
        ],
        "reward_margin/dpo.csv": ["step,reward_margin,validation_reward_margin", "1,0.0,NaN", "2,0.123457,0.25"],
        "log_probability/dpo.csv": [
            f"step,{sides},validation_chosen_log_probability,validation_rejected_log_probability",
            "2,-10.0,NaN,NaN,NaN",
        ],
        "answers/dpo.csv": ["step,right_language,repetition,length", "2,0.9,0.1,1.25"],
    }  # fmt: skip
    assert (last["right_language"], last["validation_loss"], last["learning_rate"]) == (0.9, 0.6, 0.0001)


def test_a_method_without_a_curve_has_one_row_without_values(tmp_path: Path) -> None:
    history = [{"step": 1, "loss": 2.0, "learning_rate": 0.5}, {"step": 2, "loss": 1.0, "learning_rate": 0.25}]
    assert write_curves(history, tmp_path, "sft") == {"loss": 1.0, "learning_rate": 0.25}
    found = read_curves(tmp_path)
    assert sorted(found) == sorted(f"{curve}/sft.csv" for curve in CURVES)
    assert found["loss/sft.csv"] == ["step,loss,validation_loss", "1,2.0,NaN", "2,1.0,NaN"]
    assert found["reward_margin/sft.csv"] == ["step,reward_margin,validation_reward_margin", "0,NaN,NaN"]
    assert found["answers/sft.csv"] == ["step,right_language,repetition,length", "0,NaN,NaN,NaN"]


def test_the_plots_of_dvc_are_of_the_curves_and_their_columns() -> None:
    pipeline = YAML(typ="safe", pure=True).load(ROOT / "dvc.yaml")
    every = {name: plot for each in pipeline["plots"] for name, plot in each.items()}
    plots = {name: plot for name, plot in every.items() if plot["x"] == "step"}
    assert sorted(plots) == sorted(f"metrics/curves/{curve}" for curve in CURVES)
    for curve, columns in CURVES.items():
        plot = plots[f"metrics/curves/{curve}"]
        more = [f"validation_{column}" for column in columns] if curve in MEASURED else []
        assert plot["x"] == "step"
        assert ([plot["y"]] if isinstance(plot["y"], str) else plot["y"]) == [*columns, *more]
    written = [f"metrics/curves/{curve}/${{key}}.csv" for curve in CURVES]
    assert set(written) < set(pipeline["stages"]["adapter"]["do"]["outs"])


def test_the_speed_of_each_update_is_with_the_logs(tmp_path: Path, made: Made, work: Work) -> None:
    """Of no update here: nothing is computed."""
    work([make_pair(3)])
    written = (tmp_path / "logs/speed/dpo.csv").read_text(encoding="utf-8").splitlines()
    assert written == ["step,tokens_per_second", "1,0.0", "2,0.0"]
    assert made.trainer == "DPO"


@pytest.mark.parametrize(
    ("origin", "written"),
    [
        (Origin(source="hub", id="someone/model", revision="a" * 40, dtype="bfloat16"), f"someone/model {'a' * 40}"),
        (Origin(source="package", id="model", revision="1.0", dtype="bfloat16"), "start None"),
    ],
)
def test_an_adapter_names_a_base_of_the_hub(
    tmp_path: Path, start: Path, made: Made, work: Work, origin: Origin, written: str
) -> None:
    import torch

    write_origin(start, origin)
    work([make_pair(3)])
    assert (tmp_path / "adapter/adapter_config.json").read_text(encoding="utf-8") == written
    assert made.arguments["args"].bf16
    assert made.arguments["model"].settings["dtype"] == torch.bfloat16


MEAN = "nats in a token's log-probability on average, computed in bfloat16, over merged.max_served_difference"
MERGED = Merged(dtype="float32", max_difference=0.5, max_served_difference=0.75)


@pytest.fixture
def adapter(tmp_path: Path, start: Path) -> Path:
    """An adapter that was trained on `start`."""
    folder = tmp_path / "adapter"
    folder.mkdir()
    (folder / "adapter_config.json").write_text("{}", encoding="utf-8")
    weights.copy_other_files(start, folder)
    write_parts(folder, chat=Chat(start).digest, weights=digest_weights(start))
    return folder


def write_parts(adapter: Path, **parts: str) -> None:
    (adapter / "start.json").write_text(json.dumps(parts), encoding="utf-8")


THREADS = [make_thread("Hola", "Buenas")]
OTHER = "0123456789abcdef"


def refused(start: Path, adapter: Path, out: Path, params: Merged = MERGED) -> str:
    """The message of a merge that is refused, and writes nothing."""
    before = sorted(out.parent.iterdir())
    with pytest.raises(BadInput) as caught:
        merging.merge(start, adapter, out, params, THREADS, "dpo")
    assert sorted(out.parent.iterdir()) == before
    return caught.value.message


def test_an_adapter_of_another_start_is_refused(tmp_path: Path, start: Path, adapter: Path) -> None:
    chat, there = Chat(start).digest, digest_weights(start)
    write_parts(adapter, chat=OTHER, weights=there)
    assert refused(start, adapter, tmp_path / "dpo") == (
        f"{adapter}: trained with chat template {OTHER}, but {start} has {chat}; train the adapter again"
    )
    write_parts(adapter, chat=chat, weights=OTHER)
    assert refused(start, adapter, tmp_path / "dpo") == (
        f"{adapter}: trained on weights {OTHER}, but {start} has {there}; train the adapter again"
    )
    write_parts(adapter, chat=chat, weights=there)
    (start / "model.safetensors").write_bytes(b"others")
    assert refused(start, adapter, tmp_path / "dpo") == (
        f"{adapter}: trained on weights {there}, but {start} has {digest_weights(start)}; train the adapter again"
    )
    (start / "model.safetensors").write_bytes(b"weights")
    (adapter / "tokenizer.json").write_bytes(b"{}")
    assert refused(start, adapter, tmp_path / "dpo") == (
        f"{adapter}: tokenizer.json is not that of {start}; train the adapter again"
    )
    (adapter / "start.json").unlink()
    assert refused(start, adapter, tmp_path / "dpo") == (
        f"{adapter}/start.json: cannot be read (No such file or directory); run the stage that makes it"
    )


def test_a_merge_into_a_quantised_model_is_refused(tmp_path: Path, start: Path, adapter: Path) -> None:
    (start / "config.json").write_text(json.dumps({"quantization_config": {"load_in_4bit": True}}), encoding="utf-8")
    write_parts(adapter, chat=Chat(start).digest, weights=digest_weights(start))
    assert refused(start, adapter, tmp_path / "dpo") == (
        f"{start}: is quantised, and no adapter can be merged into it; merge it into the original"
    )


class Probed:
    """Stands for models by their names, and keeps (model, prompt, answer) of all log-probabilities.

    Those of the stored model are larger by `first` at the first token of an answer.
    """

    def __init__(self) -> None:
        self.found: list[tuple[str, Any, Any]] = []
        self.first = {"float32": 0.25, "bfloat16": 0.5}

    def compute(self, model: "Part", prompt: tuple[int, ...], answer: tuple[int, ...]) -> Any:
        import torch

        self.found.append((model.name, prompt, answer))
        what, _, dtype = model.name.partition(" in ")
        return torch.tensor([self.first[dtype] if what == "stored" else 0.0, *[0.0] * (len(answer) - 1)])

    @property
    def models(self) -> list[str]:
        """Those in their order, each once."""
        return list(dict.fromkeys(name for name, *_ in self.found))


class Part:
    """A model by its name."""

    def __init__(self, name: str) -> None:
        self.name = name

    def to(self, dtype: Any) -> "Part":
        return Part(f"{self.name} to {dtype}")


class Adapted(Part):
    """A model with its adapter."""

    def eval(self) -> "Adapted":
        return self

    def merge_and_unload(self, *, safe_merge: bool) -> Part:
        assert safe_merge
        return Part(f"merged {self.name}")


@pytest.fixture
def probed(monkeypatch: pytest.MonkeyPatch, adapter: Path) -> Probed:
    """Replaces models by their names."""
    import peft

    found = Probed()

    def load(folder: Path, dtype: str) -> Part:
        what = "stored" if (folder / "saved").exists() else "whole" if folder == adapter else "start"
        return Part(f"{what} in {dtype}")

    def save(model: Part, source: Path, folder: Path) -> None:
        (folder / "saved").write_text(f"{model.name} like {source.name}", encoding="utf-8")

    monkeypatch.setattr(weights, "load_model", load)
    monkeypatch.setattr(peft.PeftModel, "from_pretrained", lambda base, _: Adapted(f"{base.name} with adapter"))
    monkeypatch.setattr(weights, "token_log_probabilities", found.compute)
    monkeypatch.setattr(weights, "save_model", save)
    return found


@pytest.mark.parametrize(
    ("splits", "count"), [(["train", "test", "validation"], 2), (["train"] * 3, 3), (["test"] * 40, 16)]
)
def test_a_merge_is_compared_on_held_out_threads_where_there_are_some(
    tmp_path: Path, start: Path, adapter: Path, probed: Probed, splits: list[Split], count: int
) -> None:
    threads = [make_thread("Hola", "x" * size, split=split) for size, split in enumerate(splits, start=1)]
    report = merging.merge(start, adapter, tmp_path / "dpo", MERGED, threads, "dpo")
    held_out = ([row for row in threads if row.split != "train"] or threads)[:16]
    expected = [Chat(start).encode_answer(row.prompt, row.reference) for row in held_out]
    assert len(expected) == count
    parts = ("start in float32 with adapter", "stored in float32")
    assert probed.found == [(name, *probe) for name in parts for probe in expected]
    tokens = sum(len(answer) for _, answer in expected)
    mean = pytest.approx(0.25 * count / tokens)
    assert report == {"float32": {"largest_difference": 0.25, "mean_difference": mean}, "tokens": tokens}


def test_a_bfloat16_model_is_compared_in_both_dtypes(
    tmp_path: Path, start: Path, adapter: Path, probed: Probed
) -> None:
    write_origin(start, Origin(source="folder", id="toy", revision=None, dtype="bfloat16"))
    report = merging.merge(start, adapter, tmp_path / "dpo", MERGED, THREADS, "dpo")
    assert probed.models == [
        "start in float32 with adapter", "start in bfloat16 with adapter", "stored in float32", "stored in bfloat16"
    ]  # fmt: skip
    tokens = len("Buenas") + 1
    assert report == {
        "float32": {"largest_difference": 0.25, "mean_difference": pytest.approx(0.25 / tokens)},
        "bfloat16": {"largest_difference": 0.5, "mean_difference": pytest.approx(0.5 / tokens)},
        "tokens": tokens,
    }
    assert read_origin(tmp_path / "dpo").dtype == "bfloat16"


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_merged_model_is_named_for_its_step_and_computes_as_the_one_it_started_from(
    tmp_path: Path, start: Path, adapter: Path, probed: Probed, dtype: Any
) -> None:
    """Whatever its weights are stored in."""
    params = MERGED.model_copy(update={"dtype": dtype})
    merging.merge(start, adapter, tmp_path / "dpo", params, THREADS, "dpo")
    assert probed.found
    assert read_origin(tmp_path / "dpo") == Origin(source="adapter", id="dpo", revision=None, dtype="float32")
    saved = (tmp_path / "dpo/saved").read_text(encoding="utf-8")
    assert saved == f"merged start in float32 with adapter to torch.{dtype} like {start.name}"


def test_a_model_whose_weights_were_all_trained_is_stored_as_it_is(
    tmp_path: Path, start: Path, adapter: Path, probed: Probed
) -> None:
    (adapter / "adapter_config.json").unlink()
    merging.merge(start, adapter, tmp_path / "dpo", MERGED, THREADS, "dpo")
    assert probed.models == ["whole in float32", "stored in float32"]
    saved = (tmp_path / "dpo/saved").read_text(encoding="utf-8")
    assert saved == f"whole in float32 to torch.float32 like {start.name}"


@pytest.mark.parametrize(
    ("first", "changes", "expected"),
    [
        ({}, {"max_difference": 0.2},
         "0.25 nats in a token's log-probability, computed in float32, over merged.max_difference 0.2"),
        ({"float32": math.nan}, {},
         "nan nats in a token's log-probability, computed in float32, over merged.max_difference 0.5"),
        ({}, {"max_served_difference": 0.07},
         f"0.0714 {MEAN} 0.07"),
        ({"bfloat16": math.nan}, {},
         f"nan {MEAN} 0.75"),
    ],
)  # fmt: skip
def test_a_merge_that_differs_too_much_is_refused(
    tmp_path: Path,
    start: Path,
    adapter: Path,
    probed: Probed,
    first: dict[str, float],
    changes: dict[str, float],
    expected: str,
) -> None:
    write_origin(start, Origin(source="folder", id="toy", revision=None, dtype="bfloat16"))
    probed.first |= first
    assert refused(start, adapter, tmp_path / "dpo", MERGED.model_copy(update=changes)) == (
        f"{tmp_path}/dpo: merged and adapter differ by {expected}; raise the limit"
    )
