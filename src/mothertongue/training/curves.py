"""Curves of a training step as CSV files, for `dvc plots`."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mothertongue.files import new_file
from mothertongue.training.health import LENGTH, REPETITION, RIGHT_LANGUAGE

# A file for each plot: our columns, and the names of them in the trainer's history. What is measured on held-out rows
# has a column `validation_...` beside it.
CURVES: Mapping[str, Mapping[str, str]] = {
    "loss": {"loss": "loss"},
    "learning_rate": {"learning_rate": "learning_rate"},
    "reward_accuracy": {"reward_accuracy": "rewards/accuracies"},
    "reward_margin": {"reward_margin": "rewards/margins"},
    "log_probability": {"chosen_log_probability": "logps/chosen", "rejected_log_probability": "logps/rejected"},
    "answers": {"right_language": RIGHT_LANGUAGE, "repetition": REPETITION, "length": LENGTH},
}
MEASURED = ("loss", "reward_accuracy", "reward_margin", "log_probability")  # on held-out rows as well


def write_curves(history: Sequence[Mapping[str, Any]], folder: Path, name: str) -> dict[str, float]:
    """Write folder/<curve>/<name>.csv for each of CURVES, one row per update; returns the last value of each column.

    A method without a curve, as SFT without rewards, gets a row without values. What was not measured at an update is
    NaN, because DVC's plots take an empty cell for 0.
    """
    last: dict[str, float] = {}
    for curve, columns in CURVES.items():
        prefixes = (("", ""), ("eval_", "validation_")) if curve in MEASURED else (("", ""),)
        rows: dict[int, dict[str, float]] = {}
        for entry in history:
            for ours, theirs in columns.items():
                for prefix, more in prefixes:
                    if (value := entry.get(f"{prefix}{theirs}")) is not None:
                        rows.setdefault(int(entry["step"]), {})[f"{more}{ours}"] = round(float(value), 6)
        text = io.StringIO()
        header = ["step", *(f"{more}{ours}" for _, more in prefixes for ours in columns)]
        writer = csv.DictWriter(text, header, restval="NaN", lineterminator="\n")
        writer.writeheader()
        for step, row in sorted(rows.items()) or [(0, {})]:
            writer.writerow({"step": step, **row})
            last |= row
        with new_file(folder / curve / f"{name}.csv") as file:
            file.write(text.getvalue().encode())
    return last
