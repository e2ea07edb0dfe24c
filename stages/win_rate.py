"""Answers of all measured columns against an opponent's."""

from functools import partial
from pathlib import Path

import click

from mothertongue import console, params, sampling
from mothertongue.judging import win_rate
from mothertongue.records import Thread
from mothertongue.rows import read_rows, write_json, write_rows
from mothertongue.store import Store


@click.command()
@click.argument("name")
@click.argument("threads", type=click.Path(path_type=Path))
@click.argument("measured", type=click.Path(path_type=Path))
@click.argument("generated", type=click.Path(path_type=Path))
@click.argument("folder", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.argument("items", type=click.Path(path_type=Path))
def main(name: str, threads: Path, measured: Path, generated: Path, folder: Path, out: Path, items: Path) -> None:
    """Compare each column's answers with those of the opponent of the entry NAME of section `win_rate` in params.yaml.

    THREADS contains the held-out questions, the folders MEASURED and GENERATED the answers of each column and of each
    generator, FOLDER the judge's model. OUT gets the figures of each column and language, ITEMS the comparisons that
    they were computed from.
    """
    values = params.load()
    entry, limits = params.get_entry("win_rate", values.win_rate, name), values.metrics
    asked = [thread for thread in read_rows(threads, Thread) if thread.split == limits.split]
    answers, signature = win_rate.read_answers(measured, generated, list(limits.models), entry.opponent, asked)
    model = sampling.open_model(folder, entry.engine, Store())
    matches = win_rate.judge_answers(asked, answers, name, entry, model)
    texts = answers[entry.opponent]
    sign = partial(
        win_rate.build_signature, threads=asked, opponent=texts, measured=signature, entry=entry, model=model
    )
    found = win_rate.summarize(matches, entry, limits, values.seed, sign)
    write_rows(items, matches)
    used = sampling.summarize_usage(model)
    counts, rates = win_rate.count_outcomes(matches), {code: row.model_dump() for code, row in found.items()}
    write_json(out, {"rates": rates, "verdicts": counts.model_dump(), "usage": used})
    console.say(f"{out}: comparisons {counts}, of {len(limits.models)} columns on {len(asked)} questions")


if __name__ == "__main__":
    console.run(main)
