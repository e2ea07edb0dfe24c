"""The suites written for this project: enough items, no position and no length that gives the answer away."""

import itertools
from collections import Counter

import pytest
from project import ROOT

from mothertongue import benchmark, languages, suites

QUESTIONS = ROOT / "data/suites/benchmark.jsonl"
SENTENCES = suites.read_sentences(ROOT / "data/suites/translation.jsonl", "es")
each_language = pytest.mark.parametrize("language", ["es", "it"])


def test_there_are_so_many() -> None:
    rows = [row for language in ("es", "it") for row in benchmark.read(QUESTIONS, language)]
    assert len(rows) == len(QUESTIONS.read_text(encoding="utf-8").splitlines()) == 240
    assert len(SENTENCES) == 120
    assert len({row.id for row in rows}) == 240
    assert len({row.id for row in SENTENCES}) == 120


@each_language
def test_questions(language: str) -> None:
    rows = benchmark.read(QUESTIONS, language)
    assert len(rows) >= 100
    assert len({row.question for row in rows}) == len(rows)
    assert len({row.topic for row in rows}) >= 3
    for row in rows:
        assert len({choice.strip().lower() for choice in row.choices}) == 4, row.id
        assert all(text == text.strip() != "" for text in (row.question, *row.choices)), row.id
    spoken = sum(languages.is_in(f"{row.question} {' '.join(row.choices)}", language) for row in rows)
    assert spoken >= 0.97 * len(rows)


@each_language
def test_every_position_is_right_equally_often(language: str) -> None:
    rows = benchmark.read(QUESTIONS, language)
    assert Counter(row.answer for row in rows) == dict.fromkeys(range(4), len(rows) / 4)
    # ... and the places do not go round in order
    steps = Counter((b.answer - a.answer) % 4 for a, b in itertools.pairwise(rows))
    assert max(steps.values()) < len(rows) / 2


@each_language
def test_the_right_choice_is_seldom_told_by_its_length(language: str) -> None:
    rows = benchmark.read(QUESTIONS, language)
    for extreme in (max, min):
        # a chance of one among the choices of that length, summed: a guesser who goes by length alone
        right = 0.0
        for row in rows:
            sizes = [len(choice.encode()) for choice in row.choices]
            best = [place for place, size in enumerate(sizes) if size == extreme(sizes)]
            right += (row.answer in best) / len(best)
        assert 0 < right <= 0.35 * len(rows)


def test_sentences() -> None:
    for code in ("en", "es", "it"):
        texts = [row.text[code] for row in SENTENCES]
        assert len(set(texts)) == 120
        assert all(text == text.strip() for text in texts)
        assert min(len(languages.words(text)) for text in texts) >= 3
        assert sum(languages.is_in(text, code) for text in texts) >= 0.95 * 120
    assert {tuple(sorted(row.text)) for row in SENTENCES} == {("en", "es", "it")}
