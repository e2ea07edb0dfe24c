"""Judges against people: figures of scikit-learn and scipy, controls in which nothing is to be found, and the limit."""

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from project import ROOT
from scipy import stats

from benchmarks import pandalm
from mothertongue import annotations, diagnostics, threads
from mothertongue.annotations import AnnotatedItem
from mothertongue.errors import BadInput
from mothertongue.judging import agreement, calibration, cards
from mothertongue.judging.agreement import Judged, Ratings
from mothertongue.judging.cards import Card
from mothertongue.measurements import Estimate
from mothertongue.params import Rule
from mothertongue.records import Conversation, Message, Thread, row_id
from mothertongue.verdicts import Verdict

PANDALM = ROOT.parent / "shared/data/pandalm_human_verdicts.jsonl"
needs_pandalm = pytest.mark.skipif(not PANDALM.is_file(), reason="no ../shared/data with PandaLM's verdicts")


def item(identity: str, people: dict[str, Any], answers: Sequence[str] = ("uno", "dos y tres"), **more: Any) -> Any:
    said = [
        {"annotator": name, "scores" if isinstance(given, list) else "preferred": given}
        for name, given in people.items()
    ]
    return {
        "id": identity,
        "language": "es",
        "prompt": [{"role": "user", "content": f"¿Cuál es {identity}?"}],
        "answers": list(answers),
        "annotations": said,
    } | more


def parse(*rows: Any) -> list[AnnotatedItem]:
    return [AnnotatedItem.model_validate_json(json.dumps(row)) for row in rows]


def judge(items: Sequence[AnnotatedItem], scores: Ratings) -> list[Verdict]:
    return [
        Verdict(
            id=row_id(each.id, place, "verdict"),
            thread=each.id,
            answer=row_id(each.id, place),
            judge="rubric",
            outcome="unparsed" if score is None else "score",
            score=score,
            label_mass=None,
        )
        for each in items
        for place, score in enumerate(scores[each.id])
    ]


def cards_of(items: Sequence[AnnotatedItem], scores: Ratings) -> dict[str, Card]:
    return calibration.build_cards(items, judge(items, scores), {"plain"}, 1, " ".join)


@cache
def read_pandalm() -> tuple[list[AnnotatedItem], dict[str, Ratings]]:
    return pandalm.read_verdicts(PANDALM)


@cache
def card_of_pandalm(name: str) -> Card:
    items, scores = read_pandalm()
    (card,) = cards_of(items, scores[name]).values()
    return card


def verdict_of(scores: Sequence[float | None]) -> int | None:
    one, other = scores
    return None if one is None or other is None else int(one > other) - int(one < other)


# accuracy_score and cohen_kappa_score of scikit-learn 1.9.1, which is not installed here because transformers would
# import it in every stage; people's verdicts as they are in the file, and of a judge's those that are 0, 1 or 2.
PEOPLE = {
    "p1 and p2": (0.912913, 0.852023),
    "p1 and p3": (0.928929, 0.878944),
    "p2 and p3": (0.917918, 0.861661),
}
JUDGES = {"gpt-3.5-turbo": (126, 0.739316, 0.522629), "pandalm-7b": (0, 0.667668, 0.435355)}


@needs_pandalm
def test_two_people_agree_as_scikit_learn_says() -> None:
    items, _ = read_pandalm()
    found = calibration.compare_people(calibration.read_people(items, 1, ""), set())
    together = found.pop("people")
    assert found.keys() == PEOPLE.keys()
    for name, (share, kappa) in PEOPLE.items():
        assert found[name]["agreement_ties"].value == pytest.approx(share, abs=1e-6)
        assert found[name]["kappa"].value == pytest.approx(kappa, abs=1e-6)
        assert found[name]["kappa"].n == 999
        assert found[name]["kappa"].groups == 170  # different questions, of up to several pairs of answers
        assert 0.75 < found[name]["kappa"].low < kappa < found[name]["kappa"].high < 0.95
    assert together["kappa"].value == pytest.approx(0.8642, abs=1e-4)
    assert together["kappa"].n == 3 * 999


def _choices(items: Sequence[AnnotatedItem]) -> list[tuple[int, ...]]:
    return [
        tuple(int(each.values[0] - each.values[1]) for each in sorted(row.annotations, key=lambda a: a.annotator))
        for row in items
    ]


@needs_pandalm
@pytest.mark.parametrize("name", JUDGES)
def test_a_judge_agrees_as_scikit_learn_and_scipy_say(name: str) -> None:
    items, scores = read_pandalm()
    rows = [
        (verdict, np.sign(sum(choice)) if abs(sum(choice)) != 1 else sorted(choice)[1], sum(choice) / 3)
        for each, choice in zip(items, _choices(items), strict=True)
        if (verdict := verdict_of(scores[name][each.id])) is not None
    ]
    ours, majority, mean = (np.array(column) for column in zip(*rows, strict=True))
    card = card_of_pandalm(name)
    unscored, share, kappa = JUDGES[name]
    assert (card.items, card.answers, card.unscored, card.pairs) == (999, 1998, unscored, 999)
    found = card.raters["judge"]
    assert found["agreement_ties"].value == pytest.approx(share, abs=1e-6)
    assert found["kappa"].value == pytest.approx(kappa, abs=1e-6)
    assert found["pearson"].value == pytest.approx(stats.pearsonr(ours, mean).statistic)
    assert found["spearman"].value == pytest.approx(stats.spearmanr(ours, mean).statistic)
    assert found["kendall"].value == pytest.approx(stats.kendalltau(ours, mean).statistic)
    decided = majority != 0
    right = np.where(ours[decided] == 0, 0.5, ours[decided] == majority[decided])
    assert found["agreement"].value == pytest.approx(right.mean())
    assert all(each.low < each.value < each.high for name, each in found.items() if name != "unscored")
    assert found["unscored"].value == pytest.approx(unscored / 1998)


@needs_pandalm
@pytest.mark.parametrize("name", ["gpt-3.5-turbo", "pandalm-7b"])
def test_in_shuffled_rows_there_is_no_agreement_beyond_chance(name: str) -> None:
    card = card_of_pandalm(name)
    shuffled, own = card.raters["shuffled"], card.raters["judge"]
    for figure in ("kappa", "pearson", "spearman", "kendall"):
        assert shuffled[figure].low < 0 < shuffled[figure].high
        assert own[figure].low > 0.3
    assert shuffled["agreement"].low < 0.5 < shuffled["agreement"].high
    assert own["agreement"].value > card.raters["longer"]["agreement"].value  # taking the longer answer has 0.68
    assert own["agreement_person"].high < card.people["people"]["agreement"].low


@needs_pandalm
def test_the_table_of_pandalm_has_people_judges_and_controls() -> None:
    items, scores = read_pandalm()
    some = {name: {item.id: each[item.id] for item in items[:60]} for name, each in scores.items()}
    lines = pandalm.render_table(items[:60], some).splitlines()
    assert lines[0].startswith("60 pairs, ")
    assert [line.split(" | ")[0].removeprefix("| ") for line in lines[4:]] == [
        "people", "p1 and p2", "p1 and p3", "p2 and p3", "gpt-3.5-turbo", "pandalm-7b", "control: longer",
        "control: question", "control: random", "gpt-3.5-turbo, shuffled", "pandalm-7b, shuffled",
    ]  # fmt: skip
    (card,) = cards_of(items[:60], some["pandalm-7b"]).values()
    cells = lines[9].split(" | ")
    for place, name in ((2, "agreement"), (3, "agreement_person"), (4, "kappa"), (5, "pearson"), (6, "longer")):
        row = card.raters["judge"][name]
        assert cells[place] == f"{row.value:.3f} [{row.low:.3f}, {row.high:.3f}]"
    assert lines[10].split(" | ")[6].startswith("1.000 [")


def test_a_row_that_is_not_pandalms_is_named(tmp_path: Path) -> None:
    good = {"id": 0, "instruction": "Say yes.", "input": "", "response_1": "Yes.", "response_2": "No.",
            "humans": [1, 1, 0], "judges": {"gpt-3.5-turbo": "none of them", "pandalm-7b": 2}}  # fmt: skip
    path = tmp_path / "verdicts.jsonl"
    path.write_text(json.dumps(good) + "\n", encoding="utf-8")
    (read,), scores = pandalm.read_verdicts(path)
    assert (read.prompt[0].content, [each.preferred for each in read.annotations]) == ("Say yes.", [1, 1, 0])
    assert scores == {"gpt-3.5-turbo": {"0000": [None, None]}, "pandalm-7b": {"0000": [0.0, 1.0]}}
    for wrong in ({**good, "humans": [3]}, {"id": 1}, "[]"):
        path.write_text(f"{json.dumps(good)}\n{json.dumps(wrong)}\n", encoding="utf-8")
        with pytest.raises(
            BadInput, match=r"verdicts\.jsonl:2: not a row of PandaLM's human verdicts \(.*; take its file"
        ):
            pandalm.read_verdicts(path)


def test_agreement_by_hand() -> None:
    """Three pairs on which people prefer an answer: the judge is right on one, wrong on one, and has one tie."""
    items = parse(
        item("a", {"ana": 1, "ben": 1, "eva": 2}),
        item("b", {"ana": 2, "ben": 2}),
        item("c", {"ana": 2, "ben": 0, "eva": 2}),
        item("d", {"ana": 0, "ben": 0}),
        item("e", {"ana": 1, "ben": 2}),  # no majority
        item("f", {"ana": 1}),  # the judge has no score of one of the answers
    )
    scores = {"a": [3, 2], "b": [3, 2], "c": [2, 2], "d": [1, 1], "e": [1, 2], "f": [None, 2]}
    (card,) = cards_of(items, scores).values()
    assert (card.items, card.answers, card.unscored, card.pairs, card.undecided) == (6, 12, 1, 6, 2)
    found = card.raters["judge"]
    assert (found["agreement"].value, found["agreement"].n) == (0.5, 3)
    assert (found["agreement_ties"].value, found["agreement_ties"].n) == (0.5, 4)  # a and d of a, b, c, d
    # a: 1 1 0 (ana, ben right, eva wrong); b: both wrong; c: a tie against two; e: ana wrong, ben right
    assert (found["agreement_person"].value, found["agreement_person"].n) == (pytest.approx((2 + 0 + 1 + 1) / 9), 9)
    assert found["longer"].value == pytest.approx((0 + 0 + 0.5 + 0.5 + 1) / 5)


def test_a_judge_that_looks_at_the_place_is_consistent_in_nothing() -> None:
    """The one comparison of the first item is a flip, and so are two of the three of the second."""
    items = parse(item("a", {"ana": 1}), item("b", {"ana": [3, 2, 1]}, ["uno", "dos", "tres"]), item("c", {"ana": 2}))
    counted = {"a": [(1, 1), (1, 1)], "b": [(2, 1), (2, 1), (2, 2)], "c": [(0, 0), (0, 0)]}
    verdicts = [
        row.model_copy(update={"compared": compared, "flips": flips})
        for row, (compared, flips) in zip(
            judge(items, {name: [0.5] * len(rows) for name, rows in counted.items()}),
            [each for rows in counted.values() for each in rows],
            strict=True,
        )
    ]
    (card,) = calibration.build_cards(items, verdicts, (), 1, " ".join).values()
    found = card.raters["judge"]["swap_consistency"]
    assert (found.value, found.n) == (pytest.approx((0 + 1 / 3) / 2), 2)
    assert "swap_consistency" not in card.raters["longer"]


def test_scores_of_single_answers_are_correlated() -> None:
    """Items with one answer have no pair, and people's scores of them a correlation with the judge's.

    Ana's scale is another than Ben's, and Ben has not judged all.
    """
    draw = np.random.default_rng(1)
    ours = draw.normal(3, 1, size=14)
    ana, ben = ours + draw.normal(0, 0.5, size=14), 20 * ours + draw.normal(0, 10, size=14)
    items = parse(
        *(
            item(f"{n:02}", {"ana": [float(ana[n])], **({"ben": [float(ben[n])]} if n < 9 else {})}, ["uno"])
            for n in range(14)
        )
    )
    (card,) = cards_of(items, {f"{n:02}": [float(score)] for n, score in enumerate(ours)}).values()
    found = card.raters["judge"]
    of_ana, of_ben = (ana - ana.mean()) / ana.std(), (ben[:9] - ben[:9].mean()) / ben[:9].std()
    mean = np.concatenate([(of_ana[:9] + of_ben) / 2, of_ana[9:]])
    assert set(found) == {"pearson", "spearman", "kendall", "unscored"}
    assert found["pearson"].value == pytest.approx(stats.pearsonr(ours, mean).statistic)
    assert found["kendall"].value == pytest.approx(stats.kendalltau(ours, mean).statistic)
    assert found["kendall"].low < found["kendall"].value < found["kendall"].high
    assert card.pairs == 0


def test_a_judge_without_any_score_has_a_card() -> None:
    items = parse(*(item(f"{n}", {"ana": [3, 2, 1]}, ["uno", "dos", "tres"]) for n in range(4)))
    (card,) = cards_of(items, {row.id: [None] * 3 for row in items}).values()
    assert set(card.raters["judge"]) == {"agreement_all", "unscored"}
    assert card.raters["judge"]["unscored"].value == 1


def test_the_interval_of_a_bootstrap_is_that_of_scipy() -> None:
    """But for the resamples that are drawn."""
    draw = np.random.default_rng(5)
    ours = draw.normal(size=80)
    theirs = ours + draw.normal(size=80)
    rows = [Judged(f"{n:02}", float(a), float(b)) for n, (a, b) in enumerate(zip(ours, theirs, strict=True))]
    found = agreement.measure_correlation(rows, 1, "")["pearson"]
    expected = stats.bootstrap(
        (ours, theirs), lambda x, y: stats.pearsonr(x, y).statistic, paired=True, vectorized=False, n_resamples=2000,
        method="BCa", rng=2,
    ).confidence_interval  # fmt: skip
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=0.015)


def test_a_group_counts_as_one_observation() -> None:
    """Twelve items, the same four times over: the interval is that of three."""
    rows = [("a", 1.0), ("b", 1.0), ("c", 0.0)] * 4
    found = agreement.estimate_share(rows, "")
    once = agreement.estimate_share(rows[:3], "")
    assert (found.value, found.groups, found.n) == (once.value, 3, 12)
    assert (found.low, found.high) == pytest.approx((once.low, once.high))
    assert parse(item("a", {"ana": 1}))[0].group != parse(item("b", {"ana": 1}))[0].group

    def ask(*turns: tuple[str, str]) -> str:
        return parse(item("a", {"ana": 1}, prompt=[{"role": role, "content": text} for role, text in turns]))[0].group

    start = ("system", "Eres un asistente.")
    assert ask(start, ("user", "Hola.")) == ask(("user", "¡hola!")) != ask(start, ("user", "Adiós."))


@pytest.mark.parametrize("values", [[1.0] * 5, [0.5] * 12, [0.5, 1.0, 1.0], [1.0] * 19 + [0.5]])
def test_no_share_is_certain(values: list[float]) -> None:
    """Neither where all is agreed on, nor where a judge has ties only; and a tie makes no bound better."""
    found = agreement.estimate_share([(str(n), value) for n, value in enumerate(values)], "")
    better = agreement.estimate_share([(str(n), 1.0) for n in range(len(values))], "")
    assert found.low < found.value
    assert found.low <= better.low


def test_a_judge_that_prefers_its_own_models_answers() -> None:
    items = parse(
        item("a", {"ana": 2, "ben": 2}, origins=["plain", "reference"]),
        item("b", {"ana": 2}, origins=["other", "plain"]),
        item("c", {"ana": 1}, origins=["other", "reference"]),  # none of them is its own
        item("d", {"ana": 1}),  # nobody knows
    )
    (card,) = cards_of(items, {"a": [3, 1], "b": [1, 2], "c": [1, 2], "d": [1, 2]}).values()
    assert (card.raters["judge"]["own"].value, card.raters["judge"]["own"].n) == (1, 2)
    assert (card.people["people"]["own"].value, card.people["people"]["own"].n) == (0.5, 2)


def test_shuffled_ratings_are_of_another_question_and_in_another_order() -> None:
    items = parse(
        item("lone", {"ana": [3, 2, 1]}, ["uno", "dos", "tres"]),
        *(item(f"{n:02}", {"ana": 1}) for n in range(40)),
    )
    ratings: dict[str, Sequence[float | None]] = {row.id: [2.0, 1.0] for row in items[1:]} | {"lone": [3.0, 2.0, 1.0]}
    people = calibration.read_people(items, 1, "")
    shuffled = calibration.build_controls(people, ratings)["shuffled"]
    assert shuffled["lone"] == [None, None, None]
    orders = [tuple(shuffled[row.id]) for row in items[1:]]
    assert {(2.0, 1.0), (1.0, 2.0)} == set(orders)
    assert 10 <= orders.count((2.0, 1.0)) <= 30
    (card,) = cards_of(items, ratings).values()
    assert card.raters["judge"]["agreement"].value == 1
    assert card.raters["shuffled"]["agreement"].low < 0.5 < card.raters["shuffled"]["agreement"].high


def test_reliability_puts_equal_distances_into_one_bin() -> None:
    items = parse(*(item(f"{n:02}", {"ana": 1}) for n in range(20)))
    distances = [1] * 8 + [2] * 8 + [3, 4, 5, 6]
    wrong = {0, 1, 2, 3, 8}
    scores: dict[str, Sequence[float | None]] = {
        f"{n:02}": [-gap, 0] if n in wrong else [gap, 0] for n, gap in enumerate(distances)
    }
    (card,) = cards_of(items, scores).values()
    assert [(row.distance, row.agreement, row.pairs) for row in card.reliability] == [
        (1, 0.5, 8),
        (2, 0.875, 8),
        (4.5, 1, 4),
    ]
    lines = cards.render_reliability({"es": card}).splitlines()
    assert lines[0] == "distance,agreement,low,high,pairs"
    assert lines[1].startswith("1,0.5000,0.2")
    assert cards.render_reliability({}).splitlines()[1] == "NaN,NaN,NaN,NaN,0"


@pytest.mark.parametrize(("count", "kappa", "rows_each"), [(60, 0.5, 1), (12, 0.5, 1), (12, 0.9, 1), (12, 0.9, 6)])
def test_the_interval_of_kappa_holds_the_truth(
    monkeypatch: pytest.MonkeyPatch, count: int, kappa: float, rows_each: int
) -> None:
    """Of 100 samples it misses it in at most 5 + 3 standard deviations."""
    monkeypatch.setattr(agreement, "RESAMPLES", 400)
    draw = np.random.default_rng(3)
    missed = 0
    for _ in range(100):
        theirs = draw.choice([-1, 1], size=count)
        ours = np.where(draw.random(count) < kappa, theirs, draw.choice([-1, 1], size=count))
        rows = [Judged(f"{n:02}", float(a), float(b)) for n, (a, b) in enumerate(zip(ours, theirs, strict=True))]
        found = agreement.measure_agreement(rows * rows_each, 1, "").get("kappa")
        missed += found is None or not found.low <= kappa <= found.high
    assert missed <= 12


def test_judges_that_always_say_the_same() -> None:
    items = parse(*(item(f"{n:02}", {"ana": 1 + n % 2}) for n in range(12)))
    (card,) = cards_of(items, {row.id: [1, 1] for row in items}).values()
    found = card.raters["judge"]
    assert (found["agreement"].value, "agreement_decided" in found) == (0.5, False)  # ties alone
    assert found["agreement"].low < 0.3
    assert found["kappa"].value == 0
    assert found["kappa"].low < 0 < found["kappa"].high
    assert "pearson" not in found
    assert card.reliability == []


def test_a_perfect_correlation_has_no_interval() -> None:
    items = parse(*(item(f"{n:02}", {"ana": 1 + n % 2}) for n in range(12)))
    (card,) = cards_of(items, {row.id: [1 - n % 2, n % 2] for n, row in enumerate(items)}).values()
    found = card.raters["judge"]
    assert not {"pearson", "spearman", "kendall"} & set(found)
    assert (found["kappa"].value, found["kappa"].low < 0.9) == (1, True)


def test_few_groups_have_no_bootstrap() -> None:
    items = parse(*(item(f"{n:02}", {"ana": 1 + n % 2}) for n in range(9)))
    (card,) = cards_of(items, {row.id: [1 - n % 2, n % 2] for n, row in enumerate(items)}).values()
    assert set(card.raters["judge"]) & {"kappa", "pearson"} == set()
    assert card.raters["judge"]["agreement"].value == 1


@pytest.mark.parametrize(
    ("row", "what"),
    [
        (item("a", {"ana": 3}), "annotations.0.preferred: input should be less than or equal to 2, got 3; fix the row"),
        (item("a", {"ana": [1.0]}), "row: 'ana' judges 1 answers, and there are 2, got "),
        (item("a", {"ana": 1}, ["uno"]), "row: 'ana' judges 2 answers, and there are 1, got "),
        (item("a", {}), "item 'a': nobody has judged it; add an annotation, or delete it"),
        (item("a", {"ana": 1}, language="xx"), "item 'a': unknown language 'xx'; take one of "),
        (item("a", {"ana": 1}, annotations=[{"annotator": "ana"}]), "row: 'ana' should have either scores or "),
        (item("a", {"ana": 1}, annotations=[{"annotator": "ana", "preferred": 1}] * 2), "row: an annotator is there "),
        (item("a", {"ana": 1}, prompt=[{"role": "assistant", "content": "Sí."}]), "row: the prompt should end with a "),
    ],
)
def test_a_row_that_is_wrong(row: Any, what: str, tmp_path: Path) -> None:
    (tmp_path / "mine.jsonl").write_text(json.dumps(row), encoding="utf-8")
    with pytest.raises(BadInput) as error:
        annotations.read_items(tmp_path)
    assert what in str(error.value)
    assert str(error.value).startswith(f"{tmp_path}/mine.jsonl:")


def test_one_person_under_two_names_is_refused(tmp_path: Path) -> None:
    """Such a pair of people would agree with themselves, and raise the ceiling."""
    for name, person in (("a.jsonl", "Ana"), ("b.jsonl", " ana"), ("c.jsonl", "anna")):
        (tmp_path / name).write_text(json.dumps(item("1", {person: 1})), encoding="utf-8")
    with pytest.raises(BadInput, match="annotators ' ana' and 'Ana' differ in capitals or spaces alone; write one"):
        annotations.read_items(tmp_path)
    (tmp_path / "b.jsonl").unlink()
    assert len(annotations.read_items(tmp_path)[0].annotations) == 2


def test_items_of_all_files_are_put_together(tmp_path: Path) -> None:
    for name, identity in (("b.jsonl", "1"), ("a.jsonl", "2"), (".c.jsonl", "3")):
        (tmp_path / name).write_text(json.dumps(item(identity, {"ana": 1})), encoding="utf-8")
    (tmp_path / "c.jsonl").write_text(json.dumps(item("2", {"ben": 0})), encoding="utf-8")
    for name in ("README.md", "a.jsonl~"):
        (tmp_path / name).write_text("?", encoding="utf-8")
    found = annotations.read_items(tmp_path)
    assert [(row.id, [each.annotator for each in row.annotations]) for row in found] == [
        ("1", ["ana"]),
        ("2", ["ana", "ben"]),
    ]
    for again, what in (
        (item("2", {"ben": 1}), "'ben' has judged it in a file before; delete one of them"),
        (item("2", {"eva": 1}, ["uno", "dos"]), "another item of a file before has this id; change one of them"),
    ):
        (tmp_path / "d.jsonl").write_text(json.dumps(again), encoding="utf-8")
        with pytest.raises(BadInput) as error:
            annotations.read_items(tmp_path)
        assert str(error.value) == f"{tmp_path}/d.jsonl: item '2': {what}"


def card_with(low: float, value: float = 0.7) -> Card:
    row = Estimate(value=value, low=low, high=0.9, n=40, groups=40, kind="share", signature="")
    return Card(
        items=40,
        answers=80,
        unscored=0,
        pairs=40,
        undecided=2,
        raters={"judge": {"agreement": row, "agreement_all": row}},
        people={"people": {"agreement": row}},
        sides={},
        reliability=[],
    )


RULE = Rule(name="best_over_worst", chosen="best", rejected="worst", judge="rubric", min_margin=0)
ASSUMED = RULE.model_copy(update={"name": "assumed", "judge": "assumption"})


def test_a_judge_under_min_agreement_makes_no_pairs() -> None:
    found = {"rubric": {"es": card_with(0.54)}}
    with pytest.raises(BadInput) as error:
        cards.check_agreement(found, [ASSUMED, RULE], ["es"], 0.55)
    assert str(error.value) == (
        "pairs.rules: best_over_worst: judge rubric agrees with people on 0.70 [0.54, 0.90] of 40 pairs (es), and the"
        " lower bound is under calibrated.min_agreement 0.55; take another judge, or have more answers annotated"
    )
    without = [RULE.model_copy(update={"name": name, "judge": name}) for name in ("people", "chrf")]
    agreed = cards.check_agreement(found, [ASSUMED, *without, RULE], ["es", "it"], 0.54)
    assert agreed == {
        "assumed": {},
        "people": {},
        "chrf": {},
        "best_over_worst": {"es": found["rubric"]["es"], "it": None},
    }
    assert (
        cards.describe_missing(RULE, agreed["best_over_worst"])
        == "; the judge is not calibrated on generated pairs (it)"
    )
    assert cards.describe_missing(ASSUMED, agreed["assumed"]) == ""


def test_the_judge_that_agrees_best_with_people_ranks_where_a_rule_leaves_it_to_them() -> None:
    rule = RULE.model_copy(update={"judge": "calibrated"})

    def choose(found: dict[str, dict[str, Card]]) -> str:
        named, chosen = cards.choose_judges(found, [RULE, rule], ["es", "it"])
        assert named == RULE
        assert chosen == RULE.model_copy(update={"judge": chosen.judge})
        return chosen.judge

    low, middle, high = (card_with(bound) for bound in (0.51, 0.56, 0.61))
    assert choose({"first": {}, "second": {}}) == "first"  # people have judged nothing
    assert choose({"first": {"es": middle}, "second": {"es": high}, "third": {"es": middle}}) == "second"
    assert choose({"first": {"es": high, "it": low}, "second": {"es": middle, "it": middle}}) == "second"
    assert choose({"first": {"es": middle}, "second": {"es": middle}}) == "first"
    assert choose({"first": {"de": high}, "second": {"es": low}}) == "second"  # nobody's threads are in German
    mute = {"agreement": high.raters["judge"]["agreement"], "agreement_all": low.raters["judge"]["agreement"]}
    picky = high.model_copy(update={"raters": {"judge": mute}})
    assert choose({"first": {"es": picky}, "second": {"es": middle}}) == "second"  # not to answer is no advantage
    silent = high.model_copy(update={"raters": {"judge": {}}})
    assert choose({"first": {"es": silent}, "second": {"es": low}}) == "second"
    # people have judged no pair like the rule's in Italian, or in no language: then all pairs count
    wrong, right = (dict.fromkeys(("expert", "generated"), card.raters) for card in (low, high))
    found = {
        name: {
            "es": card.model_copy(update={"sides": sides}),
            "it": card.model_copy(update={"sides": {"expert": sides["expert"]}}),
        }
        for name, card, sides in (("first", low, wrong), ("second", high, right))
    }
    assert choose(found) == "second"
    assert choose({name: {"it": row["it"]} for name, row in found.items()}) == "second"


def test_two_rules_that_are_the_same_once_the_judge_is_chosen_are_refused() -> None:
    rules = [RULE, RULE.model_copy(update={"name": "other", "judge": "calibrated"})]
    assert cards.choose_judges({"rubric": {}, "a": {}}, rules, ["es"])[1].judge == "a"
    with pytest.raises(BadInput, match=f"{RULE.name} and other are the same rule, both by judge rubric; delete one"):
        cards.choose_judges({"rubric": {}}, rules, ["es"])


def test_a_rule_is_gated_by_pairs_like_its_own() -> None:
    """A judge that tells the expert from a model, and no model from another, ranks no models."""
    rows = card_with(0.7).raters, card_with(0.45).raters
    card = card_with(0.6).model_copy(update={"sides": {"expert": rows[0], "generated": rows[1]}})
    expert = RULE.model_copy(update={"name": "expert", "chosen": "reference"})
    agreed = cards.check_agreement({"rubric": {"es": card}}, [expert], ["es"], 0.55)["expert"]["es"]
    assert agreed
    assert agreed.raters["judge"]["agreement"].low == 0.7
    for rule in (RULE, expert.model_copy(update={"min_margin": None})):  # whose judge finds the worst of models only
        with pytest.raises(BadInput, match=r"on 0\.70 \[0\.45, 0\.90\] of 40 generated pairs \(es\), and the lower"):
            cards.check_agreement({"rubric": {"es": card}}, [rule], ["es"], 0.55)
    card = card.model_copy(update={"sides": {"expert": rows[0]}})
    agreed_of = cards.check_agreement({"rubric": {"es": card}}, [RULE], ["es"], 0.55)["best_over_worst"]
    assert cards.describe_missing(RULE, agreed_of) == "; the judge is not calibrated on generated pairs (es)"
    # nothing is known of its own kind, and what is known is that it does not agree
    card = card_with(0.3).model_copy(update={"sides": {"expert": card_with(0.3).raters}})
    with pytest.raises(BadInput, match=r"on 0\.70 \[0\.30, 0\.90\] of 40 pairs \(es\), and the lower bound .*origins"):
        cards.check_agreement({"rubric": {"es": card}}, [RULE], ["es"], 0.55)


def test_rows_without_origins_count_beside_rows_with_them() -> None:
    """A judge that is wrong on most pairs does not pass because one more pair has origins."""
    items = parse(
        *(item(f"{n:03}", {"ana": 1}) for n in range(100)),
        *(item(f"x{n}", {"ana": 1}, origins=["reference", "plain"]) for n in range(12)),
    )
    scores: dict[str, Sequence[float | None]] = {f"{n:03}": [0.0, 1.0] if n < 80 else [1.0, 0.0] for n in range(100)}
    card = cards_of(items, scores | {f"x{n}": [1.0, 0.0] for n in range(12)})["es"]
    assert {kind: row["judge"]["agreement"].n for kind, row in card.sides.items()} == {"expert": 12}
    expert = RULE.model_copy(update={"chosen": "reference"})
    for rule, words in ((RULE, ""), (expert, ", with those of unknown origin")):
        kind = " expert" if words else ""
        with pytest.raises(BadInput, match=rf"on 0\.29 .* of 112{kind} pairs \(es\){words}, and the lower bound"):
            cards.check_agreement({"rubric": {"es": card}}, [rule], ["es"], 0.55)


def test_many_rows_without_origins_do_not_make_up_for_pairs_like_the_rules() -> None:
    items = parse(
        *(item(f"{n:03}", {"ana": 1}) for n in range(200)),
        *(item(f"x{n:02}", {"ana": 1}, origins=["other", "plain"]) for n in range(40)),
    )
    scores: dict[str, Sequence[float | None]] = {f"{n:03}": [1.0, 0.0] for n in range(200)}
    card = cards_of(items, scores | {f"x{n:02}": [1.0, 0.0] if n < 12 else [0.0, 1.0] for n in range(40)})["es"]
    assert card.sides["generated"]["judge"]["with_unknown"].low > 0.55
    with pytest.raises(BadInput, match=r"on 0\.30 .* of 40 generated pairs \(es\), and the lower bound"):
        cards.check_agreement({"rubric": {"es": card}}, [RULE], ["es"], 0.55)


def test_a_judge_that_never_prefers_what_a_rule_chooses_is_not_calibrated_on_it() -> None:
    items = parse(*(item(f"{n:03}", {"ana": 2 if n < 95 else 1}, origins=["reference", "own"]) for n in range(100)))
    card = cards_of(items, {f"{n:03}": [0.0, 1.0] for n in range(100)})["es"]
    rule = RULE.model_copy(update={"chosen": "reference", "rejected": "own"})
    agreed = cards.check_agreement({"rubric": {"es": card}}, [rule], ["es"], 0.55)
    said = "people have judged no pair in which the judge prefers what the rule chooses (es)"
    assert said in cards.describe_missing(rule, agreed[rule.name])
    assert diagnostics._find_noise(cards.select_card(card, rule), rule) is None
    assert said not in cards.describe_missing(RULE, agreed[rule.name])


def test_a_rule_is_held_against_the_pairs_in_which_the_judge_prefers_what_it_chooses() -> None:
    """People prefer the expert in 95 of 100, the judge the model in 10 of these: all that one rule makes is wrong."""
    origins = ["reference", "own"]
    items = parse(*(item(f"{n:03}", {"ana": 1 if n < 95 else 2}, origins=origins) for n in range(100)))
    card = cards_of(items, {f"{n:03}": [0.0, 1.0] if n < 10 else [1.0, 0.0] for n in range(100)})["es"]
    found = {"rubric": {"es": card}}
    over, under = (
        RULE.model_copy(update={"name": name, "chosen": chosen, "rejected": rejected})
        for name, chosen, rejected in (("over", "reference", "own"), ("under", "own", "reference"))
    )
    assert cards.check_agreement(found, [over], ["es"], 0.55)["over"]["es"]
    with pytest.raises(BadInput) as error:
        cards.check_agreement(found, [under], ["es"], 0.55)
    assert str(error.value) == (
        "pairs.rules: under: judge rubric prefers what the rule chooses, and people do as well in 0.00 [0.00, 0.28] of"
        " 10 expert pairs (es), and the lower bound is under calibrated.min_agreement 0.55; take another judge, or have"
        " more answers annotated"
    )
    noise = [diagnostics._find_noise(cards.select_card(card, rule), rule) for rule in (over, under)]
    assert [(row.value, row.n) for row in noise if row] == [(pytest.approx(5 / 90), 90), (1.0, 10)]


def test_questions_of_split_test_choose_no_judge() -> None:
    items = parse(item("1", {"ana": 1}), item("2", {"ana": 1}))
    asked = Thread(
        id="t", conversation="c", language="es", group=row_id("cuál es 2"), split="test",
        prompt=[Message(role="user", content="Cuál es 2")], reference="dos",
    )  # fmt: skip
    assert (
        threads.opening_words(
            Conversation(id="c", source="s", language="es", messages=[Message(role="user", content="¿Cuál ES 2?")])
        )
        == "cuál es 2"
    )
    assert calibration.leave_out_test(items, [asked]) == (items[:1], 1)
    assert calibration.leave_out_test(items, [asked.model_copy(update={"split": "train"})]) == (items, 0)


def test_a_question_in_two_languages_is_one_group() -> None:
    items = parse(*(item("1", {"ana": 1}, language=code) for code in ("es", "it")))
    assert len({each.group for each in items}) == 1


def test_a_card_is_signed_with_what_people_said() -> None:
    one, other = (
        cards_of(parse(item("1", {name: 1})), {"1": [1.0, 0.0]})["es"].raters["judge"]["agreement"].signature
        for name in ("ana", "ben")
    )
    assert one != other
    assert json.loads(one)["judge"] == "es"


def test_the_words_on_agreement_say_what_has_no_score() -> None:
    items = parse(*(item(f"{n}", {"ana": 1}, origins=["reference", "own"]) for n in range(4)))
    card = cards_of(items, {"0": [1.0, 0.0], "1": [1.0, 0.0], "2": [1.0, None], "3": [1.0, None]})
    assert cards.describe_agreement(card) == (
        "agreement es 1.000 [0.342, 1.000] of 2, es expert 1.000 [0.342, 1.000] of 2, 2 of 8 answers without a score:"
        " with such pairs as half a pair 0.750 [0.291, 1.000] of 4"
    )


@pytest.mark.parametrize(("pairs", "agreement_"), [(25, 0.76), (50, 0.70), (100, 0.65), (200, 0.62)])
def test_the_agreement_that_a_judge_needs(pairs: int, agreement_: float) -> None:
    """Of docs/guide.md: with one pair less the lower bound is under 0.55."""
    right = round(pairs * agreement_)
    for count, passes in ((right, True), (right - 1, False)):
        rows = [(str(place), float(place < count)) for place in range(pairs)]
        assert (agreement.estimate_share(rows, "").low >= 0.55) == passes


def test_a_judge_that_is_no_better_than_one_that_counts_words_is_named() -> None:
    """By the difference over the same pairs: people prefer the longer answer in half of them."""
    texts = [("uno", "dos y tres"), ("uno y dos", "tres")]
    for right, said in ((70, "; not shown to agree more than `longer`, 0.58 (es)"), (96, "")):
        items = parse(*(item(f"{n:03}", {"ana": 1}, texts[n % 12 < 7]) for n in range(120)))
        card = cards_of(items, {f"{n:03}": [1.0, 0.0] if n < right else [0.0, 1.0] for n in range(120)})["es"]
        found = card.raters["judge"]["over_longer"]
        longer = card.raters["longer"]["agreement"].value
        assert found.value == pytest.approx((1 + right / 120 - longer) / 2)
        missing = [part for part in cards.describe_missing(RULE, {"es": card}).split("; ") if "longer" in part]
        assert missing == ([said.removeprefix("; ")] if said else [])


def test_pairs_that_people_call_equal_are_no_pairs_of_a_kind() -> None:
    """They would else close the gate, and take the choice from the pairs that say something."""
    items = parse(
        *(item(f"{n:03}", {"ana": 1}, origins=["own", "other"]) for n in range(40)),
        *(item(f"x{n}", {"ana": 0}, origins=["reference", "own"]) for n in range(2)),
    )
    found = {
        name: cards_of(
            items,
            {f"{n:03}": [1.0, 0.0] if n < right else [0.0, 1.0] for n in range(40)}
            | {f"x{n}": [1, 0] for n in range(2)},
        )
        for name, right in (("a", 24), ("b", 36))
    }
    assert set(found["b"]["es"].sides) == {"generated"}
    rule = RULE.model_copy(update={"chosen": "reference", "rejected": "own", "judge": "calibrated"})
    (chosen,) = cards.choose_judges(found, [rule], ["es"])
    assert chosen.judge == "b"
    agreed = cards.check_agreement(found, [chosen], ["es"], 0.55)[rule.name]
    assert cards.describe_missing(chosen, agreed).startswith("; the judge is not calibrated on expert pairs (es)")
    assert diagnostics._find_noise(agreed["es"], chosen) is None


def test_the_judge_is_chosen_by_all_that_it_is_held_against() -> None:
    items = parse(
        *(item(f"{n:03}", {"ana": 1}, origins=["own", "other"]) for n in range(60)),
        *(item(f"x{n:03}", {"ana": 1}) for n in range(200)),
    )

    def scores(known: int, unknown: int) -> Ratings:
        found: dict[str, Sequence[float | None]] = {}
        for mark, count, right in (("", 60, known), ("x", 200, unknown)):
            found |= {f"{mark}{n:03}": [1.0, 0.0] if n < right else [0.0, 1.0] for n in range(count)}
        return found

    found = {"a": cards_of(items, scores(57, 80)), "b": cards_of(items, scores(54, 180))}
    rule = RULE.model_copy(update={"judge": "calibrated"})
    (chosen,) = cards.choose_judges(found, [rule], ["es"])
    assert chosen.judge == "b"
    assert cards.check_agreement(found, [chosen], ["es"], 0.55)[rule.name]["es"]


def test_a_control_is_compared_and_shown_over_the_pairs_that_the_judge_scored() -> None:
    """The longer answer is right in these fifty, and wrong in the hundred others."""
    texts = [("uno", "dos y tres"), ("uno y dos", "tres")]
    items = parse(*(item(f"{n:03}", {"ana": 1}, texts[n < 50]) for n in range(150)))
    scored: dict[str, Sequence[float | None]] = {f"{n:03}": [None, None] for n in range(50, 150)}
    card = cards_of(items, scored | {f"{n:03}": [1.0, 0.0] if n < 46 else [0.0, 1.0] for n in range(50)})["es"]
    said = cards.describe_missing(RULE, {"es": card})
    assert "; not shown to agree more than `longer`, 1.00 (es)" in said
    assert said.startswith("; no score for 200 of 300 answers that people have judged (es)")
    # the same where the judge is held against pairs of another kind
    other = card.model_copy(update={"sides": {"expert": card.raters}})
    agreed = cards.check_agreement({"rubric": {"es": other}}, [RULE], ["es"], 0.5)[RULE.name]
    assert cards.describe_missing(RULE, agreed) == f"; the judge is not calibrated on generated pairs (es){said}"


def test_a_judge_without_scores_is_named() -> None:
    card = card_with(0.6).model_copy(update={"unscored": 7})
    said = "; no score for 7 of 80 answers that people have judged (es)"
    assert cards.describe_missing(RULE, {"es": card}) == said


def test_agreement_by_what_is_compared() -> None:
    """The judge always prefers the expert, as people do, and of two models the one that people do not prefer."""
    origins = [["reference", "plain"]] * 6 + [["plain", "other"]] * 4
    items = parse(*(item(str(n), {"ana": 1}, origins=each) for n, each in enumerate(origins)))
    scores: dict[str, list[float | None]] = {str(n): [5.0, 1.0] if n < 6 else [1.0, 5.0] for n in range(10)}
    card = cards_of(items, scores)["es"]
    found = {kind: (row["judge"]["agreement"].value, row["judge"]["agreement"].n) for kind, row in card.sides.items()}
    assert found == {"expert": (1.0, 6), "generated": (0.0, 4)}
    assert card.raters["judge"]["agreement"].value == 0.6
    assert set(card.sides["expert"]) == {"judge", "random", "longer", "question", "shuffled"}
    card = cards_of(items, scores | {"0": [5.0, None]})["es"]
    assert card.sides["expert"]["judge"]["agreement"].n == 5
    assert card.sides["expert"]["judge"]["agreement_all"].value == pytest.approx(5.5 / 6)


def test_a_judge_that_cannot_be_compared_makes_no_pairs() -> None:
    """People have judged answers, and nothing follows for the judge: that is not the same as no people."""
    card = card_with(0.9).model_copy(update={"raters": {"judge": {}}, "unscored": 80})
    with pytest.raises(BadInput) as error:
        cards.check_agreement({"rubric": {"es": card}}, [RULE], ["es"], 0)
    assert str(error.value) == (
        "pairs.rules: best_over_worst: judge rubric cannot be compared with people (es): of 80 answers it has no score"
        " for 80, and in 2 of 40 pairs most people prefer neither, or there is no majority; take another judge, or have"
        " more pairs annotated"
    )


def test_the_report_shows_people_beside_the_judge_and_who_is_not_calibrated() -> None:
    page = cards.render_cards({"rubric": {"es": card_with(0.6)}, "second": {}})
    assert page.startswith("Not calibrated, as people have judged nothing in data/human: `second`.\n")
    assert "| `rubric` (es) | judge | 40 (40) | 0.700 [0.600, 0.900] | – |" in page
    assert "| `rubric` (es) | people | 40 (40) | – | 0.700 [0.600, 0.900] | – |" in page
    assert cards.render_cards({"second": {}}).count("|") == 0
    page = cards.render_cards({"second": {}}, 3)
    assert page.startswith(
        "Not calibrated, as people have judged nothing in data/human but 3 items on questions of split"
    )
    page = cards.render_cards({"rubric": {"es": card_with(0.6)}}, 3)
    assert page.startswith("Of what people have judged, 3 items on questions of split test are left out.\n")
    card = card_with(0.6).model_copy(update={"sides": {"expert": card_with(0.8).raters}})
    assert "| `rubric` (es) | judge, expert | 40 (40) | 0.700 [0.800, 0.900] | – |" in cards.render_cards(
        {"rubric": {"es": card}}
    )


def test_a_table_in_the_folder_of_rows_is_refused(tmp_path: Path) -> None:
    (tmp_path / "ana.tsv").write_text("id\tpreferred\n", encoding="utf-8")
    with pytest.raises(BadInput, match=r"ana\.tsv: no \.jsonl file; read a table in with stages\.annotate"):
        annotations.read_items(tmp_path)


def test_the_rows_in_the_readme_of_the_folder_are_rows() -> None:
    text = (ROOT / "data/human/README.md").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line.startswith("{")]
    assert [len(row.answers) for row in parse(*map(json.loads, lines))] == [2, 3]
