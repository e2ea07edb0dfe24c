"""A named model, at a pinned revision, as safetensors."""

from pathlib import Path

import click

from mothertongue import console, models, params
from mothertongue.weights import weights_size


@click.command()
@click.argument("name")
@click.argument("out", type=click.Path(path_type=Path))
def main(name: str, out: Path) -> None:
    """Write the model NAME of section `models` in params.yaml to the folder OUT, models/NAME; of a server its place."""
    entry = params.get_entry("models", params.load().models, name)
    models.fetch(entry, out)
    if isinstance(entry, params.ServerModel):
        console.say(f"{out}: {entry.id} at {entry.url}")
    else:
        console.say(f"{out}: {entry.id}, {weights_size(out) / 1e6:.0f} MB, computes in {entry.dtype}")


if __name__ == "__main__":
    console.run(main)
