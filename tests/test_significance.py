"""Intervals: against published values, scipy, normal theory and sacreBLEU's own bootstrap."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
from sacrebleu.metrics import BLEU, CHRF
from scipy.stats import binomtest, norm

from mothertongue import overlap, significance
from mothertongue.records import Item


def items(values: Sequence[Sequence[float]], groups: Sequence[str] | None = None) -> list[Item]:
    names = [f"{place:04}" for place in range(len(values))]
    return [
        Item(id=name, group=group, figure="f", values=list(row), text="")
        for name, group, row in zip(names, groups or names, values, strict=True)
    ]


def width(low: float, high: float) -> float:
    return high - low


def test_z_is_the_normal_quantile() -> None:
    assert pytest.approx(float(norm.ppf(0.975)), abs=1e-12) == significance.Z


@pytest.mark.parametrize(
    ("yes", "n", "low", "high"),
    [
        # Newcombe 1998, Statistics in Medicine 17:857, table I, method 3
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_as_published(yes: int, n: int, low: float, high: float) -> None:
    assert significance.wilson(yes / n, n) == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize(("yes", "n"), [(0, 10), (10, 10), (1, 2), (36, 90), (43, 90), (64, 68), (999, 1000)])
def test_wilson_as_scipy_has_it(yes: int, n: int) -> None:
    theirs = binomtest(yes, n).proportion_ci(confidence_level=0.95, method="wilson")
    assert significance.wilson(yes / n, n) == pytest.approx((theirs.low, theirs.high), abs=1e-9)


def test_a_share_of_43_in_90_is_38_to_58_per_cent() -> None:
    found = significance.estimate("share", items([[1.0]] * 43 + [[0.0]] * 47), 1, "sign")
    assert (found.value, found.n, found.kind, found.signature) == (43 / 90, 90, "share", "sign")
    assert f"{found.low:.0%} {found.high:.0%}" == "38% 58%"


def test_a_share_with_ties_is_drawn() -> None:
    tied = significance.estimate("share", items([[0.5]] * 40), 1, "")
    assert (tied.low, tied.value, tied.high) == (0.5, 0.5, 0.5)
    half = significance.estimate("share", items([[0.5]] * 20 + [[1.0]] * 20), 1, "")
    assert 0.65 < half.low < half.value == 0.75 < half.high < 0.85


def test_against_a_base_that_is_undecided_a_share_keeps_its_own_interval() -> None:
    """All of forty right is no proof of all: the bootstrap alone would say so."""
    found = significance.difference("share", items([[1.0]] * 40), items([[0.5]] * 40), 1, "")
    low, high = significance.wilson(1.0, 40)
    assert (found.low, found.value, found.high) == (low - 0.5, 0.5, high - 0.5)
    assert 0.4 < found.low < 0.42


def test_a_share_takes_groups_for_observations() -> None:
    found = significance.estimate("share", items([[1.0], [1.0], [0.0], [1.0]], ["a", "a", "b", "b"]), 1, "")
    assert (found.value, found.n) == (0.75, 4)
    assert (found.low, found.high) == significance.wilson(0.75, 2)


def test_a_share_on_unequal_groups_rests_on_fewer() -> None:
    """One tree of forty leaves that all go one way, and twenty conversations: Kish's 60 ** 2 / (40 ** 2 + 20)."""
    groups = ["tree"] * 40 + [f"{place}" for place in range(20)]
    found = significance.estimate("share", items([[1.0]] * 50 + [[0.0]] * 10, groups), 1, "")
    assert (found.low, found.high) == significance.wilson(50 / 60, 3600 / 1620)
    assert (found.n, found.groups) == (60, 21)
    assert found.low < 0.35 < 0.95 < found.high


@pytest.mark.parametrize(
    ("sizes", "counted", "effective"),
    [([1] * 60, 0.94, 0.94), ([5] * 12, 0.94, 0.94), ([10] * 4 + [1] * 40, 0.71, 0.95), ([40] + [1] * 19, 0.38, 1.0)],
)
def test_how_often_a_share_s_interval_holds_the_truth(sizes: list[int], counted: float, effective: float) -> None:
    """The worst case: all items of a group go one way. Without Kish's number it is far from 95 %."""
    truth, drawn = 0.7, np.random.default_rng(3).random((400, len(sizes))) < 0.7
    groups = [f"{group}" for group, size in enumerate(sizes) for _ in range(size)]
    held = []
    for case in drawn:
        values = [[float(way)] for way, size in zip(case, sizes, strict=True) for _ in range(size)]
        found = significance.estimate("share", items(values, groups), 1, "")
        low, high = significance.wilson(found.value, found.groups)
        held.append([low <= truth <= high, found.low <= truth <= found.high])
    assert np.mean(held, axis=0) == pytest.approx([counted, effective], abs=0.0051)


# The 2.5 % quantile of 2,000 draws has itself an error of 0.06 standard errors: sqrt(0.025 * 0.975 / 2000) / 0.0584.
TOLERANCE = 0.2
DRAWN = np.random.default_rng(7).gamma(2.0, 3.0, size=400)


def test_the_bootstrap_of_a_mean_agrees_with_normal_theory() -> None:
    found = significance.estimate("mean", items(DRAWN[:, None].tolist()), 1, "")
    error = DRAWN.std(ddof=1) / math.sqrt(len(DRAWN))
    assert found.value == pytest.approx(DRAWN.mean())
    assert found.low == pytest.approx(DRAWN.mean() - 1.96 * error, abs=TOLERANCE * error)
    assert found.high == pytest.approx(DRAWN.mean() + 1.96 * error, abs=TOLERANCE * error)


def test_the_bootstrap_depends_on_its_seed_alone() -> None:
    rows = items(DRAWN[:, None].tolist())
    asked = ((rows, 1), (rows[::-1], 1), (rows, 2))
    one, again, other = (significance.estimate("mean", part, seed, "") for part, seed in asked)
    assert one == again != other


def test_items_of_one_group_are_worth_no_more_than_the_group() -> None:
    values = DRAWN[:100, None].tolist()
    single = significance.estimate("mean", items(values), 1, "")
    # each value four times, as if a conversation had four equal turns: the same interval with groups, half without
    grouped = significance.estimate("mean", items(values * 4, [f"{place % 100:04}" for place in range(400)]), 1, "")
    apart = significance.estimate("mean", items(values * 4), 1, "")
    assert (grouped.low, grouped.high) == pytest.approx((single.low, single.high))
    assert width(apart.low, apart.high) == pytest.approx(width(single.low, single.high) / 2, rel=0.1)
    assert (grouped.value, grouped.n) == (pytest.approx(single.value), 400)


def test_a_mean_over_groups_of_different_size_is_over_items() -> None:
    found = significance.estimate("mean", items([[1.0], [1.0], [1.0], [0.0]], ["a", "a", "a", "b"]), 1, "")
    assert found.value == 0.75


def test_a_paired_difference_is_narrower_where_the_sides_go_together() -> None:
    noise = np.random.default_rng(8).normal(0.5, 0.3, size=400)
    ours, theirs = items((DRAWN + noise)[:, None].tolist()), items(DRAWN[:, None].tolist())
    found = significance.difference("mean", ours, theirs, 1, "sign")
    error = noise.std(ddof=1) / math.sqrt(len(noise))  # of a paired difference
    assert found.value == pytest.approx(noise.mean())
    assert found.low == pytest.approx(noise.mean() - 1.96 * error, abs=TOLERANCE * error)
    assert found.high == pytest.approx(noise.mean() + 1.96 * error, abs=TOLERANCE * error)
    each = [significance.estimate("mean", side, 1, "") for side in (ours, theirs)]
    unpaired = math.hypot(*(width(e.low, e.high) for e in each))
    assert width(found.low, found.high) < unpaired / 5
    assert found.low > 0


@pytest.mark.parametrize("kind", ["mean", "share"])
def test_no_difference_is_exactly_none(kind: str) -> None:
    rows = items([[1.0], [0.0], [1.0]])
    found = significance.difference(kind, rows, rows[::-1], 1, "")
    assert (found.value, found.low, found.high, found.n) == (0.0, 0.0, 0.0, 3)


@pytest.mark.parametrize(
    "other",
    [
        items([[1.0], [0.0]]),
        items([[1.0], [0.0], [1.0], [1.0]]),
        items([[1.0], [0.0], [1.0]], ["0000", "0001", "0001"]),
        [],
    ],
    ids=["fewer", "more", "other groups", "none"],
)
def test_other_items_are_refused(other: list[Item]) -> None:
    with pytest.raises(ValueError, match=r"^a difference is paired over the same items, and these differ$"):
        significance.difference("mean", items([[1.0], [0.0], [1.0]]), other, 1, "")


def test_perplexity_is_over_tokens() -> None:
    # 2 tokens of probability 1/2 and 8 of 1/4: the geometric mean of 10 probabilities is 2 ** -1.8
    found = significance.estimate("perplexity", items([[2 * math.log(2), 2], [8 * math.log(4), 8]]), 1, "")
    assert found.value == pytest.approx(2**1.8)
    assert (found.low, found.high) == pytest.approx((2, 4))  # one of the two items alone


WORDS = ["el", "la", "gato", "perro", "come", "bebe", "leche", "agua", "en", "casa", "cocina", "hoy", "ayer", "nunca"]


def sentences(seed: int, count: int = 120) -> tuple[list[str], list[str]]:
    """References, and hypotheses that have each word replaced with probability 0.3."""
    draw = np.random.default_rng(seed)
    references = [" ".join(draw.choice(WORDS, size=draw.integers(5, 12))) for _ in range(count)]
    hypotheses = [
        " ".join(word if draw.random() > 0.3 else str(draw.choice(WORDS)) for word in reference.split())
        for reference in references
    ]
    return hypotheses, references


@pytest.mark.parametrize(("kind", "theirs"), [("bleu", BLEU()), ("chrf", CHRF(word_order=2))], ids=["bleu", "chrf"])
def test_corpus_scores_agree_with_sacrebleu_and_its_bootstrap(kind: overlap.Kind, theirs: BLEU | CHRF) -> None:
    hypotheses, references = sentences(3)
    found = significance.estimate(kind, items(overlap.statistics(kind, hypotheses, references)), 1, "")
    expected = theirs.corpus_score(hypotheses, [references], n_bootstrap=1000)
    assert found.value == pytest.approx(expected.score)
    half = float(expected._ci)
    assert (found.high - found.low) / 2 == pytest.approx(half, rel=0.15)
    assert (found.high + found.low) / 2 == pytest.approx(float(expected._mean), abs=0.3 * half)
