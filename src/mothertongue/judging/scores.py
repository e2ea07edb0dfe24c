"""What judges share: the question, a score from log-probabilities and its verdict, and answers that are alike."""

import math
from collections.abc import Sequence

from mothertongue.chat import Chat
from mothertongue.errors import BadInput
from mothertongue.records import Answer, Thread, row_id
from mothertongue.verdicts import Verdict


def format_question(thread: Thread) -> str:
    """A thread's prompt as a judge reads it: the one turn, or all turns with their roles."""
    if len(thread.prompt) == 1:
        return thread.prompt[0].content
    return "\n".join(f"{message.role}: {message.content}" for message in thread.prompt)


def are_alike(one: Answer, other: Answer) -> bool:
    """Whether two answers have the same words, so that nothing is to be compared."""
    return one.text.split() == other.text.split()


def fence(mark: str, text: str) -> str:
    """A text between <mark> and </mark>."""
    return f"<{mark}>\n{text}\n</{mark}>"


def find_score_tokens(chat: Chat, judge: str, scores: Sequence[int]) -> tuple[int, ...]:
    """The token of each score. Raises BadInput when the tokenizer writes a score in several tokens, or two in one."""
    found = {score: chat.tokenizer.encode(str(score), add_special_tokens=False) for score in scores}
    for score, ids in found.items():
        if len(ids) != 1:
            raise BadInput(
                f"{judge}: the tokenizer splits the score {score} into {len(ids)} tokens, so it has no probability of"
                " its own; take another model as judge"
            )
    options = tuple(ids[0] for ids in found.values())
    if len(set(options)) < len(options):
        raise BadInput(f"{judge}: the tokenizer writes different scores as one token; take another model as judge")
    return options


def expected_score(logs: Sequence[float], scores: Sequence[int]) -> tuple[float, float]:
    """(expected score, sum of the scores' probabilities) from the scores' natural log-probabilities."""
    weights = [math.exp(log) for log in logs]
    label_mass = math.fsum(weights)
    mean = math.fsum(s * w for s, w in zip(scores, weights, strict=True)) / label_mass if label_mass else math.nan
    return mean, label_mass


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
