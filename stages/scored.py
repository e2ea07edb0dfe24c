"""Verdicts of one judge on every answer."""

from functools import partial
from pathlib import Path

import click

from mothertongue import console, judging, params, sampling
from mothertongue.judging import accuracy
from mothertongue.records import Answer, Thread, reference_answer
from mothertongue.rows import read_folder, read_rows, write_json, write_rows
from mothertongue.store import Store


@click.command()
@click.argument("name")
@click.argument("threads", type=click.Path(path_type=Path))
@click.argument("generated", type=click.Path(path_type=Path))
@click.argument("folder", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.argument("report", type=click.Path(path_type=Path))
def main(name: str, threads: Path, generated: Path, folder: Path, out: Path, report: Path) -> None:
    """Judge every answer, and the experts' to the same threads, by the judge NAME of section `scored` in params.yaml.

    THREADS contains the threads, the folder GENERATED an <generator>.jsonl each, FOLDER the judge's model. OUT gets one
    verdict a line, REPORT the number without a score, how often the judge prefers the expert's answer, and its tokens.
    """
    values, asked = params.load(), read_rows(threads, Thread)
    given = read_folder(generated, values.generated, Answer)
    answered = {answer.thread for answer in given}
    given += [reference_answer(thread) for thread in asked if thread.id in answered and thread.reference is not None]
    entry = params.get_entry("scored", values.scored, name)
    model = judging.open_model(entry, folder, Store())
    verdicts = judging.judge_answers(asked, given, name, entry, model)
    counts = accuracy.count_outcomes(verdicts)
    sign = partial(accuracy.build_signature, name=name, params=entry, model=model)
    found = accuracy.summarize_accuracy(asked, given, verdicts, sign)
    write_rows(out, verdicts)
    compared = accuracy.count_comparisons(asked, verdicts)
    used = sampling.summarize_usage(model)
    write_json(report, {"verdicts": counts.model_dump(), "comparisons": compared, "usage": used, **found})
    console.say(f"{out}: scores {counts}")


if __name__ == "__main__":
    console.run(main)
