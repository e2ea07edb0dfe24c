"""Whether a model that judges itself grades itself up, from one round of training to the next."""

from collections.abc import Sequence

from mothertongue import significance
from mothertongue.errors import BadInput
from mothertongue.measurements import Difference, Estimate, SampleScore
from mothertongue.records import Answer, RowCounts, Thread
from mothertongue.rows import Row
from mothertongue.verdicts import Verdict


class Drift(Row):
    """The grades of the same answers by the model of a round and by the first one; `drift` is the paired difference.

    `unscored` answers have no score by one of the two, and are in none of these.
    """

    first: Estimate
    now: Estimate
    drift: Difference
    unscored: int


class Round(Row):
    """A finished round: its experiment's commit, its new prompts, and how its model grades three sets of answers.

    `experts` and `frozen` are the same answers in every round: the experts' and those of the first model. `own` are
    those of the round's own model to the same prompts.
    """

    round: int
    commit: str
    prompts: RowCounts
    experts: Drift
    frozen: Drift
    own: Drift


def measure_drift(
    threads: Sequence[Thread],
    answers: Sequence[Answer],
    now: Sequence[Verdict],
    first: Sequence[Verdict],
    seed: int,
    signature: str,
) -> Drift:
    """Mean grades of answers by two models, and the difference with its interval over groups of dependent threads.

    `signature` is that of the judge and the first model. Raises BadInput where no answer has a score by both.
    """
    groups = {thread.id: (thread.group, thread.language) for thread in threads}
    ours, theirs = ({each.answer: each.score for each in side if each.score is not None} for side in (now, first))
    both = [answer for answer in answers if answer.id in ours and answer.id in theirs]
    if not both:
        raise BadInput("no answer has a score by the models of both rounds; lower min_label_mass of the judge")
    sides = [
        [
            SampleScore(
                id=answer.id,
                language=groups[answer.thread][1],
                group=groups[answer.thread][0],
                figure="grade",
                values=[scores[answer.id]],
                text="",
            )
            for answer in both
        ]
        for scores in (ours, theirs)
    ]
    return Drift(
        first=significance.estimate("mean", sides[1], signature),
        now=significance.estimate("mean", sides[0], signature),
        drift=significance.estimate_difference("mean", sides[0], sides[1], seed, signature),
        unscored=len(answers) - len(both),
    )


def find_praise(found: Round, limit: float) -> str | None:
    """The answers that a model grades higher than the first one, with its interval above `limit`; None for none."""
    sides = (
        ("the experts' answers", found.experts),
        ("the first model's answers", found.frozen),
        ("its own answers", found.own),
    )
    for name, measured in sides:
        gap = measured.drift
        if gap.groups > 1 and gap.low > limit:  # one group has no interval
            return (
                f"grades {name} {gap.value:+.2f} [{gap.low:+.2f}, {gap.high:+.2f}] points higher than the first model"
            )
    return None


def render_rounds(rounds: Sequence[Round]) -> str:
    """A table in Markdown, three rows per round."""
    lines = [
        "How the model of each round grades the experts' answers, the first model's (the same ones in every round) and",
        "its own to the same held-out prompts, with 95 % intervals. Drift is its grade minus the first model's of the",
        "same answers, paired. A model that has come to favour its own way of writing shows in its own answers only;",
        "there, a drift may also be a better judge that sees what the first one does not.",
        "",
        "| round | new prompts | answers | graded by the first model | by this model | drift |",
        "|--:|---|---|---|---|---|",
    ]
    for row in rounds:
        head = f"{row.round} | {row.prompts.kept} of {row.prompts.total}"
        for name, found in (("experts'", row.experts), ("first model's", row.frozen), ("own", row.own)):
            cells = (name, _format(found.first), _format(found.now), _format_gap(found))
            lines.append(f"| {head} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _format(estimate: Estimate) -> str:
    return f"{estimate.value:.2f} [{estimate.low:.2f}, {estimate.high:.2f}] (n {estimate.n})"


def _format_gap(found: Drift) -> str:
    gap = found.drift
    unscored = f" ({found.unscored} without a score)" if found.unscored else ""
    interval = f"[{gap.low:+.2f}, {gap.high:+.2f}]" if gap.groups > 1 else "(one group, no interval)"
    return f"{gap.value:+.2f} {interval}{unscored}"
