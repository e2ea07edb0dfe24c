"""Win rates: what they are, and how the report and `dvc exp show` show them."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal

from mothertongue import significance
from mothertongue.files import read_json_object
from mothertongue.judging.cards import list_equal_models
from mothertongue.measurements import Difference, Estimate
from mothertongue.params import Column, Generator, Judge, Level, Metrics, Model, WinRate
from mothertongue.rows import Row, parse

EXPERTS = "experts"  # the experts' own answers, as if they were a column
LEVEL = 0.05  # of all differences between columns on the page together
ABOUT = """\
Win rates: the answers of each column and of an opponent to the same questions, as a judge compares them in both orders.
A comparison with another outcome in each order is a tie (a flip), and so are answers with the same words, which the
judge is not asked about. A judge that draws 1 or 2 at random flips half of all comparisons, one that looks at the place
all of them. Comparisons in which the three choices have less probability than `min_label_mass` are unparsed, and in no
figure; nor are those that a server refused (`errors`), and questions that the opponent has not answered. `wins -
losses` is a share of n, `share` counts a tie half; `equal length` is the share where the two answers have equally many
words (logistic regression, as in AlpacaEval 2), `words` the mean difference in words. `longer`, `question` and `random`
are the shares by judges that cost nothing: they take the longer answer, the one more like the question by chrF++, and
one at random.

Controls: the opponent against itself is all ties. In a row `other questions` the judge reads the same two answers under
a question that neither is an answer to: what is won there is won by length and style. The experts' answers are what a
judge that sees anything should prefer. After Δ are differences of `share`, to that control paired by the two answers,
and to other columns paired by question. Bold is significant at 5 % (Holm) among all `wins - losses` and all
differences of this table. A `wins - losses` in bold without a difference to `other questions` in bold is not shown to
be about the questions."""
HEADS = (
    "n (groups)",
    "wins",
    "losses",
    "ties (flips, same words)",
    "unparsed (errors, unanswered)",
    "wins - losses",
    "wins / (all - ties)",
    "share",
    "equal length",
    "longer",
    "question",
    "random",
    "words",
)
REASONS = {
    "too few": "fewer than ten groups, longer or shorter answers, decided comparisons, wins or losses (a tie is half)",
    "separated": "the length alone tells wins from losses",
}


class Match(Row):
    """One comparison of a column's answer with the opponent's to the same thread."""

    joined = False  # a thread has one for each column, and one more as its control
    id: str  # of the thread whose question the judge read
    language: str
    group: str
    column: str
    answered: str  # id of the thread that both answers are to: another one in the control
    outcome: Literal["win", "loss", "tie", "unparsed", "error", "unanswered"]
    flip: bool  # a tie because the judge says in one order what it does not say in the other
    alike: bool  # a tie because the answers have the same words
    words: int  # those of the column's answer, less those of the opponent's
    likeness: float  # chrF++ of the column's answer to the question that the judge read, less that of the opponent's
    draw: float  # above 0 for an answer of the column that is drawn at random, else under 0; 0 where both are alike
    label_mass: float | None  # of the order with less; None where the judge was not asked

    @property
    def is_valid(self) -> bool:
        """Whether it is in the figures."""
        return self.outcome in ("win", "loss", "tie")

    @property
    def is_control(self) -> bool:
        """Whether the answers are to another question."""
        return self.answered != self.id

    @property
    def share(self) -> float:
        """1 for a win, 0 for a loss, else 0.5."""
        return {"win": 1.0, "loss": 0.0}.get(self.outcome, 0.5)


class Rate(Row):
    """How one column does against the opponent. Figures are None where no comparison is in them."""

    wins: int
    losses: int
    ties: int
    flips: int  # of the ties
    alike: int  # of the ties
    unparsed: int  # in none of the figures
    errors: int  # requests that a server refused; in none of the figures
    unanswered: int  # questions that the opponent has not answered; in none of the figures
    margin: Difference | None  # wins - losses, as a share of all
    decided: Estimate | None  # wins / (all - ties)
    share: Estimate | None  # a tie counts half
    equal_length: Estimate | None  # the same where both answers have equally many words
    obstacle: str  # why that is None
    # The shares that judges would give which cost nothing; equal answers are half:
    longer: Estimate | None  # to the answer with more words
    question: Estimate | None  # to the one more like the question
    random: Estimate | None  # to one at random
    words: Estimate | None  # mean difference, the column's less the opponent's
    over_control: Difference | None  # `share` less that under other questions, paired by the two answers


class Rates(Row):
    """All columns against one opponent, in one language or in all together."""

    columns: dict[str, Rate]
    controls: dict[str, Rate]  # to other questions; by column, the opponent left out
    differences: dict[str, dict[str, Difference]]  # of `share`, a column less another, paired by question


def read_rates(path: Path) -> dict[str, Rates]:
    """What stage win_rate wrote, by language ("" for all together where there are several)."""
    written = read_json_object(path, "run stage win_rate")["rates"]
    return {code: parse(Rates, value, f"{path}: {code or 'all languages'}") for code, value in written.items()}


def summarize_rates(
    found: Mapping[str, Mapping[str, Rates]], entries: Mapping[str, WinRate], headline: str
) -> dict[str, dict[str, float]]:
    """For `dvc exp show`: the headline's `wins - losses` against each opponent, as its 95 % interval."""
    rows = {
        name: next(iter(by_language.values())).columns[headline].margin
        for name, by_language in found.items()
        if entries[name].opponent != headline
    }
    return {
        f"win_rate_{name}": {"low": round(row.low, 4), "high": round(row.high, 4)} for name, row in rows.items() if row
    }


def list_models(metrics: Metrics, generated: Mapping[str, Generator], quantized: Mapping[str, Level]) -> dict[str, str]:
    """The model that each column and each generator answers with; of a level that which was quantised."""
    entries: dict[str, Generator | Column] = {**generated, **metrics.models}
    levels = {name: level.model for name, level in quantized.items()}
    return {name: levels.get(entry.model, entry.model) for name, entry in entries.items()}


def render_rates(
    found: Mapping[str, Mapping[str, Rates]],
    entries: Mapping[str, WinRate],
    metrics: Metrics,
    scored: Mapping[str, Judge],
    models: Mapping[str, Model],
    answered: Mapping[str, str],
) -> str:
    """Markdown: a table for each entry of `win_rate`, a row for each column, its control, and each language.

    `answered` are the models of columns and of generators.
    """
    if not found:
        return ""
    order = [*dict.fromkeys([*metrics.baselines, metrics.headline, *sorted(metrics.models)]), EXPERTS]
    p = significance.adjust_holm({key: row.p for key, row in _list_tested(found, entries)})
    lines = [ABOUT]
    for name, by_language in sorted(found.items()):
        lines += ["", _describe_judge(entries[name], next(iter(by_language.values())), scored, models, answered), ""]
        lines += [
            f"| against `{entries[name].opponent}` | {' | '.join(HEADS)} |",
            "|---|--:|--:|--:|--:|--:|---|---|---|---|---|---|---|---|",
        ]
        for code, rates in by_language.items():
            bold = {key[2:] for key, value in p.items() if key[:2] == (name, code) and value < LEVEL}
            of = f" ({code})" if len(by_language) > 1 and code else ""
            for column in (each for each in order if each in rates.columns):
                rate, control = rates.columns[column], rates.controls.get(column)
                gains = {CONTROL: rate.over_control, **rates.differences.get(column, {})}
                marked = {other for _, other in (key for key in bold if key[0] == column)}
                lines.append(_render_row(f"`{column}`{of}", rate, gains, marked))
                if control:
                    lines.append(_render_row(f"`{column}`, {CONTROL}{of}", control, {}, set()))
    reasons = {row.obstacle for by in found.values() for rates in by.values() for row in rates.columns.values()}
    lines += [
        f"\nNo `equal length` where it says {reason}: {REASONS[reason]}." for reason in sorted(reasons & {*REASONS})
    ]
    return "\n".join(lines) + "\n"


CONTROL = "other questions"
Key = tuple[str, str, str, str]  # entry, language, column, and the other column or CONTROL, or "" for wins - losses


def _list_tested(
    found: Mapping[str, Mapping[str, Rates]], entries: Mapping[str, WinRate]
) -> Iterator[tuple[Key, Difference]]:
    """The differences that a page is about: those of the measured columns."""
    for name, by_language in found.items():
        for code, rates in by_language.items():
            for column, rate in rates.columns.items():
                if rate.margin and column not in (entries[name].opponent, EXPERTS):
                    yield (name, code, column, ""), rate.margin
                if rate.over_control and column != EXPERTS:
                    yield (name, code, column, CONTROL), rate.over_control
            for column, others in rates.differences.items():
                yield from (((name, code, column, other), row) for other, row in others.items())


def _describe_judge(
    entry: WinRate, rates: Rates, scored: Mapping[str, Judge], models: Mapping[str, Model], answered: Mapping[str, str]
) -> str:
    """The judge of an entry, whether it judges itself, how often it flips, and whether it was compared with people."""
    rows = [*rates.columns.values(), *rates.controls.values()]
    asked = sum(row.wins + row.losses + row.ties - row.alike for row in rows)
    flips, unparsed = sum(row.flips for row in rows), sum(row.unparsed for row in rows)
    judges = [
        f"`{name}`"
        for name, judge in sorted(scored.items())
        if judge.kind == "pairwise" and judge.model_dump(exclude={"kind"}) == entry.model_dump(exclude={"opponent"})
    ]
    same = list_equal_models(models, entry.model)
    trained = (
        " It judges in section `scored` as well: what learned from its verdicts is favoured."
        if any(judge.model in same for judge in scored.values())
        else ""
    )
    named = {entry.opponent, *rates.columns} & answered.keys()
    own = ", ".join(f"`{name}`" for name in sorted(named) if answered[name] in same)
    share = f" ({flips / asked:.0%})" if asked else ""
    people = (
        f"is judge {judges[0]} of section `scored`" if judges else "is no judge of section `scored`, so not calibrated"
    )
    return (
        f"Judge: model `{entry.model}` by {entry.engine}, which {people}. Of {asked} comparisons in both orders it"
        f" flips {flips}{share}; {unparsed} more are unparsed."
        + (f" It judges its own answers: {own}." if own else "")
        + trained
    )


def _render_row(label: str, rate: Rate, gains: Mapping[str, Difference | None], bold: set[str]) -> str:
    """`gains` are the differences of `share`; `bold` names the significant ones, with "" for wins - losses."""
    groups = f" ({rate.words.groups})" if rate.words else ""
    share = _format(rate.share)
    for other, gain in gains.items():
        share += f"<br>Δ {other} {_format(gain, bold=other in bold)}" if gain else ""
    cells = (
        label,
        f"{rate.wins + rate.losses + rate.ties}{groups}",
        f"{rate.wins}",
        f"{rate.losses}",
        f"{rate.ties} ({rate.flips}, {rate.alike})",
        f"{rate.unparsed} ({rate.errors}, {rate.unanswered})",
        _format(rate.margin, bold="" in bold),
        _format(rate.decided) + (f" (n {rate.decided.n})" if rate.decided else ""),
        share,
        _format(rate.equal_length) if rate.equal_length else f"– {rate.obstacle}".strip(),
        _format(rate.longer),
        _format(rate.question),
        _format(rate.random),
        _format(rate.words),
    )
    return f"| {' | '.join(cells)} |"


def _format(row: Estimate | Difference | None, *, bold: bool = False) -> str:
    if row is None:
        return "–"
    signed = isinstance(row, Difference) or row.kind == "mean"
    digits = 3 if row.kind in ("share", "ratio") else 1
    value, low, high = (f"{each:{'+' if signed else ''}.{digits}f}" for each in (row.value, row.low, row.high))
    text = value if row.groups < 2 else f"{value} [{low}, {high}]"
    return f"**{text}**" if bold and (row.low > 0 or row.high < 0) else text
