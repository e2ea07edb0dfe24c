"""Runs of the whole chain beside the workspace's own: other seeds, the figures on test, and a list of all of them.

Each is a DVC experiment in a temporary copy of the files that git tracks, committed or not, so that the workspace stays
as it is. Its name ends in a digest of all that its figures depend on: one that has run is not run again.
"""

import hashlib
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import click
from ruamel.yaml import YAML

from mothertongue import params
from mothertongue.errors import BadInput
from mothertongue.files import new_file
from mothertongue.history import Experiments, Figures, Seeds, Training, read_history
from mothertongue.params import Metrics
from mothertongue.rows import write_json

SEEDS, EXPERIMENTS, FINAL = (Path("metrics", name) for name in ("seeds.json", "experiments.json", "final.md"))
OURS = re.compile(r"(seed(-\d+)+|final)-[0-9a-f]{8}")  # not used for choices


def digest(lock: Mapping[str, Any], word: str, without: Sequence[str]) -> str:
    """Of all that the outputs of the stages `word` and those after them, but the report, depend on.

    `lock` is the content of dvc.lock. `without` are the parameters that the runs differ in. Files that these stages
    write and read follow from the rest and are left out; of a folder that they read, those that other stages made stay.
    """
    stages = {name: stage for name, stage in lock["stages"].items() if name != "report"}
    names = {name for name in stages if name.split("@")[0] == word}
    if not names:
        raise BadInput(f"dvc.lock: no stage {word}; run `make repro` first")
    outs: set[str] = set()
    while True:
        outs = {out["path"] for name in names for out in stages[name].get("outs", ())}
        more = {
            name for name, stage in stages.items() if any(_touches(dep["path"], outs) for dep in stage.get("deps", ()))
        } - names
        if not more:
            break
        names |= more
    given = {
        out["path"]: out["md5"] for name, stage in stages.items() if name not in names for out in stage.get("outs", ())
    }
    found = {}
    for name in names:
        values = _params(stages[name])
        for key in without:
            values = _drop(values, key)
        deps: dict[str, str] = {}
        for dep in stages[name].get("deps", ()):
            if _touches(dep["path"], outs):
                deps |= {path: md5 for path, md5 in given.items() if path.startswith(f"{dep['path']}/")}
            else:
                deps[dep["path"]] = dep["md5"]
        engines = {file: of for file, of in stages[name].get("params", {}).items() if file != "params.yaml"}
        found[name] = [stages[name]["cmd"], deps, values, engines]
    return hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()[:8]


def _drop(values: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Parameters without one of them; DVC keeps `a.b.c` as `{"a": {"b": {"c": ...}}}` or `{"a.b": {"c": ...}}`."""
    return {
        key: _drop(value, name.removeprefix(f"{key}.")) if name.startswith(f"{key}.") else value
        for key, value in values.items()
        if key != name
    }


def _touches(path: str, outs: Iterable[str]) -> bool:
    """Whether a path is an output, is in one, or is a folder that has one, as where a stage reads a whole group."""
    return any(f"{path}/".startswith(f"{out}/") or out.startswith(f"{path}/") for out in outs)


def _params(stage: Mapping[str, Any]) -> dict[str, Any]:
    return dict(stage.get("params", {}).get("params.yaml", {}))


def _yaml(text: str) -> Any:
    return YAML(typ="safe", pure=True).load(text)


def _lock() -> Any:
    try:
        return _yaml(Path("dvc.lock").read_text(encoding="utf-8"))
    except OSError as error:
        raise BadInput(f"dvc.lock: cannot be read ({error.strerror}); run `make repro` first") from error


def _git(*arguments: str) -> str:
    """What git prints; nothing where it fails, as outside of a repository."""
    return subprocess.run(["git", *arguments], capture_output=True, check=False).stdout.decode()


def _experiments() -> list[tuple[str, str, str]]:
    """(commit, reference, name) of each experiment; two on different commits may have one name."""
    lines = _git("for-each-ref", "--format=%(objectname) %(refname)", "refs/exps").splitlines()
    matches = (re.fullmatch(r"(\w+) (refs/exps/[0-9a-f]{2}/[0-9a-f]{38}/(.+))", line) for line in lines)
    return [(match[1], match[2], match[3]) for match in matches if match]


def _remove(name: str) -> None:
    for _, reference, other in _experiments():
        if other == name:
            _git("update-ref", "-d", reference)


def _run(name: str, changes: Sequence[str], compute_digest: Callable[[Any], str], ours: str) -> str | None:
    """The commit of an experiment with changed parameters, which is run where there is none; None where it failed.

    Raises BadInput where the digest of its dvc.lock is not `ours`: it ran on other files than the workspace has.
    """
    if name not in (other for _, _, other in _experiments()):
        options = [part for change in changes for part in ("--set-param", change)]
        subprocess.run([sys.executable, "-m", "dvc", "exp", "run", "--temp", "--name", name, *options], check=False)
    commit = next((commit for commit, _, other in _experiments() if other == name), None)
    if commit and compute_digest(_yaml(_git("show", f"{commit}:dvc.lock"))) != ours:
        _remove(name)
        raise BadInput(f"{name}: it ran on other files than the workspace has; `git add` new files, and run again")
    return commit


def _figures(read_text: Callable[[str], str], params: Metrics) -> Figures:
    suites = {name: [f"metrics/measured/{name}/{suite}.json" for suite in params.suites] for name in params.models}
    return {
        name: {
            figure: found["value"] for path in paths for figure, found in json.loads(read_text(path))["figures"].items()
        }
        for name, paths in suites.items()
    }


@click.group()
def main() -> None:
    """Other seeds, the figures on test, and a list of the experiments that were compared."""


@main.command()
def note() -> None:
    """Add the experiments of this clone and a look at test to metrics/experiments.json; `make repro` does so first."""
    known = read_history(EXPERIMENTS, Experiments)
    seen = {line.split()[0] for line in (*known.validation, *known.test)}
    new: dict[str, list[str]] = {"validation": [], "test": []}
    for commit, _, name in _experiments():
        if commit[:7] not in seen and not OURS.fullmatch(name):
            values = _yaml(_git("show", f"{commit}:params.yaml")) or {}
            # Before there was a choice, all was measured on test.
            new[values.get("metrics", {}).get("split", "test")].append(f"{commit[:7]} {name}")
    if params.load().metrics.split == "test":  # by hand
        digest_now = hashlib.sha256(Path("params.yaml").read_bytes()).hexdigest()[:7]
        new["test"] += [f"{digest_now} params.yaml"] * (digest_now not in seen)
    if any(new.values()):
        write_json(
            EXPERIMENTS,
            {"validation": sorted(known.validation + new["validation"]), "test": sorted(known.test + new["test"])},
        )


@main.command()
@click.argument("count", type=click.IntRange(min=2))
def seeds(count: int) -> None:
    """Train and measure with COUNT seeds in all, from the seed of each step on; metrics/seeds.json gets all figures."""
    from dvc.api import DVCFileSystem

    values = params.load()
    first = {name: step.seed for name, step in sorted(values.adapter.items())}
    compute_digest = partial(digest, word="adapter", without=[f"adapter.{name}.seed" for name in first])
    ours = compute_digest(_lock())
    figures = _figures(lambda path: Path(path).read_text(encoding="utf-8"), values.metrics)
    runs, failed = [Training(seeds=first, figures=figures)], []
    for more in range(1, count):
        others = {name: seed + more for name, seed in first.items()}
        changes = [f"adapter.{name}.seed={seed}" for name, seed in others.items()]
        if commit := _run(f"seed-{'-'.join(map(str, others.values()))}-{ours}", changes, compute_digest, ours):
            read_text = DVCFileSystem(rev=commit).read_text
            runs.append(Training(seeds=others, figures=_figures(read_text, values.metrics)))
        else:
            failed.append(", ".join(f"{name} {seed}" for name, seed in others.items()))
    write_json(SEEDS, Seeds(split=values.metrics.split, runs=runs).model_dump())
    click.echo(f"{SEEDS}: {len(runs)} of {count} trainings")
    if failed:
        raise BadInput(f"seeds {'; '.join(failed)}: no figures, see above; `make seeds` tries again")


@main.command()
def final() -> None:
    """Measure on split test, and write that report to metrics/final.md; metrics/experiments.json keeps the look."""
    if params.load().metrics.split == "test":
        raise BadInput("params.yaml: metrics.split: `make final` turns it to test itself; choose on validation")
    compute_digest = partial(digest, word="metrics", without=["metrics.split"])
    ours, known = compute_digest(_lock()), read_history(EXPERIMENTS, Experiments)
    if ours not in known.test:
        write_json(EXPERIMENTS, {"validation": known.validation, "test": sorted([*known.test, ours])})
    name = f"final-{ours}"
    _remove(name)  # the page may have changed; its figures are in DVC's cache
    if not (commit := _run(name, ["metrics.split=test"], compute_digest, ours)):
        raise BadInput(f"{name}: the experiment failed, see above; fix that and run again")
    with new_file(FINAL) as file:
        file.write(f"Settings `{ours}`.\n{_git('show', f'{commit}:metrics/report.md')}".encode())
    click.echo(f"{FINAL}: written")


if __name__ == "__main__":
    main()
