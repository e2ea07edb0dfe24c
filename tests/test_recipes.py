"""Recipes: whole parameter files that become params.yaml."""

import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner
from conftest import PARAMS

from mothertongue import recipes
from mothertongue.errors import BadInput

OTHER = PARAMS.replace("seed: 1\n", "seed: 7  # our choice\n")


@pytest.fixture
def project(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A git repository with params.yaml and two recipes."""
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    (workplace / "recipes").mkdir()
    (workplace / "recipes/first.yaml").write_text(PARAMS, encoding="utf-8")
    (workplace / "recipes/other.demo.yaml").write_text(OTHER, encoding="utf-8")
    for command in (["init", "-q"], ["add", "."], ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "a"]):
        subprocess.run(["git", *command], cwd=workplace, check=True)
    return workplace


def test_a_recipe_becomes_params_yaml_with_its_comments(project: Path) -> None:
    done = CliRunner().invoke(recipes.main, ["other.demo"])
    assert (project / "params.yaml").read_text(encoding="utf-8") == OTHER
    assert done.stdout == (
        "-seed: 1\n+seed: 7  # our choice\n"
        "params.yaml: recipes/other.demo.yaml, 2 lines changed; `make repro` runs it\n"
    )


def test_one_recipe_can_follow_another(project: Path) -> None:
    recipes.take_recipe("other.demo")
    assert recipes.take_recipe("first") == ["-seed: 7  # our choice", "+seed: 1"]
    assert recipes.take_recipe("first") == []
    assert (project / "params.yaml").read_text(encoding="utf-8") == PARAMS


@pytest.mark.parametrize("name", ["", "third", "other", "../params"])
def test_an_unknown_recipe_is_refused_with_the_names(project: Path, name: str) -> None:
    with pytest.raises(BadInput) as caught:
        recipes.take_recipe(name)
    assert caught.value.message == f"no recipe {name!r}; take one of first, other.demo"
    assert (project / "params.yaml").read_text(encoding="utf-8") == PARAMS


def test_a_recipe_with_a_mistake_is_refused(project: Path) -> None:
    (project / "recipes/bad.yaml").write_text(PARAMS.replace("seed: 1\n", "seed: x\n"), encoding="utf-8")
    with pytest.raises(BadInput) as caught:
        recipes.take_recipe("bad")
    assert caught.value.message == "recipes/bad.yaml:2: seed: input should be a valid integer, got 'x'"
    assert (project / "params.yaml").read_text(encoding="utf-8") == PARAMS


def test_edits_that_are_in_no_commit_are_not_lost(project: Path) -> None:
    edited = PARAMS.replace("seed: 1\n", "seed: 8\n")
    (project / "params.yaml").write_text(edited, encoding="utf-8")
    with pytest.raises(BadInput) as caught:
        recipes.take_recipe("first")
    assert caught.value.message == (
        "params.yaml: has edits that are in no commit; commit them, or `git checkout params.yaml`"
    )
    assert (project / "params.yaml").read_text(encoding="utf-8") == edited
