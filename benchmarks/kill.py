"""Kill generation, scoring or training at random moments, and compare what is made with that of an undisturbed run.

    python -m benchmarks.kill [--kills 20] [--rows 150] [--seed 0] [--steps sft --steps dpo]

Run it from the project's top folder with PYTHONPATH=src, after `make repro`. The first generator and the first judge
with a rubric, or the named training steps, run on some rows of their data, in a temporary folder with sample stores of
its own. Each is killed (SIGKILL to its process group) at moments drawn evenly over the time that an undisturbed run
takes, a training from its first update on, and started again, until it was hit often enough; a run that ends before its
moment is compared, and the next begins with an empty store.
"""

import os
import random
import re
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
        env = os.environ | {
            "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}",
            VARIABLE: str(store),
            "TQDM_MININTERVAL": "0",
        }
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


def read_update(log: Path) -> int:
    """The last update that a training's progress bar has shown; 0 where it has shown none."""
    shown = re.findall(r"(\d+)/\d+ \[[^]]*update", log.read_text(encoding="utf-8")) if log.exists() else []
    return int(shown[-1]) if shown else 0


def read_made(*paths: Path) -> dict[str, bytes]:
    """Each file of what a training makes."""
    files = [file for path in paths for file in ([path] if path.is_file() else sorted(path.rglob("*")))]
    return {str(file): file.read_bytes() for file in files if file.is_file()}


def training_survives(place: Place, kills: int, rows: int, moments: random.Random, name: str) -> None:
    """Kill one training step; moments are of its updates, not of the time in which it loads."""
    step, log = params.load().adapter[name], place.root / "log"
    data, made = place.root / "data.jsonl", [place.root / made for made in ("adapter", "report.json", "curves")]
    data.write_bytes(b"".join((ROOT / f"data/{step.data}.jsonl").read_bytes().splitlines(keepends=True)[:rows]))
    command = [name, ROOT / "models" / step.start, data, *made]

    def clear() -> None:
        for path in made:
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
        log.unlink(missing_ok=True)

    def begin(store: Path) -> subprocess.Popen[bytes]:
        """Returns at the first update, or at the end."""
        log.unlink(missing_ok=True)
        process = place.start(store, "adapter", *command)
        while not read_update(log) and process.poll() is None:
            time.sleep(0.05)
        return process

    clear()
    process = begin(place.root / f"{name}-undisturbed")
    start = time.monotonic()
    if process.wait():
        raise click.ClickException(log.read_text(encoding="utf-8")[-3000:])
    length, updates, expected = time.monotonic() - start, read_update(log), read_made(*made)
    click.echo(f"{name}: undisturbed, {updates} updates in {length:.0f} s")
    hits = runs = 0
    repeated = []  # of kills whose bar was drawn since the last checkpoint: one that goes on skips draws at first
    while hits < kills:
        runs += 1
        while True:
            clear()  # as DVC does, also where a run was killed after it had made its outputs
            process = begin(place.root / f"{name}-{runs}")
            try:
                if process.wait(moments.uniform(0, length) if hits < kills else None):
                    raise click.ClickException(log.read_text(encoding="utf-8")[-3000:])
                break
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                hits += 1
                kept = place.root.glob(f"{name}-{runs}/training/*/kept-*")
                last, at = max((int(path.name.partition("-")[2]) for path in kept), default=0), read_update(log)
                repeated += [at - last] if at >= last else []
                click.echo(f"  killed at update {at}, goes on from {last}")
        same = read_made(*made) == expected
        click.echo(f"  ended: {'same bytes' if same else 'OTHER BYTES'}")
        if not same:
            raise click.ClickException("a killed training ended with other bytes than an undisturbed one")
    click.echo(
        f"{name}: {hits} kills, {runs} whole runs, all bytes the same; updates repeated: {repeated}"
        f" (checkpoint: {step.checkpoint})"
    )


@click.command(help=__doc__)
@click.option("--kills", default=20, show_default=True, help="Half of them while generating, half while scoring.")
@click.option("--rows", default=150, show_default=True, help="How many rows of data/threads.jsonl or data/pairs.jsonl.")
@click.option("--seed", default=0, show_default=True, help="Of the moments.")
@click.option("--steps", multiple=True, help="Kill these training steps instead, each so often.")
def main(kills: int, rows: int, seed: int, steps: tuple[str, ...]) -> None:
    """See the module."""
    moments = random.Random(seed)
    values = params.load()
    if steps:
        with tempfile.TemporaryDirectory() as folder:
            for name in steps:
                training_survives(Place.made(folder), kills, rows, moments, name)
        return
    generator, judge = next(iter(values.generated)), next(iter(values.scored))
    models = [ROOT / "models" / entry.model for entry in (values.generated[generator], values.scored[judge])]
    with tempfile.TemporaryDirectory() as folder:
        place = Place.made(folder)
        threads, answers = place.root / "threads.jsonl", place.root / "generated"
        threads.write_bytes(b"".join((ROOT / "data/threads.jsonl").read_bytes().splitlines(keepends=True)[:rows]))
        survives(place, kills // 2, moments, "generated", generator, threads, models[0])
        answers.mkdir()
        for name in values.generated:
            (answers / f"{name}.jsonl").touch()
        shutil.copyfile(place.root / "out.jsonl", answers / f"{generator}.jsonl")
        survives(place, kills - kills // 2, moments, "scored", judge, threads, answers, models[1])


if __name__ == "__main__":
    main()
