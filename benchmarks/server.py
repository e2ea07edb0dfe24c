"""Requests to a server at the same time against one after the other, by this project's own client: answers a second.

    python -m benchmarks.server [--prompts 48] [--tokens 32] [--concurrency 16] models/base

Run it from the project's top folder with PYTHONPATH=src, after `make repro`. vLLM's server with OpenAI's interface is
started on this machine and stopped at the end. Nothing is found in the sample store. The two ways take turns, so that
a machine that gets slower or faster hits both.
"""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from mothertongue import models, sampling
from mothertongue.params import ServerModel
from mothertongue.records import Thread
from mothertongue.rows import read_rows
from mothertongue.sampling import Generation
from mothertongue.store import Store

TURNS = 3


def find_port() -> int:
    """A port of this machine that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def serve(model: Path, port: int, log: Path, dtype: str = "bfloat16") -> Iterator[str]:
    """vLLM's server for a model folder, under the name `model`, at the URL that is given; killed at the end."""
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(model)]
    command += ["--served-model-name", "model", "--host", "127.0.0.1", "--port", str(port), "--dtype", dtype]
    # The model's own settings of sampling would be added to those that a request names.
    command += ["--enforce-eager", "--generation-config", "vllm"]
    with log.open("ab") as file:
        environment = os.environ | {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1"}
        process = subprocess.Popen(command, stdout=file, stderr=file, env=environment, start_new_session=True)
    try:
        while True:
            if process.poll() is not None:
                raise RuntimeError(f"vLLM's server ended with {process.returncode}; {log} says why")
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
                break
            except (urllib.error.URLError, OSError):
                time.sleep(0.5)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@click.command(help=__doc__)
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--prompts", default=48, show_default=True, help="How many threads.")
@click.option("--tokens", default=32, show_default=True, help="Of an answer, at most.")
@click.option("--concurrency", default=16, show_default=True, help="Requests at the same time.")
def main(model: Path, prompts: int, tokens: int, concurrency: int) -> None:
    """See the module."""
    threads = read_rows(Path("data/threads.jsonl"), Thread)[:prompts]
    with tempfile.TemporaryDirectory() as place, serve(model, find_port(), Path(place, "log")) as url:
        seconds: dict[int, list[float]] = {1: [], concurrency: []}
        for turn in range(TURNS + 1):
            for many in sorted(seconds, reverse=bool(turn % 2)):
                name = f"{many} {turn}"
                entry = ServerModel(source="server", url=url, id="model", revision=name, concurrency=many)
                models.fetch(entry, Path(place, name))
                server = sampling.open_model(Path(place, name), "server", Store(Path(place)))
                asked = [Generation(server.encode(row.prompt), tokens, 0, 1, turn, 0) for row in threads]
                begin = time.perf_counter()
                server.generate(asked, f"{many} at the same time")
                if turn:  # the first turn warms the server up
                    seconds[many].append(time.perf_counter() - begin)
    for many, took in seconds.items():
        print(f"{many} at the same time: {TURNS * len(threads) / sum(took):.2f} answers/s")
    ratios = sorted(one / several for one, several in zip(seconds[1], seconds[concurrency], strict=True))
    print(f"answers/s, at the same time / one after the other: {', '.join(f'{each:.2f}' for each in ratios)}")


if __name__ == "__main__":
    main()
