"""Pairs: one row per shape of a rule, and per reason to refuse."""

from typing import Any

import pytest

from mothertongue import pairs
from mothertongue.errors import BadInput
from mothertongue.params import ASSUMPTION, Pairs, Rule
from mothertongue.records import Answer, Message, Side, Split, Tally, Thread, Verdict, reference_answer, row_id

TEXTS = {
    "reference": "Claro que sí, la biblioteca está en la plaza mayor.",
    "plain": "Creo que la biblioteca está cerca del ayuntamiento.",
    "guided": "La biblioteca se encuentra justo al lado del museo.",
    "english": "I think that the library is next to the town hall.",
}


def rule(chosen: str, rejected: str, margin: float = 0, judge: str = "j") -> Rule:
    return Rule(name=f"{chosen}_over_{rejected}", chosen=chosen, rejected=rejected, judge=judge, min_margin=margin)


def side(answer: str, generator: str, score: float | None, text: str | None = None, finish: Any = "stop") -> Side:
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
        ([], 0, "no_answer"),
        ([REFERENCE], 0, "no_answer"),
        (PLAIN, 0, "no_answer"),
        ([REFERENCE, side("p", "plain", None)], 0, "no_verdict"),
        ([side("r", "reference", None), *PLAIN], 0, "no_verdict"),
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


R, P, G = (side(name[0], name, None) for name in ("reference", "plain", "guided"))
P_EMPTY, P_CUT = side("e", "plain", None, " \n"), side("c", "plain", None, "Creo que está", "length")
P_ENGLISH = side("n", "plain", None, TEXTS["english"])


@pytest.mark.parametrize(
    ("chosen", "rejected", "sides", "expected"),
    [
        ("reference", "plain", [R, P], "r p"),
        ("plain", "reference", [P, R], "p r"),
        ("guided", "plain", [G, R, P], "g p"),
        ("reference", "plain", [R], "no_answer"),
        ("reference", "plain", [P, G], "no_answer"),
        # of several samples the first that may stand there
        ("reference", "plain", [R, P, P_CUT], "r p"),
        ("reference", "plain", [R, P_CUT, P], "r c"),
        ("reference", "plain", [R, P_EMPTY, P], "r p"),
        ("reference", "plain", [R, P_ENGLISH, P], "r n"),
        ("plain", "guided", [P_EMPTY, P_CUT, P_ENGLISH, P, G], "p g"),
        ("reference", "plain", [R, P_EMPTY], "empty"),
        ("plain", "guided", [P_EMPTY, G], "empty"),
        ("plain", "guided", [P_EMPTY, P_CUT, G], "cut"),
        ("plain", "guided", [P_CUT, P_ENGLISH, G], "wrong_language"),
        ("reference", "plain", [R, side("p", "plain", None, TEXTS["reference"])], "identical"),
        ("reference", "plain", [R, side("p", "plain", None, f" {TEXTS['reference']}\n")], "identical"),
    ],
)
def test_by_assumption(chosen: str, rejected: str, sides: list[Side], expected: str) -> None:
    found = pairs.choose(rule(chosen, rejected, judge=ASSUMPTION), sides, "es")
    assert (found if isinstance(found, str) else " ".join(part.answer for part in found)) == expected


ASKED = [Message(role="user", content="¿Dónde?")]
THREAD = Thread(id="t", conversation="c", group="g", split="train", prompt=ASKED, reference=TEXTS["reference"])


def answer(generator: str, thread: str = "t", index: int = 0, text: str = "", finish: Any = "stop") -> Answer:
    return Answer(
        id=f"{thread}.{generator}{index or ''}", thread=thread, generator=generator, index=index,
        text=text or TEXTS[generator], tokens=9, finish=finish,
    )  # fmt: skip


def verdict(
    of: str, outcome: Any = "score", score: float | None = None, judge: str = "j", thread: str | None = None
) -> Verdict:
    thread = thread or (of.partition(".")[0] if "." in of else "t")
    return Verdict(id=f"{of}.{judge}", thread=thread, answer=of, judge=judge, outcome=outcome, score=score, mass=None)


def section(*rules: Rule, max_cut_rejected: float = 1.0) -> Pairs:
    return Pairs(rules=list(rules), max_cut_rejected=max_cut_rejected)


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
    found, tallies = pairs.paired([THREAD], [answer("plain")], scores, section(rule("reference", "plain")), "es")
    dropped = dict.fromkeys(pairs.REASONS, 0) | ({reason: 1} if reason else {})
    assert tallies == {"reference_over_plain": Tally(taken=1, kept=len(found), dropped=dropped)}
    assert len(found) == (0 if reason else 1)


def test_each_rule_and_thread_is_counted() -> None:
    other = THREAD.model_copy(update={"id": "u", "split": "test"})
    answers = [answer(generator, thread) for generator in ("plain", "guided") for thread in ("t", "u")]
    scores = [verdict(REFERENCE_ID, score=5.0), verdict("t.plain", score=1.0), verdict("t.guided", score=3.0)]
    scores += [verdict("u.plain", score=2.0), verdict("u.guided", score=1.5)]
    rules = [rule("reference", "plain", 1), rule("guided", "plain", 1), rule("best", "worst")]
    found, tallies = pairs.paired([other, THREAD], answers, scores, section(*rules), "es")
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


def test_by_assumption_no_verdict_is_asked_for_and_the_first_by_index_is_taken() -> None:
    answers = [answer("plain", index=index, text=f"Creo que está en la calle {index}.") for index in (2, 0, 1)]
    scores = [verdict(REFERENCE_ID, score=1.0), verdict("t.plain2", score=5.0)]
    assumed = rule("reference", "plain", judge=ASSUMPTION)
    for order in (1, -1):
        ((pair,), tallies) = pairs.paired([THREAD], answers[::order], scores, section(assumed), "es")
        assert (pair.judge, pair.chosen.answer, pair.rejected.answer) == (ASSUMPTION, REFERENCE_ID, "t.plain")
        assert (pair.chosen.score, pair.rejected.score) == (None, None)
        assert (pair.chosen.finish, pair.rejected.finish) == ("stop", "stop")
        assert str(tallies["reference_over_plain"]) == "1 of 1"


@pytest.mark.parametrize(
    ("answers", "verdicts", "expected"),
    [
        ([answer("plain", "gone")], [],
         "answer 'gone.plain' of 'plain' is to thread 'gone', which is not there; run stage generated again"),
        ([answer("plain"), answer("plain")], [],
         "answer 't.plain' of 'plain' stands twice; delete one, or run stage generated again"),
        ([answer("plain")], [verdict("t.guided", score=1.0)],
         ("verdict 't.guided.j' of 'j' is on answer 't.guided' to thread 't', which is not there; run stage scored"
          " again")),
        ([answer("plain")], [verdict("t.plain", score=1.0, thread="u")],
         "verdict 't.plain.j' of 'j' is on answer 't.plain' to thread 'u', which is not there; run stage scored again"),
        ([answer("plain")], [verdict("t.plain", score=1.0), verdict("t.plain", "unparsed")],
         ("verdict 't.plain.j' of 'j' is a second one on answer 't.plain'; delete one, or run stage scored again")),
    ],
)  # fmt: skip
def test_what_joins_nothing_or_stands_twice_is_refused(
    answers: list[Answer], verdicts: list[Verdict], expected: str
) -> None:
    with pytest.raises(BadInput) as caught:
        pairs.paired([THREAD], answers, verdicts, section(rule("reference", "plain")), "es")
    assert caught.value.message == expected


def threads_and_samples(cut: dict[Split, str]) -> tuple[list[Thread], list[Answer]]:
    """For each split one thread a letter, its sample cut where the letter is c."""
    asked = [
        THREAD.model_copy(update={"id": f"{split}-{place}", "split": split})
        for split, letters in cut.items()
        for place in range(len(letters))
    ]
    finishes = ["length" if letter == "c" else "stop" for letters in cut.values() for letter in letters]
    return asked, [answer("plain", t.id, finish=finish) for t, finish in zip(asked, finishes, strict=True)]


def test_the_share_of_rejected_sides_that_were_cut() -> None:
    asked, said = threads_and_samples({"train": "cc..", "validation": ".", "test": "c.."})
    rules = [rule("reference", "plain", judge=ASSUMPTION), rule("plain", "guided", judge=ASSUMPTION)]
    found, _ = pairs.paired(asked, said, [], section(*rules, max_cut_rejected=3 / 8), "es")
    assert pairs.shares(found, "reference_over_plain") == {
        "test": {"pairs": 3, "cut_rejected": 1, "share": 1 / 3},
        "train": {"pairs": 4, "cut_rejected": 2, "share": 0.5},
        "validation": {"pairs": 1, "cut_rejected": 0, "share": 0},
    }
    assert pairs.shares(found, "plain_over_guided") == {}


@pytest.mark.parametrize(
    ("rejected", "limit", "expected"),
    [
        ("plain", 0.5, None),
        ("plain", 0.49,
         ("pairs.rules: reference_over_plain: 2 of 4 rejected sides were cut at max_tokens, over"
          " pairs.max_cut_rejected 0.49; raise generated.plain.max_tokens")),
        ("plain", 0.0,
         ("pairs.rules: reference_over_plain: 2 of 4 rejected sides were cut at max_tokens, over"
          " pairs.max_cut_rejected 0; raise generated.plain.max_tokens")),
        ("worst", 0.7,
         ("pairs.rules: reference_over_worst: 4 of 4 rejected sides were cut at max_tokens, over"
          " pairs.max_cut_rejected 0.7; raise generated.guided.max_tokens and generated.plain.max_tokens")),
    ],
)  # fmt: skip
def test_too_many_rejected_sides_that_were_cut(rejected: str, limit: float, expected: str | None) -> None:
    asked, said = threads_and_samples({"train": "cc.", "test": "."})
    said += [answer("guided", thread.id, finish="length") for thread in asked]
    scores = [verdict(reference_answer(t).id, score=5.0, thread=t.id) for t in asked]
    scores += [verdict(row.id, score=1.0, thread=row.thread) for row in said if row.generator == "plain"]
    scores += [
        verdict(row.id, score=2.0 - place, thread=row.thread)
        for place, row in enumerate(row for row in said if row.generator == "guided")
    ]
    params = section(rule("reference", rejected), max_cut_rejected=limit)
    if expected is None:
        assert len(pairs.paired(asked, said, scores, params, "es")[0]) == 4
        return
    with pytest.raises(BadInput) as caught:
        pairs.paired(asked, said, scores, params, "es")
    assert caught.value.message == expected


@pytest.mark.parametrize(("text", "says"), [("\u200b\u200b", False), ("\ufffd ", False), ("¿?", True), ("👍", True)])
def test_what_cannot_be_seen_says_nothing(text: str, says: bool) -> None:
    assert pairs._says_something(text) == says
