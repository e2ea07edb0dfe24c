"""A judge that compares two answers to a question, always in both orders; an answer's score is its share of wins."""

import itertools
import math
from collections.abc import Mapping, Sequence

from mothertongue import prompts
from mothertongue.judging.scores import are_alike, fence, format_question
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
    Answers with the same words are a tie that the judge is not asked about. Where in one of its comparisons, in either
    order, the choices together have a probability under `min_label_mass`, an answer is `unparsed`, because a share
    over fewer opponents is another figure; so is an answer that nothing was compared with. A comparison that a server
    refuses is an `error` of both its answers. Two choices that are equally likely are no preference. Control tokens are
    escaped, and no text knows the marks around it.
    """
    options = model.find_options(CHOICES)
    by_id = {thread.id: thread for thread in threads}
    by_thread: dict[str, list[Answer]] = {}
    for answer in sorted(answers, key=lambda answer: answer.id):
        by_thread.setdefault(answer.thread, []).append(answer)
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
    wins: dict[str, list[float]] = {answer.id: [] for answer in answers}
    masses: dict[str, list[float]] = {answer.id: [] for answer in answers}
    flips, compared = dict.fromkeys(wins, 0), dict.fromkeys(wins, 0)
    lost, refused = set[str](), set[str]()
    for one, other in itertools.combinations(answers, 2):
        value, flipped = 0.5, False
        if not are_alike(one, other):
            logs = [row for row in (said[one.id, other.id], said[other.id, one.id]) if row is not None]
            if len(logs) < 2:
                refused |= {one.id, other.id}
                continue
            mass = min(math.fsum(map(math.exp, each)) for each in logs)
            for answer in (one, other):
                masses[answer.id].append(mass)
            if not mass or mass < least:
                lost |= {one.id, other.id}
                continue
            first, turned = map(_choose, logs)
            flipped = (first, turned) not in {(1, 2), (2, 1), (0, 0)}
            compared[one.id] += 1
            compared[other.id] += 1
            value = 0.5 if flipped or not first else float(first == 1)
        for answer, share in ((one, value), (other, 1 - value)):
            wins[answer.id].append(share)
            flips[answer.id] += flipped
    scored = {identity for identity, count in compared.items() if count} - lost - refused
    return [
        Verdict(
            id=row_id(answer.id, name),
            thread=answer.thread,
            answer=answer.id,
            judge=name,
            outcome="score" if answer.id in scored else "error" if answer.id in refused else "unparsed",
            score=math.fsum(wins[answer.id]) / len(wins[answer.id]) if answer.id in scored else None,
            label_mass=math.fsum(masses[answer.id]) / len(masses[answer.id]) if masses[answer.id] else None,
            compared=compared[answer.id],
            flips=flips[answer.id],
        )
        for answer in answers
    ]


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
