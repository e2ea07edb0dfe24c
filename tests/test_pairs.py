"""Pairs: one row per shape of a rule, and per reason to refuse."""

from typing import Any

import pytest

from mothertongue import pairs
from mothertongue.params import Pairs, Rule
from mothertongue.records import Answer, Message, Side, Tally, Thread, Verdict, reference_answer, row_id

TEXTS = {
    "reference": "Claro que sí, la biblioteca está en la plaza mayor.",
    "plain": "Creo que la biblioteca está cerca del ayuntamiento.",
    "guided": "La biblioteca se encuentra justo al lado del museo.",
    "english": "I think that the library is next to the town hall.",
}


def rule(chosen: str, rejected: str, margin: float = 0, judge: str = "j") -> Rule:
    return Rule(name=f"{chosen}_over_{rejected}", chosen=chosen, rejected=rejected, judge=judge, min_margin=margin)


def side(answer: str, generator: str, score: float, text: str | None = None, finish: Any = "stop") -> Side:
    said = TEXTS[generator] if text is None else text
    return Side(answer=answer, generator=generator, text=said, finish=finish, score=score)


REFERENCE = side("r", "reference", 5)
PLAIN = [side("p1", "plain", 2, "Está en la plaza."), side("p2", "plain", 3, "Está cerca del museo.")]
GUIDED = [side("g1", "guided", 4, "Está al lado del teatro."), side("g2", "guided", 1, "No sé dónde está.")]
ALL = [*GUIDED, REFERENCE, *PLAIN]


@pytest.mark.parametrize(
    ("chosen", "rejected", "expected"),
    [
        ("reference", "best", "r g1"),
        ("reference", "worst", "r g2"),
        ("reference", "plain", "r p1"),  # a generator that is rejected is its worst
        ("best", "worst", "g1 g2"),  # best and worst are of the generators, not the expert's
        ("best", "plain", "g1 p1"),
        ("guided", "plain", "g1 p1"),  # a generator that is chosen is its best
        ("plain", "worst", "p2 g2"),
        ("guided", "guided", "g1 g2"),
        ("plain", "best", "margin"),  # the other way round is no pair
        ("worst", "best", "margin"),
        ("plain", "reference", "margin"),
    ],
)
@pytest.mark.parametrize("order", [1, -1], ids=["forwards", "backwards"])
def test_shapes(chosen: str, rejected: str, expected: str, order: int) -> None:
    found = pairs.choose(rule(chosen, rejected), ALL[::order], "es")
    assert (found if isinstance(found, str) else " ".join(part.answer for part in found)) == expected


def test_a_worse_reference_can_be_rejected() -> None:
    poor = side("r", "reference", 0.5)
    found = pairs.choose(rule("best", "reference"), [poor, *PLAIN], "es")
    assert found == (PLAIN[1], poor)


@pytest.mark.parametrize(
    ("sides", "margin", "expected"),
    [
        ([], 0, "no_verdict"),
        ([REFERENCE], 0, "no_verdict"),
        (PLAIN, 0, "no_verdict"),
        ([REFERENCE, side("p", "plain", 1, "  \n")], 0, "empty"),
        ([side("r", "reference", 5, ""), *PLAIN], 0, "empty"),
        ([REFERENCE, side("p", "plain", 1, " \ufffd ", "length")], 0, "empty"),  # cut inside its first character
        ([side("r", "reference", 5, finish="length"), *PLAIN], 0, "cut"),
        ([side("r", "reference", 5, TEXTS["english"], "length"), *PLAIN], 0, "cut"),
        ([side("r", "reference", 5, TEXTS["english"]), *PLAIN], 0, "wrong_language"),
        ([side("r", "reference", 5, "42"), *PLAIN], 0, "wrong_language"),
        ([REFERENCE, side("p", "plain", 1, TEXTS["reference"])], 0, "identical"),
        ([REFERENCE, side("p", "plain", 1, TEXTS["reference"].replace(" ", "\n "))], 0, "identical"),
        ([REFERENCE, side("p", "plain", 5)], 0, "tie"),
        ([REFERENCE, side("p", "plain", 5)], 1, "tie"),
        ([REFERENCE, side("p", "plain", 4.5)], 1, "margin"),
        ([REFERENCE, side("p", "plain", 6)], 0, "margin"),
        ([REFERENCE, side("p", "plain", 4)], 1, "r p"),  # the margin just holds
        # the rejected side may be cut and in any language, and the worst that says something is taken
        ([REFERENCE, side("p", "plain", 1, finish="length")], 1, "r p"),
        ([REFERENCE, side("p", "plain", 1, TEXTS["english"])], 1, "r p"),
        ([REFERENCE, *PLAIN, side("p0", "plain", 0, "")], 1, "r p1"),
    ],
)
def test_refusals(sides: list[Side], margin: float, expected: str) -> None:
    found = pairs.choose(rule("reference", "plain", margin), sides, "es")
    assert (found if isinstance(found, str) else " ".join(part.answer for part in found)) == expected


def test_the_best_that_ends_in_the_right_language_is_chosen() -> None:
    worst = side("p4", "plain", 1, "Sí, ahora mismo voy.", "length")
    cut = side("p2", "plain", 4.5, "Creo que está muy cerca de", "length")
    sides = [side("p1", "plain", 5, TEXTS["english"]), cut, side("p3", "plain", 4), worst]
    assert pairs.choose(rule("best", "worst"), sides, "es") == (sides[2], worst)


def test_equal_scores_are_settled_by_id() -> None:
    scores = {"a": 3, "b": 3, "c": 1, "d": 1}
    sides = [side(name, "plain", score, f"La respuesta {name} es la buena.") for name, score in scores.items()]
    for order in (sides, sides[::-1]):
        found = pairs.choose(rule("best", "worst"), order, "es")
        assert [part.answer for part in found if isinstance(part, Side)] == ["b", "c"]


ASKED = [Message(role="user", content="¿Dónde?")]
THREAD = Thread(id="t", conversation="c", group="g", split="train", prompt=ASKED, reference=TEXTS["reference"])


def answer(generator: str, thread: str = "t") -> Answer:
    return Answer(
        id=f"{thread}.{generator}", thread=thread, generator=generator, index=0, text=TEXTS[generator], tokens=9,
        finish="stop",
    )  # fmt: skip


def verdict(of: str, outcome: Any = "score", score: float | None = None, judge: str = "j") -> Verdict:
    return Verdict(id=f"{of}.{judge}", thread="t", answer=of, judge=judge, outcome=outcome, score=score, mass=None)


REFERENCE_ID = reference_answer(THREAD).id


@pytest.mark.parametrize(
    ("of_plain", "reason"),
    [
        (verdict("t.plain", "unparsed"), "no_verdict"),
        (verdict("t.plain", "error"), "no_verdict"),
        # a score that a broken judge leaves beside its failure counts for nothing
        (verdict("t.plain", "unparsed", 1.0), "no_verdict"),
        (verdict("t.plain", "error", 1.0), "no_verdict"),
        (verdict("t.plain", "score", None), "no_verdict"),
        (verdict("t.plain", "score", 1.0, judge="other"), "no_verdict"),
        (verdict("t.plain", "score", 5.0), "tie"),
        (verdict("t.plain", "score", 1.0), None),
    ],
)
def test_only_a_score_makes_a_side(of_plain: Verdict, reason: str | None) -> None:
    scores = [verdict(REFERENCE_ID, score=5.0), of_plain]
    found, tallies = pairs.paired([THREAD], [answer("plain")], scores, Pairs(rules=[rule("reference", "plain")]), "es")
    dropped = dict.fromkeys(pairs.REASONS, 0) | ({reason: 1} if reason else {})
    assert tallies == {"reference_over_plain": Tally(taken=1, kept=len(found), dropped=dropped)}
    assert len(found) == (0 if reason else 1)


def test_each_rule_and_thread_is_counted() -> None:
    other = THREAD.model_copy(update={"id": "u", "split": "test"})
    answers = [answer(generator, thread) for generator in ("plain", "guided") for thread in ("t", "u", "gone")]
    scores = [verdict(REFERENCE_ID, score=5.0), verdict("t.plain", score=1.0), verdict("t.guided", score=3.0)]
    scores += [verdict("u.plain", score=2.0), verdict("u.guided", score=1.5), verdict("gone.plain", score=2.0)]
    rules = [rule("reference", "plain", 1), rule("guided", "plain", 1), rule("best", "worst")]
    found, tallies = pairs.paired([other, THREAD], answers, scores, Pairs(rules=rules), "es")
    assert [(p.rule, p.thread, p.split, p.chosen.generator, p.rejected.generator) for p in found] == [
        ("reference_over_plain", "t", "train", "reference", "plain"),
        ("guided_over_plain", "t", "train", "guided", "plain"),
        ("best_over_worst", "t", "train", "guided", "plain"),
        ("best_over_worst", "u", "test", "plain", "guided"),
    ]
    assert {name: str(tally) for name, tally in tallies.items()} == {
        "reference_over_plain": "1 of 2 (dropped: no_verdict 1)",
        "guided_over_plain": "1 of 2 (dropped: margin 1)",
        "best_over_worst": "2 of 2",
    }
    first = found[0]
    assert first.id == row_id("t", "reference_over_plain", REFERENCE_ID, "t.plain")
    assert (first.prompt, first.judge) == (THREAD.prompt, "j")
    assert first.chosen == Side(
        answer=REFERENCE_ID, generator="reference", text=TEXTS["reference"], finish="stop", score=5.0
    )
