"""How well a judge tells the expert's answer from a generated one, beside judges that cost nothing."""

import json
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from mothertongue import languages, overlap, prompts, significance
from mothertongue.judging.agreement import estimate_share
from mothertongue.measurements import Estimate, JudgeAccuracy, SampleScore
from mothertongue.params import Judge
from mothertongue.records import Answer, RowCounts, Thread, reference_answer, unit_hash
from mothertongue.verdicts import Verdict


class Model(Protocol):
    """What a signature needs of a judge's model: all that its results depend on but the request."""

    identity: dict[str, str]


def count_outcomes(verdicts: Sequence[Verdict]) -> RowCounts:
    """How many answers have a score, and the outcomes of the others."""
    outcomes = Counter(verdict.outcome for verdict in verdicts)
    dropped = {reason: outcomes[reason] for reason in ("unparsed", "error")}
    return RowCounts(total=len(verdicts), kept=outcomes["score"], dropped=dropped)


def count_comparisons(threads: Sequence[Thread], verdicts: Sequence[Verdict]) -> dict[str, int]:
    """How many times two answers were compared, and in how many of them the two orders had different outcomes.

    Both 0 for a judge that compares nothing. Split test is left out.
    """
    held_out = {thread.id for thread in threads if thread.split == "test"}
    rows = [verdict for verdict in verdicts if verdict.thread not in held_out]
    return {"compared": sum(row.compared for row in rows) // 2, "flips": sum(row.flips for row in rows) // 2}


def summarize_accuracy(
    threads: Sequence[Thread],
    answers: Sequence[Answer],
    verdicts: Sequence[Verdict],
    sign: Callable[[Sequence[str]], str],
) -> dict[str, Any]:
    """`accuracy` by generator for all languages together, and `languages` for each where there are several.

    `sign` gives the signature for some languages.
    """
    codes = sorted({thread.language for thread in threads})

    def measure(some: Sequence[str]) -> dict[str, Any]:
        part = [thread for thread in threads if thread.language in some]
        return {name: row.model_dump() for name, row in measure_accuracy(part, answers, verdicts, sign(some)).items()}

    by_language = {code: measure([code]) for code in codes}
    return {"accuracy": measure(codes)} | ({"languages": by_language} if len(codes) > 1 else {})


def measure_accuracy(
    threads: Sequence[Thread], answers: Sequence[Answer], verdicts: Sequence[Verdict], signature: str
) -> dict[str, JudgeAccuracy]:
    """For each generator how often a judge scores the expert's answer over a sample of the same thread, ties half.

    That is the area under the ROC curve within threads: 0.5 is chance, 1 a judge that always prefers the expert. Beside
    it, on the same items, judges that cost nothing: the answer with more words is better (`longer`), the one in the
    thread's language is (`language`), the one more like the question by chrF++ is (`question`), one at random is
    (`random`). Threads of split test are left out, because judges are chosen by this, and
    prompts without an expert's answer.
    """
    scores = {verdict.answer: verdict.score for verdict in verdicts if verdict.score is not None}
    asked = {thread.id: thread for thread in threads if thread.split != "test"}
    found = {}
    for generator in sorted({answer.generator for answer in answers} - {"reference"}):
        every = [answer for answer in answers if answer.generator == generator and answer.thread in asked]
        samples = [answer for answer in every if asked[answer.thread].reference is not None]
        items: list[SampleScore] = []
        for sample in samples:
            thread = asked[sample.thread]
            expert = reference_answer(thread)
            if sample.id not in scores or expert.id not in scores:
                continue
            texts = expert.text, sample.text
            words = [float(len(languages.split_words(text))) for text in texts]
            right = [float(languages.is_in(text, thread.language)) for text in texts]
            alike = [overlap.sentence_chrf(text, thread.prompt[-1].content) for text in texts]
            values = {
                "expert": scores[expert.id],
                "sample": scores[sample.id],
                "judge": _wins(scores[expert.id], scores[sample.id]),
                "longer": _wins(*words),
                "language": _wins(*right),
                "question": _wins(*alike),
                "random": _wins(unit_hash(expert.id), unit_hash(sample.id)),
            }
            items += [
                SampleScore(
                    id=sample.id,
                    language=thread.language,
                    group=thread.group,
                    figure=figure,
                    values=[value],
                    text="",
                )
                for figure, value in values.items()
            ]
        figures = _estimate(items, signature)
        scored = next((figure.n for figure in figures.values()), 0)
        found[generator] = JudgeAccuracy(
            samples=len(samples),
            no_reference=len(every) - len(samples),
            unscored=len(samples) - scored,
            figures=figures,
        )
    return found


def _wins(expert: float, sample: float) -> float:
    return 0.5 if expert == sample else float(expert > sample)


def _estimate(items: Sequence[SampleScore], signature: str) -> dict[str, Estimate]:
    found = {}
    for figure in dict.fromkeys(item.figure for item in items):
        rows = [item for item in items if item.figure == figure]
        if figure in ("expert", "sample"):
            found[figure] = significance.estimate("mean", rows, signature)
        else:
            found[figure] = estimate_share([(row.group, row.values[0]) for row in rows], signature)
    return found


def build_signature(codes: Sequence[str], name: str, params: Judge, model: Model) -> str:
    """What must be equal before the accuracies of two runs of a judge may be compared."""
    parts = {
        "judge": name,
        **params.model_dump(exclude={"model", "engine"}),
        "prompts": [prompts.digest(use, code) for code in codes for use in prompts.list_uses(params.kind)],
        "languages": list(codes),
        "detector": languages.detector_version(),
        **model.identity,
    }
    return json.dumps(parts, sort_keys=True)
