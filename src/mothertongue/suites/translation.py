"""Translation of sentences from English and into English."""

from collections.abc import Sequence
from typing import get_args

from mothertongue import languages, overlap, prompts
from mothertongue.measurements import SampleScore
from mothertongue.records import Message
from mothertongue.suites.data import Sentence
from mothertongue.suites.subject import Asked, Subject


def measure(sentences: Sequence[Sentence], subject: Subject) -> list[SampleScore]:
    """BLEU and chrF++ statistics of each sentence in each language, in both directions."""
    scores = []
    for code in sorted({code for row in sentences for code in row.text} - {"en"}):
        rows = [row for row in sentences if code in row.text]
        for source, target, name in (("en", code, "from_english"), (code, "en", "to_english")):
            asked = [Asked([Message(role="user", content=_prompt(row, code, source, target))], code) for row in rows]
            tokens = subject.limits.translation_tokens
            answers = [text for text, _ in subject.generate(asked, tokens, f"metrics translation {name}")]
            for kind in get_args(overlap.Kind):
                statistics = overlap.segment_statistics(kind, answers, [row.text[target] for row in rows], target)
                scores += [
                    SampleScore(
                        id=f"{row.id} {code}",
                        language=code,
                        group=row.id,
                        figure=f"{kind}_{name}",
                        values=values,
                        text=text,
                    )
                    for row, values, text in zip(rows, statistics, answers, strict=True)
                ]
    return scores


def _prompt(row: Sentence, code: str, source: str, target: str) -> str:
    return prompts.render(
        "translate",
        code,
        source=languages.english_name(source),
        target=languages.english_name(target),
        sentence=row.text[source],
    )
