"""Answers that try to sway a judge: what there is of them, and how their success is measured."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from conftest import PARAMS

from benchmarks import hostile
from mothertongue.verdicts import Verdict

TECHNIQUES = {"instruction", "score", "role", "control", "null", "padding", "praise", "template"}
ROWS = hostile.read_rows()


def test_each_technique_has_two_attempts_in_each_language() -> None:
    assert len(ROWS) >= 40
    assert Counter((row["language"], row["technique"]) for row in ROWS) == {
        (language, technique): 2 for language in hostile.LANGUAGES for technique in TECHNIQUES
    }
    assert len({row["question"] for row in ROWS}) == len(ROWS)
    for row in ROWS:
        assert len({row["good"], row["plain"], row["hostile"]}) == 3
        assert row["technique"] == "null" or row["hostile"].startswith(row["plain"])
        assert row["filler"].startswith(row["plain"])
        assert len(row["filler"].split()) == max(len(row[side].split()) for side in ("plain", "hostile"))
    assert ROWS[0]["filler"].removeprefix(ROWS[0]["plain"]).strip() in f"{ROWS[1]['good']} {ROWS[1]['good']}"
    assert set(Counter(hostile.name_groups(ROWS)).values()) == {len(hostile.LANGUAGES)}


def test_each_two_answers_are_a_thread() -> None:
    threads, answers = hostile.build_threads(ROWS)
    assert len(threads) == 4 * len(ROWS)
    assert Counter(answer.thread for answer in answers) == {thread.id: 2 for thread in threads}
    assert {answer.generator for answer in answers} == {"good", "plain", "filler", "hostile"}
    by_id = {answer.id: answer.text for answer in answers}
    assert by_id["0 plain over good plain"] == ROWS[0]["plain"]


def scores(kind: str) -> dict[str, float | None]:
    """Of a judge that gives every answer of a kind 1 and others 0; it cannot read null answers."""
    threads, answers = hostile.build_threads(ROWS)
    groups = {thread.id: thread.group for thread in threads}
    return {
        answer.id: None if groups[answer.thread].startswith("null") else float(answer.generator == kind)
        for answer in answers
    }


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("hostile", ("1.000", "0.500", "0.500", "+0.500", "1.000")),
     ("good", ("0.000", "0.000", "0.000", "+0.000", "0.500")),
     ("filler", ("0.500", "0.500", "1.000", "-0.500", "0.000"))],
)  # fmt: skip
def test_success_is_measured_beside_its_control(kind: str, expected: tuple[str, ...]) -> None:
    threads, _ = hostile.build_threads(ROWS)
    cells = hostile.describe(threads, scores(kind)).split(" | ")
    assert tuple(cell.split()[0] for cell in cells[:5]) == expected
    assert all(cell.endswith(" (42)") for cell in cells[:5])
    assert cells[5] == "24"  # four comparisons of six questions
    low = float(cells[0].split("[")[1].split(",")[0])
    assert low == pytest.approx({"hostile": 0.785, "good": 0, "filler": 0.268}[kind], abs=0.001)  # of 14 groups


def test_a_technique_has_its_own_questions() -> None:
    threads, _ = hostile.build_threads(ROWS)
    assert hostile.format_share(hostile.compare(threads, scores("hostile"), "over filler", "null")) == "–"
    rows = hostile.compare(threads, scores("hostile"), "over filler", "praise")
    assert (len(rows), {row.group for row in rows}) == (6, {"praise 1", "praise 2"})
    assert hostile.format_share(rows).startswith("1.000 [0.342, 1.000] (6)")  # Wilson's interval of 2 of 2


def test_the_gain_is_paired_by_question() -> None:
    """Of a judge that has no verdict on one answer with filler, the question is in neither side of the gain."""
    threads, answers = hostile.build_threads(ROWS)
    found: dict[str, float | None] = {answer.id: float(answer.generator == "good") for answer in answers}
    found["0 over good hostile"] = 2.0
    cells = hostile.describe(threads, found).split(" | ")
    assert [cell.split()[0] for cell in cells[:4]] == ["0.021", "0.000", "0.000", "+0.021"]
    found["0 filler over good filler"] = None
    cells = hostile.describe(threads, found).split(" | ")
    assert [cell.split()[0] for cell in cells[:4]] == ["0.021", "0.000", "0.000", "+0.000"]
    assert (cells[3].endswith(" (47)"), cells[5]) == (True, "1")


@pytest.mark.parametrize(
    "changed", ["kind: rubric, model: base, engine: transformers, min_label_mass: 0.0", "kind: reward, model: base"]
)
def test_a_judge_of_the_project_is_asked(workplace: Path, monkeypatch: pytest.MonkeyPatch, changed: str) -> None:
    second = "second: {kind: rubric, model: base, engine: transformers, min_label_mass: 0.0}"
    assert second in PARAMS
    Path("params.yaml").write_text(PARAMS.replace(second, f"second: {{{changed}}}"), encoding="utf-8")

    def judge(threads: Any, answers: Any, name: str, *_: Any) -> list[Verdict]:
        assert (len(threads), name) == (4 * len(ROWS), "second")
        return [
            Verdict(id=row.id, thread=row.thread, answer=row.id, judge=name, outcome="score", score=1.0, label_mass=1.0)
            for row in answers
        ]

    monkeypatch.setattr(hostile.judging, "open_model", lambda *_: None)
    monkeypatch.setattr(hostile.judging, "judge_answers", judge)
    monkeypatch.setenv("MOTHERTONGUE_STORE", str(workplace / "store"))
    result = CliRunner().invoke(hostile.main, ["second"])
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    assert lines[0] == "| judge | over good | plain over good | filler over good | gain | over filler | unparsed |"
    assert lines[2].startswith("| second | 0.500 [0.280, 0.720] (48) | 0.500 [0.280, 0.720] (48) |")
    assert [line.split(" | ")[0] for line in lines[2:5]] == ["| second", "| random", "| longer"]
    assert lines[7] == "| over filler | second | random | longer | question |"
    assert len(lines) == 9 + len(TECHNIQUES)
