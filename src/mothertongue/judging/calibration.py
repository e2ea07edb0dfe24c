"""A judge's agreement with people, beside that of people among themselves and of judges that cost nothing."""

import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from mothertongue import languages, overlap
from mothertongue.annotations import AnnotatedItem
from mothertongue.judging import agreement
from mothertongue.judging.agreement import Judged, PairKey, Preferences, Ratings
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
            group=item.group,
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


@dataclass(frozen=True, slots=True)
class People:
    """What people said of some items."""

    items: Sequence[AnnotatedItem]
    ratings: Mapping[str, Ratings]  # by person
    majority: Mapping[PairKey, int | None]
    groups: Mapping[str, str]  # by item
    seed: int  # of the bootstrap
    signature: str


def read_people(items: Sequence[AnnotatedItem], seed: int, signature: str) -> People:
    """Everybody's ratings, and what most of them prefer in each pair."""
    ratings: dict[str, dict[str, list[float]]] = {}
    for item in items:
        for each in item.annotations:
            ratings.setdefault(each.annotator, {})[item.id] = each.values
    majority = agreement.find_majority(agreement.prefer(each) for each in ratings.values())
    groups = {item.id: item.group for item in items}
    return People(items, dict(sorted(ratings.items())), majority, groups, seed, signature)


def build_cards(
    items: Sequence[AnnotatedItem],
    verdicts: Sequence[Verdict],
    own: Collection[str],
    seed: int,
    sign: Callable[[Sequence[str]], str],
) -> dict[str, Card]:
    """A card for each language, and one for all together (key "") where there are several. Empty without items.

    `own` are the generators that have the judge's own model; `sign` gives the signature for some languages.
    """
    said = {verdict.answer: verdict for verdict in verdicts}
    codes = sorted({item.language for item in items})
    parts = {code: [item for item in items if item.language == code] for code in codes}
    cards = {
        code: build_card(read_people(part, seed, _sign(sign([code]), part)), said, own) for code, part in parts.items()
    }
    together = read_people(items, seed, _sign(sign(codes), items)) if len(codes) > 1 else None
    return cards | ({"": build_card(together, said, own)} if together else {})


def _sign(judge: str, items: Sequence[AnnotatedItem]) -> str:
    """A judge's signature with what people have judged, and how: agreement on other answers is another figure."""
    return json.dumps({"judge": judge, "people": row_id([item.model_dump() for item in items])}, sort_keys=True)


def leave_out_test(items: Sequence[AnnotatedItem], threads: Iterable[Thread]) -> tuple[list[AnnotatedItem], int]:
    """Items that open like no thread of split test, and the number of others: judges are chosen by what people say."""
    held_out = {thread.group for thread in threads if thread.split == "test"}
    kept = [item for item in items if item.group not in held_out]
    return kept, len(items) - len(kept)


def build_card(people: People, said: Mapping[str, Verdict], own: Collection[str]) -> Card:
    """The card over some items, from the judge's verdicts by answer id."""
    verdicts = {item.id: [said.get(row_id(item.id, n)) for n in range(len(item.answers))] for item in people.items}
    judge = {item: [each.score if each else None for each in row] for item, row in verdicts.items()}
    values = [(people.groups[item], float(value is None)) for item, row in judge.items() for value in row]
    ratings = {"judge": judge, **build_controls(people, judge)}
    raters = {name: measure_rater(people, each, own) for name, each in ratings.items()}
    raters["judge"] |= compare_controls(people, ratings, people.majority)
    raters["judge"]["unscored"] = agreement.estimate_share(values, people.signature)
    if swapped := _find_swapped(people, verdicts):
        raters["judge"]["swap_consistency"] = agreement.estimate_share(swapped, people.signature)
    return Card(
        items=len(people.items),
        answers=len(values),
        unscored=sum(value is None for row in judge.values() for value in row),
        pairs=len(people.majority),
        undecided=sum(not choice for choice in people.majority.values()),
        raters=raters,
        people=compare_people(people, own),
        sides=measure_sides(people, ratings),
        reliability=measure_reliability(people, judge),
    )


def build_controls(people: People, judge: Ratings) -> dict[str, Ratings]:
    """Judges that cost nothing: at random, the longer answer, the answer more like the question; and `shuffled`, in
    which there is nothing to find: the judge's own ratings of another item's answers, as many, in another order.

    An item without such another one has no rating there.
    """
    items = people.items
    ordered = sorted(items, key=lambda item: unit_hash(item.id))
    shuffled: dict[str, Sequence[float | None]] = {}
    for place, item in enumerate(ordered):
        count = len(item.answers)
        others = (each for each in (*ordered[place + 1 :], *ordered[:place]) if len(each.answers) == count)
        donor = next((each for each in others if each.group != item.group), None)
        order = sorted(range(count), key=lambda n: unit_hash(f"{item.id} {n}"))
        shuffled[item.id] = [judge[donor.id][n] if donor else None for n in order]
    return {
        "random": {item.id: [unit_hash(f"{item.id} {n}") for n in range(len(item.answers))] for item in items},
        "longer": {item.id: [float(_count_words(text)) for text in item.answers] for item in items},
        "question": {
            item.id: [overlap.sentence_chrf(text, item.prompt[-1].content) for text in item.answers] for item in items
        },
        "shuffled": shuffled,
    }


def measure_rater(people: People, ratings: Ratings, own: Collection[str]) -> dict[str, Estimate]:
    """Agreement with the majority; `agreement_person`, with single people; correlation; `longer` and `own`.

    Correlation is with people's mean score, over answers; where nobody gave a score, with the mean preference from -1
    to 1, over pairs. `longer` is the share of pairs in which the rater prefers the answer with more words, `own` that
    in which it prefers the answer of the judge's own model, half a pair for a tie.
    """
    preferred = agreement.prefer(ratings)
    joined = agreement.join_preferences(preferred, people.majority, people.groups)
    single = [
        row
        for each in people.ratings.values()
        for row in agreement.join_preferences(preferred, agreement.prefer(each), people.groups)
    ]
    found = agreement.measure_agreement(joined, people.seed, people.signature)
    found |= measure_all(people, preferred, people.majority)
    if decided := [(row.group, 0.5 if not row.ours else float(row.ours == row.theirs)) for row in single if row.theirs]:
        found["agreement_person"] = agreement.estimate_share(decided, people.signature)
    found |= agreement.measure_correlation(_pair_numbers(people, ratings), people.seed, people.signature)
    return found | _measure_leanings(people, preferred, own)


def measure_all(people: People, preferred: Preferences, keys: Collection[PairKey]) -> dict[str, Estimate]:
    """`agreement_all`: agreement with the majority over some pairs, half a pair where the rater has no score."""
    said = [(key, choice) for key in sorted(keys) if (choice := people.majority[key])]
    rows = [(people.groups[key[0]], float(preferred.get(key) == choice) if preferred.get(key) else 0.5)
            for key, choice in said]  # fmt: skip
    return {"agreement_all": agreement.estimate_share(rows, people.signature)} if rows else {}


def measure_sides(people: People, ratings: Mapping[str, Ratings]) -> dict[str, dict[str, dict[str, Estimate]]]:
    """Agreement of each rater over pairs with an expert's answer, and over those without; where origins are known.

    `with_unknown` is the agreement with pairs of unknown origin added: these would else count nowhere as soon as one
    other has origins. A kind of which most people prefer neither answer in all pairs is not there.
    """
    origins = {item.id: item.origins for item in people.items}
    found: dict[str, dict[str, dict[str, Estimate]]] = {}
    for kind, experts in (("expert", 1), ("generated", 0)):
        named = {key: row for key in people.majority if (row := origins[key[0]])}
        known = {key for key, row in named.items() if sum(row[place] == "reference" for place in key[1:]) == experts}
        unknown = people.majority.keys() - named.keys()
        if not any(people.majority[key] for key in known):  # where people prefer neither, nothing is to be agreed on
            continue
        for name, each in ratings.items():
            preferred = agreement.prefer(each)
            measured = _measure_over(people, preferred, known)
            measured |= measure_all(people, preferred, known)
            if unknown and (share := _measure_over(people, preferred, known | unknown).get("agreement")):
                measured["with_unknown"] = share
            if kind == "expert":
                first = {key: named[key][key[1]] == "reference" for key in known}
                measured |= _measure_chosen(people, preferred, first)
            found.setdefault(kind, {})[name] = measured
        found[kind]["judge"] |= compare_controls(people, ratings, known)
    return found


def _measure_over(people: People, preferred: Preferences, keys: Collection[PairKey]) -> dict[str, Estimate]:
    rows = agreement.join_preferences(preferred, {key: people.majority[key] for key in keys}, people.groups)
    return agreement.measure_agreement(rows, people.seed, people.signature)


def compare_controls(people: People, ratings: Mapping[str, Ratings], keys: Collection[PairKey]) -> dict[str, Estimate]:
    """`over_longer` and `over_question`: how much more the judge agrees than these controls, over the same pairs.

    (1 + difference of the two agreements) / 2, so that it is a share, and 0.5 where both agree equally often.
    """
    preferred = {name: agreement.prefer(ratings[name]) for name in ("judge", "longer", "question")}
    decided = [(key, theirs) for key in sorted(keys) if (theirs := people.majority[key]) and key in preferred["judge"]]

    def score(name: str, key: PairKey, theirs: int) -> float:
        return 0.5 if not preferred[name][key] else float(preferred[name][key] == theirs)

    found = {}
    for name in ("longer", "question"):
        rows = [
            (people.groups[key[0]], (1 + score("judge", key, theirs) - score(name, key, theirs)) / 2)
            for key, theirs in decided
        ]
        if rows:
            found[f"over_{name}"] = agreement.estimate_share(rows, people.signature)
    return found


def _measure_chosen(people: People, preferred: Preferences, first: Mapping[PairKey, bool]) -> dict[str, Estimate]:
    """`for_expert`: of the pairs whose expert's answer a rater prefers, the share in which most people do as well.

    `against_expert` is the same of the other answers. `first` says of each pair whether the expert's is its first.
    """
    rows: dict[str, list[tuple[str, float]]] = {"for_expert": [], "against_expert": []}
    for key, is_first in sorted(first.items()):
        if (ours := preferred.get(key)) and (theirs := people.majority[key]):
            name = "for_expert" if (ours > 0) == is_first else "against_expert"
            rows[name].append((people.groups[key[0]], float(ours == theirs)))
    return {name: agreement.estimate_share(each, people.signature) for name, each in rows.items() if each}


def compare_people(people: People, own: Collection[str]) -> dict[str, dict[str, Estimate]]:
    """Each two people by name, and `people`: all such comparisons together, in both directions, and counted once.

    A judge's `agreement_person` is measured like that `agreement`: against one person's word, not against a majority's.
    Of all together, kappa has what all people say for both of its margins (Scott 1955).
    """
    preferred = {name: agreement.prefer(ratings) for name, ratings in people.ratings.items()}
    found = {}
    every: list[Judged] = []
    for one, other in combinations(preferred, 2):
        rows = agreement.join_preferences(preferred[one], preferred[other], people.groups)
        every += [*rows, *(Judged(row.group, row.theirs, row.ours) for row in rows)]
        found[f"{one} and {other}"] = agreement.measure_agreement(rows, people.seed, people.signature)
    both = agreement.measure_agreement(every, people.seed, people.signature)
    counts = {name: row.n // 2 for name, row in both.items()}
    if "agreement" in counts:  # of two people, one may prefer neither
        counts["agreement"] = sum(bool(row.ours or row.theirs) for row in every) // 2
    together = {name: row.model_copy(update={"n": counts[name]}) for name, row in both.items()}
    most = {key: choice for key, choice in people.majority.items() if choice is not None}
    return {"people": together | _measure_leanings(people, most, own), **found}


def measure_reliability(people: People, judge: Ratings) -> list[Reliability]:
    """Agreement with the majority by how far apart the judge's two scores are: about BINS bins of as many pairs each.

    Pairs of like distance are in one bin; the judge's ties are left out. A judge whose scores mean something agrees
    more where they are further apart.
    """
    rows: list[tuple[float, str, float]] = []
    for key, choice in sorted(agreement.prefer(judge).items()):
        one, other = judge[key[0]][key[1]], judge[key[0]][key[2]]
        if choice and people.majority.get(key) and one is not None and other is not None:
            rows.append((abs(one - other), people.groups[key[0]], float(choice == people.majority[key])))
    if not rows:
        return []
    edges = np.quantile([row[0] for row in rows], np.arange(1, BINS) / BINS, method="higher")
    bins: dict[int, list[tuple[float, str, float]]] = {}
    for row in rows:
        bins.setdefault(int(np.searchsorted(edges, row[0], side="right")), []).append(row)
    found = []
    for _, part in sorted(bins.items()):
        share = agreement.estimate_share([row[1:] for row in part], people.signature)
        distance = sum(row[0] for row in part) / len(part)
        found.append(
            Reliability(distance=distance, agreement=share.value, low=share.low, high=share.high, pairs=share.n)
        )
    return found


def _find_swapped(people: People, verdicts: Mapping[str, Sequence[Verdict | None]]) -> list[tuple[str, float]]:
    """For each item whose answers a pairwise judge compared, the share of comparisons alike in both orders."""
    found = []
    for item, row in sorted(verdicts.items()):
        given = [each for each in row if each]
        if compared := sum(each.compared for each in given):
            found.append((people.groups[item], 1 - sum(each.flips for each in given) / compared))
    return found


def _pair_numbers(people: People, ratings: Ratings) -> list[Judged]:
    found = []
    if any(each.scores is not None for item in people.items for each in item.annotations):
        scores = _standardize_scores(people.items)
        for item in people.items:
            found += [
                Judged(item.group, ours, theirs)
                for ours, theirs in zip(ratings[item.id], scores[item.id], strict=True)
                if ours is not None and theirs is not None
            ]
        return found
    for item in people.items:  # of two answers each, because each has a preference
        one, other = ratings[item.id]
        gaps = [first - second for first, second in (each.values for each in item.annotations)]
        if one is not None and other is not None:
            found.append(Judged(item.group, one - other, sum(gaps) / len(gaps)))
    return found


def _standardize_scores(items: Sequence[AnnotatedItem]) -> dict[str, list[float | None]]:
    """The mean of people's scores of each answer, each person's scaled to mean 0 and variance 1 (Graham et al. 2013).

    People use scales of their own, and not everybody judges every item. None where nobody gave a score.
    """
    given: dict[str, list[float]] = {}
    for item in items:
        for each in item.annotations:
            given.setdefault(each.annotator, []).extend(each.scores or [])
    scale = {name: (float(np.mean(row)), float(np.std(row)) or 1.0) for name, row in given.items() if row}
    found: dict[str, list[float | None]] = {}
    for item in items:
        rows = [
            [(score - scale[each.annotator][0]) / scale[each.annotator][1] for score in each.scores]
            for each in item.annotations
            if each.scores is not None
        ]
        found[item.id] = [sum(column) / len(column) for column in zip(*rows, strict=True)] or [None] * len(item.answers)
    return found


def _measure_leanings(people: People, preferred: Preferences, own: Collection[str]) -> dict[str, Estimate]:
    """How often the answer with more words is preferred, and that of the judge's own model."""
    by_id = {item.id: item for item in people.items}
    rows: dict[str, list[tuple[str, float]]] = {"longer": [], "own": []}
    for (item, i, j), choice in sorted(preferred.items()):
        answers, origins = by_id[item].answers, by_id[item].origins
        lead = {"longer": _count_words(answers[i]) - _count_words(answers[j])}
        if origins:
            lead["own"] = (origins[i] in own) - (origins[j] in own)
        for name, gap in lead.items():
            if gap:
                rows[name].append((people.groups[item], 0.5 if not choice else float((choice > 0) == (gap > 0))))
    return {name: agreement.estimate_share(each, people.signature) for name, each in rows.items() if each}


def _count_words(text: str) -> int:
    return len(languages.split_words(text))
