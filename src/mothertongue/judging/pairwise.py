"""A judge that compares two answers to a question, always in both orders; an answer's score is its share of wins."""

import itertools
import math
from collections.abc import Mapping, Sequence, Set

from mothertongue import prompts
from mothertongue.judging.scores import are_alike, fence, format_question, group_answers
from mothertongue.params import PairwiseJudge
from mothertongue.records import Answer, Message, Thread, row_id
from mothertongue.sampling import Model, NextTokenLogprobs, Prompt
from mothertongue.sampling.server import Server
from mothertongue.verdicts import Verdict

CHOICES = (1, 2, 0)  # the first, the second, neither: as in prompts/pairwise/request
Comparison = tuple[Answer, Answer]  # in the order in which the judge read them


def judge_answers(
    threads: Sequence[Thread], answers: Sequence[Answer], name: str, params: PairwiseJudge, model: Model | Server
) -> list[Verdict]:
    """Each answer's share of wins over the other answers to its thread, a tie counting half.

    Each two answers are compared in both orders, by the likeliest of the three choices as the next token. What is said
    in one order and not in the other is a tie, and counted as a flip: it is about the place, not about the answer.
    Answers with the same words count as one, and have one score. A comparison is lost where, in either order, the
    choices together have a probability under `min_label_mass`, or a server refuses it. The answer with the most lost
    ones is left out as `unparsed` (`error`, where some were refused), then the next one, until all that are left were
    compared with each other, so that their shares are of the same opponents. An answer that nothing was compared with
    is `unparsed`. Two choices that are equally likely are no preference. Control tokens are
    escaped, and no text knows the marks around it.
    """
    options = model.find_options(CHOICES)
    by_id = {thread.id: thread for thread in threads}
    by_thread = group_answers(answers)
    asked = [
        (one, other)
        for several in by_thread.values()
        for one, other in itertools.permutations(several, 2)
        if not are_alike(one, other)
    ]
    requests = [NextTokenLogprobs(_encode(by_id[one.thread], one, other, model), options) for one, other in asked]
    found = model.next_token_logprobs(requests, f"scored {name}")
    said = {(one.id, other.id): logs for (one, other), logs in zip(asked, found, strict=True)}
    return [
        verdict
        for _, several in sorted(by_thread.items())
        for verdict in reduce_comparisons(several, said, name, params.min_label_mass)
    ]


def reduce_comparisons(
    answers: Sequence[Answer], said: Mapping[tuple[str, str], Sequence[float] | None], name: str, least: float
) -> list[Verdict]:
    """The verdicts on all answers to one thread, from log-probabilities of CHOICES by the ids in their order."""
    first_of = {answer.id: next(each.id for each in answers if are_alike(each, answer)) for answer in answers}
    different = [answer for answer in answers if first_of[answer.id] == answer.id]
    values: dict[tuple[str, str], float | None] = {}  # None for a lost comparison
    flips, masses = dict[tuple[str, str], bool](), dict[str, list[float]]()
    refused = set[str]()
    for one, other in itertools.combinations(different, 2):
        pair = one.id, other.id
        values[pair], flips[pair] = None, False
        logs = [row for row in (said[pair], said[pair[::-1]]) if row is not None]
        if len(logs) < 2:
            refused |= set(pair)
            continue
        mass = min(math.fsum(map(math.exp, each)) for each in logs)
        for identity in pair:
            masses.setdefault(identity, []).append(mass)
        if mass and mass >= least:
            first, turned = map(_choose, logs)
            flips[pair] = (first, turned) not in {(1, 2), (2, 1), (0, 0)}
            values[pair] = 0.5 if flips[pair] or not first else float(first == 1)
    left = _leave_out([answer.id for answer in different], {pair for pair, value in values.items() if value is None})
    wins: dict[str, list[float]] = {identity: [] for identity in left}
    for (one_id, other_id), value in values.items():
        if value is not None and one_id in wins and other_id in wins:
            wins[one_id].append(value)
            wins[other_id].append(1 - value)
    return [_build_verdict(answer, name, first_of[answer.id], wins, masses, flips, refused) for answer in answers]


def _leave_out(identities: Sequence[str], lost: Set[tuple[str, str]]) -> list[str]:
    """The ids that are left when the one in the most lost comparisons is taken away, and again, until none is lost."""
    left, lost = list(identities), set(lost)
    while lost:
        worst = max(sorted(left), key=lambda identity: sum(identity in pair for pair in lost))
        left.remove(worst)
        lost = {pair for pair in lost if worst not in pair}
    return left


def _build_verdict(
    answer: Answer,
    name: str,
    read: str,
    wins: Mapping[str, Sequence[float]],
    masses: Mapping[str, Sequence[float]],
    flips: Mapping[tuple[str, str], bool],
    refused: Set[str],
) -> Verdict:
    """`read` is the answer with the same words that was compared; its comparisons are counted once."""
    shares, mass = wins.get(read, ()), masses.get(read, ())
    counted = [flip for pair, flip in flips.items() if answer.id in pair and wins.keys() >= set(pair)]
    return Verdict(
        id=row_id(answer.id, name),
        thread=answer.thread,
        answer=answer.id,
        judge=name,
        outcome="score" if shares else "error" if read in refused else "unparsed",
        score=math.fsum(shares) / len(shares) if shares else None,
        label_mass=math.fsum(mass) / len(mass) if mass else None,
        compared=len(counted),
        flips=sum(counted),
    )


def _choose(logs: Sequence[float]) -> int:
    likely = [choice for choice, log in zip(CHOICES, logs, strict=True) if log == max(logs)]
    return likely[0] if len(likely) == 1 else 0


def render_request(thread: Thread, first: Answer, second: Answer) -> str:
    """The turn that the judge reads."""
    texts = fence({"question": format_question(thread), "answer_1": first.text, "answer_2": second.text})
    return prompts.render("pairwise/request", thread.language, **texts)


def _encode(thread: Thread, first: Answer, second: Answer, model: Model | Server) -> Prompt:
    opening = f"{prompts.render('pairwise/opening', thread.language)} "
    return model.encode([Message(role="user", content=render_request(thread, first, second))], opening)
