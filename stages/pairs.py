"""Chosen and rejected answers, with the rule that paired them."""

from pathlib import Path

import click

from mothertongue import console, diagnostics, pairs, params
from mothertongue.judging import cards
from mothertongue.records import Answer, Thread
from mothertongue.rows import read_folder, read_rows, write_json, write_rows
from mothertongue.verdicts import Verdict


@click.command()
@click.argument("threads", type=click.Path(path_type=Path))
@click.argument("generated", type=click.Path(path_type=Path))
@click.argument("scored", type=click.Path(path_type=Path))
@click.argument("calibrated", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.argument("report", type=click.Path(path_type=Path))
@click.argument("curves", type=click.Path(path_type=Path))
def main(threads: Path, generated: Path, scored: Path, calibrated: Path, out: Path, report: Path, curves: Path) -> None:
    """Pair answers by the rules in section `pairs` of params.yaml.

    THREADS contains the threads, GENERATED an <generator>.jsonl each, SCORED a <judge>.jsonl each, CALIBRATED its
    <judge>.json. OUT gets one pair a line, REPORT what each rule's pairs are like and the number of threads dropped by
    each reason, CURVES histograms.
    """
    values = params.load()
    asked = read_rows(threads, Thread)
    given = read_folder(generated, values.generated, Answer)
    verdicts = read_folder(scored, values.scored, Verdict)
    people = cards.read_cards(calibrated, values.scored)
    codes = sorted({thread.language for thread in asked})
    agreed = cards.check_agreement(people, values.pairs.rules, codes, values.calibrated.min_agreement)
    rows, counts = pairs.make_pairs(asked, given, verdicts, values.pairs)
    about = diagnostics.describe_pairs(rows, counts, values.pairs.rules, asked, agreed)
    diagnostics.check_limits(about, values.pairs)
    diagnostics.write_histograms(curves, rows, values.pairs.rules)
    write_rows(out, rows)
    write_json(report, {name: row.model_dump() for name, row in about.items()})
    for name, counted in counts.items():
        console.say(f"{name}: {counted}{cards.describe_missing(agreed[name])}")
    console.say(f"{out}: {len(rows)} pairs")


if __name__ == "__main__":
    console.run(main)
