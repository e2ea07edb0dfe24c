"""DPO with LoRA. The module of TRL and of PEFT's configuration."""

import csv
import io
import math
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from mothertongue import console, hardware
from mothertongue.chat import Chat
from mothertongue.errors import BadInput
from mothertongue.files import new_file, new_folder
from mothertongue.origin import Origin, read_origin
from mothertongue.params import Step
from mothertongue.records import Pair
from mothertongue.rows import write_json

CURVES = {  # a file for each plot: our columns, and TRL's names of them
    "loss": {"loss": "loss"},
    "reward_accuracy": {"reward_accuracy": "rewards/accuracies"},
    "reward_margin": {"reward_margin": "rewards/margins"},
    "log_probability": {"chosen_log_probability": "logps/chosen", "rejected_log_probability": "logps/rejected"},
}


def tokenize_pair(pair: Pair, chat: Chat) -> dict[str, list[int]]:
    """Token ids as TRL's collator takes them, without an eos token where an answer was cut.

    Where the two sides begin at different places, `prompt_ids` is what both share, as in TRL.
    """
    sides = [chat.encode_example(pair.prompt, text, ended=lineage.finish == "stop") for text, lineage in pair.sides]
    shared = min(len(prompt) for prompt, _ in sides)
    chosen, rejected = ([*prompt, *answer] for prompt, answer in sides)
    return {"prompt_ids": chosen[:shared], "chosen_ids": chosen[shared:], "rejected_ids": rejected[shared:]}


def count_tokens(pairs: Sequence[Pair], chat: Chat) -> list[int]:
    """Tokens of prompt and answer of each pair's longer side."""
    found = []
    for pair in pairs:
        row = tokenize_pair(pair, chat)
        found.append(len(row["prompt_ids"]) + max(len(row["chosen_ids"]), len(row["rejected_ids"])))
    return found


def select_fitting(pairs: Sequence[Pair], params: Step, chat: Chat, name: str) -> tuple[list[Pair], dict[str, Any]]:
    """The pairs that fit into `max_length`, longest first, and a report of lengths in tokens.

    A pair that does not fit is left out and counted, never cut, because a cut answer has no eos token. Raises BadInput
    when more than `max_left_out` of them do not fit, or none is left.
    """
    sizes = count_tokens(pairs, chat)
    kept = _longest_first(pairs, sizes, params.max_length)
    if not pairs:
        raise BadInput(
            "data/pairs.jsonl: no pair to train on; loosen pairs.rules, see metrics/pairs.json for the reasons"
        )
    left_out = len(pairs) - len(kept)
    if left_out / len(pairs) > params.max_left_out or not kept:
        what = (
            f"over adapter.{name}.max_left_out {params.max_left_out:g}; raise one of them"
            if kept
            else "and none is left; raise it"
        )
        raise BadInput(
            f"data/pairs.jsonl: {left_out} of {len(pairs)} pairs are longer than adapter.{name}.max_length"
            f" {params.max_length} (the longest has {max(sizes)} tokens), {what}"
        )
    ordered = sorted(sizes)
    report = {
        "pairs": len(pairs),
        "left_out": left_out,
        "tokens": {
            "median": ordered[len(ordered) // 2],
            "95th_percentile": ordered[math.ceil(0.95 * len(ordered)) - 1],
            "longest": ordered[-1],
            "max_length": params.max_length,
        },
    }
    return kept, report


def _longest_first(pairs: Sequence[Pair], sizes: Sequence[int], longest: int) -> list[Pair]:
    """Pairs that fit, longest first: batches are of similar length, and freed memory is large enough for the next."""
    ordered = sorted(zip(sizes, pairs, strict=True), key=lambda sized: -sized[0])
    return [pair for size, pair in ordered if size <= longest]


def train(pairs: Sequence[Pair], start: Path, out: Path, curves: Path, params: Step, name: str) -> dict[str, Any]:
    """Train on the pairs of split `train`, measuring on `validation`; write the adapter, and its curves for plots.

    Nothing is written before training has ended, so a killed run leaves no incomplete checkpoint and starts from the
    beginning. On a CPU the same seed gives the same bytes. Returns a report of lengths and of the last measurement.
    """
    chat, origin = Chat(start), read_origin(start)
    train_pairs, report = select_fitting([pair for pair in pairs if pair.split == "train"], params, chat, name)
    held_out = [pair for pair in pairs if pair.split == "validation"]
    validation = _longest_first(held_out, count_tokens(held_out, chat), params.max_length)
    with new_folder(out) as folder:
        trainer = _build_trainer(train_pairs, validation, start, folder, params, chat, origin, f"adapter {name}")
        trainer.train()
        _save_adapter(trainer.model, folder, origin)
        write_json(folder / "chat.json", {"digest": chat.digest})
        last = _write_curves(trainer.state.log_history, curves, name)
    return {
        **report,
        "validation": {"pairs": len(held_out), "left_out": len(held_out) - len(validation)},
        "updates": int(trainer.state.global_step),
        "last": last,
    }


def _build_trainer(
    train_pairs: Sequence[Pair],
    validation: Sequence[Pair],
    start: Path,
    folder: Path,
    params: Step,
    chat: Chat,
    origin: Origin,
    label: str,
) -> Any:
    """TRL's DPOTrainer on rows that are token ids already."""
    hardware.use_first_gpu()
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, set_seed
    from trl import DPOTrainer

    class Trainer(DPOTrainer):  # type: ignore[misc]
        """TRL tokenises text and ends every answer with an eos token, also those that were cut."""

        def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:
            return dataset

    gpu = hardware.has_gpu()
    set_seed(params.seed)
    model: Any = AutoModelForCausalLM.from_pretrained(
        start, dtype=getattr(torch, origin.dtype), use_safetensors=True, trust_remote_code=False
    )
    updates = math.ceil(math.ceil(len(train_pairs) / (params.batch * params.accumulation)) * params.epochs)
    return Trainer(
        model=model,
        args=_build_config(
            params, folder, updates, bf16=origin.dtype == "bfloat16", gpu=gpu, measured=bool(validation)
        ),
        processing_class=chat.tokenizer,
        train_dataset=Dataset.from_list([tokenize_pair(pair, chat) for pair in train_pairs]),
        eval_dataset=Dataset.from_list([tokenize_pair(pair, chat) for pair in validation]) if validation else None,
        peft_config=_build_lora(params),
        callbacks=[_build_progress(updates, label)],
    )


def _build_config(params: Step, folder: Path, updates: int, *, bf16: bool, gpu: bool, measured: bool) -> Any:
    from trl import DPOConfig

    return DPOConfig(
        output_dir=str(folder / "trainer"),
        beta=params.beta,
        loss_type=["sigmoid", "sft"] if params.sft_weight else ["sigmoid"],
        loss_weights=[1.0, params.sft_weight] if params.sft_weight else None,
        learning_rate=params.learning_rate,
        # The scheduler that transformers calls constant has no warmup.
        lr_scheduler_type="constant_with_warmup" if params.scheduler == "constant" else params.scheduler,
        warmup_steps=round(params.warmup * updates),
        num_train_epochs=params.epochs,
        per_device_train_batch_size=params.batch,
        per_device_eval_batch_size=4 * params.batch,  # no gradients to hold, and neighbours are of similar length
        gradient_accumulation_steps=params.accumulation,
        max_length=params.max_length,
        # The reference's side is computed once, not once per epoch.
        precompute_ref_log_probs=True,
        precompute_ref_batch_size=4 * params.batch,
        gradient_checkpointing=gpu,
        bf16=bf16,
        use_cpu=not gpu,
        eval_strategy="steps" if measured else "no",
        eval_steps=max(1, math.ceil(updates / params.evaluations)),
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        seed=params.seed,
        data_seed=params.seed,
        dataloader_pin_memory=gpu,
    )


def _build_lora(params: Step) -> Any:
    from peft import LoraConfig

    return LoraConfig(
        r=params.rank,
        lora_alpha=params.alpha,
        lora_dropout=params.dropout,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )


def _build_progress(updates: int, label: str) -> Any:
    """A callback that shows updates and the loss as a progress bar; it starts at 0 with the reference's pass."""
    from transformers import TrainerCallback

    class Progress(TrainerCallback):  # type: ignore[misc]
        def __init__(self) -> None:
            self.bar = console.progress(updates, f"{label}: reference", "update")

        def on_train_begin(self, *_: Any, **__: Any) -> None:
            self.bar.reset()
            self.bar.set_description(label)

        def on_log(self, *_: Any, logs: dict[str, Any] | None = None, **__: Any) -> None:
            if loss := (logs or {}).get("loss"):
                self.bar.set_postfix(loss=f"{float(loss):.3f}", refresh=False)

        def on_step_end(self, *_: Any, **__: Any) -> None:
            self.bar.update()

        def on_train_end(self, *_: Any, **__: Any) -> None:
            self.bar.close()

    return Progress()


def _save_adapter(model: Any, folder: Path, origin: Origin) -> None:
    """Write the adapter; a base from the hub is named by its id and revision, so that PEFT finds it anywhere."""
    if origin.source == "hub":
        config = model.peft_config["default"]
        config.base_model_name_or_path, config.revision = origin.id, origin.revision
    model.save_pretrained(folder, save_embedding_layers=False)  # without a look at the hub for its vocabulary
    (folder / "README.md").unlink(missing_ok=True)
    with suppress(FileNotFoundError):
        (folder / "trainer").rmdir()


def _write_curves(history: Sequence[dict[str, Any]], folder: Path, name: str) -> dict[str, float]:
    """Write folder/<curve>/<name>.csv, one row per update, with validation columns where they were measured.

    Returns the last value of each column.
    """
    last: dict[str, float] = {}
    for curve, columns in CURVES.items():
        rows: dict[int, dict[str, float]] = {}
        for entry in history:
            for ours, theirs in columns.items():
                for prefix, column in (("", ours), ("eval_", f"validation_{ours}")):
                    if (value := entry.get(f"{prefix}{theirs}")) is not None:
                        rows.setdefault(int(entry["step"]), {})[column] = round(float(value), 6)
        text = io.StringIO()
        header = ["step", *columns, *(f"validation_{column}" for column in columns)]
        writer = csv.DictWriter(text, header, lineterminator="\n")
        writer.writeheader()
        for step, row in sorted(rows.items()):
            writer.writerow({"step": step, **row})
            last |= row
        with new_file(folder / curve / f"{name}.csv") as file:
            file.write(text.getvalue().encode())
    return last
