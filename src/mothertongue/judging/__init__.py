"""Judges: one module per kind, with its prompts in prompts/<kind>. A new kind gets a case below."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mothertongue import sampling
from mothertongue.judging import additive, grades, pairrm, pairwise, reward, rubric
from mothertongue.judging.scores import are_alike
from mothertongue.params import AdditiveJudge, GradesJudge, Judge, PairRMJudge, PairwiseJudge, RewardJudge, RubricJudge
from mothertongue.records import Answer, Thread
from mothertongue.sampling.classification import PairRM, RewardModel
from mothertongue.sampling.server import Server
from mothertongue.store import Store
from mothertongue.verdicts import Verdict


def open_model(params: Judge, folder: Path, store: Store) -> sampling.Model | Server | PairRM | RewardModel:
    """The model of a judge, which asks the sample store first. Raises BadInput where the folder is of another kind."""
    match params:
        case PairRMJudge():
            return PairRM(folder, store)
        case RewardJudge():
            return RewardModel(folder, store)
        case _:
            return sampling.open_model(folder, params.engine, store)


def render_requests(thread: Thread, answer: Answer, others: Sequence[Answer], params: Judge) -> list[str]:
    """The turns that a judge reads for its verdict on an answer; `others` are the other answers to the thread.

    They are as written: control tokens are escaped when they are encoded, and the judge's own turn begins with the
    words of prompts/<kind>/opening. A reward model reads the turns in its own template.
    """
    different = [other for other in others if not are_alike(answer, other)]
    orders = [pair for other in different for pair in ((answer, other), (other, answer))]
    match params:
        case RubricJudge():
            return [rubric.render_request(thread, answer)]
        case AdditiveJudge():
            return [additive.render_request(thread, answer)]
        case GradesJudge():
            return [grades.render_request(thread, answer, order) for order in grades.list_orders(params)]
        case PairwiseJudge():
            return [pairwise.render_request(thread, *pair) for pair in orders]
        case PairRMJudge():
            return [pairrm.render_request(thread, *pair) for pair in orders if pairrm.can_read(thread)]
        case RewardJudge():
            return [reward.render_request(thread, answer)]


def judge_answers(
    threads: Sequence[Thread],
    answers: Sequence[Answer],
    name: str,
    params: Judge,
    model: Any,  # what open_model gives for `params`
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
        case PairRMJudge():
            return pairrm.judge_answers(threads, answers, name, model)
        case RewardJudge():
            return reward.judge_answers(threads, answers, name, model)
