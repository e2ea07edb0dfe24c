"""A model and the adapter of one training step, merged."""

from pathlib import Path

import click

from mothertongue import console, merging, params
from mothertongue.records import Thread
from mothertongue.rows import read_rows, write_json


@click.command()
@click.argument("name")
@click.argument("start", type=click.Path(path_type=Path))
@click.argument("adapter", type=click.Path(path_type=Path))
@click.argument("threads", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.argument("report", type=click.Path(path_type=Path))
def main(name: str, start: Path, adapter: Path, threads: Path, out: Path, report: Path) -> None:
    """Merge ADAPTER of the step NAME into START, stored by section `merged` of params.yaml in the folder OUT.

    On held-out THREADS the stored model is compared with START and ADAPTER: REPORT gets the largest and the mean
    difference of a token's log-probability, and the stage fails when the largest is over its limit.
    """
    result = merging.merge(start, adapter, out, params.load().merged, read_rows(threads, Thread), name)
    write_json(report, result)
    found = " and ".join(f"{of['largest_difference']:.4f} in {name}" for name, of in result.items() if name != "tokens")
    console.say(f"{out}: at most {found} nats from {start} with its adapter, on {result['tokens']} tokens")


if __name__ == "__main__":
    console.run(main)
