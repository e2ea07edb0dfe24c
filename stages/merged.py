"""Base and adapter added up."""

from pathlib import Path

import click

from mothertongue import params, training, weights
from mothertongue.records import Pair, read_rows, write_json


@click.command()
@click.argument("base", type=click.Path(path_type=Path))
@click.argument("adapter", type=click.Path(path_type=Path))
@click.argument("pairs", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.argument("report", type=click.Path(path_type=Path))
def main(base: Path, adapter: Path, pairs: Path, out: Path, report: Path) -> None:
    """Merge ADAPTER into BASE, stored by section `merged` of params.yaml in the folder OUT.

    On the validation PAIRS the stored model is compared with base and adapter: REPORT gets the largest difference of a
    token's log-probability, and the stage fails when it is over the limit.
    """
    probes = training.probes(read_rows(pairs, Pair), base, adapter)
    result = weights.merge(base, adapter, out, params.load().merged, probes)
    write_json(report, result)
    click.echo(
        f"{out}: {result['largest_difference']:.4f} nats from base and adapter at most, {result['tokens']} tokens"
    )


if __name__ == "__main__":
    main()
