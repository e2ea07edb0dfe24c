"""One row per reason to drop a conversation, and per reason not to."""

import pytest

from mothertongue import filters
from mothertongue.errors import BadInput
from mothertongue.params import Filtered
from mothertongue.records import Conversation, Message, Tally

LIMITS = Filtered(min_language=0.5, min_words=3, max_words=12, min_letters=0.6)


def conversation(*turns: str, identity: str = "a") -> Conversation:
    messages = [Message(role="assistant" if i % 2 else "user", content=turn) for i, turn in enumerate(turns)]
    return Conversation(id=identity, source="s", messages=messages)


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
    assert filters.refusal(conversation(*turns), LIMITS, "es") == reason


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
    assert filters.refusal(row, Filtered.model_validate({**wide, **limits}), "es") == reason


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
    kept, tally = filters.kept(rows, LIMITS, "es")
    assert [row.id for row in kept] == ["a", "c"]
    dropped = {"duplicate": 2, "no_answer": 1, "too_short": 0, "too_long": 0, "few_letters": 0, "other_language": 1}
    assert tally == Tally(taken=6, kept=2, dropped=dropped)
    assert set(dropped) == set(filters.REASONS)


@pytest.mark.parametrize(
    ("text", "share"), [("", 0.0), (" \n", 0.0), ("ab 12", 0.5), ("¿Sí?", 0.5), ("नमस्ते", 1.0), ("cafe\u0301", 1.0)]
)
def test_letters(text: str, share: float) -> None:
    assert filters.letters(text) == share


def test_an_unknown_language_stops_before_the_first_row() -> None:
    with pytest.raises(BadInput, match=r"^params.yaml: language: unknown language 'xx'; take one of af, am, ar, "):
        filters.kept([], LIMITS, "xx")
