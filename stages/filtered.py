"""Conversations worth learning from."""

from collections import Counter
from pathlib import Path

import click

from mothertongue import console, filters, params
from mothertongue.records import Conversation
from mothertongue.rows import read_rows, write_json, write_rows


@click.command()
@click.argument("raw", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.argument("report", type=click.Path(path_type=Path))
def main(raw: Path, out: Path, report: Path) -> None:
    """Keep the conversations in RAW that pass section `filtered` of params.yaml.

    RAW and OUT have one conversation a line; REPORT gets the number dropped by each filter (metrics/filtered.json).
    """
    rows, counts = filters.filter_conversations(read_rows(raw, Conversation), params.load().filtered)
    write_rows(out, rows)
    by_language = Counter(row.language for row in rows)
    write_json(report, {**counts.model_dump(), "languages": dict(sorted(by_language.items()))})
    console.say(f"{out}: conversations {counts}")


if __name__ == "__main__":
    console.run(main)
