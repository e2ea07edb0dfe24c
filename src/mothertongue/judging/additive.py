"""A judge that reviews an answer by adding up to five points, several times; its score is the mean of these votes.

(Self-rewarding language models, Yuan et al. 2024, who read the number that the model writes. Here it is the expectation
under the model's probabilities, so that a vote is lost to no form of words.)
"""

import math
import re
from collections.abc import Sequence

from mothertongue import prompts
from mothertongue.judging.scores import build_verdict, expected_score, fence, format_question, refuse
from mothertongue.params import AdditiveJudge
from mothertongue.records import Answer, Message, Thread
from mothertongue.sampling import Generation, Model, NextTokenLogprobs, Prompt, derive_seed
from mothertongue.sampling.server import Server
from mothertongue.verdicts import Verdict

SCORES = (0, 1, 2, 3, 4, 5)  # as in prompts/additive/request
Vote = tuple[float, float]  # score, and the probability of all scores together: with 0, no score


def judge_answers(
    threads: Sequence[Thread], answers: Sequence[Answer], name: str, params: AdditiveJudge, model: Model | Server
) -> list[Verdict]:
    """The mean of `params.votes` scores of each answer, each the expected sum of points after a sampled review.

    What a server's model writes as the sum is taken as it is. A verdict is `unparsed` when the score tokens together
    have a mean probability under `min_label_mass`; of a server's, that is the share of reviews that name a sum. Control
    tokens in question, answer and review are escaped, and no text knows the marks around it.
    """
    by_id = {thread.id: thread for thread in threads}
    asked = [(by_id[answer.thread], answer, vote) for answer in answers for vote in range(params.votes)]
    prompted = {answer.id: _encode(by_id[answer.thread], answer, model) for answer in answers}
    reviews = [
        Generation(
            prompt=prompted[answer.id],
            max_tokens=params.max_tokens,
            temperature=params.temperature,
            top_p=1.0,
            seed=derive_seed(answer.id, vote),
            index=vote,
        )
        for _, answer, vote in asked
    ]
    codes = [thread.language for thread, _, _ in asked]
    votes: Sequence[Vote | None] = (
        _read_sums(reviews, codes, name, model) if isinstance(model, Server) else _weigh(reviews, codes, name, model)
    )
    return [
        _average(answer, votes[place * params.votes : (place + 1) * params.votes], name, params.min_label_mass)
        for place, answer in enumerate(answers)
    ]


def _weigh(reviews: Sequence[Generation], codes: Sequence[str], name: str, model: Model) -> list[Vote]:
    options = model.find_options(SCORES)
    written = model.generate(reviews, f"scored {name}: reviews")
    requests = [
        NextTokenLogprobs((*asked.prompt, *_encode_review(review.text, code, model)), options)
        for asked, review, code in zip(reviews, written, codes, strict=True)
    ]
    return [expected_score(logs, SCORES) for logs in model.next_token_logprobs(requests, f"scored {name}")]


def _read_sums(reviews: Sequence[Generation], codes: Sequence[str], name: str, model: Server) -> list[Vote | None]:
    written = model.generate(reviews, f"scored {name}: reviews")
    return [
        (read_sum(each.text, code) if each.finish == "stop" else (0.0, 0.0)) if each else None
        for each, code in zip(written, codes, strict=True)
    ]


def read_sum(review: str, language: str) -> Vote:
    """(sum, 1) as a review names it at its end, after the words of prompts/additive/opening; (0, 0) where it does not.

    A review that names two different sums, such as one that quotes what the answer asks for, names none.
    """
    opening = re.escape(prompts.render("additive/opening", language).rstrip(":"))
    named = re.findall(rf"{opening}[^\w+-]*(-?\d+(?:[.,]\d+)?)", review, re.IGNORECASE)
    found = re.search(rf"{opening}[^\w+-]*([0-5])(?:\s*/\s*5)?\W*$", review, re.IGNORECASE)
    return (float(found[1]), 1.0) if found and set(named) == {found[1]} else (0.0, 0.0)


def _average(answer: Answer, votes: Sequence[Vote | None], name: str, least: float) -> Verdict:
    said = [vote for vote in votes if vote is not None]
    if len(said) < len(votes):
        return refuse(answer, name)
    named = [score for score, mass in said if mass] or [math.nan]
    return build_verdict(answer, name, math.fsum(named) / len(named), math.fsum(m for _, m in said) / len(said), least)


def render_request(thread: Thread, answer: Answer) -> str:
    """The turn that the judge reads before it writes a review."""
    texts = fence({"question": format_question(thread), "answer": answer.text})
    return prompts.render("additive/request", thread.language, **texts)


def _encode(thread: Thread, answer: Answer, model: Model | Server) -> Prompt:
    return model.encode([Message(role="user", content=render_request(thread, answer))])


def _encode_review(review: str, language: str, model: Model) -> tuple[int, ...]:
    """A review up to where it names its score, and the words after which the score is the likely next token."""
    opening = prompts.render("additive/opening", language)
    text = f"{review.partition(opening)[0].strip()}\n{opening} "
    return tuple(model.chat.tokenizer.encode(model.chat.escape_control_tokens(text), add_special_tokens=False))
