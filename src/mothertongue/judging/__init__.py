"""Judges: one module per kind, with its prompts in prompts/<kind>. A new kind gets a case below."""

from collections.abc import Sequence

from mothertongue.judging import additive, grades, pairwise, rubric
from mothertongue.params import AdditiveJudge, GradesJudge, Judge, PairwiseJudge, RubricJudge
from mothertongue.records import Answer, Thread
from mothertongue.sampling import Model
from mothertongue.sampling.server import Server
from mothertongue.verdicts import Verdict


def render_requests(thread: Thread, answer: Answer, others: Sequence[Answer], params: Judge) -> list[str]:
    """The turns that a judge reads for its verdict on an answer; `others` are the other answers to the thread.

    They are as written: control tokens are escaped when they are encoded, and the judge's own turn begins with the
    words of prompts/<kind>/opening.
    """
    match params:
        case RubricJudge():
            return [rubric.render_request(thread, answer)]
        case AdditiveJudge():
            return [additive.render_request(thread, answer)]
        case GradesJudge():
            return [grades.render_request(thread, answer, order) for order in grades.list_orders(params)]
        case PairwiseJudge():
            different = [other for other in others if not pairwise.are_alike(answer, other)]
            orders = [pair for other in different for pair in ((answer, other), (other, answer))]
            return [pairwise.render_request(thread, *pair) for pair in orders]


def judge_answers(
    threads: Sequence[Thread], answers: Sequence[Answer], name: str, params: Judge, model: Model | Server
) -> list[Verdict]:
    """One verdict per answer, by the judge that is named `name` in params.yaml."""
    match params:
        case RubricJudge():
            return rubric.judge_answers(threads, answers, name, params, model)
        case AdditiveJudge():
            return additive.judge_answers(threads, answers, name, params, model)
        case GradesJudge():
            return grades.judge_answers(threads, answers, name, params, model)
        case PairwiseJudge():
            return pairwise.judge_answers(threads, answers, name, params, model)
