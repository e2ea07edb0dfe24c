"""A judge that reads a rubric and answers with a number from 1 to 5."""

from collections.abc import Sequence

from mothertongue import prompts
from mothertongue.judging.scores import build_verdict, expected_score, fence, format_question, refuse
from mothertongue.params import RubricJudge
from mothertongue.records import Answer, Message, Thread
from mothertongue.sampling import Model, NextTokenLogprobs, Prompt
from mothertongue.sampling.server import Server
from mothertongue.verdicts import Verdict

SCORES = (1, 2, 3, 4, 5)  # as in prompts/rubric/request


def judge_answers(
    threads: Sequence[Thread], answers: Sequence[Answer], name: str, params: RubricJudge, model: Model | Server
) -> list[Verdict]:
    """The expected score of each answer: the mean of 1 to 5 under the judge's probabilities for that one token.

    (G-Eval, Liu et al. 2023, who sample votes and take their mean: this is the mean of any number of them.) A verdict
    is `unparsed` when the score tokens together have a probability under `min_label_mass`. Control tokens in question
    and answer are escaped, so that neither can start the judge's turn, and no text knows the marks around it.
    """
    options = model.find_options(SCORES)
    by_id = {thread.id: thread for thread in threads}
    requests = [NextTokenLogprobs(_encode(by_id[answer.thread], answer, model), options) for answer in answers]
    found = model.next_token_logprobs(requests, f"scored {name}")
    return [
        refuse(answer, name)
        if logs is None
        else build_verdict(answer, name, *expected_score(logs, SCORES), params.min_label_mass)
        for answer, logs in zip(answers, found, strict=True)
    ]


def render_request(thread: Thread, answer: Answer) -> str:
    """The turn that the judge reads."""
    texts = fence({"question": format_question(thread), "answer": answer.text})
    return prompts.render("rubric/request", thread.language, **texts)


def _encode(thread: Thread, answer: Answer, model: Model | Server) -> Prompt:
    # The judge's turn begins with "Score: ", so that a score is the likely next token.
    opening = f"{prompts.render('rubric/opening', thread.language)} "
    return model.encode([Message(role="user", content=render_request(thread, answer))], opening)
