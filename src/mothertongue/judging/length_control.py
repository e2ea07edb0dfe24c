"""A win rate at equal length of the two answers, as AlpacaEval 2 has it (Dubois et al. 2024, arXiv 2404.04475).

The share of an item (1 for a win, 0 for a loss, 0.5 for a tie) has the expectation 1 / (1 + exp(-(a + b tanh(d / s)))),
where d is the difference in length and s its standard deviation over the items. a and b are fitted by maximum
likelihood; a tie counts as half a win and half a loss (fractional logistic regression, Papke & Wooldridge 1996). The
win rate at d = 0 is 1 / (1 + exp(-a)). Of the published model that leaves out the term for the difficulty of each
question, which takes many models to estimate, and the regularisation.

What is controlled is what the length predicts, not what it causes: where one model's better answers are also its longer
ones, that goes too.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

# Under so many groups, items of either sign of d, items that are no tie, or wins or losses (a tie is half of each)
# nothing is estimated: ten events of the rarer kind for each term of a logistic regression (Peduzzi et al. 1996). Ties
# alone would give an interval without a width; without answers that are longer and others that are shorter, d = 0 would
# be outside of what was seen.
MIN_COUNT = 10
STEPS = 100  # of Newton's method, which takes about six


def estimate_at_equal_length(
    differences: Sequence[float], shares: Sequence[float], groups: Sequence[str]
) -> tuple[float, float, float]:
    """(win rate, low, high) at no difference in length; one row of each argument is one item.

    The interval is Student's t on the jackknife's pseudo-values of a, one group left out at a time, as
    significance.py has it. Raises ValueError, with a reason of a few words, where nothing can be estimated: too few
    items, or a length that tells wins from losses without exception, in all of the items or without one of the groups.
    """
    from scipy.special import expit, stdtrit

    gaps, won, names = np.asarray(differences, float), np.asarray(shares, float), np.asarray(groups)
    every, n = np.unique(names), len(set(groups))
    counts = (n, np.sum(gaps > 0), np.sum(gaps < 0), np.sum(won != 0.5), won.sum(), (1 - won).sum())
    if min(counts) < MIN_COUNT:
        raise ValueError("too few")
    value = _fit_intercept(gaps, won)
    without = np.array([_fit_intercept(gaps[names != name], won[names != name]) for name in every])
    pseudo = n * value - (n - 1) * without
    centre, spread = float(pseudo.mean()), float(stdtrit(n - 1, 0.975)) * float(pseudo.std(ddof=1)) / n**0.5
    low, high = min(value, centre - spread), max(value, centre + spread)
    return float(expit(value)), float(expit(low)), float(expit(high))


def _fit_intercept(gaps: Array, shares: Array) -> float:
    """a of the fitted model. Raises ValueError where there is no finite one (Albert & Anderson 1984)."""
    from scipy.special import expit

    won, lost = gaps[shares > 0], gaps[shares < 1]
    if not len(won) or not len(lost) or max(won.min(), lost.min()) >= min(won.max(), lost.max()):
        raise ValueError("separated")
    terms = np.column_stack([np.ones(len(gaps)), np.tanh(gaps / gaps.std())])
    weights = np.zeros(2)
    for _ in range(STEPS):
        expected = expit(terms @ weights)
        information = (terms * (expected * (1 - expected))[:, None]).T @ terms
        try:
            step = np.linalg.solve(information, terms.T @ (shares - expected))
        except np.linalg.LinAlgError:
            break
        weights = weights + step
        if float(np.abs(step).max()) < 1e-10:
            return float(weights[0])
    raise ValueError("separated")
