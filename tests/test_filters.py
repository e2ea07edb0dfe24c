"""Filters: each reason to drop a conversation, its limits, and several languages."""

import pytest

from mothertongue import filters
from mothertongue.params import Filtered
from mothertongue.records import Conversation, Message, Rated, RatedTurn, RowCounts

LIMITS = Filtered(min_language=0.5, min_words=3, max_words=12, min_letters=0.6)


def conversation(*turns: str, identity: str = "a", language: str = "es") -> Conversation:
    messages = [Message(role="assistant" if i % 2 else "user", content=turn) for i, turn in enumerate(turns)]
    return Conversation(id=identity, source="s", language=language, messages=messages)


ASKED = "¿Dónde está la biblioteca?"


@pytest.mark.parametrize(
    ("turns", "reason"),
    [
        ((ASKED, "Está en la plaza mayor."), None),
        ((ASKED, "Está en Madrid.", "¿Dónde?", "En la plaza de España."), None),
        ((ASKED, "Está en la plaza mayor.", "¿Dónde?", "En Madrid."), "too_short"),  # each turn, not their mean
        ((ASKED,), "no_answer"),
        ((ASKED, "En Madrid."), "too_short"),
        ((ASKED, "   "), "too_short"),
        ((ASKED, "La biblioteca está en la plaza mayor, al lado del viejo teatro romano."), "too_long"),
        ((ASKED * 4, "Está en la plaza."), "too_long"),  # the question counts, too
        ((ASKED, "calle 12345678, 12345678901 n.º 1234567890 +++++"), "few_letters"),
        ((ASKED, "The library is in the main square over there."), "other_language"),
        (("Where is the library, please?", "It is in the main square."), "other_language"),
    ],
)
def test_reasons(turns: tuple[str, ...], reason: str | None) -> None:
    assert filters.drop_reason(conversation(*turns), LIMITS) == reason


def rated(*others: tuple[str, float]) -> Conversation:
    """A conversation with those answers beside its own, which has the score 1."""
    answers = [Rated(text=text, score=score) for text, score in (("Está en la plaza mayor.", 1.0), *others)]
    turn = RatedTurn(turn=1, answers=answers)
    return conversation(ASKED, answers[0].text).model_copy(update={"rated": [turn]})


def test_the_filters_do_not_look_at_rated_answers() -> None:
    rows = [rated(("No.", 0.0)), rated(("I do not know where the library is.", 0.0))]
    rows += [rated(("No.", 0.5)), rated((" No. ", 0.0)), rated(), conversation(ASKED, "Está en la plaza mayor.")]
    kept, counts = filters.filter_conversations(rows, LIMITS)
    assert kept == [*rows[:3], *rows[4:]]
    assert {reason: count for reason, count in counts.dropped.items() if count} == {"duplicate": 1}


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        # eight words, seven of them the assistant's; each limit just holds, and then does not
        ({"min_words": 7}, None),
        ({"min_words": 8}, "too_short"),
        ({"max_words": 7}, None),
        ({"max_words": 6}, "too_long"),
        ({"min_letters": 0.85}, None),
        ({"min_letters": 1.0}, "few_letters"),
        ({"min_language": 0.0}, None),
    ],
)
def test_limits(limits: dict[str, float], reason: str | None) -> None:
    row = conversation("¿Quieres?", "Sí, un café con leche muy caliente.")
    wide = {"min_language": 0.2, "min_words": 1, "max_words": 100, "min_letters": 0.1}
    assert filters.drop_reason(row, Filtered.model_validate({**wide, **limits})) == reason


@pytest.mark.parametrize(
    ("text", "reason"),
    [(ASKED, None), (ASKED * 4, "too_long"), ("123 456", "few_letters"), ("Where?", "other_language")],
)
def test_a_prompt_needs_no_answer(text: str, reason: str | None) -> None:
    row = conversation(text).model_copy(update={"unanswered": True})
    assert filters.drop_reason(row, LIMITS) == reason
    assert filters.drop_reason(conversation(text), LIMITS) == "no_answer"
    kept, _ = filters.filter_conversations([conversation(text), row], LIMITS)
    assert kept == ([] if reason else [row])


def test_every_drop_is_counted_by_its_first_reason() -> None:
    good = conversation(ASKED, "Está en la plaza mayor.")
    rows = [
        good,
        conversation(f"{ASKED} ", "Está  en la plaza\nmayor.", identity="b"),  # the same but for white space
        conversation(ASKED.lower(), "Está en la plaza mayor.", identity="c"),  # not the same
        conversation(ASKED),
        conversation(ASKED),  # a duplicate of what is dropped for another reason
        conversation(ASKED, "The library is in the main square over there."),
    ]
    kept, counts = filters.filter_conversations(rows, LIMITS)
    assert [row.id for row in kept] == ["a", "c"]
    dropped = {"duplicate": 2, "no_answer": 1, "too_short": 0, "too_long": 0, "few_letters": 0, "other_language": 1}
    assert counts == RowCounts(total=6, kept=2, dropped=dropped)
    assert set(dropped) == set(filters.REASONS)


@pytest.mark.parametrize(
    ("text", "share"), [("", 0.0), (" \n", 0.0), ("ab 12", 0.5), ("¿Sí?", 0.5), ("नमस्ते", 1.0), ("cafe\u0301", 1.0)]
)
def test_letters(text: str, share: float) -> None:
    assert filters.letter_share(text) == share


ITALIAN = ("Dov'è la biblioteca?", "Si trova nella piazza principale.")


@pytest.mark.parametrize(
    ("turns", "language", "reason"),
    [
        (ITALIAN, "it", None),
        (ITALIAN, "es", "other_language"),
        ((ASKED, "Está en la plaza mayor."), "it", "other_language"),
        ((ASKED, "Está en la plaza mayor."), "es", None),
    ],
)
def test_a_conversation_should_be_in_the_language_of_its_row(
    turns: tuple[str, ...], language: str, reason: str | None
) -> None:
    assert filters.drop_reason(conversation(*turns, language=language), LIMITS) == reason


def test_duplicates_are_of_one_language() -> None:
    limits = LIMITS.model_copy(update={"min_language": 0.0})
    turns = ("Hola, hola, hola", "Pizza, pasta, radio")
    rows = [
        conversation(*turns, identity=f"{language}{number}", language=language)
        for number in range(2)
        for language in ("es", "it", "pt")
    ]
    kept, counts = filters.filter_conversations(rows, limits)
    assert [row.id for row in kept] == ["es0", "it0", "pt0"]
    assert counts.dropped == dict.fromkeys(filters.REASONS, 0) | {"duplicate": 3}
    assert (counts.total, counts.kept) == (6, 3)


def test_several_languages_are_kept_in_their_order() -> None:
    rows = [
        conversation(*ITALIAN, identity="1", language="it"),
        conversation(ASKED, "Está en la plaza mayor.", identity="2"),
        conversation(*ITALIAN, identity="3"),
    ]
    kept, counts = filters.filter_conversations(rows, LIMITS)
    assert kept == rows[:2]
    assert counts.dropped == dict.fromkeys(filters.REASONS, 0) | {"other_language": 1}
