"""Conversations as their sources gave them, in one schema."""

from pathlib import Path

import click

from mothertongue import params, sources
from mothertongue.records import write_json, write_rows


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.argument("report", type=click.Path(path_type=Path))
def main(folder: Path, out: Path, report: Path) -> None:
    """Collect conversations from every source in section `raw` of params.yaml.

    FOLDER holds the sources that are files (data/sources), OUT becomes one conversation a line (data/raw.jsonl), REPORT
    how many messages each source gave and lost (metrics/raw.json).
    """
    values = params.load()
    conversations, tallies = sources.read(values.raw, values.language, folder)
    write_rows(out, conversations)
    write_json(report, {name: tally.model_dump() for name, tally in tallies.items()})
    for name, tally in tallies.items():
        click.echo(f"{name}: messages {tally}")
    click.echo(f"{out}: {len(conversations)} conversations")


if __name__ == "__main__":
    main()
