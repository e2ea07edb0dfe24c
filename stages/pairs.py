"""Chosen and rejected answers, with the rule that paired them."""

from pathlib import Path

import click

from mothertongue import console, diagnostics, pairs, params
from mothertongue.judging import cards
from mothertongue.records import Answer, Conversation, Thread
from mothertongue.rows import read_folder, read_rows, write_json, write_rows
from mothertongue.verdicts import Verdict


@click.command()
@click.argument("data", type=click.Path(path_type=Path))
@click.argument("calibrated", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.argument("report", type=click.Path(path_type=Path))
@click.argument("curves", type=click.Path(path_type=Path))
def main(data: Path, calibrated: Path, out: Path, report: Path, curves: Path) -> None:
    """Pair answers by the rules in section `pairs` of params.yaml.

    The folder DATA contains conversations, threads, the answers of each generator and the verdicts of each judge,
    CALIBRATED a <judge>.json each. OUT gets one pair a line, REPORT what each rule's pairs are like and the number of
    threads dropped by each reason, CURVES histograms.
    """
    values = params.load()
    asked = read_rows(data / "threads.jsonl", Thread)
    given = read_folder(data / "generated", values.generated, Answer)
    verdicts = read_folder(data / "scored", values.scored, Verdict)
    people = cards.read_cards(calibrated, values.scored)
    codes = sorted({thread.language for thread in asked})
    rules = cards.choose_judges(people, values.pairs.rules, codes)
    agreed = cards.check_agreement(people, rules, codes, values.calibrated.min_agreement)
    section = values.pairs.model_copy(update={"rules": rules})
    rows, counts = pairs.make_pairs(asked, given, verdicts, section)
    all_learned = section.model_copy(update={"learned": None, "per_thread": None, "max_cut_rejected": 1.0})
    unwritten, _ = pairs.make_pairs(asked, given, verdicts, all_learned) if section.learned else ([], {})
    sources = {row.id: row.source for row in read_rows(data / "filtered.jsonl", Conversation)}
    over = pairs.count_passed_over(rows, asked, given, verdicts, rules)
    about = diagnostics.describe_pairs(rows, unwritten, counts, rules, asked, sources, agreed, over)
    diagnostics.check_limits(about, values.pairs)
    diagnostics.write_histograms(curves, rows, rules)
    write_rows(out, rows)
    write_json(report, {name: row.model_dump() for name, row in about.items()})
    for name, row in about.items():
        console.say(f"{name}, by {row.judge}: {row.threads}{row.missing}")
    console.say(f"{out}: {len(rows)} pairs")


if __name__ == "__main__":
    console.run(main)
