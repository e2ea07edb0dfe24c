"""The report: every figure beside its control and the baselines, and a summary for `dvc exp show`."""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from unicodedata import category

from mothertongue.comparison import ALL, REMEDY, Cell, Comparison
from mothertongue.figures import FIGURES
from mothertongue.files import read_json_object
from mothertongue.measurements import Difference, Estimate, JudgeAccuracy
from mothertongue.params import Metrics
from mothertongue.records import Thread
from mothertongue.rows import parse

LEVEL = 0.05  # of all differences of a page together
# The rows of the report's first table, and the columns of `dvc exp show`.
HEADLINE = (
    "right_language",
    "undecided",
    "chrf_to_expert",
    "chrf_mismatched",
    "repetition",
    "distinct",
    "words",
    "match_accuracy",
    "perplexity",
    "perplexity_mismatched",
    "accuracy",
    "chrf_from_english",
)
JUDGES = ("judge", "longer", "language", "question", "random")  # one of section scored, and those that cost nothing
LENGTHS = (
    "`right_language`, `repetition`, `chrf_to_expert` and `chrf_mismatched` depend on length: their differences are at",
    "equal lengths, each pair of answers cut to the words of its shorter one; in brackets are the values so cut, the",
    "column's and the other's, and the number of pairs with a value.",
)


def summarize(comparisons: Sequence[Comparison]) -> dict[str, Any]:
    """The dozen numbers for `dvc exp show`; those of each language under its code where there are several.

    `right_language_gain` is the paired 95 % interval over the first baseline, at equal lengths.
    """
    first, *others = comparisons
    return _summarize(first) | {other.language: _summarize(other) for other in others if other.language}


def _summarize(found: Comparison) -> dict[str, Any]:
    values, first = found.values[found.subject], found.baselines[0]
    gain = found.differences.get((found.subject, first, "right_language"))
    return {name: round(values[name].value, 4) for name in HEADLINE if name in values} | (
        {"right_language_gain": {"low": round(gain.low, 4), "high": round(gain.high, 4)}} if gain else {}
    )


def render_report(
    comparisons: Sequence[Comparison],
    answers: Mapping[str, Mapping[str, str]],
    threads: Sequence[Thread],
    params: Metrics,
    notes: Sequence[str] = (),
    spread: Mapping[str, tuple[float, float, int]] | None = None,
) -> str:
    """The whole report in Markdown. `notes` come first; `spread` is (lowest, highest, number of trainings)."""
    held_out = [thread for thread in threads if thread.split == params.split]
    several, tests = len(comparisons) > 1, sum(len(found.p) for found in comparisons)
    lines = [
        f"Measured on the {len(held_out)} held-out threads of split `{params.split}`.",
        *notes,
        *_template_note(comparisons[0]),
    ]
    for place, found in enumerate(comparisons):
        lines += ["", f"## {found.title}"] if several else []
        lines += ["", *_headline_table(found, spread or {} if place == 0 else {}), "", *_verdict_lines(found)]
    lines += [
        "",
        f"Each value with its 95 % interval; after Δ the difference to a baseline or {comparisons[0].subject}, paired",
        "over the same items. Bold is",
        f"significant at {LEVEL:.0%} (Holm) among the {tests} differences of these figures",
        "where one direction is better, with an interval that excludes 0.",
        "n is the number of items, in brackets that of groups of dependent items, such as the turns of a conversation;",
        "intervals and tests count a group as one observation.",
        *(LENGTHS if "language" in params.suites else ()),
        *_power_note(comparisons),
    ]
    for found in comparisons:
        lines += ["", f"## {found.title}: all figures"] if several else []
        for place, suite in enumerate(params.suites):
            lines += ["", *_suite_table(found, suite, sizes=place == 0)]
        if "language" in params.suites and (found.language or not several):
            part = [thread for thread in held_out if found.language in (None, thread.language)]
            lines += ["", *_sample_table(found, answers, part)]
    return "\n".join(lines) + "\n"


def _headline_table(found: Comparison, spread: Mapping[str, tuple[float, float, int]]) -> list[str]:
    """The subject beside the baselines, the experts, and one single answer to every question."""
    columns = [*found.references, *found.baselines, found.subject]
    differences = [f"Δ {baseline}" for baseline in found.baselines]
    seeds = [f"{max(n for _, _, n in spread.values())} trainings"] if spread else []
    heads = [*columns, *differences, *seeds]
    lines = [f"| | {' | '.join(heads)} |", "|---" * (1 + len(heads)) + "|"]
    for figure in HEADLINE:
        if not any(figure in values for values in found.values.values()):
            continue
        cells = [
            _format_value(values[figure]) if figure in (values := _column(found, name)) else "–" for name in columns
        ]
        cells += [_format_difference(found, (found.subject, baseline, figure)) for baseline in found.baselines]
        if spread:
            cells.append("{:.3g} to {:.3g}".format(*spread[figure]) if figure in spread else "–")
        lines.append(f"| `{figure}` | {' | '.join(cells)} |")
    return lines


def _verdict_lines(found: Comparison) -> list[str]:
    """In words, the differences of the subject to each baseline, for figures where one direction is better."""
    lines = []
    for baseline in found.baselines:
        better: list[str] = []
        worse: list[str] = []
        same: list[str] = []
        for figure, (_, way, _) in ALL.items():
            cell = (found.subject, baseline, figure)
            if cell not in found.p:
                continue
            if not _is_significant(found, cell):
                same.append(f"`{figure}`")
            else:
                gained = (found.differences[cell].value > 0) == (way == "higher")
                (better if gained else worse).append(f"`{figure}`")
        parts = (f"better in {_join(better)}", f"worse in {_join(worse)}", f"no difference shown in {_join(same)}")
        lines.append(f"- {found.subject} against {baseline}: {'; '.join(parts)}.")
    return lines


def _is_significant(found: Comparison, cell: Cell) -> bool:
    """Test and interval are computed in two ways, which may disagree for the scores of a corpus: both must say so."""
    gain = found.differences[cell]
    return found.p.get(cell, 1.0) < LEVEL and (gain.low > 0 or gain.high < 0)


def _template_note(found: Comparison) -> list[str]:
    if not found.written:
        return []
    return [
        f'Without our system prompt, the chat template writes one of its own: "{_escape_cell(found.written)}". In the',
        "columns with a system prompt, ours replaces it.",
    ]


def _power_note(comparisons: Sequence[Comparison]) -> list[str]:
    """Figures on so few groups that no difference could be bold: with all on one side p is 2 / 2 ** groups."""
    tests = sum(len(found.p) for found in comparisons)
    few = {
        cell[2]
        for found in comparisons
        for cell in found.p
        if 2 * 0.5 ** found.differences[cell].groups * tests >= LEVEL
    }
    return (
        [f"Too few groups for any difference to be bold: {', '.join(f'`{name}`' for name in sorted(few))}."]
        if few
        else []
    )


def _count(estimate: Estimate) -> str:
    return f"{estimate.n} ({estimate.groups})"


def _column(found: Comparison, name: str) -> Mapping[str, Estimate]:
    return found.references[name] if name in found.references else found.values[name]


def _join(names: Sequence[str]) -> str:
    return ", ".join(names) or "nothing"


def _suite_table(found: Comparison, suite: str, *, sizes: bool) -> list[str]:
    """A row per figure; under each value its paired differences to the baselines, and of a level to the subject."""
    references = found.references if suite == "language" else {}
    columns = [*references, *found.values]
    lines = [f"| {suite} | n (groups) | {' | '.join(columns)} |", "|---|--:" + "|---" * len(columns) + "|"]
    if sizes:
        cells = ["" for _ in references] + [f"{found.sizes[name] / 1e6:.0f}" for name in found.values]
        lines.append(f"| weights, MB | | {' | '.join(cells)} |")
    for figure, (_, _, meaning) in FIGURES[suite].items():
        counts = [_count(values[figure]) for values in found.values.values() if figure in values]
        if not counts:
            continue
        cells = []
        for name in columns:
            values = _column(found, name)
            cell = _format_interval(values[figure]) if figure in values else "–"
            if figure in values and _count(values[figure]) != counts[0]:
                cell += f" (n {_count(values[figure])})"
            for other in (*found.baselines, found.subject):
                if (name, other, figure) in found.differences:
                    cell += f"<br>Δ {other} {_format_difference(found, (name, other, figure))}"
            cells.append(cell)
        lines.append(f"| `{figure}`: {meaning} | {counts[0]} | {' | '.join(cells)} |")
    return lines


def _sample_table(found: Comparison, answers: Mapping[str, Mapping[str, str]], held_out: Sequence[Thread]) -> list[str]:
    """Twenty held-out questions with the answers of the expert, the baselines and the subject.

    They are the first by id, which is a hash of their content: a random sample that is the same on every machine.
    """
    names = [*found.baselines, found.subject]
    lines = [f"| the first held-out questions | expert | {' | '.join(names)} |", "|---" * (2 + len(names)) + "|"]
    for thread in sorted(held_out, key=lambda thread: thread.id)[:20]:
        cells = (thread.prompt[-1].content, thread.expert, *(answers[name][thread.id] for name in names))
        lines.append(f"| {' | '.join(map(_escape_cell, cells))} |")
    return lines


def render_judge_accuracy(
    found: Mapping[str, Mapping[str, Mapping[str, JudgeAccuracy]]], compared: Mapping[str, Mapping[str, int]]
) -> str:
    """Markdown: how often each judge prefers the expert's answer, a row per generator, by judge and language.

    After it a line for each judge that compares answers, from its numbers of comparisons and of flips.
    """
    lines = [
        "How often each judge scores the expert's answer over a sample of the same thread (ties half; 0.5 is chance),",
        "beside judges that cost nothing: the longer answer is better; the one in the language is; the one more like",
        "the question by chrF++ is; one at random is. A value under 0.5 is as informative in reverse: a low one for",
        "longer is a high one for shorter. Split test is left out.",
        "",
        f"| judge | generator | n | score: expert | sample | expert over sample: {' | '.join(JUDGES)} | unscored |",
        "|---|---|--:|---|---|---|---|---|---|---|--:|",
    ]
    for judge, by_language in sorted(found.items()):
        for code, generators in by_language.items():
            for generator, row in sorted(generators.items()):
                figures = ("expert", "sample", *JUDGES)
                cells = [_format_interval(row.figures[name]) if name in row.figures else "" for name in figures]
                which = f"`{judge}` ({code})" if code else f"`{judge}`"
                head = f"| {which} | `{generator}` | {row.samples - row.unscored} | "
                lines.append(f"{head}{' | '.join(cells)} | {row.unscored} |")
    lines += [
        f"\n`{judge}` compared {row['compared']} pairs of answers in both orders; in {row['flips']}"
        f" ({row['flips'] / row['compared']:.0%}) it said another thing in each."
        for judge, row in sorted(compared.items())
        if row["compared"]
    ]
    return "\n".join(lines) + "\n"


def read_judges(
    folder: Path, judges: Iterable[str]
) -> tuple[dict[str, dict[str, dict[str, JudgeAccuracy]]], dict[str, dict[str, int]]]:
    """What the scored stages wrote of each judge: its accuracy, and its numbers of comparisons and flips."""
    paths = {judge: folder / f"{judge}.json" for judge in judges}
    accuracy = {judge: read_judge_accuracy(path) for judge, path in paths.items()}
    return accuracy, {judge: read_comparisons(path) for judge, path in paths.items()}


def read_comparisons(path: Path) -> dict[str, int]:
    """How many pairs of answers a judge compared, and how many of them it flipped, as its scored stage wrote it."""
    found: dict[str, int] = read_json_object(path, REMEDY).get("comparisons", {"compared": 0, "flips": 0})
    return found


def read_judge_accuracy(path: Path) -> dict[str, dict[str, JudgeAccuracy]]:
    """The accuracy of a judge as its scored stage wrote it, by language ("" for all together) and generator."""
    written = read_json_object(path, REMEDY)
    by_language = {"": written.get("accuracy", {}), **written.get("languages", {})}
    return {
        code: {name: parse(JudgeAccuracy, value, f"{path}: {name}") for name, value in generators.items()}
        for code, generators in by_language.items()
    }


def _escape_cell(text: str) -> str:
    """Text as one cell of a Markdown table, escaped, cut after 300 characters."""
    flat = "".join(character for character in " ".join(text.split()) if category(character) not in ("Cc", "Cf"))
    return re.sub(r"([\\`*_\[\]<>|~$&@#])", r"\\\1", flat[:300] + "…" * (len(flat) > 300))


def _digits(estimate: Estimate | Difference) -> int:
    return 3 if estimate.kind in ("share", "ratio") or abs(estimate.value) < 1 else 2


def _format_value(estimate: Estimate) -> str:
    return f"{estimate.value:.{_digits(estimate)}f}"


def _format_interval(estimate: Estimate) -> str:
    digits = _digits(estimate)
    if estimate.kind == "whole" or estimate.groups < 2:  # no interval
        return f"{estimate.value:.{digits}f}"
    return f"{estimate.value:.{digits}f} [{estimate.low:.{digits}f}, {estimate.high:.{digits}f}]"


def _format_difference(found: Comparison, cell: Cell) -> str:
    """A difference with its interval, in bold where it is significant; after it the two values at equal lengths."""
    if not (gain := found.differences.get(cell)):
        return ""
    digits = _digits(gain)
    text = f"{gain.value:+.{digits}f} [{gain.low:+.{digits}f}, {gain.high:+.{digits}f}]"
    behind = (
        " ({:.{d}f}, {:.{d}f}; {})".format(*found.cut[cell], _count_of(gain), d=digits) if cell in found.cut else ""
    )
    return (f"**{text}**" if _is_significant(found, cell) else text) + behind


def _count_of(gain: Difference) -> str:
    return f"{gain.n} pairs, {gain.groups} groups"
