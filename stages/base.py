"""The model to adapt, at a pinned revision, as safetensors."""

from pathlib import Path

import click

from mothertongue import models, params
from mothertongue.files import weights_size


@click.command()
@click.argument("out", type=click.Path(path_type=Path))
def main(out: Path) -> None:
    """Write the model that section `base` of params.yaml names to the folder OUT, e.g. models/base."""
    section = params.load().base
    models.fetch(section, out)
    click.echo(f"{out}: {section.model.id}, {weights_size(out) / 1e6:.0f} MB, to compute in {section.dtype}")


if __name__ == "__main__":
    main()
