"""Verdicts that are written out beside those from one token: what is read from a text, and how agreement is counted."""

import pytest
from scipy import stats

from benchmarks import one_token


@pytest.mark.parametrize(
    ("text", "score"),
    [("4", 4), ("Puntuación: 3.", 3), ("I give it 4.5 of 5", 4.5), ("4,5", 4.5), ("2/5", 2), ("10 de 10", None),
     ("0", None), ("No sé.", None), ("", None), ("Es 2 + 3", 2)],
)  # fmt: skip
def test_the_first_number_is_the_score(text: str, score: float | None) -> None:
    assert one_token.parse_score(text) == score


def test_agreement_is_over_rows_with_both_scores() -> None:
    groups = [f"{number:02}" for number in range(14)]
    ours = [1.2, 2.2, 3.2, 4.2, 1.4, 2.4, 3.4, 4.4, 1.1, 2.1, 3.1, 4.1, None, 3.0]
    theirs = [1, 2, 3, 4, 2, 3, 4, 5, 3, 4, 5, 2, 1, None]
    n, exact, near, rho = one_token.describe_agreement(groups, ours, theirs).split(" | ")
    assert n == "12"
    assert exact.split()[0] == "0.333"  # the first four
    assert near.split()[0] == "0.667"  # the next four as well
    assert float(rho.split()[0]) == pytest.approx(stats.spearmanr(ours[:12], theirs[:12]).statistic, abs=5e-4)
    assert one_token.describe_agreement(groups, ours, [None] * 14) == "0 | – | – | –"
