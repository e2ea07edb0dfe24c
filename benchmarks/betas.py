"""Trainings that differ in beta alone, with one sample store and with a new one each: seconds, and calls of the start.

    python -m benchmarks.betas [--step dpo] [--pairs 40] [--betas 8]

Run it from the project's top folder with PYTHONPATH=src, after `make repro`. With one store, the first training alone
computes the log-probabilities of the start. Both ways must end with the same adapters.
"""

import tempfile
import time
from pathlib import Path

import click

from mothertongue import params, training
from mothertongue.origin import digest_weights
from mothertongue.records import Pair
from mothertongue.rows import read_rows
from mothertongue.sampling import Model
from mothertongue.store import Store

from .kill import count_misses


@click.command(help=__doc__)
@click.option("--step", "name", default="dpo", show_default=True, help="A step with a beta and a reference.")
@click.option("--pairs", default=40, show_default=True, help="How many pairs of split train.")
@click.option("--betas", default=8, show_default=True, help="How many: 0.05, 0.10, 0.15, ...")
def main(name: str, pairs: int, betas: int) -> None:
    """See the module."""
    step = params.load().adapter[name]
    rows = [pair for pair in read_rows(Path("data/pairs.jsonl"), Pair) if pair.split == "train"][:pairs]
    start = Path("models", step.start)
    with tempfile.TemporaryDirectory() as place:
        stores = {"one store": [Path(place, "one")] * betas, "new stores": [Path(place, f"{i}") for i in range(betas)]}
        seconds = dict.fromkeys(stores, 0.0)
        for index in range(betas):
            changed = step.model_copy(update={"beta": round(0.05 * (index + 1), 2)})
            learned = set()
            for way, folders in stores.items():
                out, curves = Path(place, f"{way} {index}"), Path(place, f"{way} {index} curves")
                begin = time.perf_counter()
                likelihood = Model(start, "transformers", Store(folders[index])).sum_log_likelihoods
                training.train(rows, start, out, curves, changed, name, likelihood, folders[index])
                seconds[way] += time.perf_counter() - begin
                learned.add(digest_weights(out))
            if len(learned) > 1:
                raise click.ClickException(f"beta {changed.beta}: the two ways learned different adapters")
        baseline = seconds["new stores"]
        for way, folders in stores.items():
            calls = sum(sum(count_misses(folder).values()) for folder in set(folders))
            share = f"{seconds[way] / baseline:.2f} of that with new stores"
            print(f"{betas} betas, {len(rows)} pairs, {way}: {seconds[way]:.0f} s ({share}), {calls} calls")


if __name__ == "__main__":
    main()
