"""Perplexity of the experts' answers to held-out prompts."""

from collections.abc import Sequence

from mothertongue import texts
from mothertongue.measurements import SampleScore
from mothertongue.records import Thread
from mothertongue.suites.subject import Asked, Subject


def measure(threads: Sequence[Thread], subject: Subject) -> list[SampleScore]:
    """Negative log-likelihood in nats and number of tokens of each expert's answer, and of one to another question."""
    others = texts.pick_mismatched([texts.exchange(thread) for thread in threads])
    pairs = [("perplexity", thread, thread) for thread in threads]
    pairs += [
        ("perplexity_mismatched", thread, threads[place])
        for thread, place in zip(threads, others, strict=True)
        if place is not None
    ]
    asked = [(Asked(thread.prompt, thread.language), other.expert, True) for _, thread, other in pairs]
    return [
        SampleScore(
            id=thread.id,
            language=thread.language,
            group=thread.group,
            figure=figure,
            values=[-sum(row), float(len(row))],
            text="",
        )
        for (figure, thread, _), row in zip(pairs, subject.log_likelihood(asked, "metrics perplexity"), strict=True)
    ]
