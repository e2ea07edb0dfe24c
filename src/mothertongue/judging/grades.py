"""A judge that grades an answer on named criteria, and writes the grades as a JSON object."""

import json
from collections.abc import Sequence

from mothertongue import prompts
from mothertongue.judging.scores import build_verdict, expected_score, find_score_tokens, format_question
from mothertongue.params import GradesJudge
from mothertongue.records import Answer, Message, Thread
from mothertongue.sampling import Model, NextTokenLogprobs
from mothertongue.verdicts import Verdict

GRADES = (1, 2, 3, 4, 5)  # as in prompts/grades/request


def judge_answers(
    threads: Sequence[Thread], answers: Sequence[Answer], name: str, params: GradesJudge, model: Model
) -> list[Verdict]:
    """The mean of the expected grades of each answer, each of them from 1 to 5.

    The object is written for the judge but for its grades, one after the other: each is the likeliest of the five, and
    the judge reads those before. So any model writes valid JSON. A verdict is `unparsed` when for one criterion the
    grades together have a probability under `min_label_mass`. Control tokens in question and answer are escaped.
    """
    chat = model.chat
    options = find_score_tokens(chat, model.folder.name, GRADES)
    by_id = {thread.id: thread for thread in threads}
    asked = [render_request(by_id[answer.thread], answer, params) for answer in answers]
    written = [chat.encode_prompt([Message(role="user", content=text)]) for text in asked]
    grades: list[dict[str, float]] = [{} for _ in answers]
    masses: list[list[float]] = [[] for _ in answers]
    for number, criterion in enumerate(params.criteria):
        opening = f"{', ' if number else '{'}{json.dumps(criterion)}: "
        key = tuple(chat.tokenizer.encode(opening, add_special_tokens=False))
        written = [(*prompt, *key) for prompt in written]
        requests = [NextTokenLogprobs(prompt=prompt, options=options) for prompt in written]
        found = model.next_token_logprobs(requests, f"scored {name} {criterion}")
        for place, logs in enumerate(found):
            grades[place][criterion], mass = expected_score(logs, GRADES)
            masses[place].append(mass)
            written[place] = (*written[place], options[max(range(len(GRADES)), key=lambda each: logs[each])])
    return [
        build_verdict(
            answer, name, sum(given.values()) / len(given), min(masses[place]), params.min_label_mass, grades=given
        )
        for place, (answer, given) in enumerate(zip(answers, grades, strict=True))
    ]


def render_request(thread: Thread, answer: Answer, params: GradesJudge) -> str:
    """The turn that the judge reads."""
    return prompts.render(
        "grades/request",
        thread.language,
        question=format_question(thread),
        answer=answer.text,
        criteria=", ".join(params.criteria),
    )
