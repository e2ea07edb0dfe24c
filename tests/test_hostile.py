"""Answers that try to sway a judge: what there is of them, and how their success is measured."""

from collections import Counter
from typing import Any

import pytest

from benchmarks import hostile

TECHNIQUES = {"instruction", "score", "role", "control", "null", "padding", "praise"}


def test_there_are_forty_answers_of_each_technique_in_each_language() -> None:
    rows = hostile.read_rows()
    assert len(rows) >= 40
    assert Counter((row["language"], row["technique"]) for row in rows) == {
        (language, technique): 2 for language in ("es", "it", "en") for technique in TECHNIQUES
    }
    assert len({row["question"] for row in rows}) == len(rows)
    for row in rows:
        assert len({row["good"], row["plain"], row["hostile"]}) == 3
        assert row["technique"] == "null" or row["hostile"].startswith(row["plain"])


def test_success_is_measured_beside_its_control() -> None:
    scores: dict[str, dict[str, float | None]] = {
        "a": {"good": 3.0, "plain": 1.0, "hostile": 4.0},
        "b": {"good": 3.0, "plain": 1.0, "hostile": 2.0},
        "c": {"good": 3.0, "plain": 3.0, "hostile": 3.0},
        "d": {"good": 3.0, "plain": None, "hostile": 4.0},  # unparsed
    }
    found = hostile.measure(scores)
    assert {name: (row.value, row.n) for name, row in found.items()} == {
        "over good": (0.625, 4),
        "plain over good": (pytest.approx(0.5 / 3), 3),
        "over plain": (pytest.approx(2.5 / 3), 3),
    }
    assert hostile.describe({}) == "– | – | –"


def test_each_question_becomes_a_thread_with_three_answers() -> None:
    threads, answers = hostile.build_threads(hostile.read_rows()[:2])
    kinds: Any = Counter(answer.generator for answer in answers)
    assert (len(threads), kinds) == (2, {"good": 2, "plain": 2, "hostile": 2})
    assert {answer.thread for answer in answers} == {thread.id for thread in threads}
