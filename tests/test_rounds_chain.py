"""Two rounds of training on a toy model, with DVC and real engines: killed, and gone on with."""

import json
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import toy
from ruamel.yaml import YAML

from mothertongue.drift import Round
from mothertongue.records import Answer, Thread
from mothertongue.rows import parse, read_rows
from mothertongue.store import Store

pytestmark = pytest.mark.slow

ROUNDS = (sys.executable, "-m", "mothertongue.rounds", "2")


def _write_params(path: Path, base: Path) -> None:
    """The recipe of the demo, made small enough for a toy."""
    yaml = YAML()
    values = yaml.load(toy.ROOT / "recipes/selfreward.demo.yaml")
    values["models"]["base"] = {"source": "folder", "id": str(base), "dtype": "float32"}
    values["raw"]["sources"] = [{"source": "file", "id": "toy.jsonl", "format": "messages"}]
    values["filtered"] |= {"min_words": 1, "min_letters": 0.0, "min_language": 0.0}  # its prompts are random
    values["threads"] = {"validation": 0.15, "test": 0.1}
    values["generated"]["own"] |= {"engine": "transformers", "train_share": 0.2, "n": 4, "max_tokens": 16}
    values["scored"]["self"] |= {"engine": "transformers", "votes": 2, "max_tokens": 4, "min_label_mass": 0.0}
    people = {"name": "over_own", "chosen": "reference", "rejected": "own", "judge": "assumption", "min_margin": 0}
    values["pairs"]["rules"].append(people)
    limits = {"prompts": 0, "max_accuracy_gap": 1.0, "max_chosen_drop": 100.0}
    values["adapter"]["dpo"] |= {"checkpoint": 1, "health": values["adapter"]["dpo"]["health"] | limits}
    values["metrics"] |= {"suites": ["perplexity"], "answer_tokens": 8}
    values["rounds"] |= {"prompts": 60, "max_drift": 1.0}
    yaml.dump(values, path)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> toy.Workspace:
    """A project in which nothing has run."""
    folder = tmp_path_factory.mktemp("rounds")
    here = toy.Workspace.made(folder, toy.model(folder / "toy", dtype="float32"))
    _write_params(here.root / "params.yaml", folder / "toy")
    here.commit("self-rewarding")
    return here


def _experiments(here: toy.Workspace) -> dict[str, str]:
    """Commits by name."""
    lines = here.run("git", "for-each-ref", "--format=%(objectname) %(refname)", "refs/exps").splitlines()
    return {line.split("/")[-1]: line.split()[0] for line in lines}


def _show(here: toy.Workspace, commit: str, path: str) -> str:
    return here.run("git", "show", f"{commit}:{path}")


def _get(here: toy.Workspace, commit: str, path: str, out: Path) -> Path:
    """A file or folder that DVC keeps, as it was in a commit."""
    here.run("dvc", "get", ".", path, "--rev", commit, "-o", str(out), "-q", "--force")
    return out


@pytest.fixture(scope="module")
def finished(project: toy.Workspace) -> str:
    """What the second of two calls prints; the first was killed in the second round, when it had answers."""
    Store(project.store)  # the tables are there before the run is
    running = project.start(*ROUNDS)
    while running.process.poll() is None and "scored self" not in {label for label, _, _ in _calls(project, 2)}:
        time.sleep(0.2)
    running.kill()
    assert list(_experiments(project)) == ["round-1"]
    return project.run(*ROUNDS)


def _calls(here: toy.Workspace, number: int) -> list[tuple[str, int, int]]:
    """Model calls that were counted after those for the new prompts of a round."""
    import sqlite3
    from contextlib import closing

    with closing(sqlite3.connect(here.store / "samples.sqlite", timeout=60)) as db:
        rows = db.execute("select label, hits, misses from counts order by rowid").fetchall()
    labels = [label for label, _, _ in rows]
    asked = f"round {number} new prompts"
    return rows[labels.index(asked) :] if asked in labels else []


def test_a_killed_round_goes_on_and_finished_ones_are_kept(project: toy.Workspace, finished: str) -> None:
    commits = _experiments(project)
    assert sorted(commits) == ["round-1", "round-2"]
    assert f"round-1: done before, {commits['round-1'][:7]}\n" in finished
    ran = toy.ran(finished)
    assert "generated@own" not in ran  # it had ended, and comes from DVC's run cache
    assert {"scored@self", "pairs", "adapter@dpo", "merged@dpo", "report"} <= set(ran)
    assert project.run("git", "status", "--short").split() == ["??", "metrics/rounds.json", "??", "metrics/rounds.md"]
    before = (project.root / "metrics/rounds.json").read_bytes()
    assert toy.ran(project.run(*ROUNDS)) == []
    assert (project.root / "metrics/rounds.json").read_bytes() == before
    assert _experiments(project) == commits


@pytest.mark.usefixtures("finished")
def test_a_round_starts_from_the_model_of_the_round_before(project: toy.Workspace, tmp_path: Path) -> None:
    commits = _experiments(project)
    values: list[Any] = [YAML(typ="safe").load(_show(project, commits[f"round-{n}"], "params.yaml")) for n in (1, 2)]
    assert [each["models"]["base"]["source"] for each in values] == ["folder", "version"]
    assert values[1]["models"]["base"] == {
        "source": "version", "id": "dpo", "revision": commits["round-1"], "dtype": "float32"
    }  # fmt: skip
    assert [each["raw"]["sources"][1]["id"] for each in values] == ["round-1.jsonl", "round-2.jsonl"]
    trained = _get(project, commits["round-1"], "models/dpo", tmp_path / "trained")
    start = _get(project, commits["round-2"], "models/base", tmp_path / "start")
    names = [path.name for path in start.glob("*.safetensors")]
    assert names
    assert [(start / name).read_bytes() for name in names] == [(trained / name).read_bytes() for name in names]
    origin = json.loads((start / "origin.json").read_text(encoding="utf-8"))
    assert (origin["source"], origin["id"], origin["revision"][-4:]) == ("version", "dpo", ".dir")


@pytest.mark.usefixtures("finished")
def test_new_prompts_are_answered_judged_and_learned_from(project: toy.Workspace, tmp_path: Path) -> None:
    found = json.loads((project.root / "metrics/rounds.json").read_text(encoding="utf-8"))
    for number, commit in ((1, _experiments(project)["round-1"]), (2, _experiments(project)["round-2"])):
        prompts = [
            json.loads(line) for line in _show(project, commit, f"data/sources/round-{number}.jsonl").splitlines()
        ]
        assert len(prompts) == found[number - 1]["prompts"]["kept"] > 0
        assert found[number - 1]["prompts"]["total"] == 60
        threads = read_rows(_get(project, commit, "data/threads.jsonl", tmp_path / f"threads-{number}"), Thread)
        answers = read_rows(_get(project, commit, "data/generated/own.jsonl", tmp_path / f"own-{number}"), Answer)
        new = {row.id: row for row in threads if row.reference is None}
        assert len(new) == len(prompts)
        assert {row.split for row in new.values()} == {"train"}
        assert set(new) <= {row.thread for row in answers}
        report = _get(project, commit, "metrics/pairs.json", tmp_path / f"pairs-{number}")
        counts = json.loads(report.read_text(encoding="utf-8"))
        assert counts["over_own"]["threads"]["dropped"]["no_reference"] == len(new)
        assert counts["best_over_worst"]["threads"]["total"] == len(threads)
        assert counts["best_over_worst"]["threads"]["dropped"]["no_reference"] == 0


@pytest.mark.usefixtures("finished")
def test_grades_of_the_same_answers_come_with_intervals(project: toy.Workspace, tmp_path: Path) -> None:
    written = json.loads((project.root / "metrics/rounds.json").read_text(encoding="utf-8"))
    first, second = (parse(Round, row, "rounds.json") for row in written)
    assert first.frozen.first == second.frozen.first
    threads = read_rows(_get(project, first.commit, "data/threads.jsonl", tmp_path / "threads"), Thread)
    held_out = sum(thread.split == "validation" for thread in threads)
    assert first.frozen.drift.n == second.frozen.drift.n == 4 * held_out
    assert (first.experts.drift.n, second.experts.drift.n) == (held_out, held_out)
    assert (first.own.drift.n, second.own.drift.n) == (4 * held_out, 4 * held_out)
    for row in (first, second):
        for found in (row.experts, row.frozen, row.own):
            assert found.drift.value == pytest.approx(found.now.value - found.first.value)
            assert found.drift.low <= found.drift.value <= found.drift.high
            assert found.drift.groups > 1
    table = (project.root / "metrics/rounds.md").read_text(encoding="utf-8").splitlines()
    shown = [line[:5] for line in table if line.startswith("| ") and line[2].isdigit()]
    assert shown == [*3 * ["| 1 |"], *3 * ["| 2 |"]]
