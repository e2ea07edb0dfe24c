"""Where a row came from and what it entered. No stage of the chain."""

from pathlib import Path

import click

from mothertongue import console, lineage, params


@click.command()
@click.argument("id")
def main(id: str) -> None:  # noqa: A002
    """Explain the row with an ID: a pair, an answer, a verdict, a thread, a conversation, or a measured item.

    Printed are its source and line, filters, split and why, generator and request, each verdict with what the judge
    read, rule, and the figures that it entered; of the run whose files are in data/ and metrics/.
    """
    values = params.load()
    changed = lineage.read_changed(Path("params.yaml"), Path("dvc.lock"))
    for line in lineage.explain(id, lineage.Project(values, Path("data"), Path("metrics"), changed)):
        console.say(line)


if __name__ == "__main__":
    console.run(main)
