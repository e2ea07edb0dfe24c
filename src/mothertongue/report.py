"""What a person reads and what `dvc exp show` shows: every figure beside the base's, with paired intervals."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mothertongue import significance
from mothertongue.errors import BadInput
from mothertongue.figures import FIGURES
from mothertongue.files import weights_size
from mothertongue.records import Estimate, Item, Thread, parse, read_rows


@dataclass(frozen=True, slots=True)
class Comparison:
    """Per model and figure the value, the difference to the base, and per model the bytes of its weights."""

    values: Mapping[str, Mapping[str, Estimate]]
    gains: Mapping[str, Mapping[str, Estimate]]
    sizes: Mapping[str, int]


# The columns of `dvc exp show`: figures of the merged model, but for the first.
HEADLINE = (
    "reward_accuracy",
    "likelihood_accuracy",
    "perplexity",
    "accuracy",
    "chrf_from_english",
    "words",
    "repetition",
)


def differences(suite: str, model: Path, base: Path, seed: int) -> dict[str, Estimate]:
    """Each figure of a model minus the base's, paired over items by id.

    Raises BadInput where the two were measured differently or on different items.
    """
    ours, theirs = read_estimates(model / f"{suite}.json"), read_estimates(base / f"{suite}.json")
    rows, base_rows = (_by_figure(read_rows(place / f"{suite}.items.jsonl", Item)) for place in (model, base))
    found = {}
    for figure, estimate in ours.items():
        if estimate.signature != theirs[figure].signature:
            raise BadInput(
                f"{model}/{suite}.json: {figure}: measured as {estimate.signature}, but in {base} as"
                f" {theirs[figure].signature}; measure both again"
            )
        try:
            found[figure] = significance.difference(
                estimate.kind, rows[figure], base_rows[figure], seed, estimate.signature
            )
        except ValueError as error:
            raise BadInput(f"{model}/{suite}.items.jsonl: {figure}: {error}; measure both again") from error
    return found


def read_estimates(path: Path) -> dict[str, Estimate]:
    """The figures that the metrics stage wrote."""
    try:
        figures = json.loads(path.read_text(encoding="utf-8"))["figures"]
    except OSError as error:
        raise BadInput(f"{path}: cannot be read ({error.strerror}); run the stage that makes it") from error
    return {name: parse(Estimate, value, f"{path}: {name}") for name, value in figures.items()}


def compare(metrics: Path, models: Path, levels: Sequence[str], seed: int) -> Comparison:
    """Read what the metrics stages wrote under metrics/<model>/ for base, merged and each level."""
    folders = {"base": "base", "merged": "merged"} | {level: f"quantized/{level}" for level in levels}
    values: dict[str, dict[str, Estimate]] = {}
    gains: dict[str, dict[str, Estimate]] = {}
    for model, folder in folders.items():
        values[model], gains[model] = {}, {}
        for suite in FIGURES:
            values[model] |= read_estimates(metrics / folder / f"{suite}.json")
            if model != "base":
                gains[model] |= differences(suite, metrics / folder, metrics / "base", seed)
    sizes = {model: weights_size(models / folder) for model, folder in folders.items()}
    return Comparison(values, gains, sizes)


def summary(found: Comparison) -> dict[str, Any]:
    """A dozen numbers that a decision needs; `gain` is the paired 95 % interval of merged minus base."""
    merged, gain = found.values["merged"], found.gains["merged"]["right_language"]
    return {
        "right_language": {model: round(values["right_language"].value, 4) for model, values in found.values.items()},
        "gain": {"low": round(gain.low, 4), "high": round(gain.high, 4)},
    } | {name: round(merged[name].value, 4) for name in HEADLINE if name in merged}


def table(found: Comparison) -> str:
    """Markdown: a row per figure, a column per model; under each value the paired difference to the base."""
    models = list(found.values)
    lines = [
        "Each value with its 95 % interval; after Δ the difference to the base, paired over the same items.",
        "A difference in bold has an interval that excludes zero, and at least six independent groups of items.",
        "",
        "| figure | n | " + " | ".join(models) + " |",
        "|---|--:|" + "---|" * len(models),
        "| weights, MB | | " + " | ".join(f"{found.sizes[model] / 1e6:.0f}" for model in models) + " |",
    ]
    for suite in FIGURES.values():
        for figure, (_, meaning) in suite.items():
            if figure not in found.values["base"]:
                continue
            cells = []
            for model in models:
                cell = _spelled(found.values[model][figure])
                if model != "base":
                    cell += f"<br>Δ {_signed(found.gains[model][figure])}"
                cells.append(cell)
            n = found.values["base"][figure].n
            lines.append(f"| `{figure}`: {meaning} | {n} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def samples(threads: Sequence[Thread], metrics: Path) -> str:
    """Five held-out questions in Markdown, with what the expert, the base and the merged model say.

    They are the first by id, which is a hash of their content: as good as drawn, and the same on every machine.
    """
    said = {}
    for model in ("base", "merged"):
        items = _by_figure(read_rows(metrics / model / "language.items.jsonl", Item))
        said[model] = {item.id: item.text for item in items["right_language"]}
    held_out = sorted((thread for thread in threads if thread.split == "test"), key=lambda thread: thread.id)
    lines = ["| the first held-out questions | expert | base | merged |", "|---|---|---|---|"]
    for thread in held_out[:5]:
        texts = (thread.prompt[-1].content, thread.reference, *(said[model][thread.id] for model in said))
        lines.append(f"| {' | '.join(map(_quoted, texts))} |")
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    """Text as one cell of a Markdown table, its marks escaped, cut after 300 characters."""
    flat = " ".join(text.split())
    return re.sub(r"([\\`*_\[\]<>|])", r"\\\1", flat[:300] + "…" * (len(flat) > 300))


def _spelled(estimate: Estimate) -> str:
    digits = 3 if estimate.kind == "share" or abs(estimate.value) < 1 else 2
    return f"{estimate.value:.{digits}f} [{estimate.low:.{digits}f}, {estimate.high:.{digits}f}]"


def _signed(gain: Estimate) -> str:
    digits = 3 if gain.kind == "share" or abs(gain.value) < 1 else 2
    text = f"{gain.value:+.{digits}f} [{gain.low:+.{digits}f}, {gain.high:+.{digits}f}]"
    return f"**{text}**" if significance.excludes_zero(gain) else text


def _by_figure(items: Sequence[Item]) -> dict[str, list[Item]]:
    found: dict[str, list[Item]] = {}
    for item in items:
        found.setdefault(item.figure, []).append(item)
    return found
