"""Each judge against people."""

from functools import partial
from pathlib import Path

import click

from mothertongue import annotations, console, judging, params, sampling
from mothertongue.files import new_file
from mothertongue.judging import accuracy, calibration, cards
from mothertongue.rows import write_json
from mothertongue.store import Store


@click.command()
@click.argument("name")
@click.argument("human", type=click.Path(path_type=Path))
@click.argument("folder", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.argument("curve", type=click.Path(path_type=Path))
def main(name: str, human: Path, folder: Path, out: Path, curve: Path) -> None:
    """Compare the judge NAME of section `scored` in params.yaml with people.

    HUMAN contains answers that people have judged, FOLDER the judge's model. OUT gets a card for each language, CURVE
    agreement by the distance of two scores. Without rows in HUMAN both are empty, and nothing is computed.
    """
    values, items = params.load(), annotations.read_items(human)
    entry = params.get_entry("scored", values.scored, name)
    found: dict[str, cards.Card] = {}
    used = None
    if items:
        model = judging.open_model(entry, folder, Store())
        verdicts = judging.judge_answers(*calibration.build_threads(items), name, entry, model)
        same = params.list_equal_models(values.models, entry.model)
        own = {each for each, generator in values.generated.items() if generator.model in same}
        sign = partial(accuracy.build_signature, name=name, params=entry, model=model)
        found = calibration.build_cards(items, verdicts, own, values.seed, sign)
        used = sampling.summarize_usage(model)
    with new_file(curve) as file:
        file.write(cards.render_reliability(found).encode())
    write_json(out, {"cards": {code: card.model_dump() for code, card in found.items()}, "usage": used})
    console.say(f"{out}: {len(items)} items that people have judged; {cards.describe_agreement(found)}")


if __name__ == "__main__":
    console.run(main)
