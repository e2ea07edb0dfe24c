"""Pairs before training: figures computed by hand, and limits on them."""

from pathlib import Path
from typing import Any

import pytest

from mothertongue import diagnostics
from mothertongue.diagnostics import RulePairs
from mothertongue.errors import BadInput
from mothertongue.judging.cards import Card
from mothertongue.measurements import Estimate
from mothertongue.params import Pairs, Rule
from mothertongue.records import Lineage, Message, Pair, RowCounts, Split, Thread
from mothertongue.rows import write_json

RULE = Rule(name="r", chosen="best", rejected="worst", judge="j", min_margin=0)
SHORT, LONG = "Está en la plaza mayor.", "Está en la plaza mayor, junto al museo de la ciudad."
ENGLISH = "It is in the main square, next to the museum."


def thread(number: int) -> Thread:
    prompt = [Message(role="user", content="¿Dónde está?")]
    return Thread(
        id=f"t{number}",
        conversation="c",
        language="es",
        group=f"g{number}",
        split="train",
        prompt=prompt,
        reference=None,
    )


def pair(number: int, chosen: str, rejected: str, margin: float | None = None, split: Split = "train") -> Pair:
    sides = [
        Lineage(answer=f"{number}{name}", generator=name, finish="stop", score=score)
        for name, score in (("plain", margin), ("other", None if margin is None else 0.0))
    ]
    return Pair(
        id=f"p{number}",
        thread=f"t{number}",
        language="es",
        split=split,
        rule="r",
        judge="j",
        prompt=thread(number).prompt,
        chosen=[Message(role="assistant", content=chosen)],
        rejected=[Message(role="assistant", content=rejected)],
        chosen_from=sides[0],
        rejected_from=sides[1],
    )


def describe(*pairs: Pair, people: dict[str, Card | None] | None = None) -> RulePairs:
    counts = RowCounts(total=9, kept=len(pairs), dropped={})
    threads = [thread(number) for number in range(9)]
    return diagnostics.describe_pairs(
        pairs, [], {"r": counts}, [RULE], threads, {"c": "a file"}, {"r": people or {}}, {"r": 0}
    )["r"]


PAIRS = (
    pair(0, LONG, SHORT, 1.0),
    pair(1, LONG, ENGLISH, 3.0),
    pair(2, SHORT, LONG, 2.0),
    pair(3, SHORT, "Está en la plaza, señor.", 0.5),  # as many words
    pair(4, LONG, SHORT, 9.0, split="test"),  # counted, and not looked at
)


def test_lengths_margins_languages_and_likeness_by_hand() -> None:
    found = describe(*PAIRS)
    assert (found.judge, found.languages, found.chosen_from, found.rejected_from) == (
        "j",
        {"es": 5},
        {"plain": 5},
        {"other": 5},
    )
    assert {name: split.pairs for name, split in found.splits.items()} == {"train": 4, "test": 1}
    train = found.train
    assert train
    assert (train.words.chosen, train.words.rejected) == ((11 + 11 + 5 + 5) / 4, (5 + 10 + 11 + 5) / 4)
    assert train.longer_chosen
    assert (train.longer_chosen.value, train.longer_chosen.n) == (pytest.approx(2 / 3), 3)
    assert (train.right_language.chosen, train.right_language.rejected) == (1, 0.75)
    assert train.margin
    assert train.margin.model_dump() == pytest.approx({"mean": 1.625, "p10": 0.65, "p50": 1.5, "p90": 2.7})
    assert train.near_copies == 0
    assert 10 < train.similarity.p10 < train.similarity.p90 < 80


def test_pairs_are_counted_by_source() -> None:
    threads = [thread(0), thread(1), thread(2).model_copy(update={"conversation": "d"})]
    counts = {"r": RowCounts(total=3, kept=3, dropped={})}
    rows = [pair(n, LONG, SHORT) for n in range(3)]
    found = diagnostics.describe_pairs(
        rows, [], counts, [RULE], threads, {"c": "ours", "d": "theirs"}, {"r": {}}, {"r": 0}
    )
    assert found["r"].sources == {"ours": 2, "theirs": 1}
    assert "By source, of all splits: `r` ours 2, theirs 1.\n" in diagnostics.render_pairs(found)
    assert "By source" not in diagnostics.render_pairs({"r": describe(*PAIRS)})


def test_near_copies_are_counted() -> None:
    found = describe(pair(0, LONG, LONG.replace("ciudad", "ciudades")), pair(1, LONG, ENGLISH))
    assert found.train
    assert found.train.near_copies == 1
    assert found.train.margin is None


def test_a_rule_without_pairs_in_train_has_no_figures() -> None:
    assert describe(PAIRS[4]).train is None
    assert describe().splits == {}


def test_label_noise_is_what_people_do_not_agree_with() -> None:
    agreed = Estimate(value=0.7, low=0.6, high=0.75, n=40, groups=40, kind="share", signature="")
    raters = {"judge": {"agreement": agreed.model_copy(update={"value": 0.6}), "agreement_decided": agreed}}
    card = Card(
        items=40,
        answers=80,
        unscored=0,
        pairs=40,
        undecided=0,
        raters=raters,
        people={"people": {}},
        sides={},
        reliability=[],
    )
    noise = describe(*PAIRS, people={"es": card, "it": None}).label_noise
    assert noise["it"] is None
    assert noise["es"]
    assert (noise["es"].value, noise["es"].low, noise["es"].high) == pytest.approx((0.3, 0.25, 0.4))


@pytest.mark.parametrize(("limit", "stopped"), [(None, False), (0.67, False), (0.66, True)])
def test_pairs_that_would_teach_length_stop_the_run(limit: float | None, stopped: bool) -> None:
    params = Pairs(rules=[RULE], max_cut_rejected=1.0, max_longer_chosen=limit)
    found = {"r": describe(*PAIRS)}
    if not stopped:
        diagnostics.check_limits(found, params)
        return
    with pytest.raises(BadInput) as error:
        diagnostics.check_limits(found, params)
    assert str(error.value).startswith("pairs.rules: r: in 0.67 [0.")
    assert str(error.value).endswith(
        "] of 3 pairs the chosen side is the longer one, over pairs.max_longer_chosen 0.66, so that length would be"
        " learned; lower pairs.max_length_ratio, or take another rule"
    )


def test_a_rule_that_nothing_learns_is_described_by_what_it_would_give() -> None:
    counts = {"r": RowCounts(total=9, kept=0, dropped={})}
    threads = [thread(number) for number in range(9)]
    found = diagnostics.describe_pairs([], PAIRS, counts, [RULE], threads, {"c": "a file"}, {"r": {}}, {"r": 0})["r"]
    assert found.train == describe(*PAIRS).train
    assert found.splits == {}
    limited = Pairs(rules=[RULE], max_cut_rejected=1.0, max_longer_chosen=0.0)
    diagnostics.check_limits({"r": found}, limited)  # it would stop what learns from them
    with pytest.raises(BadInput, match="length would be learned"):
        diagnostics.check_limits({"r": describe(*PAIRS)}, limited)


def test_histograms_count_every_pair_of_split_train() -> None:
    found = diagnostics.render_histograms(PAIRS, [RULE])
    for name in ("words", "margin"):
        lines = found[f"{name}/r.csv"].splitlines()
        assert lines[0] == f"{name},pairs"
        assert sum(int(line.split(",")[1]) for line in lines[1:]) == 4
    assert diagnostics.render_histograms([], [RULE])["margin/r.csv"] == "margin,pairs\nNaN,0\n"
    assert diagnostics.render_histogram([1 / 3, 1 - 2 / 3, 0.1 + 0.2 + 1 / 30], "margin").count("\n") == 21


def test_the_report_has_a_row_for_each_rule(tmp_path: Path) -> None:
    found: dict[str, Any] = {"r": describe(*PAIRS, people={"es": None}), "none": describe()}
    write_json(tmp_path / "pairs.json", {name: row.model_dump() for name, row in found.items()})
    assert diagnostics.read_pairs(tmp_path / "pairs.json") == {"none": found["none"], "r": found["r"]}
    people = {"people": found["none"].model_copy(update={"judge": "people", "basis": "people"})}
    table, coverage = diagnostics.render_pairs(people).split("\n\nThreads of all splits with a pair, and why ")
    assert table.endswith(" | by people |")
    assert coverage == "the others have none:\n\n- people: 0 of 9\n"
    found["r"] = found["r"].model_copy(update={"passed_over": 2})
    page = diagnostics.render_pairs(found)
    above = "in 2 pairs an answer scored over the chosen side could not be the chosen side"
    known = "; the judge is not calibrated on generated pairs (es)"
    assert page.endswith(f"\n- r: {found['r'].threads}; {above}{known}\n- none: 0 of 9\n")
    lines = page.partition("\n\nThreads of")[0].splitlines()
    assert lines[-2].startswith("| r | `j` | 4 | 0 | 8.0 | 7.8 | 0.667 [0.")
    assert lines[-2].endswith(" | 0 | 1.62 | es not calibrated |")
    assert lines[-1].startswith("| none | `j` | 0 | 0 | ")
    assert len({line.count("|") for line in lines[-4:]}) == 1
