"""Size and speed of models, such as a merged one and its levels: tokens a second alone and in a batch, and of a prompt.

    python -m benchmarks.speed [--prompts 8] [--tokens 32] base dpo int8 nf4

Run it from the project's top folder with PYTHONPATH=src, after `make repro`. Models are names of folders in models/,
each in a process of its own. Answers to the first held-out threads are generated on the transformers engine, greedily,
the sample store aside: `alone` one at a time, `batch` all at once; `read` is the tokens of experts' answers whose
log-probabilities are computed in a second. Loading is not counted. Times differ from run to run, so they are no output.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import click

from mothertongue.chat import Chat
from mothertongue.origin import read_origin
from mothertongue.records import Thread
from mothertongue.rows import read_rows
from mothertongue.sampling import Generation, LogLikelihood, transformers
from mothertongue.weights import weights_size


def measure(model: Path, prompts: int, tokens: int) -> dict[str, float]:
    """Megabytes, and tokens a second."""
    chat = Chat(model)
    threads = [row for row in read_rows(Path("data/threads.jsonl"), Thread) if row.split != "train"][:prompts]
    asked = [Generation(chat.encode_prompt(row.prompt), tokens, 0, 1, 0, 0) for row in threads]
    scored = [LogLikelihood(*chat.encode_answer(row.prompt, row.expert)) for row in threads]
    engine = transformers.Transformers(model, read_origin(model).dtype, chat)
    engine.generate(asked[:1])
    return {
        "MB": weights_size(model) / 1e6,
        "alone": _speed(lambda: sum(engine.generate([each])[0].tokens for each in asked)),
        "batch": _speed(lambda: sum(each.tokens for each in engine.generate(asked))),
        "read": _speed(lambda: sum(map(len, engine.log_likelihood(scored)))),
    }


def _speed(work: Callable[[], int]) -> float:
    begin = time.perf_counter()
    tokens = work()
    return tokens / (time.perf_counter() - begin)


@click.command(help=__doc__)
@click.argument("models", nargs=-1, required=True)
@click.option("--prompts", default=8, show_default=True, help="How many held-out threads.")
@click.option("--tokens", default=32, show_default=True, help="How long an answer may be.")
@click.option("--one", is_flag=True, hidden=True, help="In a process of its own.")
def main(models: tuple[str, ...], prompts: int, tokens: int, one: bool) -> None:
    """Print a table in Markdown."""
    if one:
        print(json.dumps(measure(Path("models") / models[0], prompts, tokens)))
        return
    print("| model | weights, MB | alone, tokens/s | batch, tokens/s | read, tokens/s |\n|---|--:|--:|--:|--:|")
    for name in models:
        command = [sys.executable, "-m", "benchmarks.speed", "--one", name]
        command += ["--prompts", str(prompts), "--tokens", str(tokens)]
        ran = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        found = json.loads(ran.stdout.splitlines()[-1])
        cells = [f"{found['MB']:.0f}", *(f"{found[way]:.1f}" for way in ("alone", "batch", "read"))]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
