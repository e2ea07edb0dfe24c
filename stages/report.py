"""All figures side by side."""

from pathlib import Path

import click

from mothertongue import params, report
from mothertongue.files import new_file
from mothertongue.records import Thread, read_rows, write_json


@click.command()
@click.argument("threads", type=click.Path(path_type=Path))
@click.argument("measured", type=click.Path(path_type=Path))
@click.argument("scored", type=click.Path(path_type=Path))
@click.argument("summary", type=click.Path(path_type=Path))
@click.argument("table", type=click.Path(path_type=Path))
def main(threads: Path, measured: Path, scored: Path, summary: Path, table: Path) -> None:
    """Compare the measured models in the folder MEASURED with the baselines, over the same items.

    THREADS holds the held-out questions and the experts' answers, the folder SCORED an <judge>.json each on what it is
    worth. SUMMARY gets the headline numbers for `dvc exp show`, TABLE all of them in Markdown, and some questions with
    their answers.
    """
    values, asked = params.load(), read_rows(threads, Thread)
    found, said = report.compare(measured, asked, values.metrics, values.language, values.seed)
    write_json(summary, report.summary(found))
    judges = {name: report.read_worth(scored / f"{name}.json") for name in values.scored}
    page = f"{report.page(found, said, asked, values.metrics)}\n{report.worth(judges)}"
    with new_file(table) as file:
        file.write(page.encode())
    click.echo(page)


if __name__ == "__main__":
    main()
