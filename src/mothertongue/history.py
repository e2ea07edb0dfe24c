"""Earlier runs: the same training with other seeds, and how many settings were compared on each split.

Both are in files that git tracks, so that a clone reports the same: metrics/seeds.json (`make seeds N=3`) and
metrics/experiments.json (`make repro` and `make final` add to it, nothing removes from it).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

from pydantic import Field

from mothertongue.files import read_json_object
from mothertongue.params import Metrics, Step
from mothertongue.rows import Row, parse

R = TypeVar("R", "Seeds", "Experiments")
Figures = dict[str, dict[str, float]]  # by column and figure


class Training(Row):
    """One training, and all figures of its models."""

    seeds: dict[str, int]  # by training step
    figures: Figures


class Seeds(Row):
    """Trainings that differ only in the seeds, and the split they were measured on."""

    split: str = "validation"
    runs: list[Training] = Field(default_factory=list)


class Experiments(Row):
    """Experiments that were compared, by commit and name, by the split of their figures."""

    validation: list[str] = Field(default_factory=list)
    test: list[str] = Field(default_factory=list)


def read_history(path: Path, kind: type[R]) -> R:
    """One of the two files. Raises BadInput where it is missing or broken."""
    return parse(kind, read_json_object(path, "take it from git, or write {} to start over"), str(path))


def is_stale(runs: Seeds, seeds: Mapping[str, int], measured: Mapping[str, Mapping[str, float]]) -> bool:
    """Whether no training with these seeds had the figures that are measured now."""
    return not any(run.seeds == seeds and run.figures == measured for run in runs.runs)


def seed_range(
    runs: Seeds, seeds: Mapping[str, int], measured: Mapping[str, Mapping[str, float]], name: str
) -> dict[str, tuple[float, float, int]]:
    """Lowest and highest value of each figure of a column over the trainings, and the number of trainings.

    Empty where there is one training, or none of them had the figures that are measured now. Figures that one of
    the trainings lacks are left out.
    """
    if len(runs.runs) < 2 or is_stale(runs, seeds, measured):
        return {}
    found = {
        figure: [run.figures[name][figure] for run in runs.runs]
        for figure in measured[name]
        if all(figure in run.figures.get(name, {}) for run in runs.runs)
    }
    return {figure: (min(values), max(values), len(values)) for figure, values in found.items()}


def describe_history(
    runs: Seeds,
    experiments: Experiments,
    seeds: Mapping[str, int],
    measured: Mapping[str, Mapping[str, float]],
    split: str,
) -> list[str]:
    """The first lines of the report: the number of settings compared before, and whether seeds were varied."""
    looked = len(experiments.validation)
    found = [f"DVC experiments that were looked at on split `validation` before: {looked} (edits by hand not counted)."]
    if experiments.test or split == "test":
        found.append(f"Settings that were looked at on split `test`: {len(experiments.test)}.")
    if len(runs.runs) < 2:
        found.append("One training: how far another seed moves the figures was not measured (`make seeds N=3`).")
    elif runs.split != split:
        found.append(
            f"How far another seed moves the figures was measured on split `{runs.split}`, and is in that report."
        )
    elif is_stale(runs, seeds, measured):
        found.append(
            "The range over seeds is of other figures than these and not shown; `make seeds` measures it again."
        )
    return found


def describe_runs(
    folder: Path, steps: Mapping[str, Step], params: Metrics, measured: Mapping[str, Mapping[str, float]]
) -> tuple[list[str], dict[str, tuple[float, float, int]]]:
    """The first lines of the report, and the range over seeds of the headline's figures, by the files in `folder`."""
    runs, looks = read_history(folder / "seeds.json", Seeds), read_history(folder / "experiments.json", Experiments)
    seeds = {name: step.seed for name, step in steps.items()}
    notes = describe_history(runs, looks, seeds, measured, params.split)
    return notes, seed_range(runs, seeds, measured, params.headline)
