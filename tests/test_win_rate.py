"""Win rates: figures against outside values, judges whose bias is known, and what stage and report say."""

import json
import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from conftest import PARAMS, WIN_RATE
from scipy.optimize import minimize
from scipy.special import expit
from scipy.stats import binomtest, permutation_test

from mothertongue import params, sampling, significance
from mothertongue.chat import Chat
from mothertongue.errors import BadInput
from mothertongue.judging import win_rate, win_table
from mothertongue.judging.length_control import estimate_at_equal_length
from mothertongue.judging.win_table import Match, Rates
from mothertongue.measurements import SampleScore
from mothertongue.params import Column, Generator, Level, Metrics, PairwiseJudge, WinRate
from mothertongue.records import Answer, Message, Thread, unit_hash
from mothertongue.rows import read_rows, write_json, write_rows
from mothertongue.sampling import Model, NextTokenLogprobs, Usage
from mothertongue.store import Store
from stages import win_rate as stage

ENTRY = WinRate(opponent="base", model="base", engine="transformers", min_label_mass=0.5)
METRICS = Metrics(
    split="validation",
    suites=["language"],
    models={
        name: Column(model=model, engine="transformers", system_prompt=name == "prompted")
        for name, model in (("base", "base"), ("prompted", "base"), ("dpo", "dpo"))
    },
    headline="dpo",
    baselines=["base", "prompted"],
    reference_model="base",
    answer_tokens=8,
    translation_tokens=8,
)


@pytest.fixture(autouse=True)
def fewer_swaps(monkeypatch: pytest.MonkeyPatch) -> None:
    """The smallest p-value is one in 20,001 then."""
    monkeypatch.setattr(significance, "SWAPS", 20_000)


# The rate at equal length.


def names(count: int) -> list[str]:
    return [f"{place:03}" for place in range(count)]


@pytest.mark.parametrize(("up", "down"), [(30, 15), (36, 2), (20, 20)])
def test_at_two_lengths_the_rate_is_the_mean_of_two_logits(up: int, down: int) -> None:
    """With as many answers longer as shorter, by the same number of words, the model has no room for error."""
    gaps = [5.0] * 40 + [-5.0] * 40
    won = [1.0] * up + [0.0] * (40 - up) + [1.0] * down + [0.0] * (40 - down)
    value, low, high = estimate_at_equal_length(gaps, won, names(80))
    logits = [math.log(wins / (40 - wins)) for wins in (up, down)]
    assert value == pytest.approx(float(expit(sum(logits) / 2)))
    assert low < value < high


def draw(seed: int, count: int, a: float, b: float, ties: float = 0.3) -> tuple[list[float], list[float]]:
    """Differences in words around 8, and shares that depend on them; some are ties, which carry nothing."""
    random = np.random.default_rng(seed)
    gaps = np.round(random.normal(8, 20, count))
    won = (random.random(count) < expit(a + b * np.tanh(gaps / gaps.std()))).astype(float)
    won[random.random(count) < ties] = 0.5
    return gaps.tolist(), won.tolist()


@pytest.mark.parametrize("seed", range(3))
def test_the_rate_is_that_of_scipys_likelihood(seed: int) -> None:
    gaps, won = draw(seed, 120, 0.4, 1.5)
    terms, shares = np.tanh(np.array(gaps) / np.std(gaps)), np.array(won)

    def loss(weights: Any) -> float:
        score = weights[0] + weights[1] * terms
        return float(np.sum(shares * np.logaddexp(0, -score) + (1 - shares) * np.logaddexp(0, score)))

    theirs = minimize(loss, [0.0, 0.0], method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-12})
    value, low, high = estimate_at_equal_length(gaps, won, names(120))
    assert value == pytest.approx(float(expit(theirs.x[0])), abs=1e-6)
    turned = estimate_at_equal_length([-gap for gap in gaps], [1 - share for share in won], names(120))
    assert turned == pytest.approx((1 - value, 1 - high, 1 - low))


@pytest.mark.parametrize(("count", "a", "b"), [(60, 0.0, 1.5), (60, 0.8, 1.0), (120, 0.0, 0.0)])
def test_how_often_the_interval_holds_the_rate(count: int, a: float, b: float) -> None:
    """Without ties, so that the truth is known; items in groups of two that are drawn alike."""
    held = []
    for seed in range(120):
        gaps, won = draw(seed, count // 2, a, b, ties=0.0)
        groups = [name for name in names(count // 2) for _ in "ab"]
        try:
            _, low, high = estimate_at_equal_length(np.repeat(gaps, 2).tolist(), np.repeat(won, 2).tolist(), groups)
        except ValueError:
            continue
        held.append(low <= expit(a) <= high)
    assert len(held) > 60
    assert np.mean(held) >= 0.9


@pytest.mark.parametrize(
    ("gaps", "won", "reason"),
    [
        ([5.0, -5.0] * 9, [1.0, 0.0] * 9, "too few"),  # nine longer answers
        ([5.0] * 60 + [-5.0] * 9, [1.0, 0.0, 1.0] * 23, "too few"),
        ([5.0, -5.0] * 40, [1.0] * 71 + [0.0] * 9, "too few"),  # nine losses
        ([5.0, -5.0] * 40, [0.5] * 80, "too few"),  # ties alone, whose interval would have no width
        ([5.0, -5.0] * 40, [0.5] * 71 + [1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0], "too few"),
        ([5.0, -5.0] * 40, [1.0, 0.0] * 40, "separated"),  # the longer one always
        ([5.0, -5.0] * 40, [0.0, 1.0] * 40, "separated"),
        ([5.0, -5.0, 0.0] * 30, [1.0, 0.0, 0.5] * 30, "separated"),
        ([5.0, -5.0] * 40, [1.0, 0.0] * 39 + [0.0, 1.0], "separated"),  # without the last group
    ],
)
def test_where_it_cannot_be_estimated_there_is_no_number(gaps: list[float], won: list[float], reason: str) -> None:
    groups = [f"{place // 2:03}" for place in range(len(gaps))] if reason == "separated" else names(len(gaps))
    with pytest.raises(ValueError, match=f"^{reason}$"):
        estimate_at_equal_length(gaps, won, groups)
    assert estimate_at_equal_length([5.0, -5.0] * 40, [1.0, 1.0, 0.0, 0.0] * 20, names(80))[0] == pytest.approx(0.5)


# The other figures, from matches.


def match(place: int, outcome: str, words: int = 0, column: str = "dpo", **more: Any) -> Match:
    row = {
        "id": f"{place:03}", "language": "es", "group": f"{place:03}", "column": column, "answered": f"{place:03}",
        "outcome": outcome, "flip": False, "alike": False, "words": words, "likeness": 0.0, "draw": 1.0,
        "label_mass": 0.9,
    }  # fmt: skip
    return Match.model_validate(row | more)


def outcomes(wins: int, losses: int, ties: int, unparsed: int = 0) -> list[Match]:
    every = ["win"] * wins + ["loss"] * losses + ["tie"] * ties + ["unparsed"] * unparsed
    return [match(place, outcome) for place, outcome in enumerate(every)]


def test_a_rate_is_that_of_scipys_sign_test_and_wilsons_interval() -> None:
    rate = win_rate.measure(outcomes(9, 2, 3, unparsed=4), 1, "s")
    assert (rate.wins, rate.losses, rate.ties, rate.unparsed) == (9, 2, 3, 4)
    assert rate.margin
    assert rate.decided
    assert rate.share
    assert (rate.margin.value, rate.margin.n) == (7 / 14, 14)
    assert rate.margin.p == pytest.approx(binomtest(9, 11).pvalue)  # all 2 ** 14 exchanges of names
    theirs = binomtest(9, 11).proportion_ci(confidence_level=0.95, method="wilson")
    assert (rate.decided.value, rate.decided.n) == (9 / 11, 11)
    assert (rate.decided.low, rate.decided.high) == pytest.approx((theirs.low, theirs.high), abs=1e-9)
    assert rate.share.value == (9 + 3 / 2) / 14
    assert rate.share.low == (1 + rate.margin.low) / 2
    # Bonett and Price 2012: Wald's interval with two more pairs, one won and one lost, and Student's quantile here
    values = np.array([1.0] * 10 + [-1.0] * 3 + [0.0] * 3)
    half = 2.1314 * values.std(ddof=1) / 16**0.5  # t with 15 degrees of freedom
    assert (rate.margin.low, rate.margin.high) == pytest.approx((values.mean() - half, values.mean() + half), abs=1e-3)


def test_ties_alone_have_no_decided_share_and_an_interval_with_a_width() -> None:
    rate = win_rate.measure(outcomes(0, 0, 40), 1, "s")
    assert rate.decided is None
    assert rate.margin
    assert rate.share
    assert (rate.margin.value, rate.margin.p) == (0.0, 1.0)
    assert -0.12 < rate.margin.low < -0.03 < 0.03 < rate.margin.high < 0.12
    assert (rate.equal_length, rate.obstacle) == (None, "too few")


def test_without_a_valid_comparison_there_is_no_figure() -> None:
    rate = win_rate.measure(outcomes(0, 0, 0, unparsed=3), 1, "s")
    assert (rate.unparsed, rate.ties, rate.margin, rate.share, rate.words, rate.longer) == (
        3,
        0,
        None,
        None,
        None,
        None,
    )
    assert win_rate.compare(outcomes(0, 0, 0, unparsed=3), outcomes(3, 0, 0), 1, "s") is None


def test_lengths_are_beside_it() -> None:
    rows = [match(0, "win", 4), match(1, "loss", -2), match(2, "tie", 0), match(3, "tie", 4)]
    rate = win_rate.measure(rows, 1, "s")
    assert rate.longer
    assert rate.words
    assert (rate.longer.value, rate.words.value) == (0.625, 1.5)


def test_judges_that_cost_nothing_are_beside_it() -> None:
    """Each has its own share: an answer that both sides have is a tie of all of them."""
    leads = [(2, -5.0, 0.1), (2, 5.0, -0.1), (-2, 0.5, -0.2), (0, 0.0, 0.0)]
    rows = [match(n, "win", words, likeness=alike, draw=draw) for n, (words, alike, draw) in enumerate(leads)]
    rate = win_rate.measure(rows, 1, "s")
    found = [row and row.value for row in (rate.longer, rate.question, rate.random)]
    assert found == [2.5 / 4, 2.5 / 4, 1.5 / 4]


def test_two_columns_are_paired_by_question() -> None:
    ours = [match(n, o) for n, o in enumerate(["win", "win", "tie", "loss", "win", "tie", "unparsed", "win", "win"])]
    theirs = [
        match(n, o) for n, o in enumerate(["loss", "win", "loss", "tie", "tie", "tie", "win", "unparsed", "loss"])
    ]
    gain = win_rate.compare(ours, theirs, 1, "s")
    assert gain
    gaps = np.array([1.0, 0.0, 0.5, -0.5, 0.5, 0.0, 1.0])
    assert (gain.value, gain.n, gain.groups) == (pytest.approx(gaps.mean()), 7, 7)
    theirs_p = permutation_test((gaps,), np.mean, permutation_type="samples", n_resamples=np.inf).pvalue
    assert gain.p == pytest.approx(theirs_p)
    assert gain.low < 0 < gain.value < gain.high
    same = win_rate.compare(ours, ours, 1, "s")
    assert same
    assert (same.value, same.p) == (0.0, 1.0)
    assert same.low < 0 < same.high  # a width, although nothing differs


# Judges that are known.

Judge = Callable[[str, str, str], tuple[int, float]]  # question, first, second -> choice (1, 2, 0), its probability


class Fake:
    """A model that says what a function of the two answers says."""

    encode, find_options = Model.encode, Model.find_options

    def __init__(self, chat: Chat, judge: Judge) -> None:
        self.chat, self.judge, self.folder, self.asked = chat, judge, Path("models/base"), 0
        self.identity = {"weights": "w", "engine": "transformers 5"}
        self.usage, self.price = Usage(2, 20, 2), None

    def next_token_logprobs(self, requests: Sequence[NextTokenLogprobs], label: str) -> list[list[float]]:
        assert label.startswith("scored win_rate ")
        found = []
        for request in requests:
            prompt = str(self.chat.tokenizer.decode(request.prompt))
            texts = [
                re.search(rf"<{mark}_\w+>\n(.*)\n</{mark}_\w+>", prompt, re.DOTALL)
                for mark in ("question", "answer_1", "answer_2")
            ]
            question, first, second = (text[1] for text in texts if text)
            choice, probability = self.judge(question, first, second)
            likely = dict.fromkeys((1, 2, 0), (1 - probability) / 1000) | {choice: probability}
            found.append([math.log(likely[number]) for number in (1, 2, 0)])
        self.asked += len(requests)
        return found


def place(_question: str, _first: str, _second: str) -> tuple[int, float]:
    return 1, 0.9


def longer(_question: str, first: str, second: str) -> tuple[int, float]:
    one, other = len(first.split()), len(second.split())
    return (0 if one == other else 1 if one > other else 2), 0.9


def mostly_longer(question: str, first: str, second: str) -> tuple[int, float]:
    """The longer one in three of four pairs, whatever the order."""
    turned = unit_hash(" ".join(sorted([first, second]))) < 0.25
    choice = longer(question, first, second)[0]
    return (3 - choice if choice and turned else choice), 0.9


def knowing(asked: str, first: str, second: str) -> tuple[int, float]:
    """The answer that has the number that the question asks for; neither where both have, or none."""
    wanted = asked.split()[-1]
    right = [wanted in text.split() for text in (first, second)]
    return (0 if right[0] == right[1] else 1 if right[0] else 2), 0.9


def question(number: int, language: str = "es") -> Thread:
    return Thread(
        id=f"{language}{number:03}",
        conversation=f"{number}",
        language=language,
        group=f"{language}{number // 2:03}",
        split="validation",
        prompt=[Message(role="user", content=f"dime el número {number}")],
        reference=f"Es el {number} y nada más",
    )


THREADS = [question(number) for number in range(80)]


def answers(threads: Sequence[Thread] = THREADS) -> dict[str, dict[str, str]]:
    """The opponent and `prompted` are wrong; `dpo` is right in three of four, and mostly longer, by up to 16 words."""
    found: dict[str, dict[str, str]] = {"base": {}, "prompted": {}, "dpo": {}}
    for place_, row in enumerate(threads):
        number = row.prompt[-1].content.split()[-1]
        filler = " más" * (place_ % 7)
        found["base"][row.id] = f"Creo que no lo sé{filler}"
        found["prompted"][row.id] = f"La verdad, no lo sé{filler}"
        tail = " bien" * (3 + place_ * 5 % 17)
        found["dpo"][row.id] = f"Es {number if place_ % 4 else 'otro'}{tail}"
    return found


def rates(
    judge: Judge, chat: Chat, threads: Sequence[Thread] = THREADS, given: dict[str, dict[str, str]] | None = None
) -> tuple[dict[str, Rates], list[Match], Fake]:
    model = Fake(chat, judge)
    rows = win_rate.judge_answers(threads, given or answers(threads), "base", ENTRY, model)  # type: ignore[arg-type]
    return win_rate.summarize(rows, ENTRY, METRICS, 1, " ".join), rows, model


def test_likeness_to_the_question_that_the_judge_read_is_beside_it(chat: Chat) -> None:
    """An answer with the question in it, against one with nothing of it; under another number it is less like it."""
    given = {
        "base": {row.id: "xxx" for row in THREADS},
        "dpo": {row.id: row.prompt[-1].content for row in THREADS},
    }
    metrics = METRICS.model_copy(update={"models": {name: METRICS.models[name] for name in given}})
    model: Any = Fake(chat, place)
    rows = [row for row in win_rate.judge_answers(THREADS, given, "base", ENTRY, model) if row.column == "dpo"]
    assert all(row.likeness > 99.9 for row in rows if not row.is_control)
    assert all(0 < row.likeness < 99.9 for row in rows if row.is_control)
    short = metrics.model_copy(update={"baselines": ["base"], "headline": "dpo"})
    rate = win_rate.summarize_part(rows, ENTRY, short, 1, "s").columns["dpo"]
    assert rate.question
    assert rate.question.value == 1.0


def test_a_model_against_itself_is_all_ties_that_nobody_is_asked_about(chat: Chat) -> None:
    given = {"base": answers()["base"]}
    metrics = METRICS.model_copy(update={"models": {"base": METRICS.models["base"]}})
    model: Any = Fake(chat, place)
    rows = [row for row in win_rate.judge_answers(THREADS, given, "base", ENTRY, model) if row.column == "base"]
    assert model.asked == 2 * 2 * 80  # the experts' answers only, under their question and under another
    assert {(row.outcome, row.alike, row.flip, row.label_mass, row.is_control) for row in rows} == {
        ("tie", True, False, None, False)
    }
    rate = win_rate.summarize_part(rows, ENTRY, metrics.model_copy(update={"baselines": ["base"], "headline": "base"}),
                                   1, "s").columns["base"]  # fmt: skip
    assert (rate.wins, rate.losses, rate.ties, rate.alike, rate.flips) == (0, 0, 80, 80, 0)
    assert {row and row.value for row in (rate.longer, rate.question, rate.random)} == {0.5}
    assert rate.margin
    assert rate.margin.low < 0 == rate.margin.value < rate.margin.high


def test_a_judge_that_looks_at_the_place_has_ties_only(chat: Chat) -> None:
    found = rates(place, chat)[0]["es"]
    for rate in (found.columns["dpo"], found.columns["prompted"], found.controls["dpo"], found.columns["experts"]):
        assert (rate.wins, rate.losses, rate.ties, rate.flips) == (0, 0, 80, 80)
        assert rate.decided is None


def test_a_judge_that_takes_the_longer_answer_is_seen(chat: Chat) -> None:
    """A high share that the control has as well, and that is gone at equal length."""
    rate, control = ((found := rates(mostly_longer, chat)[0]["es"]).columns["dpo"], found.controls["dpo"])
    assert rate.share
    assert rate.longer
    assert rate.equal_length
    assert rate.over_control
    assert control.share
    assert rate.margin
    assert rate.margin.low > 0
    assert rate.longer.value == 0.79375
    assert rate.random
    assert rate.random.value == pytest.approx(0.5, abs=0.17)  # of 80 draws
    assert rate.equal_length.low < 0.5 < rate.equal_length.high
    assert abs(rate.equal_length.value - 0.5) < abs(rate.share.value - 0.5) / 2
    assert control.share.value == pytest.approx(rate.share.value, abs=0.05)  # the same pairs of answers
    assert rate.over_control.low < 0 < rate.over_control.high


def test_a_judge_that_takes_the_longer_answer_always_leaves_nothing_to_estimate(chat: Chat) -> None:
    rate = rates(longer, chat)[0]["es"].columns["dpo"]
    assert (rate.equal_length, rate.obstacle) == (None, "separated")
    assert rate.share
    assert rate.longer
    assert rate.share.value == rate.longer.value


def test_a_judge_that_knows_the_answers_finds_them_under_their_own_question_only(chat: Chat) -> None:
    found = rates(knowing, chat)[0]["es"]
    rate, control = found.columns["dpo"], found.controls["dpo"]
    assert (rate.wins, rate.losses, rate.ties) == (60, 0, 20)
    assert rate.over_control
    assert found.columns["experts"].margin
    assert (control.wins, control.losses) == (0, 0)
    assert rate.over_control.value == 0.38125  # of 80 controls, in which some answers are there twice
    assert rate.over_control.p < 0.001
    assert found.columns["experts"].margin.value == 1.0
    assert found.differences.keys() == {"dpo"}
    assert found.differences["dpo"].keys() == {"prompted"}  # a difference to the opponent is the rate itself
    assert found.differences["dpo"]["prompted"].value == 0.375


def test_other_questions_are_of_another_group_and_language_alike() -> None:
    threads = [*THREADS, *(question(number, "it") for number in range(6))]
    by_id = {row.id: row for row in threads}
    others = win_rate.pick_others(threads)
    for name, other in others.items():
        assert other
        assert other.language == by_id[name].language
        assert other.group != by_id[name].group
    taken = [other.id for other in others.values() if other]
    assert max(map(taken.count, taken)) <= 2
    assert win_rate.pick_others(THREADS[:2]) == {"es000": None, "es001": None}


def test_unparsed_comparisons_are_counted_and_no_ties(chat: Chat) -> None:
    def unsure(asked: str, first: str, second: str) -> tuple[int, float]:
        return knowing(asked, first, second)[0], 0.1 if asked.endswith("5") else 0.9

    found, rows, _ = rates(unsure, chat)
    rate = found["es"].columns["dpo"]
    assert (rate.wins, rate.losses, rate.ties, rate.unparsed) == (52, 0, 20, 8)  # eight of those that are right
    assert rate.share
    assert rate.share.n == 72
    assert {row.outcome for row in rows if row.id.endswith("5") and not row.alike} == {"unparsed"}


def test_two_languages_have_rates_of_their_own(chat: Chat) -> None:
    threads = [*THREADS, *(question(number, "it") for number in range(40))]
    found, _, _ = rates(knowing, chat, threads)
    assert list(found) == ["", "es", "it"]
    sizes = {code: part.columns["dpo"].margin for code, part in found.items()}
    assert {code: (row.n, row.signature) for code, row in sizes.items() if row} == {
        "": (120, "es it"), "es": (80, "es"), "it": (40, "it"),
    }  # fmt: skip


# What is read, and its signature.

SIGNATURE = '{"device": "cpu 2", "language": "es", "tokens": "8"}'


def write_answers(folder: Path, given: dict[str, dict[str, str]], signature: str = SIGNATURE) -> None:
    """What stage metrics writes of suite language, as far as it is read."""
    for column, texts in given.items():
        rows = [
            SampleScore(id=name, language=name[:2], group=name, figure=figure, values=values, text=text)
            for name, each in texts.items()
            for figure, values, text in (("right_language", [1.0, 1.0], each), ("words", [3.0], ""))
        ]
        write_rows(folder / column / "language.items.jsonl", rows)
        words = significance.estimate("mean", [row for row in rows if row.figure == "words"], signature)
        write_json(folder / column / "language.json", {"figures": {"words": words.model_dump()}})


def test_answers_are_read_with_their_signature(tmp_path: Path) -> None:
    write_answers(tmp_path, answers())
    assert win_rate.read_answers(tmp_path, tmp_path, ["dpo", "base", "prompted"], "base", THREADS) == (
        answers(),
        SIGNATURE,
    )


def test_an_opponent_may_be_a_generator_that_has_not_answered_all(tmp_path: Path, chat: Chat) -> None:
    write_answers(tmp_path, answers())
    rows = [
        Answer(id=f"{row.id} {index}", thread=row.id, generator="api", index=index, text=f"No {'ab'[index]}", tokens=3,
               finish="stop")
        for row in THREADS[:60] for index in (0, 1)
    ]  # fmt: skip
    write_rows(tmp_path / "api.jsonl", rows)
    given, signature = win_rate.read_answers(tmp_path, tmp_path, list(METRICS.models), "api", THREADS)
    assert (given["api"], signature) == ({row.id: "No a" for row in THREADS[:60]}, SIGNATURE)
    entry, model = ENTRY.model_copy(update={"opponent": "api"}), Fake(chat, knowing)
    matches = win_rate.judge_answers(THREADS, given, "api", entry, model)  # type: ignore[arg-type]
    found = win_rate.summarize(matches, entry, METRICS, 1, " ".join)["es"]
    assert (found.columns["dpo"].wins, found.columns["dpo"].losses, found.columns["dpo"].ties) == (45, 0, 15)
    assert set(found.columns) == {*METRICS.models, "api", "experts"}
    assert set(found.controls) == {*METRICS.models, "experts"}
    assert found.differences["dpo"].keys() == {"base", "prompted"}
    assert (found.columns["dpo"].unanswered, found.controls["dpo"].unanswered) == (20, 0)
    counts = win_rate.count_outcomes(matches)
    columns = len(METRICS.models) + 2  # the opponent and the experts
    assert counts.dropped == {"unparsed": 0, "error": 0, "unanswered": 20 * columns}
    assert (counts.total, counts.kept) == (len(matches), 60 * (2 * columns - 1))
    write_rows(tmp_path / "api.jsonl", [])
    with pytest.raises(BadInput, match=r"api\.jsonl: has no answer to a held-out thread; run stage generated"):
        win_rate.read_answers(tmp_path, tmp_path, list(METRICS.models), "api", THREADS)


def test_a_comparison_that_a_server_refuses_is_an_error(chat: Chat) -> None:
    class Refusing(Fake):
        def next_token_logprobs(self, requests: Sequence[NextTokenLogprobs], label: str) -> Any:
            return [None if n % 5 == 0 else row for n, row in enumerate(super().next_token_logprobs(requests, label))]

    model: Any = Refusing(chat, knowing)
    rows = win_rate.judge_answers(THREADS, answers(), "base", ENTRY, model)
    counts = win_rate.count_outcomes(rows)
    assert counts.dropped["error"] > 0
    assert counts.dropped["unparsed"] == 0
    rate = win_rate.summarize(rows, ENTRY, METRICS, 1, " ".join)["es"].columns["dpo"]
    assert rate.errors == sum(row.outcome == "error" and row.column == "dpo" and not row.is_control for row in rows)
    assert rate.wins + rate.losses + rate.ties + rate.errors == 80


def test_the_control_is_paired_by_the_answers(chat: Chat) -> None:
    """A judge that looks at the answers alone says the same under any question: no difference, and hardly a width."""
    gain = rates(mostly_longer, chat)[0]["es"].columns["dpo"].over_control
    assert gain
    assert gain.value == 0
    assert gain.n == 80
    assert gain.high - gain.low < 0.14  # by question it would be three times as wide


def test_columns_that_were_measured_differently_are_refused(tmp_path: Path) -> None:
    write_answers(tmp_path, answers())
    write_answers(tmp_path, {"dpo": answers()["dpo"]}, SIGNATURE.replace("cpu 2", "cpu 4"))
    with pytest.raises(BadInput) as caught:
        win_rate.read_answers(tmp_path, tmp_path, list(METRICS.models), "base", THREADS)
    assert caught.value.message == (
        f"{tmp_path}/dpo: words: measured with device 'cpu 4', not 'cpu 2' as base; measure all again on one machine:"
        " dvc repro -s -f metrics, then dvc repro"
    )


def test_answers_to_other_threads_are_refused(tmp_path: Path) -> None:
    write_answers(tmp_path, answers())
    with pytest.raises(BadInput) as caught:
        win_rate.read_answers(tmp_path, tmp_path, list(METRICS.models), "base", THREADS[1:])
    assert caught.value.message == (
        f"{tmp_path}/base/language.items.jsonl: has answers to other threads than the held-out ones; run stage metrics"
    )


def test_a_signature_names_judge_opponent_and_how_all_answered(chat: Chat) -> None:
    model: Any = Fake(chat, place)

    def sign(codes: Sequence[str] = ("es",), entry: WinRate = ENTRY, measured: str = SIGNATURE, **more: str) -> Any:
        texts = answers()["base"] | more
        return json.loads(win_rate.build_signature(codes, THREADS, texts, measured, entry, model))

    found = sign()
    assert (found["opponent"], found["judge"], found["kind"], found["weights"]) == ("base", "base", "pairwise", "w")
    assert found["answers"] == {"device": "cpu 2", "tokens": "8"}
    changed = [
        sign(["it"]), sign(es000="otra"), sign(measured=SIGNATURE.replace("8", "9")),
        sign(entry=ENTRY.model_copy(update={"min_label_mass": 0.1})),
        sign(entry=ENTRY.model_copy(update={"opponent": "dpo"})),
    ]  # fmt: skip
    assert all(other != found for other in changed)
    assert sign(["es"], other="of no thread") == found


# The stage and the report.


@pytest.fixture
def ran(workplace: Path, chat: Chat, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The stage, with a judge that knows the answers."""
    columns = "models:\n" + "".join(
        f"    {name}: {json.dumps(column.model_dump())}\n" for name, column in METRICS.models.items()
    )
    changed = re.sub(r"(?s)models:\n    base: .*?(?=  headline)", columns, PARAMS).replace("win_rate: {}\n", WIN_RATE)
    changed = changed.replace("  nf4: {model: dpo, format: nf4}\n  int8: {model: dpo, format: int8}\n", "")
    Path("params.yaml").write_text(changed.replace("quantized:\n", "quantized: {}\n"), encoding="utf-8")
    learned = question(99).model_copy(update={"split": "train"})
    write_rows(Path("data/threads.jsonl"), [*THREADS, learned])
    write_answers(Path("metrics/measured"), answers())

    def make(folder: Path, engine: str, store: Store) -> Fake:
        assert (folder, engine, store.path) == (Path("models/base"), "transformers", Path("store/samples.sqlite"))
        return Fake(chat, knowing)

    monkeypatch.setattr(sampling, "Model", make)
    monkeypatch.setenv("MOTHERTONGUE_STORE", "store")
    result = CliRunner().invoke(
        stage.main,
        ["base", "data/threads.jsonl", "metrics/measured", "data/generated", "models/base",
         "metrics/win_rate/base.json", "metrics/win_rate/base.items.jsonl"],
    )  # fmt: skip
    assert (result.exit_code, result.output) == (
        0,
        "metrics/win_rate/base.json: comparisons 560 of 560, of 3 columns on 80 questions\n",
    )
    return workplace


@pytest.mark.usefixtures("ran")
def test_what_the_stage_writes() -> None:
    rows = read_rows(Path("metrics/win_rate/base.items.jsonl"), Match)
    assert len(rows) == 80 * (1 + 3 * 2)  # the opponent once; two columns and the experts with their controls
    found = win_table.read_rates(Path("metrics/win_rate/base.json"))
    assert list(found) == ["es"]
    rate = found["es"].columns["dpo"]
    assert (rate.wins, rate.losses, rate.ties) == (60, 0, 20)
    assert rate.margin
    assert json.loads(rate.margin.signature)["languages"] == ["es"]
    assert win_rate.summarize(rows, ENTRY, METRICS, 1, lambda _: rate.margin.signature if rate.margin else "") == found


@pytest.mark.usefixtures("ran")
def test_a_name_that_is_not_in_params() -> None:
    result: Any = CliRunner().invoke(stage.main, ["none", "a", "b", "c", "d", "e", "f"])
    assert (result.exit_code, result.stderr) == (1, "Error: params.yaml: win_rate: no 'none'; take one of base\n")


ANSWERED = {"base": "base", "prompted": "base", "dpo": "dpo", "plain": "base"}


def test_a_level_and_a_generator_are_of_their_model() -> None:
    generator = Generator(
        model="api", engine="server", system_prompt=False, train_share=1, n=1, temperature=0, top_p=1, max_tokens=9
    )
    column = METRICS.models["dpo"]
    metrics = METRICS.model_copy(update={"models": {"q": column.model_copy(update={"model": "nf4"}), "dpo": column}})
    levels = {"nf4": Level(model="base", format="nf4")}
    found = win_table.list_models(metrics, {"large": generator}, levels)
    assert found == {"large": "api", "q": "base", "dpo": column.model}


@pytest.mark.usefixtures("ran")
def test_the_report_shows_every_rate_beside_its_controls() -> None:
    values = params.load()
    found = {"base": win_table.read_rates(Path("metrics/win_rate/base.json"))}
    pair = PairwiseJudge(kind="pairwise", model="base", engine="transformers", min_label_mass=0.5)
    page = win_table.render_rates(found, values.win_rate, values.metrics, values.scored, values.models, ANSWERED)
    assert (
        "Judge: model `base` by transformers, which is no judge of section `scored`, so not calibrated. Of 480" in page
    )
    assert "it flips 0 (0%); 0 more are unparsed. It judges its own answers: `base`, `prompted`." in page
    assert "which is judge `pair` of section `scored`." in win_table.render_rates(
        found, values.win_rate, values.metrics, {"pair": pair}, values.models, ANSWERED
    )
    table = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in page.splitlines() if line[:1] == "|"]
    assert [row[0].strip() for row in table] == [
        "against `base`", "---|--:|--:|--:|--:|--:|---|---|---|---|---|---|---|---", "`base`", "`prompted`",
        "`prompted`, other questions", "`dpo`", "`dpo`, other questions", "`experts`", "`experts`, other questions",
    ]  # fmt: skip
    rows = {row[0].strip(): row for row in table if len(row) == 14}
    assert len(rows) == 8
    assert rows["`base`"][1:6] == ["80 (40)", "0", "0", "80 (0, 80)", "0 (0, 0)"]
    assert rows["`dpo`"][1:6] == ["80 (40)", "60", "0", "20 (0, 0)", "0 (0, 0)"]
    assert rows["`dpo`"][6].startswith("**+0.750 [+0.")
    assert rows["`dpo`"][7] == "1.000 [0.904, 1.000] (n 60)"  # Wilson at Kish's 60 ** 2 / (20 * 4 + 20 * 1) = 36 groups
    assert rows["`dpo`"][8].startswith("0.875 [0.")
    assert "<br>Δ other questions **+0.381 [+0." in rows["`dpo`"][8]
    assert "<br>Δ prompted **+0.375 [+0." in rows["`dpo`"][8]
    assert rows["`dpo`"][9].startswith("0.8")
    assert rows["`prompted`"][9] == "– too few"  # all as long as the opponent's
    assert rows["`prompted`"][6].startswith("+0.000 [-0.")
    assert "No `equal length` where it says too few: " in page
    summary = win_table.summarize_rates(found, values.win_rate, "dpo")
    assert summary.keys() == {"win_rate_base"}
    assert 0.5 < summary["win_rate_base"]["low"] < 0.75 < summary["win_rate_base"]["high"] < 1
    assert win_table.summarize_rates(found, values.win_rate, "base") == {}
    assert win_table.render_rates({}, {}, values.metrics, values.scored, values.models, {}) == ""


def test_rows_of_several_languages_name_theirs(chat: Chat) -> None:
    threads = [*THREADS[:12], *(question(number, "it") for number in range(12))]
    found = {"base": rates(knowing, chat, threads)[0]}
    page = win_table.render_rates(found, {"base": ENTRY}, METRICS, {}, {}, {})
    labels = re.findall(r"^\| (`dpo`.*?) \|", page, re.MULTILINE)
    assert labels == [f"`dpo`{what}{code}" for code in ("", " (es)", " (it)") for what in ("", ", other questions")]
