"""The row types of metrics/: scores of single items, and what is estimated from them."""

from mothertongue.rows import Row


class SampleScore(Row):
    """One figure of one measured item: sufficient statistics that add up over items (see significance.KINDS)."""

    joined = False  # an item has a row for each figure
    id: str
    language: str
    group: str  # items of one group (the turns of a conversation, its branches) depend on each other
    figure: str
    values: list[float]
    text: str  # the model's answer, where there is one


class Estimate(Row):
    """A value with its 95 % interval over n items, and what must be equal before it may be compared with another."""

    value: float
    low: float
    high: float
    n: int  # items with a value
    groups: int  # of dependent items: the number of independent observations
    kind: str
    signature: str


class Difference(Row):
    """A value minus another over the same items, with its paired 95 % interval and the p-value of no difference."""

    value: float
    low: float
    high: float
    p: float  # of this difference alone; see significance.adjust_holm
    n: int
    groups: int
    kind: str
    signature: str


class JudgeAccuracy(Row):
    """How often a judge scores the expert's answer over a sample of one generator, and the mean scores of both."""

    samples: int
    no_reference: int = 0  # samples that answer a prompt without an expert's answer, and are not among the others
    unscored: int  # samples without a score, or whose expert's answer has none; in none of the figures
    figures: dict[str, Estimate]  # expert, sample, judge, and its controls; empty where nothing has a score
