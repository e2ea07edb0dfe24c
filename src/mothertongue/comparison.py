"""Every column of the report compared with each baseline, and the others with the headline's, over the same items."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from mothertongue import languages, signatures, significance, texts
from mothertongue.errors import BadInput
from mothertongue.figures import FIGURES, Figure
from mothertongue.files import read_json_object
from mothertongue.measurements import Difference, Estimate, SampleScore
from mothertongue.params import Metrics
from mothertongue.records import Thread
from mothertongue.rows import index_by_id, parse, read_rows

Cell = tuple[str, str, str]  # column, the one that it is compared with, figure

ALL: Mapping[str, Figure] = {name: figure for suite in FIGURES.values() for name, figure in suite.items()}
REMEDY = "run the stage that makes it"
TESTED = frozenset(name for name, figure in ALL.items() if figure.better)  # others are never bold


@dataclass(frozen=True, slots=True)
class Comparison:
    """All figures of all columns, in one language (`language`) or in all together (None).

    Columns are in the order baselines, subject, others by name: DVC does not see the order of a map. `subject` is the
    column of the headline.

    `values` by column and figure. `references` are the figures of the language suite for the experts' own answers and
    for one single answer to every question (`trivial`). `differences` are those of each column to each baseline, and of
    other columns, such as quantised levels, to the subject; `p` are the p-values of those figures where one direction
    is better, adjusted for all of the page (Holm 1979). Figures that depend on an answer's
    length are compared at equal lengths: `cut` has the two values, the column's and the baseline's. `written` is the
    system turn that the chat template writes by itself.
    """

    language: str | None
    values: Mapping[str, Mapping[str, Estimate]]
    references: Mapping[str, Mapping[str, Estimate]]
    differences: Mapping[Cell, Difference]
    cut: Mapping[Cell, tuple[float, float]]
    sizes: Mapping[str, int]
    subject: str
    baselines: Sequence[str]
    written: str | None = None
    p: Mapping[Cell, float] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """The language's English name."""
        return languages.english_name(self.language) if self.language else "All languages"

    @property
    def figures(self) -> dict[str, dict[str, float]]:
        """The figures of each column without their intervals."""
        return {name: {figure: each.value for figure, each in rows.items()} for name, rows in self.values.items()}


def compare(
    measured: Path, threads: Sequence[Thread], params: Metrics, codes: Sequence[str], seed: int
) -> tuple[list[Comparison], Mapping[str, Mapping[str, str]]]:
    """Read what the metrics stages wrote under `measured`/<name>/, and compare the columns.

    The first comparison is of all languages together; where there are several, one of each follows. Also returns the
    answers to held-out threads, by column and thread id. Raises BadInput where two columns were measured differently or
    on different items.
    """
    columns = list(dict.fromkeys([*params.baselines, params.headline, *sorted(params.models)]))
    scores = {name: _read_scores(measured / name, params) for name in columns}
    answers = {name: {row.id: row.text for row in found.get("right_language", ())} for name, found in scores.items()}
    about = {name: read_json_object(measured / name / "model.json", REMEDY) for name in columns}
    found = []
    for code in (None, *codes) if len(codes) > 1 else (None,):
        part = [thread for thread in threads if code in (None, thread.language)]
        values = {name: _read_estimates(measured / name, params, code) for name in columns}
        differences, cut = _compare_columns(measured, values, scores, answers, part, params, code, seed)
        comparison = Comparison(
            language=code,
            values=values,
            references=_estimate_references(part, params) if "language" in params.suites else {},
            differences=differences,
            cut=cut,
            sizes={name: each["bytes"] for name, each in about.items()},
            subject=params.headline,
            baselines=params.baselines,
            written=next(iter(about.values()))["written_system_prompt"],
        )
        found.append(comparison)
    return _adjust(found), answers


def _adjust(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """Comparisons with the p-values of all of them together adjusted."""
    adjusted = significance.adjust_holm(
        {
            (place, cell): difference.p
            for place, comparison in enumerate(comparisons)
            for cell, difference in comparison.differences.items()
            if cell[2] in TESTED
        }
    )
    return [
        replace(comparison, p={cell: p for (where, cell), p in adjusted.items() if where == place})
        for place, comparison in enumerate(comparisons)
    ]


def _compare_columns(
    measured: Path,
    values: Mapping[str, Mapping[str, Estimate]],
    scores: Mapping[str, Mapping[str, Sequence[SampleScore]]],
    answers: Mapping[str, Mapping[str, str]],
    threads: Sequence[Thread],
    params: Metrics,
    code: str | None,
    seed: int,
) -> tuple[dict[Cell, Difference], dict[Cell, tuple[float, float]]]:
    """Differences of columns, and the values at equal lengths of figures that depend on it."""
    by_id = index_by_id(threads)
    differences: dict[Cell, Difference] = {}
    cut: dict[Cell, tuple[float, float]] = {}
    others = [*params.baselines, params.headline]
    for place, baseline in enumerate(others):
        for name in values:
            if name in others[: place + 1]:
                continue
            for figure, (kind, _, _) in ALL.items():
                if kind == "whole" or figure not in values[name] or figure not in values[baseline]:
                    continue
                signature = _check_signatures(measured, figure, name, baseline, values)
                ours, theirs = (
                    [row for row in scores[each][figure] if code in (None, row.language)] for each in (name, baseline)
                )
                try:
                    if {(i.group, i.id) for i in ours} != {(i.group, i.id) for i in theirs}:
                        raise ValueError("the items differ")
                    if figure in texts.CONFOUNDED:
                        both = (answers[name], answers[baseline])
                        ours, theirs = texts.score_at_equal_lengths(figure, ours, both, by_id)
                        if kind == "ratio" and not any(row.values[1] for row in ours):
                            continue
                        pair = (significance.estimate(kind, side, "").value for side in (ours, theirs))
                        cut[name, baseline, figure] = (next(pair), next(pair))
                    differences[name, baseline, figure] = significance.estimate_difference(
                        kind, ours, theirs, seed, signature
                    )
                except ValueError as error:
                    raise BadInput(
                        f"{measured / name}: {figure}: {error} from those of {baseline}; measure both again"
                    ) from error
    return differences, cut


def _estimate_references(threads: Sequence[Thread], params: Metrics) -> dict[str, dict[str, Estimate]]:
    """Figures of the experts' own answers, and of the training answer of each language most similar to all others."""
    held_out = [thread for thread in threads if thread.split == params.split]
    train = [thread for thread in sorted(threads, key=lambda t: t.id) if thread.split == "train"]
    same = {
        code: texts.find_medoid([t.reference for t in train if t.language == code and t.reference is not None])
        for code in {thread.language for thread in held_out}
    }
    experts, trivial = [t.expert for t in held_out], [same[t.language] for t in held_out]
    found: dict[str, dict[str, Estimate]] = {}
    for name, answers in (("experts", experts), ("trivial", trivial)):
        items = _group_by_figure(texts.score_answers(held_out, answers))
        found[name] = {
            figure: significance.estimate(ALL[figure].kind, rows, "")
            for figure, rows in items.items()
            if not (ALL[figure].kind == "ratio" and not any(row.values[1] for row in rows))
            and not (name == "experts" and figure == "chrf_to_expert")
        }
    return found


def _check_signatures(
    measured: Path, figure: str, name: str, baseline: str, values: Mapping[str, Mapping[str, Estimate]]
) -> str:
    ours, theirs = (values[each][figure].signature for each in (name, baseline))
    signatures.check_alike(ours, theirs, f"{measured / name}: {figure}", baseline)
    return ours


def _read_estimates(folder: Path, params: Metrics, code: str | None) -> dict[str, Estimate]:
    found: dict[str, Estimate] = {}
    for suite in params.suites:
        path = folder / f"{suite}.json"
        measured = read_json_object(path, REMEDY)
        figures = (measured.get("languages", {}).get(code) if code else measured.get("figures")) or {}
        found |= {name: parse(Estimate, value, f"{path}: {name}") for name, value in figures.items()}
    return found


def _read_scores(folder: Path, params: Metrics) -> dict[str, list[SampleScore]]:
    paths = (folder / f"{suite}.items.jsonl" for suite in params.suites)
    return _group_by_figure([row for path in paths for row in read_rows(path, SampleScore)])


def _group_by_figure(items: Sequence[SampleScore]) -> dict[str, list[SampleScore]]:
    found: dict[str, list[SampleScore]] = {}
    for item in items:
        found.setdefault(item.figure, []).append(item)
    return found
