"""Intervals and tests for every figure, from sufficient statistics of single items, correct also at few groups.

Each kind of figure is a function of the sum of its items' statistics, so that one method applies to all of them. One
observation is a group of items that depend on each other, such as the turns of one conversation.

- Interval: Student's t on the jackknife's pseudo-values (Tukey 1958), one group left out at a time; for a share of yes
  and no Wilson's, which has a width at 0 and at 1 too.
- Difference: the same on the difference, over the same items. Its p-value is that of a paired permutation test:
  without a difference, the two models are exchangeable within a group, so groups are swapped in all ways, or in many
  random ones (Fisher 1935; for corpus scores approximate randomization, Riezler & Maxwell 2005).
- Many differences: Holm's adjustment (Holm 1979).

The percentile bootstrap finds a difference between equal models in 16 % of cases at six groups. benchmarks/level.py
prints the rates of all of these.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from mothertongue import overlap
from mothertongue.measurements import Difference, Estimate, SampleScore

Array = NDArray[np.float64]
K = TypeVar("K", bound=Hashable)

# The largest number of random swaps: among a hundred differences Holm requires p-values under 0.0005, which is a
# hundred of so many swaps.
SWAPS = 200_000
CHUNK = 10_000  # drawn at a time
HITS = 100  # drawing stops there, where the p-value has a relative error of a tenth (Besag & Clifford 1991)
Z = 1.959963984540054  # the 97.5 % quantile of the normal distribution


def _mean(sums: Array) -> Array:
    return np.asarray(sums[:, 0] / sums[:, -1])


def _ratio(sums: Array) -> Array:
    """Numerator over denominator; NaN where nothing is decided."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(sums[:, 0] / sums[:, 1])


def _perplexity(sums: Array) -> Array:
    """exp of negative log-likelihood over tokens; the statistics are (nats, tokens)."""
    return np.asarray(np.exp(sums[:, 0] / sums[:, 1]))


def _bleu(sums: Array) -> Array:
    return np.array([overlap.corpus_score("bleu", row[:-1]) for row in sums.tolist()])


def _chrf(sums: Array) -> Array:
    """chrF++ of many rows of statistics at once: sacreBLEU's operations in its order, which give the same bits.

    The statistics are (n-grams of the hypothesis, of the reference, matches) by order. Popović 2017, with beta 2.
    """
    counts = sums[:, :-1].reshape(len(sums), -1, 3)
    hypothesis, reference, matches = counts[..., 0], counts[..., 1], counts[..., 2]
    both = (hypothesis > 0) & (reference > 0)
    precision, recall = np.zeros(len(sums)), np.zeros(len(sums))
    with np.errstate(invalid="ignore", divide="ignore"):
        for order in range(counts.shape[1]):
            precision += np.where(both[:, order], matches[:, order] / hypothesis[:, order], 0)
            recall += np.where(both[:, order], matches[:, order] / reference[:, order], 0)
        precision, recall = precision / both.sum(axis=1), recall / both.sum(axis=1)
        score = 100 * (5 * precision * recall / (4 * precision + recall))
    return np.where(both.any(axis=1) & (precision + recall > 0), score, 0.0)


# kind: sums of shape (rows, statistics + 1), the last of them the number of items -> values of shape (rows,)
# `whole` is a figure of all answers together, not a sum over groups: it has no interval and no test.
KINDS: Mapping[str, Callable[[Array], Array]] = {
    "share": _mean,
    "mean": _mean,
    "whole": _mean,
    "ratio": _ratio,
    "perplexity": _perplexity,
    "bleu": _bleu,
    "chrf": _chrf,
}


# The range of a figure limits its interval. Perplexity's interval is computed on the logarithm, so that it is positive.
RANGES: Mapping[str, tuple[float, float]] = {"share": (0, 1), "ratio": (0, 1), "bleu": (0, 100), "chrf": (0, 100)}


def estimate(kind: str, items: Sequence[SampleScore], signature: str) -> Estimate:
    """The figure with its 95 % interval over the items that decide it; `n` counts those.

    Wilson's interval, for a share whose items are all yes or no, takes Kish's effective number of groups (Kish 1965:
    the square of the number of items over the sum of the squared group sizes) for the number of observations. That is
    exact where each group has one item, or items that are all alike, and wide between. A figure on one group has no
    interval but its value. Raises ValueError where no item decides.
    """
    rows = _select_decided(kind, items)
    if not rows:
        raise ValueError("no item decides")
    sums = _sum_groups(rows)
    value = _value(kind, sums)
    if kind == "whole":
        low = high = value
    elif kind in ("share", "ratio") and all(row.values[0] in (0, 1) for row in rows):
        sizes = sums[:, -1]
        low, high = wilson_interval(value, float(sizes.sum() ** 2 / (sizes**2).sum()))
    else:
        low, high = _jackknife_interval(lambda one: _to_scale(kind, KINDS[kind](one)), [sums])
        low, high = (float(np.exp(low)), float(np.exp(high))) if kind == "perplexity" else (low, high)
        least, most = RANGES.get(kind, (-np.inf, np.inf))
        low, high = max(least, low), min(most, high)
    return Estimate(value=value, low=low, high=high, n=len(rows), groups=len(sums), kind=kind, signature=signature)


def estimate_difference(
    kind: str, items: Sequence[SampleScore], baseline: Sequence[SampleScore], seed: int, signature: str
) -> Difference:
    """The figure minus the baseline's over the same items, with its paired 95 % interval and the test's p-value.

    Where the baseline is undecided on every item (the reference model has no gain over itself), its share is constant:
    the interval is the figure's own, moved. Other shares of yes and no get two more groups, one for each side, so that
    an interval has a width where the two hardly differ (Bonett & Price 2012). `n` and `groups` count items with a value
    on both sides. Raises ValueError when the two sides are not the same items, or no item has a value.
    """
    if sorted((i.group, i.id) for i in items) != sorted((i.group, i.id) for i in baseline):
        raise ValueError("a difference is paired over the same items, and these differ")
    if not (_select_decided(kind, items) and _select_decided(kind, baseline)):
        raise ValueError("no item decides")
    if kind == "ratio":  # items without a value on both sides, and groups of only such items, do not count
        either = {row.id for row in (*_select_decided(kind, items), *_select_decided(kind, baseline))}
        items, baseline = ([row for row in side if row.id in either] for side in (items, baseline))
    ours, theirs = _sum_groups(items), _sum_groups(baseline)
    value = _value(kind, ours) - _value(kind, theirs)
    deciding = {row.id for row in _select_decided(kind, items)} & {row.id for row in _select_decided(kind, baseline)}
    decided = [*_select_decided(kind, items), *_select_decided(kind, baseline)]
    yes_or_no = kind in ("share", "ratio") and all(row.values[0] in (0, 1) for row in decided)
    constant = kind == "share" and {row.values[0] for row in baseline} == {0.5}
    if constant:
        own = estimate(kind, items, signature)
        low, high = own.low - own.value + value, own.high - own.value + value
    else:
        sides = [ours, theirs]
        if yes_or_no:
            one = ours[:, -1].mean()
            yes, no = np.full(ours.shape[1], one), np.full(ours.shape[1], one)
            no[0] = 0
            sides = [np.vstack([ours, yes, no]), np.vstack([theirs, no, yes])]
        low, high = _jackknife_interval(lambda a, b: KINDS[kind](a) - KINDS[kind](b), sides)
        least, most = RANGES.get(kind, (-np.inf, np.inf))
        low, high = max(least - most, min(low, value)), min(most - least, max(high, value))
    return Difference(
        value=value,
        low=low,
        high=high,
        p=_permutation_p(kind, ours, theirs, seed),
        n=len(deciding),
        groups=len({row.group for row in items if row.id in deciding}),
        kind=kind,
        signature=signature,
    )


def adjust_holm(p: Mapping[K, float]) -> dict[K, float]:
    """P-values adjusted so that the probability of any false rejection is at most the level (Holm 1979)."""
    ordered = sorted(p, key=lambda key: p[key])
    found: dict[K, float] = {}
    highest = 0.0
    for place, key in enumerate(ordered):
        highest = max(highest, min(1.0, (len(ordered) - place) * p[key]))
        found[key] = highest
    return found


def wilson_interval(share: float, n: float) -> tuple[float, float]:
    """Wilson's 95 % score interval for a proportion (Wilson 1927)."""
    centre = share + Z**2 / (2 * n)
    spread = Z * float(np.sqrt(share * (1 - share) / n + Z**2 / (4 * n**2)))
    scale = 1 + Z**2 / n
    return max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)


def _select_decided(kind: str, items: Sequence[SampleScore]) -> list[SampleScore]:
    return [item for item in items if kind != "ratio" or item.values[1]]


def _value(kind: str, sums: Array) -> float:
    return float(KINDS[kind](sums.sum(axis=0, keepdims=True))[0])


def _sum_groups(items: Sequence[SampleScore]) -> Array:
    """Summed statistics and number of items of each group, groups in order of their name: (groups, statistics + 1)."""
    groups = sorted({item.group for item in items})
    places = {group: place for place, group in enumerate(groups)}
    sums = np.zeros((len(groups), len(items[0].values) + 1))
    for item in sorted(items, key=lambda item: item.id):
        sums[places[item.group]] += [*item.values, 1.0]
    return sums


def _to_scale(kind: str, values: Array) -> Array:
    return np.log(values) if kind == "perplexity" else values


def _jackknife_interval(figure: Callable[..., Array], sides: Sequence[Array]) -> tuple[float, float]:
    """Student's 95 % interval of a figure of groups' sums, from its values with one group left out at a time."""
    from scipy.special import stdtrit

    n = len(sides[0])
    value = float(figure(*(side.sum(axis=0, keepdims=True) for side in sides))[0])
    if n < 2:
        return value, value
    without = figure(*(side.sum(axis=0, keepdims=True) - side for side in sides))
    without = np.where(np.isnan(without), value, without)  # a group without which nothing is decided
    pseudo = n * value - (n - 1) * without
    spread = float(stdtrit(n - 1, 0.975)) * float(pseudo.std(ddof=1)) / n**0.5
    centre = float(pseudo.mean())
    return min(value, centre - spread), max(value, centre + spread)


def _permutation_p(kind: str, ours: Array, theirs: Array, seed: int) -> float:
    """Two-sided p-value of a paired permutation test: how often swapped groups differ at least as much."""
    n = len(ours)
    least = abs(float((KINDS[kind](ours.sum(axis=0)[None]) - KINDS[kind](theirs.sum(axis=0)[None]))[0]))

    def hits(swaps: NDArray[np.int64]) -> int:
        moved = swaps @ (theirs - ours)
        gaps = KINDS[kind](ours.sum(axis=0) + moved) - KINDS[kind](theirs.sum(axis=0) - moved)
        # A swap after which the figure has no value counts as one without a difference.
        return int(np.sum(np.isnan(gaps) | (np.abs(gaps) >= least * (1 - 1e-9) - 1e-12)))

    if 2**n <= SWAPS:
        ways = (np.arange(2**n)[:, None] >> np.arange(n)) & 1  # the first is no swap
        return hits(ways) / int(2**n)
    draw, found, drawn = np.random.default_rng(seed), 0, 0
    while drawn < SWAPS and found < HITS:
        chunk = min(CHUNK, SWAPS - drawn)
        found, drawn = found + hits(draw.integers(0, 2, size=(chunk, n))), drawn + chunk
    return (found + 1) / (drawn + 1)  # no swap is one of the ways, too
