"""Checks before `dvc repro`: params.yaml, installed engines, and files that no entry of params.yaml makes any more.

Stages read whole folders, such as data/generated. A file that is left there from a removed or renamed entry would
change what DVC records, so that an old workspace and a fresh clone would end with different lock files.
"""

import hashlib
import json
import re
import shutil
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import click
from ruamel.yaml import YAML

from mothertongue import console, params, prompts
from mothertongue.errors import BadInput
from mothertongue.files import new_file
from mothertongue.params import GenerativeJudge, Params, Problem

OUTPUTS = ("data", "models", "metrics")  # the folders of outputs


def find_missing_engines(values: Params) -> Iterator[Problem]:
    """Every entry whose engine cannot be imported."""
    from mothertongue.sampling import is_installed

    entries = [
        *((("generated", name), entry.engine) for name, entry in values.generated.items()),
        *(
            (("scored", name), judge.engine)
            for name, judge in values.scored.items()
            if isinstance(judge, GenerativeJudge)
        ),
        *((("metrics", "models", name), column.engine) for name, column in values.metrics.models.items()),
        *((("win_rate", name), entry.engine) for name, entry in values.win_rate.items()),
    ]
    for where, engine in entries:
        if not is_installed(engine):
            yield (*where, "engine"), f"{engine} is not installed; install it, or take another engine"


def list_outputs(pipeline: dict[str, Any], values: dict[str, Any]) -> dict[str, list[str]]:
    """The outputs of each stage of dvc.yaml, by name, its groups iterated over the maps of params.yaml."""
    found: dict[str, list[str]] = {}
    for word, stage in pipeline["stages"].items():
        if "foreach" not in stage:
            found[word] = _paths(stage)
            continue
        entries: Any = values
        for part in stage["foreach"].removeprefix("${").removesuffix("}").split("."):
            entries = entries[part]
        for key in entries:
            found[f"{word}@{key}"] = [path.replace("${key}", key) for path in _paths(stage["do"])]
    if unknown := [name for name, paths in found.items() if "${" in "".join(paths)]:
        raise BadInput(f"dvc.yaml: {unknown[0]}: outputs can contain ${{key}} and no other variable")
    if matrices := [word for word, stage in pipeline["stages"].items() if "matrix" in stage]:
        raise BadInput(f"dvc.yaml: {matrices[0]}: use foreach over a map of params.yaml, not matrix")
    return found


def list_folder_deps(pipeline: dict[str, Any], outputs: dict[str, list[str]]) -> list[str]:
    """The folders that stages read whole and other stages write files to, such as data/generated."""
    stages = [stage.get("do", stage) for stage in pipeline["stages"].values()]
    deps = {path for stage in stages for path in stage.get("deps", ())}
    return sorted(deps & {str(Path(path).parent) for paths in outputs.values() for path in paths})


def _paths(stage: dict[str, Any]) -> list[str]:
    """The paths under outs, plots and metrics, which may be text or a mapping of one path to its options."""
    entries = [entry for section in ("outs", "plots", "metrics") for entry in stage.get(section, ())]
    return [entry if isinstance(entry, str) else next(iter(entry)) for entry in entries]


def remove_leftovers(root: Path, outputs: dict[str, list[str]], folders: list[str]) -> None:
    """Remove outputs, and stages in dvc.lock, that no entry of params.yaml makes any more, and print each.

    DVC's cache keeps the outputs. The stages that are left get the order of dvc.yaml: DVC appends, and an entry that
    comes back would be last. Raises BadInput, and removes nothing, where an output was edited after its stage made it,
    and for a file in one of `folders`, which stages read whole, if neither params.yaml nor dvc.lock knows it.
    """
    lock = root / "dvc.lock"
    text = lock.read_text(encoding="utf-8") if lock.exists() else ""
    locked = (YAML(typ="safe").load(text) or {}).get("stages", {})
    made = {path for paths in outputs.values() for path in paths}
    old = {out["path"]: out.get("md5") for stage in locked.values() for out in stage.get("outs", ())}
    leftovers = [path for path in sorted(old) if _is_leftover(root, path, made)]
    for path in leftovers:
        if (root / path).exists() and old[path] and _digest(root / path) != old[path]:
            what = f"{path}: edited or extended, and no entry of params.yaml makes it"
            raise BadInput(f"{what}; move it elsewhere, or delete it")
    for folder in folders:
        for found in sorted((root / folder).glob("*")):
            path = found.relative_to(root).as_posix()
            ours = found.name == "README.md" or fnmatch(found.name, ".*.partial")
            if path not in made and path not in leftovers and not ours:
                what = f"{path}: no entry of params.yaml makes it, and stages read this folder"
                raise BadInput(f"{what}; move it elsewhere, or delete it")
    for path in leftovers:
        if (root / path).is_dir() and not (root / path).is_symlink():
            shutil.rmtree(root / path)
        else:
            (root / path).unlink()
        console.say(f"{path}: removed, because no entry of params.yaml makes it")
    kept = {name: locked[name] for name in outputs if name in locked}
    if locked and not kept:
        lock.unlink()
    elif list(kept) != list(locked):
        with new_file(lock) as file:
            file.write(_rewrite_lock(text, kept).encode())


def _is_leftover(root: Path, path: str, made: set[str]) -> bool:
    """Whether a path of dvc.lock is there, is no output, neither contains one nor is inside one, and may be removed."""
    place = Path(path)
    if place.is_absolute() or ".." in place.parts or len(place.parts) < 2 or place.parts[0] not in OUTPUTS:
        return False
    if any(place.is_relative_to(other) or Path(other).is_relative_to(place) for other in made):
        return False
    return (root / path).exists() or (root / path).is_symlink()


def _digest(path: Path) -> str:
    """DVC's digest of a file, or of a folder: that of the JSON list of its files and their digests."""
    if path.is_dir():
        files = {found.relative_to(path).as_posix(): found for found in path.rglob("*") if found.is_file()}
        rows = [{"md5": _digest(files[name]), "relpath": name} for name in sorted(files)]
        return hashlib.md5(json.dumps(rows, sort_keys=True).encode()).hexdigest() + ".dir"
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()


def _rewrite_lock(text: str, kept: dict[str, Any]) -> str:
    """dvc.lock with some stages only, in the order of `kept`, as DVC would write it."""
    head, *parts = re.split(r"^(?=  [^ #?])", text, flags=re.MULTILINE)
    blocks = {part.partition(":\n")[0].strip(): part for part in parts}
    shorter = head + "".join(blocks.get(name, "") for name in kept)
    if YAML(typ="safe").load(shorter).get("stages") == kept:
        return shorter
    raise BadInput("dvc.lock: not as DVC writes it; delete it, and run `dvc commit` or `dvc repro`")


@click.command()
def main() -> None:
    """Check params.yaml, with each mistake on a line of its own, and remove leftovers of earlier ones."""
    values, path = params.load(), Path("params.yaml")
    if missing := list(find_missing_engines(values)):
        raise params.describe_problems(path, missing)
    prompts.check_templates()
    pipeline = YAML(typ="safe", pure=True).load(Path("dvc.yaml"))
    outputs = list_outputs(pipeline, YAML(typ="safe", pure=True).load(path))
    remove_leftovers(Path(), outputs, list_folder_deps(pipeline, outputs))


if __name__ == "__main__":
    main()
