"""The page and the summary, on made-up measurements; what was measured differently is not compared."""

import json
from pathlib import Path

import pytest

from mothertongue import report, significance
from mothertongue.errors import BadInput
from mothertongue.figures import FIGURES
from mothertongue.records import Estimate, Item, Message, Split, Thread, write_json, write_rows

LEVELS = ["nf4"]
# model: share of 40 answers in the language, words of each answer
MEASURED = {"base": (20, 10.0), "merged": (30, 9.0), "quantized/nf4": (21, 10.0)}


def measure(folder: Path, suite: str, values: dict[str, list[float]], signature: str = "sign") -> None:
    """What the metrics stage writes for one model and suite: one value per item and figure."""
    kinds = {figure: kind for figure, (kind, _) in FIGURES[suite].items()}
    items = [
        Item(id=f"{n:02}", group=f"{n:02}", figure=figure, values=[value], text="")
        for figure, row in values.items()
        for n, value in enumerate(row)
    ]
    figures = {
        figure: significance.estimate(
            kinds[figure], [i for i in items if i.figure == figure], 1, signature
        ).model_dump()
        for figure in values
    }
    write_rows(folder / f"{suite}.items.jsonl", items)
    write_json(folder / f"{suite}.json", {"figures": figures})


@pytest.fixture
def measured(tmp_path: Path) -> Path:
    """Three models measured in one suite, the others without items, and their weights."""
    for place, (name, (right, words)) in enumerate(MEASURED.items(), start=1):
        folder = tmp_path / "metrics" / name
        for suite in FIGURES:
            measure(folder, suite, {})
        shares = [float(n < right) for n in range(40)]
        measure(folder, "language", {"right_language": shares, "words": [words + n % 2 for n in range(40)]})
        weights = tmp_path / "models" / name
        weights.mkdir(parents=True)
        (weights / "model.safetensors").write_bytes(b"\0" * 1_000_000 * place)
        (weights / "config.json").write_bytes(b"{}")
    return tmp_path


def compared(folder: Path) -> report.Comparison:
    return report.compare(folder / "metrics", folder / "models", LEVELS, 1)


def test_the_table(measured: Path) -> None:
    lines = report.table(compared(measured)).splitlines()
    assert lines[:3] == [
        "Each value with its 95 % interval; after Δ the difference to the base, paired over the same items.",
        "A difference in bold has an interval that excludes zero, and at least six independent groups of items.",
        "",
    ]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[3:]]
    assert rows[0] == ["figure", "n", "base", "merged", "nf4"]
    assert rows[2] == ["weights, MB", "", "1", "2", "3"]
    name, n, base, merged, level = rows[3]
    assert (name, n) == ("`right_language`: share of answers in the language", "40")
    low, high = significance.wilson(0.5, 40)
    assert base == f"0.500 [{low:.3f}, {high:.3f}]"
    # 10 of 40 answers more, and none less: an interval on one side of zero; 1 of 40: one that touches it
    assert merged.startswith("0.750 [")
    assert "<br>Δ **+0.250 [+0.1" in merged
    assert level.startswith("0.525 [")
    assert "<br>Δ +0.025 [+0.000, +0.0" in level
    name, n, base, merged, level = rows[4]
    assert (name, n) == ("`words`: words per answer", "40")
    assert base.startswith("10.50 [10.3")
    assert merged.endswith("<br>Δ **-1.00 [-1.00, -1.00]**")
    assert level.endswith("<br>Δ +0.000 [+0.000, +0.000]")
    assert len(rows) == 5


def thread(name: str, asked: str, split: Split) -> Thread:
    prompt = [Message(role="user", content="antes"), Message(role="user", content=asked)]
    return Thread(id=name, conversation="c", group="g", split=split, prompt=prompt, reference=f"expert {name}")


def test_samples_are_held_out_and_break_no_table(tmp_path: Path) -> None:
    asked = {"c": "a|b\n# `x` <b>", "a": "¿Qué?", "d": "x" * 301, "b": "", "f": "5", "e": "4"}
    threads = [thread(name, text, "test") for name, text in asked.items()] + [thread("0", "learned", "train")]
    for model in ("base", "merged"):
        said = [
            Item(id=name, group="g", figure=figure, values=[1.0], text=f"{model} {name}" * (figure == "right_language"))
            for name in asked
            for figure in ("right_language", "words")
        ]
        write_rows(tmp_path / model / "language.items.jsonl", said)
    assert report.samples(threads, tmp_path).splitlines() == [
        "| the first held-out questions | expert | base | merged |",
        "|---|---|---|---|",
        "| ¿Qué? | expert a | base a | merged a |",
        "|  | expert b | base b | merged b |",
        r"| a\|b # \`x\` \<b\> | expert c | base c | merged c |",
        f"| {'x' * 300}… | expert d | base d | merged d |",
        "| 4 | expert e | base e | merged e |",
    ]


def test_the_summary(measured: Path) -> None:
    found = report.summary(compared(measured))
    gain = found.pop("gain")
    assert found == {"right_language": {"base": 0.5, "merged": 0.75, "nf4": 0.525}, "words": 9.5}
    assert 0.1 < gain["low"] < 0.25 < gain["high"] < 0.5


def test_the_same_measurements_give_the_same_page(measured: Path) -> None:
    assert report.table(compared(measured)) == report.table(compared(measured))


def test_other_signatures_are_not_compared(measured: Path) -> None:
    folder = measured / "metrics/merged"
    measure(folder, "language", {"words": [1.0] * 40}, "other")
    with pytest.raises(BadInput) as caught:
        compared(measured)
    assert caught.value.message == (
        f"{folder}/language.json: words: measured as other, but in {measured}/metrics/base as sign; measure both again"
    )


def test_other_items_are_not_compared(measured: Path) -> None:
    folder = measured / "metrics/quantized/nf4"
    measure(folder, "language", {"words": [1.0] * 39})
    with pytest.raises(BadInput) as caught:
        compared(measured)
    assert caught.value.message == (
        f"{folder}/language.items.jsonl: words: a difference is paired over the same items, and these differ;"
        " measure both again"
    )


def test_a_bad_item_is_named(measured: Path) -> None:
    path = measured / "metrics/merged/language.items.jsonl"
    with path.open("a", encoding="utf-8") as file:
        file.write('{"id": "a", "group": "g", "figure": "words", "values": [null], "text": ""}\n')
    with pytest.raises(BadInput) as caught:
        compared(measured)
    assert caught.value.message == (f"{path}:81: values.0: input should be a valid number, got null; mend the row")


def test_an_estimate_without_interval_is_named(measured: Path) -> None:
    path = measured / "metrics/base/language.json"
    figures = json.loads(path.read_text(encoding="utf-8"))
    del figures["figures"]["words"]["low"]
    path.write_text(json.dumps(figures), encoding="utf-8")
    with pytest.raises(BadInput) as caught:
        compared(measured)
    assert caught.value.message == f"{path}: words: low: missing; add it"


def test_headlines_are_figures() -> None:
    known = {figure for suite in FIGURES.values() for figure in suite}
    assert set(report.HEADLINE) <= known
    assert len(report.HEADLINE) + 4 + 2 <= 14  # with right_language for four models and its gain: a dozen, that fit


def estimate(value: float, low: float, high: float, kind: str = "mean", groups: int = 6) -> Estimate:
    return Estimate(value=value, low=low, high=high, n=9, groups=groups, kind=kind, signature="")


@pytest.mark.parametrize(
    ("found", "bold"),
    [
        (estimate(0.5, 0.1, 0.9), True),
        (estimate(-0.5, -0.9, -0.1), True),
        (estimate(0.5, -0.1, 0.9), False),
        (estimate(0.5, 0.0, 0.9), False),
        (estimate(0.0, 0.0, 0.0), False),
        (estimate(0.5, 0.1, 0.9, groups=5), False),
    ],
)
def test_bold_is_what_excludes_zero_and_rests_on_enough(found: Estimate, bold: bool) -> None:
    assert report._signed(found).startswith("**") == bold
