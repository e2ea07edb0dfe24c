"""One row per assistant turn to learn."""

from collections import Counter
from pathlib import Path

import click

from mothertongue import params, threads
from mothertongue.errors import BadInput
from mothertongue.records import Conversation, read_rows, write_json, write_rows


@click.command()
@click.argument("filtered", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.argument("report", type=click.Path(path_type=Path))
def main(filtered: Path, out: Path, report: Path) -> None:
    """Cut the conversations in FILTERED into threads: the turns before an answer, and the expert's answer.

    OUT gets one thread a line with its split, drawn by section `threads` of params.yaml; REPORT counts what fell.
    """
    section = params.load().threads
    rows, tally = threads.cut(read_rows(filtered, Conversation), section)
    splits = dict(sorted(Counter(row.split for row in rows).items()))
    for split in ("train", "validation", "test"):
        if split not in splits and (split != "validation" or section.validation):
            raise BadInput(f"{filtered}: no thread of split {split} ({tally}); add conversations or loosen filtered")
    write_rows(out, rows)
    write_json(report, {**tally.model_dump(), "splits": splits})
    click.echo(f"{out}: answers {tally}; " + ", ".join(f"{split} {count}" for split, count in splits.items()))


if __name__ == "__main__":
    main()
