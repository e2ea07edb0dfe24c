"""What a run took: tokens and cost of generators and judges, and how each training went. For the report."""

from collections.abc import Iterable, Mapping
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


def read_usage(metrics: Path, generators: Iterable[str], judges: Iterable[str]) -> dict[str, dict[str, float]]:
    """What stages `generated` and `scored` counted, by the entry's name and section."""
    paths = [(f"generated.{name}", metrics / f"generated/{name}.json") for name in sorted(generators)]
    paths += [(f"scored.{name}", metrics / f"scored/{name}.json") for name in sorted(judges)]
    return {name: read_json_object(path, "run the stage that makes it")["usage"] for name, path in paths}


def read_trainings(metrics: Path, steps: Iterable[str]) -> dict[str, dict[str, Any]]:
    """What stage `adapter` reports of each step."""
    return {name: read_json_object(metrics / f"adapter/{name}.json", "run stage adapter") for name in steps}


def render_usage(found: Mapping[str, Mapping[str, float]]) -> str:
    """Markdown: requests, tokens and cost of each entry; no cost where params.yaml has no price."""
    lines = [
        "What generators and judges were asked, whether it was computed for this run or found in the sample store.",
        "Cost is by the `price` of a server's model.",
        "",
        "| entry | requests | tokens: prompts | answers | cost |",
        "|---|--:|--:|--:|--:|",
    ]
    for name, used in found.items():
        counts = " | ".join(f"{used[key]:.0f}" for key in ("requests", "prompt_tokens", "tokens"))
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
    return "\n".join(lines) + "\n"
