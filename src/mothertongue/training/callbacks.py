"""What happens between updates: a progress bar, answers to held-out prompts, the watch on health, and checkpoints."""

import csv
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mothertongue import console
from mothertongue.chat import Chat
from mothertongue.params import Step
from mothertongue.training.checkpoints import Checkpoints
from mothertongue.training.examples import Probe
from mothertongue.training.health import RIGHT_LANGUAGE, HeldOut, find_problem, find_sound_update, score_answers


def build_progress(updates: int, label: str, model: Any, speed: Path) -> Any:
    """A progress bar of updates with the loss, and a CSV file with the tokens a second of each update.

    Padding counts, and what is computed for evaluation does not. The file is with the logs and no output of a stage,
    because speeds differ from run to run.
    """
    from transformers import TrainerCallback

    class Progress(TrainerCallback):  # type: ignore[misc]
        def __init__(self) -> None:
            self.bar: Any = None
            self.tokens, self.at = 0, 0.0
            self.rows: list[tuple[int, float]] = []
            model.get_input_embeddings().register_forward_hook(self._count)

        def _count(self, module: Any, inputs: Any, _: Any) -> None:
            if module.training:
                self.tokens += inputs[0].numel()

        def on_train_begin(self, _: Any, state: Any, *__: Any, **___: Any) -> None:
            self.bar = console.progress(updates, label, "update", done=state.global_step)
            self.at = time.monotonic()

        def on_log(self, _: Any, state: Any, *__: Any, logs: dict[str, Any] | None = None, **___: Any) -> None:
            if loss := (logs or {}).get("loss"):
                self.bar.set_postfix(loss=f"{float(loss):.3f}", refresh=False)
                now = time.monotonic()
                self.rows.append((state.global_step, round(self.tokens / (now - self.at), 1)))
                self.tokens, self.at = 0, now

        def on_step_begin(self, *_: Any, **__: Any) -> None:
            self.at = self.at if self.tokens else time.monotonic()  # after an evaluation

        def on_step_end(self, *_: Any, **__: Any) -> None:
            self.bar.update()

        def on_train_end(self, *_: Any, **__: Any) -> None:
            self.bar.close()
            speed.parent.mkdir(parents=True, exist_ok=True)
            with speed.open("w", newline="", encoding="utf-8") as file:
                csv.writer(file, lineterminator="\n").writerows([("step", "tokens_per_second"), *self.rows])

    return Progress()


def build_answers(probes: Sequence[Probe], chat: Chat, tokens: int) -> Any:
    """Answers to held-out prompts, by greedy decoding, before training and at each evaluation."""
    import torch
    from transformers import GenerationConfig, TrainerCallback

    pad = chat.tokenizer.pad_token_id if chat.tokenizer.pad_token_id is not None else chat.tokenizer.eos_token_id
    width = max(len(probe.prompt) for probe in probes)
    ids = torch.tensor([[pad] * (width - len(probe.prompt)) + list(probe.prompt) for probe in probes])
    mask = torch.tensor([[0] * (width - len(probe.prompt)) + [1] * len(probe.prompt) for probe in probes])
    config = GenerationConfig(
        do_sample=False, max_new_tokens=tokens, eos_token_id=list(chat.eos_token_ids), pad_token_id=pad
    )

    class Answers(TrainerCallback):  # type: ignore[misc]
        def on_train_begin(self, args: Any, state: Any, control: Any, **more: Any) -> None:
            if not state.global_step:
                self.on_evaluate(args, state, control, **more)

        def on_evaluate(self, _: Any, state: Any, *__: Any, model: Any = None, **___: Any) -> None:
            if any(entry["step"] == state.global_step for entry in state.log_history if RIGHT_LANGUAGE in entry):
                return
            was_training = model.training
            model.eval()
            with torch.no_grad():
                made = model.generate(
                    input_ids=ids.to(model.device), attention_mask=mask.to(model.device), generation_config=config
                )
            model.train(was_training)
            answers = [chat.decode(_up_to_end(row, chat.eos_token_ids)) for row in made[:, width:].tolist()]
            state.log_history.append({"step": state.global_step, **score_answers(probes, answers)})

    return Answers()


def _up_to_end(ids: Sequence[int], ends: Sequence[int]) -> list[int]:
    end = next((place for place, token in enumerate(ids) if token in ends), len(ids))
    return list(ids[: end + 1])


def build_watch(step: Step, held_out: HeldOut) -> Any:
    """Stops training where a limit of health is passed; `problem` then says which.

    Of the checkpoints, those up to update `sound` are good then. An evaluation that finds nothing wrong asks for one.
    """
    from transformers import TrainerCallback

    class Watch(TrainerCallback):  # type: ignore[misc]
        def __init__(self) -> None:
            self.problem: str | None = None
            self.sound = 0

        def on_train_begin(self, _: Any, state: Any, control: Any, **__: Any) -> None:
            """A limit may have become stricter since a training was killed: it is looked at from its beginning."""
            history = state.log_history
            for end in range(1, len(history) + 1):
                if problem := find_problem(history[:end], step, held_out):
                    self.problem = problem
                    self.sound = find_sound_update(history[: end - 1], before=history[end - 1]["step"])
                    control.should_training_stop = True
                    return

        def _look(self, state: Any, control: Any) -> None:
            if not self.problem and (problem := find_problem(state.log_history, step, held_out)):
                self.problem, self.sound = problem, find_sound_update(state.log_history[:-1], before=state.global_step)
            if self.problem:
                control.should_training_stop, control.should_save = True, False

        def on_log(self, _: Any, state: Any, control: Any, **__: Any) -> None:
            self._look(state, control)

        def on_evaluate(self, _: Any, state: Any, control: Any, **__: Any) -> None:
            control.should_save = True
            self._look(state, control)

    return Watch()


def build_checkpoints(checkpoints: Checkpoints) -> Any:
    """Names each checkpoint as complete when it has been written."""
    from transformers import TrainerCallback

    class Kept(TrainerCallback):  # type: ignore[misc]
        def on_save(self, _: Any, state: Any, *__: Any, **___: Any) -> None:
            checkpoints.keep(state.global_step, find_sound_update(state.log_history, before=state.global_step + 1))

    return Kept()
