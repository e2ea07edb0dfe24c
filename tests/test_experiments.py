"""Earlier runs: spreads and notes of rows written here; experiments of a toy chain of shell commands."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import toy
from conftest import PARAMS
from project import ROOT
from ruamel.yaml import YAML

from mothertongue.errors import BadInput
from mothertongue.experiments import digest
from mothertongue.figures import FIGURES
from mothertongue.history import Experiments, Seeds, Training, describe_history, is_stale, read_history, seed_range

MEASURED = {"base": {"f": 1.0}, "dpo": {"f": 2.0, "g": 5.0}}
OTHERS = [{"base": {"f": 1.0}, "dpo": {"f": value}} for value in (1.5, 4.0)]
SEEDS = Seeds(runs=[Training(seeds={"dpo": s}, figures=f) for s, f in zip((7, 8, 9), [MEASURED, *OTHERS], strict=True)])


def test_a_spread_is_lowest_highest_and_how_many() -> None:
    assert seed_range(SEEDS, {"dpo": 7}, MEASURED, "dpo") == {"f": (1.5, 4.0, 3)}  # g is not of all three


@pytest.mark.parametrize(
    ("seed", "measured"), [(7, {**MEASURED, "dpo": {"f": 2.1, "g": 5.0}}), (8, MEASURED), (7, OTHERS[0])]
)
def test_a_range_over_trainings_with_other_figures_is_not_shown(
    seed: int, measured: dict[str, dict[str, float]]
) -> None:
    assert is_stale(SEEDS, {"dpo": seed}, measured)
    assert seed_range(SEEDS, {"dpo": seed}, measured, "dpo") == {}
    assert describe_history(SEEDS, Experiments(), {"dpo": seed}, measured, "validation")[1:] == [
        "The range over seeds is of other figures than these and not shown; `make seeds` measures it again."
    ]


def test_the_first_lines_of_the_report() -> None:
    looked = Experiments(validation=["a x", "b y"], test=["c"])
    assert describe_history(SEEDS, looked, {"dpo": 7}, MEASURED, "test") == [
        "DVC experiments that were looked at on split `validation` before: 2 (edits by hand not counted).",
        "Settings that were looked at on split `test`: 1.",
        "How far another seed moves the figures was measured on split `validation`, and is in that report.",
    ]
    assert describe_history(Seeds(), Experiments(), {"dpo": 7}, MEASURED, "validation") == [
        "DVC experiments that were looked at on split `validation` before: 0 (edits by hand not counted).",
        "One training: how far another seed moves the figures was not measured (`make seeds N=3`).",
    ]
    assert len(describe_history(SEEDS, Experiments(), {"dpo": 7}, MEASURED, "validation")) == 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{", "not JSON (Expecting property name enclosed in double quotes: line 1 column 2 (char 1))"),
        ("[]", "not a JSON object"),
        (None, "cannot be read (No such file or directory)"),
    ],
)
def test_a_broken_list_is_refused(tmp_path: Path, text: str | None, expected: str) -> None:
    path = tmp_path / "seeds.json"
    if text is not None:
        path.write_text(text, encoding="utf-8")
    with pytest.raises(BadInput) as caught:
        read_history(path, Seeds)
    assert caught.value.message == f"{path}: {expected}; take it from git, or write {{}} to start over"


def _stage(deps: dict[str, str], outs: list[str], **values: object) -> dict[str, object]:
    return {
        "cmd": "do",
        "deps": [{"path": path, "md5": md5} for path, md5 in deps.items()],
        "params": {"params.yaml": values},
        "outs": [{"path": path, "md5": "x"} for path in outs],
    }


def _lock(
    seed: int = 1,
    second: int = 1,
    beta: float = 0.1,
    pairs: str = "p",
    model: str = "m",
    code: str = "c",
    split: str = "validation",
    torch: str = "2",
) -> dict[str, object]:
    """A lock file of two training steps, of which the second starts from the first."""
    lock: dict[str, dict[str, dict[str, object]]] = {
        "stages": {
            "pairs": _stage({}, ["data/pairs.jsonl"]),
            "adapter@dpo": _stage(
                {"data/pairs.jsonl": pairs}, ["models/adapter/dpo"], **{"adapter.dpo": {"seed": seed, "beta": beta}}
            ),
            "merged@dpo": _stage({"models/adapter/dpo": model}, ["models/dpo"], merged={"dtype": "float32"}),
            "adapter@more": _stage(
                {"data/pairs.jsonl": pairs, "models/dpo": model},
                ["models/adapter/more"],
                **{"adapter.more": {"seed": second, "beta": 0.1}},
            ),
            "metrics@dpo": _stage(
                {"models/dpo": model, "src/code.py": code}, ["metrics/measured/dpo"], **{"metrics.split": split}
            ),
            "report": _stage({"metrics/measured": model, "metrics/seeds.json": model}, ["metrics/report.md"]),
        }
    }
    engines = lock["stages"]["metrics@dpo"]["params"]
    assert isinstance(engines, dict)
    engines["requirements/engines.json"] = {"torch": torch}
    return lock


@pytest.mark.parametrize("tracked", ["adapter", "adapter.dpo", "adapter.dpo.seed"])
def test_a_seed_is_left_out_however_a_stage_names_its_parameters(tracked: str) -> None:
    def of(seed: int, beta: float) -> str:
        values: Any = {"adapter": {"dpo": {"seed": seed, "beta": beta}}}
        section = values
        for part in tracked.split("."):
            section = section[part]
        lock = {"stages": {"adapter": _stage({}, ["models/adapter"], **{tracked: section})}}
        return digest(lock, "adapter", ["adapter.dpo.seed"])

    assert of(1, 0.1) == of(2, 0.1)
    assert (of(1, 0.1) == of(1, 0.2)) == (tracked == "adapter.dpo.seed")


def test_trainings_have_one_digest_where_all_but_the_seeds_is_equal() -> None:
    def of(lock: dict[str, object]) -> str:
        return digest(lock, "adapter", ["adapter.dpo.seed", "adapter.more.seed"])

    assert of(_lock()) == of(_lock(seed=2, second=3, model="n"))
    changes = ({"beta": 0.2}, {"pairs": "q"}, {"code": "d"}, {"split": "test"}, {"torch": "3"})
    others = [of(_lock(**change)) for change in changes]  # type: ignore[arg-type]
    assert len({of(_lock()), *others}) == 6
    assert digest(_lock(second=2), "adapter", ["adapter.dpo.seed"]) != digest(_lock(), "adapter", ["adapter.dpo.seed"])


def test_what_a_trained_model_answers_follows_from_its_seed() -> None:
    """In the project's own lock, where a step answers for the pairs of the next one, and stages read whole folders."""
    lock: Any = YAML(typ="safe", pure=True).load((ROOT / "dvc.lock").read_text(encoding="utf-8"))
    seeds = ["adapter.sft.seed", "adapter.dpo.seed"]
    before = digest(lock, "adapter", seeds)
    made = ("models/sft", "data/generated", "data/scored", "data/pairs.jsonl", "models/dpo")
    for stage in lock["stages"].values():
        for each in (*stage["deps"], *stage["outs"]):
            if each["path"].startswith(made):
                each["md5"] = "other"
    assert digest(lock, "adapter", seeds) == before
    lock["stages"]["generated@teacher"] = _stage({"models/teacher": "1"}, ["data/generated/teacher.jsonl"])
    with_teacher = digest(lock, "adapter", seeds)
    assert with_teacher != before  # its answers are in a folder that is read, and follow from no seed
    lock["stages"]["generated@teacher"]["outs"][0]["md5"] = "of another teacher"
    assert digest(lock, "adapter", seeds) not in (before, with_teacher)
    del lock["stages"]["generated@teacher"]
    assert digest(lock, "adapter", seeds) == before
    for each in lock["stages"]["adapter@sft"]["deps"]:
        each["md5"] = "other" if each["path"] == "data/threads.jsonl" else each["md5"]
    assert digest(lock, "adapter", seeds) != before


def test_measurements_have_one_digest_where_all_but_the_split_is_equal() -> None:
    def of(lock: dict[str, object]) -> str:
        return digest(lock, "metrics", ["metrics.split"])

    assert of(_lock()) == of(_lock(split="test")) == of(_lock(seed=2, pairs="q"))  # of which the model follows
    assert len({of(_lock()), of(_lock(model="n")), of(_lock(code="d"))}) == 3


def test_a_chain_that_never_ran_has_no_digest() -> None:
    with pytest.raises(BadInput) as caught:
        digest(_lock(), "quantized", [])
    assert caught.value.message == "dvc.lock: no stage quantized; run `make repro` first"


DVC = """\
stages:
  adapter:
    cmd: test $(grep -c 'seed. 5' params.yaml) = 0 && mkdir -p models && grep seed params.yaml > models/adapter
    params: [adapter]
    outs: [models/adapter]
  metrics:
    foreach: ${metrics.models}
    do:
      cmd: python measure.py ${key}
      deps: [models/adapter]
      params:
        - metrics.split
      outs:
        - metrics/measured/${key}
  report:
    cmd: cat metrics/measured/dpo/language.json metrics/experiments.json params.yaml > metrics/report.md
    deps: [metrics/measured, metrics/seeds.json, metrics/experiments.json]
    outs:
      - metrics/report.md: {cache: false}
"""
MEASURE = f"""\
import json, re, sys
from pathlib import Path
folder = Path("metrics/measured", sys.argv[1])
folder.mkdir(parents=True)
seed = int(re.findall("seed: ([0-9]+)", Path("models/adapter").read_text())[1])
for suite in {list(FIGURES)}:
    (folder / f"{{suite}}.json").write_text(json.dumps({{"figures": {{suite: {{"value": seed}}}}}}))
"""


@pytest.fixture
def project(tmp_path: Path) -> toy.Workspace:
    """A project with git and DVC whose adapter is its seed (2), and whose training fails with seed 5."""
    here = toy.Workspace(tmp_path / "project", tmp_path / "store")
    (here.root / "metrics").mkdir(parents=True)
    for name, text in {
        "dvc.yaml": DVC,
        "measure.py": MEASURE,
        "params.yaml": PARAMS,
        "metrics/seeds.json": "{}",
        "metrics/experiments.json": "{}",
        ".gitignore": "/models/\n/metrics/measured/\n",
    }.items():
        (here.root / name).write_text(text, encoding="utf-8")
    here.run("git", "init", "-q")
    here.run("dvc", "init", "-q")
    here.run("dvc", "repro")
    here.commit("all")
    return here


def _ask(here: toy.Workspace, *arguments: str, code: int = 0) -> str:
    ran = subprocess.run(
        [sys.executable, "-m", "mothertongue.experiments", *arguments],
        cwd=here.root,
        env=here.env | {"PYTHONPATH": str(toy.ROOT / "src"), "PWD": os.fspath(here.root)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == code, ran.stdout + ran.stderr
    return ran.stdout + ran.stderr


@pytest.mark.slow
def test_more_seeds_leave_the_workspace_as_it_was_and_run_once(project: toy.Workspace) -> None:
    params = project.root / "params.yaml"
    params.write_text(params.read_text(encoding="utf-8").replace("beta: 0.1", "beta: 0.2"), encoding="utf-8")
    project.run("dvc", "repro")  # changes that are not committed are part of it
    changed = project.run("git", "status", "--short")
    assert "Running stage 'adapter'" in _ask(project, "seeds", "3")
    assert project.run("git", "status", "--short") == changed.replace(" M params", " M metrics/seeds.json\n M params")
    found = read_history(project.root / "metrics/seeds.json", Seeds)
    assert [(run.seeds, run.figures["dpo"]["language"]) for run in found.runs] == [({"dpo": n}, n) for n in (2, 3, 4)]
    assert "Running stage" not in _ask(project, "seeds", "3")
    printed = _ask(project, "seeds", "4", code=1)
    assert printed.endswith("Error: seeds dpo 5: no figures, see above; `make seeds` tries again\n")
    assert read_history(project.root / "metrics/seeds.json", Seeds) == found


@pytest.mark.slow
def test_an_experiment_on_other_files_is_refused_and_removed(project: toy.Workspace) -> None:
    """`dvc exp run --temp` copies what git knows; the workspace's data may have files that it does not."""
    text = DVC.replace("deps: [models/adapter]\n", "deps: [models/adapter, data]\n")
    text = text.replace("params: [adapter]\n", "params: [adapter]\n    deps: [data]\n", 1)
    (project.root / "dvc.yaml").write_text(text, encoding="utf-8")
    (project.root / "data").mkdir()
    (project.root / "data/known.jsonl").write_text("{}", encoding="utf-8")
    project.run("git", "add", "data")
    (project.root / "data/new.jsonl").write_text("{}", encoding="utf-8")
    project.run("dvc", "repro")
    for command in (("final",), ("seeds", "2")):
        printed = _ask(project, *command, code=1)
        assert printed.endswith(": it ran on other files than the workspace has; `git add` new files, and run again\n")
    assert not (project.root / "metrics/final.md").exists()
    project.run("git", "add", "data")
    _ask(project, "final")
    _ask(project, "seeds", "2")
    assert (project.root / "metrics/final.md").read_text(encoding="utf-8").startswith("Settings `")


@pytest.mark.slow
def test_a_look_at_test_by_hand_is_counted_once(project: toy.Workspace) -> None:
    params = project.root / "params.yaml"
    params.write_text(params.read_text(encoding="utf-8").replace("split: validation", "split: test"), encoding="utf-8")
    for _ in range(2):
        _ask(project, "note")
        (line,) = read_history(project.root / "metrics/experiments.json", Experiments).test
        assert line.endswith(" params.yaml")


@pytest.mark.slow
def test_experiments_are_kept_and_looks_at_test_are_counted(project: toy.Workspace) -> None:
    kept = project.root / "metrics/experiments.json"
    _ask(project, "note")
    assert kept.read_text(encoding="utf-8") == "{}"  # a clone without experiments changes nothing
    project.run("dvc", "exp", "run", "--temp", "-n", "mine", "-S", "adapter.dpo.beta=0.3")
    project.run("dvc", "exp", "run", "--temp", "-n", "early", "-S", "metrics.split=test")
    for _ in range(2):
        _ask(project, "note")
        looked = json.loads(kept.read_text(encoding="utf-8"))
        assert {split: [name.split()[1] for name in names] for split, names in looked.items()} == {
            "validation": ["mine"],
            "test": ["early"],
        }
    project.run("dvc", "exp", "remove", "mine", "early")
    for _ in range(2):
        _ask(project, "final")
        page = (project.root / "metrics/final.md").read_text(encoding="utf-8")
        assert "split: test" in page
        assert len(read_history(kept, Experiments).test) == 2  # `early`, and these settings, once
        assert read_history(kept, Experiments).validation == looked["validation"]
        assert re.search(r'"[0-9a-f]{8}"', page), "the page was made before its own look was counted"
    assert "split: validation" in (project.root / "params.yaml").read_text(encoding="utf-8")
