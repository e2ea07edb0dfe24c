"""What is measured on a model: items with statistics that add up. One function per suite."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator
from pydantic_core import PydanticCustomError

from mothertongue import answers, languages, overlap, prompts, significance, texts
from mothertongue.errors import BadInput
from mothertongue.figures import FIGURES
from mothertongue.params import Metrics
from mothertongue.records import Estimate, Item, Message, Pair, Row, Said, Thread, read_rows
from mothertongue.sampling import Generate, Model, Weigh

VERSION = 4  # of the figures below: raise it when one is made otherwise than before


def _with_english(text: dict[str, str]) -> dict[str, str]:
    if "en" not in text:
        raise PydanticCustomError("english", "the sentence should be there in English ('en'), too")
    return text


class Sentence(Row):
    """A sentence in several languages, by code."""

    id: str
    text: Annotated[dict[str, Said], AfterValidator(_with_english)]


@dataclass(frozen=True, slots=True)
class Subject:
    """What is measured: a model, with or without a system turn before every conversation, in one language."""

    model: Model
    language: str
    system_prompt: bool
    limits: Metrics

    def conversation(self, messages: Sequence[Message]) -> list[Message]:
        """Messages as this subject gets them."""
        return answers.guided(messages, self.language) if self.system_prompt else list(messages)

    def generate(self, asked: Sequence[Sequence[Message]], max_tokens: int, label: str) -> list[tuple[str, str]]:
        """(text, finish) of each conversation, taking the likeliest token each time."""
        prompts_ = [self.model.chat.prompt(self.conversation(messages)) for messages in asked]
        requests = [Generate(prompt, max_tokens, temperature=0, top_p=1, seed=0, index=0) for prompt in prompts_]
        return [(said.text, said.finish) for said in self.model.generate(requests, label)]

    def weigh(self, asked: Sequence[tuple[Sequence[Message], str, bool]], label: str) -> list[list[float]]:
        """Log-probabilities of each answer's tokens after its conversation: (messages, answer, whether it ended)."""
        pieces = [
            self.model.chat.answered(self.conversation(messages), answer, ended=ended)
            for messages, answer, ended in asked
        ]
        return self.model.weigh([Weigh(prompt=prompt, continuation=answer) for prompt, answer in pieces], label)


def preference(pairs: Sequence[Pair], threads: Sequence[Thread], subject: Subject, start: Subject) -> list[Item]:
    """DPO's implicit reward (Rafailov et al. 2023) on held-out pairs, without its factor beta, and plain likelihood.

    The reward of an answer is its log-probability minus that under `start`, where training began; on `start` itself
    every reward is 0. The likelihood per token (the reward of SimPO, Meng et al. 2024) has no such anchor.

    A model that has learned what experts sound like, whatever the question, tells chosen from rejected as well. So each
    pair is weighed again with the chosen side of another question in the place of its own (`mismatched`): what tells
    the two chosen sides apart is what the model has learned of this question.
    """
    groups = {thread.id: thread.group for thread in threads}
    pairs = [pair for pair in pairs if pair.split == subject.limits.split]
    others = mismatched(pairs, groups)
    seen: set[tuple[str, str]] = set()  # two rules may choose the same answer: its match counts once
    asked = [
        (pair.prompt, side.text, side.finish == "stop")
        for pair, other in zip(pairs, others, strict=True)
        for side in (pair.chosen, pair.rejected, (other or pair).chosen)
    ]
    ours, theirs = (who.weigh(asked, "metrics preference") for who in (subject, start))
    items = []
    for place, (pair, other) in enumerate(zip(pairs, others, strict=True)):
        rows, before = (side[3 * place : 3 * place + 3] for side in (ours, theirs))
        chosen, rejected, control = (sum(row) - sum(was) for row, was in zip(rows, before, strict=True))
        likely, unlikely, likely_control = (sum(row) / len(row) for row in rows)
        values = {
            "reward_accuracy": _wins(chosen - rejected),
            "reward_margin": chosen - rejected,
            "likelihood_accuracy": _wins(likely - unlikely),
            "likelihood_margin": likely - unlikely,
        }
        if other:
            values |= {
                "reward_accuracy_mismatched": _wins(control - rejected),
                "reward_margin_mismatched": control - rejected,
                "likelihood_accuracy_mismatched": _wins(likely_control - unlikely),
            }
        if other and (pair.thread, pair.chosen.text) not in seen:
            seen.add((pair.thread, pair.chosen.text))
            values |= {
                "match_accuracy": _wins(chosen - control),
                "match_margin": chosen - control,
                "likelihood_match": _wins(likely - likely_control),
            }
        group = groups[pair.thread]
        items += [
            Item(id=pair.id, group=group, figure=figure, values=[value], text="") for figure, value in values.items()
        ]
    return items


def mismatched(pairs: Sequence[Pair], groups: Mapping[str, str]) -> list[Pair | None]:
    """For each pair another of the same rule, another group and another last question, whose chosen side says something
    else.

    The one nearest in length (characters), ties by id; None where a rule has no such pair.
    """
    found: list[Pair | None] = []
    for pair in pairs:
        candidates = [
            other
            for other in pairs
            if other.rule == pair.rule
            and groups[other.thread] != groups[pair.thread]
            and languages.words(other.chosen.text) != languages.words(pair.chosen.text)
            and languages.words(other.prompt[-1].content) != languages.words(pair.prompt[-1].content)
        ]
        length = len(pair.chosen.text)
        found.append(min(candidates, key=lambda o: (abs(len(o.chosen.text) - length), o.id)) if candidates else None)
    return found


def language(threads: Sequence[Thread], subject: Subject) -> list[Item]:
    """Answers to held-out prompts, taking the likeliest token each time."""
    threads = [thread for thread in threads if thread.split == subject.limits.split]
    said = subject.generate([thread.prompt for thread in threads], subject.limits.answer_tokens, "metrics language")
    ended = [
        Item(id=thread.id, group=thread.group, figure="finished", values=[float(finish == "stop")], text="")
        for thread, (_, finish) in zip(threads, said, strict=True)
    ]
    return texts.items(threads, [text for text, _ in said], subject.language) + ended


def perplexity(threads: Sequence[Thread], subject: Subject) -> list[Item]:
    """Negative log-likelihood in nats, and tokens, of the experts' answers to held-out prompts, and to other ones."""
    threads = [thread for thread in threads if thread.split == subject.limits.split]
    asked = [("perplexity", thread, thread) for thread in threads]
    asked += [("perplexity_mismatched", t, o) for t, o in zip(threads, texts.mismatched(threads), strict=True) if o]
    logs = subject.weigh([(thread.prompt, other.reference, True) for _, thread, other in asked], "metrics perplexity")
    return [
        Item(id=t.id, group=t.group, figure=figure, values=[-sum(row), float(len(row))], text="")
        for (figure, t, _), row in zip(asked, logs, strict=True)
    ]


def written_system_prompt(subject: Subject) -> dict[str, str | None]:
    """The system turn that the chat template writes where a conversation has none; None where it writes none.

    Found as what stands where a system turn of the conversation's own would.
    """
    chat = subject.model.chat
    user, own = Message(role="user", content="?"), Message(role="system", content="@")
    try:
        bare, marked = (str(chat.tokenizer.decode(chat.prompt(turns))) for turns in ([user], [own, user]))
    except BadInput:  # a template that refuses system turns writes none
        return {"written_system_prompt": None}
    before, _, after = marked.partition("@")
    inside = bare[len(before) : len(bare) - len(after)]
    there = bare.startswith(before) and bare.endswith(after) and inside.strip()
    return {"written_system_prompt": inside.strip() if there else None}


def translation(sentences: Sequence[Sentence], subject: Subject) -> list[Item]:
    """Sentences translated from English and into it."""
    code, items = subject.language, []
    for source, target, name in (("en", code, "from_english"), (code, "en", "to_english")):
        asked = [
            prompts.text(
                "translate",
                code,
                source=languages.name(source),
                target=languages.name(target),
                sentence=row.text[source],
            )
            for row in sentences
        ]
        given = subject.generate(
            [[Message(role="user", content=ask)] for ask in asked],
            subject.limits.translation_tokens,
            f"metrics translation {name}",
        )
        said = [text for text, _ in given]
        for kind in ("bleu", "chrf"):
            statistics = overlap.statistics(kind, said, [row.text[target] for row in sentences], target)
            items += [
                Item(id=row.id, group=row.id, figure=f"{kind}_{name}", values=values, text=text)
                for row, values, text in zip(sentences, statistics, said, strict=True)
            ]
    return items


def read_sentences(path: Path, language: str) -> list[Sentence]:
    """Parallel sentences, `{"id": ..., "text": {"en": ..., "es": ...}}` a row; those that have the language."""
    return [row for row in read_rows(path, Sentence) if language in row.text and language != "en"]


def estimates(suite: str, items: Sequence[Item], subject: Subject, harness: Mapping[str, str]) -> dict[str, Estimate]:
    """Each figure of a suite that has items, with its interval; none where every item is undecided."""
    found = {}
    for name, figure in FIGURES[suite].items():
        rows = [item for item in items if item.figure == name]
        if rows and (figure.kind != "ratio" or any(row.values[1] for row in rows)):
            found[name] = significance.estimate(figure.kind, rows, signature(suite, name, subject, harness))
    return found


def signature(suite: str, figure: str, subject: Subject, harness: Mapping[str, str]) -> str:
    """What must be equal before two values of a figure may be compared: how it was measured, not on what.

    The system prompt is part of what is measured, as the model is.
    """
    model, limits = subject.model, subject.limits
    parts = {
        "suite": f"{suite} {VERSION}",
        "split": limits.split,
        "language": subject.language,
        "engine": model.identity["engine"],
        "device": model.identity["device"],
        "dtype": model.dtype,
        "chat": model.chat.digest,
    }
    if suite == "benchmark":
        parts |= harness
    kind = FIGURES[suite][figure].kind
    if kind in ("bleu", "chrf"):
        target = "en" if figure.endswith("_to_english") else subject.language
        parts["sacrebleu"] = overlap.signature("bleu" if kind == "bleu" else "chrf", target)
    if suite == "translation":
        parts["tokens"] = str(limits.translation_tokens)
        parts["prompt"] = prompts.digest("translate", subject.language)
    if suite == "language":
        parts["tokens"] = str(limits.answer_tokens)
        parts["detector"] = languages.detector()
    return json.dumps(parts, sort_keys=True)


def _wins(margin: float) -> float:
    return 0.5 if margin == 0 else float(margin > 0)
