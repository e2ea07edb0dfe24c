"""The merged model at one level of quantisation."""

from pathlib import Path

import click

from mothertongue import params, weights
from mothertongue.records import write_json


@click.command()
@click.argument("level", type=click.Choice(["nf4", "int8"]))
@click.argument("merged", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.argument("report", type=click.Path(path_type=Path))
def main(level: str, merged: Path, out: Path, report: Path) -> None:
    """Store the model in MERGED with bitsandbytes at LEVEL in the folder OUT; REPORT gets its size."""
    size = weights.quantize(merged, out, level, params.load().base.dtype)
    write_json(report, size)
    click.echo(f"{out}: {size['bytes'] / 1e6:.0f} MB, {size['share_of_merged']:.0%} of the merged model")


if __name__ == "__main__":
    main()
