"""Chosen and rejected sides out of answers and verdicts."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from mothertongue import languages
from mothertongue.params import Pairs, Rule
from mothertongue.records import Answer, Pair, Side, Tally, Thread, Verdict, by_id, reference_answer, row_id

REASONS = ("no_verdict", "empty", "cut", "wrong_language", "identical", "tie", "margin")


def paired(
    threads: Sequence[Thread], answers: Iterable[Answer], verdicts: Iterable[Verdict], params: Pairs, language: str
) -> tuple[list[Pair], dict[str, Tally]]:
    """At most one pair per thread and rule, and for each rule how many threads fell by which reason.

    Only verdicts with a score count: an answer that a judge could not score is never a side.
    """
    known = by_id(threads)
    candidates: dict[str, list[Answer]] = defaultdict(list)
    for answer in [*map(reference_answer, threads), *answers]:
        if answer.thread in known:
            candidates[answer.thread].append(answer)
    scores = {(v.judge, v.answer): v.score for v in verdicts if v.outcome == "score" and v.score is not None}

    pairs: list[Pair] = []
    tallies: dict[str, Tally] = {}
    for rule in params.rules:
        dropped = Counter(dict.fromkeys(REASONS, 0))
        before = len(pairs)
        for thread in sorted(threads, key=lambda thread: thread.id):
            sides = [
                Side(answer=a.id, generator=a.generator, text=a.text, finish=a.finish, score=score)
                for a in candidates[thread.id]
                if (score := scores.get((rule.judge, a.id))) is not None
            ]
            found = choose(rule, sides, language)
            if isinstance(found, str):
                dropped[found] += 1
                continue
            chosen, rejected = found
            pairs.append(
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
        tallies[rule.name] = Tally(taken=len(threads), kept=len(pairs) - before, dropped=dict(dropped))
    return pairs, tallies


def choose(rule: Rule, sides: Sequence[Side], language: str) -> tuple[Side, Side] | str:
    """The two sides that a rule names, or the reason why there is no pair.

    The chosen side is the best of those that say something in the right language and come to an end; the rejected side
    is the worst of those that say something (the best, for a rule that rejects `best`). Equal scores are settled by
    answer id.
    """
    pool = _named(rule.chosen, sides), _named(rule.rejected, sides)
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
    chosen = _ranked(right)[0 if rule.chosen == "worst" else -1]
    rejected = _ranked(spoken[1])[-1 if rule.rejected == "best" else 0]
    if " ".join(chosen.text.split()) == " ".join(rejected.text.split()):
        return "identical"
    margin = _score(chosen) - _score(rejected)
    if margin == 0:
        return "tie"
    if margin < rule.min_margin:
        return "margin"
    return chosen, rejected


def _named(name: str, sides: Sequence[Side]) -> list[Side]:
    if name in ("best", "worst"):
        return [side for side in sides if side.generator != "reference"]
    return [side for side in sides if side.generator == name]


def _says_something(text: str) -> bool:
    """Whether there is more than spaces and halves of characters (U+FFFD, where an answer was cut inside one)."""
    return bool(text.replace("\ufffd", "").strip())


def _ranked(sides: Sequence[Side]) -> list[Side]:
    return sorted(sides, key=lambda side: (_score(side), side.answer))


def _score(side: Side) -> float:
    assert side.score is not None
    return side.score
