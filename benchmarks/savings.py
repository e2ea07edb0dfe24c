"""What each measure for speed saves on a CPU: seconds without it, as a ratio to the seconds with all of them.

    python -m benchmarks.savings [--pairs 24] [--tokens 32] [--model models/base]

Run it from the project's top folder with PYTHONPATH=src, after `make repro`. Each side runs in a process of its own.
malloc: the two variables of the Makefile, by which freed memory stays with the process. eager: attention that is not
fused, in generation and in training. The end of each side (the last training step, or a sum of results) shows whether
results are equal.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import click

from mothertongue import params, prompts, training
from mothertongue.chat import Chat
from mothertongue.origin import read_origin
from mothertongue.records import Message, Pair, Thread
from mothertongue.rows import read_rows
from mothertongue.sampling import Generation, LogLikelihood, Model, transformers
from mothertongue.store import Store
from mothertongue.suites.data import read_sentences

MALLOC = {"MALLOC_MMAP_THRESHOLD_": "67108864", "MALLOC_TRIM_THRESHOLD_": "2147483647"}


def train(pairs: int, model: Path) -> tuple[float, object]:
    """Seconds of a training on some pairs, and its last step."""
    rows = [pair for pair in read_rows(Path("data/pairs.jsonl"), Pair) if pair.split == "train"][:pairs]
    step = next(step for step in params.load().adapter.values() if step.data == "pairs")
    with tempfile.TemporaryDirectory() as name:
        folder, begin = Path(name), time.perf_counter()
        likelihood = Model(model, "transformers", Store(folder)).sum_log_likelihoods
        report = training.train(rows, model, folder / "adapter", folder, step, "step", likelihood, folder)
        return time.perf_counter() - begin, report["last"]


def answer(tokens: int, model: Path) -> tuple[float, object]:
    """Seconds of answering the held-out threads, and the number of tokens."""
    threads = [row for row in read_rows(Path("data/threads.jsonl"), Thread) if row.split == "test"]
    return _generate([thread.prompt for thread in threads], tokens, model)


def translate(tokens: int, model: Path) -> tuple[float, object]:
    """Seconds of translating sentences from English, and the number of tokens."""
    code = params.load().languages[0]
    rows = read_sentences(Path("data/suites/translation.jsonl"), [code])
    texts = [prompts.render("translate", code, source="English", target=code, sentence=row.text["en"]) for row in rows]
    return _generate([[Message(role="user", content=text)] for text in texts], tokens, model)


def _generate(asked: list[list[Message]], tokens: int, model: Path) -> tuple[float, object]:
    chat = Chat(model)
    requests = [Generation(chat.encode_prompt(messages), tokens, 0, 1, 0, 0) for messages in asked]
    engine = transformers.Transformers(model, read_origin(model).dtype, chat)
    engine.generate(requests[:2])
    begin = time.perf_counter()
    completions = engine.generate(requests)
    return time.perf_counter() - begin, sum(completion.tokens for completion in completions)


def score(pairs: int, model: Path) -> tuple[float, object]:
    """Seconds of the log-probabilities of both sides of held-out pairs, and their rounded sum."""
    chat = Chat(model)
    rows = [pair for pair in read_rows(Path("data/pairs.jsonl"), Pair) if pair.split == "test"][:pairs]
    requests = [
        LogLikelihood(*chat.encode_answer(row.prompt, text, ended=lineage.finish == "stop"))
        for row in rows
        for text, lineage in row.sides
    ]
    engine = transformers.Transformers(model, read_origin(model).dtype, chat)
    engine.log_likelihood(requests[:2])
    begin = time.perf_counter()
    logs = engine.log_likelihood(requests)
    return time.perf_counter() - begin, round(sum(map(sum, logs)))


SIDES: dict[str, Callable[[int, Path], tuple[float, object]]] = {
    "train": train,
    "answer": answer,
    "translate": translate,
    "score": score,
}
MEASURES = {
    "train": ["malloc", "eager"],
    "answer": ["malloc", "eager"],
    "translate": ["malloc", "eager"],
    "score": ["malloc"],
}


@click.command(help=__doc__)
@click.option("--pairs", default=24, show_default=True, help="How many pairs to train on and to score.")
@click.option("--tokens", default=32, show_default=True, help="How long an answer may be.")
@click.option("--model", default="models/base", show_default=True, help="The model's folder.")
@click.option("--side", nargs=3, hidden=True, help="What a process of its own computes.")
def main(pairs: int, tokens: int, model: str, side: tuple[str, str, str] | None) -> None:
    """See the module."""
    if side:
        what, without, size = side
        if without == "eager":
            from transformers import AutoModelForCausalLM, PreTrainedModel

            PreTrainedModel.set_attn_implementation = lambda *_: None
            load = AutoModelForCausalLM.from_pretrained
            AutoModelForCausalLM.from_pretrained = lambda *args, **more: load(
                *args, **more | {"attn_implementation": None}
            )
        print(json.dumps(SIDES[what](int(size), Path(model))))
        return
    for what, measures in MEASURES.items():
        size = tokens if what in ("answer", "translate") else pairs
        baseline, end = _measure(what, "nothing", size, model)
        print(f"{what}: {baseline:.1f} s with all measures, end {end}")
        for without in measures:
            seconds, other = _measure(what, without, size, model)
            print(f"{what}: {seconds:.1f} s without {without}, {seconds / baseline:.2f} times that, end {other}")


def _measure(what: str, without: str, size: int, model: str) -> tuple[float, object]:
    env = {key: value for key, value in os.environ.items() if key not in MALLOC}
    env |= MALLOC if without != "malloc" else {}
    command = [sys.executable, "-m", "benchmarks.savings", "--model", model, "--side", what, without, str(size)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True, text=True, env=env)
    seconds, end = json.loads(done.stdout.splitlines()[-1])
    return seconds, end


if __name__ == "__main__":
    main()
