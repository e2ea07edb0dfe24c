"""Compare generation through the chain with bare vLLM on the same prompts and sampling parameters, in tokens/s.

    python -m benchmarks.overhead [--threads 922] [--repeats 3]

Run it from the project's top folder with PYTHONPATH=src, after `make repro`. Both sides use one engine, already warm.
The chain's side renders the prompts of the first generator, looks up each call in an empty sample store, computes in
batches and stores the results; the bare side gets the same token ids, parameters and seeds, all at once. The sides take
turns, with the order reversed each time; the first turn is not counted.
"""

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import click

from mothertongue import answers, params, sampling
from mothertongue.records import Thread
from mothertongue.rows import read_rows
from mothertongue.store import Store


class Recorder:
    """An engine that records its requests."""

    def __init__(self, engine: Any) -> None:
        self.engine, self.batch = engine, engine.batch
        self.asked: list[sampling.Generation] = []

    def generate(self, requests: Sequence[sampling.Generation]) -> list[sampling.Completion]:
        """As the engine does."""
        self.asked += requests
        return self.engine.generate(requests)


@click.command(help=__doc__)
@click.option("--threads", type=int, help="Use only so many rows of data/threads.jsonl.")
@click.option("--repeats", default=3, show_default=True, help="How often each side runs.")
def main(threads: int | None, repeats: int) -> None:
    """See the module."""
    from vllm import SamplingParams

    values = params.load()
    name, generator = next(iter(values.generated.items()))
    rows = read_rows(Path("data/threads.jsonl"), Thread)[:threads]
    speeds: dict[str, list[float]] = {"chain": [], "bare vLLM": []}
    with tempfile.TemporaryDirectory() as folder:
        model = sampling.Model(Path("models", generator.model), "vllm", Store(Path(folder)))
        engine = Recorder(model._engine)
        model.__dict__["_engine"] = engine  # where the cached property keeps it

        def chain() -> int:
            engine.asked.clear()
            found, _ = answers.generate_answers(rows, name, generator, values.seed, model)
            return sum(answer.tokens for answer in found)

        def bare() -> int:
            prompts = [{"prompt_token_ids": list(request.prompt)} for request in engine.asked]
            sampled = [
                SamplingParams(
                    max_tokens=request.max_tokens,
                    temperature=request.temperature,
                    top_p=request.top_p,
                    seed=request.seed if request.temperature else None,
                    stop_token_ids=list(model.chat.eos_token_ids),
                )
                for request in engine.asked
            ]
            outputs = engine.engine._llm.generate(prompts, sampled, use_tqdm=False)
            return sum(len(output.outputs[0].token_ids) for output in outputs)

        sides = {"chain": chain, "bare vLLM": bare}
        for turn in range(1 + repeats):
            model.store = Store(Path(folder, str(turn)))
            for side in sorted(sides, reverse=turn % 2 == 0):  # the chain first in the first turn, which records
                begin = time.perf_counter()
                tokens = sides[side]()
                seconds = time.perf_counter() - begin
                if turn:  # the first turn warms up
                    speeds[side].append(tokens / seconds)
                    click.echo(f"{side}: {tokens} tokens in {seconds:.1f} s, {speeds[side][-1]:.0f} tokens/s")
    ratios = [ours / theirs for ours, theirs in zip(speeds["chain"], speeds["bare vLLM"], strict=True)]
    click.echo(f"chain / bare vLLM: {min(ratios):.3f}, {median(ratios):.3f}, {max(ratios):.3f} (min, median, max)")


if __name__ == "__main__":
    main()
