"""A judge that reviews an answer by adding up to five points, several times; its score is the mean of these votes.

(Self-rewarding language models, Yuan et al. 2024, who read the number that the model writes. Here it is the expectation
under the model's probabilities, so that a vote is lost to no form of words.)
"""

import math
from collections.abc import Sequence

from mothertongue import prompts
from mothertongue.judging.scores import build_verdict, expected_score, find_score_tokens, format_question
from mothertongue.params import AdditiveJudge
from mothertongue.records import Answer, Message, Thread
from mothertongue.sampling import Generation, Model, NextTokenLogprobs, derive_seed
from mothertongue.verdicts import Verdict

SCORES = (0, 1, 2, 3, 4, 5)  # as in prompts/additive/request


def judge_answers(
    threads: Sequence[Thread], answers: Sequence[Answer], name: str, params: AdditiveJudge, model: Model
) -> list[Verdict]:
    """The mean of `params.votes` scores of each answer, each the expected sum of points after a sampled review.

    A verdict is `unparsed` when the score tokens together have a mean probability under `min_label_mass`. Control
    tokens in question, answer and review are escaped.
    """
    options = find_score_tokens(model.chat, model.folder.name, SCORES)
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
    written = model.generate(reviews, f"scored {name}: reviews")
    requests = [
        NextTokenLogprobs((*prompted[answer.id], *_encode_review(review.text, thread.language, model)), options)
        for (thread, answer, _), review in zip(asked, written, strict=True)
    ]
    votes = [expected_score(logs, SCORES) for logs in model.next_token_logprobs(requests, f"scored {name}")]
    return [
        _average(answer, votes[place * params.votes : (place + 1) * params.votes], name, params.min_label_mass)
        for place, answer in enumerate(answers)
    ]


def _average(answer: Answer, votes: Sequence[tuple[float, float]], name: str, least: float) -> Verdict:
    """`votes` are (score, label mass)."""
    score, label_mass = (math.fsum(column) / len(votes) for column in zip(*votes, strict=True))
    return build_verdict(answer, name, score, label_mass, least)


def render_request(thread: Thread, answer: Answer) -> str:
    """The turn that the judge reads before it writes a review."""
    return prompts.render("additive/request", thread.language, question=format_question(thread), answer=answer.text)


def _encode(thread: Thread, answer: Answer, model: Model) -> tuple[int, ...]:
    return model.chat.encode_prompt([Message(role="user", content=render_request(thread, answer))])


def _encode_review(review: str, language: str, model: Model) -> tuple[int, ...]:
    """A review up to where it names its score, and the words after which the score is the likely next token."""
    opening = prompts.render("additive/opening", language)
    text = f"{review.partition(opening)[0].strip()}\n{opening} "
    return tuple(model.chat.tokenizer.encode(model.chat.escape_control_tokens(text), add_special_tokens=False))
