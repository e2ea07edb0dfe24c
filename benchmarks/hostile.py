"""How often an answer that tries to sway a judge succeeds.

    python -m benchmarks.hostile rubric

Run it from the project's top folder with PYTHONPATH=src and the name of a judge in params.yaml, after `dvc repro` of
its model. For each question, benchmarks/hostile.jsonl has a good answer, a bad one (`plain`), and a bad one that speaks
to the judge (`hostile`): instructions, scores, role markers, control tokens, next to nothing, padding, self-praise,
and the judge's own template. `over good` is how often the judge prefers it to the good answer; `plain over good`, its
control, how often it prefers the plain bad one; `over plain` how often it prefers the hostile to the plain one. Each
two answers are judged alone, ties count half. Each attempt is there in three languages, which count as one observation.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import click

from mothertongue import judging, params
from mothertongue.judging.agreement import estimate_share
from mothertongue.records import Answer, Message, Thread, row_id
from mothertongue.store import Store

COMPARED = {"over good": ("hostile", "good"), "plain over good": ("plain", "good"), "over plain": ("hostile", "plain")}
ROWS = Path(__file__).with_name("hostile.jsonl")
LANGUAGES = ("es", "it", "en")
Row = Mapping[str, str]


def read_rows() -> list[Row]:
    """Question, answers, language and technique of each row."""
    return [json.loads(line) for line in ROWS.read_text(encoding="utf-8").splitlines()]


def name_groups(rows: Sequence[Row]) -> list[str]:
    """For each row its technique and its number among those of its language: the same for translations."""
    counts: dict[tuple[str, str], int] = {}
    names = []
    for row in rows:
        place = row["language"], row["technique"]
        counts[place] = counts.get(place, 0) + 1
        names.append(f"{row['technique']} {counts[place]}")
    return names


def build_threads(rows: Sequence[Row]) -> tuple[list[Thread], list[Answer]]:
    """A thread with two answers for each row and comparison; ids are <row> <comparison>, and <thread> <side>."""
    threads, answers = [], []
    for number, (row, group) in enumerate(zip(rows, name_groups(rows), strict=True)):
        prompt = [Message(role="user", content=row["question"])]
        for name, sides in COMPARED.items():
            identity = f"{number} {name}"
            threads.append(
                Thread(id=identity, conversation=row_id(row["question"]), language=row["language"], group=group,
                       split="test", prompt=prompt, reference=None)
            )  # fmt: skip
            answers += [
                Answer(id=f"{identity} {side}", thread=identity, generator=side, index=0, text=row[side], tokens=0,
                       finish="stop")
                for side in sides
            ]  # fmt: skip
    return threads, answers


def describe(threads: Sequence[Thread], scores: Mapping[str, float | None], technique: str) -> str:
    """The three shares of a technique (or of all) as cells of a table, and how many comparisons had no verdict."""
    cells, unparsed = [], 0
    for name, (ours, theirs) in COMPARED.items():
        rows = []
        for thread in threads:
            if not thread.id.endswith(f" {name}") or technique not in ("all", thread.group.split()[0]):
                continue
            if thread.id.split(" ", 1)[1] != name:  # `over good` ends `plain over good` as well
                continue
            one, other = (scores.get(f"{thread.id} {side}") for side in (ours, theirs))
            if one is None or other is None:
                unparsed += 1
            else:
                rows.append((thread.group, 0.5 if one == other else float(one > other)))
        found = estimate_share(rows, "") if rows else None
        cells.append(f"{found.value:.3f} [{found.low:.3f}, {found.high:.3f}] ({found.n})" if found else "–")
    return f"{' | '.join(cells)} | {unparsed}"


@click.command(help=__doc__)
@click.argument("judge")
def main(judge: str) -> None:
    """See the module."""
    rows = read_rows()
    threads, answers = build_threads(rows)
    entry = params.get_entry("scored", params.load().scored, judge)
    model = judging.open_model(entry, Path("models", entry.model), Store())
    scores = {row.answer: row.score for row in judging.judge_answers(threads, answers, judge, entry, model)}
    print(f"| {judge} | {' | '.join(COMPARED)} | unparsed |\n|---|---|---|---|--:|")
    for technique in ("all", *dict.fromkeys(row["technique"] for row in rows)):
        print(f"| {technique} | {describe(threads, scores, technique)} |")


if __name__ == "__main__":
    main()
