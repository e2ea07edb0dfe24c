"""A judge that reads a rubric and answers with a number from 1 to 5."""

import math
from collections.abc import Sequence

from mothertongue import prompts
from mothertongue.chat import Chat
from mothertongue.errors import BadInput
from mothertongue.params import RubricJudge
from mothertongue.records import Answer, Message, Thread, row_id
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
    options = find_score_tokens(model.chat, model.folder.name)
    by_id = {thread.id: thread for thread in threads}
    requests = [_request(by_id[answer.thread], answer, model.chat, options) for answer in answers]
    verdicts = []
    for answer, logs in zip(answers, model.next_token_logprobs(requests, f"scored {name}"), strict=True):
        score, label_mass = expected_score(logs)
        parsed = label_mass > 0 and label_mass >= params.min_label_mass
        verdicts.append(
            Verdict(
                id=row_id(answer.id, name),
                thread=answer.thread,
                answer=answer.id,
                judge=name,
                outcome="score" if parsed else "unparsed",
                score=score if parsed else None,
                label_mass=label_mass,
            )
        )
    return verdicts


def _request(thread: Thread, answer: Answer, chat: Chat, options: tuple[int, ...]) -> NextTokenLogprobs:
    language = thread.language
    text = prompts.render("rubric/request", language, question=format_question(thread), answer=answer.text)
    # The judge's turn begins with "Score: ", so that a score is the likely next token.
    opening = chat.tokenizer.encode(f"{prompts.render('rubric/opening', language)} ", add_special_tokens=False)
    prompt = chat.encode_prompt([Message(role="user", content=text)])
    return NextTokenLogprobs(prompt=(*prompt, *opening), options=options)


def format_question(thread: Thread) -> str:
    """A thread's prompt as a judge reads it: the one turn, or all turns with their roles."""
    if len(thread.prompt) == 1:
        return thread.prompt[0].content
    return "\n".join(f"{message.role}: {message.content}" for message in thread.prompt)


def find_score_tokens(chat: Chat, judge: str) -> tuple[int, ...]:
    """The token of each score. Raises BadInput when the tokenizer writes a score in several tokens, or two in one."""
    found = {score: chat.tokenizer.encode(str(score), add_special_tokens=False) for score in SCORES}
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


def expected_score(logs: Sequence[float]) -> tuple[float, float]:
    """(expected score, sum of the scores' probabilities) from the scores' natural log-probabilities."""
    weights = [math.exp(log) for log in logs]
    label_mass = math.fsum(weights)
    mean = math.fsum(s * w for s, w in zip(SCORES, weights, strict=True)) / label_mass if label_mass else math.nan
    return mean, label_mass
