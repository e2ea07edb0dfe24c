"""Sheets on which people choose between answers, so that judges can be compared with them. No stage of the chain."""

from pathlib import Path

import click

from mothertongue import console, params, sheets
from mothertongue.files import new_file
from mothertongue.records import Answer, Thread
from mothertongue.rows import read_rows, write_rows


@click.group()
def main() -> None:
    """Write a blinded sheet on which people choose between answers, and read it back into data/human.

    `sheet THREADS GENERATED OUT` writes the sheet as OUT.html and OUT.tsv. `read PAGE TABLE OUT` makes of the page and
    the table that a person saved a file of data/human.
    """


@main.command()
@click.argument("threads", type=click.Path(path_type=Path))
@click.argument("generated", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--items", default=50, show_default=True, type=click.IntRange(1))
def sheet(threads: Path, generated: Path, out: Path, items: int) -> None:
    """Write OUT.html, for a browser, and OUT.tsv, for a spreadsheet: two answers of each thread, without their origin.

    THREADS contains the threads, the folder GENERATED an <generator>.jsonl each. Split test is left out.
    """
    values = params.load()
    given = [row for name in values.generated for row in read_rows(generated / f"{name}.jsonl", Answer)]
    drawn = sheets.draw_items(read_rows(threads, Thread), given, items, values.seed)
    for suffix, text in (("html", sheets.render_html(drawn)), ("tsv", sheets.render_tsv(drawn))):
        with new_file(out.with_name(f"{out.name}.{suffix}")) as file:
            file.write(text.encode())
    console.say(f"{out}.html and {out}.tsv: {len(drawn)} items")


@main.command()
@click.argument("page", type=click.Path(path_type=Path))
@click.argument("table", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--annotator", required=True, help="A name or a sign; the same person has one name in all files.")
def read(page: Path, table: Path, out: Path, annotator: str) -> None:
    """Write OUT, a file of data/human, from a sheet's PAGE (HTML) and the TABLE (TSV) that a person saved."""
    asked = sheets.read_html(page)
    rows = sheets.read_choices(table, asked, annotator)
    write_rows(out, rows)
    console.say(f"{out}: {len(rows)} of {len(asked)} items")


if __name__ == "__main__":
    console.run(main)
