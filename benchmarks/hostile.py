"""How often an answer that tries to sway a judge succeeds, for each judge of params.yaml.

    python -m benchmarks.hostile

Run it from the project's top folder with PYTHONPATH=src, after `dvc repro` of the judges' models. For each question,
benchmarks/hostile.jsonl has a good answer, a bad one (`plain`), and a bad one that speaks to the judge (`hostile`):
instructions, scores, role markers, control tokens, nothing at all, padding, praise of itself. `over good` is how often
the judge prefers it to the good answer; `plain over good`, its control, how often it prefers the plain bad one; `over
plain` how often what was added raises the score. Ties count half.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import click

from mothertongue import judging, params
from mothertongue.judging.agreement import estimate_share
from mothertongue.measurements import Estimate
from mothertongue.records import Answer, Message, Thread, row_id
from mothertongue.sampling import Model
from mothertongue.store import Store

KINDS = ("good", "plain", "hostile")
ROWS = Path(__file__).with_name("hostile.jsonl")
Scores = Mapping[str, float | None]  # by kind


def read_rows() -> list[dict[str, str]]:
    """Question, answers, language and technique of each row."""
    return [json.loads(line) for line in ROWS.read_text(encoding="utf-8").splitlines()]


def build_threads(rows: Sequence[Mapping[str, str]]) -> tuple[list[Thread], list[Answer]]:
    """The rows as threads with three answers each, whose ids are <thread>-<kind>."""
    threads, answers = [], []
    for row in rows:
        identity = row_id(row["language"], row["question"])
        prompt = [Message(role="user", content=row["question"])]
        threads.append(
            Thread(id=identity, conversation=identity, language=row["language"], group=identity, split="test",
                   prompt=prompt, reference=None)
        )  # fmt: skip
        answers += [
            Answer(id=f"{identity}-{kind}", thread=identity, generator=kind, index=0, text=row[kind], tokens=0,
                   finish="stop")
            for kind in KINDS
        ]  # fmt: skip
    return threads, answers


def measure(scores: Mapping[str, Scores]) -> dict[str, Estimate]:
    """The three shares over threads (by id) in which both answers have a score."""
    found = {}
    for name, one, other in (
        ("over good", "hostile", "good"),
        ("plain over good", "plain", "good"),
        ("over plain", "hostile", "plain"),
    ):
        rows = []
        for thread, of in sorted(scores.items()):
            ours, theirs = of[one], of[other]
            if ours is not None and theirs is not None:
                rows.append((thread, 0.5 if ours == theirs else float(ours > theirs)))
        if rows:
            found[name] = estimate_share(rows, "")
    return found


def describe(found: Mapping[str, Estimate]) -> str:
    """The three shares as cells of a table."""
    cells = []
    for name in ("over good", "plain over good", "over plain"):
        row = found.get(name)
        cells.append(f"{row.value:.3f} [{row.low:.3f}, {row.high:.3f}]" if row else "–")
    return " | ".join(cells)


@click.command(help=__doc__)
def main() -> None:
    """See the module."""
    rows = read_rows()
    threads, answers = build_threads(rows)
    techniques = {row_id(row["language"], row["question"]): row["technique"] for row in rows}
    print("| judge | technique | questions | over good | plain over good | over plain |")
    print("|---|---|--:|---|---|---|")
    for name, entry in params.load().scored.items():
        model = Model(Path("models", entry.model), entry.engine, Store())
        verdicts = {row.answer: row.score for row in judging.judge_answers(threads, answers, name, entry, model)}
        scores: dict[str, Scores] = {
            thread.id: {kind: verdicts.get(f"{thread.id}-{kind}") for kind in KINDS} for thread in threads
        }
        for technique in ("all", *dict.fromkeys(techniques.values())):
            part = {key: row for key, row in scores.items() if technique in ("all", techniques[key])}
            print(f"| {name} | {technique} | {len(part)} | {describe(measure(part))} |")


if __name__ == "__main__":
    main()
