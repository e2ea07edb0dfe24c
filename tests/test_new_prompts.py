"""New prompts: what a model is asked, what becomes of its lists, and near copies."""

from collections.abc import Sequence
from typing import Any

import pytest
from conftest import make_thread

from mothertongue import new_prompts
from mothertongue.chat import Chat
from mothertongue.errors import BadInput
from mothertongue.new_prompts import NewPrompt
from mothertongue.params import Filtered
from mothertongue.records import RowCounts
from mothertongue.sampling import Completion, Generation


class Listing:
    """Stands for a model that goes on with a list."""

    def __init__(self, chat: Chat, *completions: tuple[str, Any]) -> None:
        self.chat, self.completions = chat, completions
        self.requests: Sequence[Generation] = []

    def generate(self, requests: Sequence[Generation], label: str) -> list[Completion]:
        assert label == "round 1 new prompts"
        self.requests = requests
        return [Completion(text, 9, finish) for text, finish in self.completions]


FILTERED = Filtered(min_language=0.2, min_words=1, max_words=8, min_letters=0.5)
THREADS = [make_thread(f"¿Pregunta {n} <|tool|>?", "Sí.") for n in range(12)]
OTHERS = [
    make_thread("¿Guardada?", "Sí.", split="test"),
    make_thread("¿Una?", "Sí.", "¿Y otra?", "No."),
    make_thread("¿Nueva?", "Sí.").model_copy(update={"reference": None}),
]


def test_a_model_is_asked_after_eight_opening_questions_of_people(chat: Chat) -> None:
    model: Any = Listing(chat, ("¿Uno?", "stop"), ("¿Dos?", "stop"))
    found = new_prompts.write_prompts([*THREADS, *OTHERS], 2, 7, model, "round 1")
    assert [row for row, _ in found] == [NewPrompt(prompt=text, language="es") for text in ("¿Uno?", "¿Dos?")]
    again: Any = Listing(chat, ("¿Uno?", "stop"), ("¿Dos?", "stop"))
    new_prompts.write_prompts([*OTHERS, *THREADS[::-1]], 2, 7, again, "round 1")
    assert again.requests == model.requests
    assert len({request.seed for request in model.requests}) == 2
    for request in model.requests:
        assert (request.temperature, request.top_p) == (0.6, 0.9)
        opening = chat.tokenizer.decode(request.prompt).partition("<|im_start|>assistant\n")[2]
        lines = opening.split("\n")
        assert [line.partition(" ")[0] for line in lines] == [f"{n}." for n in range(1, 10)]
        assert (
            len({line.partition(" ")[2] for line in lines[:8]} & {f"¿Pregunta {n} < |tool|>?" for n in range(12)}) == 8
        )
    assert model.requests[0].prompt != model.requests[1].prompt


@pytest.mark.parametrize(
    ("text", "finish", "prompt", "ended"),
    [
        (' "¿Qué hora es?"\n10. ¿Y ahora?', "length", "¿Qué hora es?", "stop"),
        ("¿Qué hora es?", "stop", "¿Qué hora es?", "stop"),
        ("¿Qué hora es en", "length", "¿Qué hora es en", "length"),
        ("9. **Dime 3 cosas.**", "stop", "Dime 3 cosas.", "stop"),
        ("2 + 2 son cuatro, ¿y 3 + 3?", "stop", "2 + 2 son cuatro, ¿y 3 + 3?", "stop"),
        ("1492: ¿qué pasó ese año?", "stop", "1492: ¿qué pasó ese año?", "stop"),
        ('"Hola", ¿cómo se dice?', "stop", '"Hola", ¿cómo se dice?', "stop"),
        ("", "stop", "", "stop"),
    ],
)
def test_the_first_line_is_taken(chat: Chat, text: str, finish: str, prompt: str, ended: str) -> None:
    model: Any = Listing(chat, (text, finish))
    assert new_prompts.write_prompts(THREADS, 1, 7, model, "round 1") == [
        (NewPrompt(prompt=prompt, language="es"), ended)
    ]


def test_nothing_to_write_after(chat: Chat) -> None:
    model: Any = Listing(chat)
    with pytest.raises(BadInput) as caught:
        new_prompts.write_prompts(OTHERS, 1, 7, model, "round 1")
    assert caught.value.message == ("no opening question in split train to write new prompts after; add conversations")


@pytest.mark.parametrize(
    ("text", "finish", "reason"),
    [
        ("¿Cómo se hace el pan?", "stop", None),
        ("…", "stop", "empty"),
        ("¿Cómo se hace", "length", "cut"),
        ("¿Cómo se h\ufffd", "stop", "broken"),
        ("¿Por qué es azul el cielo de la mañana?", "stop", "too_long"),
        ("2 + 2 = ?", "stop", "few_letters"),
        ("Why does the sky look blue?", "stop", "other_language"),
        ("dónde está LA biblioteca", "stop", "held_out"),
        ("¿Qué bebe hoy el gato?", "stop", "near_copy"),
        ("¿Qué hora es ya?", "stop", "near_copy"),  # of the new one before it
    ],
)
def test_reasons(text: str, finish: str, reason: str | None) -> None:
    before = NewPrompt(prompt="¿Qué hora es?", language="es")
    asked = NewPrompt(prompt=text, language="es")
    kept, counts = new_prompts.select_prompts(
        [(before, "stop"), (asked, finish)], ["¿Qué bebe el gato?"], ["¿Dónde está la biblioteca?"], FILTERED
    )
    assert kept == ([before] if reason else [before, asked])
    reasons = ("empty", "cut", "broken", "too_long", "few_letters", "other_language", "held_out", "near_copy")
    none = dict.fromkeys(reasons, 0)
    assert counts == RowCounts(total=2, kept=len(kept), dropped=none | ({reason: 1} if reason else {}))


@pytest.mark.parametrize(
    ("one", "other", "common", "copy"),
    [
        ("a b c d", "a b c d", 4, True),
        ("a b c d", "d c b a", 1, False),  # the same words in another order
        ("a x b y c", "a b c", 3, True),  # 6 / 8
        ("a b c d e f g x y z", "a b c d e f g u v w", 7, False),  # exactly 0.7
        ("a b", "c d", 0, False),
    ],
)
def test_likeness_is_rouge_l(one: str, other: str, common: int, copy: bool) -> None:
    assert new_prompts.count_common(one.split(), other.split()) == common
    assert new_prompts.count_common(other.split(), one.split()) == common
    assert new_prompts.is_near_copy(one.split(), [["z"], other.split()]) is copy
