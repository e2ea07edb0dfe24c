"""All suites measured on one model, with or without a system prompt."""

from pathlib import Path

import click

from mothertongue import console, params, sampling, suites
from mothertongue.files import new_folder
from mothertongue.rows import write_json, write_rows
from mothertongue.store import Store
from mothertongue.suites.data import read_held_out
from mothertongue.suites.subject import Subject, detect_template_system_prompt
from mothertongue.weights import weights_size


@click.command()
@click.argument("name")
@click.argument("folder", type=click.Path(path_type=Path))
@click.argument("reference", type=click.Path(path_type=Path))
@click.argument("data", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
def main(name: str, folder: Path, reference: Path, data: Path, out: Path) -> None:
    """Measure the column NAME of metrics.models in params.yaml, whose model is in FOLDER, on held-out rows of DATA.

    REFERENCE is the model under which rewards are 0. OUT gets for each suite <suite>.json, each figure with n, 95 %
    interval and signature, and <suite>.items.jsonl, the items that it was computed from.
    """
    values, store = params.load(), Store()
    limits, codes = values.metrics, values.languages
    column = params.get_entry("metrics.models", limits.models, name)
    held_out = read_held_out(data, codes, values.threads, limits.split)
    subject = Subject(sampling.Model(folder, column.engine, store), column.system_prompt, limits)
    start = Subject(sampling.Model(reference, column.engine, store), system_prompt=False, limits=limits)
    written, counts = detect_template_system_prompt(subject), []
    with new_folder(out) as made:
        write_json(made / "model.json", {"bytes": weights_size(folder), "written_system_prompt": written})
        for suite in limits.suites:
            scores = suites.measure(suite, held_out, subject, start)
            write_rows(made / f"{suite}.items.jsonl", scores)
            write_json(made / f"{suite}.json", suites.summarize(suite, scores, subject, codes))
            counts.append(f"{suite} {len({row.id for row in scores})}")
    console.say(f"{out}: items {', '.join(counts)}")


if __name__ == "__main__":
    console.run(main)
