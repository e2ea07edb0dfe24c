"""A judge that is PairRM: an encoder that reads a question with two answers, in both orders.

(LLM-Blender, Jiang et al. 2023, arXiv 2306.02561; https://github.com/yuchenlin/LLM-Blender.)
"""

import itertools
import math
from collections.abc import Mapping, Sequence

from mothertongue import console, prompts
from mothertongue.judging.scores import are_alike, group_answers
from mothertongue.records import Answer, Thread, row_id
from mothertongue.sampling.classification import CANDIDATES, SOURCE, PairRM
from mothertongue.verdicts import Verdict

LANGUAGE = "en"  # PairRM has learned from no other


def judge_answers(threads: Sequence[Thread], answers: Sequence[Answer], name: str, model: PairRM) -> list[Verdict]:
    """Each answer's mean probability, 0 to 1, of being better than another answer to its thread; 0.5 is a tie.

    n answers to a thread take n (n - 1) passes: each two are read in both orders, and the logit of their comparison is
    the mean of the two, as published. Its logistic function is the probability that PairRM was trained to give. The
    published ranking takes the mean of the logits instead; of two answers it prefers the same one, of more it may not.
    Here probabilities are taken, so that a score means the same in every thread, as the share of wins of kind
    `pairwise` does, and one large logit does not outweigh all others.

    Where the two orders prefer different answers, that is counted as a flip, and averaged all the same. Answers with
    the same words are a tie that is not computed. An answer that nothing was compared with is `unparsed`, and one to a
    question in another language than English `error`. How many comparisons were longer than PairRM reads is printed.
    """
    by_id = {thread.id: thread for thread in threads}
    by_thread = group_answers(answers)
    asked = [
        (one, other)
        for identity, several in by_thread.items()
        for one, other in itertools.permutations(several, 2)
        if can_read(by_id[identity]) and not are_alike(one, other)
    ]
    encoded = [model.encode(*_write(by_id[one.thread], one, other)) for one, other in asked]
    logits = model.compare([request for request, _ in encoded], f"scored {name}")
    if cut := sum(was_cut for _, was_cut in encoded):
        console.say(f"scored {name}: {cut} of {len(asked)} comparisons were cut to what PairRM reads")
    said = {(one.id, other.id): logit for (one, other), logit in zip(asked, logits, strict=True)}
    return [
        verdict
        for identity, several in sorted(by_thread.items())
        for verdict in reduce_comparisons(several, said, name, readable=can_read(by_id[identity]))
    ]


def can_read(thread: Thread) -> bool:
    """Whether a thread is in a language that PairRM has learned."""
    return thread.language == LANGUAGE


def reduce_comparisons(
    answers: Sequence[Answer], said: Mapping[tuple[str, str], float], name: str, *, readable: bool = True
) -> list[Verdict]:
    """The verdicts on all answers to one thread, from the logits that the first one is better, by the two ids."""
    wins: dict[str, list[float]] = {answer.id: [] for answer in answers}
    flips, compared = dict.fromkeys(wins, 0), dict.fromkeys(wins, 0)
    for one, other in itertools.combinations(answers, 2) if readable else ():
        value = 0.5
        if not are_alike(one, other):
            first, turned = said[one.id, other.id], said[other.id, one.id]
            value = (1 + math.tanh((first - turned) / 4)) / 2  # the logistic function of (first - turned) / 2
            for answer in (one, other):
                compared[answer.id] += 1
                flips[answer.id] += _sign(first) != -_sign(turned)
        wins[one.id].append(value)
        wins[other.id].append(1 - value)
    return [
        Verdict(
            id=row_id(answer.id, name),
            thread=answer.thread,
            answer=answer.id,
            judge=name,
            outcome="score" if compared[answer.id] else "unparsed" if readable else "error",
            score=math.fsum(wins[answer.id]) / len(wins[answer.id]) if compared[answer.id] else None,
            label_mass=None,
            compared=compared[answer.id],
            flips=flips[answer.id],
        )
        for answer in answers
    ]


def render_request(thread: Thread, first: Answer, second: Answer) -> str:
    """What the judge reads, each text after its token."""
    tokens = (SOURCE, *CANDIDATES)
    return "\n".join(f"{token}{text}" for token, text in zip(tokens, _write(thread, first, second), strict=True))


def _write(thread: Thread, first: Answer, second: Answer) -> tuple[str, str, str]:
    """Question and two answers; of several turns, all the user's are the question, and all the assistant's an answer.

    That is how LLM-Blender's `compare_conversations` writes them. A system turn, which it has not, comes first.
    """
    if len(thread.prompt) == 1:
        return thread.prompt[0].content, first.text, second.text
    before, question = [], []
    for turn in thread.prompt:
        match turn.role:
            case "assistant":
                before.append(turn.content)
            case "user":
                question.append(f"USER: {turn.content}\nAssistant: <Response {len(before) + 1}>")
            case "system":
                question.append(turn.content)
    source = prompts.render("pairrm/conversation", LANGUAGE, turns="\n".join(question))
    one, other = (
        "\n".join(f"<Response {number}>: {text}" for number, text in enumerate([*before, answer.text], start=1))
        for answer in (first, second)
    )
    return source, one, other


def _sign(value: float) -> int:
    return (value > 0) - (value < 0)
