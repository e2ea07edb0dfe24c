"""Each judge against people."""

from functools import partial
from pathlib import Path

import click

from mothertongue import annotations, console, judging, params, sampling
from mothertongue.files import new_file
from mothertongue.judging import accuracy, calibration, cards
from mothertongue.records import Thread
from mothertongue.rows import read_rows, write_json
from mothertongue.store import Store


@click.command()
@click.argument("name")
@click.argument("human", type=click.Path(path_type=Path))
@click.argument("threads", type=click.Path(path_type=Path))
@click.argument("folder", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.argument("curve", type=click.Path(path_type=Path))
def main(name: str, human: Path, threads: Path, folder: Path, out: Path, curve: Path) -> None:
    """Compare the judge NAME of section `scored` in params.yaml with people.

    HUMAN contains answers that people have judged, and is read without the questions of THREADS in split test; FOLDER
    contains the judge's model. OUT gets a card for each language, CURVE agreement by the distance of two scores.
    Without rows in HUMAN both are empty, and nothing is computed.
    """
    values = params.load()
    entry = params.get_entry("scored", values.scored, name)
    items, left_out = calibration.leave_out_test(annotations.read_items(human), read_rows(threads, Thread))
    found: dict[str, cards.Card] = {}
    used = counts = None
    if items:
        model = judging.open_model(entry, folder, Store())
        verdicts = judging.judge_answers(*calibration.build_threads(items), name, entry, model)
        same = cards.list_equal_models(values.models, entry.model)
        own = {each for each, generator in values.generated.items() if generator.model in same}
        sign = partial(accuracy.build_signature, name=name, params=entry, model=model)
        found = calibration.build_cards(items, verdicts, own, values.seed, sign)
        used, counts = sampling.summarize_usage(model), accuracy.count_outcomes(verdicts).model_dump()
    with new_file(curve) as file:
        file.write(cards.render_reliability(found).encode())
    rows = {code: card.model_dump() for code, card in found.items()}
    write_json(out, {"cards": rows, "verdicts": counts, "left_out": left_out, "usage": used})
    test = f" ({left_out} more are of split test, and left out)" if left_out else ""
    console.say(f"{out}: {len(items)} items that people have judged{test}; {cards.describe_agreement(found)}")


if __name__ == "__main__":
    console.run(main)
