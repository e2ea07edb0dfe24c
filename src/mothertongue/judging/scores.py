"""What judges share: the question, a score from log-probabilities and its verdict, and answers that are alike."""

import itertools
import math
from collections.abc import Mapping, Sequence

from mothertongue.records import Answer, Thread, row_id
from mothertongue.verdicts import Verdict


def format_question(thread: Thread) -> str:
    """A thread's prompt as a judge reads it: the one turn, or all turns with their roles."""
    if len(thread.prompt) == 1:
        return thread.prompt[0].content
    return "\n".join(f"{message.role}: {message.content}" for message in thread.prompt)


def group_answers(answers: Sequence[Answer]) -> dict[str, list[Answer]]:
    """Answers by their thread, ordered by id."""
    by_thread: dict[str, list[Answer]] = {}
    for answer in sorted(answers, key=lambda answer: answer.id):
        by_thread.setdefault(answer.thread, []).append(answer)
    return by_thread


def are_alike(one: Answer, other: Answer) -> bool:
    """Whether two answers have the same words, so that nothing is to be compared."""
    return one.text.split() == other.text.split()


def fence(texts: Mapping[str, str]) -> dict[str, str]:
    """Texts by mark, each between <mark_key> and </mark_key>, with a key that none of them contains.

    So no text can end before its end, or open another one: what is judged is not what the judge is told to do.
    """
    keys = (row_id(*texts.values(), number)[:6] for number in itertools.count())
    read = [text.casefold() for text in texts.values()]  # a model may take capitals for the same mark
    key = next(key for key in keys if not any(key in text for text in read))
    return {mark: f"<{mark}_{key}>\n{text}\n</{mark}_{key}>" for mark, text in texts.items()}


def expected_score(logs: Sequence[float], scores: Sequence[int]) -> tuple[float, float]:
    """(expected score, sum of the scores' probabilities) from the scores' natural log-probabilities."""
    weights = [math.exp(log) for log in logs]
    label_mass = math.fsum(weights)
    mean = math.fsum(s * w for s, w in zip(scores, weights, strict=True)) / label_mass if label_mass else math.nan
    return mean, label_mass


def refuse(answer: Answer, judge: str) -> Verdict:
    """The verdict `error`, of a request that a server refused."""
    return Verdict(
        id=row_id(answer.id, judge),
        thread=answer.thread,
        answer=answer.id,
        judge=judge,
        outcome="error",
        score=None,
        label_mass=None,
    )


def build_verdict(
    answer: Answer,
    judge: str,
    score: float,
    label_mass: float,
    min_label_mass: float,
    grades: dict[str, float] | None = None,
) -> Verdict:
    """The verdict of a score; it is `unparsed` where the score tokens have less probability than `min_label_mass`."""
    parsed = label_mass >= min_label_mass and not math.isnan(score)
    return Verdict(
        id=row_id(answer.id, judge),
        thread=answer.thread,
        answer=answer.id,
        judge=judge,
        outcome="score" if parsed else "unparsed",
        score=score if parsed else None,
        label_mass=label_mass,
        grades=grades if parsed else None,
    )
