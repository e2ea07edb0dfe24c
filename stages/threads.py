"""One row per assistant turn to learn."""

from collections import Counter
from pathlib import Path

import click

from mothertongue import console, params, threads
from mothertongue.errors import BadInput
from mothertongue.records import Conversation
from mothertongue.rows import read_rows, write_json, write_rows


@click.command()
@click.argument("filtered", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.argument("report", type=click.Path(path_type=Path))
def main(filtered: Path, out: Path, report: Path) -> None:
    """Extract threads from the conversations in FILTERED: the turns before an answer, and the expert's answer.

    OUT gets one thread a line with its split, drawn by section `threads` of params.yaml; REPORT the number of answers
    dropped by each reason, and of threads by split and language (metrics/threads.json).
    """
    values = params.load()
    rows, counts = threads.extract_threads(read_rows(filtered, Conversation), values.threads)
    splits = {code: Counter(row.split for row in rows if row.language == code) for code in values.languages}
    for code, found in splits.items():
        for split in ("train", "validation", "test"):
            if not found[split] and (split != "validation" or values.threads.validation):
                what = f"no thread of split {split} in {code!r} ({counts})"
                raise BadInput(f"{filtered}: {what}; add conversations, or loosen section `filtered`")
    write_rows(out, rows)
    write_json(report, {**counts.model_dump(), "splits": {code: dict(sorted(n.items())) for code, n in splits.items()}})
    lines = (
        f"{code} " + ", ".join(f"{split} {n}" for split, n in sorted(found.items())) for code, found in splits.items()
    )
    console.say(f"{out}: answers {counts}; " + "; ".join(lines))


if __name__ == "__main__":
    console.run(main)
