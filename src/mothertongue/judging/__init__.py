"""Judges: one module per kind, with its prompts in prompts/<kind>. A new kind gets a case below."""

from collections.abc import Sequence

from mothertongue.judging import additive, grades, pairwise, rubric
from mothertongue.params import AdditiveJudge, GradesJudge, Judge, PairwiseJudge, RubricJudge
from mothertongue.records import Answer, Thread
from mothertongue.sampling import Model
from mothertongue.verdicts import Verdict


def judge_answers(
    threads: Sequence[Thread], answers: Sequence[Answer], name: str, params: Judge, model: Model
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
