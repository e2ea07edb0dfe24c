"""What a person reads, and what `dvc exp show` shows: every figure beside its control and the baselines."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unicodedata import category

from mothertongue import significance, texts
from mothertongue.errors import BadInput
from mothertongue.figures import FIGURES, Figure
from mothertongue.params import Metrics
from mothertongue.records import Difference, Estimate, Item, Thread, Worth, by_id, parse, read_rows

Cell = tuple[str, str, str]  # measured model, baseline, figure

ALL: Mapping[str, Figure] = {name: figure for suite in FIGURES.values() for name, figure in suite.items()}
LEVEL = 0.05  # of all differences of a page together
# What decides: the rows of the report's first table, and the columns of `dvc exp show`.
HEADLINE = (
    "right_language",
    "undecided",
    "chrf_to_expert",
    "chrf_mismatched",
    "questions",
    "distinct",
    "words",
    "match_accuracy",
    "perplexity",
    "accuracy",
    "chrf_from_english",
)
TESTED = frozenset(name for name, figure in ALL.items() if figure.better)  # the others are never bold


@dataclass(frozen=True, slots=True)
class Comparison:
    """All figures of all measured models, in the order of params.yaml.

    `values` by measured model and figure. `references` are the figures of the language suite for the experts' own
    answers and for one same answer to everything (`trivial`). `differences` to each baseline; `p`, of those figures of
    which one way is better, their p-values adjusted for their number (Holm 1979). What depends on an answer's length is
    compared at like lengths: `cut` holds the two values, the model's and the baseline's. `written` is the system turn
    that the chat template writes by itself.
    """

    values: Mapping[str, Mapping[str, Estimate]]
    references: Mapping[str, Mapping[str, Estimate]]
    differences: Mapping[Cell, Difference]
    p: Mapping[Cell, float]
    cut: Mapping[Cell, tuple[float, float]]
    sizes: Mapping[str, int]
    baselines: Sequence[str]
    written: str | None = None

    @property
    def subject(self) -> str:
        """What the headline is about: the first measured model that is no baseline."""
        return next(name for name in self.values if name not in self.baselines)


def compare(
    measured: Path, threads: Sequence[Thread], params: Metrics, code: str, seed: int
) -> tuple[Comparison, Mapping[str, Mapping[str, str]]]:
    """Read what the metrics stages wrote under `measured`/<name>/, and compare each model with each baseline.

    Also gives what each said to each held-out thread, by name and thread id. Raises BadInput where two were measured
    differently or on different items.
    """
    values = {name: _estimates(measured / name) for name in params.models}
    items = {name: _items(measured / name) for name in params.models}
    said = {name: {item.id: item.text for item in found["right_language"]} for name, found in items.items()}
    differences: dict[Cell, Difference] = {}
    cut: dict[Cell, tuple[float, float]] = {}
    for place, baseline in enumerate(params.baselines):
        for name in params.models:
            if name in params.baselines[: place + 1]:
                continue
            for figure, (kind, _, _) in ALL.items():
                if kind == "whole" or figure not in values[name] or figure not in values[baseline]:
                    continue
                ours, theirs = items[name][figure], items[baseline][figure]
                signature = _same_signature(measured, figure, name, baseline, values)
                try:
                    if {(i.group, i.id) for i in ours} != {(i.group, i.id) for i in theirs}:
                        raise ValueError("the items differ")
                    if figure in texts.CONFOUNDED:
                        both = (said[name], said[baseline])
                        ours, theirs = texts.at_like_lengths(figure, ours, both, by_id(threads), code)
                        if kind == "ratio" and not any(item.values[1] for item in ours):
                            continue
                        pair = (significance.estimate(kind, side, "").value for side in (ours, theirs))
                        cut[name, baseline, figure] = (next(pair), next(pair))
                    differences[name, baseline, figure] = significance.difference(kind, ours, theirs, seed, signature)
                except ValueError as error:
                    raise BadInput(
                        f"{measured / name}: {figure}: {error} from those of {baseline}; measure both again"
                    ) from error
    about = [json.loads((measured / name / "model.json").read_text(encoding="utf-8")) for name in params.models]
    return Comparison(
        values=values,
        references=_references([t for t in threads if t.split == params.split], threads, code),
        differences=differences,
        p=significance.holm({cell: found.p for cell, found in differences.items() if cell[2] in TESTED}),
        cut=cut,
        sizes={name: each["bytes"] for name, each in zip(params.models, about, strict=True)},
        baselines=params.baselines,
        written=about[0]["written_system_prompt"],
    ), said


def summary(found: Comparison) -> dict[str, Any]:
    """A dozen numbers that a decision needs; `right_language_gain` is its paired 95 % interval over the first baseline,
    at like lengths."""
    values, first = found.values[found.subject], found.baselines[0]
    gain = found.differences.get((found.subject, first, "right_language"))
    return {name: round(values[name].value, 4) for name in HEADLINE if name in values} | (
        {"right_language_gain": {"low": round(gain.low, 4), "high": round(gain.high, 4)}} if gain else {}
    )


def page(
    found: Comparison,
    said: Mapping[str, Mapping[str, str]],
    threads: Sequence[Thread],
    params: Metrics,
    notes: Sequence[str] = (),
    spread: Mapping[str, tuple[float, float, int]] | None = None,
) -> str:
    """The whole report in Markdown. `notes` stand on top; `spread` is (lowest, highest, number of trainings)."""
    held_out = [thread for thread in threads if thread.split == params.split]
    lines = [
        f"Measured on the {len(held_out)} held-out threads of split `{params.split}`.",
        *notes,
        *_template_note(found),
        "",
        *_headline(found, spread or {}),
        "",
        *_verdict(found),
        "",
        "Each value with its 95 % interval; after Δ the difference to a baseline, paired over the same items. Bold is",
        f"significant at {LEVEL:.0%} (Holm) among the {len(found.p)} differences of this page where one way is better.",
        "`right_language`, `repetition` and `chrf_to_expert` depend on length: their differences are taken at like",
        "lengths, each pair of answers cut to the words of its shorter one; behind stand the model's value so cut, the",
        "baseline's, and how many pairs decide. n counts items, in brackets the groups of items that depend on each",
        "other, such as the turns of a conversation; intervals and tests take a group as one observation.",
        *_power_note(found),
    ]
    for suite in FIGURES:
        lines += ["", *_table(found, suite)]
    return "\n".join([*lines, "", *_samples(found, said, held_out)]) + "\n"


def _headline(found: Comparison, spread: Mapping[str, tuple[float, float, int]]) -> list[str]:
    """The subject beside the baselines, the experts, and one same answer to everything."""
    columns = [*found.references, *found.baselines, found.subject]
    differences = [f"Δ {baseline}" for baseline in found.baselines]
    seeds = [f"{max(n for _, _, n in spread.values())} trainings"] if spread else []
    heads = [*columns, *differences, *seeds]
    lines = [f"| | {' | '.join(heads)} |", "|---" * (1 + len(heads)) + "|"]
    for figure in HEADLINE:
        if not any(figure in values for values in found.values.values()):
            continue
        cells = [_number(values[figure]) if figure in (values := _column(found, name)) else "–" for name in columns]
        cells += [_signed(found, (found.subject, baseline, figure)) for baseline in found.baselines]
        if spread:
            cells.append("{:.3g} to {:.3g}".format(*spread[figure]) if figure in spread else "–")
        lines.append(f"| `{figure}` | {' | '.join(cells)} |")
    return lines


def _verdict(found: Comparison) -> list[str]:
    """In words what the table shows of the subject against each baseline, where one way is better than the other."""
    lines = []
    for baseline in found.baselines:
        better: list[str] = []
        worse: list[str] = []
        same: list[str] = []
        for figure, (_, way, _) in ALL.items():
            cell = (found.subject, baseline, figure)
            if cell not in found.p:
                continue
            if found.p[cell] >= LEVEL:
                same.append(f"`{figure}`")
            else:
                gained = (found.differences[cell].value > 0) == (way == "higher")
                (better if gained else worse).append(f"`{figure}`")
        said = (f"better in {_listed(better)}", f"worse in {_listed(worse)}", f"no difference shown in {_listed(same)}")
        lines.append(f"- {found.subject} against {baseline}: {'; '.join(said)}.")
    return lines


def _template_note(found: Comparison) -> list[str]:
    if not found.written:
        return []
    return [
        f'Where a model gets no system prompt of ours, its chat template writes one: "{_quoted(found.written)}". The',
        "columns with a system prompt have ours in its place.",
    ]


def _power_note(found: Comparison) -> list[str]:
    """Which differences rest on so few groups that none could be bold: all on one side has p = 2 / 2 ** groups."""
    few = sorted({cell[2] for cell in found.p if 2 * 0.5 ** found.differences[cell].groups * len(found.p) >= LEVEL})
    return [f"Too few groups for any difference to be bold: {', '.join(f'`{name}`' for name in few)}."] if few else []


def _count(estimate: Estimate) -> str:
    return f"{estimate.n} ({estimate.groups})"


def _column(found: Comparison, name: str) -> Mapping[str, Estimate]:
    return found.references[name] if name in found.references else found.values[name]


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) or "nothing"


def _table(found: Comparison, suite: str) -> list[str]:
    """A row per figure, a column per model; under each value its paired differences to the baselines."""
    references = found.references if suite == "language" else {}
    columns = [*references, *found.values]
    lines = [f"| {suite} | n (groups) | {' | '.join(columns)} |", "|---|--:" + "|---" * len(columns) + "|"]
    if suite == "language":
        sizes = ["" for _ in references] + [f"{found.sizes[name] / 1e6:.0f}" for name in found.values]
        lines.append(f"| weights, MB | | {' | '.join(sizes)} |")
    for figure, (_, _, meaning) in FIGURES[suite].items():
        counts = [_count(values[figure]) for values in found.values.values() if figure in values]
        if not counts:
            continue
        cells = []
        for name in columns:
            values = _column(found, name)
            cell = _spelled(values[figure]) if figure in values else "–"
            if figure in values and _count(values[figure]) != counts[0]:
                cell += f" (n {_count(values[figure])})"
            for baseline in found.baselines:
                if (name, baseline, figure) in found.differences:
                    cell += f"<br>Δ {baseline} {_signed(found, (name, baseline, figure))}"
            cells.append(cell)
        lines.append(f"| `{figure}`: {meaning} | {counts[0]} | {' | '.join(cells)} |")
    return lines


def _samples(found: Comparison, said: Mapping[str, Mapping[str, str]], held_out: Sequence[Thread]) -> list[str]:
    """Five held-out questions, with what the expert, the baselines and the subject say.

    They are the first by id, which is a hash of their content: as good as drawn, and the same on every machine.
    """
    names = [*found.baselines, found.subject]
    lines = [f"| the first held-out questions | expert | {' | '.join(names)} |", "|---" * (2 + len(names)) + "|"]
    for thread in sorted(held_out, key=lambda thread: thread.id)[:5]:
        answers = (thread.prompt[-1].content, thread.reference, *(said[name][thread.id] for name in names))
        lines.append(f"| {' | '.join(map(_quoted, answers))} |")
    return lines


def _references(held_out: Sequence[Thread], threads: Sequence[Thread], code: str) -> dict[str, dict[str, Estimate]]:
    """Figures of the experts' own answers, and of the one training answer that is likest to all others."""
    same = texts.medoid([thread.reference for thread in sorted(threads, key=lambda t: t.id) if thread.split == "train"])
    found: dict[str, dict[str, Estimate]] = {}
    for name, said in (("experts", [t.reference for t in held_out]), ("trivial", [same] * len(held_out))):
        items = _by_figure(texts.items(held_out, said, code))
        found[name] = {
            figure: significance.estimate(ALL[figure].kind, rows, "")
            for figure, rows in items.items()
            if not (ALL[figure].kind == "ratio" and not any(row.values[1] for row in rows))
            and not (name == "experts" and figure == "chrf_to_expert")
        }
    return found


def _same_signature(
    measured: Path, figure: str, name: str, baseline: str, values: Mapping[str, Mapping[str, Estimate]]
) -> str:
    ours, theirs = (values[each][figure].signature for each in (name, baseline))
    if ours != theirs:
        mine, other = json.loads(ours), json.loads(theirs)
        unlike = [
            f"{key} {mine.get(key)!r}, not {other.get(key)!r} as {baseline}"
            for key in sorted({*mine, *other})
            if mine.get(key) != other.get(key)
        ]
        raise BadInput(
            f"{measured / name}: {figure}: measured with {'; '.join(unlike)}; measure all again on one machine:"
            " dvc repro -s -f metrics, then dvc repro"
        )
    return ours


def _estimates(folder: Path) -> dict[str, Estimate]:
    found: dict[str, Estimate] = {}
    for suite in FIGURES:
        path = folder / f"{suite}.json"
        try:
            figures = json.loads(path.read_text(encoding="utf-8"))["figures"]
        except (OSError, ValueError, KeyError) as error:
            raise BadInput(
                f"{path}: cannot be read ({getattr(error, 'strerror', None) or error}); run the stage that makes it"
            ) from error
        found |= {name: parse(Estimate, value, f"{path}: {name}") for name, value in figures.items()}
    return found


def _items(folder: Path) -> dict[str, list[Item]]:
    return _by_figure([item for suite in FIGURES for item in read_rows(folder / f"{suite}.items.jsonl", Item)])


def _by_figure(items: Sequence[Item]) -> dict[str, list[Item]]:
    found: dict[str, list[Item]] = {}
    for item in items:
        found.setdefault(item.figure, []).append(item)
    return found


def worth(found: Mapping[str, Mapping[str, Worth]]) -> str:
    """Markdown: what the verdicts of each judge are worth, a row per generator, from what the scored stages wrote."""
    lines = [
        "What the judges are worth: how often the expert's answer is scored over a sample of the same thread (ties",
        "half; 0.5 is a coin), beside two judges that cost nothing, on the same answers: the longer one is better, the",
        "one in the language is. What is under 0.5 is worth as much the other way round: a low value for longer is a",
        "high one for shorter. Threads of split test are not among them.",
        "",
        "| judge | generator | n | score: expert | sample | expert over sample: judge | longer | language | unscored |",
        "|---|---|--:|---|---|---|---|---|--:|",
    ]
    for judge, generators in sorted(found.items()):
        for generator, row in sorted(generators.items()):
            figures = ("expert", "sample", "judge", "longer", "language")
            cells = [_spelled(row.figures[name]) if name in row.figures else "" for name in figures]
            head = f"| `{judge}` | `{generator}` | {row.samples - row.unscored} | "
            lines.append(f"{head}{' | '.join(cells)} | {row.unscored} |")
    return "\n".join(lines) + "\n"


def read_worth(path: Path) -> dict[str, Worth]:
    """What a scored stage wrote of its judge, by generator."""
    try:
        generators = json.loads(path.read_text(encoding="utf-8"))["worth"]
    except (OSError, ValueError, KeyError) as error:
        raise BadInput(
            f"{path}: cannot be read ({getattr(error, 'strerror', None) or error}); run the stage that makes it"
        ) from error
    return {name: parse(Worth, value, f"{path}: {name}") for name, value in generators.items()}


def _quoted(text: str) -> str:
    """Text as one cell of a Markdown table, its marks escaped, cut after 300 characters."""
    flat = "".join(character for character in " ".join(text.split()) if category(character) not in ("Cc", "Cf"))
    return re.sub(r"([\\`*_\[\]<>|~$&@#])", r"\\\1", flat[:300] + "…" * (len(flat) > 300))


def _digits(estimate: Estimate | Difference) -> int:
    return 3 if estimate.kind in ("share", "ratio") or abs(estimate.value) < 1 else 2


def _number(estimate: Estimate) -> str:
    return f"{estimate.value:.{_digits(estimate)}f}"


def _spelled(estimate: Estimate) -> str:
    digits = _digits(estimate)
    if estimate.kind == "whole" or estimate.groups < 2:  # no interval
        return f"{estimate.value:.{digits}f}"
    return f"{estimate.value:.{digits}f} [{estimate.low:.{digits}f}, {estimate.high:.{digits}f}]"


def _signed(found: Comparison, cell: Cell) -> str:
    """A difference with its interval, in bold where it is significant; behind it the two values, if of cut texts."""
    if not (gain := found.differences.get(cell)):
        return ""
    digits = _digits(gain)
    text = f"{gain.value:+.{digits}f} [{gain.low:+.{digits}f}, {gain.high:+.{digits}f}]"
    behind = (
        " ({:.{d}f}, {:.{d}f}; {})".format(*found.cut[cell], _count_of(gain), d=digits) if cell in found.cut else ""
    )
    return (f"**{text}**" if found.p.get(cell, 1.0) < LEVEL else text) + behind


def _count_of(gain: Difference) -> str:
    return f"{gain.n} pairs, {gain.groups} groups"
