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

    On held-out THREADS the stored model is compared with START and ADAPTER: REPORT gets the mean and the largest
    difference of a token's log-probability. The stage fails when in float32 the largest is over its limit, or in the
    dtype that is served the mean.
    """
    result = merging.merge(start, adapter, out, params.load().merged, read_rows(threads, Thread), name)
    write_json(report, result)
    tokens = result.pop("tokens")
    found = ", ".join(
        f"{of['mean_difference']:.4f} in {dtype} (at most {of['largest_difference']:.4f})"
        for dtype, of in result.items()
    )
    console.say(f"{out}: nats a token from {start} with its adapter, on {tokens} tokens: {found}")


if __name__ == "__main__":
    console.run(main)
