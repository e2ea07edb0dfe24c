"""The row type of data/scored, apart from records.py so that another kind of verdict trains no adapter again."""

from typing import Literal

from mothertongue.rows import Row


class Verdict(Row):
    """One judge's verdict on one answer. `score` is in the judge's unit, and None unless the outcome is `score`."""

    id: str
    thread: str
    answer: str
    judge: str
    outcome: Literal["score", "unparsed", "error"]
    score: float | None
    label_mass: float | None  # sum of the score tokens' probabilities; None for a judge without tokens
    compared: int = 0  # answers to the same thread that a pairwise judge compared it with
    flips: int = 0  # of these, in how many the judge said in one order what it did not say in the other
    grades: dict[str, float] | None = None  # expected grade of each criterion; None for a judge without criteria
