"""Held-out pairs: how well a model tells the chosen from the rejected side, beside a control."""

from collections.abc import Sequence

from mothertongue import texts
from mothertongue.measurements import SampleScore
from mothertongue.records import Pair, Thread
from mothertongue.suites.subject import Asked, Subject


def measure(
    pairs: Sequence[Pair], threads: Sequence[Thread], subject: Subject, reference: Subject
) -> list[SampleScore]:
    """DPO's implicit reward (Rafailov et al. 2023) on held-out pairs, without its factor beta, and plain likelihood.

    The reward of an answer is its log-probability minus that under the reference model, where training started; for the
    reference itself every reward is 0. The likelihood per token (the reward of SimPO, Meng et al. 2024) has no
    reference.

    A model that has learned the style of the experts, whatever the question, also prefers chosen to rejected. So each
    pair is scored again with the chosen side of another question instead of its own (`mismatched`): the difference
    between the two chosen sides is what the model has learned of this question.
    """
    groups = {thread.id: thread.group for thread in threads}
    others = [None if place is None else pairs[place] for place in texts.pick_mismatched(_exchanges(pairs, groups))]
    matched: set[tuple[str, str]] = set()  # two rules may choose the same answer: its match counts once
    asked = [
        (Asked(pair.prompt, pair.language), text, lineage.finish == "stop")
        for pair, other in zip(pairs, others, strict=True)
        for text, lineage in (*pair.sides, (other or pair).sides[0])
    ]
    ours, theirs = (each.log_likelihood(asked, "metrics preference") for each in (subject, reference))
    scores = []
    for place, (pair, other) in enumerate(zip(pairs, others, strict=True)):
        rows, before = (side[3 * place : 3 * place + 3] for side in (ours, theirs))
        chosen, rejected, control = (sum(row) - sum(was) for row, was in zip(rows, before, strict=True))
        likely, unlikely, likely_control = (sum(row) / len(row) for row in rows)
        values = {
            "reward_accuracy": _wins(chosen - rejected),
            "reward_margin": chosen - rejected,
            "likelihood_accuracy": _wins(likely - unlikely),
            "likelihood_margin": likely - unlikely,
        }
        if other:
            values |= {
                "reward_accuracy_mismatched": _wins(control - rejected),
                "reward_margin_mismatched": control - rejected,
                "likelihood_accuracy_mismatched": _wins(likely_control - unlikely),
            }
        if other and (pair.thread, pair.sides[0][0]) not in matched:
            matched.add((pair.thread, pair.sides[0][0]))
            values |= {
                "match_accuracy": _wins(chosen - control),
                "match_margin": chosen - control,
                "likelihood_match": _wins(likely - likely_control),
            }
        scores += [
            SampleScore(
                id=pair.id,
                language=pair.language,
                group=groups[pair.thread],
                figure=figure,
                values=[value],
                text="",
            )
            for figure, value in values.items()
        ]
    return scores


def _exchanges(pairs: Sequence[Pair], groups: dict[str, str]) -> list[texts.Exchange]:
    return [
        texts.Exchange(
            id=pair.id,
            stratum=(pair.language, pair.rule),
            group=groups[pair.thread],
            question=pair.prompt[-1].content,
            answer=pair.sides[0][0],
        )
        for pair in pairs
    ]


def _wins(margin: float) -> float:
    return 0.5 if margin == 0 else float(margin > 0)
