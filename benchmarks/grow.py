"""Add one per cent of conversations, and count the calls made to models against the rows added.

    python -m benchmarks.grow [--conversations 276]

Run it from the project's top folder with PYTHONPATH=src, after `make repro`. Threads, answers of every generator and
verdicts of every judge are computed from data/filtered.jsonl without its last per cent, and then with it, in a
temporary folder with a sample store of its own.
"""

import tempfile
from pathlib import Path

import click

from benchmarks.kill import ROOT, Place, count_misses
from mothertongue import params


def run_chain(place: Place, lines: list[bytes]) -> dict[str, int]:
    """Run the chain from filtered to scored; rows by stage and name."""
    values, store = params.load(), place.root / "store"
    filtered, threads, answers = (place.root / name for name in ("filtered.jsonl", "threads.jsonl", "generated"))
    filtered.write_bytes(b"".join(lines))
    place.run(store, "threads", filtered, threads, place.root / "threads.json")
    for name, generator in values.generated.items():
        place.run(store, "generated", name, threads, ROOT / "models" / generator.model, answers / f"{name}.jsonl")
    for name, judge in values.scored.items():
        out, model = place.root / f"scored/{name}.jsonl", ROOT / "models" / judge.model
        place.run(store, "scored", name, threads, answers, model, out, place.root / "scored.json")
    files = [threads, *sorted(place.root.glob("generated/*.jsonl")), *sorted(place.root.glob("scored/*.jsonl"))]
    return {f"{_stage(path)} {path.stem}": len(path.read_bytes().splitlines()) for path in files}


def _stage(path: Path) -> str:
    return path.parent.name if path.parent.name in ("generated", "scored") else ""


@click.command(help=__doc__)
@click.option("--conversations", type=int, help="Use only so many of data/filtered.jsonl.")
def main(conversations: int | None) -> None:
    """See the module."""
    with tempfile.TemporaryDirectory() as folder:
        place = Place.made(folder)
        lines = (ROOT / "data/filtered.jsonl").read_bytes().splitlines(keepends=True)[:conversations]
        new = max(1, round(len(lines) / 100))
        before = run_chain(place, lines[:-new])
        calls_before = count_misses(place.root / "store")
        after = run_chain(place, lines)
        calls = count_misses(place.root / "store")
    click.echo(f"{new} of {len(lines)} conversations added ({new / len(lines):.1%})")
    click.echo(f"{'':24}{'rows before':>12}{'rows added':>12}{'calls before':>14}{'calls added':>13}")
    for name, rows in after.items():
        at_first = calls_before.get(name, 0)
        click.echo(
            f"{name.strip():24}{before[name]:12}{rows - before[name]:12}{at_first:14}{calls.get(name, 0) - at_first:13}"
        )


if __name__ == "__main__":
    main()
