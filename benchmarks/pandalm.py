"""Judges against people, on pairs of answers that three people have judged: PandaLM's (Wang et al. 2023).

    python -m benchmarks.pandalm ../shared/data/pandalm_human_verdicts.jsonl [--judges 200] [--model models/base]

Run it from the project's top folder with PYTHONPATH=src; with --judges after `make repro`. FILE has a pair of answers a
line, what each of three people said of it (1, 2, or 0 for neither), and what gpt-3.5-turbo and pandalm-7b said. The
table is of all pairs. With --judges N there is a second one, of N pairs drawn by their ids, with a judge of each of the
project's kinds on MODEL as well.

`agreement`: of the pairs in which most people prefer an answer, the share in which the rater prefers the same, ties
half (0.5 is chance). `agreement_person`: the same against each person alone; of people, of each two of them. `kappa`:
agreement with the majority beyond chance, ties included; of people, of two of them. `pearson`: of the rater's
preference with the mean of people's. `longer`: how often the rater prefers the longer answer. Each has its 95 %
interval over groups of equal questions. Controls: an answer at random, the longer one, the one more like the question,
and each judge's verdicts of other questions in another order (`shuffled`), in which there is nothing to find.
"""

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import click

from benchmarks.judges import build_judges
from mothertongue import judging
from mothertongue.annotations import AnnotatedItem, Annotation
from mothertongue.errors import BadInput
from mothertongue.judging import accuracy, agreement, calibration
from mothertongue.judging.agreement import Ratings
from mothertongue.measurements import Estimate
from mothertongue.records import Message, row_id, unit_hash
from mothertongue.sampling import Model
from mothertongue.store import Store

COLUMNS = ("agreement", "agreement_person", "kappa", "pearson", "longer")
CHOICES = ("0", "1", "2")


def read_verdicts(path: Path) -> tuple[list[AnnotatedItem], dict[str, Ratings]]:
    """The pairs as people judged them, and the ratings of two judges; a verdict that is none of CHOICES is no rating.

    Raises BadInput for a line that is not such a row.
    """
    items: list[AnnotatedItem] = []
    judges: dict[str, dict[str, list[float | None]]] = {"gpt-3.5-turbo": {}, "pandalm-7b": {}}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            row = json.loads(line)
            identity = f"{row['id']:04}"
            text = "\n\n".join(part for part in (row["instruction"], row["input"]) if part)
            items.append(
                AnnotatedItem(
                    id=identity,
                    language="en",
                    prompt=[Message(role="user", content=text)],
                    answers=[str(row["response_1"]), str(row["response_2"])],
                    annotations=[
                        Annotation(annotator=f"p{place}", preferred=said)
                        for place, said in enumerate(row["humans"], start=1)
                    ],
                )
            )
            for name, found in judges.items():
                said = str(row["judges"][name])
                found[identity] = [float(said == "1"), float(said == "2")] if said in CHOICES else [None, None]
        except (KeyError, TypeError, ValueError) as error:
            what = " ".join(str(error).split())
            raise BadInput(f"{path}:{number}: not a row of PandaLM's human verdicts ({what}); take its file") from error
    return items, dict(judges)


def judge_items(items: Sequence[AnnotatedItem], folder: Path) -> dict[str, Ratings]:
    """The ratings of a judge of each kind; prints the seconds that each took, the first with loading the model."""
    threads, answers = calibration.build_threads(items)
    found: dict[str, Ratings] = {}
    model = Model(folder, "vllm", Store())
    for name, judge in build_judges(folder).items():
        begin = time.perf_counter()
        verdicts = judging.judge_answers(threads, answers, name, judge, model)
        scores = {verdict.answer: verdict.score for verdict in verdicts}
        found[name] = {item.id: [scores[row_id(item.id, place)] for place in range(2)] for item in items}
        counts = accuracy.count_comparisons(verdicts)
        more = f", {counts['flips']} of {counts['compared']} comparisons flipped" if counts["compared"] else ""
        print(f"{name}: {time.perf_counter() - begin:.0f} s{more}", flush=True)
    return found


def render_table(items: Sequence[AnnotatedItem], ratings: Mapping[str, Ratings]) -> str:
    """Markdown: people among themselves, the raters, and their controls."""
    people = calibration.read_people(items, 1, "")
    rows: dict[str, dict[str, Estimate]] = {}
    for name, found in calibration.compare_people(people, ()).items():
        rows[name] = {("agreement_person" if key == "agreement" else key): each for key, each in found.items()}
    controls: dict[str, Ratings] = {}
    for name, each in ratings.items():
        rows[name] = calibration.measure_rater(people, each, ())
        values = [(people.groups[item], float(score is None)) for item, given in each.items() for score in given]
        rows[name]["unscored"] = agreement.estimate_share(values, "")
        built = calibration.build_controls(people, each)
        controls |= {f"{name}, shuffled": built.pop("shuffled")} | {f"control: {key}": of for key, of in built.items()}
    rows |= {name: calibration.measure_rater(people, controls[name], ()) for name in sorted(controls)}
    groups = len(set(people.groups.values()))
    lines = [
        f"{len(items)} pairs, {groups} groups; n is of `agreement`, of people of `agreement_person`.",
        "",
        f"| rater | n | {' | '.join(COLUMNS)} | unscored |",
        f"|---|--:{'|---' * len(COLUMNS)}|--:|",
    ]
    for name, found in rows.items():
        first = found.get("agreement") or found.get("agreement_person")
        unscored = f"{found['unscored'].value:.3f}" if "unscored" in found else ""
        cells = " | ".join(_format(found.get(column)) for column in COLUMNS)
        lines.append(f"| {name} | {first.n if first else 0} | {cells} | {unscored} |")
    return "\n".join(lines)


def _format(estimate: Estimate | None) -> str:
    return f"{estimate.value:.3f} [{estimate.low:.3f}, {estimate.high:.3f}]" if estimate else "–"


@click.command(help=__doc__)
@click.argument("file", type=click.Path(path_type=Path, exists=True))
@click.option("--judges", "count", type=click.IntRange(1), help="On how many pairs the project's judges are asked.")
@click.option("--model", type=click.Path(path_type=Path), default=Path("models/base"), show_default=True)
def main(file: Path, count: int | None, model: Path) -> None:
    """See the module."""
    items, ratings = read_verdicts(file)
    print(render_table(items, ratings), flush=True)
    if count:
        drawn = sorted(items, key=lambda item: unit_hash(item.id))[:count]
        print()
        some = {name: {item.id: each[item.id] for item in drawn} for name, each in ratings.items()}
        print(f"\n{render_table(drawn, some | judge_items(drawn, model))}")


if __name__ == "__main__":
    main()
