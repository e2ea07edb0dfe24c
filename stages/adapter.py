"""The LoRA adapter of one training step."""

from pathlib import Path

import click

from mothertongue import console, params, training
from mothertongue.records import Pair
from mothertongue.rows import read_rows, write_json


@click.command()
@click.argument("name")
@click.argument("start", type=click.Path(path_type=Path))
@click.argument("pairs", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.argument("report", type=click.Path(path_type=Path))
@click.argument("curves", type=click.Path(path_type=Path))
def main(name: str, start: Path, pairs: Path, out: Path, report: Path, curves: Path) -> None:
    """Train the step NAME of section `adapter` in params.yaml on the pairs of split `train`, measuring on `validation`.

    START is the folder of the model to train, PAIRS has one pair a line. OUT becomes the adapter's folder, REPORT gets
    the token lengths and the last values, the folder CURVES a <curve>/NAME.csv each for `dvc plots`.
    """
    entry = params.get_entry("adapter", params.load().adapter, name)
    result = training.train(read_rows(pairs, Pair), start, out, curves, entry, name)
    write_json(report, result)
    split = {"train": result, "validation": result["validation"]}
    fit = ", ".join(f"{name} {of['pairs'] - of['left_out']} of {of['pairs']} pairs" for name, of in split.items())
    console.say(f"{out}: {result['updates']} updates; short enough: {fit}")


if __name__ == "__main__":
    console.run(main)
