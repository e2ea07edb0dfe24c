"""How far two raters agree on answers to the same questions: pure functions of ratings.

A rating gives a number to each answer of an item. Two answers of an item that both have one are a pair, and the rater
prefers the one with the higher number, or neither. A judge and a person are raters alike.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mothertongue import significance
from mothertongue.measurements import Estimate, SampleScore

Ratings = Mapping[str, Sequence[float | None]]  # by item; None for an answer without a number
PairKey = tuple[str, int, int]  # item, first answer, second answer
Preferences = Mapping[PairKey, int]  # 1 where the first answer is preferred, -1 where the second is, 0 for neither

RESAMPLES = 2000  # of the bootstrap
Numbers = NDArray[np.float64]


class Judged(NamedTuple):
    """One pair or one answer with what two raters say of it. `item` is the group of what depends on each other."""

    item: str
    ours: float
    theirs: float


def prefer(ratings: Ratings) -> dict[PairKey, int]:
    """What a rater prefers in each pair of answers of an item."""
    found = {}
    for item, values in ratings.items():
        for (i, one), (j, other) in combinations(enumerate(values), 2):
            if one is not None and other is not None:
                found[item, i, j] = (one > other) - (one < other)
    return found


def find_majority(people: Iterable[Preferences]) -> dict[PairKey, int | None]:
    """What most people say of each pair that anyone has judged; None where two answers have equally many votes."""
    votes: dict[PairKey, Counter[int]] = {}
    for person in people:
        for key, choice in person.items():
            votes.setdefault(key, Counter())[choice] += 1
    found: dict[PairKey, int | None] = {}
    for key, counted in votes.items():
        (first, most), *others = counted.most_common()
        found[key] = None if others and others[0][1] == most else first
    return found


def join_preferences(ours: Preferences, theirs: Mapping[PairKey, int | None]) -> list[Judged]:
    """The pairs that both raters have judged, in order of their keys."""
    both = sorted(ours.keys() & theirs.keys())
    return [Judged(key[0], ours[key], choice) for key in both if (choice := theirs[key]) is not None]


def measure_agreement(pairs: Sequence[Judged], seed: int, signature: str) -> dict[str, Estimate]:
    """Agreement of the first rater with the second over pairs; each figure only where it has a value.

    - `agreement`: of the pairs in which the second prefers an answer, the share in which the first prefers the same,
      half a pair where the first has a tie. Chance is 0.5. It is what pairs are made of: ties never become one.
    - `agreement_ties`: share of all pairs on which both say the same, where a tie is a third thing to say.
    - `kappa`: the same beyond chance (Cohen 1960).

    The intervals of shares are those of significance.estimate; that of kappa is the BCa bootstrap's over items (Efron
    1987).
    """
    decided = [row for row in pairs if row.theirs]
    found = {}
    if decided:
        rows = [(row.item, 0.5 if not row.ours else float(row.ours == row.theirs)) for row in decided]
        found["agreement"] = estimate_share(rows, signature)
    if pairs:
        rows = [(row.item, float(row.ours == row.theirs)) for row in pairs]
        found["agreement_ties"] = estimate_share(rows, signature)
    if (kappa := estimate_bootstrap(cohen_kappa, pairs, "kappa", seed, signature)) is not None:
        found["kappa"] = kappa
    return found


def measure_correlation(judged: Sequence[Judged], seed: int, signature: str) -> dict[str, Estimate]:
    """Pearson's r, Spearman's rho and Kendall's tau-b with BCa bootstrap intervals over items.

    Empty where either rater says the same of everything.
    """
    from scipy import stats

    ways: dict[str, Callable[[Numbers, Numbers], float]] = {
        "pearson": lambda x, y: float(np.corrcoef(x, y)[0, 1]),
        "spearman": lambda x, y: float(np.corrcoef(stats.rankdata(x), stats.rankdata(y))[0, 1]),
        "kendall": lambda x, y: float(stats.kendalltau(x, y).statistic),
    }
    found = {name: estimate_bootstrap(way, judged, "correlation", seed, signature) for name, way in ways.items()}
    return {name: each for name, each in found.items() if each is not None}


def cohen_kappa(ours: Numbers, theirs: Numbers) -> float:
    """(observed - expected agreement) / (1 - expected) of two raters' choices -1, 0 and 1; NaN where all are one."""
    cells = (3 * (ours + 1) + theirs + 1).astype(int)  # -1, 0 and 1 of the one, times those of the other
    table = np.bincount(cells, minlength=9).reshape(3, 3) / len(cells)
    expected = float(table.sum(axis=1) @ table.sum(axis=0))
    return (float(np.trace(table)) - expected) / (1 - expected) if expected < 1 else math.nan


def estimate_share(rows: Sequence[tuple[str, float]], signature: str) -> Estimate:
    """The mean of (item, value from 0 to 1), with an interval over items."""
    scores = [
        SampleScore(id=f"{place:08}", language="", group=item, figure="", values=[value], text="")
        for place, (item, value) in enumerate(rows)
    ]
    return significance.estimate("share", scores, signature)


def estimate_bootstrap(
    statistic: Callable[[Numbers, Numbers], float], judged: Sequence[Judged], kind: str, seed: int, signature: str
) -> Estimate | None:
    """A statistic of two raters' numbers with its 95 % BCa bootstrap interval; items are drawn with all that is theirs.

    None where it has no value, or there are fewer than three items. Resamples without a value are left out. An interval
    of no width, where all resamples are alike, is that of the value alone.
    """
    items = sorted({row.item for row in judged})
    places: dict[str, list[int]] = {item: [] for item in items}
    for place, row in enumerate(judged):
        places[row.item].append(place)
    members = [np.array(places[item]) for item in items]
    one_each = len(items) == len(judged)
    ordered = sorted(judged, key=lambda row: row.item) if one_each else judged
    numbers = np.array([(row.ours, row.theirs) for row in ordered], dtype=float).reshape(-1, 2)

    def value_of(chosen: NDArray[np.int64]) -> float:
        rows = numbers[chosen if one_each else np.concatenate([members[each] for each in chosen])]
        with np.errstate(invalid="ignore", divide="ignore"):
            return statistic(rows[:, 0], rows[:, 1])

    n = len(items)
    if n < 3 or math.isnan(value := value_of(np.arange(n))):
        return None
    draw = np.random.default_rng(seed)
    drawn = np.array([value_of(draw.integers(0, n, size=n)) for _ in range(RESAMPLES)])
    without = np.array([value_of(np.delete(np.arange(n), each)) for each in range(n)])
    low, high = _bca_interval(value, drawn[~np.isnan(drawn)], without[~np.isnan(without)])
    return Estimate(value=value, low=low, high=high, n=len(judged), groups=n, kind=kind, signature=signature)


def _bca_interval(value: float, drawn: Numbers, without: Numbers) -> tuple[float, float]:
    """Bias-corrected and accelerated 95 % interval (Efron 1987) from resamples and leave-one-out values."""
    from scipy.special import ndtr, ndtri

    below = float(np.mean(drawn < value) + np.mean(drawn == value) / 2)
    if not 0 < below < 1:
        return value, value
    bias = float(ndtri(below))
    gaps = without.mean() - without
    spread = float(np.sum(gaps**2)) ** 1.5
    acceleration = float(np.sum(gaps**3)) / (6 * spread) if spread else 0.0
    ends = [float(ndtr(bias + (bias + z) / (1 - acceleration * (bias + z)))) for z in (-significance.Z, significance.Z)]
    low, high = (float(each) for each in np.quantile(drawn, ends))
    return min(low, value), max(high, value)
