"""A judge that is a reward model: a classifier with one label, whose logit is the score."""

from collections.abc import Sequence

from mothertongue.records import Answer, Message, Thread, row_id
from mothertongue.sampling.classification import RewardModel
from mothertongue.verdicts import Verdict


def judge_answers(threads: Sequence[Thread], answers: Sequence[Answer], name: str, model: RewardModel) -> list[Verdict]:
    """The logit on each conversation with its answer, in the model's own chat template; higher is better.

    It has no unit: a model that was trained on pairs (Bradley-Terry) learns differences between two answers to one
    question, in log-odds. The template ends a cut answer as well, because the model has seen no other ones. Control
    tokens are escaped.
    """
    by_id = {thread.id: thread for thread in threads}
    requests = [model.encode(by_id[answer.thread].prompt, answer.text) for answer in answers]
    return [
        Verdict(
            id=row_id(answer.id, name),
            thread=answer.thread,
            answer=answer.id,
            judge=name,
            outcome="score",
            score=logit,
            label_mass=None,
        )
        for answer, logit in zip(answers, model.rate(requests, f"scored {name}"), strict=True)
    ]


def render_request(thread: Thread, answer: Answer) -> str:
    """The turns that the judge reads, each after its role."""
    turns = [*thread.prompt, Message(role="assistant", content=answer.text)]
    return "\n".join(f"{turn.role}: {turn.content}" for turn in turns)
