"""Sheets on which people choose between answers, so that judges can be compared with them. No stage of the chain."""

from pathlib import Path

import click

from mothertongue import console, params, sheets
from mothertongue.annotations import AnnotatedItem
from mothertongue.records import Answer, Thread
from mothertongue.rows import read_folder, read_rows, write_rows


@click.group()
def main() -> None:
    """Write a blinded sheet on which people choose between answers, and read it back into data/human."""


@main.command()
@click.argument("threads", type=click.Path(path_type=Path))
@click.argument("generated", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--items", default=50, show_default=True, type=click.IntRange(1))
def sheet(threads: Path, generated: Path, out: Path, items: int) -> None:
    """Write OUT.html, for a browser, and OUT.tsv, for a spreadsheet: two answers of each thread, without their origin.

    THREADS contains the threads, the folder GENERATED an <generator>.jsonl each. Split test is left out. OUT.key.jsonl
    is for `read`: it has the origins, so it is not for who fills the sheet.
    """
    values, asked = params.load(), read_rows(threads, Thread)
    drawn = sheets.draw_items(asked, read_folder(generated, values.generated, Answer), items, values.seed)
    sheets.write_sheet(out, drawn)
    experts = sum("reference" in (item.origins or ()) for item in drawn)
    console.say(f"{out}.html and {out}.tsv: {experts} items with an expert's answer, {len(drawn) - experts} without")


@main.command()
@click.argument("key", type=click.Path(path_type=Path))
@click.argument("table", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--annotator", required=True, help="A name or a sign; the same person has one name in all files.")
def read(key: Path, table: Path, out: Path, annotator: str) -> None:
    """Write OUT, a file of data/human, from a sheet's KEY and the TABLE (TSV) that a person saved."""
    sheets.refuse_existing(out)
    asked = read_rows(key, AnnotatedItem)
    rows = sheets.read_choices(table, asked, annotator)
    write_rows(out, rows)
    console.say(f"{out}: {len(rows)} of {len(asked)} items; `git add` it, so that experiments have it as well")


if __name__ == "__main__":
    console.run(main)
