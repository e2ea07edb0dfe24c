"""Win rates: answers of the measured columns against an opponent's to the same questions, by a pairwise judge.

The judge says by log-probabilities which answer is better, so it says the same each time, and k runs would be k equal
runs: there is one. What varies is the order of the two answers, and both are asked for. What a win rate is beside:

- The opponent against itself: answers with the same words, all ties. It shows that nothing is lost or turned round, and
  nothing about the judge.
- Other questions: the judge reads the same two answers under a question that neither answers. There is something to
  judge and no answer to find. A judge biased to the place has ties there, as everywhere; one biased to length or style
  gives the same share there as under the answers' own question. What the share has over this control, paired by
  the two answers, is what the judge finds because of the question. The same pairs with their two names exchanged at
  random would be about no judge: their share is a half in expectation whatever it says, and they are what the
  permutation test draws.
- The experts' answers as a column: where the judge does not prefer them, its other figures say little.
"""

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

from mothertongue import languages, overlap, signatures, significance
from mothertongue.errors import BadInput
from mothertongue.files import read_json_object
from mothertongue.judging import accuracy, pairwise
from mothertongue.judging.agreement import estimate_share
from mothertongue.judging.length_control import estimate_at_equal_length
from mothertongue.judging.scores import are_alike
from mothertongue.judging.win_table import EXPERTS, Match, Rate, Rates
from mothertongue.measurements import Difference, Estimate, SampleScore
from mothertongue.params import Metrics, PairwiseJudge, WinRate
from mothertongue.records import Answer, RowCounts, Thread, row_id, unit_hash
from mothertongue.rows import parse, read_rows
from mothertongue.sampling import Model
from mothertongue.sampling.server import Server
from mothertongue.verdicts import Verdict

VERSION = 1  # of the figures: raise it when one is computed differently
REMEDY = "run stage metrics"
Texts = Mapping[str, str]  # by thread id


def read_answers(
    measured: Path, generated: Path, columns: Sequence[str], opponent: str, threads: Sequence[Thread]
) -> tuple[dict[str, Texts], str]:
    """Each column's answers to the threads, as suite language wrote them, and the signature that all of them have.

    Those of an opponent that is no column are its first ones as stage generated wrote them; a server may have refused
    some. Raises BadInput where a column was measured differently from another, or on other threads.
    """
    answers: dict[str, Texts] = {}
    signed: dict[str, str] = {}
    named = [opponent, *columns] if opponent in columns else columns
    if opponent not in columns:
        path = generated / f"{opponent}.jsonl"
        held_out = {thread.id for thread in threads}
        given = [row for row in read_rows(path, Answer) if row.index == 0 and row.thread in held_out]
        answers[opponent] = {row.thread: row.text for row in given}
        if not given:
            raise BadInput(f"{path}: has no answer to a held-out thread; run stage generated")
    for column in dict.fromkeys(named):
        path = measured / column / "language.items.jsonl"
        rows = [row for row in read_rows(path, SampleScore) if row.figure == "right_language"]
        answers[column] = {row.id: row.text for row in rows}
        if answers[column].keys() != {thread.id for thread in threads}:
            raise BadInput(f"{path}: has answers to other threads than the held-out ones; {REMEDY}")
        where = f"{measured / column}: words"
        written = read_json_object(measured / column / "language.json", REMEDY).get("figures", {})
        signed[column] = parse(Estimate, written.get("words"), where).signature
        signatures.check_alike(signed[column], signed[named[0]], where, named[0])
    return answers, signed[named[0]]


def judge_answers(
    threads: Sequence[Thread], answers: Mapping[str, Texts], name: str, entry: WinRate, model: Model | Server
) -> list[Match]:
    """Each column's answers, and the experts', against the opponent's: under their own question, and under another.

    A thread that the opponent has not answered has the outcome `unanswered`; one to which no other question can be
    found has no control.
    """
    lost = [thread for thread in threads if thread.id not in answers[entry.opponent]]
    threads = [thread for thread in threads if thread.id in answers[entry.opponent]]
    others = pick_others(threads)
    sides = {**answers, EXPERTS: {thread.id: thread.expert for thread in threads}}
    pairs = [
        (column, thread, answered)
        for column in sides
        for thread in threads
        for answered in (thread, None if column == entry.opponent else others[thread.id])
        if answered
    ]
    asked = [thread.model_copy(update={"id": row_id(column, thread.id, of.id)}) for column, thread, of in pairs]
    given = [
        (_answer(key.id, column, sides[column][of.id]), _answer(key.id, "", answers[entry.opponent][of.id]))
        for key, (column, _, of) in zip(asked, pairs, strict=True)
    ]
    verdicts = pairwise.judge_answers(
        asked, [row for both in given for row in both], f"win_rate {name}", build_judge(entry), model
    )
    said = {verdict.answer: verdict for verdict in verdicts}
    found = [
        _read_match(column, thread, of, both, said[both[0].id])
        for (column, thread, of), both in zip(pairs, given, strict=True)
    ]
    return found + [_leave_unanswered(column, thread) for column in sides for thread in lost]


def count_outcomes(matches: Sequence[Match]) -> RowCounts:
    """Comparisons that are in the figures, and why others are not."""
    counts = Counter(match.outcome for match in matches)
    dropped = {"unparsed": counts["unparsed"], "error": counts["error"], "unanswered": counts["unanswered"]}
    return RowCounts(total=len(matches), kept=sum(match.is_valid for match in matches), dropped=dropped)


def pick_others(threads: Sequence[Thread]) -> dict[str, Thread | None]:
    """For each thread another one of its language, with another group and question; None where there is none.

    It is the next such one in a random order that depends on the ids alone, so that each is taken about once.
    """
    found: dict[str, Thread | None] = {}
    for code in {thread.language for thread in threads}:
        rows = sorted((row for row in threads if row.language == code), key=lambda row: unit_hash(row.id))
        for place, row in enumerate(rows):
            question = languages.split_words(row.prompt[-1].content)
            following = (other for other in (*rows[place + 1 :], *rows[:place]) if other.group != row.group)
            found[row.id] = next(
                (other for other in following if languages.split_words(other.prompt[-1].content) != question), None
            )
    return found


def build_judge(entry: WinRate) -> PairwiseJudge:
    """The judge of an entry."""
    return PairwiseJudge(kind="pairwise", **entry.model_dump(exclude={"opponent"}))


def build_signature(
    codes: Sequence[str],
    threads: Sequence[Thread],
    opponent: Texts,
    measured: str,
    entry: WinRate,
    model: Model | Server,
) -> str:
    """What must be equal before two win rates may be compared: judge, opponent and its answers, and how all answered.

    `measured` is the signature of the answers.
    """
    texts = sorted((each.id, opponent[each.id]) for each in threads if each.language in codes and each.id in opponent)
    parts = {
        "win_rate": VERSION,
        "opponent": entry.opponent,
        "opponent_answers": row_id(texts),
        "answers": {key: value for key, value in json.loads(measured).items() if key != "language"},
        **json.loads(accuracy.build_signature(codes, entry.model, build_judge(entry), model)),
    }
    return json.dumps(parts, sort_keys=True)


def summarize(
    matches: Sequence[Match], entry: WinRate, metrics: Metrics, seed: int, sign: Callable[[Sequence[str]], str]
) -> dict[str, Rates]:
    """Rates of each language, and of all together (key "") where there are several.

    `sign` gives the signature for some languages.
    """
    codes = sorted({match.language for match in matches})
    parts = ({"": codes} if len(codes) > 1 else {}) | {code: [code] for code in codes}
    return {
        key: summarize_part([match for match in matches if match.language in some], entry, metrics, seed, sign(some))
        for key, some in parts.items()
    }


def summarize_part(matches: Sequence[Match], entry: WinRate, metrics: Metrics, seed: int, signature: str) -> Rates:
    """Rates over some matches. Columns are compared with the baselines, and with the headline's, the opponent with
    none: what a column has over the opponent is its rate."""
    by_column: dict[str, list[Match]] = {}
    controls: dict[str, list[Match]] = {}
    for match in matches:
        (controls if match.is_control else by_column).setdefault(match.column, []).append(match)
    columns = {column: measure(rows, seed, signature) for column, rows in by_column.items()}
    for column, rows in controls.items():
        gain = compare(by_column[column], rows, seed, signature)
        columns[column] = columns[column].model_copy(update={"over_control": gain})
    differences: dict[str, dict[str, Difference]] = {}
    others = [name for name in (*metrics.baselines, metrics.headline) if name != entry.opponent]
    for place, other in enumerate(others):
        for column in metrics.models:
            if column in (entry.opponent, *others[: place + 1]):
                continue
            if gain := compare(by_column[column], by_column[other], seed, signature):
                differences.setdefault(column, {})[other] = gain
    return Rates(
        columns=columns,
        controls={column: measure(rows, seed, signature) for column, rows in controls.items()},
        differences=differences,
    )


def measure(matches: Sequence[Match], seed: int, signature: str) -> Rate:
    """The rate of some matches of one column.

    wins - losses is the difference of two shares over the same items, the won and the lost ones: with Bonett & Price's
    interval (2012), which has a width where all are ties, and the permutation test that exchanges the names of the two
    answers, by groups. `share` is (1 + that difference) / 2. wins / (all - ties) has Wilson's interval.
    """
    valid = [match for match in matches if match.is_valid]
    others = Counter(match.outcome for match in matches)
    outcomes = [match.outcome for match in valid]
    won, lost = ([float(outcome == which) for outcome in outcomes] for which in ("win", "loss"))
    margin = decided = share = equal_length = words = None
    controls: dict[str, Estimate | None] = dict.fromkeys(("longer", "question", "random"))
    obstacle = ""
    if valid:
        margin = significance.estimate_difference("share", _items(valid, won), _items(valid, lost), seed, signature)
        share = Estimate(
            **{each: (1 + getattr(margin, each)) / 2 for each in ("value", "low", "high")},
            n=margin.n,
            groups=margin.groups,
            kind="share",
            signature=signature,
        )
        gaps = [float(match.words) for match in valid]
        words = significance.estimate("mean", _items(valid, gaps), signature)
        leads = gaps, [match.likeness for match in valid], [match.draw for match in valid]
        for control, lead in zip(controls, leads, strict=True):
            taken = [0.5 if not gap else float(gap > 0) for gap in lead]
            groups = (match.group for match in valid)
            controls[control] = estimate_share(list(zip(groups, taken, strict=True)), signature)
        equal_length, obstacle = _control_length(valid, signature)
    if rows := [match for match in valid if match.outcome != "tie"]:
        decided = significance.estimate("share", _items(rows, [match.share for match in rows]), signature)
    return Rate(
        wins=outcomes.count("win"),
        losses=outcomes.count("loss"),
        ties=outcomes.count("tie"),
        flips=sum(match.flip for match in valid),
        alike=sum(match.alike for match in valid),
        unparsed=others["unparsed"],
        errors=others["error"],
        unanswered=others["unanswered"],
        margin=margin,
        decided=decided,
        share=share,
        equal_length=equal_length,
        obstacle=obstacle,
        **controls,
        words=words,
        over_control=None,
    )


def compare(ours: Sequence[Match], theirs: Sequence[Match], seed: int, signature: str) -> Difference | None:
    """`share` of some matches less that of others; None where nothing is in both.

    Two columns are paired by question, a column and its control by the answers: they are the same in both. Each pair is
    two yes-or-no items of one group: whether ours is won and theirs lost, against whether theirs is won and ours lost.
    The difference of the two shares is that of `share`, so it has the interval and the test that wins - losses has.
    """
    if not (pairs := _join(ours, theirs)):
        return None
    up: list[SampleScore] = []
    down: list[SampleScore] = []
    for one, other in pairs:
        for side, good, bad in ((up, one, other), (down, other, one)):
            side.append(_item(one, f"{other.id} 1", good.outcome == "win"))
            side.append(_item(one, f"{other.id} 2", bad.outcome == "loss"))
    found = significance.estimate_difference("share", up, down, seed, signature)
    return found.model_copy(update={"n": len(pairs)})


def _read_match(column: str, thread: Thread, answered: Thread, both: tuple[Answer, Answer], verdict: Verdict) -> Match:
    alike = are_alike(*both)
    outcome: Literal["win", "loss", "tie", "unparsed", "error"] = "error" if verdict.outcome == "error" else "unparsed"
    if alike or verdict.score == 0.5:
        outcome = "tie"
    elif verdict.score is not None:
        outcome = "win" if verdict.score == 1 else "loss"
    words = [len(languages.split_words(answer.text)) for answer in both]
    likeness = [overlap.sentence_chrf(answer.text, thread.prompt[-1].content) for answer in both]
    draws = [unit_hash(answer.id) for answer in both]
    return Match(
        id=thread.id,
        language=thread.language,
        group=thread.group,
        column=column,
        answered=answered.id,
        outcome=outcome,
        flip=bool(verdict.flips),
        alike=alike,
        words=words[0] - words[1],
        likeness=likeness[0] - likeness[1],
        draw=0.0 if alike else draws[0] - draws[1],
        label_mass=verdict.label_mass,
    )


def _leave_unanswered(column: str, thread: Thread) -> Match:
    return Match(
        id=thread.id,
        language=thread.language,
        group=thread.group,
        column=column,
        answered=thread.id,
        outcome="unanswered",
        flip=False,
        alike=False,
        words=0,
        likeness=0.0,
        draw=0.0,
        label_mass=None,
    )


def _answer(thread: str, generator: str, text: str) -> Answer:
    return Answer(
        id=row_id(thread, generator), thread=thread, generator=generator, index=0, text=text, tokens=0, finish="stop"
    )


def _join(ours: Sequence[Match], theirs: Sequence[Match]) -> list[tuple[Match, Match]]:
    """Valid matches with answers to the same question: of a control, which has another question, the same answers."""
    by_id = {match.id: match for match in ours if match.is_valid}
    return [(by_id[row.answered], row) for row in theirs if row.is_valid and row.answered in by_id]


def _control_length(matches: Sequence[Match], signature: str) -> tuple[Estimate | None, str]:
    groups = [match.group for match in matches]
    gaps, shares = [match.words for match in matches], [match.share for match in matches]
    try:
        value, low, high = estimate_at_equal_length(gaps, shares, groups)
    except ValueError as error:
        return None, str(error)
    n, several = len(matches), len(set(groups))
    return Estimate(value=value, low=low, high=high, n=n, groups=several, kind="share", signature=signature), ""


def _items(matches: Sequence[Match], values: Sequence[float]) -> list[SampleScore]:
    return [_item(match, match.id, value) for match, value in zip(matches, values, strict=True)]


def _item(match: Match, identity: str, value: float) -> SampleScore:
    return SampleScore(
        id=identity, language=match.language, group=match.group, figure="win_rate", values=[float(value)], text=""
    )
