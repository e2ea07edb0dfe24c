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
FEWEST = 10  # groups: with fewer, a bootstrap's interval is not one
# Two made-up pairs, on one of which the raters agree, as Bonett & Price 2012 add for shares: without them, an interval
# of kappa has no width where all is agreed on.
PSEUDO = ((1.0, 1.0), (1.0, -1.0))
Numbers = NDArray[np.float64]


class Judged(NamedTuple):
    """One pair or one answer with what two raters say of it. `group` is of items that depend on each other."""

    group: str
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


def join_preferences(
    ours: Preferences, theirs: Mapping[PairKey, int | None], groups: Mapping[str, str]
) -> list[Judged]:
    """The pairs that both raters have judged, in order of their keys. `groups` is by item."""
    both = sorted(ours.keys() & theirs.keys())
    return [Judged(groups[key[0]], ours[key], choice) for key in both if (choice := theirs[key]) is not None]


def measure_agreement(pairs: Sequence[Judged], seed: int, signature: str) -> dict[str, Estimate]:
    """Agreement of the first rater with the second over pairs; each figure only where it has a value.

    - `agreement`: of the pairs in which the second prefers an answer, the share in which the first prefers the same,
      half a pair where the first has a tie. Chance is 0.5.
    - `agreement_decided`: the same without the first's ties, which never become a side of a pair.
    - `agreement_ties`: share of all pairs on which both say the same, where a tie is a third thing to say.
    - `kappa`: the same beyond chance (Cohen 1960).
    """
    wanted = [row for row in pairs if row.theirs]
    shares = {
        "agreement": [(row.group, 0.5 if not row.ours else float(row.ours == row.theirs)) for row in wanted],
        "agreement_decided": [(row.group, float(row.ours == row.theirs)) for row in wanted if row.ours],
        "agreement_ties": [(row.group, float(row.ours == row.theirs)) for row in pairs],
    }
    found = {name: estimate_share(rows, signature) for name, rows in shares.items() if rows}
    kappa = estimate_bootstrap(cohen_kappa, pairs, "kappa", seed, signature, PSEUDO)
    return found | ({"kappa": kappa} if kappa else {})


def measure_correlation(judged: Sequence[Judged], seed: int, signature: str) -> dict[str, Estimate]:
    """Pearson's r, Spearman's rho and Kendall's tau-b; without those that have no value, or no interval."""
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
    """The mean of (group, value from 0 to 1), with its 95 % interval over groups.

    Values between 0 and 1 have less variance than yes and no with the same mean, so Wilson's interval is wide enough
    for them; the jackknife's has no width where they are alike. The wider one is taken.
    """
    scores = [
        SampleScore(id=f"{place:08}", language="", group=group, figure="", values=[value], text="")
        for place, (group, value) in enumerate(rows)
    ]
    found = significance.estimate("share", scores, signature)
    sizes = Counter(group for group, _ in rows).values()
    low, high = significance.wilson_interval(found.value, len(rows) ** 2 / sum(size**2 for size in sizes))
    return found.model_copy(update={"low": min(low, found.low), "high": max(high, found.high)})


def estimate_bootstrap(
    statistic: Callable[[Numbers, Numbers], float],
    judged: Sequence[Judged],
    kind: str,
    seed: int,
    signature: str,
    pseudo: Sequence[tuple[float, float]] = (),
) -> Estimate | None:
    """A statistic of two raters' numbers with its 95 % BCa bootstrap interval (Efron 1987); groups are drawn in whole.

    `pseudo` are numbers that count for the interval only. None where the statistic has no value, where there are fewer
    than FEWEST groups, and where the interval would have no width. Resamples without a value are left out.
    """
    places: dict[str, list[int]] = {}
    for place, row in enumerate(judged):
        places.setdefault(row.group, []).append(place)
    members = [np.array(places[group]) for group in sorted(places)]
    weight = max(1, round(len(judged) / max(1, len(places))))  # as many rows as a group has
    members += [np.array([len(judged) + number] * weight) for number in range(len(pseudo))]
    numbers = np.array([*((row.ours, row.theirs) for row in judged), *pseudo], dtype=float).reshape(-1, 2)

    def value_of(rows: Numbers) -> float:
        with np.errstate(invalid="ignore", divide="ignore"):
            return statistic(rows[:, 0], rows[:, 1])

    def draw_value(chosen: NDArray[np.int64]) -> float:
        return value_of(numbers[np.concatenate([members[each] for each in chosen])])

    if len(places) < FEWEST or math.isnan(value := value_of(numbers[: len(judged)])):
        return None
    n, draw = len(members), np.random.default_rng(seed)
    drawn = np.array([draw_value(draw.integers(0, n, size=n)) for _ in range(RESAMPLES)])
    without = np.array([draw_value(np.delete(np.arange(n), each)) for each in range(n)])
    middle = draw_value(np.arange(n))
    low, high = _bca_interval(middle, drawn[~np.isnan(drawn)], without[~np.isnan(without)])
    if high - low < 1e-9:  # resamples that are alike may differ in their last bits
        return None
    return Estimate(
        value=value,
        low=min(low, value),
        high=max(high, value),
        n=len(judged),
        groups=len(places),
        kind=kind,
        signature=signature,
    )


def _bca_interval(value: float, drawn: Numbers, without: Numbers) -> tuple[float, float]:
    """Bias-corrected and accelerated 95 % interval (Efron 1987) from resamples and leave-one-out values.

    Where all resamples lie on one side of the value, the bias cannot be corrected: then it is the percentiles'.
    """
    from scipy.special import ndtr, ndtri

    below = float(np.mean(drawn < value) + np.mean(drawn == value) / 2)
    if not 0 < below < 1:
        low, high = (float(each) for each in np.quantile(drawn, (0.025, 0.975)))
        return low, high
    bias = float(ndtri(below))
    gaps = without.mean() - without
    spread = float(np.sum(gaps**2)) ** 1.5
    acceleration = float(np.sum(gaps**3)) / (6 * spread) if spread else 0.0
    ends = [float(ndtr(bias + (bias + z) / (1 - acceleration * (bias + z)))) for z in (-significance.Z, significance.Z)]
    low, high = (float(each) for each in np.quantile(drawn, ends))
    return low, high
