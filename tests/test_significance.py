"""Intervals: against published values, scipy, normal theory and sacreBLEU's own bootstrap."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
from sacrebleu.metrics import BLEU, CHRF
from sacrebleu.significance import PairedTest
from scipy.stats import binomtest, norm, permutation_test, ttest_1samp, ttest_rel

from benchmarks import level
from mothertongue import overlap, significance
from mothertongue.measurements import SampleScore


def items(values: Sequence[Sequence[float]], groups: Sequence[str] | None = None) -> list[SampleScore]:
    names = [f"{place:04}" for place in range(len(values))]
    return [
        SampleScore(id=name, language="es", group=group, figure="f", values=list(row), text="")
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
    assert significance.wilson_interval(yes / n, n) == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize(("yes", "n"), [(0, 10), (10, 10), (1, 2), (36, 90), (43, 90), (64, 68), (999, 1000)])
def test_wilson_as_scipy_has_it(yes: int, n: int) -> None:
    theirs = binomtest(yes, n).proportion_ci(confidence_level=0.95, method="wilson")
    assert significance.wilson_interval(yes / n, n) == pytest.approx((theirs.low, theirs.high), abs=1e-9)


def test_a_share_of_43_in_90_is_38_to_58_per_cent() -> None:
    found = significance.estimate("share", items([[1.0]] * 43 + [[0.0]] * 47), "sign")
    assert (found.value, found.n, found.kind, found.signature) == (43 / 90, 90, "share", "sign")
    assert f"{found.low:.0%} {found.high:.0%}" == "38% 58%"


def test_a_share_with_ties_is_drawn() -> None:
    tied = significance.estimate("share", items([[0.5]] * 40), "")
    assert (tied.low, tied.value, tied.high) == (0.5, 0.5, 0.5)
    half = significance.estimate("share", items([[0.5]] * 20 + [[1.0]] * 20), "")
    assert 0.65 < half.low < half.value == 0.75 < half.high < 0.85


def test_against_a_base_that_is_undecided_a_share_keeps_its_own_interval() -> None:
    """All of forty right is no proof of all: the bootstrap alone would say so."""
    found = significance.estimate_difference("share", items([[1.0]] * 40), items([[0.5]] * 40), 1, "")
    low, high = significance.wilson_interval(1.0, 40)
    assert (found.low, found.value, found.high) == (low - 0.5, 0.5, high - 0.5)
    assert 0.4 < found.low < 0.42


def test_a_share_takes_groups_for_observations() -> None:
    found = significance.estimate("share", items([[1.0], [1.0], [0.0], [1.0]], ["a", "a", "b", "b"]), "")
    assert (found.value, found.n) == (0.75, 4)
    assert (found.low, found.high) == significance.wilson_interval(0.75, 2)


def test_a_share_on_unequal_groups_rests_on_fewer() -> None:
    """One tree of forty leaves that all go one way, and twenty conversations: Kish's 60 ** 2 / (40 ** 2 + 20)."""
    groups = ["tree"] * 40 + [f"{place}" for place in range(20)]
    found = significance.estimate("share", items([[1.0]] * 50 + [[0.0]] * 10, groups), "")
    assert (found.low, found.high) == significance.wilson_interval(50 / 60, 3600 / 1620)
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
        found = significance.estimate("share", items(values, groups), "")
        low, high = significance.wilson_interval(found.value, found.groups)
        held.append([low <= truth <= high, found.low <= truth <= found.high])
    assert np.mean(held, axis=0) == pytest.approx([counted, effective], abs=0.0051)


DRAWN = np.random.default_rng(7).gamma(2.0, 3.0, size=400)


def test_the_interval_of_a_mean_is_students() -> None:
    for count in (2, 6, 400):
        values = DRAWN[:count]
        found = significance.estimate("mean", items(values[:, None].tolist()), "")
        theirs = ttest_1samp(values, 0).confidence_interval(0.95)
        assert found.value == pytest.approx(values.mean())
        assert (found.low, found.high) == pytest.approx((theirs.low, theirs.high))


@pytest.mark.parametrize(("kind", "least", "most"), [("ratio", 0, 1), ("chrf", 0, 100), ("perplexity", 0, math.inf)])
def test_an_interval_ends_where_the_figure_does(kind: str, least: float, most: float) -> None:
    statistics = overlap.segment_statistics("chrf", ["a b c", "x"], ["a b c", "b"], "en")
    rows = {"ratio": [[0.9, 1], [0.1, 1]], "chrf": statistics, "perplexity": [[9.0, 1], [0.1, 1]]}[kind]
    found = significance.estimate(kind, items(rows), "")
    assert least <= found.low < found.value < found.high <= most
    gap = significance.estimate_difference(kind, items(rows), items(rows[::-1]), 1, "")
    assert least - most <= gap.low <= 0 <= gap.high <= most - least


def test_one_group_has_no_interval() -> None:
    found = significance.estimate("mean", items([[1.0], [3.0]], ["a", "a"]), "")
    assert (found.low, found.value, found.high, found.groups) == (2, 2, 2, 1)


def test_items_of_one_group_are_worth_no_more_than_the_group() -> None:
    values = DRAWN[:100, None].tolist()
    single = significance.estimate("mean", items(values), "")
    # each value four times, as if a conversation had four equal turns: the same interval with groups, half without
    grouped = significance.estimate("mean", items(values * 4, [f"{place % 100:04}" for place in range(400)]), "")
    apart = significance.estimate("mean", items(values * 4), "")
    assert (grouped.low, grouped.high) == pytest.approx((single.low, single.high))
    assert width(apart.low, apart.high) == pytest.approx(width(single.low, single.high) / 2, rel=0.1)
    assert (grouped.value, grouped.n) == (pytest.approx(single.value), 400)


def test_a_mean_over_groups_of_different_size_is_over_items() -> None:
    found = significance.estimate("mean", items([[1.0], [1.0], [1.0], [0.0]], ["a", "a", "a", "b"]), "")
    assert found.value == 0.75


def test_a_paired_difference_is_students_and_narrower_where_the_sides_go_together() -> None:
    noise = np.random.default_rng(8).normal(0.5, 0.3, size=400)
    ours, theirs = items((DRAWN + noise)[:, None].tolist()), items(DRAWN[:, None].tolist())
    found = significance.estimate_difference("mean", ours, theirs, 1, "sign")
    expected = ttest_rel(DRAWN + noise, DRAWN).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    each = [significance.estimate("mean", side, "") for side in (ours, theirs)]
    unpaired = math.hypot(*(width(e.low, e.high) for e in each))
    assert width(found.low, found.high) < unpaired / 5
    assert (found.p, found.n, found.groups) == (1 / (significance.SWAPS + 1), 400, 400)


@pytest.mark.parametrize("count", [3, 6, 12])
def test_the_p_value_is_scipys_exact_one(count: int) -> None:
    draw = np.random.default_rng(count)
    ours, theirs = draw.normal(0.6, 1, size=count), draw.normal(0, 1, size=count)
    found = significance.estimate_difference(
        "mean", items(ours[:, None].tolist()), items(theirs[:, None].tolist()), 1, ""
    )
    expected = permutation_test(
        (ours, theirs), lambda a, b: np.mean(a) - np.mean(b), permutation_type="samples", n_resamples=np.inf
    )
    assert found.p == pytest.approx(expected.pvalue)


def test_the_p_value_of_many_groups_is_drawn_and_near_the_exact_one() -> None:
    """Of 16 groups there are 65,536 swaps; 10,000 of them are drawn."""
    draw = np.random.default_rng(5)
    ours, theirs = (items(draw.normal(mean, 1, size=16)[:, None].tolist()) for mean in (0.6, 0))
    found, again = (significance.estimate_difference("mean", ours, theirs, 1, "") for _ in range(2))
    exact = permutation_test(
        tuple(np.array([row.values[0] for row in side]) for side in (ours, theirs)),
        lambda a, b: np.mean(a) - np.mean(b),
        permutation_type="samples",
        n_resamples=np.inf,
    ).pvalue
    assert found == again
    assert found.p == pytest.approx(exact, abs=3 * math.sqrt(exact * (1 - exact) / significance.SWAPS))


@pytest.mark.parametrize("groups", [1, 2, 3, 4, 5])
def test_under_six_groups_nothing_is_significant(groups: int) -> None:
    """All on one side has probability 2 ** (1 - groups) under no difference."""
    found = significance.estimate_difference("mean", items([[1.0]] * groups), items([[0.0]] * groups), 1, "")
    assert found.p == 2.0 ** (1 - groups) > 0.05


@pytest.mark.parametrize(("kind", "theirs"), [("bleu", BLEU()), ("chrf", CHRF(word_order=2))], ids=["bleu", "chrf"])
def test_the_p_value_of_a_corpus_score_is_near_sacrebleu_s_approximate_randomization(
    kind: overlap.Kind, theirs: BLEU | CHRF
) -> None:
    hypotheses, references = sentences(3)
    draw = np.random.default_rng(2)  # all segments differ: sacreBLEU does not count ties, and would be too sure
    one, other = (
        [text.replace(str(draw.choice(text.split())), str(draw.choice(WORDS)), 1) for text in hypotheses]
        for _ in range(2)
    )
    ours, base = (items(overlap.segment_statistics(kind, side, references, "en")) for side in (one, other))
    found = significance.estimate_difference(kind, ours, base, 1, "")
    named = [("base", other), ("ours", one)]
    _, scores = PairedTest(named, {"x": theirs}, [references], test_type="ar", n_samples=2000)()
    expected = next(results[1].p_value for name, results in scores.items() if name != "System")
    assert 0.1 < expected < 0.9
    assert found.p == pytest.approx(expected, abs=4 * math.sqrt(expected * (1 - expected) / 2000))


def test_a_ratio_is_over_what_is_decided() -> None:
    rows = items([[1.0, 1.0], [0.0, 1.0], [0.0, 0.0], [1.0, 1.0]], ["a", "b", "c", "d"])
    found = significance.estimate("ratio", rows, "")
    assert (found.value, found.n, found.groups) == (pytest.approx(2 / 3), 3, 3)
    assert (found.low, found.high) == significance.wilson_interval(2 / 3, 3)
    means = items([[0.5, 1.0], [0.0, 0.0], [0.25, 1.0]])
    assert significance.estimate("ratio", means, "").value == 0.375


def test_nothing_decided_is_no_figure() -> None:
    rows, other = items([[0.0, 0.0]] * 3), items([[1.0, 1.0]] * 3)
    with pytest.raises(ValueError, match=r"^no item decides$"):
        significance.estimate("ratio", rows, "")
    with pytest.raises(ValueError, match=r"^no item decides$"):
        significance.estimate_difference("ratio", other, rows, 1, "")


def test_a_ratio_that_one_group_decides_has_a_p_value_of_one() -> None:
    ours = items([[1.0, 1.0], [0.0, 0.0], [0.0, 0.0]])
    theirs = items([[0.0, 0.0], [0.0, 0.0], [0.0, 1.0]])
    found = significance.estimate_difference("ratio", ours, theirs, 1, "")
    assert (found.value, found.p) == (1.0, 1.0)  # a swap leaves one side without any
    assert found.low <= 1 <= found.high


def test_shares_that_hardly_differ_have_an_interval_with_a_width() -> None:
    """Bonett & Price 2012: one pair more for each side, here 1 and 1 of 42."""
    rows = items([[1.0]] * 20 + [[0.0]] * 20)
    found = significance.estimate_difference("share", rows, rows, 1, "")
    assert (found.value, found.p) == (0.0, 1.0)
    values = np.array([0.0] * 40 + [1.0, -1.0])
    expected = ttest_1samp(values, 0).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))


@pytest.mark.parametrize(
    ("p", "adjusted"),
    [
        # R 4.4, p.adjust(c(0.01, 0.02, 0.03, 0.04, 0.05), "holm")
        ([0.01, 0.02, 0.03, 0.04, 0.05], [0.05, 0.08, 0.09, 0.09, 0.09]),
        # Holm's procedure by hand: 3 * 0.01, 2 * 0.04, and no less than the one before
        ([0.04, 0.01, 0.045], [0.08, 0.03, 0.08]),
        ([0.5, 0.6], [1.0, 1.0]),
        ([0.03], [0.03]),
        ([], []),
    ],
)
def test_holm(p: list[float], adjusted: list[float]) -> None:
    found = significance.adjust_holm(dict(enumerate(p)))
    assert [found[place] for place in range(len(p))] == pytest.approx(adjusted)


def test_no_difference_is_exactly_none() -> None:
    rows = items([[1.0], [0.0], [1.0]])
    found = significance.estimate_difference("mean", rows, rows[::-1], 1, "")
    assert (found.value, found.low, found.high, found.n, found.p) == (0.0, 0.0, 0.0, 3, 1.0)


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
def test_other_items_are_refused(other: list[SampleScore]) -> None:
    with pytest.raises(ValueError, match=r"^a difference is paired over the same items, and these differ$"):
        significance.estimate_difference("mean", items([[1.0], [0.0], [1.0]]), other, 1, "")


def test_perplexity_is_over_tokens() -> None:
    # 2 tokens of probability 1/2 and 8 of 1/4: the geometric mean of 10 probabilities is 2 ** -1.8
    found = significance.estimate("perplexity", items([[2 * math.log(2), 2], [8 * math.log(4), 8]]), "")
    assert found.value == pytest.approx(2**1.8)


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
def test_corpus_scores_agree_with_sacrebleu_and_the_width_of_its_bootstrap(
    kind: overlap.Kind, theirs: BLEU | CHRF
) -> None:
    hypotheses, references = sentences(3)
    found = significance.estimate(kind, items(overlap.segment_statistics(kind, hypotheses, references, "en")), "")
    expected = theirs.corpus_score(hypotheses, [references], n_bootstrap=1000)
    assert found.value == pytest.approx(expected.score)
    half = float(expected._ci)
    assert (found.high - found.low) / 2 == pytest.approx(half, rel=0.15)
    assert (found.high + found.low) / 2 == pytest.approx(float(expected._mean), abs=0.3 * half)


@pytest.mark.parametrize("kind", ["bleu", "chrf"])
def test_corpus_scores_of_many_sums_are_those_of_sacrebleu_to_the_bit(kind: overlap.Kind) -> None:
    """Among them sums of nothing, of an empty answer, and of answers too short for the longest n-grams."""
    hypotheses, references = sentences(4, 60)
    rows = overlap.segment_statistics(kind, [*hypotheses, "", "a", "xyz"], [*references, "Sí.", "a", "Sí."], "es")
    draw = np.random.default_rng(4)
    sums = np.vstack(
        [np.array(rows), draw.integers(0, 2, size=(200, len(rows))) @ np.array(rows), np.zeros(len(rows[0]))]
    )
    found = significance.KINDS[kind](np.hstack([sums, np.ones((len(sums), 1))]))
    assert found.tolist() == [overlap.corpus_score(kind, row) for row in sums.tolist()]


SAMPLES = 300
MOST = 0.05 + 3 * math.sqrt(0.05 * 0.95 / SAMPLES)  # 0.088: what a true level of 5 % shows in one simulation of 740


@pytest.mark.slow
@pytest.mark.parametrize("groups", level.GROUPS)
@pytest.mark.parametrize("kind", level.DRAW)
def test_what_is_bold_holds_its_level(monkeypatch: pytest.MonkeyPatch, kind: str, groups: int) -> None:
    """Two equal models, in each sample anew; the percentile bootstrap on the same samples is the control."""
    monkeypatch.setattr(significance, "SWAPS", 1000)
    found = level.simulate(kind, groups, SAMPLES, 2)
    assert found.test <= MOST
    # An interval of a corpus score or of a share is no exact one: at least 90 % of them hold the truth.
    assert min(found.difference, found.estimate) >= 0.90 - 3 * math.sqrt(0.09 / SAMPLES)
    if kind == "mean" and groups <= 8:
        assert found.bootstrap is not None
        assert found.bootstrap > MOST, "the simulation would not notice a test that is too sure"


@pytest.mark.slow
def test_a_page_without_a_difference_has_nothing_bold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(significance, "SWAPS", 1000)
    assert level.simulate_page(20, 60, 2) <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 60)
