"""What two measures save on a CPU: freed memory that stays with the process, and answers in groups of like length.

    python -m benchmarks.savings [--pairs 24] [--tokens 24]

Run it from the project's top folder with PYTHONPATH=src, after `make repro`. Each side runs in a process of its own,
the baseline with the one measure taken away.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import click

from mothertongue import memory, params, training
from mothertongue.chat import Chat
from mothertongue.records import Pair, Thread, read_rows
from mothertongue.sampling import Generate, transformers

BASE = Path("models/base")


def train(pairs: int) -> object:
    """Seconds of a training on some pairs, and its last step."""
    values = params.load()
    rows = [pair for pair in read_rows(Path("data/pairs.jsonl"), Pair) if pair.split == "train"][:pairs]
    with tempfile.TemporaryDirectory() as folder:
        begin = time.perf_counter()
        report = training.train(
            rows, BASE, Path(folder, "adapter"), Path(folder, "steps.csv"), values.adapter, values.seed
        )
        return time.perf_counter() - begin, report["last"]


def answer(tokens: int) -> object:
    """Seconds of answering the held-out threads, and what was said."""
    chat = Chat(BASE)
    threads = [row for row in read_rows(Path("data/threads.jsonl"), Thread) if row.split == "test"]
    requests = [Generate(chat.prompt(thread.prompt), tokens, 0, 1, 0, 0) for thread in threads]
    engine = transformers.Transformers(BASE, params.load().base.dtype, chat)
    engine.generate(requests[:2])
    begin = time.perf_counter()
    said = engine.generate(requests)
    return time.perf_counter() - begin, sum(text.tokens for text in said)


SIDES: dict[str, Callable[[int], object]] = {"train": train, "answer": answer}


@click.command(help=__doc__)
@click.option("--pairs", default=24, show_default=True, help="How many pairs to train on.")
@click.option("--tokens", default=24, show_default=True, help="How long an answer may be.")
@click.option("--side", nargs=3, hidden=True, help="What a process of its own is to do.")
def main(pairs: int, tokens: int, side: tuple[str, str, str] | None) -> None:
    """See the module."""
    if side:
        what, without, size = side
        if without == "freed":
            memory.keep_freed = lambda: None
        if without == "groups":
            transformers._alike = lambda lengths: [list(range(len(lengths)))]
        click.echo(json.dumps(SIDES[what](int(size))))
        return
    for what, measure, size in (("train", "freed", pairs), ("answer", "freed", tokens), ("answer", "groups", tokens)):
        seconds, ends = {}, {}
        for without in (measure, "nothing"):
            command = [sys.executable, "-m", "benchmarks.savings", "--side", what, without, str(size)]
            done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True, text=True)
            seconds[without], ends[without] = json.loads(done.stdout.splitlines()[-1])
        ratio = seconds[measure] / seconds["nothing"]
        same = "the same end" if ends[measure] == ends["nothing"] else f"ends {ends}"
        click.echo(
            f"{what}: {seconds[measure]:.1f} s without {measure}, {seconds['nothing']:.1f} s with:"
            f" {ratio:.2f} times as fast, {same}"
        )


if __name__ == "__main__":
    main()
