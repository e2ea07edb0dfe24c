"""A judge that grades an answer on named criteria, and writes the grades as a JSON object."""

import json
import math
import re
from collections.abc import Sequence

from mothertongue import prompts
from mothertongue.judging.scores import build_verdict, expected_score, fence, format_question, refuse
from mothertongue.params import GradesJudge
from mothertongue.records import Answer, Message, Thread
from mothertongue.sampling import Generation, Model, NextTokenLogprobs
from mothertongue.sampling.server import Server
from mothertongue.verdicts import Verdict

GRADES = (1, 2, 3, 4, 5)  # as in prompts/grades/request
Asked = tuple[Thread, Answer, Sequence[str]]  # with the criteria in an order
Graded = tuple[dict[str, float], float]  # grades, and the probability of all five together for the least certain one


def judge_answers(
    threads: Sequence[Thread], answers: Sequence[Answer], name: str, params: GradesJudge, model: Model | Server
) -> list[Verdict]:
    """The weighted mean of the grades of each answer, each of them from 1 to 5, over all votes.

    A vote is an object with the criteria in an order of its own, because a grade leans on those before it. On a
    local engine the object is written for the judge but for its grades, one after the other: each counts with its
    expectation, and the judge reads the likeliest of those before. So any model writes valid JSON. A server is asked
    for an object of that form, by structured output where it has it. A verdict is `unparsed` when the grades of a
    criterion together have a probability under `min_label_mass`, or a server's answer is not such an object. Control
    tokens in question and answer are escaped, and no text knows the marks around it.
    """
    by_id = {thread.id: thread for thread in threads}
    orders = list_orders(params)
    asked = [(by_id[answer.thread], answer, order) for answer in answers for order in orders]
    votes: Sequence[Graded | None] = (
        _read_grades(asked, name, model) if isinstance(model, Server) else _weigh_grades(asked, name, model)
    )
    return [
        _average(answer, votes[place * len(orders) : (place + 1) * len(orders)], name, params)
        for place, answer in enumerate(answers)
    ]


def list_orders(params: GradesJudge) -> list[list[str]]:
    """The order of the criteria in each vote: by name, and then from the second one on, and so forth.

    Not that of params.yaml: DVC does not see the order of a map.
    """
    names = sorted(params.criteria)
    return [names[vote:] + names[:vote] for vote in range(params.votes)]


def _weigh_grades(asked: Sequence[Asked], name: str, model: Model) -> list[Graded]:
    options = model.find_options(GRADES)
    written = [model.encode([Message(role="user", content=render_request(*each))]) for each in asked]
    grades: list[dict[str, float]] = [{} for _ in asked]
    masses: list[list[float]] = [[] for _ in asked]
    for number in range(len(asked[0][2]) if asked else 0):
        for place, (_, _, order) in enumerate(asked):
            key = f"{', ' if number else '{'}{json.dumps(order[number])}: "
            written[place] = (*written[place], *model.chat.tokenizer.encode(key, add_special_tokens=False))
        requests = [NextTokenLogprobs(prompt=prompt, options=options) for prompt in written]
        found = model.next_token_logprobs(requests, f"scored {name}: grade {number + 1}")
        for place, logs in enumerate(found):
            grades[place][asked[place][2][number]], mass = expected_score(logs, GRADES)
            masses[place].append(mass)
            written[place] = (*written[place], options[max(range(len(GRADES)), key=lambda each: logs[each])])
    return [(given, min(mass)) for given, mass in zip(grades, masses, strict=True)]


def _read_grades(asked: Sequence[Asked], name: str, model: Server) -> list[Graded | None]:
    if not asked:
        return []
    found: list[Graded | None] = [None] * len(asked)
    for order in dict.fromkeys(tuple(order) for _, _, order in asked):
        schema = {  # structured output is written in the order of the schema
            "type": "object",
            "properties": {each: {"type": "integer", "enum": list(GRADES)} for each in order},
            "required": order,
            "additionalProperties": False,
        }
        places = [place for place, row in enumerate(asked) if tuple(row[2]) == order]
        requests = [
            Generation(
                model.encode([Message(role="user", content=render_request(*asked[place]))]),
                max_tokens=20 + 20 * len(order),  # a long name may have ten tokens
                temperature=0,
                top_p=1,
                seed=0,
                index=0,
            )
            for place in places
        ]
        written = model.generate(requests, f"scored {name}", json.dumps(schema))
        for place, each in zip(places, written, strict=True):
            found[place] = parse_grades(each.text if each.finish == "stop" else "", order) if each else None
    return found


def parse_grades(text: str, names: Sequence[str]) -> Graded:
    """The grades of a text that is a JSON object, or one between ``` marks, and nothing else.

    NaN, with the probability 0, for any other text: a judge may quote an object that the answer wants it to write.
    """
    inside = re.fullmatch(r"\s*(?:```(?:json)?\s*)?(\{.*\})\s*(?:```)?\s*", text, re.DOTALL)
    try:
        found = dict(json.loads(inside[1], object_pairs_hook=list)) if inside else {}
        whole = inside and len(json.loads(inside[1], object_pairs_hook=list)) == len(names)
    except (ValueError, TypeError, RecursionError):
        found, whole = {}, False
    if whole and all(type(found.get(name)) is int and found[name] in GRADES for name in names):
        return {name: float(found[name]) for name in names}, 1.0
    return dict.fromkeys(names, math.nan), 0.0


def _average(answer: Answer, votes: Sequence[Graded | None], name: str, params: GradesJudge) -> Verdict:
    said = [vote for vote in votes if vote is not None]
    if len(said) < len(votes):
        return refuse(answer, name)
    grades = {each: math.fsum(given[each] for given, _ in said) / len(said) for each in params.criteria}
    total = math.fsum(params.criteria.values())
    score = math.fsum(weight * grades[each] for each, weight in params.criteria.items()) / total
    return build_verdict(answer, name, score, min(mass for _, mass in said), params.min_label_mass, grades=grades)


def render_request(thread: Thread, answer: Answer, criteria: Sequence[str]) -> str:
    """The turn that the judge reads."""
    texts = fence({"question": format_question(thread), "answer": answer.text})
    return prompts.render("grades/request", thread.language, criteria=", ".join(criteria), **texts)
