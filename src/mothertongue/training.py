"""DPO with LoRA. The room of TRL and of PEFT's configuration."""

import csv
import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mothertongue import hardware, memory
from mothertongue.chat import Chat
from mothertongue.errors import BadInput
from mothertongue.files import new_file, new_folder, read_settings
from mothertongue.params import Adapter, Dtype
from mothertongue.records import Pair, write_json

STEPS = {  # our column: TRL's
    "loss": "loss",
    "reward_accuracy": "rewards/accuracies",
    "reward_margin": "rewards/margins",
    "chosen_log_probability": "logps/chosen",
    "rejected_log_probability": "logps/rejected",
}


def tokenized(pair: Pair, chat: Chat) -> dict[str, list[int]]:
    """Token ids as TRL's collator takes them; the end of a turn is there only where it was said.

    Where the two sides begin at different places, `prompt_ids` is what both share, as TRL has it.
    """
    sides = [chat.rendered(pair.prompt, s.text, ended=s.finish == "stop") for s in (pair.chosen, pair.rejected)]
    shared = min(len(prompt) for prompt, _ in sides)
    chosen, rejected = ([*prompt, *answer] for prompt, answer in sides)
    return {"prompt_ids": chosen[:shared], "chosen_ids": chosen[shared:], "rejected_ids": rejected[shared:]}


def lengths(pairs: Sequence[Pair], chat: Chat) -> list[int]:
    """Tokens of prompt and answer of each pair's longer side."""
    found = []
    for pair in pairs:
        row = tokenized(pair, chat)
        found.append(len(row["prompt_ids"]) + max(len(row["chosen_ids"]), len(row["rejected_ids"])))
    return found


def fitting(pairs: Sequence[Pair], params: Adapter, chat: Chat) -> tuple[list[Pair], dict[str, Any]]:
    """The pairs that fit into `max_length` whole, longest first, and a report of lengths in tokens.

    A pair that does not fit is left out and counted, never cut: a cut answer has no end to learn. Raises BadInput when
    more than `max_cut` of them do not fit, or none is left.
    """
    sizes = lengths(pairs, chat)
    kept = _longest_first(pairs, sizes, params.max_length)
    if not pairs:
        raise BadInput(
            "data/pairs.jsonl: no pair to train on; loosen pairs.rules, see metrics/pairs.json for the reasons"
        )
    left_out = len(pairs) - len(kept)
    if left_out / len(pairs) > params.max_cut or not kept:
        what = f"over adapter.max_cut {params.max_cut:g}; raise one of them" if kept else "and none is left; raise it"
        raise BadInput(
            f"data/pairs.jsonl: {left_out} of {len(pairs)} pairs are longer than adapter.max_length {params.max_length}"
            f" (the longest has {max(sizes)} tokens), {what}"
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
    """Neighbours are of like length; and memory that is freed fits what follows, where growing rows never find it."""
    ordered = sorted(zip(sizes, pairs, strict=True), key=lambda sized: -sized[0])
    return [pair for size, pair in ordered if size <= longest]


def train(pairs: Sequence[Pair], base: Path, out: Path, steps: Path, params: Adapter, dtype: Dtype) -> dict[str, Any]:
    """Train on the pairs of split `train`, measure on `validation`; write the adapter, and its steps as CSV for plots.

    Nothing is written before training has ended, so a killed run leaves no torn checkpoint and starts clean. On a CPU
    the same seed gives the same bytes. Returns a report of lengths and of the last measurement.
    """
    chat = Chat(base)
    train_pairs, report = fitting([p for p in pairs if p.split == "train"], params, chat)
    held_out = [p for p in pairs if p.split == "validation"]
    validation = _longest_first(held_out, lengths(held_out, chat), params.max_length)

    hardware.keep_one()
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, set_seed
    from trl import DPOConfig, DPOTrainer

    class Trainer(DPOTrainer):  # type: ignore[misc]
        """TRL tokenises text, and would end every answer, those too that were cut; the rows are token ids already."""

        def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:
            return dataset

    if not (gpu := hardware.gpu()):
        memory.keep_freed()
    set_seed(params.seed)
    model: Any = AutoModelForCausalLM.from_pretrained(
        base, dtype=getattr(torch, dtype), use_safetensors=True, trust_remote_code=False
    )
    updates = math.ceil(math.ceil(len(train_pairs) / (params.batch * params.accumulation)) * params.epochs)
    with new_folder(out) as folder:
        config = DPOConfig(
            output_dir=str(folder / "trainer"),
            beta=params.beta,
            loss_type=["sigmoid", "sft"] if params.sft_weight else ["sigmoid"],
            loss_weights=[1.0, params.sft_weight] if params.sft_weight else None,
            learning_rate=params.learning_rate,
            # What transformers calls constant knows no warmup.
            lr_scheduler_type="constant_with_warmup" if params.scheduler == "constant" else params.scheduler,
            warmup_steps=round(params.warmup * updates),
            num_train_epochs=params.epochs,
            per_device_train_batch_size=params.batch,
            per_device_eval_batch_size=4 * params.batch,  # no gradients to hold, and the neighbours are of like length
            gradient_accumulation_steps=params.accumulation,
            max_length=params.max_length,
            # The frozen side is computed once, not once per epoch.
            precompute_ref_log_probs=True,
            precompute_ref_batch_size=4 * params.batch,
            gradient_checkpointing=gpu,
            bf16=dtype == "bfloat16",
            use_cpu=not gpu,
            eval_strategy="steps" if validation else "no",
            eval_steps=max(1, math.ceil(updates / params.evaluations)),
            logging_steps=1,
            save_strategy="no",
            report_to=[],
            seed=params.seed,
            data_seed=params.seed,
            dataloader_pin_memory=gpu,
        )
        trainer = Trainer(
            model=model,
            args=config,
            processing_class=chat.tokenizer,
            train_dataset=Dataset.from_list([tokenized(pair, chat) for pair in train_pairs]),
            eval_dataset=Dataset.from_list([tokenized(pair, chat) for pair in validation]) if validation else None,
            peft_config=LoraConfig(
                r=params.rank,
                lora_alpha=params.alpha,
                lora_dropout=params.dropout,
                target_modules="all-linear",
                task_type="CAUSAL_LM",
            ),
        )
        trainer.train()
        trainer.model.save_pretrained(folder)
        (folder / "README.md").unlink(missing_ok=True)
        (folder / "trainer").rmdir() if (folder / "trainer").is_dir() else None
        write_json(folder / "chat.json", {"digest": chat.digest})
        last = _write_steps(trainer.state.log_history, steps)
    return {
        **report,
        "validation": {"pairs": len(held_out), "left_out": len(held_out) - len(validation)},
        "updates": int(trainer.state.global_step),
        "last": last,
    }


def probes(pairs: Sequence[Pair], base: Path, adapter: Path) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Token ids of prompt and chosen side of at most 32 held-out pairs, to compare models on.

    Raises BadInput when the adapter was trained with another rendering of conversations than the base's.
    """
    chat = Chat(base)
    trained = read_settings(adapter / "chat.json").get("digest")
    if trained != chat.digest:
        raise BadInput(
            f"{adapter}: trained with chat template {trained}, but {base} has {chat.digest}; train the adapter again"
        )
    held_out = [pair for pair in pairs if pair.split != "train"] or list(pairs)
    return [chat.answered(pair.prompt, pair.chosen.text) for pair in held_out[:32]]


def _write_steps(history: Sequence[dict[str, Any]], path: Path) -> dict[str, float]:
    """One row per update, with the validation columns filled where they were measured. Returns the last of each."""
    rows: dict[int, dict[str, float]] = {}
    for entry in history:
        for ours, theirs in STEPS.items():
            for prefix, column in (("", ours), ("eval_", f"validation_{ours}")):
                if (value := entry.get(f"{prefix}{theirs}")) is not None:
                    rows.setdefault(int(entry["step"]), {})[column] = round(float(value), 6)
    columns = [*STEPS, *(f"validation_{name}" for name in STEPS)]
    text = io.StringIO()
    writer = csv.DictWriter(text, ["step", *columns], lineterminator="\n")
    writer.writeheader()
    last: dict[str, float] = {}
    for step, row in sorted(rows.items()):
        writer.writerow({"step": step, **row})
        last |= row
    with new_file(path) as file:
        file.write(text.getvalue().encode())
    return last
