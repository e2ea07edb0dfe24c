"""All figures side by side."""

from pathlib import Path

import click

from mothertongue import comparison, console, diagnostics, history, params, report
from mothertongue.files import new_file
from mothertongue.judging import cards, win_table
from mothertongue.records import Thread
from mothertongue.rows import read_rows, write_json


@click.command()
@click.argument("threads", type=click.Path(path_type=Path))
@click.argument("measured", type=click.Path(path_type=Path))
@click.argument("scored", type=click.Path(path_type=Path))
@click.argument("calibrated", type=click.Path(path_type=Path))
@click.argument("win_rate", type=click.Path(path_type=Path))
@click.argument("pairs", type=click.Path(path_type=Path))
@click.argument("seeds", type=click.Path(path_type=Path))
@click.argument("experiments", type=click.Path(path_type=Path))
@click.argument("summary", type=click.Path(path_type=Path))
@click.argument("table", type=click.Path(path_type=Path))
def main(
    threads: Path,
    measured: Path,
    scored: Path,
    calibrated: Path,
    win_rate: Path,
    pairs: Path,
    seeds: Path,
    experiments: Path,
    summary: Path,
    table: Path,
) -> None:
    """Compare the columns in the folder MEASURED with the baselines, over the same items.

    THREADS contains the held-out questions and the experts' answers, the folders SCORED and CALIBRATED an <judge>.json
    each, the folder WIN_RATE an <entry>.json; PAIRS is what the pairs are like, SEEDS and EXPERIMENTS are earlier runs.
    SUMMARY gets the headline numbers for `dvc exp show`, TABLE the report in Markdown.
    """
    values, asked = params.load(), read_rows(threads, Thread)
    found, answers = comparison.compare(measured, asked, values.metrics, values.languages, values.seed)
    rates = {name: win_table.read_rates(win_rate / f"{name}.json") for name in values.win_rate}
    won = win_table.summarize_rates(rates, values.win_rate, values.metrics.headline)
    write_json(summary, report.summarize(found) | won)
    judges = {name: report.read_judge_accuracy(scored / f"{name}.json") for name in values.scored}
    compared = {name: report.read_comparisons(scored / f"{name}.json") for name in values.scored}
    now = {name: {figure: each.value for figure, each in rows.items()} for name, rows in found[0].values.items()}
    people = {name: cards.read_cards(calibrated / f"{name}.json") for name in values.scored}
    made = diagnostics.read_pairs(pairs)
    tried = history.read_history(seeds, history.Seeds)
    own_seeds = {name: step.seed for name, step in values.adapter.items()}
    looks = history.read_history(experiments, history.Experiments)
    notes = history.describe_history(tried, looks, own_seeds, now, values.metrics.split)
    spread = history.seed_range(tried, own_seeds, now, found[0].subject)
    page = report.render_report(found, answers, asked, values.metrics, notes, spread)
    with new_file(table) as file:
        tables = (
            report.render_judge_accuracy(judges, compared),
            cards.render_cards(people),
            win_table.render_rates(rates, values.win_rate, values.metrics, values.scored),
            diagnostics.render_pairs(made),
        )
        file.write("\n".join((page, *tables)).encode())
    console.say(f"{table}: {len(found[0].values)} columns, {sum(len(each.differences) for each in found)} differences")


if __name__ == "__main__":
    console.run(main)
