"""All figures side by side."""

from pathlib import Path

import click

from mothertongue import params, report
from mothertongue.files import new_file
from mothertongue.records import Thread, read_rows, write_json


@click.command()
@click.argument("threads", type=click.Path(path_type=Path))
@click.argument("metrics", type=click.Path(path_type=Path))
@click.argument("models", type=click.Path(path_type=Path))
@click.argument("summary", type=click.Path(path_type=Path))
@click.argument("table", type=click.Path(path_type=Path))
def main(threads: Path, metrics: Path, models: Path, summary: Path, table: Path) -> None:
    """Compare every model in the folder METRICS with the base over the same items.

    MODELS holds the model folders, for their sizes, THREADS the held-out questions. SUMMARY gets the headline numbers
    for `dvc exp show`, TABLE all of them in Markdown, and some questions with their answers.
    """
    values = params.load()
    found = report.compare(metrics, models, values.quantized, values.seed)
    write_json(summary, report.summary(found))
    page = f"{report.table(found)}\n{report.samples(read_rows(threads, Thread), metrics)}"
    with new_file(table) as file:
        file.write(page.encode())
    click.echo(page)


if __name__ == "__main__":
    main()
