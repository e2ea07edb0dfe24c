"""Compare generation through the chain with bare vLLM on the same prompts and sampling parameters, in tokens/s.

    python -m benchmarks.overhead [--threads 200] [--repeats 2]

Run it from the project's top folder with PYTHONPATH=src, after `make repro`. Both sides use one engine, already warm.
The chain's side renders the prompts, looks up each call in an empty sample store, computes in batches and stores the
results; the bare side gets the same token ids, parameters and seeds, all at once. The sides take turns, each time with
new seeds; the first turn is not counted.
"""

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
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
@click.option("--threads", default=200, show_default=True, help="How many rows of data/threads.jsonl.")
@click.option("--repeats", default=2, show_default=True, help="How often each side runs.")
def main(threads: int, repeats: int) -> None:
    """See the module."""
    from vllm import SamplingParams

    values = params.load()
    name, generator = next(iter(values.generated.items()))
    rows = read_rows(Path("data/threads.jsonl"), Thread)[:threads]
    spent = {"chain": [0, 0.0], "bare vLLM": [0, 0.0]}
    with tempfile.TemporaryDirectory() as folder:
        model = sampling.Model(Path("models", generator.model), "vllm", Store(Path(folder)))
        engine = Recorder(model._engine)
        model.__dict__["_engine"] = engine  # where the cached property keeps it

        def chain(seed: int) -> int:
            engine.asked.clear()
            found = answers.generate_answers(rows, name, generator, seed, model)
            return sum(answer.tokens for answer in found)

        def bare(_: int) -> int:
            prompts = [{"prompt_token_ids": list(request.prompt)} for request in engine.asked]
            sampled = [
                SamplingParams(
                    max_tokens=request.max_tokens,
                    temperature=request.temperature,
                    top_p=request.top_p,
                    seed=request.seed,
                    stop_token_ids=list(model.chat.eos_token_ids),
                )
                for request in engine.asked
            ]
            outputs = engine.engine._llm.generate(prompts, sampled, use_tqdm=False)
            return sum(len(output.outputs[0].token_ids) for output in outputs)

        for turn in range(1 + repeats):
            for side, ask in (("chain", chain), ("bare vLLM", bare)):
                begin = time.perf_counter()
                tokens = ask(turn)
                if turn:  # the first turn warms up
                    spent[side][0] += tokens
                    spent[side][1] += time.perf_counter() - begin
    speed = {side: tokens / seconds for side, (tokens, seconds) in spent.items()}
    for side, (tokens, seconds) in spent.items():
        click.echo(f"{side}: {tokens} tokens in {seconds:.1f} s, {speed[side]:.0f} tokens/s")
    click.echo(f"chain / bare vLLM: {speed['chain'] / speed['bare vLLM']:.3f}")


if __name__ == "__main__":
    main()
