"""What is measured on a model: items with statistics that add up. One function per suite."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from mothertongue import languages, overlap, prompts, significance
from mothertongue.figures import FIGURES
from mothertongue.params import Metrics
from mothertongue.records import Estimate, Item, Message, Pair, Row, Thread, read_rows
from mothertongue.sampling import Generate, Model, Weigh

VERSION = 3  # of the figures below: raise it when one is made otherwise than before


class _Sentence(Row):
    """A sentence in several languages, by code."""

    id: str
    text: dict[str, str]


def preference(pairs: Sequence[Pair], threads: Sequence[Thread], model: Model, base: Model) -> list[Item]:
    """DPO's implicit reward (Rafailov et al. 2023) on held-out pairs, without its factor beta, and plain likelihood.

    The reward of an answer is its log-probability minus the base's. On the base itself every reward is 0, so its
    accuracy is one half by construction; `likelihood_accuracy` (the reward of SimPO, Meng et al. 2024) has no such
    anchor and says more about the base.
    """
    held_out = [pair for pair in pairs if pair.split == "test"]
    groups = {thread.id: thread.group for thread in threads}
    texts = [text for pair in held_out for text in (pair.chosen.text, pair.rejected.text)]
    ended = [side.finish == "stop" for pair in held_out for side in (pair.chosen, pair.rejected)]
    prompts_ = [pair.prompt for pair in held_out for _ in range(2)]
    ours, theirs = (_log_probabilities(who, prompts_, texts, "metrics preference", ended) for who in (model, base))
    items = []
    for place, pair in enumerate(held_out):
        (chosen, rejected), (chosen_base, rejected_base) = (side[2 * place : 2 * place + 2] for side in (ours, theirs))
        reward = (sum(chosen) - sum(chosen_base)) - (sum(rejected) - sum(rejected_base))
        likelihood = sum(chosen) / len(chosen) - sum(rejected) / len(rejected)
        items += [
            _item(pair.id, groups[pair.thread], "reward_accuracy", [0.5 if reward == 0 else float(reward > 0)]),
            _item(pair.id, groups[pair.thread], "reward_margin", [reward]),
            _item(pair.id, groups[pair.thread], "likelihood_accuracy", [float(likelihood > 0)]),
            _item(pair.id, groups[pair.thread], "likelihood_margin", [likelihood]),
        ]
    return items


def language(threads: Sequence[Thread], model: Model, code: str, params: Metrics) -> list[Item]:
    """Answers to held-out prompts, taking the likeliest token each time."""
    held_out = [thread for thread in threads if thread.split == "test"]
    requests = [_greedy(model.chat.prompt(thread.prompt), params.answer_tokens) for thread in held_out]
    items = []
    for thread, said in zip(held_out, model.generate(requests, "metrics language"), strict=True):
        items += [
            _item(thread.id, thread.group, "right_language", [float(languages.is_in(said.text, code))], said.text),
            _item(thread.id, thread.group, "repetition", [repetition(said.text)]),
            _item(thread.id, thread.group, "words", [float(len(languages.words(said.text)))]),
            _item(thread.id, thread.group, "finished", [float(said.finish == "stop")]),
        ]
    return items


def repetition(text: str) -> float:
    """Share of a text's word trigrams that stood in it before; 0 for a text of fewer than four words."""
    words = languages.words(text)
    trigrams = list(zip(words, words[1:], words[2:], strict=False))
    return 1 - len(set(trigrams)) / len(trigrams) if len(trigrams) > 1 else 0.0


def perplexity(threads: Sequence[Thread], model: Model) -> list[Item]:
    """Negative log-likelihood in nats, and tokens, of the experts' answers to held-out prompts."""
    held_out = [thread for thread in threads if thread.split == "test"]
    logs = _log_probabilities(
        model, [t.prompt for t in held_out], [t.reference for t in held_out], "metrics perplexity"
    )
    return [
        _item(thread.id, thread.group, "perplexity", [-sum(row), float(len(row))])
        for thread, row in zip(held_out, logs, strict=True)
    ]


def translation(sentences: Path, model: Model, code: str, params: Metrics) -> list[Item]:
    """Sentences translated from English and into it; none where the file has no such language."""
    rows = [row for row in read_sentences(sentences) if code in row.text and code != "en"]
    items: list[Item] = []
    for source, target, name in (("en", code, "from_english"), (code, "en", "to_english")):
        requests = []
        for row in rows:
            ask = prompts.text(
                "translate",
                code,
                source=languages.name(source),
                target=languages.name(target),
                sentence=row.text[source],
            )
            requests.append(_greedy(model.chat.prompt([Message(role="user", content=ask)]), params.translation_tokens))
        said = [text.text for text in model.generate(requests, f"metrics translation {name}")]
        for kind in ("bleu", "chrf"):
            statistics = overlap.statistics(kind, said, [row.text[target] for row in rows])
            items += [
                _item(row.id, row.id, f"{kind}_{name}", values, text)
                for row, values, text in zip(rows, statistics, said, strict=True)
            ]
    return items


def read_sentences(path: Path) -> list[_Sentence]:
    """Parallel sentences, `{"id": ..., "text": {"en": ..., "es": ...}}` a row."""
    return read_rows(path, _Sentence)


def estimates(suite: str, items: Sequence[Item], signature: Mapping[str, str], seed: int) -> dict[str, Estimate]:
    """Each figure of a suite that has items, with its interval."""
    found = {}
    for figure, (kind, _) in FIGURES[suite].items():
        if rows := [item for item in items if item.figure == figure]:
            found[figure] = significance.estimate(kind, rows, seed, signature[figure])
    return found


def signatures(suite: str, model: Model, code: str, params: Metrics, harness: Mapping[str, str]) -> dict[str, str]:
    """The signature of each figure of a suite."""
    return {figure: _signature(suite, figure, model, code, params, harness) for figure in FIGURES[suite]}


def _signature(suite: str, figure: str, model: Model, code: str, params: Metrics, harness: Mapping[str, str]) -> str:
    """What must be equal before two values of a figure may be compared: how it was measured, not on which model."""
    parts = {
        "suite": f"{suite} {VERSION}",
        "language": code,
        "engine": model.identity["engine"],
        "dtype": model.dtype,
        "chat": model.chat.digest,
    }
    if suite == "benchmark":
        parts |= harness
    kind = FIGURES[suite][figure][0]
    if kind in ("bleu", "chrf"):
        parts["sacrebleu"] = overlap.signature("bleu" if kind == "bleu" else "chrf")
        parts["tokens"] = str(params.translation_tokens)
        parts["prompt"] = prompts.digest("translate", code)
    if suite == "language":
        parts["tokens"] = str(params.answer_tokens)
        parts["detector"] = languages.detector()
    return json.dumps(parts, sort_keys=True)


def _greedy(prompt: tuple[int, ...], max_tokens: int) -> Generate:
    return Generate(prompt=prompt, max_tokens=max_tokens, temperature=0, top_p=1, seed=0, index=0)


def _log_probabilities(
    model: Model,
    prompts_: Sequence[Sequence[Message]],
    answers: Sequence[str],
    label: str,
    ended: Sequence[bool] | None = None,
) -> list[list[float]]:
    """Of each token of each answer; those of an answer that was cut hold no end token."""
    said = zip(prompts_, answers, ended or [True] * len(answers), strict=True)
    pieces = [model.chat.answered(prompt, answer, ended=whole) for prompt, answer, whole in said]
    return model.weigh([Weigh(prompt=prompt, continuation=answer) for prompt, answer in pieces], label)


def _item(identity: str, group: str, figure: str, values: list[float], text: str = "") -> Item:
    return Item(id=identity, group=group, figure=figure, values=values, text=text)
