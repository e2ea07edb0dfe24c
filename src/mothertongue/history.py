"""What was tried before: the same training with further seeds, and how often somebody looked at figures to choose.

Both are kept in files that git tracks, so that a clone reports the same: metrics/seeds.json (`make seeds N=3`) and
metrics/experiments.json (`make repro` and `make final` add to it, nothing takes from it).
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

from pydantic import Field

from mothertongue.errors import BadInput
from mothertongue.records import Row, parse

R = TypeVar("R", "Seeds", "Experiments")
Figures = dict[str, dict[str, float]]  # by measured model and figure


class Training(Row):
    """One training, and all figures of what it made."""

    seed: int
    figures: Figures


class Seeds(Row):
    """Trainings that differ in adapter.seed alone, and the split they were measured on."""

    split: str = "validation"
    runs: list[Training] = Field(default_factory=list)


class Experiments(Row):
    """Who looked: experiments by name and commit, by the split that they show; settings that were measured on test."""

    validation: list[str] = Field(default_factory=list)
    test: list[str] = Field(default_factory=list)


def read(path: Path, kind: type[R]) -> R:
    """One of the two files. Raises BadInput where it is not there or holds something else."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise BadInput(f"{path}: cannot be read ({error}); take it from git, or write {{}} to begin anew") from error
    return parse(kind, value, str(path))


def stale(seeds: Seeds, seed: int, measured: Mapping[str, Mapping[str, float]]) -> bool:
    """Whether the training with `seed` had other figures than those that are measured now."""
    return not any(run.seed == seed and run.figures == measured for run in seeds.runs)


def spread(
    seeds: Seeds, seed: int, measured: Mapping[str, Mapping[str, float]], name: str
) -> dict[str, tuple[float, float, int]]:
    """Lowest and highest value of each figure of a measured model over the trainings, and how many these are.

    Empty where there is one training, or the trainings are of another model than the one that is measured now. Without
    a figure that one of the trainings lacks.
    """
    if len(seeds.runs) < 2 or stale(seeds, seed, measured):
        return {}
    found = {
        figure: [run.figures[name][figure] for run in seeds.runs]
        for figure in measured[name]
        if all(figure in run.figures.get(name, {}) for run in seeds.runs)
    }
    return {figure: (min(values), max(values), len(values)) for figure, values in found.items()}


def notes(
    seeds: Seeds, experiments: Experiments, seed: int, measured: Mapping[str, Mapping[str, float]], split: str
) -> list[str]:
    """What the report says first: how many choices its figures come after, and whether trainings vary."""
    looked = len(experiments.validation)
    found = [f"DVC experiments that were looked at on split `validation` before: {looked} (edits by hand not counted)."]
    if experiments.test or split == "test":
        found.append(f"Settings that were looked at on split `test`: {len(experiments.test)}.")
    if len(seeds.runs) < 2:
        found.append("One training: how far another seed moves the figures was not measured (`make seeds N=3`).")
    elif seeds.split != split:
        found.append(f"How far another seed moves the figures was measured on split `{seeds.split}`, and stands there.")
    elif stale(seeds, seed, measured):
        found.append("The spread over trainings is of another model and is not shown; `make seeds` makes it again.")
    return found
