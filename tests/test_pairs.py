"""Pairs: one row per shape of a rule and per reason for none, by language; and the files as trainers read them."""

import json
from pathlib import Path
from typing import Any

import pytest
import sacrebleu

from mothertongue import diagnostics, pairs
from mothertongue.diagnostics import SplitCounts
from mothertongue.errors import BadInput
from mothertongue.pairs import Candidate
from mothertongue.params import ASSUMPTION, CHRF, PEOPLE, Pairs, Rule
from mothertongue.records import (
    Answer,
    Lineage,
    Message,
    Pair,
    Rated,
    RowCounts,
    Split,
    Thread,
    rated_answers,
    reference_answer,
    row_id,
)
from mothertongue.rows import read_rows, write_rows
from mothertongue.verdicts import Verdict

TEXTS = {
    "reference": "Claro que sí, la biblioteca está en la plaza mayor.",
    "plain": "Creo que la biblioteca está cerca del ayuntamiento.",
    "guided": "La biblioteca se encuentra justo al lado del museo.",
    "english": "I think that the library is next to the town hall.",
}


def rule(chosen: str, rejected: str, margin: float | None = 0, judge: str = "j") -> Rule:
    return Rule(name=f"{chosen}_over_{rejected}", chosen=chosen, rejected=rejected, judge=judge, min_margin=margin)


def candidate(
    identity: str, generator: str, score: float | None, text: str | None = None, finish: Any = "stop"
) -> Candidate:
    text = TEXTS[generator] if text is None else text
    row = Answer(id=identity, thread="t", generator=generator, index=0, text=text, tokens=9, finish=finish)
    return Candidate(row, score)


def shown(found: tuple[Candidate, Candidate] | str) -> str:
    """The reason why there is no pair, or the ids of the chosen and the rejected answer."""
    return found if isinstance(found, str) else " ".join(each.answer.id for each in found)


REFERENCE = candidate("r", "reference", 5)
PLAIN = [candidate("p1", "plain", 2, "Está en la plaza."), candidate("p2", "plain", 3, "Está cerca del museo.")]
GUIDED = [candidate("g1", "guided", 4, "Está al lado del teatro."), candidate("g2", "guided", 1, "No sé dónde está.")]
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
        ("plain", "best", "reversed"),  # the other way round is no pair
        ("worst", "best", "reversed"),
        ("plain", "reference", "reversed"),
    ],
)
@pytest.mark.parametrize("order", [1, -1], ids=["forwards", "backwards"])
def test_shapes(chosen: str, rejected: str, expected: str, order: int) -> None:
    found = pairs.select_pair(rule(chosen, rejected), ALL[::order], "es")
    assert shown(found) == expected


@pytest.mark.parametrize(
    ("chosen", "rejected", "expected"),
    [("reference", "best", "r g1"), ("reference", "worst", "r g2"), ("best", "reference", "g1 r"),
     ("guided", "worst", "g1 g2")],
)  # fmt: skip
@pytest.mark.parametrize("score", [0.0, None], ids=["worst of all", "no score"])
def test_without_a_margin_the_judge_finds_a_rank_only(
    chosen: str, rejected: str, expected: str, score: float | None
) -> None:
    """RigoChat 2: the expert's answer is the better one by assumption, whatever the judge says of it."""
    candidates = [candidate("r", "reference", score), *GUIDED, *PLAIN]
    assert shown(pairs.select_pair(rule(chosen, rejected, None), candidates, "es")) == expected
    unscored = [candidate("r", "reference", 5), candidate("p", "plain", None)]
    assert shown(pairs.select_pair(rule("reference", "best", None), unscored, "es")) == "no_verdict"


@pytest.mark.parametrize(
    ("chosen", "rejected", "scores", "expected"),
    [
        ("plain", "rated_worst", (1, 3), ("plain", 0)),
        ("rated_best", "plain", (1, 3), (1, "plain")),
        ("rated_best", "rated_worst", (3, 1), (0, 1)),
        ("reference", "rated_worst", (3, 1), ("reference", 1)),
        ("plain", "rated_worst", (2, 2), "no_answer"),  # neither is worse
        ("plain", "rated_worst", (), "no_answer"),
    ],
)
def test_an_answer_of_a_source_can_be_one_side(
    chosen: str, rejected: str, scores: tuple[float, ...], expected: Any
) -> None:
    texts = ["Está cerca de la iglesia.", "Está en el mercado."]
    rated = [Rated(text=text, score=score) for text, score in zip(texts, scores, strict=False)]
    asked = THREAD.model_copy(update={"rated": rated})
    params = section(rule(chosen, rejected, judge=ASSUMPTION))
    found, counts = pairs.make_pairs([asked], [answer("plain")], [], params)
    if isinstance(expected, str):
        assert counts[f"{chosen}_over_{rejected}"].dropped[expected] == 1
        return
    (pair,) = found
    both = [texts[name] if isinstance(name, int) else TEXTS[name] for name in expected]
    assert [text for text, _ in pair.sides] == both
    generators = ["people" if isinstance(name, int) else name for name in expected]
    assert [side.generator for _, side in pair.sides] == generators


def test_a_worse_reference_can_be_rejected() -> None:
    poor = candidate("r", "reference", 0.5)
    found = pairs.select_pair(rule("best", "reference"), [poor, *PLAIN], "es")
    assert found == (PLAIN[1], poor)


@pytest.mark.parametrize(
    ("candidates", "margin", "expected"),
    [
        ([], 0, "no_reference"),
        ([REFERENCE], 0, "no_answer"),
        (PLAIN, 0, "no_reference"),
        ([REFERENCE, candidate("p", "plain", None)], 0, "no_verdict"),
        ([candidate("r", "reference", None), *PLAIN], 0, "no_verdict"),
        ([REFERENCE, candidate("p", "plain", 1, "  \n")], 0, "empty"),
        ([candidate("r", "reference", 5, ""), *PLAIN], 0, "empty"),
        ([REFERENCE, candidate("p", "plain", 1, " \ufffd ", "length")], 0, "empty"),  # cut inside its first character
        ([candidate("r", "reference", 5, finish="length"), *PLAIN], 0, "cut"),
        ([candidate("r", "reference", 5, TEXTS["english"], "length"), *PLAIN], 0, "cut"),
        ([candidate("r", "reference", 5, TEXTS["english"]), *PLAIN], 0, "wrong_language"),
        ([candidate("r", "reference", 5, "42"), *PLAIN], 0, "wrong_language"),
        ([REFERENCE, candidate("p", "plain", 1, TEXTS["reference"])], 0, "identical"),
        ([REFERENCE, candidate("p", "plain", 1, TEXTS["reference"].replace(" ", "\n "))], 0, "identical"),
        ([REFERENCE, candidate("p", "plain", 5)], 0, "tie"),
        ([REFERENCE, candidate("p", "plain", 5)], 1, "tie"),
        ([REFERENCE, candidate("p", "plain", 4.5)], 1, "margin"),
        ([REFERENCE, candidate("p", "plain", 6)], 0, "reversed"),
        ([REFERENCE, candidate("p", "plain", 4)], 1, "r p"),  # the margin just holds
        # the rejected side may be cut and in any language, and the worst that has words is taken
        ([REFERENCE, candidate("p", "plain", 1, finish="length")], 1, "r p"),
        ([REFERENCE, candidate("p", "plain", 1, TEXTS["english"])], 1, "r p"),
        ([REFERENCE, *PLAIN, candidate("p0", "plain", 0, "")], 1, "r p1"),
    ],
)
def test_reasons_for_no_pair(candidates: list[Candidate], margin: float, expected: str) -> None:
    found = pairs.select_pair(rule("reference", "plain", margin), candidates, "es")
    assert shown(found) == expected


@pytest.mark.parametrize(
    ("min_words", "expected"), [(1, "p4 p1"), (5, "p4 p2"), (6, "p3 p2"), (8, "alone"), (9, "too_short")]
)
def test_answers_with_few_words_are_no_side(min_words: int, expected: str) -> None:
    texts = [("No lo sé.", 1), ("Creo que está muy cerca de la plaza.", 2), ("Está en la plaza del pueblo.", 3),
             ("Está en la plaza mayor.", 4)]  # fmt: skip
    candidates = [candidate(f"p{place}", "plain", score, text) for place, (text, score) in enumerate(texts, start=1)]
    assert shown(pairs.select_pair(rule("best", "worst"), candidates, "es", min_words)) == expected


def test_pairs_have_the_words_that_are_asked_for() -> None:
    thread = THREAD.model_copy(update={"reference": "Está en la plaza mayor."})
    rows = [candidate("p", "plain", 1, "Está muy cerca de aquí.").answer]
    rule_ = rule("reference", "plain", judge=ASSUMPTION)
    for min_words, kept in ((5, 1), (6, 0)):
        asked = Pairs(rules=[rule_.model_copy(update={"min_margin": 0})], max_cut_rejected=1.0, min_words=min_words)
        _, counts = pairs.make_pairs([thread], rows, [], asked)
        assert (counts[rule_.name].kept, counts[rule_.name].dropped["too_short"]) == (kept, 1 - kept)


def test_the_best_that_ends_in_the_right_language_is_chosen() -> None:
    worst = candidate("p4", "plain", 1, "Sí, ahora mismo voy.", "length")
    cut = candidate("p2", "plain", 4.5, "Creo que está muy cerca de", "length")
    best = candidate("p3", "plain", 4)
    candidates = [candidate("p1", "plain", 5, TEXTS["english"]), cut, best, worst]
    assert pairs.select_pair(rule("best", "worst"), candidates, "es") == (best, worst)


ENGLISH, SPANISH = candidate("e", "plain", 1, TEXTS["english"]), candidate("s", "plain", 2)


@pytest.mark.parametrize(
    ("language", "rejected", "expected"),
    [
        ("en", "guided", "e g"),
        ("es", "guided", "s g"),
        ("it", "guided", "wrong_language"),
        ("en", "plain", "alone"),  # the only one in English is the worst of all, too
        ("es", "plain", "s e"),
    ],
)
def test_the_chosen_side_is_in_the_language(language: str, rejected: str, expected: str) -> None:
    candidates = [ENGLISH, SPANISH, candidate("g", "guided", 0)]
    assert shown(pairs.select_pair(rule("plain", rejected, 0.5), candidates, language)) == expected


def test_equal_scores_are_ordered_by_id() -> None:
    scores = {"a": 3, "b": 3, "c": 1, "d": 1}
    rows = [candidate(name, "plain", score, f"La respuesta {name} es la buena.") for name, score in scores.items()]
    for order in (rows, rows[::-1]):
        assert shown(pairs.select_pair(rule("best", "worst"), order, "es")) == "b c"


R, P, G = (candidate(name[0], name, None) for name in ("reference", "plain", "guided"))
P_EMPTY, P_CUT = candidate("e", "plain", None, " \n"), candidate("c", "plain", None, "Creo que está", "length")
P_ENGLISH = candidate("n", "plain", None, TEXTS["english"])


@pytest.mark.parametrize(
    ("chosen", "rejected", "candidates", "expected"),
    [
        ("reference", "plain", [R, P], "r p"),
        ("plain", "reference", [P, R], "p r"),
        ("guided", "plain", [G, R, P], "g p"),
        ("reference", "plain", [R], "no_answer"),
        ("reference", "plain", [P, G], "no_reference"),
        # of several samples the first that may be that side
        ("reference", "plain", [R, P, P_CUT], "r p"),
        ("reference", "plain", [R, P_CUT, P], "r c"),
        ("reference", "plain", [R, P_EMPTY, P], "r p"),
        ("reference", "plain", [R, P_ENGLISH, P], "r n"),
        ("plain", "guided", [P_EMPTY, P_CUT, P_ENGLISH, P, G], "p g"),
        ("reference", "plain", [R, P_EMPTY], "empty"),
        ("plain", "guided", [P_EMPTY, G], "empty"),
        ("plain", "guided", [P_EMPTY, P_CUT, G], "cut"),
        ("plain", "guided", [P_CUT, P_ENGLISH, G], "wrong_language"),
        ("reference", "plain", [R, candidate("p", "plain", None, TEXTS["reference"])], "identical"),
        ("reference", "plain", [R, candidate("p", "plain", None, f" {TEXTS['reference']}\n")], "identical"),
    ],
)
def test_by_assumption(chosen: str, rejected: str, candidates: list[Candidate], expected: str) -> None:
    found = pairs.select_pair(rule(chosen, rejected, judge=ASSUMPTION), candidates, "es")
    assert shown(found) == expected


ASKED = [Message(role="user", content="¿Dónde?")]
SOURCES = {"c": "a file"}
THREAD = Thread(
    id="t", conversation="c", language="es", group="g", split="train", prompt=ASKED, reference=TEXTS["reference"]
)


def answer(generator: str, thread: str = "t", index: int = 0, text: str = "", finish: Any = "stop") -> Answer:
    return Answer(
        id=f"{thread}.{generator}{index or ''}", thread=thread, generator=generator, index=index,
        text=text or TEXTS[generator], tokens=9, finish=finish,
    )  # fmt: skip


def verdict(
    of: str, outcome: Any = "score", score: float | None = None, judge: str = "j", thread: str | None = None
) -> Verdict:
    thread = thread or (of.partition(".")[0] if "." in of else "t")
    return Verdict(
        id=f"{of}.{judge}", thread=thread, answer=of, judge=judge, outcome=outcome, score=score, label_mass=None
    )


def section(*rules: Rule, max_cut_rejected: float = 1.0) -> Pairs:
    return Pairs(rules=list(rules), max_cut_rejected=max_cut_rejected)


REFERENCE_ID = reference_answer(THREAD).id


def another(identity: str, **more: Any) -> Thread:
    """A thread with another question and the same expert's answer."""
    prompt = [Message(role="user", content=f"¿Dónde está {identity}?")]
    return THREAD.model_copy(update={"id": identity, "prompt": prompt} | more)


def test_one_preference_in_several_rows_is_learned_once() -> None:
    """As with other scores, or other white space; and two that are opposite but for white space, not at all."""
    rows = [rated_thread((GOOD, score), (FAIR, 1.0)) for score in (2.0, 3.0, 4.0)]
    rows = [row.model_copy(update={"id": f"t{n}", "split": "train"}) for n, row in enumerate(rows)]
    found, counts = pairs.make_pairs(rows, [], [], section(BY_PEOPLE))
    assert [pair.thread for pair in found] == ["t0"]
    assert counts[BY_PEOPLE.name].dropped["repeated"] == 2
    opposite = rated_thread((GOOD.replace(" ", "  "), 1.0), (FAIR, 2.0)).model_copy(
        update={"id": "t9", "split": "train"}
    )
    found, counts = pairs.make_pairs([*rows, opposite], [], [], section(BY_PEOPLE))
    assert (found, counts[BY_PEOPLE.name].dropped["contradictory"]) == ([], 4)


def test_a_best_answer_that_could_be_no_side_is_counted() -> None:
    given = [answer("plain"), answer("guided", finish="length"), answer("plain", index=1, text="No lo sé.")]
    verdicts = [verdict(each.id, score=score) for each, score in zip(given, (4, 5, 1), strict=True)]
    rules = [rule("best", "worst"), rule("plain", "worst"), rule("reference", "worst", None)]
    found, _ = pairs.make_pairs([THREAD], given, verdicts, section(*rules))
    counts = pairs.count_passed_over(found, [THREAD], given, verdicts, rules)
    assert counts == {"best_over_worst": 1, "plain_over_worst": 0, "reference_over_worst": 0}
    verdicts[1] = verdict(given[1].id, score=4)  # as good, so not better
    assert pairs.count_passed_over(found, [THREAD], given, verdicts, rules)["best_over_worst"] == 0
    by_chrf = [rule("best", "worst", judge=CHRF)]
    given[1] = answer("guided", text=TEXTS["reference"], finish="length")
    found, _ = pairs.make_pairs([THREAD], given, [], section(*by_chrf))
    assert pairs.count_passed_over(found, [THREAD], given, [], by_chrf) == {"best_over_worst": 1}


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
def test_only_a_score_makes_a_candidate(of_plain: Verdict, reason: str | None) -> None:
    scores = [verdict(REFERENCE_ID, score=5.0), of_plain]
    found, counts = pairs.make_pairs([THREAD], [answer("plain")], scores, section(rule("reference", "plain")))
    dropped = dict.fromkeys(pairs.REASONS, 0) | ({reason: 1} if reason else {})
    assert counts == {"reference_over_plain": RowCounts(total=1, kept=len(found), dropped=dropped)}
    assert len(found) == (0 if reason else 1)


def test_each_rule_and_thread_is_counted() -> None:
    other = another("u", split="test")
    answers = [answer(generator, thread) for generator in ("plain", "guided") for thread in ("t", "u")]
    scores = [verdict(REFERENCE_ID, score=5.0), verdict("t.plain", score=1.0), verdict("t.guided", score=3.0)]
    scores += [verdict("u.plain", score=2.0), verdict("u.guided", score=1.5)]
    rules = [rule("reference", "plain", 1), rule("guided", "plain", 1), rule("best", "worst")]
    found, counts = pairs.make_pairs([other, THREAD], answers, scores, section(*rules))
    assert [(p.rule, p.thread, p.split, p.chosen_from.generator, p.rejected_from.generator) for p in found] == [
        ("reference_over_plain", "t", "train", "reference", "plain"),
        ("guided_over_plain", "t", "train", "guided", "plain"),
        ("best_over_worst", "t", "train", "guided", "plain"),
        ("best_over_worst", "u", "test", "plain", "guided"),
    ]
    assert {name: str(count) for name, count in counts.items()} == {
        "reference_over_plain": "1 of 2 (dropped: no_verdict 1)",
        "guided_over_plain": "1 of 2 (dropped: reversed 1)",
        "best_over_worst": "2 of 2",
    }
    assert found[0] == Pair(
        id=row_id("t", "reference_over_plain", REFERENCE_ID, "t.plain"),
        thread="t",
        language="es",
        split="train",
        rule="reference_over_plain",
        judge="j",
        prompt=THREAD.prompt,
        chosen=[Message(role="assistant", content=TEXTS["reference"])],
        rejected=[Message(role="assistant", content=TEXTS["plain"])],
        chosen_from=Lineage(answer=REFERENCE_ID, generator="reference", finish="stop", score=5.0),
        rejected_from=Lineage(answer="t.plain", generator="plain", finish="stop", score=1.0),
    )
    assert found[0].sides == (
        (TEXTS["reference"], found[0].chosen_from),
        (TEXTS["plain"], found[0].rejected_from),
    )


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        ({}, None),
        ({"max_length_ratio": 10 / 8}, None),  # 10 words and 8
        ({"max_length_ratio": 1.24}, "length"),
        ({"max_similarity": 100}, None),
        ({"max_similarity": 20}, "similar"),  # the two have "la biblioteca" in common, and more
    ],
)
def test_limits_on_both_sides_together(limits: dict[str, Any], reason: str | None) -> None:
    params = Pairs(rules=[rule("reference", "plain", judge=ASSUMPTION)], max_cut_rejected=1.0, **limits)
    for swapped in (False, True):
        thread = THREAD.model_copy(update={"reference": TEXTS["plain"]}) if swapped else THREAD
        text = TEXTS["reference"] if swapped else TEXTS["plain"]
        found, counts = pairs.make_pairs([thread], [answer("plain", text=text)], [], params)
        assert len(found) == (0 if reason else 1)
        assert {name for name, count in counts["reference_over_plain"].dropped.items() if count} == (
            {reason} if reason else set()
        )


def rated_thread(*answers: tuple[str, float]) -> Thread:
    return THREAD.model_copy(update={"rated": [Rated(text=text, score=score) for text, score in answers]})


BY_PEOPLE = rule("best", "worst", 1, judge=PEOPLE)
GOOD, FAIR, POOR = (TEXTS[name] for name in ("reference", "plain", "guided"))


@pytest.mark.parametrize(
    ("answers", "limits", "expected"),
    [
        ([(FAIR, 2), (GOOD, 4), (POOR, 0)], {}, (GOOD, POOR)),
        ([(GOOD, 4), (POOR, 3)], {}, (GOOD, POOR)),  # the margin just holds
        ([(GOOD, 4), (POOR, 3.5)], {}, "margin"),
        ([(GOOD, 4), (POOR, 4)], {}, "tie"),
        ([], {}, "no_answer"),
        ([(GOOD, 4)], {}, "alone"),
        ([(GOOD, 4), (f" {GOOD}", 0)], {}, "identical"),
        ([(GOOD, 4), (" ", 3), (POOR, 1)], {}, (GOOD, POOR)),
        ([(TEXTS["english"], 5), (GOOD, 4), (POOR, 1)], {}, (GOOD, POOR)),
        ([(TEXTS["english"], 5), (" ", 1)], {}, "wrong_language"),
        ([(GOOD, 4), ("No.", 1)], {"min_words": 2}, "alone"),
        ([("Sí.", 4), ("No.", 1)], {"min_words": 2}, "too_short"),
        ([(GOOD, 4), ("No.", 1)], {"max_length_ratio": 5}, "length"),
        ([(GOOD, 4), (GOOD[:-2], 1)], {"max_similarity": 80}, "similar"),
    ],
)
def test_people_rank_the_answers_that_a_source_brings(
    answers: list[tuple[str, float]], limits: dict[str, Any], expected: tuple[str, str] | str
) -> None:
    """And no others: those of generators, and verdicts on them, are for other rules."""
    thread = rated_thread(*answers)
    others = [verdict("t.plain", score=9.0), verdict(REFERENCE_ID, score=8.0)]
    params = Pairs(rules=[BY_PEOPLE], max_cut_rejected=0.0, **limits)
    found, counts = pairs.make_pairs([thread], [answer("plain", finish="length")], others, params)
    reasons = [reason for reason, count in counts[BY_PEOPLE.name].dropped.items() if count]
    if isinstance(expected, str):
        assert (found, reasons) == ([], [expected])
        return
    (pair,) = found
    assert (pair.sides[0][0], pair.sides[1][0], reasons, pair.judge) == (*expected, [], PEOPLE)
    by_text = {row.text: row for row in rated_answers(thread)}
    for (text, lineage), score in zip(pair.sides, (dict(answers)[text] for text in expected), strict=True):
        assert lineage == Lineage(answer=by_text[text].id, generator="people", finish="stop", score=score)


def test_rated_answers_are_no_answers_of_a_generator() -> None:
    thread = rated_thread((GOOD, 1), (FAIR, 0))
    scores = [verdict("t.guided", score=1.0), verdict(REFERENCE_ID, score=2.0)]
    found, _ = pairs.make_pairs([thread], [answer("guided")], scores, section(rule("reference", "worst"), BY_PEOPLE))
    assert {pair.judge: pair.rejected_from.generator for pair in found} == {"j": "guided", PEOPLE: "people"}


NEAR, FAR = "Claro que sí, la biblioteca está en la plaza vieja.", "No tengo la menor idea de eso, lo siento."


@pytest.mark.parametrize(
    ("chosen", "rejected", "reference", "expected"),
    [
        ("best", "worst", True, (NEAR, FAR)),
        ("reference", "worst", True, (GOOD, FAR)),
        ("reference", "best", True, (GOOD, NEAR)),
        ("guided", "plain", True, (NEAR, FAR)),
        ("plain", "guided", True, "reversed"),
        ("best", "worst", False, "no_verdict"),
        ("reference", "worst", False, "no_reference"),
    ],
)
def test_chrf_ranks_answers_by_their_likeness_to_the_experts(
    chosen: str, rejected: str, reference: bool, expected: tuple[str, str] | str
) -> None:
    thread = THREAD if reference else THREAD.model_copy(update={"reference": None})
    answers = [answer("guided", text=NEAR), answer("plain", text=FAR)]
    asked = rule(chosen, rejected, judge=CHRF)
    found, counts = pairs.make_pairs([thread], answers, [], section(asked))
    reasons = [reason for reason, count in counts[asked.name].dropped.items() if count]
    if isinstance(expected, str):
        assert (found, reasons) == ([], [expected])
        return
    (pair,) = found
    assert (pair.sides[0][0], pair.sides[1][0], reasons, pair.judge) == (*expected, [], CHRF)
    for text, lineage in pair.sides:
        score = sacrebleu.sentence_chrf(text, [GOOD], word_order=2).score
        assert lineage.score == pytest.approx(score)


def test_variants_of_a_comparison_learn_from_the_same_threads() -> None:
    """Each of three rules alone, and all three with one pair a thread: the same threads, as many pairs."""
    threads = [another(f"t{number:02}") for number in range(20)]
    answers = [answer(name, each.id) for each in threads for name in ("plain", "guided")]
    scores = [verdict(reference_answer(each).id, score=5.0, thread=each.id) for each in threads]
    scores += [verdict(f"{each.id}.plain", score=1.0) for each in threads]
    scores += [verdict(f"{each.id}.guided", score=3.0) for each in threads[4:]]  # four have no verdict on it
    rules = [rule("reference", "best"), rule("reference", "worst"), rule("best", "worst")]
    names = [each.name for each in rules]

    def make(**more: Any) -> tuple[list[Pair], dict[str, RowCounts]]:
        return pairs.make_pairs(threads, answers, scores, Pairs(rules=rules, max_cut_rejected=1.0, **more))

    every, _ = make()
    assert len(every) == 20 + 20 + 16
    wanted = {each.id for each in threads[4:]}
    for name in names:
        found, counts = make(equal_threads=True, learned=[name])
        assert ({pair.thread for pair in found}, {pair.rule for pair in found}) == (wanted, {name})
        assert len(found) == counts[name].kept == 16
        for count in counts.values():
            assert count.kept + sum(count.dropped.values()) == count.total == 20
    found, counts = make(equal_threads=True, per_thread=1)
    assert sorted(pair.thread for pair in found) == sorted(wanted)
    assert {pair.rule for pair in found} == set(names)  # drawn, so each has some
    assert sum(count.dropped["per_thread"] for count in counts.values()) == 32
    assert make(equal_threads=True, per_thread=2)[0] != found
    held_out = [each.model_copy(update={"split": "validation"}) for each in threads]
    found, _ = pairs.make_pairs(
        held_out,
        answers,
        scores,
        Pairs(rules=rules, max_cut_rejected=1.0, equal_threads=True, learned=[names[0]], per_thread=1),
    )
    assert len(found) == 20 + 20 + 16  # every variant is measured on the same held-out pairs
    assert len(make(per_thread=2)[0]) == 20 * 2


@pytest.mark.parametrize("judge", [ASSUMPTION, "j"])
def test_a_thread_that_a_generator_did_not_answer_is_counted(judge: str) -> None:
    """It has the expert's answer, which a judge has scored only where another generator answered."""
    others = [another(identity) for identity in ("u", "v")]
    answers = [answer("plain"), answer("guided"), answer("guided", "u")]
    scores = [verdict(reference_answer(row).id, score=5.0, thread=row.id) for row in (THREAD, others[0])]
    scores += [verdict(row.id, score=1.0, thread=row.thread) for row in answers]
    rules = [rule("reference", "plain", judge=judge), rule("reference", "guided", judge=judge)]
    found, counts = pairs.make_pairs([THREAD, *others], answers, scores, section(*rules))
    assert [(row.rule, row.thread) for row in found] == [
        ("reference_over_plain", "t"), ("reference_over_guided", "t"), ("reference_over_guided", "u")
    ]  # fmt: skip
    assert {name: str(count) for name, count in counts.items()} == {
        "reference_over_plain": "1 of 3 (dropped: no_answer 2)",
        "reference_over_guided": "2 of 3 (dropped: no_answer 1)",
    }


def test_a_prompt_without_an_expert_is_ranked_and_counted() -> None:
    prompt = another("u", reference=None)
    answers = [answer("plain", "u"), answer("guided", "u")]
    scores = [verdict("u.plain", score=2.0), verdict("u.guided", score=1.0)]
    rules = [rule("best", "worst"), rule("reference", "plain", judge=ASSUMPTION), rule("plain", "reference")]
    found, counts = pairs.make_pairs([prompt], answers, scores, section(*rules))
    assert [(row.rule, row.chosen_from.answer) for row in found] == [("best_over_worst", "u.plain")]
    assert {name: str(count) for name, count in counts.items()} == {
        "best_over_worst": "1 of 1",
        "reference_over_plain": "0 of 1 (dropped: no_reference 1)",
        "plain_over_reference": "0 of 1 (dropped: no_reference 1)",
    }


IN_ENGLISH = another("u", language="en", reference=TEXTS["english"])


@pytest.mark.parametrize("judge", [ASSUMPTION, "j"])
def test_each_pair_is_in_the_language_of_its_thread(judge: str) -> None:
    """The expert's English answer is chosen for the English thread, and refused for the Spanish one."""
    other = another("v", reference=TEXTS["english"])
    threads = [THREAD, IN_ENGLISH, other]
    answers = [answer("plain", row.id) for row in threads]
    scores = [verdict(reference_answer(row).id, score=5.0, thread=row.id) for row in threads]
    scores += [verdict(row.id, score=1.0, thread=row.thread) for row in answers]
    found, counts = pairs.make_pairs(threads, answers, scores, section(rule("reference", "plain", judge=judge)))
    assert [(row.thread, row.language, row.sides[0][0]) for row in found] == [
        ("t", "es", TEXTS["reference"]),
        ("u", "en", TEXTS["english"]),
    ]
    assert str(counts["reference_over_plain"]) == "2 of 3 (dropped: wrong_language 1)"


def write_pairs(path: Path) -> list[Pair]:
    """A pair with scores and one without, of two languages, written as the stage does."""
    threads = [THREAD, IN_ENGLISH]
    answers = [answer("plain"), answer("plain", "u", finish="length")]
    scores = [verdict(REFERENCE_ID, score=5.0), verdict("t.plain", score=1.0)]
    rules = [rule("reference", "plain"), rule("reference", "plain", judge=ASSUMPTION)]
    rules[1] = rules[1].model_copy(update={"name": "assumed"})
    found, _ = pairs.make_pairs(threads, answers, scores, section(*rules))
    write_rows(path, found)
    return found


def test_pairs_are_written_as_lists_of_messages(tmp_path: Path) -> None:
    found = write_pairs(tmp_path / "pairs.jsonl")
    assert len(found) == 3
    assert read_rows(tmp_path / "pairs.jsonl", Pair) == sorted(found, key=lambda row: row.id)
    rows = [json.loads(line) for line in (tmp_path / "pairs.jsonl").read_text(encoding="utf-8").splitlines()]
    (english,) = [row for row in rows if row["language"] == "en"]
    assert english == {
        "id": row_id("u", "assumed", reference_answer(IN_ENGLISH).id, "u.plain"),
        "thread": "u",
        "language": "en",
        "split": "train",
        "rule": "assumed",
        "judge": ASSUMPTION,
        "prompt": [{"role": "user", "content": "¿Dónde está u?"}],
        "chosen": [{"role": "assistant", "content": TEXTS["english"]}],
        "rejected": [{"role": "assistant", "content": TEXTS["plain"]}],
        "chosen_from": {
            "answer": reference_answer(IN_ENGLISH).id, "generator": "reference", "finish": "stop", "score": None
        },
        "rejected_from": {"answer": "u.plain", "generator": "plain", "finish": "length", "score": None},
    }  # fmt: skip


def test_datasets_and_trl_read_the_written_pairs(tmp_path: Path) -> None:
    """As conversations with an explicit prompt, which is the form of preference data that TRL recommends."""
    from datasets import load_dataset
    from trl import is_conversational
    from trl.data_utils import maybe_extract_prompt

    write_pairs(tmp_path / "pairs.jsonl")
    loaded = load_dataset(
        "json", data_files=str(tmp_path / "pairs.jsonl"), split="train", cache_dir=str(tmp_path / "cache")
    )
    assert loaded.num_rows == 3
    for row in loaded:
        assert is_conversational(row)
        assert maybe_extract_prompt(row) == row  # there is nothing to extract
        assert [message["role"] for message in (*row["prompt"], *row["chosen"], *row["rejected"])] == [
            "user",
            "assistant",
            "assistant",
        ]
        assert all(
            set(message) == {"role", "content"} for message in (*row["prompt"], *row["chosen"], *row["rejected"])
        )
    texts = {
        (row["rule"], row["thread"]): (row["chosen"][0]["content"], row["rejected"][0]["content"]) for row in loaded
    }
    assert texts == {
        ("reference_over_plain", "t"): (TEXTS["reference"], TEXTS["plain"]),
        ("assumed", "t"): (TEXTS["reference"], TEXTS["plain"]),
        ("assumed", "u"): (TEXTS["english"], TEXTS["plain"]),
    }
    assert {row["thread"]: row["rejected_from"]["finish"] for row in loaded} == {"t": "stop", "u": "length"}


def test_by_assumption_no_verdict_is_asked_for_and_the_first_by_index_is_taken() -> None:
    answers = [answer("plain", index=index, text=f"Creo que está en la calle {index}.") for index in (2, 0, 1)]
    scores = [verdict(REFERENCE_ID, score=1.0), verdict("t.plain2", score=5.0)]
    assumed = rule("reference", "plain", judge=ASSUMPTION)
    for order in (1, -1):
        ((pair,), counts) = pairs.make_pairs([THREAD], answers[::order], scores, section(assumed))
        assert pair.judge == ASSUMPTION
        assert pair.chosen_from == Lineage(answer=REFERENCE_ID, generator="reference", finish="stop", score=None)
        assert pair.rejected_from == Lineage(answer="t.plain", generator="plain", finish="stop", score=None)
        assert str(counts["reference_over_plain"]) == "1 of 1"


@pytest.mark.parametrize(
    ("answers", "verdicts", "expected"),
    [
        ([answer("plain", "gone")], [],
         "answer 'gone.plain' of 'plain' is to thread 'gone', which is not there; run stage generated again"),
        ([answer("plain"), answer("plain")], [],
         "answer 't.plain' of 'plain' is a duplicate; delete one, or run stage generated again"),
        ([answer("plain")], [verdict("t.guided", score=1.0)],
         ("verdict 't.guided.j' of 'j' is on answer 't.guided' to thread 't', which is not there; run stage scored"
          " again")),
        ([answer("plain")], [verdict("t.plain", score=1.0, thread="u")],
         "verdict 't.plain.j' of 'j' is on answer 't.plain' to thread 'u', which is not there; run stage scored again"),
        ([answer("plain")], [verdict("t.plain", score=1.0), verdict("t.plain", "unparsed")],
         ("verdict 't.plain.j' of 'j' is a second one on answer 't.plain'; delete one, or run stage scored again")),
    ],
)  # fmt: skip
def test_answers_and_verdicts_that_join_nothing_or_are_duplicates_are_refused(
    answers: list[Answer], verdicts: list[Verdict], expected: str
) -> None:
    with pytest.raises(BadInput) as caught:
        pairs.make_pairs([THREAD], answers, verdicts, section(rule("reference", "plain")))
    assert caught.value.message == expected


def make_threads_and_samples(cut: dict[Split, str]) -> tuple[list[Thread], list[Answer]]:
    """For each split one thread a letter, its sample cut where the letter is c."""
    asked = [
        another(f"{split}-{place}", split=split) for split, letters in cut.items() for place in range(len(letters))
    ]
    finishes = ["length" if letter == "c" else "stop" for letters in cut.values() for letter in letters]
    return asked, [answer("plain", t.id, finish=finish) for t, finish in zip(asked, finishes, strict=True)]


def test_the_share_of_rejected_sides_that_were_cut() -> None:
    threads, answers = make_threads_and_samples({"train": "cc..", "validation": ".", "test": "c.."})
    rules = [rule("reference", "plain", judge=ASSUMPTION), rule("plain", "guided", judge=ASSUMPTION)]
    found, counts = pairs.make_pairs(threads, answers, [], section(*rules, max_cut_rejected=3 / 8))
    about = diagnostics.describe_pairs(
        found, [], counts, rules, threads, SOURCES, {each.name: {} for each in rules}, {each.name: 0 for each in rules}
    )
    assert about["reference_over_plain"].splits == {
        "test": SplitCounts(pairs=3, cut_rejected=1, share=1 / 3),
        "train": SplitCounts(pairs=4, cut_rejected=2, share=0.5),
        "validation": SplitCounts(pairs=1, cut_rejected=0, share=0),
    }
    assert (about["plain_over_guided"].splits, about["plain_over_guided"].languages) == ({}, {})


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
    threads, answers = make_threads_and_samples({"train": "cc.", "test": "."})
    answers += [answer("guided", thread.id, finish="length") for thread in threads]
    scores = [verdict(reference_answer(t).id, score=5.0, thread=t.id) for t in threads]
    scores += [verdict(row.id, score=1.0, thread=row.thread) for row in answers if row.generator == "plain"]
    scores += [
        verdict(row.id, score=2.0 - place, thread=row.thread)
        for place, row in enumerate(row for row in answers if row.generator == "guided")
    ]
    params = section(rule("reference", rejected), max_cut_rejected=limit)
    if expected is None:
        assert len(pairs.make_pairs(threads, answers, scores, params)[0]) == 4
        return
    with pytest.raises(BadInput) as caught:
        pairs.make_pairs(threads, answers, scores, params)
    assert caught.value.message == expected


@pytest.mark.parametrize(
    ("text", "expected"), [("\u200b\u200b", "empty"), ("\ufffd ", "empty"), ("¿?", "r p"), ("👍", "r p")]
)
def test_text_without_a_visible_character_is_empty(text: str, expected: str) -> None:
    assert shown(
        pairs.select_pair(rule("reference", "plain"), [REFERENCE, candidate("p", "plain", 1, text)], "es")
    ) == (expected)
