"""Calibration cards: what they are, whether a judge may rank answers for pairs, and how the report shows them."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from mothertongue.errors import BadInput
from mothertongue.files import read_json_object
from mothertongue.measurements import Estimate
from mothertongue.params import CALIBRATED, WITHOUT_MODEL, Model, Rule
from mothertongue.rows import Row, parse

FIGURES = (
    "agreement",
    "agreement_person",
    "kappa",
    "pearson",
    "spearman",
    "kendall",
    "longer",
    "own",
    "swap_consistency",
)
SIDED = ("with_unknown", "for_expert", "against_expert")  # shown where the origins of answers are known


class Reliability(Row):
    """Agreement with people over pairs whose two scores are about as far apart, with its 95 % interval."""

    distance: float  # mean, in the judge's unit
    agreement: float
    low: float
    high: float
    pairs: int


class Card(Row):
    """One judge against people in one language; figures are those of calibration.measure_rater."""

    items: int
    answers: int
    unscored: int  # answers without a score by the judge
    pairs: int  # of answers to one question that a person has judged
    undecided: int  # pairs of which most people say that neither is better, or there is no majority
    raters: dict[str, dict[str, Estimate]]  # the judge, and its controls
    people: dict[str, dict[str, Estimate]]  # among themselves: all together, and each two
    # Agreement of each rater by what is compared, where origins are known: `expert` for an expert's answer and a
    # generator's, `generated` for two of generators.
    sides: dict[str, dict[str, dict[str, Estimate]]]
    reliability: list[Reliability]


def read_cards(folder: Path, judges: Iterable[str]) -> dict[str, dict[str, Card]]:
    """The cards of each judge by language as stage calibrated wrote them. Empty where people have judged nothing."""
    found = {}
    for judge in judges:
        path = folder / f"{judge}.json"
        written = read_json_object(path, "run stage calibrated")["cards"]
        found[judge] = {
            code: parse(Card, value, f"{path}: {code or 'all languages'}") for code, value in written.items()
        }
    return found


def choose_judges(
    found: Mapping[str, Mapping[str, Card]], rules: Iterable[Rule], languages: Sequence[str]
) -> list[Rule]:
    """The rules, with a judge where one says `calibrated`: the judge that agrees best with people.

    That is the highest lower bound of what stage pairs holds it against, with `agreement_all` for `agreement`: there a
    pair without a score is half a pair, so that not to answer is no advantage. Of each judge it is the lowest bound of
    all languages. A judge that cannot be compared with
    people in a language in which another can is not taken. Of equal ones, and where people have judged nothing, it is
    the first by name: DVC does not see the order of a map. Raises BadInput where two rules are then the same.
    """

    def find_bound(judge: str, rule: Rule) -> float:
        known = [code for code in languages if any(code in by_language for by_language in found.values())]
        cards = [select_card(found[judge].get(code), rule) for code in known]
        rows = [share for card in cards for share in (_list_bounds(card, rule) if card else [None])]
        return min((row.low if row else -1.0 for row in rows), default=0.0)

    chosen = []
    for rule in rules:
        if rule.judge == CALIBRATED:
            bounds = {judge: find_bound(judge, rule) for judge in sorted(found)}
            rule = rule.model_copy(update={"judge": max(bounds, key=lambda judge: bounds[judge])})
        chosen.append(rule)
    seen: dict[str, Rule] = {}
    for rule in chosen:
        same = seen.setdefault(rule.model_copy(update={"name": ""}).model_dump_json(), rule)
        if same is not rule:
            raise BadInput(
                f"pairs.rules: {same.name} and {rule.name} are the same rule, both by judge {rule.judge}; delete one"
            )
    return chosen


def list_equal_models(models: Mapping[str, Model], name: str) -> set[str]:
    """The names of the fetched models that are the same as one: two names of one model judge themselves, too."""

    def identify(model: Model | None) -> object:
        """What a model is, without how it is computed or asked."""
        fields = ("source", "url", "id", "revision")
        return model and [getattr(model, field, None) for field in fields]

    return {name} | {other for other, model in models.items() if identify(model) == identify(models.get(name))}


def _list_bounds(card: Card, rule: Rule) -> list[Estimate | None]:
    """The shares of which a judge with the lowest bound is chosen; None where it cannot be compared with people."""
    row = card.raters["judge"]
    more = (row.get("with_unknown"), find_chosen(card, rule))
    return [row.get("agreement_all"), *(share for share in more if share)]


def select_card(card: Card | None, rule: Rule) -> Card | None:
    """A card with the figures over such pairs as a rule makes: with an expert's answer, or without.

    Over all pairs where people have judged no such pair, or origins are not known.
    """
    if card is None or not is_like(card, rule) or not card.sides:
        return card
    return card.model_copy(update={"raters": card.raters | card.sides[describe_sides(rule)]})


def is_like(card: Card, rule: Rule) -> bool:
    """Whether people have judged pairs such as a rule makes, as far as is known.

    Who tells an expert from a model need not tell two models apart.
    """
    return not card.sides or describe_sides(rule) in card.sides


def describe_sides(rule: Rule) -> str:
    """`expert` where the judge of a rule compares an expert's answer with a generator's, else `generated`."""
    return "expert" if rule.min_margin is not None and "reference" in (rule.chosen, rule.rejected) else "generated"


def check_agreement(
    found: Mapping[str, Mapping[str, Card]], rules: Iterable[Rule], languages: Sequence[str], least: float
) -> dict[str, dict[str, Card | None]]:
    """For each rule and language the card of its judge as select_card has it; None where people have judged nothing.

    A rule by assumption, people or chrf has no such judge, so nothing. Raises BadInput where a judge's agreement with
    people is under `least` at the lower bound of its interval, and where there is none although people have judged
    answers: over pairs like the rule's, or over all where people have judged none of those.
    """
    agreed: dict[str, dict[str, Card | None]] = {}
    for rule in rules:
        agreed[rule.name] = {}
        for code in languages if rule.judge not in WITHOUT_MODEL else ():
            card = agreed[rule.name][code] = select_card(found[rule.judge].get(code), rule)
            # Without pairs like the rule's, a judge need not agree on them, but one that fails on others is not taken.
            if card:
                _check_card(card, rule, code, least)
    return agreed


def _check_card(card: Card, rule: Rule, code: str, least: float) -> None:
    where, row = f"pairs.rules: {rule.name}: judge {rule.judge}", card.raters["judge"]
    if "agreement" not in row:
        raise BadInput(
            f"{where} cannot be compared with people ({code}): of {card.answers} answers it has no score for"
            f" {card.unscored}, and in {card.undecided} of {card.pairs} pairs most people prefer neither, or"
            " there is no majority; take another judge, or have more pairs annotated"
        )
    kind = describe_sides(rule) if card.sides and is_like(card, rule) else ""
    over = f"{f' {kind}' if kind else ''} pairs ({code})"
    shares = [
        (
            row["agreement"],
            f"agrees with people on {{}} of {{}}{over}",
            ", with `origins` in their rows" if card.sides else "",
        ),
        (row.get("with_unknown"), f"agrees with people on {{}} of {{}}{over}, with those of unknown origin", ""),
        (find_chosen(card, rule), f"prefers what the rule chooses, and people do as well in {{}} of {{}}{over}", ""),
    ]
    for share, text, more in shares:
        if share and share.low < least:
            said = text.format(_format(share, share, 2), share.n)
            raise BadInput(
                f"{where} {said}, and the lower bound is under calibrated.min_agreement {least:g}; take another judge,"
                f" or have more answers annotated{more}"
            )


def find_chosen(card: Card, rule: Rule) -> Estimate | None:
    """How often people prefer what a judge prefers, of the pairs in which it prefers the side that the rule chooses.

    Such pairs are all that a rule makes that names the expert's answer: people who nearly always prefer the expert
    agree with every judge there. None for other rules, and where people have judged none.
    """
    if rule.min_margin is None or "reference" not in (rule.chosen, rule.rejected):
        return None
    return card.raters["judge"].get("for_expert" if rule.chosen == "reference" else "against_expert")


def is_directed(row: Mapping[str, Estimate]) -> bool:
    """Whether a judge's figures are known by the side that it prefers."""
    return "for_expert" in row or "against_expert" in row


def describe_agreement(found: Mapping[str, Card]) -> str:
    """Words for a judge's agreement with people in each language."""
    parts = []
    for code, card in sorted(found.items()):
        kinds = {kind: raters["judge"] for kind, raters in card.sides.items()}
        for kind, row in {"": card.raters["judge"], **kinds}.items():
            share = row.get("agreement")
            found_in = f"{_format(share, share)} of {share.n}" if share else "–"
            parts.append(f"{code or 'all'}{f' {kind}' if kind else ''} {found_in}")
        if (every := card.raters["judge"].get("agreement_all")) and card.unscored:
            silent = f"{card.unscored} of {card.answers} answers without a score"
            parts.append(f"{silent}: with such pairs as half a pair {_format(every, every)} of {every.n}")
    return f"agreement {', '.join(parts)}" if parts else "not calibrated"


def describe_missing(rule: Rule, agreed: Mapping[str, Card | None]) -> str:
    """Words for what is not known of a rule's judge, by language; empty where there is nothing.

    That it was not compared with people on such pairs, or on none in which it prefers what the rule chooses; that it
    has no score for some answers that people have judged; that it is not shown to agree more than a judge that costs
    nothing, over the same pairs.
    """
    missing = ", ".join(code for code, card in agreed.items() if card is None or not is_like(card, rule))
    text = f"; the judge is not calibrated on {describe_sides(rule)} pairs ({missing})" if missing else ""
    for code, card in agreed.items():
        row = card.raters["judge"] if card else {}
        if card and is_directed(row) and not find_chosen(card, rule) and describe_sides(rule) == "expert":
            text += f"; people have judged no pair in which the judge prefers what the rule chooses ({code})"
        if card and card.unscored:
            text += f"; no score for {card.unscored} of {card.answers} answers that people have judged ({code})"
        for name in ("longer", "question"):
            if (gain := row.get(f"over_{name}")) and gain.low <= 0.5:
                value = row["agreement"].value - (2 * gain.value - 1)  # of the control, over the same pairs
                text += f"; not shown to agree more than `{name}`, {value:.2f} ({code})"
    return text


def read_left_out(folder: Path, judges: Iterable[str]) -> int:
    """How many items that people have judged were left out, as stage calibrated wrote it: the same for each judge."""
    paths = [folder / f"{judge}.json" for judge in judges]
    return max((int(read_json_object(path, "run stage calibrated")["left_out"]) for path in paths), default=0)


def render_cards(found: Mapping[str, Mapping[str, Card]], left_out: int = 0) -> str:
    """Markdown: each judge against people, beside people among themselves and judges that cost nothing."""
    without = ", ".join(f"`{judge}`" for judge, cards in sorted(found.items()) if not cards)
    others = f" but {left_out} items on questions of split test" if left_out else ""
    lines = [f"Not calibrated, as people have judged nothing in data/human{others}: {without}.", ""] if without else []
    if left_out and not without:
        lines += [f"Of what people have judged, {left_out} items on questions of split test are left out.", ""]
    if all(not cards for cards in found.values()):
        return "\n".join(lines)
    lines += [
        "Judges against people. `agreement`: of the pairs in which most people prefer one answer, the share in which",
        "the rater prefers the same (ties half; 0.5 is chance). `agreement_person`: the same against single people; of",
        "people, how often two of them agree. `kappa`: agreement with the majority beyond chance, ties included; of",
        "people, of two of them. Correlations are with people's mean score, or over pairs with their mean preference.",
        "`longer`: how often the rater prefers the longer answer. `swap_consistency`: how often a judge that compares",
        "two answers says the same when they change places; where it does not, they are a tie. `own`: how often the",
        "answer of the judge's own model is preferred. Controls: an answer at random, the longer one, the one more",
        "like the question, and the judge's own scores of another question's answers in another order (`shuffled`). n",
        "is that of a row's first figure, in brackets groups of items that open alike; another n follows its figure.",
    ]
    sided = any(card.sides for cards in found.values() for card in cards.values())
    figures = (*FIGURES, *(SIDED if sided else ()))
    lines += [
        "Where the origins of answers are known, `expert` are pairs with an expert's answer, `generated` those",
        "without, and a rule of `pairs` is held against those like its own. `with_unknown`: agreement with pairs of",
        "unknown origin added. `for_expert`, `against_expert`: where the rater prefers the expert's, or the other one.",
    ] * sided
    lines += [
        "",
        f"| judge | rater | n | {' | '.join(f'`{name}`' for name in figures)} | `unscored` |",
        f"|---|---|--:{'|---' * len(figures)}|--:|",
    ]
    for judge, cards in sorted(found.items()):
        for code, card in sorted(cards.items()):
            people = {"agreement_person": card.people["people"].get("agreement")} | {
                name: card.people["people"].get(name) for name in ("kappa", "longer", "own")
            }
            rows: dict[str, Mapping[str, Estimate | None]] = {"judge": card.raters["judge"], "people": people}
            rows |= {name: row for name, row in card.raters.items() if name != "judge"}
            rows |= {f"{name}, {kind}": row for kind, raters in card.sides.items() for name, row in raters.items()}
            for name, row in rows.items():
                first = next((each for figure in figures if (each := row.get(figure))), None)
                cells = [_format(row.get(figure), first) for figure in (*figures, "unscored")]
                which = f"`{judge}` ({code})" if code else f"`{judge}`"
                count = f"{first.n} ({first.groups})" if first else "0"
                lines.append(f"| {which} | {name} | {count} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def render_reliability(found: Mapping[str, Card]) -> str:
    """CSV: agreement by the distance of two scores, over all languages together, for `dvc plots`.

    Without a pair there is a row of NaN, because DVC's plots refuse a file without rows.
    """
    card = found.get("") or next(iter(found.values()), None)
    lines = ["distance,agreement,low,high,pairs"]
    lines += [
        f"{row.distance:.6g},{row.agreement:.4f},{row.low:.4f},{row.high:.4f},{row.pairs}"
        for row in (card.reliability if card else ())
    ]
    return "\n".join(lines if len(lines) > 1 else [*lines, "NaN,NaN,NaN,NaN,0"]) + "\n"


def _format(estimate: Estimate | None, first: Estimate | None, digits: int = 3) -> str:
    if not estimate:
        return "–"
    more = "" if first and estimate.n == first.n else f" (n {estimate.n})"
    value, low, high = (f"{each:.{digits}f}" for each in (estimate.value, estimate.low, estimate.high))
    return f"{value} [{low}, {high}]{more}"
