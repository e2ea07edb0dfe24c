"""One function for each method: its rows as TRL takes them, and TRL's trainer with the method's own options.

TRL would tokenise text itself, end every answer with an eos token, also one that was cut, and cut rows that are too
long. Each trainer gets token ids, and the method that would prepare them is replaced.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mothertongue.errors import BadInput
from mothertongue.params import CPT, DPO, KTO, ORPO, SFT, SimPO, Step
from mothertongue.training.examples import IGNORED, Conversation, Examples, Ids, Sides

# ORPO and CPO are in trl.experimental, which warns that it may change; pyproject.toml names the version.
os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
Rows = Sequence[dict[str, Any]]
Reference = Mapping[tuple[Ids, Ids], float]  # (prompt, answer) -> nats under the model that training starts from


@dataclass(frozen=True, slots=True)
class Parts:
    """What every trainer is made of; `arguments` are those that transformers' Trainer has."""

    model: Any
    lora: Any | None
    tokenizer: Any
    train: Rows
    validation: Rows
    arguments: dict[str, Any]
    callbacks: list[Any]
    reference: Reference | None  # None where the start is quantised: TRL computes it with the adapter switched off


def build_trainer(step: Step, parts: Parts) -> Any:
    """TRL's trainer of the step's method."""
    match step:
        case CPT():
            return _build_cpt(step, parts)
        case SFT():
            return _build_sft(step, parts)
        case DPO():
            return _build_dpo(step, parts)
        case KTO():
            return _build_kto(step, parts)
        case ORPO():
            return _build_orpo(step, parts)
        case SimPO():
            return _build_simpo(step, parts)


def prepare_rows(step: Step, examples: Examples) -> tuple[Rows, Rows]:
    """The rows of training and of validation, as the method's trainer takes them."""
    match step:
        case CPT():
            train, validation = ([{"input_ids": ids, "labels": ids} for ids in part] for part in _parts(examples))
        case SFT():
            train, validation = (pack(part, step.max_length) for part in _parts(examples))
        case DPO():
            train, validation = (
                [{"prompt_ids": p.prompt, "chosen_ids": p.chosen, "rejected_ids": p.rejected} for p in part]
                for part in _parts(examples)
            )
        case KTO():
            train, validation = (_mismatch(_unpair(part), step.batch, step.max_length) for part in _parts(examples))
        case ORPO() | SimPO():
            train, validation = map(_whole, _parts(examples))
    return train, validation


def _parts(examples: Examples) -> tuple[Sequence[Any], Sequence[Any]]:
    return examples.train, examples.validation


# Of the methods that are measured against the model before training: TRL's column of log-probabilities for each column
# of answers.
REFERENCED: Mapping[str, Mapping[str, str]] = {
    "dpo": {"chosen_ids": "ref_chosen_logps", "rejected_ids": "ref_rejected_logps"},
    "kto": {"completion_ids": "ref_logps", "KL_completion_ids": "ref_KL_logps"},
}


def list_reference_requests(step: Step, rows: Rows) -> list[tuple[Ids, Ids]]:
    """Each (prompt, answer) whose log-probability before training the method needs, once."""
    columns = REFERENCED.get(step.method, {})
    return list(dict.fromkeys((tuple(row["prompt_ids"]), tuple(row[ids])) for row in rows for ids in columns))


def _look_up(reference: Reference, dataset: Any, columns: Mapping[str, str]) -> Any:
    """The data set with a column of log-probabilities for each column of answers."""
    for answers, column in columns.items():
        values = [reference[tuple(row["prompt_ids"]), tuple(row[answers])] for row in dataset]
        dataset = dataset.add_column(column, values)
    return dataset


def _build_cpt(step: CPT, parts: Parts) -> Any:
    from trl import SFTConfig, SFTTrainer

    config = SFTConfig(max_length=step.max_length, **parts.arguments)
    return _make_trainer(SFTTrainer, config, step, parts)


def _build_sft(step: SFT, parts: Parts) -> Any:
    """Several conversations are packed into a row, and none sees another: positions start again with each."""
    from trl import SFTConfig, SFTTrainer

    # TRL warns that only flash attention is fast with packed rows. Torch's own is exact, which a test compares.
    config = SFTConfig(max_length=step.max_length, packing=True, packing_strategy="bfd", **parts.arguments)
    return _make_trainer(SFTTrainer, config, step, parts)


def pack(conversations: Sequence[Conversation], longest: int) -> list[dict[str, list[int]]]:
    """Rows of at most `longest` tokens, by best-fit decreasing (Ding et al. 2024)."""
    from datasets import Dataset
    from trl.data_utils import pack_dataset

    if not conversations:
        return []
    rows = [{"input_ids": each.input_ids, "labels": each.labels} for each in conversations]
    packed: list[dict[str, list[int]]] = pack_dataset(Dataset.from_list(rows), longest, "bfd").to_list()
    return packed


def _build_dpo(step: DPO, parts: Parts) -> Any:
    from trl import DPOConfig, DPOTrainer

    config = DPOConfig(
        beta=step.beta,
        loss_type=list(step.losses),
        loss_weights=list(step.losses.values()),
        label_smoothing=step.label_smoothing,
        max_length=step.max_length,
        precompute_ref_log_probs=True,  # once, not once an epoch
        precompute_ref_batch_size=4 * step.batch,
        **parts.arguments,
    )
    return _make_trainer(DPOTrainer, config, step, parts)


def _build_kto(step: KTO, parts: Parts) -> Any:
    from trl import KTOConfig, KTOTrainer

    config = KTOConfig(
        beta=step.beta,
        desirable_weight=step.desirable_weight,
        undesirable_weight=step.undesirable_weight,
        max_length=step.max_length,
        precompute_ref_log_probs=True,
        precompute_ref_batch_size=4 * step.batch,
        **parts.arguments,
    )
    return _make_trainer(KTOTrainer, config, step, parts)


def _unpair(pairs: Sequence[Sides]) -> list[dict[str, Any]]:
    """Each side once, however many pairs it is in, good and bad in turn; a side that is both is left out."""
    good, bad = _sides(pairs)
    both = good.keys() & bad.keys()
    labelled = dict.fromkeys(good, True) | dict.fromkeys(bad, False)
    sides = dict.fromkeys(side for p in pairs for side in ((p.prompt, p.chosen), (p.prompt, p.rejected)))
    return [
        {"prompt_ids": prompt, "completion_ids": answer, "label": labelled[prompt, answer]}
        for prompt, answer in sides
        if (prompt, answer) not in both
    ]


def check_both(pairs: Sequence[Sides], step: KTO, name: str) -> int:
    """Answers that are the chosen side of one pair and the rejected side of another: KTO learns nothing from them.

    Raises BadInput where their share of all answers is over `max_left_out`.
    """
    good, bad = _sides(pairs)
    both, every = len(good.keys() & bad.keys()), len(good.keys() | bad.keys())
    if both / every > step.max_left_out:
        raise BadInput(
            f"data/pairs.jsonl: {both} of {every} answers are chosen in one pair and rejected in another, over"
            f" adapter.{name}.max_left_out {step.max_left_out:g}; take fewer rules in pairs.rules, or raise it"
        )
    return both


def _sides(pairs: Sequence[Sides]) -> tuple[dict[tuple[Ids, Ids], None], dict[tuple[Ids, Ids], None]]:
    good = dict.fromkeys((pair.prompt, pair.chosen) for pair in pairs)
    bad = dict.fromkeys((pair.prompt, pair.rejected) for pair in pairs)
    return good, bad


def _mismatch(rows: Sequence[dict[str, Any]], batch: int, longest: int) -> list[dict[str, Any]]:
    """With `KL_completion_ids`, an answer to another prompt of its batch: KTO's estimate of the divergence.

    It is of the nearest row before, in a circle. TRL takes the row before whatever its prompt is, which here is mostly
    the other side of the same pair; so does this where a batch has one prompt only. An answer that is too long after
    this prompt is cut here: TRL would cut it in training, and not where it is measured before.
    """
    found = []
    for start in range(0, len(rows), batch):
        part = rows[start : start + batch]
        for place, row in enumerate(part):
            before = [*part[:place][::-1], *part[place + 1 :][::-1], row]
            other = next((each for each in before if each["prompt_ids"] != row["prompt_ids"]), before[0])
            room = longest - len(row["prompt_ids"])
            found.append({**row, "KL_completion_ids": other["completion_ids"][:room]})
    return found


def _build_orpo(step: ORPO, parts: Parts) -> Any:
    from trl.experimental.orpo import ORPOConfig, ORPOTrainer

    config = ORPOConfig(beta=step.beta, max_length=step.max_length, **_keep_columns(parts))
    return _make_trainer(ORPOTrainer, config, step, parts)


def _build_simpo(step: SimPO, parts: Parts) -> Any:
    """CPO's trainer without its term of likelihood, as the paper of SimPO has it."""
    from trl.experimental.cpo import CPOConfig, CPOTrainer

    config = CPOConfig(
        beta=step.beta,
        loss_type="simpo",
        simpo_gamma=step.gamma,
        cpo_alpha=0.0,
        max_length=step.max_length,
        **_keep_columns(parts),
    )
    return _make_trainer(CPOTrainer, config, step, parts)


def _keep_columns(parts: Parts) -> dict[str, Any]:
    return {**parts.arguments, "remove_unused_columns": False}  # the collator of these two reads them


def _whole(pairs: Sequence[Sides]) -> list[dict[str, Any]]:
    """Both sides with their prompt, as TRL's older trainers take them."""
    found = []
    for pair in pairs:
        row: dict[str, Any] = {"prompt_input_ids": pair.prompt, "prompt_attention_mask": [1] * len(pair.prompt)}
        for side, answer in (("chosen", pair.chosen), ("rejected", pair.rejected)):
            ids = [*pair.prompt, *answer]
            row[f"{side}_input_ids"], row[f"{side}_attention_mask"] = ids, [1] * len(ids)
            row[f"{side}_labels"] = [IGNORED] * len(pair.prompt) + list(answer)
        found.append(row)
    return found


def _make_trainer(kind: Any, config: Any, step: Step, parts: Parts) -> Any:
    """A trainer of TRL's that takes token ids, and log-probabilities of the start, as they are given."""
    from datasets import Dataset

    class Trainer(kind):  # type: ignore[misc]
        def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:
            return dataset

        def tokenize_row(self, feature: dict[str, Any]) -> dict[str, Any]:  # of ORPO and CPO
            return feature

        def _precompute_ref_logps(self, dataset: Any, name: str, batch_size: int) -> Any:  # of DPO and KTO
            if parts.reference is None:
                return super()._precompute_ref_logps(dataset, name, batch_size)
            return _look_up(parts.reference, dataset, REFERENCED[step.method])

    return Trainer(
        args=config,
        model=parts.model,
        processing_class=parts.tokenizer,
        train_dataset=Dataset.from_list(list(parts.train)),
        eval_dataset=Dataset.from_list(list(parts.validation)) if parts.validation else None,
        peft_config=parts.lora,
        callbacks=parts.callbacks,
    )
