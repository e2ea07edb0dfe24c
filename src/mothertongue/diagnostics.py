"""What the pairs are like before anything is trained on them: lengths, margins, languages, likeness; limits."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from mothertongue import languages, overlap, significance
from mothertongue.errors import BadInput
from mothertongue.files import new_file, read_json_object
from mothertongue.judging.cards import Card, describe_missing, describe_sides, find_chosen, is_directed, is_like
from mothertongue.measurements import Estimate, SampleScore
from mothertongue.params import ASSUMPTION, Pairs, Rule
from mothertongue.records import Pair, RowCounts, Thread
from mothertongue.rows import Row, parse

NEAR_COPY = 80.0  # chrF++ of the rejected side to the chosen one, from which on a pair teaches hardly anything
BINS = 20  # of a histogram
SHOWN = ("train", "validation")
# Those of the report. Words and languages are of the chosen sides, then of the rejected.
COLUMNS = (
    "rule",
    "judge",
    "pairs: train",
    "validation",
    "words: chosen",
    "rejected",
    "longer",
    "right language: chosen",
    "rejected",
    "likeness",
    "near copies",
    "margin",
    "noise",
)


class SplitCounts(Row):
    """Pairs of one split, and how many of their rejected sides were cut at max_tokens."""

    pairs: int
    cut_rejected: int
    share: float


class Sides(Row):
    """A figure of the chosen sides, and of the rejected."""

    chosen: float
    rejected: float


class Distribution(Row):
    """Mean and quantiles."""

    mean: float
    p10: float
    p50: float
    p90: float


class TrainingPairs(Row):
    """What a rule's pairs of split train are like. Those of other splits are not looked at: they are measured later.

    A rule that nothing learns from is described by the pairs that it would give.
    """

    words: Sides
    longer_chosen: Estimate | None  # share of pairs whose chosen side has more words; None where all have equally many
    right_language: Sides  # share of sides whose likeliest language is the thread's
    similarity: Distribution  # chrF++ of the rejected side to the chosen one
    near_copies: int  # pairs with NEAR_COPY or more of it
    margin: Distribution | None  # of the judge's scores; None for a rule by assumption


class RulePairs(Row):
    """What a rule of section `pairs` has made."""

    judge: str
    basis: str  # why the chosen side is better: the judge's name, or assumption where none compares the two sides
    sources: dict[str, int]  # pairs by the source of their conversations
    threads: RowCounts  # kept: those with a pair that is written
    passed_over: int  # pairs whose judge scores an answer over the chosen side that was cut, or in another language
    languages: dict[str, int]
    splits: dict[str, SplitCounts]
    chosen_from: dict[str, int]  # pairs by generator
    rejected_from: dict[str, int]
    train: TrainingPairs | None  # None where there is no such pair
    # By language, of two answers that neither the judge nor people call equal, how often people prefer the other one;
    # for a rule that names the expert's answer, of those of which the judge prefers what the rule chooses. It is a
    # share of this rule's pairs as far as these are like the answers that people have judged. None where people have
    # judged nothing; empty where the basis is assumption, people or chrf.
    label_noise: dict[str, Estimate | None]
    missing: str  # what is not known of the judge, as cards.describe_missing words it


def describe_pairs(
    pairs: Sequence[Pair],
    unwritten: Sequence[Pair],
    counts: Mapping[str, RowCounts],
    rules: Sequence[Rule],
    threads: Sequence[Thread],
    sources: Mapping[str, str],
    agreed: Mapping[str, Mapping[str, Card | None]],
    passed_over: Mapping[str, int],
) -> dict[str, RulePairs]:
    """All of it by rule. `unwritten` are pairs as without `learned`, of which a rule that it leaves out is described.

    `sources` are those of conversations, `agreed` the cards of a rule's judge by language.
    """
    groups = {thread.id: thread.group for thread in threads}
    origins = {thread.id: sources[thread.conversation] for thread in threads}
    found = {}
    for rule in rules:
        made = [pair for pair in pairs if pair.rule == rule.name]
        train = [pair for pair in made if pair.split == "train"]
        train = train or [pair for pair in unwritten if pair.rule == rule.name and pair.split == "train"]
        basis = ASSUMPTION if rule.min_margin is None else rule.judge
        compared = agreed[rule.name] if basis == rule.judge else {}
        found[rule.name] = RulePairs(
            judge=rule.judge,
            basis=basis,
            sources=_count(origins[pair.thread] for pair in made),
            threads=counts[rule.name],
            passed_over=passed_over[rule.name],
            languages=_count(pair.language for pair in made),
            splits={split: _count_cut(made, split) for split in sorted({pair.split for pair in made})},
            chosen_from=_count(pair.chosen_from.generator for pair in made),
            rejected_from=_count(pair.rejected_from.generator for pair in made),
            train=describe_train(train, groups) if train else None,
            label_noise={code: _find_noise(card, rule) for code, card in compared.items()},
            missing=describe_missing(rule, agreed[rule.name]),
        )
    return found


def _count(names: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(names).items()))


def _count_cut(pairs: Sequence[Pair], split: str) -> SplitCounts:
    rows = [pair for pair in pairs if pair.split == split]
    cut = sum(pair.rejected_from.finish == "length" for pair in rows)
    return SplitCounts(pairs=len(rows), cut_rejected=cut, share=cut / len(rows))


def _find_noise(card: Card | None, rule: Rule) -> Estimate | None:
    row = card.raters["judge"] if card and is_like(card, rule) else {}
    directed = describe_sides(rule) == "expert" and is_directed(row)
    share = find_chosen(card, rule) if card and directed else row.get("agreement_decided")
    if share is None:
        return None
    return share.model_copy(update={"value": 1 - share.value, "low": 1 - share.high, "high": 1 - share.low})


def describe_train(pairs: Sequence[Pair], groups: Mapping[str, str]) -> TrainingPairs:
    """The figures of pairs, at least one. `groups` of threads are what the interval counts as one observation."""
    texts = [(pair.sides[0][0], pair.sides[1][0]) for pair in pairs]
    words = np.array([[len(languages.split_words(text)) for text in both] for both in texts], dtype=float)
    right = np.array(
        [[languages.is_in(text, pair.language) for text in both] for both, pair in zip(texts, pairs, strict=True)]
    )
    alike = [overlap.sentence_chrf(rejected, chosen) for chosen, rejected in texts]
    margins = [margin for pair in pairs if (margin := find_margin(pair)) is not None]
    longer = [
        SampleScore(
            id=pair.id,
            language=pair.language,
            group=groups[pair.thread],
            figure="longer_chosen",
            values=[float(one > other)],
            text="",
        )
        for pair, (one, other) in zip(pairs, words, strict=True)
        if one != other
    ]
    return TrainingPairs(
        words=Sides(chosen=words[:, 0].mean(), rejected=words[:, 1].mean()),
        longer_chosen=significance.estimate("share", longer, "") if longer else None,
        right_language=Sides(chosen=right[:, 0].mean(), rejected=right[:, 1].mean()),
        similarity=_distribute(alike),
        near_copies=sum(value >= NEAR_COPY for value in alike),
        margin=_distribute(margins) if margins else None,
    )


def check_limits(found: Mapping[str, RulePairs], params: Pairs) -> None:
    """Raises BadInput where the pairs of a rule pass a limit of section `pairs`, naming what to do."""
    if params.max_longer_chosen is None:
        return
    for name, rule in found.items():
        longer = rule.train.longer_chosen if rule.train and "train" in rule.splits else None
        if longer and longer.value > params.max_longer_chosen:
            raise BadInput(
                f"pairs.rules: {name}: in {longer.value:.2f} [{longer.low:.2f}, {longer.high:.2f}] of {longer.n} pairs"
                f" the chosen side is the longer one, over pairs.max_longer_chosen {params.max_longer_chosen:g}, so"
                " that length would be learned; lower pairs.max_length_ratio, or take another rule"
            )


def render_histogram(values: Sequence[float], name: str) -> str:
    """CSV for `dvc plots`: the middle of each of BINS bins, and the number of values in it."""
    lines = [f"{name},pairs"]
    if values:
        counts, edges = np.histogram(np.round(values, 9), bins=BINS)  # equal values may differ in their last bits
        middles = (edges[:-1] + edges[1:]) / 2
        lines += [f"{middle:.6g},{count}" for middle, count in zip(middles, counts, strict=True)]
    return "\n".join(lines if values else [*lines, "NaN,0"]) + "\n"


def render_histograms(pairs: Sequence[Pair], rules: Sequence[Rule]) -> dict[str, str]:
    """CSV files by path, words/<rule>.csv and margin/<rule>.csv, of pairs of split train.

    How many more words the chosen side has, and by how much the judge scores it over the other.
    """
    found = {}
    for rule in rules:
        rows = [pair for pair in pairs if pair.split == "train" and pair.rule == rule.name]
        words = [[len(languages.split_words(text)) for text, _ in pair.sides] for pair in rows]
        margins = [margin for pair in rows if (margin := find_margin(pair)) is not None]
        found[f"words/{rule.name}.csv"] = render_histogram([float(one - other) for one, other in words], "words")
        found[f"margin/{rule.name}.csv"] = render_histogram(margins, "margin")
    return found


def write_histograms(folder: Path, pairs: Sequence[Pair], rules: Sequence[Rule]) -> None:
    """Write the files of `render_histograms` into a folder."""
    for name, text in render_histograms(pairs, rules).items():
        with new_file(folder / name) as file:
            file.write(text.encode())


def find_margin(pair: Pair) -> float | None:
    """By how much the judge scores the chosen side over the rejected, in its unit; None where it scored nothing."""
    chosen, rejected = pair.chosen_from.score, pair.rejected_from.score
    return None if chosen is None or rejected is None else chosen - rejected


def _distribute(values: Sequence[float]) -> Distribution:
    p10, p50, p90 = (float(each) for each in np.quantile(values, (0.1, 0.5, 0.9)))
    return Distribution(mean=float(np.mean(values)), p10=p10, p50=p50, p90=p90)


def read_pairs(path: Path) -> dict[str, RulePairs]:
    """What the pairs stage wrote, by rule. Raises BadInput where the file is missing or broken."""
    written = read_json_object(path, "run stage pairs")
    return {name: parse(RulePairs, value, f"{path}: {name}") for name, value in written.items()}


def render_pairs(found: Mapping[str, RulePairs]) -> str:
    """Markdown: a row for each rule."""
    lines = [
        "Pairs, described in split train; a rule that nothing learns from by the pairs that it would give. Preference",
        "figures of all models are measured on the held-out pairs of all rules together. `longer`: share of pairs of",
        "different length whose chosen side has more words; far from 0.5, DPO learns length. `noise`: how often people",
        "prefer the other one of two answers that the judge ranks, where they have judged any; for a rule that names",
        "the expert's, of those in which the judge prefers what the rule chooses. `likeness`: chrF++ of the rejected",
        "side to the chosen one.",
        "",
        f"| {' | '.join(COLUMNS)} |",
        "|---|---|--:|--:|--:|--:|---|--:|--:|--:|--:|--:|---|",
    ]
    for name, rule in found.items():
        train_pairs, held_out = (rule.splits[each].pairs if each in rule.splits else 0 for each in SHOWN)
        head = f"| {name} | `{rule.judge}` | {train_pairs} | {held_out} | "
        noise = ", ".join(
            f"{code} {_share(row)}" if row else f"{code} not calibrated" for code, row in rule.label_noise.items()
        )
        if not (train := rule.train):
            lines.append(f"{head}{' | ' * 8}{noise or f'by {rule.basis}'} |")
            continue
        cells = (
            f"{train.words.chosen:.1f}",
            f"{train.words.rejected:.1f}",
            _share(train.longer_chosen) if train.longer_chosen else "–",
            f"{train.right_language.chosen:.3f}",
            f"{train.right_language.rejected:.3f}",
            f"{train.similarity.mean:.1f}",
            str(train.near_copies),
            f"{train.margin.mean:.2f}" if train.margin else "–",
            noise or f"by {rule.basis}",
        )
        lines.append(f"{head}{' | '.join(cells)} |")
    lines += ["", "Threads of all splits with a pair, and why the others have none:", ""]
    for name, rule in found.items():
        over = rule.passed_over
        above = f"; in {over} pairs an answer scored over the chosen side could not be the chosen side" if over else ""
        lines.append(f"- {name}: {rule.threads}{above}{rule.missing}")
    lines += [
        f"\nBy source, of all splits: `{name}` {', '.join(f'{source} {n}' for source, n in rule.sources.items())}."
        for name, rule in found.items()
        if len(rule.sources) > 1
    ]
    return "\n".join(lines) + "\n"


def _share(estimate: Estimate) -> str:
    return f"{estimate.value:.3f} [{estimate.low:.3f}, {estimate.high:.3f}]"
