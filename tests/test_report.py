"""The page and the summary, on made-up measurements; what was measured differently is not compared."""

import json
from pathlib import Path
from typing import Any

import pytest

from mothertongue import report, significance
from mothertongue.errors import BadInput
from mothertongue.figures import FIGURES
from mothertongue.params import Measured, Metrics
from mothertongue.records import Item, Message, Split, Thread, write_json, write_rows

METRICS = Metrics(
    split="test",
    models={
        "base": Measured(model="base", system_prompt=False),
        "prompted": Measured(model="base", system_prompt=True),
        "merged": Measured(model="merged", system_prompt=False),
    },
    baselines=["base", "prompted"],
    answer_tokens=8,
    translation_tokens=8,
)
SAID = {"base": "The library is in the square of the town", "prompted": "La biblioteca está en la plaza mayor, claro"}
# measured: of 40 answers, in how many the expert's language; words of each answer; accuracy
MEASURED = {"base": (20, 10.0, 10), "prompted": (30, 9.0, 11), "merged": (39, 9.0, 30)}


SIGNATURE = '{"device": "cpu 2", "dtype": "bfloat16"}'


def measure(
    folder: Path,
    suite: str,
    values: dict[str, list[list[float]]],
    texts: list[str] | None = None,
    signature: str = SIGNATURE,
) -> None:
    """What the metrics stage writes for one model and suite: one row of statistics per item and figure."""
    items = [
        Item(id=f"{n:02}", group=f"{n:02}", figure=figure, values=row, text=texts[n] if texts else "")
        for figure, rows in values.items()
        for n, row in enumerate(rows)
    ]
    figures = {
        figure: significance.estimate(
            FIGURES[suite][figure].kind, [i for i in items if i.figure == figure], signature
        ).model_dump()
        for figure in values
    }
    write_rows(folder / f"{suite}.items.jsonl", items)
    write_json(folder / f"{suite}.json", {"figures": figures})


def thread(name: str, asked: str, split: Split, reference: str = "La plaza está en el centro.") -> Thread:
    prompt = [Message(role="user", content="antes"), Message(role="user", content=asked)]
    return Thread(id=name, conversation="c", group=name, split=split, prompt=prompt, reference=reference)


THREADS = [thread(f"{n:02}", f"¿{n}?", "test") for n in range(40)] + [
    thread("x", "learned", "train", "Sí, en el centro.")
]


@pytest.fixture
def measured(tmp_path: Path) -> Path:
    """Three models measured in two suites, the others without items."""
    for place, (name, (right, words, accurate)) in enumerate(MEASURED.items(), start=1):
        for suite in FIGURES:
            measure(tmp_path / name, suite, {})
        spoken = [SAID["prompted" if n < right else "base"] for n in range(40)]
        values = {
            "right_language": [[float(n < right), 1.0] for n in range(40)],
            "words": [[words + n % 2] for n in range(40)],
        }
        measure(tmp_path / name, "language", values, spoken)
        if name != "prompted":
            measure(tmp_path / name, "benchmark", {"accuracy": [[float(n < accurate)] for n in range(40)]})
        write_json(tmp_path / name / "model.json", {"bytes": 1_000_000 * place, "written_system_prompt": None})
    return tmp_path


def compared(folder: Path) -> report.Comparison:
    return report.compare(folder, THREADS, METRICS, "es", 1)[0]


def written(folder: Path, **more: object) -> list[str]:
    found, said = report.compare(folder, THREADS, METRICS, "es", 1)
    return report.page(found, said, THREADS, METRICS, **more).splitlines()  # type: ignore[arg-type]


def row(lines: list[str], start: str) -> list[str]:
    (found,) = [line for line in lines if line.startswith(f"| {start}")]
    return [cell.strip() for cell in found.strip("|").split("|")]


def test_the_headline_has_controls_and_both_differences(measured: Path) -> None:
    lines = written(measured)
    assert lines[0] == "Measured on the 40 held-out threads of split `test`."
    assert row(lines, "| experts") == [
        "", "experts", "trivial", "base", "prompted", "merged", "Δ base", "Δ prompted"
    ]  # fmt: skip
    name, experts, trivial, base, prompted, merged, over_base, over_prompted = row(lines, "`right_language` |")
    assert (name, experts, trivial) == ("`right_language`", "1.000", "1.000")
    assert (base, prompted, merged) == ("0.500", "0.750", "0.975")
    assert over_base.startswith("**+0.475 [+0.")
    assert over_prompted.startswith("**+0.225 [+0.")
    assert row(lines, "`accuracy` |")[1:5] == ["–", "–", "0.250", "–"]


def test_a_table_for_each_suite_with_items(measured: Path) -> None:
    lines = written(measured)
    heads = [row(lines, f"{suite} |") for suite in FIGURES]
    assert heads[0] == ["language", "n (groups)", "experts", "trivial", "base", "prompted", "merged"]
    assert heads[3] == ["benchmark", "n (groups)", "base", "prompted", "merged"]
    assert row(lines, "weights, MB") == ["weights, MB", "", "", "", "1", "2", "3"]
    name, n, experts, trivial, base, prompted, merged = row(lines, "`words`:")
    assert (name, n) == ("`words`: words per answer (letters, where a script has no spaces)", "40 (40)")
    assert (experts[:5], trivial[:5]) == ("6.00 ", "4.00 ")
    assert base.startswith("9.50 [") is False
    assert base.startswith("10.50 [10.")
    assert prompted.startswith("9.50 [")
    assert "<br>Δ base -1.00 [" in prompted  # neither way is better
    assert "Δ prompted" not in prompted
    assert "<br>Δ prompted +0.000 [+0.000, +0.000]" in merged
    assert row(lines, "`accuracy`:")[3] == "–"


def test_differences_of_what_depends_on_length_stand_beside_the_values_they_are_of(measured: Path) -> None:
    (cell,) = [cell for cell in row(written(measured), "`right_language`:") if "Δ prompted" in cell]
    assert "(0.975, 0.750; 40 pairs, 40 groups)" in cell  # all answers have eight words: nothing is cut


def test_the_verdict_names_what_is_better_and_what_is_worse(measured: Path) -> None:
    measure(measured / "merged", "perplexity", {"perplexity": [[30.0 + n % 3, 10.0] for n in range(40)]})
    measure(measured / "base", "perplexity", {"perplexity": [[20.0 + n % 5, 10.0] for n in range(40)]})
    lines = [line for line in written(measured) if line.startswith("- ")]
    first = "better in `right_language`, `accuracy`; worse in `perplexity`; no difference shown in nothing."
    assert lines == [
        f"- merged against base: {first}",
        "- merged against prompted: better in `right_language`; worse in nothing; no difference shown in nothing.",
    ]


def test_a_spread_over_trainings_stands_in_the_headline(measured: Path) -> None:
    lines = written(measured, spread=dict.fromkeys(report.HEADLINE, (0.84, 0.97, 3)), notes=["A note."])
    assert lines[1] == "A note."
    assert row(lines, "| experts")[-1] == "3 trainings"
    assert row(lines, "`right_language` |")[-1] == "0.84 to 0.97"


def test_bold_is_what_holm_leaves(measured: Path) -> None:
    found = compared(measured)
    cells = {cell: p < 0.05 for cell, p in found.p.items()}
    assert set(cells) == {cell for cell in found.differences if cell[2] != "words"}
    assert found.p == significance.holm({cell: found.differences[cell].p for cell in cells})
    bold = {cell for cell in cells if report._signed(found, cell).startswith("**")}
    assert bold == {cell for cell, significant in cells.items() if significant}
    assert 0 < len(bold) <= len(cells)


def test_what_neither_side_decides_leaves_a_dash_and_each_cell_its_own_n(measured: Path) -> None:
    undecided = {"right_language": [[0.0, 0.0]] * 40, "words": [[1.0]] * 40}
    rows = {name: [[1.0, 1.0]] * 3 + [[0.0, 0.0]] * 37 for name in ("right_language",)}
    measure(measured / "prompted", "language", rows | {"words": [[1.0]] * 40}, ["Sí."] * 40)
    lines = written(measured)
    assert "(n 3 (3))" in row(lines, "`right_language`:")[5]
    measure(measured / "merged", "language", {"words": undecided["words"]}, None)
    write_rows(
        measured / "merged/language.items.jsonl",
        [
            Item(id=f"{n:02}", group=f"{n:02}", figure=figure, values=values[n], text="")
            for figure, values in undecided.items()
            for n in range(40)
        ],
    )
    lines = written(measured)
    assert row(lines, "`right_language` |")[5:] == ["–", "", ""]
    assert "right_language" not in report.summary(compared(measured))


def test_the_template_s_own_system_prompt_is_told(measured: Path) -> None:
    write_json(measured / "base/model.json", {"bytes": 1, "written_system_prompt": "You are *Smol*."})
    said = "\n".join(written(measured))
    assert 'its chat template writes one: "You are \\*Smol\\*.". The' in said


def test_too_few_groups_for_bold_are_told(measured: Path) -> None:
    assert not any("Too few groups" in line for line in written(measured))
    for name in ("base", "merged"):
        measure(measured / name, "benchmark", {"accuracy": [[1.0]] * 5})
    assert "Too few groups for any difference to be bold: `accuracy`." in written(measured)


def test_samples_are_held_out_and_break_no_table(measured: Path) -> None:
    asked = {"00": "a|b\n# `x` <b>", "01": "¿Qué?", "02": "x" * 301}
    threads = [thread(name, text, "test") for name, text in asked.items()] + [thread("0", "learned", "train")]
    found, said = report.compare(measured, THREADS, METRICS, "es", 1)
    lines = report.page(found, said, threads, METRICS).splitlines()
    start = lines.index("| the first held-out questions | expert | base | prompted | merged |")
    rows = [line.strip("|").split(" | ") for line in lines[start + 2 :]]
    assert [cells[0].strip() for cells in rows] == [r"a\|b \# \`x\` \<b\>", "¿Qué?", f"{'x' * 300}…"]
    assert [cell.strip() for cell in rows[0][1:]] == ["La plaza está en el centro.", *[SAID["prompted"]] * 3]


def test_the_summary(measured: Path) -> None:
    found = report.summary(compared(measured))
    gain = found.pop("right_language_gain")
    assert found == {"right_language": 0.975, "words": 9.5, "accuracy": 0.75}
    assert 0.2 < gain["low"] < 0.475 < gain["high"] < 0.7


def test_the_same_measurements_give_the_same_page(measured: Path) -> None:
    assert written(measured) == written(measured)


def test_other_signatures_are_not_compared(measured: Path) -> None:
    measure(
        measured / "merged",
        "benchmark",
        {"accuracy": [[1.0]] * 40},
        signature='{"device": "cpu 4", "dtype": "bfloat16"}',
    )
    with pytest.raises(BadInput) as caught:
        compared(measured)
    assert caught.value.message == (
        f"{measured}/merged: accuracy: measured with device 'cpu 4', not 'cpu 2' as base; measure all again on one"
        " machine: dvc repro -s -f metrics, then dvc repro"
    )


def test_other_items_are_not_compared(measured: Path) -> None:
    measure(measured / "merged", "benchmark", {"accuracy": [[1.0]] * 39})
    with pytest.raises(BadInput) as caught:
        compared(measured)
    assert caught.value.message.startswith(f"{measured}/merged: accuracy: ")
    assert caught.value.message.endswith("; measure both again")


def test_a_bad_item_is_named(measured: Path) -> None:
    path = measured / "merged/language.items.jsonl"
    with path.open("a", encoding="utf-8") as file:
        file.write('{"id": "a", "group": "g", "figure": "words", "values": [null], "text": ""}\n')
    with pytest.raises(BadInput) as caught:
        compared(measured)
    assert caught.value.message == (f"{path}:81: values.0: input should be a valid number, got null; mend the row")


def test_an_estimate_without_interval_is_named(measured: Path) -> None:
    path = measured / "base/language.json"
    figures = json.loads(path.read_text(encoding="utf-8"))
    del figures["figures"]["words"]["low"]
    path.write_text(json.dumps(figures), encoding="utf-8")
    with pytest.raises(BadInput) as caught:
        compared(measured)
    assert caught.value.message == f"{path}: words: low: missing; add it"


def test_headlines_are_figures() -> None:
    assert set(report.HEADLINE) <= set(report.ALL)
    assert len(report.HEADLINE) + 2 <= 14  # with the gain's interval: a dozen, that fit


def test_what_the_judges_are_worth(tmp_path: Path) -> None:
    def figure(value: float, kind: str) -> dict[str, Any]:
        return {"value": value, "low": value - 0.25, "high": value + 0.25, "n": 9, "groups": 7, "kind": kind,
                "signature": "s"}  # fmt: skip

    kinds = {"expert": (2.5, "mean"), "sample": (2.25, "mean"), "judge": (0.7, "share"), "longer": (0.4, "share")}
    figures = {name: figure(*kind) for name, kind in (kinds | {"language": (0.6, "share")}).items()}
    path = tmp_path / "rubric.json"
    wrote = {"plain": {"samples": 10, "unscored": 1, "figures": figures},
             "guided": {"samples": 4, "unscored": 4, "figures": {}}}  # fmt: skip
    path.write_text(json.dumps({"verdicts": {}, "worth": wrote}), encoding="utf-8")
    *_, head, rule, guided, plain = report.worth({"rubric": report.read_worth(path)}).splitlines()
    assert head.count("|") == rule.count("|") == guided.count("|") == plain.count("|") == 10
    assert guided == "| `rubric` | `guided` | 0 |  |  |  |  |  | 4 |"
    assert plain == (
        "| `rubric` | `plain` | 9 | 2.50 [2.25, 2.75] | 2.25 [2.00, 2.50] | 0.700 [0.450, 0.950] | 0.400 [0.150, 0.650]"
        " | 0.600 [0.350, 0.850] | 1 |"
    )


def test_the_worth_of_a_judge_that_did_not_run(tmp_path: Path) -> None:
    with pytest.raises(BadInput) as caught:
        report.read_worth(tmp_path / "rubric.json")
    assert caught.value.message == (
        f"{tmp_path}/rubric.json: cannot be read (No such file or directory); run the stage that makes it"
    )
