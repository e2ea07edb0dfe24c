"""All figures side by side."""

from pathlib import Path

import click

from mothertongue import history, params, report
from mothertongue.files import new_file
from mothertongue.records import Thread, read_rows, write_json


@click.command()
@click.argument("threads", type=click.Path(path_type=Path))
@click.argument("measured", type=click.Path(path_type=Path))
@click.argument("scored", type=click.Path(path_type=Path))
@click.argument("seeds", type=click.Path(path_type=Path))
@click.argument("experiments", type=click.Path(path_type=Path))
@click.argument("summary", type=click.Path(path_type=Path))
@click.argument("table", type=click.Path(path_type=Path))
def main(
    threads: Path, measured: Path, scored: Path, seeds: Path, experiments: Path, summary: Path, table: Path
) -> None:
    """Compare the measured models in the folder MEASURED with the baselines, over the same items.

    THREADS holds the held-out questions and the experts' answers, the folder SCORED an <judge>.json each on what it is
    worth; SEEDS and EXPERIMENTS what was tried before. SUMMARY gets the headline numbers for `dvc exp show`, TABLE all
    of them in Markdown, and some questions with their answers.
    """
    values, asked = params.load(), read_rows(threads, Thread)
    found, said = report.compare(measured, asked, values.metrics, values.language, values.seed)
    write_json(summary, report.summary(found))
    judges = {name: report.read_worth(scored / f"{name}.json") for name in values.scored}
    now = {name: {figure: each.value for figure, each in figures.items()} for name, figures in found.values.items()}
    tried, seed = history.read(seeds, history.Seeds), values.adapter.seed
    looked = history.read(experiments, history.Experiments)
    notes = history.notes(tried, looked, seed, now, values.metrics.split)
    spread = history.spread(tried, seed, now, found.subject)
    page = f"{report.page(found, said, asked, values.metrics, notes, spread)}\n{report.worth(judges)}"
    with new_file(table) as file:
        file.write(page.encode())
    click.echo(page)


if __name__ == "__main__":
    main()
