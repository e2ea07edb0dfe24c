"""Chosen and rejected answers, with the rule that paired them."""

from pathlib import Path

import click

from mothertongue import pairs, params
from mothertongue.records import Answer, Thread, Verdict, read_rows, write_json, write_rows


@click.command()
@click.argument("threads", type=click.Path(path_type=Path))
@click.argument("generated", type=click.Path(path_type=Path))
@click.argument("scored", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.argument("report", type=click.Path(path_type=Path))
def main(threads: Path, generated: Path, scored: Path, out: Path, report: Path) -> None:
    """Pair answers by the rules in section `pairs` of params.yaml.

    THREADS holds the threads, GENERATED an <generator>.jsonl each, SCORED a <judge>.jsonl each. OUT gets one pair a
    line, REPORT counts by rule and reason, and rejected sides that were cut (metrics/pairs.json).
    """
    values = params.load()
    asked = read_rows(threads, Thread)
    said = [row for name in values.generated for row in read_rows(generated / f"{name}.jsonl", Answer)]
    verdicts = [row for name in values.scored for row in read_rows(scored / f"{name}.jsonl", Verdict)]
    rows, tallies = pairs.paired(asked, said, verdicts, values.pairs, values.language)
    write_rows(out, rows)
    write_json(report, {n: {**tally.model_dump(), "splits": pairs.shares(rows, n)} for n, tally in tallies.items()})
    for name, tally in tallies.items():
        click.echo(f"{name}: {tally}")
    click.echo(f"{out}: {len(rows)} pairs")


if __name__ == "__main__":
    main()
