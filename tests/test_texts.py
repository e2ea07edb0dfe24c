"""Figures of answers: tables of texts, counted by hand."""

import pytest

from mothertongue import languages, overlap, texts
from mothertongue.measurements import SampleScore
from mothertongue.records import Message, Thread


def thread(
    identity: str,
    reference: str = "Está en la plaza.",
    asked: str = "¿?",
    language: str = "es",
    group: str | None = None,
) -> Thread:
    return Thread(
        id=identity,
        conversation="c",
        language=language,
        group=group or f"g{identity}",
        split="test",
        prompt=[Message(role="user", content=asked)],
        reference=reference,
    )


def values_of(figure: str, scores: list[SampleScore]) -> dict[str, list[float]]:
    """The values of one figure by thread."""
    return {score.id: score.values for score in scores if score.figure == figure}


def chrf(answer: str, reference: str) -> list[float]:
    (row,) = overlap.segment_statistics("chrf", [answer], [reference], "en")
    return row


@pytest.mark.parametrize(
    ("text", "share"),
    [
        ("", 0.0),
        ("uno dos tres", 0.0),
        ("uno dos tres cuatro", 0.0),
        ("no no no no", 0.5),  # 2 trigrams, the same
        ("No, no. ¡No! no... NO", 2 / 3),
        ("sí sí sí sí sí sí sí sí sí sí sí sí", 0.9),  # 10 trigrams, 1 of them new
        ("a b c a b c", 0.25),  # abc bca cab abc
        ("你好你好你好你", 0.6),  # 5 trigrams of characters, 2 of them new
    ],
)
def test_repetition(text: str, share: float) -> None:
    assert texts.repetition_rate(text) == pytest.approx(share)


@pytest.mark.parametrize(
    ("text", "right", "repeated"),
    [
        ("La biblioteca está en la plaza.", [1.0, 1.0], [0.0, 1.0]),
        ("The library is in the square.", [0.0, 1.0], [0.0, 1.0]),
        ("no no no no", [0.0, 1.0], [0.5, 1.0]),
        ("Está en casa.", [0.0, 0.0], [0.0, 0.0]),
        ("Está en mi casa.", [1.0, 1.0], [0.0, 1.0]),
        ("No.", [0.0, 0.0], [0.0, 0.0]),  # detected as English
        ("¿Por qué?", [0.0, 0.0], [0.0, 0.0]),  # Portuguese
        ("Hola! 🌍🌍🌍🌍", [0.0, 0.0], [0.0, 0.0]),
        ("", [0.0, 0.0], [0.0, 0.0]),
    ],
)
def test_a_text_under_four_words_is_undecided(text: str, right: list[float], repeated: list[float]) -> None:
    if text != "no no no no":  # of which only the repetition is of interest
        assert texts.score_language_and_repetition(text, "es") == (right, repeated)
    assert texts.score_language_and_repetition(text, "es")[1] == repeated


@pytest.mark.parametrize(
    ("text", "asks"),
    [
        ("¿Por qué?", True),
        ("Bien. ¿Y tú?  ", True),
        ("Dijo: «¿Vienes?»", True),
        ("¿Vienes? Te espero.", False),
        ("¿Por qué? 🙂", True),
        ("¿Por qué?…", True),
        ("¿Sí?!\u200b", True),
        ("Πού είναι;", True),
        ("Aquí; allí;", False),
        ("你好吗？", True),
        ("هل أنت بخير؟", True),
        ("No lo sé.", False),
        ("", False),
        ("?", True),
    ],
)
def test_questions(text: str, asks: bool) -> None:
    assert texts.is_question(text) == asks


def test_distinct_answers_add_up() -> None:
    answers = ["¿Por qué?", "¿por qué", "Sí.", "¿Por qué?", ""]
    items = texts.score_answers([thread(f"{n}") for n in range(5)], answers)
    values = [item.values[0] for item in items if item.figure == "distinct"]
    assert values == [pytest.approx(value) for value in (1 / 3, 1 / 3, 1, 1 / 3, 1)]
    assert sum(values) == pytest.approx(3)  # of five answers, three are different


def test_equal_answers_in_two_languages_are_distinct() -> None:
    rows = [thread("a"), thread("b"), thread("c", language="it"), thread("d", language="it")]
    found = values_of("distinct", texts.score_answers(rows, ["No.", "no", "No.", "Sì."]))
    assert found == {"a": [0.5], "b": [0.5], "c": [1.0], "d": [1.0]}


def test_each_answer_is_scored_in_the_language_of_its_thread() -> None:
    spanish, italian = "La biblioteca está en la plaza mayor.", "La biblioteca è nella piazza principale della città."
    rows = [thread("a"), thread("b"), thread("c", language="it"), thread("d", language="it")]
    scores = texts.score_answers(rows, [spanish, italian, spanish, italian])
    assert values_of("right_language", scores) == {"a": [1.0, 1.0], "b": [0.0, 1.0], "c": [0.0, 1.0], "d": [1.0, 1.0]}
    assert {(score.id, score.language, score.group) for score in scores} == {
        ("a", "es", "ga"), ("b", "es", "gb"), ("c", "it", "gc"), ("d", "it", "gd")
    }  # fmt: skip
    assert {score.id: score.text for score in scores if score.text} == {
        "a": spanish, "b": italian, "c": spanish, "d": italian
    }  # fmt: skip


def test_similarity_to_the_expert_is_the_chrf_of_sacrebleu() -> None:
    from sacrebleu import corpus_chrf

    references, answers = ["Está en la plaza mayor.", "No lo sé, amigo."], ["Está en la plaza.", "Sí."]
    rows = [thread(f"{n}", reference) for n, reference in enumerate(references)]
    items = [item for item in texts.score_answers(rows, answers) if item.figure == "chrf_to_expert"]
    summed = [sum(column) for column in zip(*(item.values for item in items), strict=True)]
    expected = corpus_chrf(answers, [references], word_order=2).score
    assert overlap.corpus_score("chrf", summed) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("text", "count", "first"),
    [
        ("Uno, dos. ¡Tres! Cuatro.", 2, "Uno, dos"),
        ("Uno, dos. ¡Tres!", 3, "Uno, dos. ¡Tres"),  # as of a longer text: the mark may tell the language
        ("Uno, dos.", 9, "Uno, dos."),
        ("Uno, dos.", 0, ""),
        ("…", 3, "…"),
        ("你好你好", 3, "你好你"),
    ],
)
def test_truncation_to_words(text: str, count: int, first: str) -> None:
    assert languages.truncate_words(text, count) == first
    assert len(languages.split_words(first)) <= count


def score_at_equal_lengths(
    figure: str, ours: dict[str, str], theirs: dict[str, str], languages_of: dict[str, str] | None = None
) -> list[list[list[float]]]:
    """The values of a figure for each side, whose answers are given by thread."""
    codes = languages_of or dict.fromkeys(ours, "es")
    threads = {name: thread(name, "La biblioteca está en la plaza.", language=codes[name]) for name in ours}
    items = [SampleScore(id=name, language=codes[name], group=name, figure=figure, values=[], text="") for name in ours]
    sides = texts.score_at_equal_lengths(figure, items, (ours, theirs), threads)
    assert [item.id for side in sides for item in side] == [*ours, *ours]
    return [[item.values for item in side] for side in sides]


def test_at_equal_lengths_a_long_answer_repeats_no_more_than_a_short_one() -> None:
    long = {"a": "uno dos tres cuatro uno dos tres cuatro uno dos tres cuatro", "b": "no no no no no no no no"}
    short = {"a": "El sol sale hoy.", "b": "Sí."}
    assert [texts.repetition_rate(text) for text in long.values()] == [pytest.approx(0.6), pytest.approx(5 / 6)]
    # "uno dos tres cuatro" repeats nothing; of b one answer is too short to tell
    assert score_at_equal_lengths("repetition", short, long) == [[[0.0, 1.0], [0.0, 0.0]]] * 2


def test_at_equal_lengths_the_language_is_that_of_the_first_words() -> None:
    short = {"a": "The library is over there."}
    long = {"a": "La biblioteca está en la plaza. " + "The library is in the main square of the town. " * 3}
    assert score_at_equal_lengths("right_language", short, long) == [[[0.0, 1.0]], [[1.0, 1.0]]]


def test_at_equal_lengths_each_answer_is_in_the_language_of_its_thread() -> None:
    answers = dict.fromkeys("ab", "The library is over there."), dict.fromkeys("ab", "La biblioteca está en la plaza.")
    assert score_at_equal_lengths("right_language", *answers, {"a": "es", "b": "en"}) == [
        [[0.0, 1.0], [1.0, 1.0]],
        [[1.0, 1.0], [0.0, 1.0]],
    ]


def test_at_equal_lengths_a_long_answer_is_no_more_similar_to_the_expert_s() -> None:
    short, long = {"a": "La biblioteca está, sí"}, {"a": "La biblioteca está en la plaza."}
    ours, theirs = score_at_equal_lengths("chrf_to_expert", short, long)
    expected = overlap.segment_statistics(
        "chrf", ["La biblioteca está, sí", "La biblioteca está en"], ["La biblioteca está en la plaza."] * 2, "es"
    )
    assert [*ours, *theirs] == expected


def test_at_equal_lengths_the_control_is_cut_as_well() -> None:
    rows = [
        thread("a", "La biblioteca está en la plaza.", "¿Dónde?"),
        thread("b", "Tengo tres gatos y un perro.", "¿Cuántos?"),
        thread("c", "Tengo tres gatos y una casa muy grande.", "¿Dónde?"),
    ]
    long = {row.id: f"{row.expert} Tengo tres gatos." for row in rows}
    short = {row.id: row.expert for row in rows}
    items = [item for item in texts.score_answers(rows, list(long.values())) if item.figure == "chrf_mismatched"]
    assert [item.id for item in items] == ["a", "b", "c"]
    ours, theirs = texts.score_at_equal_lengths("chrf_mismatched", items, (long, short), {row.id: row for row in rows})
    others = [rows[1].expert, rows[0].expert, rows[1].expert]
    cut = [row.expert.rstrip(".") for row in rows]  # both answers, cut after the last word of the short one
    expected = overlap.segment_statistics("chrf", cut * 2, others * 2, "es")
    assert [item.values for item in [*ours, *theirs]] == expected
    assert [item.values for item in items] != [item.values for item in ours]


def pick(rows: list[Thread]) -> list[str | None]:
    """The ids of the threads that are the controls of these."""
    found = texts.pick_mismatched([texts.exchange(row) for row in rows])
    return [None if place is None else rows[place].id for place in found]


def test_the_control_is_the_expert_s_answer_to_another_question() -> None:
    rows = [
        thread("a", "Está en la plaza.", "¿Dónde?"),
        thread("b", "Está en la playa.", "¿Dónde?"),  # the same question
        thread("c", "¡Está en la plaza!", "¿Qué?"),  # the same words as the answer of a
        thread("d", "Tengo tres gatos, y un perro.", "¿Cuántos?"),
    ]
    assert pick(rows) == ["d", "c", "b", "c"]
    assert pick(rows[:2]) == [None, None]
    assert pick([row.model_copy(update={"group": "g"}) for row in rows]) == [None] * 4
    figures = {item.figure for item in texts.score_answers(rows[:2], ["x", "y"])}
    assert "chrf_mismatched" not in figures
    assert "chrf_to_expert" in figures


def test_the_control_is_in_the_language_of_the_thread() -> None:
    """The Italian answers are the nearest in length to the Spanish ones, and no control for them."""
    rows = [
        thread("a", "Está en la plaza.", "¿Dónde?"),
        thread("b", "Tengo tres gatos, y un perro muy grande.", "¿Cuántos?"),
        thread("c", "Sono in piazza...", "Dove?", language="it"),
        thread("d", "Ho tre gatti, e anche un cane bello grande.", "Quanti?", language="it"),
        thread("e", "Er ist im Garten.", "Wo?", language="de"),
    ]
    assert pick(rows) == ["b", "a", "d", "c", None]
    scores = texts.score_answers(rows, ["Está aquí."] * 5)
    assert values_of("chrf_to_expert", scores) == {row.id: chrf("Está aquí.", row.reference) for row in rows}
    others = {"a": rows[1], "b": rows[0], "c": rows[3], "d": rows[2]}
    assert values_of("chrf_mismatched", scores) == {
        name: chrf("Está aquí.", other.reference) for name, other in others.items()
    }


def test_the_medoid_is_the_most_similar_to_all() -> None:
    # each of the first two is most similar to the other; chrF++ weighs recall, so the longer one wins
    assert texts.find_medoid(["No lo sé, amigo.", "No lo sé, amigo mío.", "Hay tres gatos."]) == "No lo sé, amigo mío."


@pytest.mark.parametrize(("others", "found"), [(98, True), (99, False)])
def test_the_medoid_is_sought_among_a_hundred(others: int, found: bool) -> None:
    longest = "No lo sé, amigo mío, no lo sé de verdad."
    unlike = [chr(0x4E00 + number) for number in range(others)]
    assert (texts.find_medoid([*unlike, "No lo sé.", longest]) == longest) == found
