"""The demo's figures on split test as they were counted before: short answers too, and an end after cut answers.

    python -m benchmarks.counted_before

Run it from the project's top folder with PYTHONPATH=src, after `make repro` and `make final`, whose answers it finds in
the sample store. It separates what the way of counting moved from what the data and the training moved.
"""

from pathlib import Path

import click

from mothertongue import languages, params, suites, texts
from mothertongue.records import Pair, Thread, read_rows
from mothertongue.sampling import Model
from mothertongue.store import Store


def count(name: str, column: params.Measured, values: params.Params) -> str:
    """One line: right language and repetition of all answers; likelihood accuracy without and with ends nobody said."""
    limits = values.metrics.model_copy(update={"split": "test"})
    model = Model(Path("models", column.model), "transformers", values.base.dtype, Store())
    subject = suites.Subject(model, values.language, column.system_prompt, limits)
    threads = [row for row in read_rows(Path("data/threads.jsonl"), Thread) if row.split == "test"]
    said = [text for text, _ in subject.generate([row.prompt for row in threads], limits.answer_tokens, name)]
    right = sum(languages.is_in(text, values.language) for text in said) / len(said)
    repeated = sum(map(texts.repetition, said)) / len(said)
    pairs = [row for row in read_rows(Path("data/pairs.jsonl"), Pair) if row.split == "test"]
    shares = []
    for always in (False, True):
        asked = [(p.prompt, s.text, always or s.finish == "stop") for p in pairs for s in (p.chosen, p.rejected)]
        means = [sum(row) / len(row) for row in subject.weigh(asked, name)]
        shares.append(sum(a > b for a, b in zip(means[::2], means[1::2], strict=True)) / len(pairs))
    cut = sum(pair.rejected.finish == "length" for pair in pairs)
    return (
        f"{name}: of all {len(said)} answers right language {right:.3f}, repetition {repeated:.3f}; of {len(pairs)}"
        f" pairs, {cut} rejected sides cut, likelihood accuracy {shares[0]:.3f}, with an end after each {shares[1]:.3f}"
    )


@click.command(help=__doc__)
def main() -> None:
    """Print a line for each entry of metrics.models."""
    values = params.load()
    for name, column in values.metrics.models.items():
        print(count(name, column, values))


if __name__ == "__main__":
    main()
