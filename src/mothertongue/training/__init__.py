"""Training steps. With its modules the place of TRL, of PEFT's configuration and of checkpoints."""

import hashlib
import math
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from mothertongue import console, hardware, weights
from mothertongue.chat import Chat
from mothertongue.errors import BadInput
from mothertongue.files import new_folder, read_json_object
from mothertongue.origin import Origin, digest_weights, read_origin
from mothertongue.params import CPT, KTO, LowRank, PairHealth, Preference, Step
from mothertongue.rows import write_json
from mothertongue.training.callbacks import build_answers, build_checkpoints, build_progress, build_watch
from mothertongue.training.checkpoints import Checkpoints, digest_rows
from mothertongue.training.curves import write_curves
from mothertongue.training.examples import Examples, Ids, encode
from mothertongue.training.health import HeldOut
from mothertongue.training.methods import (
    REFERENCED,
    Parts,
    build_trainer,
    check_both,
    list_reference_requests,
    prepare_rows,
)

# (prompts and answers, what a progress bar shows) -> each answer's log-probability under the start, in nats
LogLikelihood = Callable[[Sequence[tuple[Ids, Ids]], str], Sequence[float]]
NOT_WATCHED = "not watched, but for NaN: there are no held-out rows; raise threads.validation"
PARTS = "start.json"  # in an adapter's folder: digests of the model that it was trained on
# Of health: a training that one of them has stopped goes on from its checkpoint when it is raised.
LIMITS = set(PairHealth.model_fields) - {"prompts", "tokens"}


def train(
    rows: Sequence[Any],
    start: Path,
    out: Path,
    curves: Path,
    step: Step,
    name: str,
    log_likelihood: LogLikelihood,
    store: Path,
) -> dict[str, Any]:
    """Train on the rows of split `train`, measuring on `validation`; write what was learned, and curves for plots.

    `out` gets an adapter, or all weights where all are trained, and is written when training has ended. A run that was
    killed continues from its last checkpoint, in the folder `store`, and ends with the bytes of an undisturbed one; on
    a CPU the same seed gives the same bytes. Returns a report of rows, lengths and last measurements. Raises BadInput
    where a limit of health is passed, with the place of the last checkpoint before.
    """
    hardware.use_first_gpu()
    chat, origin = Chat(start), read_origin(start)
    if read_json_object(start / "config.json").get("quantization_config"):
        raise BadInput(f"{start}: is quantised, and no adapter can be merged into it; start from the original")
    examples = encode(rows, step, chat, name)
    label, base = f"adapter {name}", {"chat": chat.digest, "weights": digest_weights(start)}
    settings = step.model_dump(exclude={"health": LIMITS})
    checkpoints = Checkpoints(store, _digest_code(), settings, digest_rows(rows), base, origin.dtype, _versions())
    with new_folder(out) as folder, checkpoints.used() as last:
        train_rows, held_out = prepare_rows(step, examples)
        if isinstance(step, KTO):
            examples.report["good_and_bad"] = check_both(examples.train, step, name)
        if not isinstance(step, CPT):
            answers = f"{len(held_out)} held-out rows and {len(examples.probes)} of {step.health.prompts} answers"
            console.say(f"{label}: health is {f'watched on {answers}' if held_out else NOT_WATCHED}")
        if last:
            console.say(f"{label}: goes on from {last.name}")
        updates = math.ceil(math.ceil(len(train_rows) / (step.batch * step.accumulation)) * step.epochs)
        asked = [] if step.weights.kind == "qlora" else list_reference_requests(step, [*train_rows, *held_out])
        before = dict(zip(asked, log_likelihood(asked, f"{label} reference") if asked else (), strict=True))
        model = _load(start, step, origin)
        _check_targets(model, step, name)
        watch = build_watch(step, _describe_held_out(step, examples))
        parts = Parts(
            model=model,
            lora=_build_lora(step.weights) if isinstance(step.weights, LowRank) else None,
            tokenizer=chat.tokenizer,
            train=train_rows,
            validation=held_out,
            arguments=_build_arguments(step, checkpoints.folder, updates, origin, len(held_out), last),
            callbacks=[
                build_progress(updates, label, model, console.LOGS / "speed" / f"{name}.csv"),
                *([build_answers(examples.probes, chat, step.health.tokens)] if examples.probes else []),  # type: ignore[union-attr]
                watch,
                build_checkpoints(checkpoints),
            ],
            reference=None if step.weights.kind == "qlora" else before,
        )
        trainer = build_trainer(step, parts)
        for weight in trainer.model.parameters():
            if weight.requires_grad:
                # TRL trains the matrices beside nf4 in bfloat16, and PEFT loads those of a checkpoint in float32: a
                # training that was killed would go on as another one.
                weight.data = weight.data.float()
        trainer.train(resume_from_checkpoint=str(last) if last else None)
        if watch.problem:
            write_curves(trainer.state.log_history, console.LOGS / "curves", name)
            where = _describe_checkpoint(checkpoints, watch.sound)
            raise BadInput(f"{label}: stopped at update {trainer.state.global_step}: {watch.problem}; {where}")
        _save(trainer.model, start, folder, origin)
        write_json(folder / PARTS, base)
        measured = write_curves(trainer.state.log_history, curves, name)
        checkpoints.end()
    return {**examples.report, "updates": int(trainer.state.global_step), "last": measured}


def _describe_checkpoint(checkpoints: Checkpoints, sound: int) -> str:
    if good := checkpoints.last(sound):
        return f"the last good checkpoint is {good}"
    if newest := checkpoints.last():
        return f"no checkpoint is known to be good, and the newest is {newest}"
    return "there was no checkpoint before it"


def _digest_code() -> str:
    """Of the modules that training is made of: a checkpoint of another version is not continued."""
    here = Path(__file__).parent
    modules = [here.parent / "chat.py", here.parent / "texts.py", *sorted(here.glob("*.py"))]
    return hashlib.sha256(b"".join(module.read_bytes() for module in modules)).hexdigest()


def _versions() -> list[str]:
    """What computes, for the name of a checkpoint."""
    packages = ("torch", "transformers", "trl", "peft", "accelerate", "bitsandbytes", "datasets", "tokenizers")
    return [hardware.device_name(), *(f"{name} {metadata.version(name)}" for name in packages)]


def _is_without_reference(step: Step) -> bool:
    return isinstance(step, Preference) and step.method not in REFERENCED


def _describe_held_out(step: Step, examples: Examples) -> HeldOut:
    if not isinstance(step, Preference) or not examples.validation:
        return HeldOut(0, 1.0)
    tokens = 1.0  # the log-probabilities of ORPO and SimPO are per token already
    if step.method in REFERENCED:
        tokens = sum(len(pair.chosen) for pair in examples.validation) / len(examples.validation)
    return HeldOut(len({pair.prompt for pair in examples.validation}), tokens)


def _load(start: Path, step: Step, origin: Origin) -> Any:
    """The model to train: in its own dtype beside an adapter, in float32 where all weights are trained.

    AdamW's updates are smaller than what bfloat16 can add to a weight.
    """
    import torch
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig, set_seed

    set_seed(step.seed)
    quantization = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=getattr(torch, origin.dtype),
    )
    model = AutoModelForCausalLM.from_pretrained(
        start,
        dtype=torch.float32 if step.weights.kind == "full" else getattr(torch, origin.dtype),
        quantization_config=quantization if step.weights.kind == "qlora" else None,
        # On a CPU, fused attention is no faster for rows as short as these (benchmarks/savings.py measures it).
        attn_implementation=None if hardware.has_gpu() else "eager",
        use_safetensors=True,
        trust_remote_code=False,
    )
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            # On such a CPU, bitsandbytes 0.50 packs the weights at the first evaluation, for good, and has no gradient
            # for packed ones: nothing below a layer would learn from it.
            module.support_avx512bf16_for_cpu = False
    return model


def _check_targets(model: Any, step: Step, name: str) -> None:
    """Raises BadInput where a layer named in `weights.targets` is none of the model's."""
    if not isinstance(step.weights, LowRank) or isinstance(step.weights.targets, str):
        return
    layers = {path.rpartition(".")[2] for path, module in model.named_modules() if hasattr(module, "in_features")}
    if missing := sorted(set(step.weights.targets) - layers):
        raise BadInput(
            f"params.yaml: adapter.{name}.weights.targets: the model has no layer {missing[0]}; take some of"
            f" {', '.join(sorted(layers))}, or all-linear"
        )


def _build_arguments(
    step: Step, folder: Path, updates: int, origin: Origin, held_out: int, resumed: Path | None
) -> dict[str, Any]:
    """The arguments that transformers' Trainer has for every method."""
    gpu = hardware.has_gpu()
    return {
        "output_dir": str(folder),
        "learning_rate": step.learning_rate,
        # The scheduler that transformers calls constant has no warmup.
        "lr_scheduler_type": "constant_with_warmup" if step.scheduler == "constant" else step.scheduler,
        "warmup_steps": round(step.warmup * updates),
        "num_train_epochs": step.epochs,
        "per_device_train_batch_size": step.batch,
        "per_device_eval_batch_size": _choose_batch(step, held_out),
        "gradient_accumulation_steps": step.accumulation,
        "gradient_checkpointing": gpu,
        "bf16": origin.dtype == "bfloat16",
        "use_cpu": not gpu,
        "eval_strategy": "steps" if held_out else "no",
        # Where rewards are relative to the start, the start needs no evaluation.
        "eval_on_start": bool(held_out) and resumed is None and _is_without_reference(step),
        "eval_steps": max(1, math.ceil(updates / step.evaluations)),
        "logging_steps": 1,
        "logging_nan_inf_filter": False,  # which would show the mean of the other losses instead
        "save_strategy": "steps",
        "save_steps": step.checkpoint,
        "report_to": [],
        "disable_tqdm": True,
        "seed": step.seed,
        "data_seed": step.seed,
        "dataloader_pin_memory": gpu,
    }


def _choose_batch(step: Step, held_out: int) -> int:
    """The number of held-out rows at once.

    TRL's accuracies and rewards are means of the batches' means. So all batches of pairs have one size, which is up to
    four times that of training, because there are no gradients to hold. KTO's divergence is one of each batch, and its
    loss depends on the size: it has that of training.
    """
    if not isinstance(step, Preference) or isinstance(step, KTO):
        return step.batch
    return max(size for size in range(1, 4 * step.batch + 1) if held_out % size == 0)


def _build_lora(low_rank: LowRank) -> Any:
    from peft import LoraConfig

    return LoraConfig(
        r=low_rank.rank,
        lora_alpha=low_rank.alpha,
        lora_dropout=low_rank.dropout,
        target_modules=low_rank.targets,
        use_rslora=low_rank.rslora,
        use_dora=low_rank.dora,
        task_type="CAUSAL_LM",
    )


def _save(model: Any, start: Path, folder: Path, origin: Origin) -> None:
    """Write the adapter, or the model where all weights were trained, with the tokenizer and other files of the start.

    The base of an adapter that is from the hub is named by its id and revision, so that PEFT finds it anywhere.
    """
    from peft import PeftModel

    if isinstance(model, PeftModel):
        if origin.source == "hub":
            config = model.peft_config["default"]
            config.base_model_name_or_path, config.revision = origin.id, origin.revision
        model.save_pretrained(folder, save_embedding_layers=False)  # without a look at the hub for its vocabulary
        (folder / "README.md").unlink(missing_ok=True)
        weights.copy_other_files(start, folder)
    else:
        weights.save_model(model, start, folder)
