"""A judge's agreement with people, beside that of people among themselves and of judges that cost nothing."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations

import numpy as np

from mothertongue import languages, overlap
from mothertongue.annotations import AnnotatedItem
from mothertongue.judging import agreement
from mothertongue.judging.agreement import Judged, PairKey, Ratings
from mothertongue.judging.cards import Card, Reliability
from mothertongue.measurements import Estimate
from mothertongue.records import Answer, Thread, row_id, unit_hash
from mothertongue.verdicts import Verdict

BINS = 5  # of the reliability curve


def build_threads(items: Sequence[AnnotatedItem]) -> tuple[list[Thread], list[Answer]]:
    """The items as threads and answers, which any judge can judge."""
    threads = [
        Thread(
            id=item.id,
            conversation=item.id,
            language=item.language,
            group=item.id,
            split="test",
            prompt=item.prompt,
            reference=None,
        )
        for item in items
    ]
    answers = [
        Answer(
            id=row_id(item.id, place),
            thread=item.id,
            generator="human",
            index=place,
            text=text,
            tokens=0,
            finish="stop",
        )
        for item in items
        for place, text in enumerate(item.answers)
    ]
    return threads, answers


def build_cards(
    items: Sequence[AnnotatedItem], verdicts: Sequence[Verdict], seed: int, signature: str
) -> dict[str, Card]:
    """A card for each language, and one for all together (key "") where there are several. Empty without items."""
    said = {verdict.answer: verdict for verdict in verdicts}
    codes = sorted({item.language for item in items})
    parts = {code: [item for item in items if item.language == code] for code in codes}
    parts |= {"": list(items)} if len(codes) > 1 else {}
    return {code: build_card(part, said, seed, signature) for code, part in parts.items()}


def build_card(items: Sequence[AnnotatedItem], said: Mapping[str, Verdict], seed: int, signature: str) -> Card:
    """The card over some items, from the judge's verdicts by answer id."""
    verdicts = {item.id: [said.get(row_id(item.id, place)) for place in range(len(item.answers))] for item in items}
    judge = {item: [each.score if each else None for each in row] for item, row in verdicts.items()}
    people = collect_people(items)
    majority = agreement.find_majority(agreement.prefer(each) for each in people.values())
    values = [value for row in judge.values() for value in row]
    raters = {
        name: measure_rater(items, ratings, people, majority, seed, signature)
        for name, ratings in {"judge": judge, **build_controls(items, judge)}.items()
    }
    if swapped := _find_swapped(verdicts):
        raters["judge"]["swap_consistency"] = agreement.estimate_share(swapped, signature)
    return Card(
        items=len(items),
        answers=len(values),
        unscored=sum(value is None for value in values),
        pairs=len(majority),
        no_majority=sum(choice is None for choice in majority.values()),
        raters=raters,
        people=compare_people(items, people, seed, signature),
        reliability=measure_reliability(judge, majority, signature),
    )


def collect_people(items: Sequence[AnnotatedItem]) -> dict[str, dict[str, list[float]]]:
    """Each person's ratings, by name."""
    found: dict[str, dict[str, list[float]]] = {}
    for item in items:
        for each in item.annotations:
            found.setdefault(each.annotator, {})[item.id] = each.values
    return dict(sorted(found.items()))


def build_controls(items: Sequence[AnnotatedItem], judge: Ratings) -> dict[str, Ratings]:
    """Judges that cost nothing: at random, the longer answer, the answer more like the question; and, `shuffled`, the
    judge's own ratings of another item with as many answers, in which there is nothing to find."""
    ordered = sorted(items, key=lambda item: unit_hash(item.id))
    others: dict[str, str] = {}
    for count in {len(item.answers) for item in items}:
        alike = [item.id for item in ordered if len(item.answers) == count]
        others |= dict(zip(alike, [*alike[1:], alike[0]], strict=True))
    return {
        "random": {item.id: [unit_hash(f"{item.id} {place}") for place in range(len(item.answers))] for item in items},
        "longer": {item.id: [float(_count_words(text)) for text in item.answers] for item in items},
        "question": {
            item.id: [overlap.sentence_chrf(text, item.prompt[-1].content) for text in item.answers] for item in items
        },
        "shuffled": {item.id: judge[others[item.id]] for item in items},
    }


def measure_rater(
    items: Sequence[AnnotatedItem],
    ratings: Ratings,
    people: Mapping[str, Ratings],
    majority: Mapping[PairKey, int | None],
    seed: int,
    signature: str,
) -> dict[str, Estimate]:
    """Agreement with the majority; `agreement_person`, with single people; correlation; and `longer`.

    Correlation is over answers that people gave scores. Where they only gave preferences, it is over pairs: the
    difference of the rater's two numbers, and the mean preference from -1 to 1. `longer` is the share of pairs in which
    the rater prefers the answer with more words, half a pair for a tie; pairs of like length do not count.
    """
    preferred = agreement.prefer(ratings)
    found = agreement.measure_agreement(agreement.join_preferences(preferred, majority), seed, signature)
    single = [row for each in people.values() for row in agreement.join_preferences(preferred, agreement.prefer(each))]
    if decided := [(row.item, 0.5 if not row.ours else float(row.ours == row.theirs)) for row in single if row.theirs]:
        found["agreement_person"] = agreement.estimate_share(decided, signature)
    found |= agreement.measure_correlation(_pair_numbers(items, ratings), seed, signature)
    if longer := _find_longer(items, preferred):
        found["longer"] = agreement.estimate_share(longer, signature)
    return found


def compare_people(
    items: Sequence[AnnotatedItem], people: Mapping[str, Ratings], seed: int, signature: str
) -> dict[str, dict[str, Estimate]]:
    """Each two people by name, and `people`: all such comparisons together, in both directions, which is the ceiling.

    A judge's `agreement_person` is measured like that `agreement`: against one person's word, not against a majority's.
    """
    preferred = {name: agreement.prefer(ratings) for name, ratings in people.items()}
    found = {}
    every: list[Judged] = []
    for one, other in combinations(preferred, 2):
        rows = agreement.join_preferences(preferred[one], preferred[other])
        turned = [Judged(row.item, row.theirs, row.ours) for row in rows]
        every += [*rows, *turned]
        found[f"{one} and {other}"] = agreement.measure_agreement(rows, seed, signature)
    majority = agreement.find_majority(preferred.values())
    longer = _find_longer(items, {key: choice for key, choice in majority.items() if choice is not None})
    together = agreement.measure_agreement(every, seed, signature)
    together |= {"longer": agreement.estimate_share(longer, signature)} if longer else {}
    return {"people": together, **found}


def measure_reliability(judge: Ratings, majority: Mapping[PairKey, int | None], signature: str) -> list[Reliability]:
    """Agreement with the majority by how far apart the judge's two scores are: about BINS bins of as many pairs each.

    Pairs of like distance are in one bin; the judge's ties are left out. A judge whose scores mean something agrees
    more where they are further apart.
    """
    rows: list[tuple[float, str, float]] = []
    for key, choice in sorted(agreement.prefer(judge).items()):
        one, other = judge[key[0]][key[1]], judge[key[0]][key[2]]
        if choice and majority.get(key) and one is not None and other is not None:
            rows.append((abs(one - other), key[0], float(choice == majority[key])))
    if not rows:
        return []
    distances = [row[0] for row in rows]
    edges = np.quantile(distances, np.arange(1, BINS) / BINS, method="higher")
    bins: dict[int, list[tuple[float, str, float]]] = {}
    for row in rows:
        bins.setdefault(int(np.searchsorted(edges, row[0], side="right")), []).append(row)
    found = []
    for _, part in sorted(bins.items()):
        share = agreement.estimate_share([row[1:] for row in part], signature)
        distance = sum(row[0] for row in part) / len(part)
        found.append(
            Reliability(distance=distance, agreement=share.value, low=share.low, high=share.high, pairs=share.n)
        )
    return found


def _find_swapped(verdicts: Mapping[str, Sequence[Verdict | None]]) -> list[tuple[str, float]]:
    """For each item a pairwise judge compared answers of, the share of comparisons that were alike in both orders."""
    found = []
    for item, row in sorted(verdicts.items()):
        given = [each for each in row if each]
        if compared := sum(each.compared for each in given):
            found.append((item, 1 - sum(each.flips for each in given) / compared))
    return found


def _pair_numbers(items: Sequence[AnnotatedItem], ratings: Ratings) -> list[Judged]:
    scored = [
        Judged(item.id, ours, theirs)
        for item in items
        for ours, theirs in zip(ratings[item.id], _mean_scores(item), strict=True)
        if ours is not None and theirs is not None
    ]
    if scored:
        return scored
    found = []
    for item in items:
        one, other = ratings[item.id]
        gaps = [first - second for first, second in (each.values for each in item.annotations)]
        if one is not None and other is not None:
            found.append(Judged(item.id, one - other, sum(gaps) / len(gaps)))
    return found


def _mean_scores(item: AnnotatedItem) -> list[float | None]:
    given = [each.scores for each in item.annotations if each.scores is not None]
    return [sum(column) / len(column) for column in zip(*given, strict=True)] if given else [None] * len(item.answers)


def _find_longer(items: Iterable[AnnotatedItem], preferred: Mapping[PairKey, int]) -> list[tuple[str, float]]:
    words = {item.id: [_count_words(text) for text in item.answers] for item in items}
    gaps = {key: words[key[0]][key[1]] - words[key[0]][key[2]] for key in sorted(preferred)}
    return [
        (key[0], 0.5 if not preferred[key] else float((preferred[key] > 0) == (gap > 0)))
        for key, gap in gaps.items()
        if gap
    ]


def _count_words(text: str) -> int:
    return len(languages.split_words(text))
