"""What each measure for speed saves on a CPU: seconds with it taken away, against seconds with all of them.

    python -m benchmarks.savings [--pairs 24] [--tokens 32] [--model models/base]

Run it from the project's top folder with PYTHONPATH=src, after `make repro`. Each side runs in a process of its own.
freed: freed memory stays with the process. attention: not fused in decoding.
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
from mothertongue.sampling import Generate, Weigh, transformers


def train(pairs: int, model: Path) -> object:
    """Seconds of a training on some pairs, and its last step."""
    values = params.load()
    rows = [pair for pair in read_rows(Path("data/pairs.jsonl"), Pair) if pair.split == "train"][:pairs]
    with tempfile.TemporaryDirectory() as folder:
        begin = time.perf_counter()
        report = training.train(
            rows,
            model,
            Path(folder, "adapter"),
            Path(folder, "steps.csv"),
            values.adapter,
            values.base.dtype,
        )
        return time.perf_counter() - begin, report["last"]


def answer(tokens: int, model: Path) -> object:
    """Seconds of answering the held-out threads, and what was said."""
    chat = Chat(model)
    threads = [row for row in read_rows(Path("data/threads.jsonl"), Thread) if row.split == "test"]
    requests = [Generate(chat.prompt(thread.prompt), tokens, 0, 1, 0, 0) for thread in threads]
    engine = transformers.Transformers(model, params.load().base.dtype, chat)
    engine.generate(requests[:2])
    begin = time.perf_counter()
    said = engine.generate(requests)
    return time.perf_counter() - begin, sum(text.tokens for text in said)


def weigh(pairs: int, model: Path) -> object:
    """Seconds of the log-probabilities of both sides of held-out pairs, and their rounded sum."""
    chat = Chat(model)
    rows = [pair for pair in read_rows(Path("data/pairs.jsonl"), Pair) if pair.split == "test"][:pairs]
    sides = [(row.prompt, side) for row in rows for side in (row.chosen, row.rejected)]
    requests = [Weigh(*chat.answered(asked, side.text, ended=side.finish == "stop")) for asked, side in sides]
    engine = transformers.Transformers(model, params.load().base.dtype, chat)
    engine.weigh(requests[:2])
    begin = time.perf_counter()
    said = engine.weigh(requests)
    return time.perf_counter() - begin, round(sum(map(sum, said)))


def fuse_attention() -> None:
    """Leave each model the attention it was opened with."""
    from transformers import PreTrainedModel

    PreTrainedModel.set_attn_implementation = lambda *_: None


SIDES: dict[str, Callable[[int], object]] = {"train": train, "answer": answer, "weigh": weigh}
TAKEN_AWAY: dict[str, Callable[[], object]] = {
    "nothing": lambda: None,
    "freed": lambda: setattr(memory, "keep_freed", lambda: None),
    "attention": fuse_attention,
}
MEASURES = {
    "train": ["freed"],
    "answer": ["freed", "attention"],
    "weigh": ["freed"],
}


@click.command(help=__doc__)
@click.option("--pairs", default=24, show_default=True, help="How many pairs to train on and to weigh.")
@click.option("--tokens", default=32, show_default=True, help="How long an answer may be.")
@click.option("--model", default="models/base", show_default=True, help="Which one trains, answers and weighs.")
@click.option("--side", nargs=3, hidden=True, help="What a process of its own is to do.")
def main(pairs: int, tokens: int, model: str, side: tuple[str, str, str] | None) -> None:
    """See the module."""
    if side:
        what, without, size = side
        TAKEN_AWAY[without]()
        click.echo(json.dumps(SIDES[what](int(size), Path(model))))
        return
    for what, measures in MEASURES.items():
        size = tokens if what == "answer" else pairs
        baseline, end = _measured(what, "nothing", size, model)
        click.echo(f"{what}: {baseline:.1f} s with all measures, end {end}")
        for without in measures:
            seconds, other = _measured(what, without, size, model)
            click.echo(f"{what}: {seconds:.1f} s without {without}, {seconds / baseline:.2f} times that, end {other}")


def _measured(what: str, without: str, size: int, model: str) -> tuple[float, object]:
    command = [sys.executable, "-m", "benchmarks.savings", "--model", model, "--side", what, without, str(size)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True, text=True)
    seconds, end = json.loads(done.stdout.splitlines()[-1])
    return seconds, end


if __name__ == "__main__":
    main()
