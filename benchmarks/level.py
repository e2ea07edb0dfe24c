"""How often equal models are called different, and how often an interval holds the truth, by the number of groups.

    python -m benchmarks.level [--samples 600] [--swaps 1000]

Run it from the project's top folder with PYTHONPATH=src. Each sample draws two models that are equal: they answer the
same items, which come in groups of one to three that depend on each other. A method that holds its level of 5 % calls
at most 5 % of them different. `bootstrap` is the percentile bootstrap over groups, as a control: it fails. A page has
twenty figures of the same groups; it fails when one of them is bold. tests/test_significance.py runs a part of this.
"""

from collections.abc import Callable, Sequence
from functools import cache
from typing import NamedTuple

import click
import numpy as np

from mothertongue import overlap, significance
from mothertongue.measurements import SampleScore

GROUPS = (6, 8, 10, 15, 20, 50)
PAGE = 20
WORDS = (
    "el",
    "la",
    "gato",
    "perro",
    "casa",
    "come",
    "bebe",
    "leche",
    "agua",
    "en",
    "con",
    "hoy",
    "ayer",
    "nunca",
    "verde",
)
Rows = Sequence[Sequence[float]]


class Drawn(NamedTuple):
    """Statistics of one item for each of two models, and the item's group."""

    group: int
    ours: Sequence[float]
    theirs: Sequence[float]


class Rates(NamedTuple):
    """Shares of samples: called different by the test, by the bootstrap; the interval of a difference that is none
    holds 0, that of a figure its true value. None where it was not simulated."""

    test: float
    bootstrap: float | None
    difference: float
    estimate: float


def mean(draw: np.random.Generator, group: int) -> list[Drawn]:
    """Normal values around a group's own middle."""
    middle = draw.normal(0, 1)
    return [Drawn(group, [middle + a], [middle + b]) for a, b in draw.normal(0, 1, size=(draw.integers(1, 4), 2))]


def share(draw: np.random.Generator, group: int) -> list[Drawn]:
    """Yes with a group's own probability, 0.75 over all groups."""
    yes = draw.beta(3, 1)
    drawn = draw.random(size=(draw.integers(1, 4), 2)) < yes
    return [Drawn(group, [float(a)], [float(b)]) for a, b in drawn]


def corpus(kind: overlap.Kind) -> Callable[[np.random.Generator, int], list[Drawn]]:
    """Sentences with some words replaced, more or fewer of them in a group."""

    def item(draw: np.random.Generator, group: int) -> list[Drawn]:
        hardness = int(draw.integers(0, 4))
        places = draw.integers(0, 60, size=draw.integers(1, 4))
        return [Drawn(group, *(_pool(kind)[place][hardness][draw.integers(0, 6)] for _ in "ab")) for place in places]

    return item


@cache
def _pool(kind: overlap.Kind) -> list[list[Rows]]:
    """Statistics of 60 sentences, at four rates of replaced words, in six versions each."""
    draw = np.random.default_rng(1)
    pool = []
    for _ in range(60):
        words = [str(word) for word in draw.choice(WORDS, size=draw.integers(4, 14))]
        levels = []
        for rate in (0.2, 0.35, 0.5, 0.65):
            answers = [
                " ".join(word if draw.random() > rate else str(draw.choice(WORDS)) for word in words) for _ in range(6)
            ]
            levels.append(overlap.segment_statistics(kind, answers, [" ".join(words)] * 6, "es"))
        pool.append(levels)
    return pool


DRAW: dict[str, Callable[[np.random.Generator, int], list[Drawn]]] = {
    "mean": mean,
    "share": share,
    "chrf": corpus("chrf"),
    "bleu": corpus("bleu"),
}


def _items(drawn: Sequence[Drawn], side: int) -> list[SampleScore]:
    return [
        SampleScore(id=f"{place:05}", language="es", group=f"{row[0]:05}", figure="f", values=list(row[side]), text="")  # type: ignore[call-overload]
        for place, row in enumerate(drawn)
    ]


def _bootstrap_excludes_zero(kind: str, sides: Sequence[Sequence[SampleScore]], seed: int) -> bool:
    ours, theirs = map(significance._sum_groups, sides)
    drawn = np.random.default_rng(seed).integers(0, len(ours), size=(1000, len(ours)))
    gaps = significance.KINDS[kind](ours[drawn].sum(axis=1)) - significance.KINDS[kind](theirs[drawn].sum(axis=1))
    low, high = np.percentile(gaps, [2.5, 97.5])
    return bool(low > 0 or high < 0)


def simulate(kind: str, groups: int, samples: int, seed: int) -> Rates:
    """The rates of one kind of figure at one number of groups."""
    draw = np.random.default_rng([seed, groups])
    many = [row for group in range(4000) for row in DRAW[kind](draw, group)]
    truth = significance._value(kind, significance._sum_groups(_items(many, 1)))
    bold, excluded, held, holds = [], [], [], []
    for sample in range(samples):
        drawn = [row for group in range(groups) for row in DRAW[kind](draw, group)]
        ours, theirs = (_items(drawn, side) for side in (1, 2))
        gap, one = (
            significance.estimate_difference(kind, ours, theirs, sample, ""),
            significance.estimate(kind, ours, ""),
        )
        bold.append(gap.p < 0.05)
        held.append(gap.low <= 0 <= gap.high)
        holds.append(one.low <= truth <= one.high)
        if kind in ("mean", "share"):  # of corpus scores it takes too long, and shows no more
            excluded.append(_bootstrap_excludes_zero(kind, (ours, theirs), sample))
    control = float(np.mean(excluded)) if excluded else None
    return Rates(float(np.mean(bold)), control, float(np.mean(held)), float(np.mean(holds)))


def simulate_page(groups: int, samples: int, seed: int) -> float:
    """Share of pages of twenty figures without any difference on which one is bold."""
    draw, failed = np.random.default_rng([seed, groups]), 0
    for sample in range(samples):
        figures = [[row for group in range(groups) for row in mean(draw, group)] for _ in range(PAGE)]
        found = {
            place: significance.estimate_difference("mean", _items(rows, 1), _items(rows, 2), sample, "").p
            for place, rows in enumerate(figures)
        }
        failed += min(significance.adjust_holm(found).values()) < 0.05
    return failed / samples


@click.command(help=__doc__)
@click.option("--samples", default=600, show_default=True)
@click.option("--swaps", default=1000, show_default=True, help="drawn by the test where there are more ways than that")
def main(samples: int, swaps: int) -> None:
    """Print a row for each kind and number of groups."""
    significance.SWAPS = swaps
    print(f"{samples} samples each; a true rate of 0.05 shows up as {0.05 + 3 * (0.05 * 0.95 / samples) ** 0.5:.3f}")
    print("or more once in 740. Called different by the test, by the bootstrap; the truth is held by the interval of a")
    print("difference, of a value.")
    print(f"{'kind':6} {'groups':>6} {'test':>6} {'bootstrap':>9} {'difference':>10} {'value':>6}")
    for kind in DRAW:
        for groups in GROUPS:
            rates = simulate(kind, groups, samples, 1)
            control = "" if rates.bootstrap is None else f"{rates.bootstrap:.3f}"
            print(f"{kind:6} {groups:6} {rates.test:6.3f} {control:>9} {rates.difference:10.3f} {rates.estimate:6.3f}")
    for groups in GROUPS:
        print(f"page   {groups:6} {simulate_page(groups, samples, 1):6.3f}")


if __name__ == "__main__":
    main()
