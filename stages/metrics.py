"""All suites measured on one model, with or without a system prompt."""

from pathlib import Path

import click

from mothertongue import benchmark, params, sampling, suites, threads
from mothertongue.figures import FIGURES
from mothertongue.files import new_folder, weights_size
from mothertongue.records import Pair, Thread, read_rows, write_json, write_rows
from mothertongue.store import Store


@click.command()
@click.argument("name")
@click.argument("folder", type=click.Path(path_type=Path))
@click.argument("base", type=click.Path(path_type=Path))
@click.argument("data", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
def main(name: str, folder: Path, base: Path, data: Path, out: Path) -> None:
    """Measure the entry NAME of metrics.models in params.yaml, whose model is in FOLDER, on held-out rows of DATA.

    BASE is what rewards are measured against. OUT gets for each suite <suite>.json, each figure with n, 95 % interval
    and signature, and <suite>.items.jsonl, what they were made of. The engine is transformers, for all alike.
    """
    values, store = params.load(), Store()
    code, limits, dtype, shares = values.language, values.metrics, values.base.dtype, values.threads
    asked, pairs = read_rows(data / "threads.jsonl", Thread), read_rows(data / "pairs.jsonl", Pair)
    questions = threads.of_split(benchmark.read(data / "suites/benchmark.jsonl", code), shares, limits.split)
    sentences = threads.of_split(suites.read_sentences(data / "suites/translation.jsonl", code), shares, limits.split)
    prompted = params.named("metrics.models", limits.models, name).system_prompt
    subject = suites.Subject(sampling.Model(folder, "transformers", dtype, store), code, prompted, limits)
    start = suites.Subject(sampling.Model(base, "transformers", dtype, store), code, False, limits)
    # The benchmark first: its harness loads the model by itself. It renders no chat, so a system prompt has no place.
    items = {"benchmark": benchmark.measure([] if prompted else questions, folder, dtype)}
    items["preference"] = suites.preference(pairs, asked, subject, start)
    items["language"] = suites.language(asked, subject)
    items["perplexity"] = suites.perplexity(asked, subject)
    items["translation"] = suites.translation(sentences, subject)
    with new_folder(out) as made:
        write_json(made / "model.json", {"bytes": weights_size(folder)} | suites.written_system_prompt(subject))
        for suite in FIGURES:
            figures = suites.estimates(suite, items[suite], subject, benchmark.harness())
            write_rows(made / f"{suite}.items.jsonl", items[suite])
            write_json(made / f"{suite}.json", {"figures": {name: f.model_dump() for name, f in figures.items()}})
    click.echo(f"{out}: items " + ", ".join(f"{suite} {len({row.id for row in items[suite]})}" for suite in FIGURES))


if __name__ == "__main__":
    main()
