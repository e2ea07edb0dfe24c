"""Kill generation and scoring at random moments, and compare the output with that of an undisturbed run.

    python -m benchmarks.kill [--kills 20] [--threads 150] [--seed 0]

Run it from the project's top folder with PYTHONPATH=src, after `make repro`. The first generator and the first judge
with a rubric run on some of data/threads.jsonl, in a temporary folder with sample stores of its own. Each is killed
(SIGKILL to its process group) at moments drawn evenly over the time an undisturbed run takes, and started again, until
it was hit often enough; a run that ends before its moment is compared, and the next begins with an empty store.
"""

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import click

from mothertongue import params
from mothertongue.store import VARIABLE, Store

ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class Place:
    """A temporary folder with the committed params.yaml in which stages run."""

    root: Path

    @classmethod
    def made(cls, folder: str) -> "Place":
        """Copy params.yaml; models are used in place."""
        for needed in ("models", "data/filtered.jsonl", "data/threads.jsonl"):
            if not (ROOT / needed).exists():
                raise click.ClickException(f"{needed}: not there; run make repro first")
        shutil.copyfile(ROOT / "params.yaml", Path(folder, "params.yaml"))
        return cls(Path(folder))

    def start(self, store: Path, stage: str, *arguments: str | Path) -> subprocess.Popen[bytes]:
        """Begin a stage with a sample store, in a process group of its own."""
        env = os.environ | {"PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}", VARIABLE: str(store)}
        with (self.root / "log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", f"stages.{stage}", *map(str, arguments)],
                cwd=self.root,
                env=env,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def run(self, store: Path, stage: str, *arguments: str | Path) -> None:
        """Run a stage to its end."""
        if self.start(store, stage, *arguments).wait():
            raise click.ClickException((self.root / "log").read_text(encoding="utf-8")[-3000:])


def count_misses(store: Path) -> dict[str, int]:
    """Calls computed by a model, by label, as the store has counted them."""
    return {label: count for label, _, count in Store(store).count_calls() if count}


def survives(place: Place, kills: int, moments: random.Random, stage: str, *arguments: str | Path) -> None:
    """Kill one stage; its last argument but `report` names the output."""
    out = place.root / "out.jsonl"
    command = [stage, *arguments, out, *([place.root / "report.json"] if stage == "scored" else [])]
    begin = time.monotonic()
    place.run(place.root / f"{stage}-undisturbed", *command)
    length = time.monotonic() - begin
    expected = out.read_bytes()
    (rows,) = count_misses(place.root / f"{stage}-undisturbed").values()
    click.echo(f"{stage} {arguments[0]}: undisturbed in {length:.0f} s, {rows} calls")

    hits = rounds = repeated = 0
    while hits < kills:
        rounds += 1
        store = place.root / f"{stage}-{rounds}"
        out.unlink()
        while not out.exists():
            process = place.start(store, *command)
            moment = moments.uniform(0, length) if hits < kills else None
            try:
                if process.wait(moment):
                    raise click.ClickException((place.root / "log").read_text(encoding="utf-8")[-3000:])
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                hits += 1
                click.echo(
                    f"  killed after {moment:4.1f} s, {sum(count_misses(store).values())} of {rows} calls made so far"
                )
        extra = sum(count_misses(store).values()) - rows
        repeated += extra
        same = out.read_bytes() == expected
        click.echo(f"  ended: {'same bytes' if same else 'OTHER BYTES'}, {extra} of {rows} calls repeated")
        if not same:
            raise click.ClickException("a killed run ended with other bytes than an undisturbed one")
    click.echo(
        f"{stage} {arguments[0]}: {hits} kills, {rounds} whole runs, all bytes the same, {repeated} repeated calls"
    )


@click.command(help=__doc__)
@click.option("--kills", default=20, show_default=True, help="Half of them while generating, half while scoring.")
@click.option("--threads", default=150, show_default=True, help="How many rows of data/threads.jsonl.")
@click.option("--seed", default=0, show_default=True, help="Of the moments.")
def main(kills: int, threads: int, seed: int) -> None:
    """See the module."""
    moments = random.Random(seed)
    values = params.load()
    generator, judge = next(iter(values.generated)), next(iter(values.scored))
    models = [ROOT / "models" / entry.model for entry in (values.generated[generator], values.scored[judge])]
    with tempfile.TemporaryDirectory() as folder:
        place = Place.made(folder)
        rows, answers = place.root / "threads.jsonl", place.root / "generated"
        lines = (ROOT / "data/threads.jsonl").read_bytes().splitlines(keepends=True)[:threads]
        rows.write_bytes(b"".join(lines))
        survives(place, kills // 2, moments, "generated", generator, rows, models[0])
        answers.mkdir()
        for name in values.generated:
            (answers / f"{name}.jsonl").touch()
        shutil.copyfile(place.root / "out.jsonl", answers / f"{generator}.jsonl")
        survives(place, kills - kills // 2, moments, "scored", judge, rows, answers, models[1])


if __name__ == "__main__":
    main()
