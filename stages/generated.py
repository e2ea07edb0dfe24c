"""Answers of one generator to the threads."""

from pathlib import Path

import click

from mothertongue import answers, console, params, sampling
from mothertongue.records import Thread
from mothertongue.rows import read_rows, write_json, write_rows
from mothertongue.store import Store


@click.command()
@click.argument("name")
@click.argument("threads", type=click.Path(path_type=Path))
@click.argument("folder", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.argument("report", type=click.Path(path_type=Path))
def main(name: str, threads: Path, folder: Path, out: Path, report: Path) -> None:
    """Generate answers to threads in THREADS by the generator NAME of section `generated` in params.yaml.

    FOLDER contains its model. OUT gets one answer a line, REPORT the tokens and what they cost. Results that
    are in the sample store are not computed again.
    """
    values, asked = params.load(), read_rows(threads, Thread)
    entry = params.get_entry("generated", values.generated, name)
    model = sampling.open_model(folder, entry.engine, Store())
    rows, counts = answers.generate_answers(asked, name, entry, values.seed, model)
    write_rows(out, rows)
    write_json(report, {"answers": counts.model_dump(), "usage": sampling.summarize_usage(model)})
    console.say(f"{out}: answers {counts}, {sum(row.tokens for row in rows)} tokens in all")


if __name__ == "__main__":
    console.run(main)
