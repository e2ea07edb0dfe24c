"""The checks before `dvc repro`: engines, and outputs that no entry of params.yaml makes any more."""

import hashlib
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from conftest import PARAMS, WIN_RATE
from project import ROOT
from ruamel.yaml import YAML

from mothertongue import check, params
from mothertongue.errors import BadInput

PIPELINE: dict[str, Any] = {
    "stages": {
        "raw": {"outs": ["data/raw.jsonl", {"metrics/raw.json": {"cache": False}}], "deps": ["data/generated", "src"]},
        "generated": {"foreach": "${generated}", "do": {"outs": ["data/generated/${key}.jsonl"]}},
        "metrics": {
            "foreach": "${metrics.models}",
            "do": {"outs": ["metrics/measured/${key}"], "plots": ["metrics/curves/${key}.csv"]},
        },
    }
}
VALUES = {"generated": {"plain": {}, "guided": {}}, "metrics": {"models": {"base": {}}}}
OUTPUTS = {
    "raw": ["data/raw.jsonl", "metrics/raw.json"],
    "generated@plain": ["data/generated/plain.jsonl"],
    "generated@guided": ["data/generated/guided.jsonl"],
    "metrics@base": ["metrics/measured/base", "metrics/curves/base.csv"],
}
FOLDERS = ["data/generated"]  # of those with outputs, what a stage reads whole
LOCK = """\
schema: '2.0'
stages:
  raw:
    cmd: python -m stages.raw
    outs:
    - path: data/raw.jsonl
      hash: md5
      md5: 00
      size: 1
  generated@plain:
    cmd: python
    deps:
    - path: data/raw.jsonl
      hash: md5
    outs:
    - path: data/generated/plain.jsonl
      hash: md5
  generated@old:
    cmd: python
    deps:
    - path: data/raw.jsonl
      hash: md5
    outs:
    - path: data/generated/old.jsonl
      hash: md5
    - path: metrics/old
      hash: md5
"""


def test_outputs_of_groups_are_those_of_their_entries() -> None:
    assert check.list_outputs(PIPELINE, VALUES) == OUTPUTS


def test_folders_that_stages_read_whole() -> None:
    assert check.list_folder_deps(PIPELINE, OUTPUTS) == FOLDERS
    pipeline, values = (YAML(typ="safe", pure=True).load(ROOT / name) for name in ("dvc.yaml", "params.yaml"))
    found = check.list_folder_deps(pipeline, check.list_outputs(pipeline, values))
    names = ("adapter", "calibrated", "generated", "measured", "scored")
    assert found == ["data/generated", "data/scored", *(f"metrics/{name}" for name in names)]


def test_outputs_are_those_that_dvc_finds() -> None:
    from dvc.repo import Repo

    pipeline, values = (YAML(typ="safe", pure=True).load(ROOT / name) for name in ("dvc.yaml", "params.yaml"))
    found = {
        stage.addressing.removeprefix("dvc.yaml:"): sorted(out.def_path for out in stage.outs)
        for stage in Repo(ROOT).index.stages
    }
    assert {name: sorted(paths) for name, paths in check.list_outputs(pipeline, values).items()} == found


@pytest.mark.parametrize(
    ("path", "ignored"),
    [
        ("src/mothertongue/sampling/__pycache__/__init__.cpython-311.pyc", True),
        ("data/generated/.plain.jsonl.partial", True),
        ("data/suites/.benchmark.jsonl.swp", True),
        ("data/sources/README.md", True),
        ("metrics/win_rate/README.md", True),
        ("data/sources/mine.jsonl", False),
        ("src/mothertongue/sampling/vllm.py", False),
    ],
)
def test_what_dvc_does_not_count_as_part_of_a_folder(path: str, ignored: bool) -> None:
    """Python writes __pycache__ into folders that are deps; it must not make a stage stale."""
    from dvc.repo import Repo

    assert Repo(ROOT).dvcignore.is_ignored_file(str(ROOT / path), ignore_subrepos=False) == ignored


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """Outputs of all entries, and of one that params.yaml no longer has."""
    (tmp_path / "dvc.lock").write_text(LOCK, encoding="utf-8")
    names = ("data/raw.jsonl", "data/generated/plain.jsonl", "data/generated/old.jsonl", "metrics/old/a.json")
    for name in (*names, "metrics/measured/base/a.json", "metrics/curves/base.csv"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    return tmp_path


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_outputs_of_a_removed_entry_are_removed_and_printed(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = files(workspace)
    check.remove_leftovers(workspace, OUTPUTS, FOLDERS)
    assert before - files(workspace) == {"data/generated/old.jsonl", "metrics/old/a.json"}
    assert capsys.readouterr().out == (
        "data/generated/old.jsonl: removed, because no entry of params.yaml makes it\n"
        "metrics/old: removed, because no entry of params.yaml makes it\n"
    )
    assert (workspace / "dvc.lock").read_text(encoding="utf-8") == LOCK[: LOCK.index("  generated@old:")]
    check.remove_leftovers(workspace, OUTPUTS, FOLDERS)
    assert capsys.readouterr().out == ""


def test_stages_get_the_order_of_the_pipeline(workspace: Path) -> None:
    """DVC appends a stage that comes back; a used workspace and a fresh clone should end with the same file."""
    head, rest = LOCK[: LOCK.index("  raw:")], LOCK[LOCK.index("  raw:") : LOCK.index("  generated@old:")]
    first, second = rest[: rest.index("  generated@plain:")], rest[rest.index("  generated@plain:") :]
    (workspace / "dvc.lock").write_text(head + second + first, encoding="utf-8")
    (workspace / "data/generated/old.jsonl").unlink()
    check.remove_leftovers(workspace, OUTPUTS, FOLDERS)
    assert (workspace / "dvc.lock").read_text(encoding="utf-8") == head + first + second


def test_an_output_that_another_stage_makes_now_is_kept(workspace: Path) -> None:
    outputs = {**OUTPUTS, "generated@new": ["data/generated/old.jsonl"]}
    check.remove_leftovers(workspace, outputs, FOLDERS)
    assert (workspace / "data/generated/old.jsonl").exists()
    assert "generated@old" not in (workspace / "dvc.lock").read_text(encoding="utf-8")


def test_an_output_that_its_stage_no_longer_has_is_removed(workspace: Path) -> None:
    check.remove_leftovers(workspace, {**OUTPUTS, "generated@old": ["data/generated/new.jsonl"]}, FOLDERS)
    assert not (workspace / "data/generated/old.jsonl").exists()
    assert "generated@old" in (workspace / "dvc.lock").read_text(encoding="utf-8")


def test_a_path_of_the_lock_that_is_no_output_is_left_alone(workspace: Path) -> None:
    """Outside the project, or around or inside an output."""
    outside = workspace.parent / "outside"
    outside.mkdir(exist_ok=True)
    (workspace / "src/old").mkdir(parents=True)
    paths = [
        "src/old",
        "../outside",
        str(outside),
        ".",
        "data",
        "src",
        "metrics/measured",
        "metrics/measured/base/a.json",
    ]
    outs = "".join(f"    - path: {path}\n      hash: md5\n" for path in paths)
    (workspace / "dvc.lock").write_text(f"{LOCK}  old:\n    cmd: python\n    outs:\n{outs}", encoding="utf-8")
    before = files(workspace)
    check.remove_leftovers(workspace, OUTPUTS, FOLDERS)
    assert before - files(workspace) == {"data/generated/old.jsonl", "metrics/old/a.json"}
    assert outside.is_dir()
    assert (workspace / "src/old").is_dir()


def test_an_edited_leftover_is_refused_and_nothing_is_removed(workspace: Path) -> None:
    (workspace / "dvc.lock").write_text(
        LOCK.replace("    - path: data/generated/old.jsonl\n", "    - path: data/generated/old.jsonl\n      md5: 0f\n")
    )
    before = files(workspace)
    with pytest.raises(BadInput) as caught:
        check.remove_leftovers(workspace, OUTPUTS, FOLDERS)
    assert caught.value.message == (
        "data/generated/old.jsonl: edited or extended, and no entry of params.yaml makes it; move it elsewhere, or"
        " delete it"
    )
    assert files(workspace) == before
    assert "generated@old" in (workspace / "dvc.lock").read_text(encoding="utf-8")


def test_a_link_is_removed_and_not_what_it_points_to(workspace: Path) -> None:
    target = workspace.parent / "target"
    target.mkdir(exist_ok=True)
    (target / "kept").touch()
    (workspace / "metrics/old/a.json").unlink()
    (workspace / "metrics/old").rmdir()
    (workspace / "metrics/old").symlink_to(target)
    check.remove_leftovers(workspace, OUTPUTS, FOLDERS)
    assert not (workspace / "metrics/old").is_symlink()
    assert (target / "kept").exists()


def test_a_group_that_cannot_be_followed_is_refused() -> None:
    matrix = {"stages": {"generated": {"matrix": {"name": ["a"]}, "outs": ["data/generated"]}}}
    item = {"stages": {"generated": {"foreach": "${generated}", "do": {"outs": ["data/${item.x}.jsonl"]}}}}
    for pipeline, expected in (
        (matrix, "dvc.yaml: generated: use foreach over a map of params.yaml, not matrix"),
        (item, "dvc.yaml: generated@plain: outputs can contain ${key} and no other variable"),
    ):
        with pytest.raises(BadInput) as caught:
            check.list_outputs(pipeline, VALUES)
        assert caught.value.message == expected


def test_what_a_folder_is_for_is_no_output(workspace: Path) -> None:
    """A folder of outputs that has to be there without any has a README."""
    (workspace / "data/generated/README.md").write_text("What is here.")
    check.remove_leftovers(workspace, OUTPUTS, FOLDERS)
    assert (workspace / "data/generated/README.md").exists()


@pytest.mark.parametrize("name", ["mine.jsonl", ".DS_Store"])
def test_a_file_that_nobody_knows_is_refused_and_kept(workspace: Path, name: str) -> None:
    (workspace / "data/generated" / name).write_text("mine")
    with pytest.raises(BadInput) as caught:
        check.remove_leftovers(workspace, OUTPUTS, FOLDERS)
    assert caught.value.message == (
        f"data/generated/{name}: no entry of params.yaml makes it, and stages read this folder; move it elsewhere, or"
        " delete it"
    )
    assert (workspace / "data/generated" / name).read_text() == "mine"
    assert (workspace / "data/generated/old.jsonl").exists()


def test_a_file_in_another_folder_is_left_alone(workspace: Path) -> None:
    (workspace / "metrics/measured/mine.md").write_text("mine")
    check.remove_leftovers(workspace, OUTPUTS, FOLDERS)
    assert (workspace / "metrics/measured/mine.md").read_text() == "mine"


def test_a_workspace_without_a_lock_has_no_leftovers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    check.remove_leftovers(tmp_path, OUTPUTS, FOLDERS)
    assert capsys.readouterr().out == ""


def test_an_engine_that_is_not_installed_is_refused_with_its_line(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (workplace / "params.yaml").write_text(PARAMS.replace("win_rate: {}\n", WIN_RATE), encoding="utf-8")
    values = params.load()
    assert list(check.find_missing_engines(values)) == []
    monkeypatch.setattr("mothertongue.sampling.is_installed", lambda engine: engine != "transformers")
    done = CliRunner().invoke(check.main)
    assert done.exit_code == 1
    lines = (workplace / "params.yaml").read_text(encoding="utf-8").splitlines()
    lines_of_errors = done.stderr.removeprefix("Error: ").splitlines()
    assert len(lines_of_errors) == sum(
        map(len, (values.generated, values.scored, values.metrics.models, values.win_rate))
    )
    for line in lines_of_errors:
        place, _, what = line.partition(": ")
        assert "engine: transformers" in lines[int(place.removeprefix("params.yaml:")) - 1]
        assert what.endswith("engine: transformers is not installed; install it, or take another engine")


@pytest.mark.parametrize("change", ["edit", "extend", None])
def test_a_folder_with_a_file_of_a_person_is_refused(workspace: Path, change: str | None) -> None:
    """The digest in dvc.lock is computed here by DVC's own code."""
    from dvc_data.hashfile.hash_info import HashInfo
    from dvc_data.hashfile.meta import Meta
    from dvc_data.hashfile.tree import Tree

    folder = workspace / "metrics/old"
    (folder / "deeper").mkdir()
    (folder / "deeper/b.json").write_text("b")
    tree = Tree()
    for path in folder.rglob("*.json"):
        digest = hashlib.md5(path.read_bytes()).hexdigest()
        tree.add(path.relative_to(folder).parts, Meta(), HashInfo("md5", digest))
    tree.digest()
    assert tree.hash_info is not None
    lock = LOCK.replace("    - path: metrics/old\n", f"    - path: metrics/old\n      md5: {tree.hash_info.value}\n")
    assert lock != LOCK
    (workspace / "dvc.lock").write_text(lock, encoding="utf-8")
    if change:
        (folder / ("a.json" if change == "edit" else "notes.txt")).write_text("mine")
        with pytest.raises(BadInput, match="metrics/old: edited or extended, and no entry"):
            check.remove_leftovers(workspace, OUTPUTS, FOLDERS)
        assert folder.exists()
    else:
        check.remove_leftovers(workspace, OUTPUTS, FOLDERS)
        assert not folder.exists()
