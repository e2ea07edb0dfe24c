"""Verdicts of one judge on every answer."""

from pathlib import Path

import click

from mothertongue import judging, models, params, sampling
from mothertongue.records import Answer, Thread, read_rows, reference_answer, write_json, write_rows
from mothertongue.store import Store


@click.command()
@click.argument("name")
@click.argument("threads", type=click.Path(path_type=Path))
@click.argument("generated", type=click.Path(path_type=Path))
@click.argument("base", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.argument("report", type=click.Path(path_type=Path))
def main(name: str, threads: Path, generated: Path, base: Path, out: Path, report: Path) -> None:
    """Let the judge NAME of section `scored` in params.yaml judge every answer, and the experts' answers.

    THREADS holds the threads, the folder GENERATED an <generator>.jsonl each, BASE the model to adapt, which a judge
    may be. OUT gets one verdict a line, REPORT counts those without a score and says what the scores are worth.
    """
    values = params.load()
    asked = read_rows(threads, Thread)
    said = [row for each in values.generated for row in read_rows(generated / f"{each}.jsonl", Answer)]
    said += map(reference_answer, asked)
    section = params.named("scored", values.scored, name)
    folder = base if section.model == "base" else models.located(section.model)
    model = sampling.Model(folder, sampling.preferred(), values.base.dtype, Store())
    verdicts = judging.by_rubric(asked, said, name, section, values.language, model)
    tally, signature = judging.tally(verdicts), judging.signature(name, section, values.language, model)
    found = judging.worth(asked, said, verdicts, values.language, signature)
    write_rows(out, verdicts)
    write_json(report, {"verdicts": tally.model_dump(), "worth": {g: row.model_dump() for g, row in found.items()}})
    click.echo(f"{out}: scores {tally}")


if __name__ == "__main__":
    main()
