"""Preference pairs, by the rules in params.yaml, from answers and verdicts."""

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple
from unicodedata import category

from mothertongue import languages, overlap
from mothertongue.errors import BadInput
from mothertongue.params import ASSUMPTION, CHRF, PEOPLE, Pairs, Rule
from mothertongue.records import (
    Answer,
    Lineage,
    Message,
    Pair,
    RowCounts,
    Thread,
    rated_answers,
    reference_answer,
    row_id,
)
from mothertongue.rows import index_by_id
from mothertongue.verdicts import Verdict

REASONS = (
    "no_reference",
    "no_answer",
    "no_verdict",
    "empty",
    "too_short",
    "cut",
    "wrong_language",
    "alone",
    "identical",
    "tie",
    "reversed",
    "margin",
    "length",
    "similar",
    "contradictory",
    "repeated",
    "unequal",
    "not_learned",
    "per_thread",
)


class Candidate(NamedTuple):
    """An answer that may become a side of a pair, with its score by the judge of the rule."""

    answer: Answer
    score: float | None

    @property
    def message(self) -> Message:
        """The answer as a turn."""
        return Message(role="assistant", content=self.answer.text)

    @property
    def lineage(self) -> Lineage:
        """What a pair keeps of the answer besides its text."""
        answer = self.answer
        return Lineage(answer=answer.id, generator=answer.generator, finish=answer.finish, score=self.score)


def make_pairs(
    threads: Sequence[Thread], answers: Iterable[Answer], verdicts: Iterable[Verdict], params: Pairs
) -> tuple[list[Pair], dict[str, RowCounts]]:
    """At most one pair per thread and rule, and for each rule the number of threads dropped by each reason.

    Two experiments that differ in `learned` alone learn from the same threads where `equal_threads` is true, and from
    as many pairs with `per_thread` 1: what is compared is then the rules, and not how much is learned. These three
    count for split train only, so that both are measured on the same held-out pairs, those of all rules.
    Only verdicts with a score count: an answer that a judge could not score is never a side of a pair that it ranks.
    Rules by `people` choose among the answers that people rated, all others among those of the generators and the
    expert's; rules by `chrf` rank these by their chrF++ to the expert's.
    Raises BadInput for an answer or a verdict that joins nothing or is a duplicate, and where more of a rule's rejected
    sides were cut than `max_cut_rejected`: training on those would teach that long answers are bad.
    """
    experts = [reference_answer(thread) for thread in threads if thread.reference is not None]
    given = sorted([*experts, *answers], key=lambda answer: (answer.index, answer.id))
    scores = _index_scores(verdicts, _check_answers(given, threads))
    by_thread: dict[str, list[Answer]] = defaultdict(list)
    for answer in given:
        by_thread[answer.thread].append(answer)

    made: dict[str, dict[str, Pair]] = {rule.name: {} for rule in params.rules}  # by rule and thread
    reasons: dict[str, Counter[str]] = {rule.name: Counter(dict.fromkeys(REASONS, 0)) for rule in params.rules}
    for rule in params.rules:
        for thread in sorted(threads, key=lambda thread: thread.id):
            candidates = _find_candidates(rule, thread, by_thread[thread.id], scores)
            selected = select_pair(rule, candidates, thread.language, params.min_words)
            if not isinstance(selected, str):
                selected = _find_excess(*selected, params) or selected
            if isinstance(selected, str):
                reasons[rule.name][selected] += 1
            else:
                made[rule.name][thread.id] = _build_pair(thread, rule, *selected)
    for name, identity, reason in list(_select_unwanted(made, params)):
        del made[name][identity]
        reasons[name][reason] += 1
    for rule in params.rules:
        _check_cut(rule, list(made[rule.name].values()), params.max_cut_rejected)
    counts = {
        name: RowCounts(total=len(threads), kept=len(found), dropped=dict(reasons[name]))
        for name, found in made.items()
    }
    return [pair for found in made.values() for pair in found.values()], counts


def count_passed_over(
    pairs: Iterable[Pair],
    threads: Iterable[Thread],
    answers: Iterable[Answer],
    verdicts: Iterable[Verdict],
    rules: Sequence[Rule],
) -> dict[str, int]:
    """For each rule its pairs whose judge scores another answer over the chosen side, which could not be it.

    It was cut, for example: then `best` is the best of what is left.
    """
    given: dict[str, list[Answer]] = defaultdict(list)
    for answer in answers:
        given[answer.thread].append(answer)
    scores = {(row.judge, row.answer): row.score for row in verdicts if row.score is not None}
    asked, by_name = index_by_id(list(threads)), {rule.name: rule for rule in rules}
    counts = dict.fromkeys(by_name, 0)
    for pair in pairs:
        rule, least = by_name[pair.rule], pair.chosen_from.score
        if least is not None and rule.chosen != "worst":
            found = _find_candidates(rule, asked[pair.thread], given[pair.thread], scores)
            others = [each.score for each in _filter_by_name(rule.chosen, found) if each.score is not None]
            counts[rule.name] += max(others, default=least) > least
    return counts


def _find_candidates(
    rule: Rule, thread: Thread, answers: Sequence[Answer], scores: Mapping[tuple[str, str], float]
) -> list[Candidate]:
    """The answers that a rule chooses among, with their scores by its judge."""
    rated = [Candidate(a, people.score) for a, people in zip(rated_answers(thread), thread.rated, strict=True)]
    if rule.judge == PEOPLE:
        return rated
    if rule.judge == ASSUMPTION:
        return [*(Candidate(answer, None) for answer in answers), *rated]
    if rule.judge == CHRF and (expert := thread.reference) is not None:
        return [Candidate(answer, overlap.sentence_chrf(answer.text, expert)) for answer in answers]
    return [Candidate(answer, scores.get((rule.judge, answer.id))) for answer in answers]


def _find_excess(chosen: Candidate, rejected: Candidate, params: Pairs) -> str | None:
    """Which limit on the two sides together is passed, if any."""
    words = sorted(max(1, _count_words(each)) for each in (chosen, rejected))
    if params.max_length_ratio is not None and words[1] > params.max_length_ratio * words[0]:
        return "length"
    if params.max_similarity is None:
        return None
    alike = overlap.sentence_chrf(rejected.answer.text, chosen.answer.text)
    return "similar" if alike > params.max_similarity else None


def _select_unwanted(made: Mapping[str, Mapping[str, Pair]], params: Pairs) -> Iterator[tuple[str, str, str]]:
    """(rule, thread, reason) of each pair of split train that is not written although its rule made it."""
    made = {name: {k: pair for k, pair in found.items() if pair.split == "train"} for name, found in made.items()}
    for name, found in list(made.items()):
        seen = {_describe_sides(*pair.sides, pair) for pair in found.values()}
        against = {k for k, pair in found.items() if _describe_sides(*pair.sides[::-1], pair) in seen}
        for thread in against:  # rows of people who do not agree: neither is learned
            yield name, thread, "contradictory"
        distinct: dict[Hashable, str] = {}  # several rows with one preference, such as with other scores: one is enough
        for thread in sorted(found.keys() - against):
            if distinct.setdefault(_describe_sides(*found[thread].sides, found[thread]), thread) != thread:
                yield name, thread, "repeated"
        made[name] = {thread: found[thread] for thread in distinct.values()}
    common = set.intersection(*(set(found) for found in made.values()))
    kept: dict[str, list[tuple[str, str]]] = defaultdict(list)  # by thread: (id of a pair, its rule)
    for name, found in made.items():
        for thread, pair in found.items():
            if params.equal_threads and thread not in common:
                yield name, thread, "unequal"
            elif params.learned is not None and name not in params.learned:
                yield name, thread, "not_learned"
            else:
                kept[thread].append((pair.id, name))
    if params.per_thread is not None:
        for thread, several in kept.items():
            for _, name in sorted(several)[params.per_thread :]:
                yield name, thread, "per_thread"


def _describe_sides(one: tuple[str, Lineage], other: tuple[str, Lineage], pair: Pair) -> Hashable:
    """Question and sides, without the white space in which two rows of one text may differ."""
    prompt = tuple((message.role, *message.content.split()) for message in pair.prompt)
    return prompt, *(tuple(text.split()) for text, _ in (one, other))


def _build_pair(thread: Thread, rule: Rule, chosen: Candidate, rejected: Candidate) -> Pair:
    return Pair(
        id=row_id(thread.id, rule.name, chosen.answer.id, rejected.answer.id),
        thread=thread.id,
        language=thread.language,
        split=thread.split,
        rule=rule.name,
        judge=rule.judge,
        prompt=thread.prompt,
        chosen=[chosen.message],
        rejected=[rejected.message],
        chosen_from=chosen.lineage,
        rejected_from=rejected.lineage,
    )


def select_pair(
    rule: Rule, candidates: Sequence[Candidate], language: str, min_words: int = 1
) -> tuple[Candidate, Candidate] | str:
    """The chosen and the rejected candidate by a rule, or the reason why there is no pair.

    The chosen side is the best of those that have words, are in the language and ended by themselves; the rejected side
    is the worst of those that have words (the best, for a rule that rejects `best`). Answers with fewer words than
    `min_words` are no side. Where one answer would be both sides, the reason is `alone`; where the judge scores the
    rejected side over the chosen one, `reversed`. Equal scores are ordered by answer id. By assumption (RigoChat 2,
    arXiv 2503.08188: the expert's answer is the better one) there are no scores, and of several samples the first is
    taken; `candidates` are in the order of their index. Without a `min_margin` that holds for a side that is no rank:
    it needs no score.
    """
    ranked = rule.judge != ASSUMPTION
    assumed = rule.min_margin is None
    pool = [_filter_by_name(rule.chosen, candidates), _filter_by_name(rule.rejected, candidates)]
    if any(name == "reference" and not part for name, part in zip((rule.chosen, rule.rejected), pool, strict=True)):
        return "no_reference"
    if not all(pool):
        return "no_answer"
    if ranked:
        scored = [[each for each in part if each.score is not None] for part in pool]
        names = (rule.chosen, rule.rejected)
        pool = [
            part if assumed and name not in ("best", "worst") else some
            for name, part, some in zip(names, pool, scored, strict=True)
        ]
    if not all(pool):
        return "no_verdict"
    spoken = [[each for each in part if _has_words(each.answer.text)] for part in pool]
    if not all(spoken):
        return "empty"
    if min_words > 1:
        spoken = [[each for each in part if _count_words(each) >= min_words] for part in spoken]
    if not all(spoken):
        return "too_short"
    ended = [each for each in spoken[0] if each.answer.finish == "stop"]
    if not ended:
        return "cut"
    right = [each for each in ended if languages.is_in(each.answer.text, language)]
    if not right:
        return "wrong_language"
    if ranked:
        chosen = _rank(right)[0 if rule.chosen == "worst" else -1]
        rejected = _rank(spoken[1])[-1 if rule.rejected == "best" else 0]
    else:
        chosen, rejected = right[0], spoken[1][0]
    if chosen.answer.id == rejected.answer.id:
        return "alone"
    if chosen.answer.text.split() == rejected.answer.text.split():
        return "identical"
    if ranked and rule.min_margin is not None:
        margin = _score(chosen) - _score(rejected)
        if margin == 0:
            return "tie"
        if margin < rule.min_margin:
            return "reversed" if margin < 0 else "margin"
    return chosen, rejected


def _check_answers(given: Sequence[Answer], threads: Sequence[Thread]) -> dict[str, Answer]:
    """Answers by id. Raises BadInput for a duplicate, and for one to an unknown thread."""
    known, found = index_by_id(threads), index_by_id(given)
    for answer in given:
        if answer.thread not in known:
            raise BadInput(
                f"answer {answer.id!r} of {answer.generator!r} is to thread {answer.thread!r}, which is not there;"
                " run stage generated again"
            )
    if len(found) < len(given):
        twice = next(identity for identity, count in Counter(answer.id for answer in given).items() if count > 1)
        raise BadInput(
            f"answer {twice!r} of {found[twice].generator!r} is a duplicate; delete one, or run stage generated again"
        )
    return found


def _index_scores(verdicts: Iterable[Verdict], answers: Mapping[str, Answer]) -> dict[tuple[str, str], float]:
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
    cut = [pair.rejected_from.generator for pair in pairs if pair.rejected_from.finish == "length"]
    if len(cut) > limit * len(pairs):
        which = " and ".join(f"generated.{generator}.max_tokens" for generator in sorted(set(cut)))
        raise BadInput(
            f"pairs.rules: {rule.name}: {len(cut)} of {len(pairs)} rejected sides were cut at max_tokens, over"
            f" pairs.max_cut_rejected {limit:g}; raise {which}"
        )


def _filter_by_name(name: str, candidates: Sequence[Candidate]) -> list[Candidate]:
    """The candidates that a rule may take for one side: those of one generator; all but the expert's for a rank.

    Of the answers that a source rated the one with the best or the worst score; none where all have the same.
    """
    if name in ("rated_best", "rated_worst"):
        rated = _rank([each for each in candidates if each.answer.generator == PEOPLE])
        spread = bool(rated) and _score(rated[0]) < _score(rated[-1])
        return [rated[-1 if name == "rated_best" else 0]] if spread else []
    if name in ("best", "worst"):
        return [each for each in candidates if each.answer.generator != "reference"]
    return [each for each in candidates if each.answer.generator == name]


def _has_words(text: str) -> bool:
    """Whether there is a visible character other than U+FFFD, which is where an answer was cut inside a character."""
    return any(category(c)[0] not in "CZ" and c != "\ufffd" for c in text)


def _count_words(candidate: Candidate) -> int:
    return len(languages.split_words(candidate.answer.text))


def _rank(candidates: Sequence[Candidate]) -> list[Candidate]:
    """By score, the worst first; before them those without a score, which only a side by assumption may have."""
    return sorted(candidates, key=lambda each: (each.score is not None, each.score or 0.0, each.answer.id))


def _score(candidate: Candidate) -> float:
    assert candidate.score is not None
    return candidate.score
