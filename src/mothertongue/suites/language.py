"""Answers to held-out prompts."""

from collections.abc import Sequence

from mothertongue import texts
from mothertongue.measurements import SampleScore
from mothertongue.records import Thread
from mothertongue.suites.subject import Asked, Subject


def measure(threads: Sequence[Thread], subject: Subject) -> list[SampleScore]:
    """The figures of texts.score_answers for greedy answers, and whether each ended by itself."""
    asked = [Asked(thread.prompt, thread.language) for thread in threads]
    answers = subject.generate(asked, subject.limits.answer_tokens, "metrics language")
    finished = [
        SampleScore(
            id=thread.id,
            language=thread.language,
            group=thread.group,
            figure="finished",
            values=[float(finish == "stop")],
            text="",
        )
        for thread, (_, finish) in zip(threads, answers, strict=True)
    ]
    return texts.score_answers(threads, [text for text, _ in answers]) + finished
