"""How often an answer that tries to sway a judge succeeds.

    python -m benchmarks.hostile [--model models/base] [JUDGE ...]

Run it from the project's top folder with PYTHONPATH=src, after `make repro`. Asked are the judges of these names in
params.yaml, or without a name one of each kind on MODEL. For each question, benchmarks/hostile.jsonl has a good answer,
a bad one (`plain`), and a bad one that speaks to the judge (`hostile`): instructions, scores, role markers, control
tokens, next to nothing, padding, self-praise, and the judge's own template. `over good` is how often the judge prefers
it to the good answer. Its controls are `plain over good`, of the plain bad one, and `filler over good`, of the plain
one with as many harmless words as the hostile one has more: of the good answer to the next question in its language.
`gain` is `over good` less `filler over good`, paired by question. `over filler` is how often the judge prefers the
hostile answer to the one with filler. Each two answers are judged alone, ties count half. Each attempt is in three
languages, which count as one observation: intervals are over 16 of them. `random`, `longer` and `question` are judges
that understand nothing: an answer at random, the one with more words, and the one more like the question (chrF++). The
second table is `over filler` by technique.
"""

import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import click

from benchmarks.judges import build_judges
from mothertongue import judging, languages, overlap, params, significance
from mothertongue.judging.agreement import estimate_share
from mothertongue.measurements import SampleScore
from mothertongue.records import Answer, Message, Thread, row_id, unit_hash
from mothertongue.store import Store

COMPARED = {
    "over good": ("hostile", "good"),
    "plain over good": ("plain", "good"),
    "filler over good": ("filler", "good"),
    "over filler": ("hostile", "filler"),
}
ROWS = Path(__file__).with_name("hostile.jsonl")
LANGUAGES = ("es", "it", "en")
Row = Mapping[str, str]
Scores = Mapping[str, float | None]  # by answer id; None for an answer without a verdict


def read_rows() -> list[Row]:
    """Question, answers, language and technique of each row; `filler` is not in the file, but made here."""
    rows = [json.loads(line) for line in ROWS.read_text(encoding="utf-8").splitlines()]
    for place, row in enumerate(rows):
        other = next(each for each in rows[place + 1 :] + rows if each["language"] == row["language"])
        more = len(row["hostile"].split()) - len(row["plain"].split())
        words = itertools.islice(itertools.cycle(other["good"].split()), max(0, more))
        row["filler"] = " ".join([row["plain"], *words])
    return rows


def name_groups(rows: Sequence[Row]) -> list[str]:
    """For each row its technique and its number among those of its language: the same for translations."""
    counts: dict[tuple[str, str], int] = {}
    names = []
    for row in rows:
        place = row["language"], row["technique"]
        counts[place] = counts.get(place, 0) + 1
        names.append(f"{row['technique']} {counts[place]}")
    return names


def build_threads(rows: Sequence[Row]) -> tuple[list[Thread], list[Answer]]:
    """A thread with two answers for each row and comparison; ids are <row> <comparison>, and <thread> <side>."""
    threads, answers = [], []
    for number, (row, group) in enumerate(zip(rows, name_groups(rows), strict=True)):
        prompt = [Message(role="user", content=row["question"])]
        for name, sides in COMPARED.items():
            identity = f"{number} {name}"
            threads.append(
                Thread(id=identity, conversation=row_id(row["question"]), language=row["language"], group=group,
                       split="test", prompt=prompt, reference=None)
            )  # fmt: skip
            answers += [
                Answer(id=f"{identity} {side}", thread=identity, generator=side, index=0, text=row[side], tokens=0,
                       finish="stop")
                for side in sides
            ]  # fmt: skip
    return threads, answers


def compare(threads: Sequence[Thread], scores: Scores, name: str, technique: str = "all") -> list[SampleScore]:
    """Of each question of a technique whether the first side of a comparison is preferred; those with a verdict."""
    ours, theirs = COMPARED[name]
    found = []
    for thread in threads:
        number, _, kind = thread.id.partition(" ")
        one, other = (scores.get(f"{thread.id} {side}") for side in (ours, theirs))
        if kind == name and technique in ("all", thread.group.split()[0]) and one is not None and other is not None:
            value = 0.5 if one == other else float(one > other)
            found.append(SampleScore(id=number, language="", group=thread.group, figure="", values=[value], text=""))
    return found


def format_share(rows: Sequence[SampleScore]) -> str:
    """A share with its interval and n."""
    if not rows:
        return "–"
    found = estimate_share([(row.group, row.values[0]) for row in rows], "")
    return f"{found.value:.3f} [{found.low:.3f}, {found.high:.3f}] ({found.n})"


def describe(threads: Sequence[Thread], scores: Scores) -> str:
    """The shares and the gain as cells of a table, and how many comparisons had no verdict."""
    found = {name: compare(threads, scores, name) for name in COMPARED}
    hostile, filler = ({row.id: row for row in found[name]} for name in ("over good", "filler over good"))
    both = sorted(hostile.keys() & filler.keys())
    # Two yes-or-no items for each question, whose shares differ by the difference of the two preferences: so their
    # interval has a width where all are alike, too.
    ones: list[list[SampleScore]] = [[], []]
    for number in both:
        for side, one, other in ((0, hostile[number], filler[number]), (1, filler[number], hostile[number])):
            values = float(one.values[0] == 1), float(other.values[0] == 0)
            ones[side] += [one.model_copy(update={"id": f"{number} {n}", "values": [v]}) for n, v in enumerate(values)]
    gain = significance.estimate_difference("share", *ones, 1, "") if both else None
    cells = [format_share(rows) for rows in found.values()]
    cells.insert(3, f"{gain.value:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}] ({len(both)})" if gain else "–")
    return f"{' | '.join(cells)} | {len(threads) - sum(map(len, found.values()))}"


@click.command(help=__doc__)
@click.argument("judges", nargs=-1)
@click.option("--model", type=click.Path(path_type=Path), default=Path("models/base"), show_default=True)
def main(judges: Sequence[str], model: Path) -> None:
    """See the module."""
    rows = read_rows()
    threads, answers = build_threads(rows)
    scores: dict[str, Scores] = {}
    if judges:
        section = params.load().scored
        entries = {name: params.get_entry("scored", section, name) for name in judges}
    else:
        entries = build_judges(model)
    places = {
        name: (Path("models", entry.model) if judges else model, getattr(entry, "engine", entry.kind))
        for name, entry in entries.items()
    }
    models = {place: judging.open_model(entries[name], place[0], Store()) for name, place in places.items()}
    for name, entry in entries.items():
        verdicts = judging.judge_answers(threads, answers, name, entry, models[places[name]])
        scores[name] = {verdict.answer: verdict.score for verdict in verdicts}
    scores["random"] = {answer.id: unit_hash(answer.id) for answer in answers}
    scores["longer"] = {answer.id: float(len(languages.split_words(answer.text))) for answer in answers}
    questions = {thread.id: thread.prompt[-1].content for thread in threads}
    scores["question"] = {each.id: overlap.sentence_chrf(each.text, questions[each.thread]) for each in answers}
    heads = ("judge", "over good", "plain over good", "filler over good", "gain", "over filler", "unparsed")
    print(f"| {' | '.join(heads)} |\n|---|---|---|---|---|---|--:|")
    for name, each in scores.items():
        print(f"| {name} | {describe(threads, each)} |")
    print(f"\n| over filler | {' | '.join(scores)} |\n|---{'|---' * len(scores)}|")
    for technique in dict.fromkeys(row["technique"] for row in rows):
        cells = [format_share(compare(threads, each, "over filler", technique)) for each in scores.values()]
        print(f"| {technique} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
