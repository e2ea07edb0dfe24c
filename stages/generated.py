"""Answers from one generator to every thread."""

from pathlib import Path

import click

from mothertongue import answers, models, params, sampling
from mothertongue.records import Thread, read_rows, write_rows
from mothertongue.store import Store


@click.command()
@click.argument("name")
@click.argument("threads", type=click.Path(path_type=Path))
@click.argument("base", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
def main(name: str, threads: Path, base: Path, out: Path) -> None:
    """Let the generator NAME of section `generated` in params.yaml answer every thread in THREADS.

    BASE is the folder of the model to adapt, which a generator may be. OUT gets one answer a line. What the model said
    before is taken from the sample store. Runs vLLM, or transformers where vLLM is not installed.
    """
    values, asked = params.load(), read_rows(threads, Thread)
    section = params.named("generated", values.generated, name)
    folder = base if section.model == "base" else models.located(section.model)
    model = sampling.Model(folder, sampling.preferred(), values.base.dtype, Store())
    rows = answers.generated(asked, name, section, values.language, values.seed, model)
    write_rows(out, rows)
    click.echo(f"{out}: {len(rows)} answers of {sum(row.tokens for row in rows)} tokens in all")


if __name__ == "__main__":
    main()
