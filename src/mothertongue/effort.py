"""What a run took: tokens and cost of generators and judges, and how each training went. For the report."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mothertongue.files import read_json_object

LAST = (  # of metrics/adapter/<step>.json
    "loss",
    "validation_loss",
    "reward_accuracy",
    "validation_reward_accuracy",
    "reward_margin",
    "validation_reward_margin",
)


def read_usage(
    metrics: Path, generated: Iterable[str], scored: Sequence[str], win_rate: Iterable[str]
) -> dict[str, dict[str, Any]]:
    """What the stages that ask models counted, by stage and entry of a section of params.yaml.

    A judge that had no people's answers to judge has no row of stage `calibrated`.
    """
    asked = {"generated": generated, "scored": scored, "calibrated": scored, "win_rate": win_rate}
    paths = {f"{stage} {name}": metrics / stage / f"{name}.json" for stage, names in asked.items() for name in names}
    written = {name: read_json_object(path, "run the stage that makes it") for name, path in paths.items()}
    found = {}
    for name, about in written.items():
        if about["usage"]:
            refused = (
                about["answers"]["dropped"]["refused"] if "answers" in about else about["verdicts"]["dropped"]["error"]
            )
            found[name] = about["usage"] | {"refused": refused}
    return found


def read_trainings(metrics: Path, steps: Iterable[str]) -> dict[str, dict[str, Any]]:
    """What stage `adapter` reports of each step."""
    return {name: read_json_object(metrics / f"adapter/{name}.json", "run stage adapter") for name in steps}


def render_usage(found: Mapping[str, Mapping[str, Any]]) -> str:
    """Markdown: requests, tokens and cost of each entry; no cost where params.yaml has no price."""
    lines = [
        "What generators and judges were asked, whether it was computed for this run or found in the sample store.",
        "Equal requests to a server count once in a row of this table, and are paid for once in all rows together.",
        "There is no cost where its model has no `price`, or it did not count all tokens. `refused`: answers that a",
        "server did not give, and verdicts that are an error.",
        "",
        "| stage and entry | requests | refused | tokens: prompts | answers | cost |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    for name, used in found.items():
        counts = " | ".join(f"{used[key]:.0f}" for key in ("requests", "refused", "prompt_tokens", "tokens"))
        lines.append(f"| `{name}` | {counts} | {format(used['cost'], '.4f') if 'cost' in used else '–'} |")
    return "\n".join(lines) + "\n"


def render_trainings(found: Mapping[str, Mapping[str, Any]]) -> str:
    """Markdown: what each step learned from, and its last measurements in training and on held-out rows."""
    lines = [
        "Trainings, with their last measurements; `held-out` is split validation. metrics/curves has each update.",
        "",
        "| step | rows | too long | updates | loss | held-out | accuracy of rewards | held-out | margin | held-out |",
        f"|---|--:|--:|--:{'|--:' * len(LAST)}|",
    ]
    for name, about in found.items():
        rows = next(about[key] for key in ("pairs", "conversations", "rows", "texts") if key in about)
        cells = [f"{about['last'][key]:.3f}" if key in about["last"] else "–" for key in LAST]
        lines.append(f"| `{name}` | {rows} | {about.get('left_out', 0)} | {about['updates']} | {' | '.join(cells)} |")
    lines += [
        f"\n`{name}` had no held-out rows, so its health was not watched, but for NaN."
        for name, about in found.items()
        if not any(value for key, value in about["validation"].items() if key not in ("left_out", "probes"))
    ]
    return "\n".join(lines) + "\n"
