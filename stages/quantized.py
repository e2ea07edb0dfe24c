"""A model at one level of quantisation."""

from pathlib import Path

import click

from mothertongue import console, params, quantization
from mothertongue.rows import write_json


@click.command()
@click.argument("name")
@click.argument("full", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.argument("report", type=click.Path(path_type=Path))
def main(name: str, full: Path, out: Path, report: Path) -> None:
    """Quantise the model in FULL by the level NAME of section `quantized` in params.yaml, to the folder OUT.

    REPORT gets the size of its weights.
    """
    entry = params.get_entry("quantized", params.load().quantized, name)
    size = quantization.quantize(full, out, entry, name)
    write_json(report, size)
    console.say(f"{out}: {size['bytes'] / 1e6:.0f} MB, {size['share_of_full']:.0%} of {full}")


if __name__ == "__main__":
    console.run(main)
