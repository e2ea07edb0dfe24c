"""A verdict from one token's log-probabilities against a verdict that is written out: rows/s, and how often they agree.

    python -m benchmarks.one_token [--rows 192] [--tokens 128] [--repeats 3] [--model models/base]

Run it from the project's top folder with PYTHONPATH=src, after `make repro`. Judged are answers of the first generator
in data/generated and the experts' to the same threads, by kind `rubric`. `one token` is the chain's judge: the expected
score under the probabilities of 1 to 5 as the next token. `written` reads the same request, answers freely and greedily
with up to --tokens tokens, and its score is the first number in them; where that is missing, or none of 1 to 5, it is
unparsed. Both run through sampling.Model on one engine, each time with an empty sample store, and take turns, with the
order reversed each time; the first turn, on a few rows, is not counted.

Agreement is over rows with both scores: `exact` after rounding the expectation, `within 1`, and Spearman's rho, each
with its 95 % interval over groups of threads. `shuffled`, the control, has the written scores of other rows.
"""

import re
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

import click

from mothertongue import params
from mothertongue.judging import agreement, rubric
from mothertongue.judging.agreement import Judged
from mothertongue.params import RubricJudge
from mothertongue.records import Answer, Message, Thread, reference_answer, unit_hash
from mothertongue.rows import read_rows
from mothertongue.sampling import Generation, Model
from mothertongue.store import Store

Scores = list[float | None]


def parse_score(text: str) -> float | None:
    """The first number in a text, where it is from 1 to 5."""
    found = re.search(r"\d+(?:[.,]\d+)?", text)
    score = float(found[0].replace(",", ".")) if found else 0
    return score if 1 <= score <= 5 else None


def describe_agreement(groups: Sequence[str], ours: Scores, theirs: Scores) -> str:
    """Cells of a table: n, exact, within 1, Spearman's rho."""
    rows = [
        Judged(group, one, other)
        for group, one, other in zip(groups, ours, theirs, strict=True)
        if one is not None and other is not None
    ]
    if not rows:
        return "0 | – | – | –"
    exact = agreement.estimate_share([(row.group, float(round(row.ours) == row.theirs)) for row in rows], "")
    near = agreement.estimate_share([(row.group, float(abs(row.ours - row.theirs) <= 1)) for row in rows], "")
    rho = agreement.measure_correlation(rows, 1, "").get("spearman")
    cells = [f"{each.value:.3f} [{each.low:.3f}, {each.high:.3f}]" if each else "–" for each in (exact, near, rho)]
    return f"{len(rows)} | {' | '.join(cells)}"


def select_rows(count: int) -> tuple[list[Thread], list[Answer]]:
    """Answers of the first generator and the experts' to the same threads, drawn by the threads' ids."""
    name = next(iter(params.load().generated))
    threads = {thread.id: thread for thread in read_rows(Path("data/threads.jsonl"), Thread)}
    given = sorted(read_rows(Path(f"data/generated/{name}.jsonl"), Answer), key=lambda answer: unit_hash(answer.thread))
    answers = [each for answer in given for each in (answer, reference_answer(threads[answer.thread]))][:count]
    return [threads[identity] for identity in dict.fromkeys(answer.thread for answer in answers)], answers


@click.command(help=__doc__)
@click.option("--rows", default=192, show_default=True, help="How many answers are judged.")
@click.option("--tokens", default=128, show_default=True, help="How long a written verdict may be.")
@click.option("--repeats", default=3, show_default=True, help="How often each side runs.")
@click.option("--model", "path", type=click.Path(path_type=Path, exists=True), default=Path("models/base"))
def main(rows: int, tokens: int, repeats: int, path: Path) -> None:
    """See the module."""
    threads, answers = select_rows(rows)
    by_id = {thread.id: thread for thread in threads}
    judge = RubricJudge(kind="rubric", model=path.name, engine="vllm", min_label_mass=0.3)
    with tempfile.TemporaryDirectory() as folder:
        model = Model(path, judge.engine, Store(Path(folder, "first")))
        lengths: list[int] = []

        def one_token(some: Sequence[Answer]) -> Scores:
            return [row.score for row in rubric.judge_answers(threads, some, "rubric", judge, model)]

        def written(some: Sequence[Answer]) -> Scores:
            texts = [rubric.render_request(by_id[answer.thread], answer) for answer in some]
            prompts = [model.chat.encode_prompt([Message(role="user", content=text)]) for text in texts]
            found = model.generate([Generation(prompt, tokens, 0, 1, 0, 0) for prompt in prompts], "written")
            lengths[:] = [each.tokens for each in found]
            return [parse_score(each.text) for each in found]

        sides: dict[str, Callable[[Sequence[Answer]], Scores]] = {"one token": one_token, "written": written}
        seconds: dict[str, list[float]] = {name: [] for name in sides}
        scores: dict[str, Scores] = {}
        for turn in range(1 + repeats):
            for name in sorted(sides, reverse=bool(turn % 2)):
                model.store = Store(Path(folder, f"{name} {turn}"))
                begin = time.perf_counter()
                scores[name] = sides[name](answers if turn else answers[:8])
                seconds[name] += [time.perf_counter() - begin] if turn else []
    for name, each in seconds.items():
        print(f"{name}: {len(answers) / median(each):.2f} rows/s (median of {repeats})")
    ratios = [slow / fast for fast, slow in zip(seconds["one token"], seconds["written"], strict=True)]
    print(f"one token / written, rows/s: {min(ratios):.1f}, {median(ratios):.1f}, {max(ratios):.1f} (min, median, max)")
    print(f"tokens of a written verdict: {sum(lengths) / len(lengths):.0f} in the mean, at most {max(lengths)}\n")
    groups = [by_id[answer.thread].group for answer in answers]
    lost = [(group, float(score is None)) for group, score in zip(groups, scores["written"], strict=True)]
    share = agreement.estimate_share(lost, "")
    print(f"written, unparsed: {share.value:.3f} [{share.low:.3f}, {share.high:.3f}] of {share.n}\n")
    print("| one token against | n | exact | within 1 | Spearman |\n|---|--:|---|---|---|")
    print(f"| written | {describe_agreement(groups, scores['one token'], scores['written'])} |")
    order = sorted(range(len(answers)), key=lambda place: unit_hash(answers[place].id))
    moved: Scores = [None] * len(answers)
    for place, other in zip(order, [*order[1:], *order[:1]], strict=True):
        moved[place] = scores["written"][other]
    print(f"| shuffled | {describe_agreement(groups, scores['one token'], moved)} |")


if __name__ == "__main__":
    main()
