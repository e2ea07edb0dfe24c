"""A judge that reads a rubric and answers with a number from 1 to 5."""

from collections.abc import Sequence

from mothertongue import prompts
from mothertongue.chat import Chat
from mothertongue.judging.scores import build_verdict, expected_score, find_score_tokens, format_question
from mothertongue.params import RubricJudge
from mothertongue.records import Answer, Message, Thread
from mothertongue.sampling import Model, NextTokenLogprobs
from mothertongue.verdicts import Verdict

SCORES = (1, 2, 3, 4, 5)  # as in prompts/rubric/request


def judge_answers(
    threads: Sequence[Thread], answers: Sequence[Answer], name: str, params: RubricJudge, model: Model
) -> list[Verdict]:
    """The expected score of each answer: the mean of 1 to 5 under the judge's probabilities for that one token.

    (G-Eval, Liu et al. 2023.) A verdict is `unparsed` when the score tokens together have a probability under
    `min_label_mass`. Control tokens in question and answer are escaped, so that neither can start the judge's turn.
    """
    options = find_score_tokens(model.chat, model.folder.name, SCORES)
    by_id = {thread.id: thread for thread in threads}
    requests = [_request(by_id[answer.thread], answer, model.chat, options) for answer in answers]
    found = model.next_token_logprobs(requests, f"scored {name}")
    return [
        build_verdict(answer, name, *expected_score(logs, SCORES), params.min_label_mass)
        for answer, logs in zip(answers, found, strict=True)
    ]


def render_request(thread: Thread, answer: Answer) -> str:
    """The turn that the judge reads."""
    return prompts.render("rubric/request", thread.language, question=format_question(thread), answer=answer.text)


def _request(thread: Thread, answer: Answer, chat: Chat, options: tuple[int, ...]) -> NextTokenLogprobs:
    language = thread.language
    text = render_request(thread, answer)
    # The judge's turn begins with "Score: ", so that a score is the likely next token.
    opening = chat.tokenizer.encode(f"{prompts.render('rubric/opening', language)} ", add_special_tokens=False)
    prompt = chat.encode_prompt([Message(role="user", content=text)])
    return NextTokenLogprobs(prompt=(*prompt, *opening), options=options)
