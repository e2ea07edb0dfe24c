"""From a row back to its source: what is printed, for each kind of row."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from conftest import PARAMS, WIN_RATE

from mothertongue import lineage, params
from mothertongue.judging.win_table import Match
from mothertongue.measurements import SampleScore
from mothertongue.params import ServerModel
from mothertongue.records import Answer, Pair, Thread, reference_answer
from mothertongue.rows import read_rows, write_json, write_rows
from mothertongue.verdicts import Verdict
from stages import explain, filtered, pairs, raw, threads

QUESTIONS = {
    "¿Dónde queda la biblioteca?": "Está en la plaza mayor, junto al museo.",
    "¿Qué hora es en Madrid?": "Son las tres de la tarde.",
    "¿Dónde está la farmacia?": "No la he visto hoy por aquí.",
    "¿Cuánto cuesta el pan de hoy?": "Cuesta un euro y medio, como siempre.",
}


@pytest.fixture
def project(workplace: Path) -> dict[str, Thread]:
    """A run up to the pairs, with a judge that compares answers and one measured column; threads by question."""
    compares = "second: {kind: pairwise, model: base, engine: transformers, min_label_mass: 0.0}"
    changed = PARAMS.replace(
        "second: {kind: rubric, model: base, engine: transformers, min_label_mass: 0.0}", compares
    ).replace("min_margin: 1}", "min_margin: 0}")
    assert compares in changed
    Path("params.yaml").write_text(changed, encoding="utf-8")
    Path("data/sources").mkdir(parents=True)
    lines = [
        {"messages": [{"role": "user", "content": asked}, {"role": "assistant", "content": said}]}
        for asked, said in QUESTIONS.items()
    ]
    text = "".join(f"{json.dumps(line, ensure_ascii=False)}\n" for line in lines)
    Path("data/sources/dialogues.jsonl").write_text(f"\n{text}", encoding="utf-8")  # the first line is empty
    for stage, arguments in (
        (raw.main, ["data/sources", "data/raw.jsonl", "data/texts.jsonl", "metrics/raw.json"]),
        (filtered.main, ["data/raw.jsonl", "data/filtered.jsonl", "metrics/filtered.json"]),
        (threads.main, ["data/filtered.jsonl", "data/threads.jsonl", "metrics/threads.json"]),
    ):
        assert CliRunner().invoke(stage, arguments).exit_code == 0
    found = read_rows(workplace / "data/threads.jsonl", Thread)
    answers = [
        Answer(id=f"p-{row.id}", thread=row.id, generator="plain", index=0, text="No lo sé.", tokens=4, finish="stop")
        for row in found
    ]
    write_rows(Path("data/generated/plain.jsonl"), answers)
    write_rows(Path("data/generated/other.jsonl"), [])
    write_rows(Path("data/scored/rubric.jsonl"), [])
    verdicts = [
        Verdict(id=f"v-{answer.id}", thread=row.id, answer=answer.id, judge="second", outcome="score", score=score,
                label_mass=0.9, compared=1, flips=0)
        for row in found
        for answer, score in ((reference_answer(row), 1.0), (answers[found.index(row)], 0.0))
    ]  # fmt: skip
    write_rows(Path("data/scored/second.jsonl"), verdicts)
    for name in ("rubric", "second"):
        write_json(Path(f"metrics/calibrated/{name}.json"), {"cards": {}, "usage": None})
    made = CliRunner().invoke(
        pairs.main,
        ["data", "metrics/calibrated", "data/pairs.jsonl", "metrics/pairs.json", "metrics/curves/pairs"],
    )  # fmt: skip
    assert made.exit_code == 0, made.output
    suites = ("benchmark", "preference", "language", "perplexity", "translation")
    for column in ("base", "prompted", "dpo", "nf4", "int8"):
        for suite in suites:
            rows = []
            if suite == "language":
                rows = [
                    SampleScore(id=row.id, language="es", group=row.group, figure="repetition", values=[0.5, 1.0],
                                text=f"Soy {column}.")
                    for row in found if row.split != "train"
                ]  # fmt: skip
            if suite == "benchmark":
                rows = [
                    SampleScore(id="question-1", language="es", group="q", figure="accuracy", values=[1.0], text="")
                ]
            if suite == "translation":
                rows = [
                    SampleScore(id="t-1 es", language="es", group="t", figure="chrf_from_english",
                                values=[1.0, 2.0, 3.0], text="")
                ]  # fmt: skip
            write_rows(Path(f"metrics/measured/{column}/{suite}.items.jsonl"), rows)
    return {row.prompt[-1].content: row for row in found}


def explained(identity: str) -> list[str]:
    result = CliRunner().invoke(explain.main, [identity])
    assert result.exit_code == 0, result.output
    return result.output.splitlines()


def one(lines: list[str], start: str) -> str:
    (found,) = [line for line in lines if line.startswith(start)]
    return found


def pair_of(thread: Thread) -> Pair:
    (found,) = [row for row in read_rows(Path("data/pairs.jsonl"), Pair) if row.thread == thread.id]
    return found


def test_a_pair_is_followed_back_to_its_line(project: dict[str, Thread]) -> None:
    for question, row in project.items():
        place = list(QUESTIONS).index(question) + 2
        lines = explained(pair_of(row).id)
        assert one(lines, "  source: ") == f"  source: data/sources/dialogues.jsonl:{place}"
        use = {"train": "learned by", "validation": "watched during the training of", "test": "held out from"}[
            row.split
        ]
        assert one(lines, f"  {use}: dpo")
    lines = explained(pair_of(row).id)
    assert lines[0].startswith(f"pair {pair_of(row).id}: rule reference_over_plain (chosen reference, rejected plain")
    assert one(lines, "  chosen: ").endswith(f" by reference, ended by itself, score 1: «{row.reference}»")
    assert one(lines, "  rejected: ").endswith(" by plain, ended by itself, score 0: «No lo sé.»")
    assert one(lines, "  request: ").startswith(
        "  request: model base by transformers, without our system prompt, temp"
    )
    assert one(lines, "thread ").startswith(f"thread {row.id}: es, split {row.split}, turn 2")
    assert one(lines, "  why: ").startswith("  why: drawn by the words of its opening, 0.")
    assert one(lines, "  filters: ").startswith("  filters: es 0.")


def test_a_pair_is_learned_by_the_steps_that_name_its_rule(project: dict[str, Thread]) -> None:
    text = Path("params.yaml").read_text(encoding="utf-8")
    other = "rules: [{name: other, chosen: reference, rejected: other, judge: assumption, min_margin: 0}, {name"
    text = text.replace("rules: [{name", other).replace("    beta: 0.1\n", "    beta: 0.1\n    rules: [other]\n")
    Path("params.yaml").write_text(text, encoding="utf-8")
    row = next(row for row in project.values() if row.split == "train")
    learned = one(explained(pair_of(row).id), "  learned by: ")
    assert learned == "  learned by: no step, unless it is longer than max_length"


def test_each_verdict_comes_with_what_the_judge_read(project: dict[str, Thread]) -> None:
    row = next(iter(project.values()))
    lines = explained(f"p-{row.id}")
    assert explained(f"v-p-{row.id}") == lines
    assert one(lines, "  verdict ") == (
        f"  verdict v-p-{row.id} of judge second (model base): score 0.000, label mass 0.900, 1 comparisons, 0 flips"
    )
    assert len([line for line in lines if line.startswith("  it read, by")]) == 2  # both orders
    read = [line for line in lines if line.startswith("    | <answer_1_")]
    assert len(read) == 2
    assert any(line == f"    | {row.reference}" for line in lines)
    assert one(lines, "  rejected in pair ") == (
        f"  rejected in pair {pair_of(row).id} by rule reference_over_plain, split {row.split}"
    )


def test_a_held_out_thread_shows_the_figures_that_it_entered(project: dict[str, Thread]) -> None:
    row = next(row for row in project.values() if row.split != "train")
    lines = explained(row.id)
    assert one(lines, "  measured on dpo, ") == "  measured on dpo, suite language: repetition 0.5 of 1"
    assert "    answer: «Soy dpo.»" in lines
    assert one(lines, "  answered by plain: ") == f"  answered by plain: p-{row.id} (second 0.000): «No lo sé.»"
    learned = next(row for row in project.values() if row.split == "train")
    assert not [line for line in explained(learned.id) if "measured" in line]


def test_a_held_out_thread_shows_the_win_rates_that_its_answers_entered(project: dict[str, Thread]) -> None:
    text = Path("params.yaml").read_text(encoding="utf-8").replace("win_rate: {}\n", WIN_RATE)
    Path("params.yaml").write_text(text, encoding="utf-8")
    row = next(row for row in project.values() if row.split != "train")
    common: dict[str, Any] = {
        "language": "es", "group": row.group, "answered": row.id, "flip": False, "alike": False, "words": 3,
        "likeness": 0.0, "draw": 1.0, "label_mass": 0.9,
    }  # fmt: skip
    matches = [
        Match(id=row.id, column="dpo", outcome="win", **common),
        Match(id=row.id, column="int8", outcome="tie", **(common | {"flip": True})),
        Match(id="another", column="dpo", outcome="loss", **common),
        Match(id=row.id, column="nf4", outcome="win", **(common | {"answered": "another"})),
    ]
    write_rows(Path("metrics/win_rate/base.items.jsonl"), matches)
    assert [line for line in explained(row.id) if line.startswith("  win rate")] == [
        "  win rate base, against base: dpo win, int8 tie (a flip)",
        "  win rate base, against base, as its control under another question: dpo loss (question of another)",
    ]


def test_what_a_judge_was_not_asked_is_not_shown(project: dict[str, Thread]) -> None:
    row = next(iter(project.values()))
    same = Answer(id=f"p-{row.id}", thread=row.id, generator="plain", index=0, text=f" {row.reference}\x1b[31m",
                  tokens=4, finish="stop")  # fmt: skip
    write_rows(Path("data/generated/plain.jsonl"), [same.model_copy(update={"text": f" {row.reference} "})])
    assert not [line for line in explained(f"p-{row.id}") if line.startswith("  it read")]
    write_rows(Path("data/generated/plain.jsonl"), [same])
    lines = explained(f"p-{row.id}")
    assert [line for line in lines if line.startswith("  it read")]
    assert not any("\x1b" in line for line in lines)


def test_a_dropped_conversation_and_a_changed_source(project: dict[str, Thread]) -> None:
    row = next(iter(project.values()))
    Path("data/filtered.jsonl").write_text("", encoding="utf-8")
    Path("data/sources/dialogues.jsonl").write_text("", encoding="utf-8")
    lines = explained(row.conversation)
    assert one(lines, "  dropped by the filters: ").endswith("not by what params.yaml says now")
    twin = next(
        line for line in Path("data/raw.jsonl").read_text(encoding="utf-8").splitlines() if row.conversation in line
    )
    kept = json.loads(twin) | {"id": "twin", "source": "other"}
    with Path("data/raw.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(kept) + "\n")
    Path("data/filtered.jsonl").write_text(json.dumps(kept) + "\n", encoding="utf-8")
    assert one(explained(row.conversation), "  dropped by the filters: ").endswith(" duplicate")
    assert one(lines, "  source: ") == (
        "  source: not found in data/sources/dialogues.jsonl, which may have changed since the run"
    )


def test_a_conversation_and_an_item_of_a_suite(project: dict[str, Thread]) -> None:
    row = next(iter(project.values()))
    assert one(explained(row.conversation), "  thread ") == f"  thread {row.id}: split {row.split}"
    assert explained("question-1")[:2] == [
        "item question-1, which is not in data/suites/benchmark.jsonl any more",
        "  measured on base, suite benchmark: accuracy 1",
    ]
    Path("data/suites").mkdir()
    question = {"id": "question-1", "question": "¿Cuántos?", "choices": ["uno", "dos"], "answer": 1}
    Path("data/suites/benchmark.jsonl").write_text(f"\n{json.dumps(question)}", encoding="utf-8")
    assert explained("question-1")[:5] == [
        "item question-1 of data/suites/benchmark.jsonl:2",
        "  question: «¿Cuántos?»",
        "  choice: «uno»",
        "  choice, the right one: «dos»",
        "  measured on base, suite benchmark: accuracy 1",
    ]
    sentence = {"id": "t-1", "text": {"en": "Good morning.", "es": "Buenos días.", "it": "Buongiorno."}}
    Path("data/suites/translation.jsonl").write_text(json.dumps(sentence), encoding="utf-8")
    assert explained("t-1 es")[:4] == [
        "item t-1 es of data/suites/translation.jsonl:1",
        "  en: «Good morning.»",
        "  es: «Buenos días.»",
        "  measured on base, suite translation: chrf_from_english (counts)",
    ]


def test_rows_that_are_gone_are_named(project: dict[str, Thread]) -> None:
    row = next(row for row in project.values() if row.split != "train")
    pair = pair_of(row)
    write_rows(Path("data/generated/plain.jsonl"), [])
    gone = f"answer p-{row.id}: not in data any more; it has changed since the pairs were made"
    assert one(explained(pair.id), f"answer p-{row.id}") == gone
    write_rows(Path("data/threads.jsonl"), [each for each in project.values() if each != row])
    assert explained(row.id)[0] == f"item {row.id} of suite language: its thread or pair is not in data any more"


def test_a_lock_file_that_cannot_be_read(project: dict[str, Thread]) -> None:
    row = next(iter(project.values()))
    for text in ("<<<<<<< HEAD\na: [", "stages: []"):
        Path("dvc.lock").write_text(text, encoding="utf-8")
        result: Any = CliRunner().invoke(explain.main, [row.id])
        assert (result.exit_code, result.stderr) == (
            1, "Error: dvc.lock: no lock file of DVC; mend it, or run `make repro`, which writes it anew\n"
        )  # fmt: skip
    with Path("params.yaml").open("a", encoding="utf-8") as file:
        file.write("languages: [\n")
    assert CliRunner().invoke(explain.main, [row.id]).stderr.startswith("Error: params.yaml:")


def test_a_conversation_without_a_thread_of_its_own(project: dict[str, Thread]) -> None:
    first, *others = sorted(project.values(), key=lambda row: row.id)
    write_rows(Path("data/threads.jsonl"), others)
    lines = explained(first.conversation)
    assert one(lines, "  no thread ").startswith("  no thread of its own: its turns repeat others', or held-out ones; ")
    assert not any(line.startswith("  no thread ") for line in explained(others[0].conversation))


def test_a_thread_shows_what_each_judge_says_of_its_answers(project: dict[str, Thread]) -> None:
    row = next(iter(project.values()))
    assert (
        one(explained(row.id), "  answered by plain: ")
        == f"  answered by plain: p-{row.id} (second 0.000): «No lo sé.»"
    )


def test_a_run_that_stopped_is_explained_as_far_as_it_came(project: dict[str, Thread]) -> None:
    row = next(row for row in project.values() if row.split == "train")
    before = explained(row.id)
    paths = [Path("data/pairs.jsonl"), *sorted(Path("metrics/measured").glob("*/*.jsonl"))]
    for path in paths:
        path.unlink()
    *lines, last = explained(row.id)
    assert lines == [line for line in before if "pair" not in line]
    assert last.startswith(
        "not there, so not looked at: data/pairs.jsonl, 5 files in metrics/measured/base, 5 files in "
    )
    assert last.count(" files in ") == (len(paths) - 1) / 5


def test_parameters_that_the_run_had_otherwise_are_named(project: dict[str, Thread]) -> None:
    row = next(iter(project.values()))
    lines = explained(row.id)
    own = {"model": "base", "temperature": 0.5}
    lock = {
        "stages": {
            "threads": {"params": {"params.yaml": {"threads": {"validation": 0.5, "test": 0.25}}}},
            "generated@plain": {"params": {"params.yaml": {"generated.plain": own, "seed": 2026}}},
        }
    }
    now = {"threads": {"validation": 0.25, "test": 0.25}, "generated": {"plain": own | {"n": 2}}, "seed": 2026}
    assert lineage.list_changed(now, lock) == ["generated.plain.n", "threads.validation"]
    assert lineage.list_changed({"seed": 2026}, lock) == ["generated.plain", "threads"]
    Path("dvc.lock").write_text(
        "stages: {filtered: {params: {params.yaml: {filtered.min_words: 77}}}}", encoding="utf-8"
    )
    said = "params.yaml has changed since the run, and what is said of these is as they are now: filtered.min_words"
    assert explained(row.id) == [said, *lines]


def test_a_request_to_a_server_is_what_was_sent(project: dict[str, Thread]) -> None:
    row = next(iter(project.values()))
    values = params.load()
    api = ServerModel.model_validate(
        {"source": "server", "url": "http://a/v1", "id": "m", "revision": "1", "fields": {"seed": None, "top_p": None}}
    )
    generator = values.generated["plain"].model_copy(update={"model": "api"})
    changed = values.model_copy(
        update={"models": {**values.models, "api": api}, "generated": values.generated | {"plain": generator}}
    )
    lines = list(lineage.explain(f"p-{row.id}", lineage.Project(changed, Path("data"), Path("metrics"))))
    sent = r"  request: model api by \w+, without our system prompt, temperature [\d.]+, at most \d+ tokens"
    assert re.fullmatch(sent, one(lines, "  request: "))


@pytest.mark.usefixtures("project")
def test_no_such_row() -> None:
    result: Any = CliRunner().invoke(explain.main, ["nothing"])
    assert (result.exit_code, result.stderr) == (
        1,
        (
            "Error: no pair, answer, verdict, thread, conversation or measured item has the id 'nothing'; take one"
            " of raw, threads, generated, scored or pairs in data/, or of metrics/measured/*/*.items.jsonl, in quotes"
            " where it has a space\n"
        ),
    )
