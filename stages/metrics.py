"""One suite measured on one model."""

from pathlib import Path

import click

from mothertongue import benchmark, params, sampling, suites
from mothertongue.figures import FIGURES
from mothertongue.records import Pair, Thread, read_rows, write_json, write_rows
from mothertongue.store import Store


@click.command()
@click.argument("suite", type=click.Choice(list(FIGURES)))
@click.argument("folder", type=click.Path(path_type=Path))
@click.argument("base", type=click.Path(path_type=Path))
@click.argument("data", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
def main(suite: str, folder: Path, base: Path, data: Path, out: Path) -> None:
    """Measure SUITE on the model in FOLDER, with held-out rows of DATA; BASE is what rewards are measured against.

    Writes OUT.json, each figure with n, 95 % interval and signature, and OUT.items.jsonl, what they were made of.
    All levels are measured with transformers, the one engine that runs each of them here, so that they compare.
    """
    values, store = params.load(), Store()
    dtype = values.base.dtype
    model = sampling.Model(folder, "transformers", dtype, store)
    match suite:
        case "preference":
            against = sampling.Model(base, "transformers", dtype, store)
            pairs, threads = read_rows(data / "pairs.jsonl", Pair), read_rows(data / "threads.jsonl", Thread)
            items = suites.preference(pairs, threads, model, against)
        case "language":
            items = suites.language(read_rows(data / "threads.jsonl", Thread), model, values.language, values.metrics)
        case "perplexity":
            items = suites.perplexity(read_rows(data / "threads.jsonl", Thread), model)
        case "translation":
            items = suites.translation(data / "suites/translation.jsonl", model, values.language, values.metrics)
        case "benchmark":
            items = benchmark.measure(benchmark.read(data / "suites/benchmark.jsonl", values.language), folder, dtype)
    signatures = suites.signatures(suite, model, values.language, values.metrics, benchmark.harness())
    figures = suites.estimates(suite, items, signatures, values.seed)
    write_rows(out.with_suffix(".items.jsonl"), items)
    write_json(out.with_suffix(".json"), {"figures": {name: f.model_dump() for name, f in figures.items()}})
    said = ", ".join(f"{name} {f.value:.3f} [{f.low:.3f}, {f.high:.3f}]" for name, f in figures.items())
    click.echo(f"{out}: {said or f'nothing to measure, {data} holds no such items in language {values.language!r}'}")


if __name__ == "__main__":
    main()
