"""Rounds without DVC and without weights: what is asked in which order, and when it stops."""

import json
import math
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner
from conftest import PARAMS

from mothertongue import rounds
from mothertongue.chat import Chat
from mothertongue.params import Model, VersionModel
from mothertongue.records import Answer, Thread, reference_answer
from mothertongue.sampling import Completion, Generation, NextTokenLogprobs
from mothertongue.sampling import Model as RealModel

COMMITS = {1: "1" * 40, 2: "2" * 40}
ANY = "chosen: reference, rejected: plain"
BEST = "chosen: best, rejected: worst"
SECTION = "rounds: {prompts: 8, judge: second, max_drift: 0.25}\n"


class Grading:
    """Stands for a model: a grade for whatever it reads, and a question with its own name for a new prompt."""

    encode, find_options = RealModel.encode, RealModel.find_options

    def __init__(self, folder: Path, chat: Chat, grade: int) -> None:
        self.folder, self.chat, self.grade = folder, chat, grade
        self.identity = {"weights": folder.name}

    def generate(self, requests: Sequence[Generation], label: str) -> list[Completion]:
        assert label
        names = [str(each.seed).translate(str.maketrans("0123456789", "aeioulmnst")) for each in requests]
        return [Completion(f"¿Qué es {self.folder.name} cuando está en {name}?", 9, "stop") for name in names]

    def next_token_logprobs(self, requests: Sequence[NextTokenLogprobs], label: str) -> list[list[float]]:
        """Sure of the grade for nine in ten requests, and one less for the others."""
        assert label == "scored second"
        return [
            [0.0 if score == self.grade - (place % 10 == 0) else -math.inf for score in range(1, 6)]
            for place, _ in enumerate(requests)
        ]


@pytest.fixture
def began(workplace: Path, chat: Chat, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """What was run and fetched, in a project of forty conversations; `grades` are those that models give, by folder."""
    (workplace / "params.yaml").write_text(PARAMS.replace(ANY, BEST) + SECTION, encoding="utf-8")
    for name in ("data/sources", "data/suites"):
        (workplace / name).mkdir(parents=True)
    for name in ("benchmark", "translation"):
        (workplace / f"data/suites/{name}.jsonl").write_text("", encoding="utf-8")
    lines = [
        {"messages": [{"role": "user", "content": f"¿Dónde está la casa número {n}?"},
                      {"role": "assistant", "content": f"La casa número {n} está en la plaza."}]}
        for n in range(40)
    ]  # fmt: skip
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (workplace / "data/sources/dialogues.jsonl").write_text(text, encoding="utf-8")
    seen = SimpleNamespace(runs=[], fetched=[], grades={"first": 3, "round-1": 3, "round-2": 3})

    def fetch(model: Model, out: Path) -> None:
        seen.fetched.append((model, out.name))
        out.mkdir(parents=True)

    def run_round(number: int, start: Model, _: Any, fresh: Sequence[Any]) -> str:
        seen.runs.append((number, start, [row.prompt for row in fresh]))
        return COMMITS[number]

    def read_frozen(commit: str, _: Any, held_out: Sequence[Thread]) -> list[Answer]:
        assert commit == COMMITS[1]
        return [reference_answer(thread) for thread in held_out]

    monkeypatch.setattr(rounds.models, "fetch", fetch)
    monkeypatch.setattr(rounds, "run_round", run_round)
    monkeypatch.setattr(rounds, "_read_frozen", read_frozen)
    monkeypatch.setattr(rounds, "ask", lambda work, *arguments: work(*arguments))
    monkeypatch.setattr(rounds.console, "redirected", lambda _: nullcontext())
    monkeypatch.setattr(rounds, "Store", lambda: None)
    monkeypatch.setattr(rounds.sampling, "Model", lambda where, *_: Grading(where, chat, seen.grades[where.name]))
    return seen


def test_each_round_starts_from_the_one_before(began: SimpleNamespace, workplace: Path) -> None:
    result = CliRunner().invoke(rounds.main, ["2"])
    assert (result.exit_code, result.output.splitlines()[-1]) == (0, "metrics/rounds.md: 2 rounds")
    versions = [VersionModel(source="version", id="dpo", revision=COMMITS[n], dtype="float32") for n in (1, 2)]
    (_, start, first), (_, second_start, second) = began.runs
    assert (start.source, second_start) == ("folder", versions[0])
    assert began.fetched == [(start, "first"), (versions[0], "round-1"), (versions[1], "round-2")]
    assert {text.split()[2] for text in first} == {"first"}
    assert {text.split()[2] for text in second} == {"round-1"}  # new prompts, by the model that the round starts from
    found = json.loads((workplace / "metrics/rounds.json").read_text(encoding="utf-8"))
    assert [(row["round"], row["commit"], row["frozen"]["drift"]["value"]) for row in found] == [
        (1, COMMITS[1], 0.0), (2, COMMITS[2], 0.0)
    ]  # fmt: skip
    assert not (workplace / "tmp/rounds").exists()


@pytest.mark.parametrize(("praising", "runs"), [("round-1", 1), ("round-2", 2)])
def test_a_model_that_praises_itself_is_stopped(
    began: SimpleNamespace, workplace: Path, praising: str, runs: int
) -> None:
    began.grades[praising] = 5
    result = CliRunner().invoke(rounds.main, ["2"])
    assert result.exit_code == 1
    assert result.output.splitlines()[-1] == (
        f"Error: {praising}: its model grades the experts' answers +2.00 [+2.00, +2.00] points higher than the first"
        " model, over rounds.max_drift 0.25; no further round is run, see metrics/rounds.md"
    )
    assert len(began.runs) == runs
    assert len(json.loads((workplace / "metrics/rounds.json").read_text(encoding="utf-8"))) == runs


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ([(SECTION, "")], "params.yaml: rounds: missing; add it, or `make recipe NAME=selfreward.demo`"),
        ([("id: dialogues.jsonl, format: messages", "id: round-1.jsonl, format: prompts")],
         "params.yaml: raw.sources: round-1.jsonl is of a round; take the parameters that rounds began with again"),
    ],
)  # fmt: skip
def test_parameters_without_rounds_or_of_one(
    began: SimpleNamespace, workplace: Path, changes: list[tuple[str, str]], expected: str
) -> None:
    text = PARAMS.replace(ANY, BEST) + SECTION
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    (workplace / "params.yaml").write_text(text, encoding="utf-8")
    result = CliRunner().invoke(rounds.main, ["2"])
    assert (result.exit_code, result.output) == (1, f"Error: {expected}\n")
    assert began.runs == []


def test_values_as_dvc_reads_them() -> None:
    value = {"id": 'a "b" \\ {c}', "n": 2, "none": None, "list": ["x", {"y": 0.5}]}
    assert rounds._format_override(value) == '{id: "a \\"b\\" \\\\ {c}", n: 2, none: null, list: ["x", {y: 0.5}]}'
