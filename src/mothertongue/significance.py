"""Intervals and paired differences for every figure, from per-item sufficient statistics.

Each kind of figure is a function of the sum of its items' statistics, so one bootstrap (Efron & Tibshirani 1993; for
corpus scores Koehn 2004) serves them all, and a difference is paired by drawing the same items for both sides. What is
drawn are groups of items that depend on each other, such as the turns of one conversation.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from mothertongue import overlap
from mothertongue.records import Estimate, Item

Array = NDArray[np.float64]

RESAMPLES = 2000
MIN_GROUPS = 6
Z = 1.959963984540054  # the 97.5 % quantile of the normal distribution


def _mean(sums: Array) -> Array:
    return np.asarray(sums[:, 0] / sums[:, -1])


def _perplexity(sums: Array) -> Array:
    """exp of negative log-likelihood over tokens; the statistics are (nats, tokens)."""
    return np.asarray(np.exp(sums[:, 0] / sums[:, 1]))


def _corpus(kind: overlap.Kind) -> Callable[[Array], Array]:
    return lambda sums: np.array([overlap.score(kind, row[:-1]) for row in sums.tolist()])


# kind: sums of shape (draws, statistics + 1), the last of them the number of items -> values of shape (draws,)
KINDS: Mapping[str, Callable[[Array], Array]] = {
    "share": _mean,
    "mean": _mean,
    "perplexity": _perplexity,
    "bleu": _corpus("bleu"),
    "chrf": _corpus("chrf"),
}


def estimate(kind: str, items: Sequence[Item], seed: int, signature: str) -> Estimate:
    """The figure with its 95 % interval: Wilson's for a share of yes and no, else the percentile bootstrap.

    Wilson's interval takes Kish's effective number of groups (Kish 1965: the square of the number of items over the sum
    of the squared group sizes) for the number of observations. That is exact where each group has one item, or items
    that are all alike, and wide between; unlike the bootstrap it has a width at 0 and at 1.
    """
    sums = _grouped(items)
    sizes = sums[:, -1]
    effective = float(sizes.sum() ** 2 / (sizes**2).sum())
    value = float(KINDS[kind](sums.sum(axis=0, keepdims=True))[0])
    yes_or_no = kind == "share" and all(item.values[0] in (0, 1) for item in items)
    low, high = wilson(value, effective) if yes_or_no else _interval(_resampled(kind, sums, seed))
    return Estimate(value=value, low=low, high=high, n=len(items), groups=len(sums), kind=kind, signature=signature)


def difference(kind: str, items: Sequence[Item], base: Sequence[Item], seed: int, signature: str) -> Estimate:
    """The figure minus the base's over the same items, with its paired 95 % bootstrap interval.

    Where the base is undecided on every item (it gains nothing on itself), its share is a constant and no estimate: the
    interval is the figure's own, moved. Raises ValueError when the two sides are not the same items.
    """
    if sorted((i.group, i.id) for i in items) != sorted((i.group, i.id) for i in base):
        raise ValueError("a difference is paired over the same items, and these differ")
    ours, theirs = _grouped(items), _grouped(base)
    value = [float(KINDS[kind](side.sum(axis=0, keepdims=True))[0]) for side in (ours, theirs)]
    if kind == "share" and {item.values[0] for item in base} == {0.5}:
        own = estimate(kind, items, seed, signature)
        low, high = own.low - 0.5, own.high - 0.5
    else:
        low, high = _interval(_resampled(kind, ours, seed) - _resampled(kind, theirs, seed))
    return Estimate(
        value=value[0] - value[1],
        low=low,
        high=high,
        n=len(items),
        groups=len(ours),
        kind=kind,
        signature=signature,
    )


def excludes_zero(gain: Estimate) -> bool:
    """Whether a difference is significant at 5 %: its interval lies on one side of zero, and it rests on enough groups.

    With fewer than six groups not even a sign test (two-sided, all on one side: 2 ** (1 - groups)) gets under 5 %,
    while the bootstrap's interval can be as narrow as a point.
    """
    return gain.groups >= MIN_GROUPS and (gain.low > 0 or gain.high < 0)


def wilson(share: float, n: float) -> tuple[float, float]:
    """Wilson's 95 % score interval for a proportion (Wilson 1927)."""
    centre = share + Z**2 / (2 * n)
    spread = Z * float(np.sqrt(share * (1 - share) / n + Z**2 / (4 * n**2)))
    scale = 1 + Z**2 / n
    return max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)


def _grouped(items: Sequence[Item]) -> Array:
    """Summed statistics and number of items of each group, groups in order of their name: (groups, statistics + 1)."""
    groups = sorted({item.group for item in items})
    places = {group: place for place, group in enumerate(groups)}
    sums = np.zeros((len(groups), len(items[0].values) + 1))
    for item in sorted(items, key=lambda item: item.id):
        sums[places[item.group]] += [*item.values, 1.0]
    return sums


def _resampled(kind: str, sums: Array, seed: int) -> Array:
    """The figure on RESAMPLES draws of groups with replacement; the draws depend on seed and number of groups alone."""
    n = len(sums)
    draws = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=RESAMPLES)
    return KINDS[kind](draws @ sums)


def _interval(values: Array) -> tuple[float, float]:
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)
