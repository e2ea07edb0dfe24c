"""The conversations of the demo are what the README of data/sources says."""

import json
from collections import Counter
from typing import Any

import pytest
from project import ROOT

from mothertongue import filters, languages, params, sources, threads
from mothertongue.new_prompts import count_common, is_near_copy
from mothertongue.suites.data import read_questions, read_sentences


@pytest.fixture(scope="module")
def turns() -> list[list[dict[str, Any]]]:
    lines = (ROOT / "data/sources/everyday.es.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["messages"] for line in lines]


def test_conversations_are_many_and_different(turns: list[list[dict[str, Any]]]) -> None:
    assert len(turns) >= 700
    assert sum(len(each) >= 4 for each in turns) >= 60
    assert len({json.dumps(each) for each in turns}) == len(turns)
    assert {tuple(turn["role"] for turn in each) for each in turns} == {
        ("user", "assistant") * exchanges for exchanges in (1, 2, 3)
    }


def test_answers_are_full(turns: list[list[dict[str, Any]]]) -> None:
    answers = [turn["content"] for each in turns for turn in each if turn["role"] == "assistant"]
    lengths = [len(languages.split_words(answer)) for answer in answers]
    assert (min(lengths) >= 15, max(lengths) <= 60) == (True, True)
    assert len({" ".join(languages.split_words(answer)[:3]) for answer in answers}) > len(answers) * 0.7


def test_no_question_is_one_that_models_are_measured_on(turns: list[list[dict[str, Any]]]) -> None:
    measured = [row.question for row in read_questions(ROOT / "data/suites/benchmark.jsonl", ["es"])]
    measured += [row.text["es"] for row in read_sentences(ROOT / "data/suites/translation.jsonl", ["es"])]
    others = [languages.split_words(text) for text in measured]
    asked = [turn["content"] for each in turns for turn in each if turn["role"] == "user"]
    assert [text for text in asked if is_near_copy(languages.split_words(text), others)] == []


def test_no_held_out_answer_is_a_training_answer_in_other_words() -> None:
    values = params.load(ROOT / "params.yaml")
    rows, _ = sources.read_sources(values.raw, values.languages, ROOT / "data/sources")
    found, _ = threads.extract_threads(filters.filter_conversations(rows, values.filtered)[0], values.threads)
    answers = [(thread, languages.split_words(thread.expert)) for thread in found]
    learned = [(thread, words, Counter(words)) for thread, words in answers if thread.split == "train"]
    near = []
    for thread, words in answers:
        for other, theirs, counts in learned if thread.split != "train" else ():
            least = 0.55 * (len(words) + len(theirs)) / 2  # a ROUGE-L
            if (counts & Counter(words)).total() > least and count_common(words, theirs) > least:
                near.append((thread.expert, other.expert))
    assert len(learned) > 500
    assert near == []
