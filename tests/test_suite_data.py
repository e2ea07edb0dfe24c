"""The suites written for this project: enough items, no position and no length that gives the answer away."""

import itertools
import json
from collections import Counter
from pathlib import Path

import pytest
from project import ROOT

from mothertongue import languages
from mothertongue.errors import BadInput
from mothertongue.suites.data import Question, read_questions, read_sentences

QUESTIONS = ROOT / "data/suites/benchmark.jsonl"
LANGUAGES = ["es", "it", "en"]
SENTENCES = read_sentences(ROOT / "data/suites/translation.jsonl", ["es", "it", "ro"])
each_language = pytest.mark.parametrize("language", LANGUAGES)


def read_rows_of(language: str) -> list[Question]:
    return read_questions(QUESTIONS, [language])


def test_number_of_items() -> None:
    rows = read_questions(QUESTIONS, LANGUAGES)
    assert len(rows) == len(QUESTIONS.read_text(encoding="utf-8").splitlines()) == 340
    assert sorted(row.id for row in rows) == sorted(row.id for code in LANGUAGES for row in read_rows_of(code))
    assert len(SENTENCES) == 120
    assert len({row.id for row in rows}) == 340
    assert len({row.id for row in SENTENCES}) == 120


@each_language
def test_questions(language: str) -> None:
    rows = read_rows_of(language)
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
    rows = read_rows_of(language)
    assert Counter(row.answer for row in rows) == dict.fromkeys(range(4), len(rows) / 4)
    # ... and the places do not go round in order
    steps = Counter((b.answer - a.answer) % 4 for a, b in itertools.pairwise(rows))
    assert max(steps.values()) < len(rows) / 2


@each_language
def test_the_length_of_a_choice_seldom_gives_the_answer_away(language: str) -> None:
    rows = read_rows_of(language)
    for extreme in (max, min):
        # a chance of one among the choices of that length, summed: a guesser who goes by length alone
        right = 0.0
        for row in rows:
            sizes = [len(choice.encode()) for choice in row.choices]
            best = [place for place, size in enumerate(sizes) if size == extreme(sizes)]
            right += (row.answer in best) / len(best)
        assert 0 < right <= 0.35 * len(rows)


def test_sentences() -> None:
    for code in ("en", "es", "it", "ro"):
        texts = [row.text[code] for row in SENTENCES]
        assert len(set(texts)) == 120
        assert all(text == text.strip() for text in texts)
        assert min(len(languages.split_words(text)) for text in texts) >= 3
        assert sum(languages.is_in(text, code) for text in texts) >= 0.95 * 120
    assert {tuple(sorted(row.text)) for row in SENTENCES} == {("en", "es", "it", "ro")}


@pytest.mark.parametrize(
    ("codes", "kept"), [(["es"], ("en", "es")), (["it", "fr"], ("en", "it")), (["en", "es"], ("en", "es"))]
)
def test_sentences_in_some_of_the_languages(codes: list[str], kept: tuple[str, ...]) -> None:
    found = read_sentences(ROOT / "data/suites/translation.jsonl", codes)
    assert {tuple(sorted(row.text)) for row in found} == {kept}
    assert [row.text["en"] for row in found] == [row.text["en"] for row in SENTENCES]


@pytest.mark.parametrize("code", ["ES", "es-MX", "spa", "Spanish", " es"])
def test_a_language_that_is_no_code_is_refused_and_not_left_out(tmp_path: Path, code: str) -> None:
    question = (
        QUESTIONS.read_text(encoding="utf-8").splitlines()[0].replace('"language": "es"', f'"language": "{code}"')
    )
    (tmp_path / "q.jsonl").write_text(question + "\n", encoding="utf-8")
    row = {"id": "1", "text": {"en": "Yes.", code: "Sí."}}
    (tmp_path / "s.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    for name, read in (("q.jsonl", read_questions), ("s.jsonl", read_sentences)):
        with pytest.raises(BadInput) as caught:
            read(tmp_path / name, ["es"])
        assert "input should be the code of a known language, such as 'es'" in caught.value.message
