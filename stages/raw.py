"""Conversations as their sources gave them, in one schema."""

from pathlib import Path

import click

from mothertongue import console, params, sources
from mothertongue.rows import write_json, write_rows


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.argument("report", type=click.Path(path_type=Path))
def main(folder: Path, out: Path, report: Path) -> None:
    """Collect conversations in `languages` from every source in section `raw` of params.yaml.

    FOLDER contains the sources that are files (data/sources). OUT gets one conversation a line (data/raw.jsonl), REPORT
    the number of messages kept and dropped by source (metrics/raw.json).
    """
    values = params.load()
    conversations, counts = sources.read_sources(values.raw, values.languages, folder)
    write_rows(out, conversations)
    write_json(report, {name: counted.model_dump() for name, counted in counts.items()})
    for name, counted in counts.items():
        console.say(f"{name}: messages {counted}")
    console.say(f"{out}: {len(conversations)} conversations")


if __name__ == "__main__":
    console.run(main)
