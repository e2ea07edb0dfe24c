"""Conversations worth learning from."""

from pathlib import Path

import click

from mothertongue import filters, params
from mothertongue.records import Conversation, read_rows, write_json, write_rows


@click.command()
@click.argument("raw", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.argument("report", type=click.Path(path_type=Path))
def main(raw: Path, out: Path, report: Path) -> None:
    """Keep the conversations in RAW that pass section `filtered` of params.yaml.

    RAW and OUT hold one conversation a line; REPORT counts what fell by which reason (metrics/filtered.json).
    """
    values = params.load()
    rows, tally = filters.kept(read_rows(raw, Conversation), values.filtered, values.language)
    write_rows(out, rows)
    write_json(report, tally.model_dump())
    click.echo(f"{out}: conversations {tally}")


if __name__ == "__main__":
    main()
