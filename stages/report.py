"""All figures side by side."""

from pathlib import Path

import click

from mothertongue import comparison, console, diagnostics, effort, history, params, report
from mothertongue.files import new_file
from mothertongue.judging import cards, win_table
from mothertongue.records import Thread
from mothertongue.rows import read_rows, write_json


@click.command()
@click.argument("threads", type=click.Path(path_type=Path))
@click.argument("metrics", type=click.Path(path_type=Path))
@click.argument("summary", type=click.Path(path_type=Path))
@click.argument("table", type=click.Path(path_type=Path))
def main(threads: Path, metrics: Path, summary: Path, table: Path) -> None:
    """Compare the columns in the folder `measured` of METRICS with the baselines, over the same items.

    THREADS contains the held-out questions and the experts' answers. The folders of METRICS contain a <judge>.json each
    (`scored`, `calibrated`), an <entry>.json (`win_rate`), a <generator>.json (`generated`) and a <step>.json
    (`adapter`); pairs.json is what the pairs are like, seeds.json and experiments.json are earlier runs. SUMMARY gets
    the headline numbers for `dvc exp show`, TABLE the report in Markdown.
    """
    values, asked = params.load(), read_rows(threads, Thread)
    found, answers = comparison.compare(metrics / "measured", asked, values.metrics, values.languages, values.seed)
    notes, spread = history.describe_runs(metrics, values.adapter, values.metrics, found[0].figures)
    rates = {name: win_table.read_rates(metrics / f"win_rate/{name}.json") for name in values.win_rate}
    answered = win_table.list_models(values.metrics, values.generated, values.quantized)
    left_out = cards.read_left_out(metrics / "calibrated", values.scored)
    tables = (
        report.render_report(found, answers, asked, values.metrics, notes, spread),
        report.render_judge_accuracy(*report.read_judges(metrics / "scored", values.scored)),
        cards.render_cards(cards.read_cards(metrics / "calibrated", values.scored), left_out),
        win_table.render_rates(rates, values.win_rate, values.metrics, values.scored, values.models, answered),
        diagnostics.render_pairs(diagnostics.read_pairs(metrics / "pairs.json")),
        effort.render_usage(effort.read_usage(metrics, values.generated, list(values.scored), values.win_rate)),
        effort.render_trainings(effort.read_trainings(metrics, values.adapter)),
    )
    won = win_table.summarize_rates(rates, values.win_rate, values.metrics.headline)
    write_json(summary, report.summarize(found) | won)
    with new_file(table) as file:
        file.write("\n".join(tables).encode())
    console.say(f"{table}: {len(found[0].values)} columns, {sum(len(each.differences) for each in found)} differences")


if __name__ == "__main__":
    console.run(main)
