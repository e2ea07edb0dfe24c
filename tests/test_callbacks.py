"""What happens between updates: answers to held-out prompts, the watch, and the speed."""

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import make_step

from mothertongue.chat import Chat
from mothertongue.training.callbacks import build_answers, build_progress, build_watch
from mothertongue.training.examples import Probe
from mothertongue.training.health import LENGTH, REPETITION, RIGHT_LANGUAGE, HeldOut


class Speaker:
    """A model that answers each prompt with given token ids."""

    device = torch.device("cpu")

    def __init__(self, answers: list[list[int]], *, training: bool) -> None:
        self.answers, self.training = answers, training
        self.asked: list[tuple[list[list[int]], list[list[int]], Any, bool]] = []

    def eval(self) -> None:
        self.training = False

    def train(self, mode: bool) -> None:
        self.training = mode

    def generate(self, input_ids: Any, attention_mask: Any, generation_config: Any) -> Any:
        self.asked.append((input_ids.tolist(), attention_mask.tolist(), generation_config, self.training))
        width = max(map(len, self.answers))
        pad = generation_config.pad_token_id
        return torch.cat([input_ids, torch.tensor([ids + [pad] * (width - len(ids)) for ids in self.answers])], dim=1)


def ids(chat: Chat, text: str) -> list[int]:
    found: list[int] = chat.tokenizer(text, add_special_tokens=False)["input_ids"]
    return found


@pytest.mark.parametrize("training", [True, False])
def test_answers_are_greedy_and_their_measurements_are_in_the_history(chat: Chat, training: bool) -> None:
    """Prompts are filled up on the left; what follows an end is not of the answer."""
    (end,) = chat.eos_token_ids
    texts = ("El gato duerme todo el día en la cocina.", "The cat sleeps all day in the kitchen.")
    probes = [Probe((7, 8, 9), "es", texts[0]), Probe((5,), "es", texts[0])]
    model = Speaker([[*ids(chat, texts[0]), end, *ids(chat, " y más y más")], ids(chat, texts[1])], training=training)
    state = SimpleNamespace(global_step=20, log_history=[{"step": 20, "eval_loss": 0.5}])
    build_answers(probes, chat, 64).on_evaluate(None, state, None, model=model)
    ((prompts, mask, config, while_training),) = model.asked
    assert prompts == [[7, 8, 9], [end, end, 5]]  # this tokenizer has no token for padding
    assert mask == [[1, 1, 1], [0, 0, 1]]
    assert (config.do_sample, config.max_new_tokens, config.eos_token_id) == (False, 64, [end])
    assert (while_training, model.training) == (False, training)
    assert state.log_history[1:] == [{"step": 20, RIGHT_LANGUAGE: 0.5, REPETITION: 0.0, LENGTH: 17 / 18}]


@pytest.mark.parametrize(
    ("begun_at", "evaluated_at", "expected"),
    [
        (0, [10, 20], [0, 10, 20]),
        (0, [0, 10], [0, 10]),  # an evaluation before training finds them made
        (10, [20], [20]),  # a run that goes on from a checkpoint
        (10, [10, 20], [10, 20]),
    ],
)
def test_answers_are_made_once_before_training_and_at_each_evaluation(
    chat: Chat, begun_at: int, evaluated_at: list[int], expected: list[int]
) -> None:
    text = "El gato duerme todo el día en la cocina."
    model = Speaker([ids(chat, text)], training=True)
    answers = build_answers([Probe((5,), "es", text)], chat, 64)
    state = SimpleNamespace(global_step=begun_at, log_history=[])
    answers.on_train_begin(None, state, None, model=model)
    for state.global_step in evaluated_at:
        state.log_history.append({"step": state.global_step, "eval_loss": 0.5})
        answers.on_evaluate(None, state, None, model=model)
    assert [entry["step"] for entry in state.log_history if RIGHT_LANGUAGE in entry] == expected
    assert len(model.asked) == len(expected)


def control() -> SimpleNamespace:
    return SimpleNamespace(should_training_stop=False, should_save=True)


def test_the_watch_stops_at_the_first_problem_without_a_checkpoint() -> None:
    watch, now = build_watch(make_step("dpo"), HeldOut(1, 1.0)), control()
    state = SimpleNamespace(log_history=[], global_step=1)
    state.log_history.append({"step": 1, "loss": 0.5})
    watch.on_log(None, state, now)
    assert (watch.problem, now) == (None, control())
    state.log_history.append({"step": 1, "eval_loss": 0.5})
    now.should_save = False
    watch.on_evaluate(None, state, now)
    assert (watch.problem, now.should_save) == (None, True)  # a checkpoint that is known to be good
    state.global_step = 2
    state.log_history.append({"step": 2, "loss": math.nan})
    watch.on_log(None, state, now)
    first = "the loss is nan; lower learning_rate, or look for a broken row"
    assert (watch.problem, now.should_training_stop, now.should_save) == (first, True, False)
    assert watch.sound == 1
    # what comes until training has ended changes nothing, but a checkpoint that is due then
    state.log_history.append({"step": 2, "eval_loss": math.inf})
    now.should_save = True
    watch.on_evaluate(None, state, now)
    assert (watch.problem, now.should_save) == (first, False)


def test_the_watch_looks_at_answers_after_an_evaluation() -> None:
    answers = [{RIGHT_LANGUAGE: right, REPETITION: 0.0, LENGTH: 1.0} for right in (0.9, 0.3)]
    watch, now = build_watch(make_step("sft"), HeldOut(1, 1.0)), control()
    state = SimpleNamespace(log_history=[], global_step=0)
    for step, entry in enumerate(answers):
        state.global_step = step
        state.log_history.append({"step": step, **entry})
        watch.on_evaluate(None, state, now)
    assert watch.problem.startswith("0.30 of the answers to held-out prompts are in the right language (0.90 before")
    assert now.should_training_stop


def test_a_limit_that_became_stricter_stops_a_training_that_goes_on() -> None:
    """It was passed before the training was killed."""
    history = [
        {"step": step, RIGHT_LANGUAGE: right, REPETITION: 0.0, LENGTH: 1.0} for step, right in ((0, 0.9), (5, 0.7))
    ]
    history.append({"step": 6, "loss": 0.5})
    state, now = SimpleNamespace(log_history=history, global_step=6), control()
    watch = build_watch(make_step("sft"), HeldOut(1, 1.0))
    watch.on_train_begin(None, state, now)
    assert (watch.problem, now.should_training_stop) == (None, False)
    limits = make_step("sft").health.model_dump() | {"min_right_language": 0.8, "prompts": 16}
    watch = build_watch(make_step("sft", health=limits), HeldOut(1, 1.0))
    watch.on_train_begin(None, state, now)
    assert watch.problem.startswith("0.70 of the answers")
    assert (watch.sound, now.should_training_stop) == (0, True)


def test_the_speed_is_of_tokens_in_training_and_of_the_time_of_updates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither an evaluation's tokens count, nor its time."""
    layer = torch.nn.Embedding(10, 1)
    model: Any = SimpleNamespace(get_input_embeddings=lambda: layer)
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr("mothertongue.training.callbacks.time.monotonic", lambda: clock.now)
    progress = build_progress(2, "adapter dpo", model, tmp_path / "speed/dpo.csv")
    state = SimpleNamespace(global_step=0)

    def look_up(*shape: int) -> None:
        layer(torch.zeros(shape, dtype=torch.long))

    progress.on_train_begin(None, state, None)
    progress.on_step_begin(None, state, None)
    for _ in range(2):  # two batches of an update
        look_up(2, 30)
    clock.now += 4.0
    progress.on_step_end(None, state, None)
    state.global_step = 1
    progress.on_log(None, state, None, logs={"loss": 0.5})
    layer.eval()
    look_up(8, 100)
    layer.train()
    clock.now += 50.0
    progress.on_log(None, state, None, logs={"eval_loss": 0.5})
    progress.on_step_begin(None, state, None)
    look_up(1, 50)
    clock.now += 2.0
    progress.on_step_end(None, state, None)
    state.global_step = 2
    progress.on_log(None, state, None, logs={"loss": 0.4})
    progress.on_train_end(None, state, None)
    written = (tmp_path / "speed/dpo.csv").read_text(encoding="utf-8").splitlines()
    assert written == ["step,tokens_per_second", "1,30.0", "2,25.0"]


def test_the_bar_of_a_training_that_goes_on_has_the_rate_of_what_it_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TQDM_MININTERVAL", "0")
    model: Any = SimpleNamespace(get_input_embeddings=lambda: torch.nn.Embedding(10, 1))
    progress = build_progress(100, "adapter dpo", model, tmp_path / "speed/dpo.csv")
    progress.on_train_begin(None, SimpleNamespace(global_step=90), None)
    monkeypatch.setattr(progress.bar, "_time", lambda: progress.bar.start_t + 10.0)
    assert progress.bar.format_dict["n"] == 90
    progress.on_step_end()
    assert "91/100" in capsys.readouterr().err  # the first update already
    progress.bar.smoothing = 0
    assert "0.10update/s" in str(progress.bar) or "10.00s/update" in str(progress.bar)
    progress.on_train_end()
