"""What one training step learned: an adapter, or all weights."""

from pathlib import Path

import click

from mothertongue import console, hardware, params, sampling, training
from mothertongue.records import Pair, Text, Thread
from mothertongue.rows import Row, read_rows, write_json
from mothertongue.store import Store, store_folder

ROWS: dict[str, type[Row]] = {"pairs": Pair, "threads": Thread, "texts": Text}


@click.command()
@click.argument("name")
@click.argument("start", type=click.Path(path_type=Path))
@click.argument("data", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.argument("report", type=click.Path(path_type=Path))
@click.argument("curves", type=click.Path(path_type=Path))
def main(name: str, start: Path, data: Path, out: Path, report: Path, curves: Path) -> None:
    """Train the step NAME of section `adapter` in params.yaml on the rows of split `train`, measuring on `validation`.

    START is the folder of the model to train, DATA has one row a line. OUT becomes the folder of what was learned,
    REPORT gets the token lengths and the last values, the folder CURVES a <curve>/NAME.csv each for `dvc plots`. The
    log-probabilities that preferences are measured against are in the sample store, and computed once.
    """
    step = params.get_entry("adapter", params.load().adapter, name)
    rows = read_rows(data, ROWS[step.data])
    hardware.use_first_gpu()
    base = sampling.Model(start, "transformers", Store())
    result = training.train(rows, start, out, curves, step, name, base.sum_log_likelihoods, store_folder())
    write_json(report, result)
    left_out = f", {result['left_out']} rows too long" if result.get("left_out") else ""
    console.say(f"{out}: {result['updates']} updates{left_out}")


if __name__ == "__main__":
    console.run(main)
