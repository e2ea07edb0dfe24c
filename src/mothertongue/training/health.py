"""Reasons to stop a training step: rules over its measurements so far. Pure functions, no torch."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from mothertongue import languages, texts
from mothertongue.params import CPT, DPO, KTO, ORPO, SFT, PairHealth, Preference, SimPO, Step
from mothertongue.training.examples import Probe

Entry = Mapping[str, Any]  # of the trainer's history: an update, an evaluation (`eval_...`), or answers (`answers_...`)
# What its last number is called in the message, and in the history.
RIGHT_LANGUAGE, REPETITION, LENGTH = "answers_right_language", "answers_repetition", "answers_length"


class HeldOut(NamedTuple):
    """How many prompts the held-out pairs have, and the mean number of tokens in a chosen side's log-probability."""

    prompts: int
    chosen_tokens: float


def score_answers(probes: Sequence[Probe], answers: Sequence[str]) -> dict[str, float]:
    """Share of answers in the language, mean share of repeated word trigrams, and words for each word of the experts'.

    The first two are of answers of four words and more, as in the language suite; of none, 1 and 0. The share is that
    of the language with the least; where all answers in one are shorter, of these together as one text.
    """
    scored = [texts.score_language_and_repetition(a, p.language) for p, a in zip(probes, answers, strict=True)]
    repeated = [each[0] for right, each in scored if right[1]]
    shares = []
    for language in sorted({probe.language for probe in probes}):
        own = [place for place, probe in enumerate(probes) if probe.language == language]
        found = [scored[place][0] for place in own if scored[place][0][1]]
        if not found:
            found = [texts.score_language_and_repetition(" ".join(answers[place] for place in own), language)[0]]
        shares.append(sum(right for right, _ in found) / len(found) if found[0][1] else 1.0)
    words = sum(len(languages.split_words(answer)) for answer in answers)
    experts = sum(len(languages.split_words(probe.expert)) for probe in probes)
    return {
        RIGHT_LANGUAGE: min(shares, default=1.0),
        REPETITION: sum(repeated) / len(repeated) if repeated else 0.0,
        LENGTH: words / experts if experts else 0.0,
    }


def find_problem(history: Sequence[Entry], step: Step, held_out: HeldOut) -> str | None:
    """What is wrong with the last measurements, with its limit and what to do; None where nothing is."""
    last = history[-1]
    for name in ("loss", "eval_loss", "grad_norm"):
        if name in last and not math.isfinite(last[name]):
            what = {"loss": "the loss", "eval_loss": "the held-out loss", "grad_norm": "the gradient"}[name]
            return f"{what} is {last[name]}; lower learning_rate, or look for a broken row"
    if isinstance(step, CPT):
        return None
    if RIGHT_LANGUAGE in last:
        return _answers(history, step)
    if isinstance(step, Preference) and "eval_loss" in last:
        over_fit = _over_fit(history, step.health, held_out.prompts) if isinstance(step, DPO | ORPO | SimPO) else None
        return over_fit or _collapse(history, step, held_out.chosen_tokens)
    return None


def find_sound_update(history: Sequence[Entry], before: int) -> int:
    """The update of the last evaluation before update `before`, which found nothing wrong; 0 where there is none.

    In the history of a method without evaluations, that of the last loss but one: a loss is of the update before it.
    """
    evaluated = [entry["step"] for entry in history if "eval_loss" in entry or RIGHT_LANGUAGE in entry]
    if not evaluated:
        evaluated = [entry["step"] - 1 for entry in history if "loss" in entry]
    return max((update for update in evaluated if update < before), default=0)


def _answers(history: Sequence[Entry], step: SFT | Preference) -> str | None:
    limits = step.health
    first, last = (
        [entry for entry in history if RIGHT_LANGUAGE in entry][place] for place in (0, -1)
    )  # the first is before training
    one = 1 / limits.prompts  # past a limit, one answer worse than the start is chance
    if last[RIGHT_LANGUAGE] < min(limits.min_right_language, first[RIGHT_LANGUAGE] - one):
        return (
            f"{last[RIGHT_LANGUAGE]:.2f} of the answers to held-out prompts are in the right language"
            f" ({first[RIGHT_LANGUAGE]:.2f} before training), under health.min_right_language"
            f" {limits.min_right_language:g}; look at the language of the training rows, or lower learning_rate"
        )
    if last[REPETITION] > max(limits.max_repetition, first[REPETITION] + one):
        return (
            f"{last[REPETITION]:.2f} of the word trigrams of the answers are repetitions"
            f" ({first[REPETITION]:.2f} before training), over health.max_repetition {limits.max_repetition:g};"
            " lower learning_rate or epochs"
        )
    if last[LENGTH] < min(limits.min_length, first[LENGTH] - one):
        return (
            f"the answers to held-out prompts have {last[LENGTH]:.2f} of the words of the experts'"
            f" ({first[LENGTH]:.2f} before training), under health.min_length {limits.min_length:g}; look at the"
            f" lengths of the training rows, or lower learning_rate{_sft_loss(step)}"
        )
    return None


def _over_fit(history: Sequence[Entry], limits: PairHealth, prompts: int) -> str | None:
    """Training's reward accuracy in the last epoch, against that of held-out pairs, from the second epoch on.

    A batch is measured before it is learned, so that the first epoch shows nothing. Of held-out pairs it takes the
    upper end of the 95 % interval, so that two unlucky ones stop nothing. Pairs of one prompt depend on each other and
    count as one.
    """
    last = [entry for entry in history if "eval_loss" in entry][-1]
    epoch, held_out = last.get("epoch", 0.0), last.get("eval_rewards/accuracies")
    updates = [entry for entry in history if "rewards/accuracies" in entry]
    accuracies = [entry["rewards/accuracies"] for entry in updates if epoch - 1 < entry.get("epoch", 0.0) <= epoch]
    if epoch <= 1 or not accuracies or held_out is None or not prompts:
        return None
    trained = sum(accuracies) / len(accuracies)
    most = _upper_end(held_out, prompts)
    if trained - most <= limits.max_accuracy_gap:
        return None
    return (
        f"over-fit: reward accuracy is {trained:.2f} in training and {held_out:.2f} (95 % interval up to {most:.2f})"
        f" on held-out pairs of {prompts} prompts, a gap over health.max_accuracy_gap {limits.max_accuracy_gap:g}; take"
        " fewer epochs, a lower learning_rate or more pairs"
    )


def _upper_end(share: float, n: int) -> float:
    """Of Wilson's 95 % interval (1927). A copy of that in `significance`, a change of which trains nothing again."""
    z = 1.96
    spread = z * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return (share + z**2 / (2 * n) + spread) / (1 + z**2 / n)


def _collapse(history: Sequence[Entry], step: Preference, chosen_tokens: float) -> str | None:
    """How much less likely held-out chosen sides are than before training, by the reward where it is relative to that,
    else by the evaluation before training."""
    first, last = ([entry for entry in history if "eval_loss" in entry][place] for place in (0, -1))
    if isinstance(step, DPO | KTO):
        drop = -last.get("eval_rewards/chosen", 0.0) / step.beta / chosen_tokens
    else:
        drop = (first.get("eval_logps/chosen", 0.0) - last.get("eval_logps/chosen", 0.0)) / chosen_tokens
    if drop <= step.health.max_chosen_drop:
        return None
    return (
        f"collapse: held-out chosen sides are {drop:.2f} nats a token less likely than before training, over"
        f" health.max_chosen_drop {step.health.max_chosen_drop:g}; lower learning_rate"
        f"{', raise beta' if isinstance(step, DPO | KTO) else ''}{_sft_loss(step)}"
    )


def _sft_loss(step: SFT | Preference) -> str:
    return ", or add the sft loss" if isinstance(step, DPO) and "sft" not in step.losses else ""
