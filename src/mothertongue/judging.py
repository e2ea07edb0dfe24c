"""Verdicts of a model with a rubric on answers, and what they are worth."""

import json
import math
from collections import Counter
from collections.abc import Sequence

from mothertongue import languages, prompts, significance
from mothertongue.chat import Chat
from mothertongue.errors import BadInput
from mothertongue.params import RubricJudge
from mothertongue.records import (
    Answer,
    Estimate,
    Item,
    Message,
    Tally,
    Thread,
    Verdict,
    Worth,
    reference_answer,
    row_id,
)
from mothertongue.sampling import Choose, Model

SCORES = (1, 2, 3, 4, 5)  # what prompts/rubric asks for


def by_rubric(
    threads: Sequence[Thread], answers: Sequence[Answer], name: str, params: RubricJudge, language: str, model: Model
) -> list[Verdict]:
    """The expected score of each answer: the mean of 1 to 5 under the judge's probabilities for that one token.

    (G-Eval, Liu et al. 2023.) A verdict is `unparsed` when the score tokens together hold less than `min_mass`.
    Control tokens in question and answer are broken up, so that neither can speak for the judge.
    """
    options = score_tokens(model.chat, model.folder.name)
    questions = {thread.id: question(thread) for thread in threads}
    # The judge's turn begins with "Score: ", which leaves little to say but a score.
    opening = tuple(model.chat.tokenizer.encode(f"{prompts.text('score', language)} ", add_special_tokens=False))
    requests = []
    for answer in answers:
        ask = prompts.text("rubric", language, question=questions[answer.thread], answer=answer.text)
        prompt = model.chat.prompt([Message(role="user", content=ask)])
        requests.append(Choose(prompt=(*prompt, *opening), options=options))
    verdicts = []
    for answer, logs in zip(answers, model.choose(requests, f"scored {name}"), strict=True):
        score, mass = expected(logs)
        parsed = mass > 0 and mass >= params.min_mass
        verdicts.append(_verdict(answer, name, score if parsed else None, mass))
    return verdicts


def tally(verdicts: Sequence[Verdict]) -> Tally:
    """How many answers have a score, and what became of the others."""
    outcomes = Counter(verdict.outcome for verdict in verdicts)
    dropped = {reason: outcomes[reason] for reason in ("unparsed", "error")}
    return Tally(taken=len(verdicts), kept=outcomes["score"], dropped=dropped)


def worth(
    threads: Sequence[Thread],
    answers: Sequence[Answer],
    verdicts: Sequence[Verdict],
    language: str,
    signature: str,
) -> dict[str, Worth]:
    """For each generator how often a judge scores the expert's answer over a sample of the same thread, ties half.

    That is the area under the ROC curve within threads: 0.5 is a coin, 1 a judge that always sees who the expert is.
    Beside it on the same items two judges that cost nothing: the answer with more words is better (`longer`), the one
    in the right language is (`language`). Threads of split test are left out: judges are chosen by this.
    """
    scores = {verdict.answer: verdict.score for verdict in verdicts if verdict.score is not None}
    asked = {thread.id: thread for thread in threads if thread.split != "test"}
    found = {}
    for generator in sorted({answer.generator for answer in answers} - {"reference"}):
        samples = [answer for answer in answers if answer.generator == generator and answer.thread in asked]
        items: list[Item] = []
        for sample in samples:
            thread = asked[sample.thread]
            expert = reference_answer(thread)
            if sample.id not in scores or expert.id not in scores:
                continue
            words = [float(len(languages.words(text))) for text in (expert.text, sample.text)]
            right = [float(languages.is_in(text, language)) for text in (expert.text, sample.text)]
            values = {
                "expert": scores[expert.id],
                "sample": scores[sample.id],
                "judge": _over(scores[expert.id], scores[sample.id]),
                "longer": _over(*words),
                "language": _over(*right),
            }
            items += [
                Item(id=sample.id, group=thread.group, figure=figure, values=[value], text="")
                for figure, value in values.items()
            ]
        figures = _estimates(items, signature)
        scored = next((figure.n for figure in figures.values()), 0)
        found[generator] = Worth(samples=len(samples), unscored=len(samples) - scored, figures=figures)
    return found


def _over(expert: float, sample: float) -> float:
    return 0.5 if expert == sample else float(expert > sample)


def _estimates(items: Sequence[Item], signature: str) -> dict[str, Estimate]:
    found = {}
    for figure in dict.fromkeys(item.figure for item in items):
        kind = "mean" if figure in ("expert", "sample") else "share"
        rows = [item for item in items if item.figure == figure]
        found[figure] = significance.estimate(kind, rows, signature)
    return found


def signature(name: str, params: RubricJudge, language: str, model: Model) -> str:
    """What must be equal before the worth of two runs of a judge may be compared."""
    parts = {
        "judge": name,
        "min_mass": params.min_mass,
        "prompts": [prompts.digest(use, language) for use in ("rubric", "score")],
        "language": language,
        "detector": languages.detector(),
        **model.identity,
    }
    return json.dumps(parts, sort_keys=True)


def question(thread: Thread) -> str:
    """A thread's prompt as a judge reads it: the one turn, or all of them with who spoke."""
    if len(thread.prompt) == 1:
        return thread.prompt[0].content
    return "\n".join(f"{message.role}: {message.content}" for message in thread.prompt)


def score_tokens(chat: Chat, judge: str) -> tuple[int, ...]:
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


def expected(logs: Sequence[float]) -> tuple[float, float]:
    """(expected score, probability of all scores together) from the scores' natural log-probabilities."""
    weights = [math.exp(log) for log in logs]
    mass = math.fsum(weights)
    mean = math.fsum(s * w for s, w in zip(SCORES, weights, strict=True)) / mass if mass else math.nan
    return mean, mass


def _verdict(answer: Answer, judge: str, score: float | None, mass: float | None) -> Verdict:
    return Verdict(
        id=row_id(answer.id, judge),
        thread=answer.thread,
        answer=answer.id,
        judge=judge,
        outcome="unparsed" if score is None else "score",
        score=score,
        mass=mass,
    )
