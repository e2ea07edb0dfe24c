"""Whether a model grades itself up: grades of the same answers, pairs of them, and when it is too much."""

from collections.abc import Sequence

import pytest
from conftest import make_thread

from mothertongue import drift
from mothertongue.drift import Drift, Round
from mothertongue.errors import BadInput
from mothertongue.records import RowCounts, reference_answer
from mothertongue.verdicts import Verdict

THREADS = [make_thread(f"¿{n}?", "Sí.", split="validation").model_copy(update={"group": str(n)}) for n in range(4)]
ANSWERS = [reference_answer(thread) for thread in THREADS]


def verdicts(scores: Sequence[float | None]) -> list[Verdict]:
    return [
        Verdict(
            id=row.id,
            thread=row.thread,
            answer=row.id,
            judge="self",
            outcome="unparsed" if score is None else "score",
            score=score,
            label_mass=None,
        )
        for row, score in zip(ANSWERS, scores, strict=True)
    ]


def measure(now: Sequence[float | None], first: Sequence[float | None]) -> Drift:
    return drift.measure_drift(THREADS, ANSWERS, verdicts(now), verdicts(first), 1, "signed")


def test_drift_is_a_paired_difference_with_students_interval() -> None:
    """scipy.stats.ttest_rel([3, 4, 4, 5], [2, 2, 3, 3]).confidence_interval(): 0.5813 to 2.4187."""
    found = measure([3.0, 4.0, 4.0, 5.0], [2.0, 2.0, 3.0, 3.0])
    assert (found.first.value, found.now.value, found.drift.value) == (2.5, 4.0, 1.5)
    assert (found.drift.low, found.drift.high) == pytest.approx((0.5813, 2.4187), abs=1e-4)
    assert (found.drift.n, found.drift.groups, found.unscored, found.drift.signature) == (4, 4, 0, "signed")


def test_answers_without_a_score_by_both_are_counted() -> None:
    found = measure([3.0, None, 4.0, 5.0], [2.0, 2.0, None, 3.0])
    assert (found.drift.n, found.unscored, found.drift.value) == (2, 2, 1.5)
    with pytest.raises(BadInput) as caught:
        measure([3.0, None, None, None], [None, 2.0, 2.0, 2.0])
    assert caught.value.message == (
        "no answer has a score by the models of both rounds; lower min_label_mass of the judge"
    )


HONEST, PRAISING, UNSURE = ([2.0, 2.1, 2.9, 3.0], [3.0, 3.1, 4.0, 4.0], [1.0, 5.0, 4.0, 4.0])
STRICT = [1.0, 1.0, 1.0, 1.0]
FIRST = [2.0, 2.0, 3.0, 3.0]
PRAISED = "+1.02 [+0.95, +1.10] points higher than the first model"


def make_round(experts: Sequence[float], frozen: Sequence[float], own: Sequence[float]) -> Round:
    counts = RowCounts(total=8, kept=6, dropped={"near_copy": 2})
    return Round(
        round=1, commit="abc", prompts=counts, experts=measure(experts, FIRST), frozen=measure(frozen, FIRST),
        own=measure(own, FIRST),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("grades", "limit", "expected"),
    [
        ((HONEST, HONEST, HONEST), 0.25, None),
        ((PRAISING, HONEST, HONEST), 0.25, f"grades the experts' answers {PRAISED}"),
        ((HONEST, PRAISING, HONEST), 0.25, f"grades the first model's answers {PRAISED}"),
        ((HONEST, HONEST, PRAISING), 0.25, f"grades its own answers {PRAISED}"),
        ((STRICT, PRAISING, HONEST), 0.25, f"grades the first model's answers {PRAISED}"),  # the mean would hide it
        ((HONEST, PRAISING, HONEST), 0.95, None),  # its interval goes below the limit
        ((UNSURE, UNSURE, UNSURE), 0.25, None),  # higher by one point, and it may be chance
    ],
)
def test_praise(grades: tuple[list[float], list[float], list[float]], limit: float, expected: str | None) -> None:
    assert drift.find_praise(make_round(*grades), limit) == expected


def test_the_table_has_three_rows_per_round() -> None:
    found = make_round(STRICT, PRAISING, HONEST)
    found = found.model_copy(update={"frozen": found.frozen.model_copy(update={"unscored": 2})})
    assert drift.render_rounds([found]).splitlines()[-3:] == [
        "| 1 | 6 of 8 | experts' | 2.50 [1.58, 3.42] (n 4) | 1.00 [1.00, 1.00] (n 4) | -1.50 [-2.42, -0.58] |",
        (
            "| 1 | 6 of 8 | first model's | 2.50 [1.58, 3.42] (n 4) | 3.52 [2.65, 4.40] (n 4) | +1.02 [+0.95, +1.10]"
            " (2 without a score) |"
        ),
        "| 1 | 6 of 8 | own | 2.50 [1.58, 3.42] (n 4) | 2.50 [1.67, 3.33] (n 4) | +0.00 [-0.13, +0.13] |",
    ]
