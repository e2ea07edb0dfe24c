"""Conversations as their sources gave them, in one schema, and texts to pre-train on."""

from pathlib import Path

import click

from mothertongue import console, params, sources
from mothertongue.rows import write_json, write_rows


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.argument("texts", type=click.Path(path_type=Path))
@click.argument("report", type=click.Path(path_type=Path))
def main(folder: Path, out: Path, texts: Path, report: Path) -> None:
    """Collect conversations and texts in `languages` from every source in section `raw` of params.yaml.

    FOLDER contains the sources that are files (data/sources). OUT gets one conversation a line (data/raw.jsonl), TEXTS
    one text a line (data/texts.jsonl; none without raw.texts), REPORT the number of messages and texts kept and dropped
    by source (metrics/raw.json).
    """
    values = params.load()
    conversations, messages = sources.read_sources(values.raw, values.languages, folder)
    read, rows = sources.read_texts(values.raw, values.languages, folder)
    write_rows(out, conversations)
    write_rows(texts, read)
    write_json(report, {name: counted.model_dump() for name, counted in (messages | rows).items()})
    for name, counted in messages.items():
        console.say(f"{name}: messages {counted}")
    for name, counted in rows.items():
        console.say(f"{name}: {counted}")
    console.say(f"{out}: {len(conversations)} conversations; {texts}: {len(read)} texts")


if __name__ == "__main__":
    console.run(main)
