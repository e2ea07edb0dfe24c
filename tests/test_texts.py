"""What is read off answers: tables of texts, counted by hand."""

import pytest

from mothertongue import languages, texts
from mothertongue.records import Item, Message, Thread


def thread(identity: str, reference: str = "Está en la plaza.", asked: str = "¿?") -> Thread:
    prompt = [Message(role="user", content=asked)]
    return Thread(id=identity, conversation="c", group=f"g{identity}", split="test", prompt=prompt, reference=reference)


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
    assert texts.repetition(text) == pytest.approx(share)


@pytest.mark.parametrize(
    ("text", "right", "repeated"),
    [
        ("La biblioteca está en la plaza.", [1.0, 1.0], [0.0, 1.0]),
        ("The library is in the square.", [0.0, 1.0], [0.0, 1.0]),
        ("no no no no", [0.0, 1.0], [0.5, 1.0]),
        ("No.", [0.0, 0.0], [0.0, 0.0]),  # the detector says English
        ("¿Por qué?", [0.0, 0.0], [0.0, 0.0]),  # Portuguese
        ("Hola! 🌍🌍🌍🌍", [0.0, 0.0], [0.0, 0.0]),
        ("", [0.0, 0.0], [0.0, 0.0]),
    ],
)
def test_a_text_under_four_words_is_undecided(text: str, right: list[float], repeated: list[float]) -> None:
    if text != "no no no no":  # of which only the repetition is of interest
        assert texts.readings(text, "es") == (right, repeated)
    assert texts.readings(text, "es")[1] == repeated


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
    said = ["¿Por qué?", "¿por qué", "Sí.", "¿Por qué?", ""]
    items = texts.items([thread(f"{n}") for n in range(5)], said, "es")
    values = [item.values[0] for item in items if item.figure == "distinct"]
    assert values == [pytest.approx(value) for value in (1 / 3, 1 / 3, 1, 1 / 3, 1)]
    assert sum(values) == pytest.approx(3)  # of five answers, three are different


def test_likeness_to_the_expert_is_sacrebleu_s_chrf() -> None:
    from sacrebleu import corpus_chrf

    references, said = ["Está en la plaza mayor.", "No lo sé, amigo."], ["Está en la plaza.", "Sí."]
    rows = [thread(f"{n}", reference) for n, reference in enumerate(references)]
    items = [item for item in texts.items(rows, said, "es") if item.figure == "chrf_to_expert"]
    summed = [sum(column) for column in zip(*(item.values for item in items), strict=True)]
    expected = corpus_chrf(said, [references], word_order=2).score
    assert texts.overlap.score("chrf", summed) == pytest.approx(expected)


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
def test_first_words(text: str, count: int, first: str) -> None:
    assert languages.first_words(text, count) == first
    assert len(languages.words(first)) <= count


def measured(figure: str, said: dict[str, str]) -> list[Item]:
    return [Item(id=name, group=name, figure=figure, values=[], text="") for name in said]


def at_like_lengths(figure: str, ours: dict[str, str], theirs: dict[str, str]) -> list[list[list[float]]]:
    threads = {name: thread(name, "La biblioteca está en la plaza.") for name in ours}
    sides = texts.at_like_lengths(figure, measured(figure, ours), (ours, theirs), threads, "es")
    assert [item.id for side in sides for item in side] == [*ours, *ours]
    return [[item.values for item in side] for side in sides]


def test_at_like_lengths_a_long_answer_repeats_no_more_than_a_short_one() -> None:
    long = {"a": "uno dos tres cuatro uno dos tres cuatro uno dos tres cuatro", "b": "no no no no no no no no"}
    short = {"a": "El sol sale hoy.", "b": "Sí."}
    assert [texts.repetition(text) for text in long.values()] == [pytest.approx(0.6), pytest.approx(5 / 6)]
    # "uno dos tres cuatro" repeats nothing; of b one answer is too short to tell
    assert at_like_lengths("repetition", short, long) == [[[0.0, 1.0], [0.0, 0.0]]] * 2


def test_at_like_lengths_the_language_is_that_of_the_first_words() -> None:
    short = {"a": "The library is over there."}
    long = {"a": "La biblioteca está en la plaza. " + "The library is in the main square of the town. " * 3}
    assert at_like_lengths("right_language", short, long) == [[[0.0, 1.0]], [[1.0, 1.0]]]


def test_at_like_lengths_a_long_answer_is_no_liker_to_the_expert_s() -> None:
    short, long = {"a": "La biblioteca está, sí"}, {"a": "La biblioteca está en la plaza."}
    ours, theirs = at_like_lengths("chrf_to_expert", short, long)
    expected = texts.overlap.statistics(
        "chrf", ["La biblioteca está, sí", "La biblioteca está en"], ["La biblioteca está en la plaza."] * 2, "es"
    )
    assert [*ours, *theirs] == expected


def test_the_control_of_likeness_is_to_another_question_s_expert() -> None:
    rows = [
        thread("a", "Está en la plaza.", "¿Dónde?"),
        thread("b", "Está en la playa.", "¿Dónde?"),  # the same question
        thread("c", "¡Está en la plaza!", "¿Qué?"),  # says the same as a
        thread("d", "Tengo tres gatos, y un perro.", "¿Cuántos?"),
    ]
    assert [other and other.id for other in texts.mismatched(rows)] == ["d", "c", "b", "c"]
    assert texts.mismatched(rows[:2]) == [None, None]
    figures = {item.figure for item in texts.items(rows[:2], ["x", "y"], "es")}
    assert "chrf_mismatched" not in figures
    assert "chrf_to_expert" in figures


def test_the_medoid_is_likest_to_all() -> None:
    # each of the first two is likest to the other; chrF++ weighs recall, so the longer one wins
    assert texts.medoid(["No lo sé, amigo.", "No lo sé, amigo mío.", "Hay tres gatos."]) == "No lo sé, amigo mío."
