"""The report and the summary, on made-up measurements in one language and in two."""

import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from mothertongue import comparison, report, significance
from mothertongue.errors import BadInput
from mothertongue.figures import FIGURES
from mothertongue.measurements import SampleScore
from mothertongue.params import Column, Metrics
from mothertongue.records import Message, Split, Thread
from mothertongue.rows import write_json, write_rows

METRICS = Metrics(
    split="test",
    suites=["language", "preference", "perplexity", "benchmark", "translation"],
    models={
        "base": Column(model="base", engine="transformers", system_prompt=False),
        "prompted": Column(model="base", engine="transformers", system_prompt=True),
        "dpo": Column(model="dpo", engine="transformers", system_prompt=False),
    },
    baselines=["base", "prompted"],
    reference_model="base",
    headline="dpo",
    answer_tokens=8,
    translation_tokens=8,
)
ENGLISH = "The library is in the square of the town"
RIGHT = {"es": "La biblioteca está en la plaza mayor, claro", "it": "La biblioteca è nella piazza principale, certo sì"}
# measured: of 40 answers, how many are in the language; words of each answer; of 40 questions, how many are right
MEASURED = {"base": (20, 10.0, 10), "prompted": (30, 9.0, 11), "dpo": (39, 9.0, 30)}
ONE = ("es",) * 40
TWO = ("it",) * 10 + ("es",) * 30  # the language of each item

SIGNATURE = '{"device": "cpu 2", "dtype": "bfloat16"}'


def measure(
    folder: Path,
    suite: str,
    values: dict[str, list[list[float]]],
    texts: list[str] | None = None,
    signature: str = SIGNATURE,
    codes: Sequence[str] = ONE,
) -> None:
    """What the metrics stage writes for one model and suite: one row of statistics per item and figure."""
    items = [
        SampleScore(
            id=f"{n:02}", language=codes[n], group=f"{n:02}", figure=figure, values=row, text=texts[n] if texts else ""
        )
        for figure, rows in values.items()
        for n, row in enumerate(rows)
    ]

    def estimate(code: str | None) -> dict[str, Any]:
        found = {}
        for figure in values:
            rows = [i for i in items if i.figure == figure and code in (None, i.language)]
            found[figure] = significance.estimate(FIGURES[suite][figure].kind, rows, signature).model_dump()
        return found

    written = {"figures": estimate(None)}
    if len(set(codes)) > 1:
        written["languages"] = {code: estimate(code) for code in sorted(set(codes))}
    write_rows(folder / f"{suite}.items.jsonl", items)
    write_json(folder / f"{suite}.json", written)


def measure_columns(folder: Path, codes: Sequence[str]) -> None:
    """Three columns measured in two suites, the others without items."""
    for place, (name, (right, words, accurate)) in enumerate(MEASURED.items(), start=1):
        for suite in FIGURES:
            measure(folder / name, suite, {})
        answers = [RIGHT[codes[n]] if n < right else ENGLISH for n in range(40)]
        values = {
            "right_language": [[float(n < right), 1.0] for n in range(40)],
            "words": [[words + n % 2] for n in range(40)],
        }
        measure(folder / name, "language", values, answers, codes=codes)
        if name != "prompted":
            accuracy = [[float(n < accurate)] for n in range(40)]
            measure(folder / name, "benchmark", {"accuracy": accuracy}, codes=codes)
        write_json(folder / name / "model.json", {"bytes": 1_000_000 * place, "written_system_prompt": None})


def thread(
    name: str, asked: str, split: Split, reference: str = "La plaza está en el centro.", language: str = "es"
) -> Thread:
    return Thread(
        id=name,
        conversation="c",
        language=language,
        group=name,
        split=split,
        prompt=[Message(role="user", content="antes"), Message(role="user", content=asked)],
        reference=reference,
    )


THREADS = [thread(f"{n:02}", f"¿{n}?", "test") for n in range(40)] + [
    thread("x", "learned", "train", "Sí, en el centro.")
]
ITALIAN = "La piazza è nel centro della città."
THREADS_OF_TWO = [
    *(thread(f"{n:02}", f"{n}?", "test", ITALIAN if code == "it" else "La plaza está en el centro.", code)
      for n, code in enumerate(TWO)),
    thread("x", "learned", "train", "Sí, en el centro."),
    thread("y", "learned", "train", "Sì.", "it"),
]  # fmt: skip


@pytest.fixture(autouse=True)
def fewer_swaps(monkeypatch: pytest.MonkeyPatch) -> None:
    """A page of 12 differences in a tenth of the time; the smallest p-value is one in 10,001 then."""
    monkeypatch.setattr(significance, "SWAPS", 10_000)


@pytest.fixture
def measured(tmp_path: Path) -> Path:
    measure_columns(tmp_path, ONE)
    return tmp_path


@pytest.fixture
def measured_in_two(tmp_path: Path) -> Path:
    measure_columns(tmp_path, TWO)
    return tmp_path


def compare(folder: Path) -> comparison.Comparison:
    (found,), _ = comparison.compare(folder, THREADS, METRICS, ["es"], 1)
    return found


def compare_two(folder: Path) -> list[comparison.Comparison]:
    return comparison.compare(folder, THREADS_OF_TWO, METRICS, ["es", "it"], 1)[0]


def render(folder: Path, **more: Any) -> list[str]:
    found, answers = comparison.compare(folder, THREADS, METRICS, ["es"], 1)
    return report.render_report(found, answers, THREADS, METRICS, **more).splitlines()


def render_two(folder: Path, **more: Any) -> list[str]:
    found, answers = comparison.compare(folder, THREADS_OF_TWO, METRICS, ["es", "it"], 1)
    return report.render_report(found, answers, THREADS_OF_TWO, METRICS, **more).splitlines()


def section(lines: list[str], heading: str) -> list[str]:
    """The lines under a heading, up to the next one."""
    rest = lines[lines.index(heading) + 1 :]
    return rest[: next((place for place, line in enumerate(rest) if line.startswith("## ")), len(rest))]


def row(lines: list[str], start: str) -> list[str]:
    (found,) = [line for line in lines if line.startswith(f"| {start}")]
    return [cell.strip() for cell in found.strip("|").split("|")]


def test_the_headline_has_controls_and_both_differences(measured: Path) -> None:
    lines = render(measured)
    assert lines[0] == "Measured on the 40 held-out threads of split `test`."
    assert row(lines, "| experts") == [
        "", "experts", "trivial", "base", "prompted", "dpo", "Δ base", "Δ prompted"
    ]  # fmt: skip
    name, experts, trivial, base, prompted, dpo, over_base, over_prompted = row(lines, "`right_language` |")
    assert (name, experts, trivial) == ("`right_language`", "1.000", "1.000")
    assert (base, prompted, dpo) == ("0.500", "0.750", "0.975")
    assert over_base.startswith("**+0.475 [+0.")
    assert over_prompted.startswith("**+0.225 [+0.")
    assert row(lines, "`accuracy` |")[1:5] == ["–", "–", "0.250", "–"]
    assert not any(line.startswith("#") for line in lines)  # of one language there are no parts


def test_a_table_for_each_suite_with_items(measured: Path) -> None:
    lines = render(measured)
    heads = [row(lines, f"{suite} |") for suite in FIGURES]
    assert heads[0] == ["language", "n (groups)", "experts", "trivial", "base", "prompted", "dpo"]
    assert heads[3] == ["benchmark", "n (groups)", "base", "prompted", "dpo"]
    assert row(lines, "weights, MB") == ["weights, MB", "", "", "", "1", "2", "3"]
    name, n, experts, trivial, base, prompted, dpo = row(lines, "`words`:")
    assert (name, n) == ("`words`: words per answer (letters, where a script has no spaces)", "40 (40)")
    assert (experts[:5], trivial[:5]) == ("6.00 ", "4.00 ")
    assert base.startswith("9.50 [") is False
    assert base.startswith("10.50 [10.")
    assert prompted.startswith("9.50 [")
    assert "<br>Δ base -1.00 [" in prompted  # neither way is better
    assert "Δ prompted" not in prompted
    assert "<br>Δ prompted +0.000 [+0.000, +0.000]" in dpo
    assert row(lines, "`accuracy`:")[3] == "–"


def test_differences_of_figures_that_depend_on_length_are_beside_the_values_at_equal_lengths(measured: Path) -> None:
    (cell,) = [cell for cell in row(render(measured), "`right_language`:") if "Δ prompted" in cell]
    assert "(0.975, 0.750; 40 pairs, 40 groups)" in cell  # all answers have eight words: nothing is cut


def test_other_columns_such_as_levels_are_compared_with_the_headline_s_as_well(measured: Path) -> None:
    shutil.copytree(measured / "prompted", measured / "nf4")
    column = Column(model="nf4", engine="transformers", system_prompt=False)
    metrics = METRICS.model_copy(update={"models": {**METRICS.models, "nf4": column}})
    (found,), answers = comparison.compare(measured, THREADS, metrics, ["es"], 1)
    pairs = {cell[:2] for cell in found.differences}
    assert pairs == {
        ("prompted", "base"), ("dpo", "base"), ("dpo", "prompted"), ("nf4", "base"), ("nf4", "prompted"), ("nf4", "dpo")
    }  # fmt: skip
    assert found.differences["nf4", "dpo", "right_language"].value == pytest.approx(-0.225)
    lines = report.render_report([found], answers, THREADS, metrics).splitlines()
    *_, dpo, nf4 = row(lines, "`right_language`:")
    assert "Δ dpo" not in dpo
    assert "<br>Δ dpo **-0.225 [-0." in nf4
    assert bold_cells(lines) == {cell: found.p.get(cell, 1.0) < 0.05 for cell in found.differences}


def test_figures_that_are_better_and_worse_are_listed(measured: Path) -> None:
    measure(measured / "dpo", "perplexity", {"perplexity": [[30.0 + n % 3, 10.0] for n in range(40)]})
    measure(measured / "base", "perplexity", {"perplexity": [[20.0 + n % 5, 10.0] for n in range(40)]})
    lines = [line for line in render(measured) if line.startswith("- ")]
    first = "better in `right_language`, `accuracy`; worse in `perplexity`; no difference shown in nothing."
    assert lines == [
        f"- dpo against base: {first}",
        "- dpo against prompted: better in `right_language`; worse in nothing; no difference shown in nothing.",
    ]


def test_a_spread_over_trainings_is_in_the_headline(measured: Path) -> None:
    lines = render(measured, spread=dict.fromkeys(report.HEADLINE, (0.84, 0.97, 3)), notes=["A note."])
    assert lines[1] == "A note."
    assert row(lines, "| experts")[-1] == "3 trainings"
    assert row(lines, "`right_language` |")[-1] == "0.84 to 0.97"


def bold_cells(lines: list[str]) -> dict[report.Cell, bool]:
    """For each difference in the tables of all figures whether it is bold."""
    found = {}
    names: list[str] = []
    for line in lines:
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if cells[0] in FIGURES:
            names = cells[2:]
        if match := re.match(r"`(\w+)`: ", cells[0]):
            for name, cell in zip(names, cells[2:], strict=True):
                for baseline, difference in re.findall(r"<br>Δ (\w+) (\S+)", cell):
                    found[name, baseline, match[1]] = difference.startswith("**")
    return found


def test_differences_are_bold_that_are_significant_after_holm(measured: Path) -> None:
    found = compare(measured)
    assert found.p == significance.adjust_holm(
        {cell: difference.p for cell, difference in found.differences.items() if cell[2] != "words"}
    )
    assert bold_cells(render(measured)) == {cell: found.p.get(cell, 1.0) < 0.05 for cell in found.differences}
    assert {cell: p < 0.05 for cell, p in found.p.items()} == {
        ("prompted", "base", "right_language"): True,
        ("dpo", "base", "right_language"): True,
        ("dpo", "prompted", "right_language"): True,
        ("dpo", "base", "accuracy"): True,
    }
    assert "significant at 5% (Holm) among the 4 differences of these figures" in render(measured)


def test_a_difference_whose_interval_includes_zero_is_not_bold(measured: Path) -> None:
    """Of the scores of a corpus, the permutation test and the jackknife may disagree."""
    found, cell = compare(measured), ("dpo", "base", "accuracy")
    assert report._format_difference(found, cell).startswith("**")
    assert "dpo against base: better in `right_language`, `accuracy`;" in " ".join(report._verdict_lines(found))
    found.differences[cell] = found.differences[cell].model_copy(update={"low": -0.01})
    assert "**" not in report._format_difference(found, cell)
    assert "dpo against base: better in `right_language`;" in " ".join(report._verdict_lines(found))


def test_a_figure_that_no_item_decides_is_a_dash_and_each_cell_has_its_own_n(measured: Path) -> None:
    undecided = {"right_language": [[0.0, 0.0]] * 40, "words": [[1.0]] * 40}
    rows = {name: [[1.0, 1.0]] * 3 + [[0.0, 0.0]] * 37 for name in ("right_language",)}
    measure(measured / "prompted", "language", rows | {"words": [[1.0]] * 40}, ["Sí."] * 40)
    lines = render(measured)
    assert "(n 3 (3))" in row(lines, "`right_language`:")[5]
    measure(measured / "dpo", "language", {"words": undecided["words"]}, None)
    write_rows(
        measured / "dpo/language.items.jsonl",
        [
            SampleScore(id=f"{n:02}", language="es", group=f"{n:02}", figure=figure, values=values[n], text="")
            for figure, values in undecided.items()
            for n in range(40)
        ],
    )
    lines = render(measured)
    assert row(lines, "`right_language` |")[5:] == ["–", "", ""]
    assert "right_language" not in report.summarize([compare(measured)])


def test_a_system_prompt_of_the_chat_template_is_named(measured: Path) -> None:
    write_json(measured / "base/model.json", {"bytes": 1, "written_system_prompt": "You are *Smol*."})
    assert render(measured, notes=["A note."])[1:4] == [
        "A note.",
        'Without our system prompt, the chat template writes one of its own: "You are \\*Smol\\*.". In the',
        "columns with a system prompt, ours replaces it.",
    ]


def test_figures_with_too_few_groups_for_bold_are_named(measured: Path) -> None:
    assert not any("Too few groups" in line for line in render(measured))
    for name in ("base", "dpo"):
        measure(measured / name, "benchmark", {"accuracy": [[1.0]] * 5})
    assert "Too few groups for any difference to be bold: `accuracy`." in render(measured)


def sample_rows(lines: list[str], start: int) -> list[list[str]]:
    """The cells of a table of samples whose header is at `start`."""
    assert lines[start] == "| the first held-out questions | expert | base | prompted | dpo |"
    end = next((place for place in range(start, len(lines)) if not lines[place]), len(lines))
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[start + 2 : end]]


def test_samples_are_held_out_and_escaped(measured: Path) -> None:
    asked = {"00": "a|b\n# `x` <b>", "01": "¿Qué?", "02": "x" * 301}
    threads = [thread(name, text, "test") for name, text in asked.items()] + [thread("0", "learned", "train")]
    found, answers = comparison.compare(measured, THREADS, METRICS, ["es"], 1)
    lines = report.render_report(found, answers, threads, METRICS).splitlines()
    (start,) = [place for place, line in enumerate(lines) if line.startswith("| the first held-out")]
    rows = sample_rows(lines, start)
    assert [cells[0] for cells in rows] == [r"a\|b \# \`x\` \<b\>", "¿Qué?", f"{'x' * 300}…"]
    assert rows[0][1:] == ["La plaza está en el centro.", *[RIGHT["es"]] * 3]


def test_the_summary(measured: Path) -> None:
    found = report.summarize([compare(measured)])
    gain = found.pop("right_language_gain")
    assert found == {"right_language": 0.975, "words": 9.5, "accuracy": 0.75}
    assert 0.2 < gain["low"] < 0.475 < gain["high"] < 0.7


def test_the_same_measurements_give_the_same_page(measured: Path) -> None:
    assert render(measured) == render(measured)


def test_other_signatures_are_not_compared(measured: Path) -> None:
    measure(
        measured / "dpo",
        "benchmark",
        {"accuracy": [[1.0]] * 40},
        signature='{"device": "cpu 4", "dtype": "bfloat16"}',
    )
    with pytest.raises(BadInput) as caught:
        compare(measured)
    assert caught.value.message == (
        f"{measured}/dpo: accuracy: measured with device 'cpu 4', not 'cpu 2' as base; measure all again on one"
        " machine: dvc repro -s -f metrics, then dvc repro"
    )


def test_other_items_are_not_compared(measured: Path) -> None:
    measure(measured / "dpo", "benchmark", {"accuracy": [[1.0]] * 39})
    with pytest.raises(BadInput) as caught:
        compare(measured)
    assert caught.value.message == (
        f"{measured}/dpo: accuracy: the items differ from those of base; measure both again"
    )


def test_a_bad_item_is_named(measured: Path) -> None:
    path = measured / "dpo/language.items.jsonl"
    with path.open("a", encoding="utf-8") as file:
        file.write('{"id": "a", "language": "es", "group": "g", "figure": "words", "values": [null], "text": ""}\n')
    with pytest.raises(BadInput) as caught:
        compare(measured)
    assert caught.value.message == (f"{path}:81: values.0: input should be a valid number, got null; fix the row")


def test_an_estimate_without_interval_is_named(measured: Path) -> None:
    path = measured / "base/language.json"
    figures = json.loads(path.read_text(encoding="utf-8"))
    del figures["figures"]["words"]["low"]
    path.write_text(json.dumps(figures), encoding="utf-8")
    with pytest.raises(BadInput) as caught:
        compare(measured)
    assert caught.value.message == f"{path}: words: low: missing; add it"


def test_headlines_are_figures() -> None:
    assert set(report.HEADLINE) <= set(report.ALL)
    assert len(report.HEADLINE) + 2 <= 14  # with the gain's interval: a dozen, that fit


def accuracy_of(value: float) -> dict[str, Any]:
    """The figures of a judge for a generator, as its stage writes them."""
    kinds = {"expert": "mean", "sample": "mean", "judge": "share", "longer": "share", "language": "share",
             "question": "share", "random": "share"}  # fmt: skip
    values = dict(zip(kinds, (2.5, 2.25, value, 0.4, 0.6, 0.3, 0.5), strict=True))
    return {
        name: {"value": values[name], "low": values[name] - 0.25, "high": values[name] + 0.25, "n": 9, "groups": 7,
               "kind": kind, "signature": "s"}
        for name, kind in kinds.items()
    }  # fmt: skip


def test_the_accuracy_of_judges(tmp_path: Path) -> None:
    path = tmp_path / "rubric.json"
    accuracy = {"plain": {"samples": 10, "unscored": 1, "figures": accuracy_of(0.7)},
                "guided": {"samples": 4, "unscored": 4, "figures": {}}}  # fmt: skip
    path.write_text(json.dumps({"verdicts": {}, "accuracy": accuracy}), encoding="utf-8")
    *_, head, rule, guided, plain = report.render_judge_accuracy(
        {"rubric": report.read_judge_accuracy(path)}, {"rubric": report.read_comparisons(path)}
    ).splitlines()
    assert head.count("|") == rule.count("|") == guided.count("|") == plain.count("|") == 12
    assert guided == "| `rubric` | `guided` | 0 |  |  |  |  |  |  |  | 4 |"
    assert plain == (
        "| `rubric` | `plain` | 9 | 2.50 [2.25, 2.75] | 2.25 [2.00, 2.50] | 0.700 [0.450, 0.950] | 0.400 [0.150, 0.650]"
        " | 0.600 [0.350, 0.850] | 0.300 [0.050, 0.550] | 0.500 [0.250, 0.750] | 1 |"
    )


def test_the_flips_of_a_judge_that_compares(tmp_path: Path) -> None:
    path = tmp_path / "second.json"
    path.write_text(json.dumps({"comparisons": {"compared": 40, "flips": 12}}), encoding="utf-8")
    page = report.render_judge_accuracy({"second": {}}, {"second": report.read_comparisons(path)})
    assert page.endswith(
        "\n\n`second` compared 40 pairs of answers in both orders; in 12 (30%) it said another thing in each.\n"
    )


def test_the_accuracy_of_a_judge_in_two_languages(tmp_path: Path) -> None:
    path = tmp_path / "rubric.json"
    parts = {
        code: {"plain": {"samples": samples, "unscored": 0, "figures": accuracy_of(value)}}
        for code, samples, value in (("", 30, 0.7), ("es", 20, 0.8), ("it", 10, 0.5))
    }
    all_together = parts.pop("")
    path.write_text(json.dumps({"verdicts": {}, "accuracy": all_together, "languages": parts}), encoding="utf-8")
    found = report.read_judge_accuracy(path)
    assert {code: row["plain"].samples for code, row in found.items()} == {"": 30, "es": 20, "it": 10}
    *_, rule, first, second, third = report.render_judge_accuracy({"rubric": found}, {}).splitlines()
    assert rule.startswith("|---")
    start, end = (
        "2.50 [2.25, 2.75] | 2.25 [2.00, 2.50]",
        "0.400 [0.150, 0.650] | 0.600 [0.350, 0.850] | 0.300 [0.050, 0.550] | 0.500 [0.250, 0.750] | 0 |",
    )
    assert [first, second, third] == [
        f"| `rubric` | `plain` | 30 | {start} | 0.700 [0.450, 0.950] | {end}",
        f"| `rubric` (es) | `plain` | 20 | {start} | 0.800 [0.550, 1.050] | {end}",
        f"| `rubric` (it) | `plain` | 10 | {start} | 0.500 [0.250, 0.750] | {end}",
    ]


def test_the_accuracy_of_a_judge_that_did_not_run(tmp_path: Path) -> None:
    with pytest.raises(BadInput) as caught:
        report.read_judge_accuracy(tmp_path / "rubric.json")
    assert caught.value.message == (
        f"{tmp_path}/rubric.json: cannot be read (No such file or directory); run the stage that makes it"
    )


def test_the_page_does_not_depend_on_the_order_of_the_columns(measured: Path) -> None:
    """DVC does not see the order of a map in params.yaml, so a page that depended on it could be stale."""
    pages = []
    for names in (list(METRICS.models), list(METRICS.models)[::-1]):
        params = METRICS.model_copy(update={"models": {name: METRICS.models[name] for name in names}})
        found, answers = comparison.compare(measured, THREADS, params, ["es"], 1)
        pages.append((report.render_report(found, answers, THREADS, params), report.summarize(found)))
    assert pages[0] == pages[1]
    assert "\n- dpo against base: " in pages[0][0]


def test_without_the_language_suite_there_are_no_references_and_no_samples(measured: Path) -> None:
    for name in MEASURED:
        (measured / name / "language.json").unlink()
        (measured / name / "language.items.jsonl").unlink()
    params = METRICS.model_copy(update={"suites": ["benchmark", "perplexity"]})
    (found,), answers = comparison.compare(measured, THREADS, params, ["es"], 1)
    lines = report.render_report([found], answers, THREADS, params).splitlines()
    assert (found.references, found.cut) == ({}, {})
    assert [line for line in lines if line.startswith("|")] == [
        "| | base | prompted | dpo | Δ base | Δ prompted |",
        "|---|---|---|---|---|---|",
        next(line for line in lines if line.startswith("| `accuracy` | 0.250 | – | 0.750 | **+0.500 [+0.")),
        "| benchmark | n (groups) | base | prompted | dpo |",
        "|---|--:|---|---|---|",
        next(line for line in lines if line.startswith("| weights, MB | | ")),
        next(line for line in lines if line.startswith("| `accuracy`: ")),
        "| perplexity | n (groups) | base | prompted | dpo |",
        "|---|--:|---|---|---|",
    ]
    assert report.summarize([found]) == {"accuracy": 0.75}
    assert [line for line in lines if line.startswith("- ")] == [
        "- dpo against base: better in `accuracy`; worse in nothing; no difference shown in nothing.",
        "- dpo against prompted: better in nothing; worse in nothing; no difference shown in nothing.",
    ]


def test_without_the_language_suite_two_languages_are_compared(measured_in_two: Path) -> None:
    params = METRICS.model_copy(update={"suites": ["benchmark"]})
    found, answers = comparison.compare(measured_in_two, THREADS_OF_TWO, params, ["es", "it"], 1)
    lines = report.render_report(found, answers, THREADS_OF_TWO, params).splitlines()
    assert [line for line in lines if line.startswith("## ")] == [
        "## All languages", "## Spanish", "## Italian", "## All languages: all figures", "## Spanish: all figures",
        "## Italian: all figures",
    ]  # fmt: skip
    assert report.summarize(found) == {"accuracy": 0.75, "es": {"accuracy": 0.6667}, "it": {"accuracy": 1.0}}


def test_a_suite_alone_has_no_other_table(measured: Path) -> None:
    params = METRICS.model_copy(update={"suites": ["language"]})
    found, answers = comparison.compare(measured, THREADS, params, ["es"], 1)
    lines = report.render_report(found, answers, THREADS, params).splitlines()
    assert row(lines, "language |")[2:] == ["experts", "trivial", "base", "prompted", "dpo"]
    assert not any(line.startswith(f"| {suite} |") for line in lines for suite in FIGURES if suite != "language")
    assert "accuracy" not in report.summarize(found)


def test_the_first_comparison_is_of_all_languages_and_one_of_each_follows(measured_in_two: Path) -> None:
    found = compare_two(measured_in_two)
    assert [(each.language, each.title, each.subject) for each in found] == [
        (None, "All languages", "dpo"),
        ("es", "Spanish", "dpo"),
        ("it", "Italian", "dpo"),
    ]
    shown = {
        each.language: {
            name: (round(values["right_language"].value, 3), values["right_language"].n)
            for name, values in each.values.items()
        }
        for each in found
    }
    assert shown == {
        None: {"base": (0.5, 40), "prompted": (0.75, 40), "dpo": (0.975, 40)},
        "es": {"base": (0.333, 30), "prompted": (0.667, 30), "dpo": (0.967, 30)},
        "it": {"base": (1.0, 10), "prompted": (1.0, 10), "dpo": (1.0, 10)},
    }
    gains = [each.differences["dpo", "base", "right_language"] for each in found]
    assert [(round(gain.value, 3), gain.n) for gain in gains] == [(0.475, 40), (0.633, 30), (0.0, 10)]
    cuts = [each.cut["dpo", "prompted", "right_language"] for each in found]
    assert [tuple(round(value, 3) for value in cut) for cut in cuts] == [(0.975, 0.75), (0.967, 0.667), (1.0, 1.0)]


def test_the_references_of_each_language_are_of_its_threads(measured_in_two: Path) -> None:
    """`trivial` is one training answer of each language to all of its questions; the Italian one has one word."""
    together, spanish, italian = (each.references for each in compare_two(measured_in_two))
    assert [part["experts"]["right_language"].n for part in (together, spanish, italian)] == [40, 30, 10]
    assert [part["experts"]["right_language"].value for part in (together, spanish, italian)] == [1, 1, 1]
    assert (together["trivial"]["undecided"].value, together["trivial"]["right_language"].n) == (0.25, 30)
    assert (spanish["trivial"]["undecided"].value, spanish["trivial"]["right_language"].n) == (0.0, 30)
    assert italian["trivial"]["undecided"].value == 1.0
    assert "right_language" not in italian["trivial"]
    assert [part["trivial"]["words"].value for part in (together, spanish, italian)] == [3.25, 4.0, 1.0]
    assert together["trivial"]["distinct"].value == pytest.approx(2 / 40)


def test_holm_adjusts_the_differences_of_all_languages_together(measured_in_two: Path) -> None:
    found = compare_two(measured_in_two)
    raw = {
        (each.language, cell): difference.p
        for each in found
        for cell, difference in each.differences.items()
        if cell[2] != "words"
    }
    assert len(raw) == 12
    assert {(each.language, cell): p for each in found for cell, p in each.p.items()} == significance.adjust_holm(raw)
    lines = render_two(measured_in_two)
    assert "significant at 5% (Holm) among the 12 differences of these figures" in lines
    for each in found:
        bold = bold_cells(section(lines, f"## {each.title.capitalize()}: all figures"))
        assert bold == {cell: each.p.get(cell, 1.0) < 0.05 for cell in each.differences}
    assert [sum(p < 0.05 for p in each.p.values()) for each in found] == [4, 4, 0]


@pytest.mark.parametrize(("codes", "p"), [(ONE, 2 / 2**6), (TWO, 3 * 2 / 2**6)])
def test_a_difference_that_is_bold_alone_may_not_be_among_those_of_two_languages(
    tmp_path: Path, codes: tuple[str, ...], p: float
) -> None:
    """Six answers differ, all in Italian where there are two languages; there are three differences then, not one."""
    measure_columns(tmp_path, codes)
    for name, rows in {"base": [[0.0]] * 6 + [[1.0]] * 34, "dpo": [[1.0]] * 40}.items():
        measure(tmp_path / name, "benchmark", {"accuracy": rows}, codes=codes)
    params = METRICS.model_copy(update={"suites": ["benchmark"]})
    found, _ = comparison.compare(tmp_path, THREADS_OF_TWO, params, list(dict.fromkeys(codes)), 1)
    cell = ("dpo", "base", "accuracy")
    assert {each.language: each.p[cell] for each in found} == (
        {None: pytest.approx(p, rel=0.2)} if codes == ONE else {None: p, "it": p, "es": 1}
    )
    assert (p < 0.05) == (codes == ONE)


def test_a_report_of_two_languages_has_headings(measured_in_two: Path) -> None:
    lines = render_two(measured_in_two)
    assert lines[0] == "Measured on the 40 held-out threads of split `test`."
    assert [line for line in lines if line.startswith("#")] == [
        "## All languages", "## Spanish", "## Italian", "## All languages: all figures", "## Spanish: all figures",
        "## Italian: all figures",
    ]  # fmt: skip


def test_each_heading_has_its_headline_and_its_tables(measured_in_two: Path) -> None:
    lines = render_two(measured_in_two)
    for title, n, values in (
        ("All languages", "40 (40)", ["1.000", "1.000", "0.500", "0.750", "0.975"]),
        ("Spanish", "30 (30)", ["1.000", "1.000", "0.333", "0.667", "0.967"]),
        ("Italian", "10 (10)", ["1.000", "–", "1.000", "1.000", "1.000"]),
    ):
        headline, tables = section(lines, f"## {title}"), section(lines, f"## {title}: all figures")
        assert row(headline, "`right_language` |")[1:6] == values
        assert row(tables, "`right_language`:")[1] == n
        assert [cell.split(" ")[0] for cell in row(tables, "`right_language`:")[2:]] == values
        assert row(tables, "language |")[2:] == ["experts", "trivial", "base", "prompted", "dpo"]
        assert row(tables, "benchmark |")[2:] == ["base", "prompted", "dpo"]
    verdicts = [line for line in lines if line.startswith("- dpo against base")]
    assert verdicts == [
        "- dpo against base: better in `right_language`, `accuracy`; worse in nothing; no difference shown in nothing.",
        "- dpo against base: better in `right_language`, `accuracy`; worse in nothing; no difference shown in nothing.",
        "- dpo against base: better in nothing; worse in nothing; no difference shown in `right_language`, `accuracy`.",
    ]


def test_a_spread_over_trainings_is_of_all_languages_together(measured_in_two: Path) -> None:
    lines = render_two(measured_in_two, spread=dict.fromkeys(report.HEADLINE, (0.84, 0.97, 3)))
    assert row(section(lines, "## All languages"), "| experts")[-1] == "3 trainings"
    for title in ("Spanish", "Italian"):
        assert row(section(lines, f"## {title}"), "| experts")[-1] == "Δ prompted"


def test_each_language_has_a_table_of_samples(measured_in_two: Path) -> None:
    lines = render_two(measured_in_two)
    starts = [place for place, line in enumerate(lines) if line.startswith("| the first held-out questions |")]
    found = [[(cells[0], cells[1], cells[4]) for cells in sample_rows(lines, start)] for start in starts]
    assert sorted(found) == [
        [(f"{n}?", ITALIAN, RIGHT["it"]) for n in range(10)],
        [(f"{n}?", "La plaza está en el centro.", RIGHT["es"]) for n in range(10, 30)],
    ]


def test_the_summary_of_two_languages(measured_in_two: Path) -> None:
    found = report.summarize(compare_two(measured_in_two))
    gains = [part.pop("right_language_gain") for part in (found, found["es"], found["it"])]
    assert found == {
        "right_language": 0.975, "words": 9.5, "accuracy": 0.75,
        "es": {"right_language": 0.9667, "words": 9.5, "accuracy": 0.6667},
        "it": {"right_language": 1.0, "words": 9.5, "accuracy": 1.0},
    }  # fmt: skip
    assert 0.2 < gains[0]["low"] < 0.475 < gains[0]["high"] < 0.7
    assert 0.3 < gains[1]["low"] < 0.633 < gains[1]["high"] < 0.9
    assert gains[2]["low"] < 0 < gains[2]["high"]


def test_other_items_of_one_language_are_not_compared(measured_in_two: Path) -> None:
    """The same items, one of them in another language."""
    codes = ("it",) * 11 + ("es",) * 29
    measure(measured_in_two / "dpo", "benchmark", {"accuracy": [[1.0]] * 40}, codes=codes)
    with pytest.raises(BadInput) as caught:
        compare_two(measured_in_two)
    assert caught.value.message == (
        f"{measured_in_two}/dpo: accuracy: the items differ from those of base; measure both again"
    )


def test_other_signatures_of_one_language_are_not_compared(measured_in_two: Path) -> None:
    path = measured_in_two / "dpo/benchmark.json"
    written = json.loads(path.read_text(encoding="utf-8"))
    written["languages"]["it"]["accuracy"]["signature"] = '{"device": "cpu 4", "dtype": "bfloat16"}'
    path.write_text(json.dumps(written), encoding="utf-8")
    with pytest.raises(BadInput) as caught:
        compare_two(measured_in_two)
    assert caught.value.message == (
        f"{measured_in_two}/dpo: accuracy: measured with device 'cpu 4', not 'cpu 2' as base; measure all again on one"
        " machine: dvc repro -s -f metrics, then dvc repro"
    )


def test_a_language_without_items_of_a_suite_has_no_row(measured_in_two: Path) -> None:
    for name in ("base", "dpo"):
        path = measured_in_two / name
        measure(path, "perplexity", {"perplexity": [[20.0, 10.0]] * 10})
        (path / "perplexity.items.jsonl").write_text(
            (path / "perplexity.items.jsonl").read_text(encoding="utf-8").replace('"es"', '"it"'), encoding="utf-8"
        )
        figures = json.loads((path / "perplexity.json").read_text(encoding="utf-8"))["figures"]
        write_json(path / "perplexity.json", {"figures": figures, "languages": {"es": {}, "it": figures}})
    lines = render_two(measured_in_two)
    shown = {
        title: [line for line in section(lines, f"## {title}: all figures") if line.startswith("| `perplexity`")]
        for title in ("All languages", "Spanish", "Italian")
    }
    assert {title: len(rows) for title, rows in shown.items()} == {"All languages": 1, "Spanish": 0, "Italian": 1}
