"""Recipes: whole files of parameters under recipes/, one of which becomes params.yaml."""

import difflib
import subprocess
from pathlib import Path

import click

from mothertongue import console, params
from mothertongue.errors import BadInput
from mothertongue.files import new_file

FOLDER = Path("recipes")
PARAMS = Path("params.yaml")


def take_recipe(name: str) -> list[str]:
    """Write recipes/<name>.yaml to params.yaml, comments included, and return the changed lines of a diff.

    Raises BadInput for an unknown recipe, one that has a mistake, and where params.yaml has edits that would be lost:
    git does not have them, and no recipe is equal.
    """
    recipes = {path.name.removesuffix(".yaml"): path for path in sorted(FOLDER.glob("*.yaml"))}
    if name not in recipes:
        raise BadInput(f"no recipe {name!r}; take one of {', '.join(recipes)}")
    params.load(recipes[name])
    text, before = recipes[name].read_text(encoding="utf-8"), PARAMS.read_text(encoding="utf-8")
    known = {path.read_text(encoding="utf-8") for path in recipes.values()}
    if before not in known and before != _committed():
        raise BadInput(f"{PARAMS}: has edits that are in no commit; commit them, or `git checkout {PARAMS}`")
    with new_file(PARAMS) as file:
        file.write(text.encode())
    lines = difflib.unified_diff(before.splitlines(), text.splitlines(), n=0, lineterm="")
    return [line for line in lines if not line.startswith(("---", "+++", "@@"))]


def _committed() -> str:
    shown = subprocess.run(["git", "show", f"HEAD:./{PARAMS}"], capture_output=True, check=False)
    return shown.stdout.decode()


@click.command()
@click.argument("name", default="")
def main(name: str) -> None:
    """Replace params.yaml by the recipe NAME, and print what changed."""
    changed = take_recipe(name)
    for line in changed:
        console.say(line)
    console.say(f"{PARAMS}: {FOLDER}/{name}.yaml, {len(changed)} lines changed; `make repro` runs it")


if __name__ == "__main__":
    main()
