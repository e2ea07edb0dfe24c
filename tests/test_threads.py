"""Threads: prompts and references, what is dropped, and splits."""

from collections import Counter

import pytest

from mothertongue import threads
from mothertongue.params import Threads
from mothertongue.records import Conversation, Message, Rated, RatedTurn, Thread

SHARES = Threads(validation=0.2, test=0.3)
ROLES = {"s": "system", "u": "user", "a": "assistant"}


def conversation(*turns: str, identity: str = "a", language: str = "es") -> Conversation:
    """Turns as "u: Hola", "a: Buenas", "s: ..."."""
    messages = [Message.model_validate({"role": ROLES[t[0]], "content": t[3:]}) for t in turns]
    return Conversation(id=identity, source="s", language=language, messages=messages)


def rows(count: int) -> list[Conversation]:
    return [conversation(f"u: pregunta {n}", f"a: respuesta {n}", identity=f"{n:05}") for n in range(count)]


def shown(row: Thread) -> str:
    return " / ".join([*(f"{m.role[0]}: {m.content}" for m in row.prompt), f"-> {row.reference}"])


@pytest.mark.parametrize(
    ("turns", "expected", "dropped"),
    [
        (("u: A", "a: b"), ["u: A / -> b"], {}),
        (("u: A", "a: b", "u: C", "a: d"), ["u: A / -> b", "u: A / a: b / u: C / -> d"], {}),
        (("s: S", "u: A", "a: b"), ["s: S / u: A / -> b"], {}),
        (("u: A", "a: b", "u: C"), ["u: A / -> b"], {}),
        (("u: A",), [], {}),
        # the assistant speaks first, or twice
        (("a: b", "u: C", "a: d"), ["a: b / u: C / -> d"], {"opening": 1}),
        (("s: S", "a: b"), [], {"opening": 1}),
        (("u: A", "a: b", "a: c"), ["u: A / -> b"], {"opening": 1}),
        (("u: A", "a:   "), [], {"empty": 1}),
    ],
)
def test_every_assistant_turn_is_a_thread(turns: tuple[str, ...], expected: list[str], dropped: dict[str, int]) -> None:
    found, counts = threads.extract_threads([conversation(*turns)], SHARES)
    assert [shown(row) for row in found] == expected
    assert +Counter(counts.dropped) == dropped
    assert counts.total == sum(turn[0] == "a" for turn in turns)
    assert counts.kept == len(expected)


def split(opening: str) -> str:
    return threads.assign_split(conversation(f"u: {opening}"), SHARES)


HELD_OUT = next(f"pregunta {n}" for n in range(100) if split(f"pregunta {n}") == "test")
LEARNED = next(f"pregunta {n}" for n in range(100) if split(f"pregunta {n}") == "train")


@pytest.mark.parametrize(
    ("opening", "kept", "dropped"),
    [(LEARNED, ["uno", "dos"], {"repeated": 1}), (HELD_OUT, ["uno"], {"repeated": 1, "repeated_held_out_prompt": 1})],
)
def test_branches(opening: str, kept: list[str], dropped: dict[str, int]) -> None:
    """Two answers to one question are two things to learn, but one thing to measure."""
    tree = [
        conversation(f"u: {opening}", "a: uno", identity="1"),
        conversation(f"u: {opening}", "a: uno", "u: Gracias", identity="2"),
        conversation(f"u: {opening}", "a: dos", identity="3"),
    ]
    found, counts = threads.extract_threads(tree, SHARES)
    assert [row.reference for row in found] == kept
    assert +Counter(counts.dropped) == dropped
    assert counts.total == 3


@pytest.mark.parametrize(
    "variant", ["PREGUNTA {}", " pregunta  {} ", "Pregunta\n{}"], ids=["letter case", "spaces", "line break"]
)
def test_the_same_opening_is_in_the_same_split(variant: str) -> None:
    numbers = range(200)
    assert [split(variant.format(n)) for n in numbers] == [split(f"pregunta {n}") for n in numbers]
    assert len({split(f"pregunta {n}") for n in numbers}) == 3
    # ... whatever the instructions before it and the turns after it
    for n in numbers:
        longer = conversation("s: Sé breve.", f"u: pregunta {n}", "a: Sí.", "u: Otra cosa")
        assert threads.assign_split(longer, SHARES) == split(f"pregunta {n}")


@pytest.mark.parametrize(
    ("question", "answer", "dropped"),
    [
        ("¿Y luego?", "Nada más.", {"held_out": 1}),
        ("y LUEGO", "nada más", {"held_out": 1}),  # the same words
        ("¿Y luego?", "Mucho más.", {}),
        ("¿Y ahora?", "Nada más.", {"held_out_answer": 1}),
        ("¿Y ahora?", "¡NADA más", {"held_out_answer": 1}),
        ("¿Y ahora?", "Nada.", {}),
        ("¿Y ahora?", "más nada", {}),
    ],
)
def test_a_held_out_answer_is_dropped_from_training(question: str, answer: str, dropped: dict[str, int]) -> None:
    """Conversations that open differently may still end alike."""
    both = [
        conversation(f"u: {HELD_OUT}", "a: uno", "u: ¿Y luego?", "a: Nada más.", identity="1"),
        conversation(f"u: {LEARNED}", "a: dos", f"u: {question}", f"a: {answer}", identity="2"),
    ]
    found, counts = threads.extract_threads(both, SHARES)
    assert [row.reference for row in found if row.split == "test"] == ["uno", "Nada más."]
    assert +Counter(counts.dropped) == dropped
    assert (counts.total, counts.kept) == (4, len(found)) == (4, 4 - sum(dropped.values()))


def prompt(text: str, identity: str = "p") -> Conversation:
    return conversation(f"u: {text}", identity=identity).model_copy(update={"unanswered": True})


@pytest.mark.parametrize(
    ("text", "kept", "dropped"),
    [
        ("Una pregunta nueva", True, {}),
        (f"¿{HELD_OUT}?", False, {"held_out": 1}),  # it opens a held-out conversation
        (LEARNED, True, {}),
        (next(f"pregunta {n}" for n in range(100, 200) if split(f"pregunta {n}") == "test"), True, {}),
    ],
)
def test_a_prompt_without_an_answer_is_to_train_on(text: str, kept: bool, dropped: dict[str, int]) -> None:
    """Wherever its words would have been drawn to."""
    people = [conversation(f"u: {opening}", "a: uno", identity=opening) for opening in (HELD_OUT, LEARNED)]
    people[1] = conversation(f"u: {LEARNED}", "a: dos", identity="2")
    found, counts = threads.extract_threads([*people, prompt(text)], SHARES)
    new = [row for row in found if row.reference is None]
    assert [(row.split, row.prompt[0].content) for row in new] == [("train", text)] * kept
    assert +Counter(counts.dropped) == dropped
    assert (counts.total, counts.kept) == (3, len(found)) == (3, 2 + kept)
    with pytest.raises(ValueError, match="has no expert's answer"):
        _ = threads.extract_threads([prompt("Otra")], SHARES)[0][0].expert


def test_the_same_prompt_of_two_sources_is_one() -> None:
    found, counts = threads.extract_threads([prompt("Otra", "p"), prompt("Otra", "q")], SHARES)
    assert len(found) == 1
    assert +Counter(counts.dropped) == {"repeated": 1}


VALIDATED = next(f"pregunta {n}" for n in range(100) if split(f"pregunta {n}") == "validation")


@pytest.mark.parametrize(
    ("answers", "splits", "dropped"),
    [
        # the answers of test, of validation and of training
        (("uno", "dos", "tres"), "test validation train", {}),
        (("uno", "Uno.", "tres"), "test train", {"held_out_answer": 1}),
        (("uno", "dos", "¿Uno?"), "test validation", {"held_out_answer": 1}),
        (("uno", "dos", "DOS"), "test validation", {"held_out_answer": 1}),
        (("uno", "uno", "uno"), "test", {"held_out_answer": 2}),
        # without words the texts themselves are compared
        (("👍", "dos", "👍"), "test validation", {"held_out_answer": 1}),
        (("👍", "dos", "👎"), "test validation train", {}),
    ],
)
def test_an_answer_is_in_one_split(answers: tuple[str, ...], splits: str, dropped: dict[str, int]) -> None:
    asked = zip((HELD_OUT, VALIDATED, LEARNED), answers, strict=True)
    found, counts = threads.extract_threads(
        [conversation(f"u: {question}", f"a: {answer}", identity=str(n)) for n, (question, answer) in enumerate(asked)],
        SHARES,
    )
    assert [row.split for row in found] == splits.split()
    assert +Counter(counts.dropped) == dropped
    assert counts.total == counts.kept + sum(dropped.values())


def rated(opening: str, good: str, *others: str, identity: str = "a") -> Conversation:
    """A conversation with several answers, of which the first is preferred."""
    answers = [Rated(text=good, score=1.0), *(Rated(text=text, score=0.0) for text in others)]
    row = conversation(f"u: {opening}", f"a: {good}", identity=identity)
    return row.model_copy(update={"rated": [RatedTurn(turn=1, answers=answers)]})


def test_the_thread_of_a_rated_turn_has_its_answers() -> None:
    row = rated(LEARNED, "uno", "dos")
    more = [Message(role="user", content="¿Y?"), Message(role="assistant", content="tres")]
    found, _ = threads.extract_threads([row.model_copy(update={"messages": [*row.messages, *more]})], SHARES)
    assert {thread.reference: [(each.text, each.score) for each in thread.rated] for thread in found} == {
        "uno": [("uno", 1.0), ("dos", 0.0)],
        "tres": [],
    }


@pytest.mark.parametrize(
    ("opening", "kept", "dropped"),
    [
        # each preference is a thread of its own, and the same one only once; held out a question is there once
        (LEARNED, [["uno", "dos"], ["uno", "tres"], []], {"repeated": 1}),
        (HELD_OUT, [["uno", "dos"]], {"repeated": 1, "repeated_held_out_prompt": 2}),
    ],
)
def test_two_preferences_about_a_prompt_are_not_mixed(
    opening: str, kept: list[list[str]], dropped: dict[str, int]
) -> None:
    same = [rated(opening, "uno", other, identity=f"{n}") for n, other in enumerate(("dos", "dos", "tres"))]
    found, counts = threads.extract_threads([*same, conversation(f"u: {opening}", "a: uno", identity="9")], SHARES)
    assert [[each.text for each in row.rated] for row in found] == kept
    assert len({row.id for row in found}) == len(kept)
    assert +Counter(counts.dropped) == dropped


@pytest.mark.parametrize(
    ("held_out", "learned", "dropped"),
    [
        (("uno", "dos"), ("tres", "cuatro"), {}),
        (("uno", "dos"), ("tres", "¡Uno!"), {"held_out_answer": 1}),  # the expert's there, rejected here
        (("uno", "dos"), ("tres", "dos"), {"held_out_answer": 1}),  # rejected in both
        (("uno", "dos"), ("Dos", "cuatro"), {"held_out_answer": 1}),
        (("uno", "dos"), ("dos",), {"held_out_answer": 1}),
    ],
)
def test_no_rated_answer_is_in_two_splits(
    held_out: tuple[str, ...], learned: tuple[str, ...], dropped: dict[str, int]
) -> None:
    rows = [rated(HELD_OUT, *held_out, identity="1"), rated(LEARNED, *learned, identity="2")]
    found, counts = threads.extract_threads(rows, SHARES)
    assert [row.split for row in found] == ["test"] + ["train"] * (not dropped)
    assert +Counter(counts.dropped) == dropped


def test_an_answer_may_be_twice_in_a_split() -> None:
    for opening in (HELD_OUT, LEARNED):
        both = [
            conversation(f"u: {opening}", "a: uno", identity="1"),
            conversation(f"u: {opening}", "a: dos", "u: ¿Y luego?", "a: Uno.", identity="2"),
        ]
        found, counts = threads.extract_threads(both, SHARES)
        assert counts.dropped["held_out_answer"] == 0
        assert "Uno." in {row.reference for row in found}


def test_branches_of_a_tree_are_one_group() -> None:
    tree = [
        conversation("s: S", "u: raíz", "a: uno", "u: más", "a: tres", identity="1"),
        conversation("u: Raíz ", "a: dos", identity="2"),
    ]
    found, _ = threads.extract_threads([*tree, conversation("u: otra", "a: cuatro", identity="3")], SHARES)
    assert [row.conversation for row in found] == ["1", "1", "2", "3"]
    one, two, three, other = [row.group for row in found]
    assert one == two == three != other


def test_a_conversation_that_is_added_moves_no_other() -> None:
    before, _ = threads.extract_threads(rows(200), SHARES)
    new = conversation("u: otra", "a: cosa", identity="00100b")
    after, _ = threads.extract_threads([new, *reversed(rows(200))], SHARES)
    assert len(after) == len(before) + 1
    assert [row for row in after if row.conversation != new.id] == before


@pytest.mark.parametrize(("validation", "test"), [(0.2, 0.3), (0.0, 0.5), (0.5, 0.1)], ids=lambda share: f"{share}")
def test_shares(validation: float, test: float) -> None:
    found, _ = threads.extract_threads(rows(2000), Threads(validation=validation, test=test))
    counts = Counter(row.split for row in found)
    for name, share in (("validation", validation), ("test", test)):
        # four standard deviations of a binomial count
        assert abs(counts[name] - 2000 * share) <= 4 * (2000 * share * (1 - share)) ** 0.5
    assert counts.total() == 2000


def test_a_larger_test_share_only_adds_to_test() -> None:
    small, large = (
        {
            row.id
            for row in threads.extract_threads(rows(300), Threads(validation=0.1, test=test))[0]
            if row.split == "test"
        }
        for test in (0.2, 0.4)
    )
    assert small < large


def test_a_thread_has_the_language_of_its_conversation() -> None:
    both = [
        conversation("u: ¿Y luego?", "a: Nada más.", "u: ¿Y ahora?", "a: Todo.", identity="1"),
        conversation("u: E poi?", "a: Nient'altro.", identity="2", language="it"),
    ]
    found, counts = threads.extract_threads(both, SHARES)
    assert [(row.conversation, row.language) for row in found] == [("1", "es"), ("1", "es"), ("2", "it")]
    assert +Counter(counts.dropped) == {}


def test_the_split_of_an_opening_does_not_depend_on_its_language() -> None:
    for number in range(50):
        spanish, italian = (
            conversation(f"u: pregunta {number}", "a: no", language=language) for language in ("es", "it")
        )
        assert threads.assign_split(spanish, SHARES) == threads.assign_split(italian, SHARES)
