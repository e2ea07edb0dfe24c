"""Benchmark questions answered through our engines and through lm-eval's own `hf` model: how many answers are equal.

    python -m benchmarks.harness [--model models/base]

Run it from the project's top folder with PYTHONPATH=src, after `make repro`. In float32 all are; in bfloat16 batches of
another shape round differently, also between lm-eval's own runs on different machines.
"""

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import click

from mothertongue import params
from mothertongue.origin import FILE
from mothertongue.sampling import Model
from mothertongue.store import Store
from mothertongue.suites import benchmark
from mothertongue.suites.data import read_questions


def read_answers(samples: list[dict[str, Any]]) -> dict[str, tuple[float, float]]:
    """(acc, acc_bytes) of each question by its id."""
    return {sample["doc"]["id"]: (sample["acc"], sample["acc_bytes"]) for sample in samples}


@click.command(help=__doc__)
@click.option("--model", type=click.Path(path_type=Path, exists=True), default=Path("models/base"), show_default=True)
def main(model: Path) -> None:
    """See the module."""
    from lm_eval.models.huggingface import HFLM

    questions = read_questions(Path("data/suites/benchmark.jsonl"), params.load().languages)
    for dtype in ("float32", "bfloat16"):
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(shutil.copytree(model, Path(folder, "model")))
            origin = json.loads((copy / FILE).read_text(encoding="utf-8"))
            (copy / FILE).write_text(json.dumps(origin | {"dtype": dtype}), encoding="utf-8")
            stored = Model(copy, "transformers", Store(Path(folder)))
            ours = read_answers(benchmark.run_harness(questions, benchmark.build_language_model(stored)))
            theirs = HFLM(pretrained=str(copy), dtype=dtype, batch_size=16, device="cpu")
            found = read_answers(benchmark.run_harness(questions, theirs))
        equal = sum(ours[identity] == found[identity] for identity in ours)
        right = [sum(acc for acc, _ in answers.values()) for answers in (ours, found)]
        print(f"{dtype}: {equal} of {len(ours)} equal; right: {right[0]:.0f} by our engine, {right[1]:.0f} by hf")


if __name__ == "__main__":
    main()
