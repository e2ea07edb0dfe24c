"""A LoRA adapter trained on the pairs with DPO."""

from pathlib import Path

import click

from mothertongue import params, training
from mothertongue.records import Pair, read_rows, write_json


@click.command()
@click.argument("base", type=click.Path(path_type=Path))
@click.argument("pairs", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.argument("steps", type=click.Path(path_type=Path))
@click.argument("report", type=click.Path(path_type=Path))
def main(base: Path, pairs: Path, out: Path, steps: Path, report: Path) -> None:
    """Train by section `adapter` of params.yaml on the pairs of split `train`, measuring on `validation`.

    BASE is the model's folder, PAIRS one pair a line. OUT becomes the adapter's folder, STEPS a CSV of loss, reward
    accuracy and margin for `dvc plots`, REPORT the token lengths and the last values.
    """
    values = params.load()
    result = training.train(read_rows(pairs, Pair), base, out, steps, values.adapter, values.base.dtype)
    write_json(report, result)
    split = {"train": result, "validation": result["validation"]}
    fit = ", ".join(f"{name} {of['pairs'] - of['left_out']} of {of['pairs']} pairs" for name, of in split.items())
    click.echo(f"{out}: {result['updates']} updates; short enough: {fit}")


if __name__ == "__main__":
    main()
