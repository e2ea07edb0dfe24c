"""A model and the adapter of one training step, merged."""

from pathlib import Path

import click

from mothertongue import console, merging, params
from mothertongue.records import Pair
from mothertongue.rows import read_rows, write_json


@click.command()
@click.argument("name")
@click.argument("start", type=click.Path(path_type=Path))
@click.argument("adapter", type=click.Path(path_type=Path))
@click.argument("pairs", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.argument("report", type=click.Path(path_type=Path))
def main(name: str, start: Path, adapter: Path, pairs: Path, out: Path, report: Path) -> None:
    """Merge ADAPTER of the step NAME into START, stored by section `merged` of params.yaml in the folder OUT.

    On the validation PAIRS the stored model is compared with START and ADAPTER: REPORT gets the largest difference of a
    token's log-probability, and the stage fails when it is over the limit.
    """
    result = merging.merge(start, adapter, out, params.load().merged, read_rows(pairs, Pair), name)
    write_json(report, result)
    largest, tokens = result["largest_difference"], result["tokens"]
    console.say(f"{out}: at most {largest:.4f} nats from {start} with its adapter, on {tokens} tokens")


if __name__ == "__main__":
    console.run(main)
