"""Ten greedy answers asked together, apart, after others, with one thread and with two: what is equal, and its price.

    python -m benchmarks.batches [--model models/base] [--dtype bfloat16]

Run it from the project's top folder with PYTHONPATH=src, after `make repro`, on a CPU of two cores or more. `fixed` is
what is measured with: batches whose shape follows from each request alone. `loose` is the usual way, as a control: a
batch is as wide as its longest row and has as many rows as are asked. Compared are the texts of ten answers and the
log-probabilities of ten experts' answers, to the last bit. The price is that of all held-out threads.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import click

from mothertongue import params
from mothertongue.chat import Chat
from mothertongue.records import Thread
from mothertongue.rows import read_rows
from mothertongue.sampling import Generation, LogLikelihood, transformers

COUNT, OTHERS = 10, 21


def loose(widths: Sequence[int], rows: Callable[[int], int]) -> Iterator[tuple[int, list[int]]]:  # noqa: ARG001
    """All in one batch."""
    yield max(widths), list(range(len(widths)))


def answer(kind: str, model: Path, dtype: params.Dtype) -> dict[str, object]:
    """What ten requests give in three ways, and the seconds that all held-out threads take."""
    if kind == "loose":
        transformers.split_batches = loose
    chat = Chat(model)
    engine = transformers.Transformers(model, dtype, chat)
    held_out = [row for row in read_rows(Path("data/threads.jsonl"), Thread) if row.split != "train"]
    tokens = params.load().metrics.answer_tokens
    generate = [Generation(chat.encode_prompt(row.prompt), tokens, 0, 1, 0, 0) for row in held_out]
    score = [LogLikelihood(*chat.encode_answer(row.prompt, row.expert)) for row in held_out]
    found: dict[str, object] = {}
    for name, requests, ask in (
        ("answers", generate, lambda part: [text.text for text in engine.generate(part)]),
        ("log-probabilities", score, engine.log_likelihood),
    ):
        ten, others = requests[:COUNT], requests[COUNT : COUNT + OTHERS]
        found[name] = {
            "together": ask(ten),
            "apart": [ask([request])[0] for request in ten],
            "after others": ask([*others, *ten])[-len(ten) :],
        }
        begin = time.perf_counter()
        for start in range(0, len(requests), engine.batch):
            ask(requests[start : start + engine.batch])
        found[f"seconds of {name}"] = time.perf_counter() - begin
    return found


def _asked(kind: str, threads: int, model: Path, dtype: str) -> dict[str, dict[str, list[object]]]:
    command = [sys.executable, "-m", "benchmarks.batches", "--model", str(model), "--dtype", dtype, "--kind", kind]
    ran = subprocess.run(
        command, check=True, stdout=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": str(threads)}
    )
    found: dict[str, dict[str, list[object]]] = json.loads(ran.stdout.splitlines()[-1])
    return found


@click.command(help=__doc__)
@click.option("--model", type=click.Path(path_type=Path, exists=True), default=Path("models/base"))
@click.option("--dtype", type=click.Choice(["bfloat16", "float32"]), default="bfloat16", show_default=True)
@click.option("--kind", type=click.Choice(["fixed", "loose"]), hidden=True)
def main(model: Path, dtype: params.Dtype, kind: str | None) -> None:
    """Print how many of ten are equal to those asked together with two threads, a row for each way."""
    if kind:
        print(json.dumps(answer(kind, model, dtype)))
        return
    seconds: dict[tuple[str, str], object] = {}
    print(f"{model} in {dtype}: of {COUNT} asked together with two threads, as many are equal when asked")
    for each in ("fixed", "loose"):
        two, one = (_asked(each, threads, model, dtype) for threads in (2, 1))
        for name in ("answers", "log-probabilities"):
            first = two[name]["together"]
            cells = [
                f"{way}, {count} {sum(a == b for a, b in zip(first, results[name][way], strict=True))}"
                for results, count in ((two, "two threads"), (one, "one thread"))
                for way in results[name]
                if (results, way) != (two, "together")
            ]
            print(f"{each}, {name}: {'; '.join(cells)}")
            seconds[each, name] = two[f"seconds of {name}"]
    for name in ("answers", "log-probabilities"):
        fixed, usual = (float(str(seconds[each, name])) for each in ("fixed", "loose"))
        print(f"seconds of all held-out {name}: fixed {fixed:.1f}, loose {usual:.1f}, ratio {fixed / usual:.2f}")


if __name__ == "__main__":
    main()
