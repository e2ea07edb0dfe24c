"""Chosen and rejected sides out of answers and verdicts."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from unicodedata import category

from mothertongue import languages
from mothertongue.errors import BadInput
from mothertongue.params import ASSUMPTION, Pairs, Rule
from mothertongue.records import Answer, Pair, Side, Tally, Thread, Verdict, by_id, reference_answer, row_id

REASONS = ("no_answer", "no_verdict", "empty", "cut", "wrong_language", "identical", "tie", "margin")


def paired(
    threads: Sequence[Thread], answers: Iterable[Answer], verdicts: Iterable[Verdict], params: Pairs, language: str
) -> tuple[list[Pair], dict[str, Tally]]:
    """At most one pair per thread and rule, and for each rule how many threads fell by which reason.

    Only verdicts with a score count: an answer that a judge could not score is never a side of a pair that it ranks.
    Raises BadInput for an answer or a verdict that joins nothing or stands twice, and where more of a rule's rejected
    sides were cut than `max_cut_rejected`: what would be learned there is that long answers are bad.
    """
    said = sorted([*map(reference_answer, threads), *answers], key=lambda answer: (answer.index, answer.id))
    scores = _scores(verdicts, _joined(said, threads))
    candidates: dict[str, list[Answer]] = defaultdict(list)
    for answer in said:
        candidates[answer.thread].append(answer)

    pairs: list[Pair] = []
    tallies: dict[str, Tally] = {}
    for rule in params.rules:
        dropped = Counter(dict.fromkeys(REASONS, 0))
        found: list[Pair] = []
        for thread in sorted(threads, key=lambda thread: thread.id):
            sides = [
                Side(
                    answer=a.id,
                    generator=a.generator,
                    text=a.text,
                    finish=a.finish,
                    score=scores.get((rule.judge, a.id)),
                )
                for a in candidates[thread.id]
            ]
            choice = choose(rule, sides, language)
            if isinstance(choice, str):
                dropped[choice] += 1
                continue
            chosen, rejected = choice
            found.append(
                Pair(
                    id=row_id(thread.id, rule.name, chosen.answer, rejected.answer),
                    thread=thread.id,
                    split=thread.split,
                    rule=rule.name,
                    judge=rule.judge,
                    prompt=thread.prompt,
                    chosen=chosen,
                    rejected=rejected,
                )
            )
        _check_cut(rule, found, params.max_cut_rejected)
        tallies[rule.name] = Tally(taken=len(threads), kept=len(found), dropped=dict(dropped))
        pairs += found
    return pairs, tallies


def shares(pairs: Sequence[Pair], rule: str) -> dict[str, dict[str, float]]:
    """For each split the pairs of a rule, how many of their rejected sides were cut, and that as a share."""
    found: dict[str, dict[str, float]] = {}
    for split in sorted({pair.split for pair in pairs if pair.rule == rule}):
        rows = [pair for pair in pairs if (pair.rule, pair.split) == (rule, split)]
        cut = sum(pair.rejected.finish == "length" for pair in rows)
        found[split] = {"pairs": len(rows), "cut_rejected": cut, "share": cut / len(rows)}
    return found


def choose(rule: Rule, sides: Sequence[Side], language: str) -> tuple[Side, Side] | str:
    """The two sides that a rule names, or the reason why there is no pair.

    The chosen side is the best of those that say something in the right language and come to an end; the rejected side
    is the worst of those that say something (the best, for a rule that rejects `best`). Equal scores are settled by
    answer id. By assumption (RigoChat 2, arXiv 2503.08188: the expert's answer is the better one) there are no
    scores: of several samples the first in `sides` is taken, which are in the order of their index.
    """
    ranked = rule.judge != ASSUMPTION
    pool = [_named(rule.chosen, sides), _named(rule.rejected, sides)]
    if not all(pool):
        return "no_answer"
    if ranked:
        pool = [[side for side in part if side.score is not None] for part in pool]
    if not all(pool):
        return "no_verdict"
    spoken = [[side for side in part if _says_something(side.text)] for part in pool]
    if not all(spoken):
        return "empty"
    whole = [side for side in spoken[0] if side.finish == "stop"]
    if not whole:
        return "cut"
    right = [side for side in whole if languages.is_in(side.text, language)]
    if not right:
        return "wrong_language"
    if ranked:
        chosen = _ranked(right)[0 if rule.chosen == "worst" else -1]
        rejected = _ranked(spoken[1])[-1 if rule.rejected == "best" else 0]
    else:
        chosen, rejected = right[0], spoken[1][0]
    if " ".join(chosen.text.split()) == " ".join(rejected.text.split()):
        return "identical"
    if ranked:
        margin = _score(chosen) - _score(rejected)
        if margin == 0:
            return "tie"
        if margin < rule.min_margin:
            return "margin"
    return chosen, rejected


def _joined(said: Sequence[Answer], threads: Sequence[Thread]) -> dict[str, Answer]:
    """Answers by id, each of a thread that is there. Raises BadInput: what joins nothing would vanish unseen."""
    known, found = by_id(threads), by_id(said)
    for answer in said:
        if answer.thread not in known:
            raise BadInput(
                f"answer {answer.id!r} of {answer.generator!r} is to thread {answer.thread!r}, which is not there;"
                " run stage generated again"
            )
    if len(found) < len(said):
        twice = next(identity for identity, count in Counter(answer.id for answer in said).items() if count > 1)
        raise BadInput(
            f"answer {twice!r} of {found[twice].generator!r} stands twice; delete one, or run stage generated again"
        )
    return found


def _scores(verdicts: Iterable[Verdict], answers: Mapping[str, Answer]) -> dict[tuple[str, str], float]:
    """Scores by judge and answer. Raises BadInput for a verdict that joins no answer, or a second one of a judge."""
    found: dict[tuple[str, str], float] = {}
    seen = set()
    for verdict in verdicts:
        place = verdict.judge, verdict.answer
        if verdict.answer not in answers or answers[verdict.answer].thread != verdict.thread:
            what = f"is on answer {verdict.answer!r} to thread {verdict.thread!r}, which is not there"
            raise BadInput(f"verdict {verdict.id!r} of {verdict.judge!r} {what}; run stage scored again")
        if place in seen:
            raise BadInput(
                f"verdict {verdict.id!r} of {verdict.judge!r} is a second one on answer {verdict.answer!r};"
                " delete one, or run stage scored again"
            )
        seen.add(place)
        if verdict.outcome == "score" and verdict.score is not None:
            found[place] = verdict.score
    return found


def _check_cut(rule: Rule, pairs: Sequence[Pair], limit: float) -> None:
    cut = [pair.rejected.generator for pair in pairs if pair.rejected.finish == "length"]
    if len(cut) > limit * len(pairs):
        which = " and ".join(f"generated.{generator}.max_tokens" for generator in sorted(set(cut)))
        raise BadInput(
            f"pairs.rules: {rule.name}: {len(cut)} of {len(pairs)} rejected sides were cut at max_tokens, over"
            f" pairs.max_cut_rejected {limit:g}; raise {which}"
        )


def _named(name: str, sides: Sequence[Side]) -> list[Side]:
    if name in ("best", "worst"):
        return [side for side in sides if side.generator != "reference"]
    return [side for side in sides if side.generator == name]


def _says_something(text: str) -> bool:
    """Whether there is a character that can be seen, halves aside (U+FFFD, where an answer was cut inside one)."""
    return any(category(c)[0] not in "CZ" and c != "\ufffd" for c in text)


def _ranked(sides: Sequence[Side]) -> list[Side]:
    return sorted(sides, key=lambda side: (_score(side), side.answer))


def _score(side: Side) -> float:
    assert side.score is not None
    return side.score
