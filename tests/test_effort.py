"""What a run took, as tables of the report."""

import json
from pathlib import Path
from typing import Any

import pytest

from mothertongue import effort
from mothertongue.errors import BadInput


def write(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")


def test_usage_with_and_without_a_price(tmp_path: Path) -> None:
    used = {"requests": 4, "prompt_tokens": 280, "tokens": 12}
    for refused, name in enumerate(("plain", "other")):
        counts = {"total": 4, "kept": 4 - refused, "dropped": {"refused": refused}}
        write(tmp_path / f"generated/{name}.json", {"answers": counts, "usage": used})
    for name in ("rubric", "second"):
        write(
            tmp_path / f"scored/{name}.json",
            {"verdicts": {"dropped": {"unparsed": 1, "error": 2}}, "usage": used | {"cost": 0.0148}},
        )
        about = (
            {"verdicts": {"dropped": {"unparsed": 0, "error": 3}}, "usage": used}
            if name == "second"
            else {"usage": None}
        )
        write(tmp_path / f"calibrated/{name}.json", about)
    write(tmp_path / "win_rate/base.json", {"verdicts": {"dropped": {"error": 4, "unanswered": 5}}, "usage": used})
    page = effort.render_usage(effort.read_usage(tmp_path, ["plain", "other"], ["rubric", "second"], ["base"]))
    assert page.splitlines()[-6:] == [
        "| `generated plain` | 4 | 0 | 280 | 12 | – |",
        "| `generated other` | 4 | 1 | 280 | 12 | – |",
        "| `scored rubric` | 4 | 2 | 280 | 12 | 0.0148 |",
        "| `scored second` | 4 | 2 | 280 | 12 | 0.0148 |",
        "| `calibrated second` | 4 | 3 | 280 | 12 | – |",
        "| `win_rate base` | 4 | 4 | 280 | 12 | – |",
    ]


def test_a_stage_that_has_not_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"adapter/dpo.json: cannot be read .*; run stage adapter"):
        effort.read_trainings(tmp_path, ["dpo"])


def test_trainings_of_all_kinds(tmp_path: Path) -> None:
    about: dict[str, dict[str, Any]] = {
        "cpt": {"texts": 8, "rows": 3, "updates": 2, "last": {"loss": 3.14159, "validation_loss": 4}},
        "sft": {"conversations": 5, "left_out": 1, "updates": 2, "last": {"loss": 2.5, "learning_rate": 0.0}},
        "dpo": {"pairs": 7, "left_out": 0, "updates": 3, "last": {"loss": 0.5, "validation_reward_margin": -0.25}},
    }
    about["cpt"]["validation"] = {"texts": 2, "rows": 1}
    about["sft"]["validation"] = {"conversations": 0, "left_out": 0, "probes": 0}
    about["dpo"]["validation"] = {"pairs": 3, "left_out": 0, "probes": 2}
    for name, found in about.items():
        write(tmp_path / f"adapter/{name}.json", found)
    page = effort.render_trainings(effort.read_trainings(tmp_path, about))
    head, _, *rows, _, unwatched = page.splitlines()[2:]
    assert unwatched == "`sft` had no held-out rows, so its health was not watched, but for NaN."
    assert head.count("|") == rows[0].count("|")
    assert rows == [
        "| `cpt` | 3 | 0 | 2 | 3.142 | 4.000 | – | – | – | – |",
        "| `sft` | 5 | 1 | 2 | 2.500 | – | – | – | – | – |",
        "| `dpo` | 7 | 0 | 3 | 0.500 | – | – | – | – | -0.250 |",
    ]
