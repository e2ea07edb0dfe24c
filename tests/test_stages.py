"""The stages without a model, as they are run: what they write and print, and the whole message of a mistake."""

import json
import math
import os
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result
from conftest import PARAMS, step_line
from project import ROOT

from mothertongue import check, languages, sampling, significance
from mothertongue.chat import Chat
from mothertongue.errors import BadInput
from mothertongue.measurements import SampleScore
from mothertongue.origin import Origin, read_origin
from mothertongue.records import Answer, Conversation, Pair, Text, Thread, reference_answer, row_id
from mothertongue.rows import read_rows, write_json, write_rows
from mothertongue.store import Store
from mothertongue.verdicts import Verdict
from stages import (
    adapter,
    calibrated,
    filtered,
    generated,
    merged,
    metrics,
    models,
    pairs,
    quantized,
    raw,
    report,
    scored,
    threads,
)

pytestmark = pytest.mark.usefixtures("workplace")


def run(stage: click.Command, *arguments: str) -> Result:
    return CliRunner().invoke(stage, arguments)


def refused(stage: click.Command, *arguments: str) -> str:
    """The output of a stage that stops at bad input: one line, exit code 1, no traceback."""
    result = run(stage, *arguments)
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit)
    assert result.stdout == ""
    printed = result.stderr.removesuffix("\n")
    assert "\n" not in printed
    return printed


def lines(path: str, rows: list[Any]) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text("".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows), encoding="utf-8")


def read_json(path: str) -> Any:
    return json.loads(Path(path).read_text(encoding="utf-8"))


def dialogue(*turns: str, language: str | None = None) -> dict[str, Any]:
    messages = [{"role": "assistant" if place % 2 else "user", "content": turn} for place, turn in enumerate(turns)]
    return {"messages": messages} | ({"language": language} if language else {})


GOOD = [
    dialogue("¿Dónde queda la biblioteca?", "Está en la plaza mayor, junto al museo."),
    dialogue("¿Qué bebes por la mañana?", "Bebo café con leche, casi siempre.", "¿Y luego?", "Luego salgo a caminar."),
    dialogue("¿Qué hora es en Madrid?", "Son las tres de la tarde."),
    dialogue("¿Dónde está la farmacia?", "No la he visto hoy por aquí."),
]  # train, train, test, validation
BAD = [dialogue("Do you speak English?", "Yes, of course I can speak English with you."), dialogue("Hola", "Sí")]


CHAIN = (
    (raw.main, ("data/sources", "data/raw.jsonl", "data/texts.jsonl", "metrics/raw.json")),
    (filtered.main, ("data/raw.jsonl", "data/filtered.jsonl", "metrics/filtered.json")),
    (threads.main, ("data/filtered.jsonl", "data/threads.jsonl", "metrics/threads.json")),
)


def until_threads() -> None:
    """raw, filtered and threads, one after the other."""
    assert Path.cwd() != ROOT, "these tests write where they are run"
    lines("data/sources/dialogues.jsonl", GOOD + BAD)
    for stage, arguments in CHAIN:
        result = run(stage, *arguments)
        assert result.exit_code == 0, result.output


def test_from_sources_to_threads() -> None:
    until_threads()
    rows = read_rows(Path("data/raw.jsonl"), Conversation)
    assert [row.id for row in rows] == sorted(row.id for row in rows)
    assert read_json("metrics/raw.json") == {"dialogues.jsonl": {"dropped": {}, "kept": 14, "total": 14}}
    kept = read_rows(Path("data/filtered.jsonl"), Conversation)
    openings = {row.messages[0].content for row in kept}
    assert openings == {row["messages"][0]["content"] for row in GOOD}
    counts = read_json("metrics/filtered.json")
    assert (counts.pop("total"), counts.pop("kept")) == (6, 4)
    assert {reason: count for reason, count in counts["dropped"].items() if count} == {
        "other_language": 1,
        "too_short": 1,
    }
    cut = read_rows(Path("data/threads.jsonl"), Thread)
    assert {row.reference for row in cut} == {
        "Está en la plaza mayor, junto al museo.",
        "Bebo café con leche, casi siempre.",
        "Luego salgo a caminar.",
        "Son las tres de la tarde.",
        "No la he visto hoy por aquí.",
    }
    counts = read_json("metrics/threads.json")
    assert (counts["total"], counts["kept"], counts["splits"]) == (
        5,
        5,
        {"es": {"test": 1, "train": 3, "validation": 1}},
    )


def test_what_the_stages_print() -> None:
    until_threads()
    assert [run(stage, *arguments).output for stage, arguments in CHAIN] == [
        "dialogues.jsonl: messages 14 of 14\ndata/raw.jsonl: 6 conversations; data/texts.jsonl: 0 texts\n",
        "data/filtered.jsonl: conversations 4 of 6 (dropped: other_language 1, too_short 1)\n",
        "data/threads.jsonl: answers 5 of 5; es test 1, train 3, validation 1\n",
    ]


def test_texts_are_read_beside_conversations() -> None:
    sources_ = "  texts: [{source: file, id: texts.jsonl}]\n\nfiltered:\n"
    changed = PARAMS.replace("\nfiltered:\n", sources_).replace("from: base", "from: cpt")
    Path("params.yaml").write_text(changed.replace("adapter:\n", f"adapter:\n{step_line('cpt', 'cpt')}"))
    lines("data/sources/dialogues.jsonl", GOOD)
    lines("data/sources/texts.jsonl", [{"text": "Había una vez un gato."}, {"text": " "}])
    assert run(raw.main, *CHAIN[0][1]).output == (
        "dialogues.jsonl: messages 10 of 10\ntexts.jsonl (texts): 1 of 2 (dropped: empty 1)\n"
        "data/raw.jsonl: 4 conversations; data/texts.jsonl: 1 texts\n"
    )
    assert [row.text for row in read_rows(Path("data/texts.jsonl"), Text)] == ["Había una vez un gato."]
    assert read_json("metrics/raw.json")["texts.jsonl (texts)"] == {
        "total": 2, "kept": 1, "dropped": {"other_language": 0, "empty": 1, "duplicate": 0, "not_in_share": 0}
    }  # fmt: skip


ITALIAN = [
    dialogue("Dove si trova la biblioteca?", "È nella piazza principale, vicino al museo.", language="it"),
    dialogue("Che ore sono a Roma?", "Sono le tre del pomeriggio.", language="it-IT"),
    dialogue("Come si chiama il tuo gatto?", "Il mio gatto si chiama Pippo.", language="it"),
]  # train, test, validation
TWO = PARAMS.replace('languages: ["es"]', 'languages: ["es", "it"]')


def test_two_languages_from_sources_to_threads() -> None:
    Path("params.yaml").write_text(TWO, encoding="utf-8")
    spanish = [row | {"language": "es"} for row in GOOD]
    other = dialogue("Wo ist der Hund?", "Der Hund ist jetzt im Garten.", language="de")
    # Italian that is labelled as Spanish: the filter is by the language of the row
    wrong = dialogue("Chi ha aperto la porta?", "L'ha aperta mia sorella stamattina.", language="es")
    lines("data/sources/dialogues.jsonl", [*spanish, *ITALIAN, other, wrong])
    assert [run(stage, *arguments).output for stage, arguments in CHAIN] == [
        (
            "dialogues.jsonl: messages 18 of 20 (dropped: other_language 2)\n"
            "data/raw.jsonl: 8 conversations; data/texts.jsonl: 0 texts\n"
        ),
        "data/filtered.jsonl: conversations 7 of 8 (dropped: other_language 1)\n",
        ("data/threads.jsonl: answers 8 of 8; es test 1, train 3, validation 1; it test 1, train 1, validation 1\n"),
    ]
    assert read_json("metrics/threads.json")["splits"] == {
        "es": {"test": 1, "train": 3, "validation": 1},
        "it": {"test": 1, "train": 1, "validation": 1},
    }
    rows = read_rows(Path("data/threads.jsonl"), Thread)
    assert {row.reference for row in rows if row.language == "it"} == {row["messages"][1]["content"] for row in ITALIAN}


def test_a_row_without_a_language_among_several_is_refused() -> None:
    Path("params.yaml").write_text(TWO, encoding="utf-8")
    lines("data/sources/dialogues.jsonl", [*ITALIAN, *GOOD])
    assert refused(raw.main, "data/sources", "data/raw.jsonl", "data/texts.jsonl", "metrics/raw.json") == (
        "Error: data/sources/dialogues.jsonl:4: no language, and params.yaml has es, it; add one to the row, or"
        " to its source"
    )
    assert not Path("data/raw.jsonl").exists()


def test_a_language_without_threads_of_a_split_is_refused() -> None:
    Path("params.yaml").write_text(TWO, encoding="utf-8")
    lines("data/sources/dialogues.jsonl", [*(row | {"language": "es"} for row in GOOD), *ITALIAN[:2]])
    for stage, arguments in CHAIN[:2]:
        assert run(stage, *arguments).exit_code == 0
    assert refused(threads.main, *CHAIN[2][1]) == (
        "Error: data/filtered.jsonl: no thread of split validation in 'it' (7 of 7); add conversations, or loosen"
        " section `filtered`"
    )
    assert not Path("data/threads.jsonl").exists()


def test_the_same_rows_give_the_same_bytes() -> None:
    until_threads()
    outs = [Path(f"data/{name}.jsonl") for name in ("raw", "filtered", "threads")]
    before = [path.read_bytes() for path in outs]
    shutil.copyfile("data/sources/dialogues.jsonl", "kept")
    shutil.rmtree("data")
    lines("data/sources/dialogues.jsonl", [json.loads(line) for line in Path("kept").read_text().splitlines()][::-1])
    for stage, arguments in CHAIN:
        run(stage, *arguments)
    assert [path.read_bytes() for path in outs] == before


FORMATS = {"messages": "format: messages", "oasst_messages": "format: oasst_messages, replies: best"}
MESSAGE = {"message_id": "a", "parent_id": None, "role": "prompter", "text": "Hola"}


@pytest.mark.parametrize(
    ("form", "content", "expected"),
    [
        ("messages", b'{"messages": [\n', "1: not JSON (Expecting value at character 15); fix or delete the line"),
        ("messages", b'{"messages": [{"role": "user", "content": "\xf1"}]}\n',
         "1: not UTF-8 (byte 0xf1 at position 44); save the file as UTF-8"),
        ("messages", b'{"dialogue": []}\n', "1: messages: missing; add it"),
        ("messages", b'{"messages": []}\n', "1: messages: empty conversation; add a message or delete the line"),
        ("messages", b'{"messages": [{"role": "bot", "content": "Hola"}]}\n',
         "1: messages.0.role: input should be 'system', 'user' or 'assistant', got \"bot\"; fix the row"),
        ("oasst_messages", json.dumps(MESSAGE | {"parent_id": "z"}).encode(),
         "1: parent_id: orphan, no message 'z' in this file; add the parent or delete the row"),
        ("oasst_messages", json.dumps(MESSAGE | {"parent_id": "a"}).encode(),
         "1: parent_id: cycle, no root above this message; give one of it parent null"),
    ],
)  # fmt: skip
def test_raw_refuses(form: str, content: bytes, expected: str) -> None:
    until_threads()
    before = Path("data/raw.jsonl").read_bytes()
    Path("params.yaml").write_text(PARAMS.replace("format: messages", FORMATS[form]), encoding="utf-8")
    Path("data/sources/dialogues.jsonl").write_bytes(content)
    printed = refused(raw.main, "data/sources", "data/raw.jsonl", "data/texts.jsonl", "metrics/raw.json")
    assert printed == f"Error: data/sources/dialogues.jsonl:{expected}"
    assert Path("data/raw.jsonl").read_bytes() == before


@pytest.mark.parametrize(
    ("stage", "arguments", "source", "row", "expected"),
    [
        (filtered.main, ("data/raw.jsonl", "data/filtered.jsonl", "metrics/filtered.json"), "data/raw.jsonl",
         {"id": "a", "source": "s", "language": "es"}, "messages: missing; add it"),
        (threads.main, ("data/filtered.jsonl", "data/threads.jsonl", "metrics/threads.json"), "data/filtered.jsonl",
         {"id": "a", "source": "s", "language": "es", "messages": []},
         "messages: list should have at least 1 item after validation, not 0, got []; fix the row"),
    ],
)  # fmt: skip
def test_a_bad_row_is_refused(
    stage: click.Command,
    arguments: tuple[str, str, str],
    source: str,
    row: dict[str, Any],
    expected: str,
) -> None:
    until_threads()
    before = Path(arguments[1]).read_bytes(), Path(arguments[2]).read_bytes()
    number = len(Path(source).read_text(encoding="utf-8").splitlines()) + 1
    with Path(source).open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
    assert refused(stage, *arguments) == f"Error: {source}:{number}: {expected}"
    assert (Path(arguments[1]).read_bytes(), Path(arguments[2]).read_bytes()) == before


@pytest.mark.skipif(not Path("/dev/full").is_char_device(), reason="no /dev/full here")
@pytest.mark.parametrize("out", ["data/raw.jsonl", "metrics/raw.json"])
def test_a_full_disk(out: str) -> None:
    until_threads()
    before = Path(out).read_bytes()
    place = Path(out)
    place.with_name(f".{place.name}.partial").symlink_to("/dev/full")
    printed = refused(raw.main, "data/sources", "data/raw.jsonl", "data/texts.jsonl", "metrics/raw.json")
    why = "cannot be written (No space left on device); free some space or fix the folder, and run again"
    assert printed == f"Error: {out}: {why}"
    assert Path(out).read_bytes() == before
    assert [path.name for path in place.parent.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("min_words: 2", "min_words: 2.5", "17: filtered.min_words: input should be a valid integer, got 2.5"),
        ("  min_words: 2\n", "", "15: filtered.min_words: missing; add it"),
        ("min_words: 2", "min_word: 2\n  min_words: 2",
         "17: filtered.min_word: unknown parameter; remove it or fix its name"),
        ("min_letters: 0.5", "min_letters: 50",
         "19: filtered.min_letters: input should be less than or equal to 1, got 50"),
    ],
)  # fmt: skip
def test_a_mistake_in_another_section_stops_every_stage(old: str, new: str, expected: str) -> None:
    until_threads()
    assert old in PARAMS
    Path("params.yaml").write_text(PARAMS.replace(old, new), encoding="utf-8")
    before = Path("data/raw.jsonl").read_bytes()
    for stage, *arguments in (
        (raw.main, "data/sources", "data/raw.jsonl", "data/texts.jsonl", "metrics/raw.json"),
        (threads.main, "data/filtered.jsonl", "data/threads.jsonl", "metrics/threads.json"),
    ):
        assert refused(stage, *arguments) == f"Error: params.yaml:{expected}"
    assert Path("data/raw.jsonl").read_bytes() == before


def test_an_unknown_language() -> None:
    until_threads()
    before = [Path(f"data/{name}.jsonl").read_bytes() for name in ("raw", "filtered")]
    Path("params.yaml").write_text(PARAMS.replace('"es"', '"xx"'), encoding="utf-8")
    for stage, arguments in CHAIN[:2]:
        assert refused(stage, *arguments) == (
            f"Error: params.yaml:1: languages.0: unknown language 'xx'; take one of {', '.join(languages.NAMES)}"
        )
    assert [Path(f"data/{name}.jsonl").read_bytes() for name in ("raw", "filtered")] == before


@pytest.mark.parametrize(("count", "split", "threads_"), [(1, "validation", 1), (3, "validation", 4)])
def test_a_split_without_threads(count: int, split: str, threads_: int) -> None:
    lines("data/sources/dialogues.jsonl", GOOD[:count])
    run(raw.main, "data/sources", "data/raw.jsonl", "data/texts.jsonl", "metrics/raw.json")
    run(filtered.main, "data/raw.jsonl", "data/filtered.jsonl", "metrics/filtered.json")
    assert refused(threads.main, "data/filtered.jsonl", "data/threads.jsonl", "metrics/threads.json") == (
        f"Error: data/filtered.jsonl: no thread of split {split} in 'es' ({threads_} of {threads_});"
        " add conversations, or loosen section `filtered`"
    )
    assert not Path("data/threads.jsonl").exists()


# What `make repro` does first.


@pytest.fixture
def pipeline(workplace: Path) -> Path:
    """The project's dvc.yaml beside params.yaml."""
    return Path(shutil.copyfile(ROOT / "dvc.yaml", workplace / "dvc.yaml"))


UNKNOWN = "unknown parameter; remove it or fix its name"
WRONG_WORD = f"""\
Error: params.yaml:15: filtered.min_words: missing; add it
params.yaml:17: filtered.min_word: {UNKNOWN}
"""
WRONG_SECTION = f"""\
Error: params.yaml:1: metrics: missing; add it
params.yaml:{1 + PARAMS.splitlines().index("metrics:")}: metric: {UNKNOWN}
"""


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("min_words: 2", "min_words: 2", ""),
        ("min_words: 2", "min_word: 2", WRONG_WORD),
        ("metrics:\n", "metric:\n", WRONG_SECTION),
    ],
)
@pytest.mark.usefixtures("pipeline")
def test_params_are_checked_first(old: str, new: str, expected: str) -> None:
    Path("params.yaml").write_text(PARAMS.replace(old, new), encoding="utf-8")
    result = run(check.main)
    assert (result.exit_code, result.stdout, result.stderr) == (1 if expected else 0, "", expected)
    assert "python -m mothertongue.check\n" in (ROOT / "Makefile").read_text(encoding="utf-8")


# Models.


def test_a_model_without_safetensors() -> None:
    Path("toy").mkdir()
    Path("toy/pytorch_model.bin").write_bytes(b"pickle")
    Path("models/base").mkdir(parents=True)
    Path("models/base/model.safetensors").write_bytes(b"previous")
    assert refused(models.main, "base", "models/base") == (
        "Error: toy: no *.safetensors file; convert the weights to safetensors first"
    )
    assert Path("models/base/model.safetensors").read_bytes() == b"previous"


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_model_in_a_folder(dtype: str) -> None:
    changed = PARAMS.replace("id: toy, dtype: float32", f"id: toy, dtype: {dtype}")
    Path("params.yaml").write_text(changed, encoding="utf-8")
    Path("toy").mkdir()
    header = b'{"x":{"dtype":"U8","shape":[2000000],"data_offsets":[0,2000000]}}'
    Path("toy/model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + b"x" * 2_000_000)
    result = run(models.main, "base", "models/base")
    assert (result.exit_code, result.output) == (0, f"models/base: toy, 2 MB, computes in {dtype}\n")
    assert read_json("models/base/origin.json") == {"source": "folder", "id": "toy", "revision": None, "dtype": dtype}
    assert read_origin(Path("models/base")) == Origin(source="folder", id="toy", revision=None, dtype=dtype)  # type: ignore[arg-type]


# Verdicts, from a model that gives every answer the same score.


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, chat: Chat) -> list[str]:
    """The prompts to that model."""
    prompts: list[str] = []

    class Model:
        encode, find_options = sampling.Model.encode, sampling.Model.find_options

        def __init__(self, folder: Path, engine: str, store: Store) -> None:
            assert (folder, engine, store.path) == (Path("models/base"), "transformers", Path("store/samples.sqlite"))
            self.folder, self.chat, self.identity = folder, chat, {"weights": "w"}
            self.usage, self.price = sampling.Usage(2, 20, 2), None

        def next_token_logprobs(self, requests: Any, label: str) -> list[list[float]]:
            assert label == "scored rubric"
            prompts.extend(chat.tokenizer.decode(request.prompt) for request in requests)
            return [[-math.inf] * 3 + [0.0, -math.inf] for _ in requests]

    monkeypatch.setattr(sampling, "Model", Model)
    monkeypatch.setenv("MOTHERTONGUE_STORE", "store")
    return prompts


SCORED = (
    "rubric", "data/threads.jsonl", "data/generated", "models/base", "data/scored/rubric.jsonl",
    "metrics/scored/rubric.json",
)  # fmt: skip


def given(generator: str, rows: list[Thread]) -> list[Answer]:
    """An answer to each of those threads, written as the generator's."""
    answers = [
        Answer(id=f"{generator}-{row.id}", thread=row.id, generator=generator, index=0, text="No lo sé.", tokens=4,
               finish="stop")
        for row in rows
    ]  # fmt: skip
    write_rows(Path(f"data/generated/{generator}.jsonl"), answers)
    return answers


def test_scored_in_two_languages(asked: list[str]) -> None:
    Path("params.yaml").write_text(TWO, encoding="utf-8")
    lines("data/sources/dialogues.jsonl", [*(row | {"language": "es"} for row in GOOD), *ITALIAN])
    for stage, arguments in CHAIN:
        assert run(stage, *arguments).exit_code == 0
    rows = read_rows(Path("data/threads.jsonl"), Thread)
    for generator in ("plain", "other"):
        given(generator, rows)
    result = run(scored.main, *SCORED)
    assert (result.exit_code, result.output) == (0, "data/scored/rubric.jsonl: scores 24 of 24\n")
    verdicts = read_rows(Path("data/scored/rubric.jsonl"), Verdict)
    assert {row.answer for row in verdicts} == {
        *(reference_answer(row).id for row in rows),
        *(f"{name}-{row.id}" for name in ("plain", "other") for row in rows),
    }
    assert {(row.judge, row.outcome, row.score) for row in verdicts} == {("rubric", "score", 4.0)}
    begun = Counter(prompt.rpartition("assistant\n")[2] for prompt in asked)
    assert begun == {"Puntuación: ": 15, "Punteggio: ": 9}
    written = read_json("metrics/scored/rubric.json")
    assert written["verdicts"] == {"total": 24, "kept": 24, "dropped": {"unparsed": 0, "error": 0}}
    parts = {"all": written["accuracy"], **written["languages"]}
    assert {code: {name: row["samples"] for name, row in part.items()} for code, part in parts.items()} == {
        "all": {"other": 6, "plain": 6}, "es": {"other": 4, "plain": 4}, "it": {"other": 2, "plain": 2}
    }  # fmt: skip
    figures = written["languages"]["it"]["plain"]["figures"]
    assert {name: figures[name]["value"] for name in figures if name not in ("question", "random")} == {
        "expert": 4.0, "sample": 4.0, "judge": 0.5, "longer": 1.0, "language": 1.0
    }  # fmt: skip
    assert json.loads(figures["judge"]["signature"])["languages"] == ["it"]
    assert json.loads(written["accuracy"]["plain"]["figures"]["judge"]["signature"])["languages"] == ["es", "it"]


def test_an_expert_is_judged_where_a_generator_answered(asked: list[str]) -> None:
    """Of five threads, one is answered by both generators, and one by either alone."""
    until_threads()
    rows = read_rows(Path("data/threads.jsonl"), Thread)
    answers = given("plain", rows[:2]) + given("other", rows[1:3])
    result = run(scored.main, *SCORED)
    assert (result.exit_code, result.output) == (0, "data/scored/rubric.jsonl: scores 7 of 7\n")
    verdicts = read_rows(Path("data/scored/rubric.jsonl"), Verdict)
    assert sorted(row.answer for row in verdicts) == sorted(
        [*(row.id for row in answers), *(reference_answer(row).id for row in rows[:3])]
    )
    assert len(asked) == 7


# Judges against people, and pairs, from what generators and judges wrote.

CALIBRATED = (
    "rubric", "data/human", "data/threads.jsonl", "models/base", "metrics/calibrated/rubric.json",
    "metrics/curves/reliability/rubric.csv",
)  # fmt: skip


def judged_by_people(*preferred: int) -> None:
    """Items in data/human of which one person prefers an answer."""
    lines(
        "data/human/ana.jsonl",
        [
            {
                "id": f"{place:02}",
                "language": "es",
                "prompt": [{"role": "user", "content": f"¿Qué es {place}?"}],
                "answers": ["Un número.", "No lo sé, <|im_end|> de verdad."],
                "annotations": [{"annotator": "ana", "preferred": choice}],
            }
            for place, choice in enumerate(preferred)
        ],
    )


def test_a_judge_that_nobody_compared_is_not_calibrated(asked: list[str]) -> None:
    Path("data/human").mkdir(parents=True)
    lines("data/threads.jsonl", [])
    result = run(calibrated.main, *CALIBRATED)
    assert (result.exit_code, result.output) == (
        0,
        "metrics/calibrated/rubric.json: 0 items that people have judged; not calibrated\n",
    )
    assert read_json("metrics/calibrated/rubric.json") == {"cards": {}, "verdicts": None, "left_out": 0, "usage": None}
    assert not asked


@pytest.mark.usefixtures("judged")
def test_a_judge_against_people(asked: list[str]) -> None:
    """A judge that scores all answers alike agrees on half of the pairs, which is not enough to make pairs."""
    judged_by_people(*[1] * 6, *[2] * 6)
    result = run(calibrated.main, *CALIBRATED)
    assert (result.exit_code, result.output) == (
        0,
        "metrics/calibrated/rubric.json: 12 items that people have judged; agreement es 0.500 [0.254, 0.746] of 12\n",
    )
    held_out = {"group": row_id("qué es 3"), "split": "test"}
    before = Path("data/threads.jsonl").read_bytes()
    asked_before = len(asked)
    (row, *others) = read_rows(Path("data/threads.jsonl"), Thread)
    write_rows(Path("data/threads.jsonl"), [row.model_copy(update=held_out), *others])
    result = run(calibrated.main, *CALIBRATED)
    assert "11 items that people have judged (1 more are of split test, and left out); agree" in result.output
    assert read_json("metrics/calibrated/rubric.json")["left_out"] == 1
    Path("data/threads.jsonl").write_bytes(before)
    run(calibrated.main, *CALIBRATED)
    del asked[asked_before:]
    card = read_json("metrics/calibrated/rubric.json")["cards"]["es"]
    assert (card["items"], card["answers"], card["unscored"]) == (12, 24, 0)
    assert card["raters"]["judge"]["agreement"]["value"] == 0.5
    assert len(asked) == 24
    assert not any("<|im_end|> de verdad" in prompt for prompt in asked)  # control tokens are escaped
    about = read_json("metrics/calibrated/rubric.json")
    assert (about["verdicts"], about["left_out"]) == (
        {"total": 24, "kept": 24, "dropped": {"unparsed": 0, "error": 0}}, 0
    )  # fmt: skip

    write_json(Path("metrics/calibrated/second.json"), read_json("metrics/calibrated/rubric.json"))
    Path("params.yaml").write_text(PARAMS.replace("min_agreement: 0.5", "min_agreement: 0.55"), encoding="utf-8")
    before = sorted(path for path in Path().rglob("*pairs*"))
    assert refused(pairs.main, *PAIRS) == (
        "Error: pairs.rules: reference_over_plain: judge second agrees with people on 0.50 [0.25, 0.75] of 12 pairs"
        " (es), and the lower bound is under calibrated.min_agreement 0.55; take another judge, or have more answers"
        " annotated"
    )
    assert sorted(path for path in Path().rglob("*pairs*")) == before


# Pairs.

PAIRS = (
    "data", "metrics/calibrated", "data/pairs.jsonl", "metrics/pairs.json", "metrics/curves/pairs",
)  # fmt: skip


@pytest.fixture
def judged(workplace: Path) -> list[Thread]:
    """Threads with an answer of each generator, all of them scored by the one judge that makes pairs."""
    until_threads()
    rows = read_rows(workplace / "data/threads.jsonl", Thread)
    verdicts = [
        Verdict(id=f"v-{row.id}", thread=row.id, answer=reference_answer(row).id, judge="second", outcome="score",
                score=100.0, label_mass=None)
        for row in rows
    ]  # fmt: skip
    for generator in ("plain", "other"):
        given(generator, rows)
    for place, row in enumerate(rows):
        outcome = "score" if place else "unparsed"
        verdicts.append(
            Verdict(id=f"w-{row.id}", thread=row.id, answer=f"plain-{row.id}", judge="second", outcome=outcome,
                    score=12.5 if place else None, label_mass=None)
        )  # fmt: skip
    write_rows(Path("data/scored/second.jsonl"), verdicts)
    write_rows(Path("data/scored/rubric.jsonl"), [])
    for name in ("rubric", "second"):
        write_json(Path(f"metrics/calibrated/{name}.json"), {"cards": {}, "left_out": 0, "usage": None})
    return rows


def test_pairs(judged: list[Thread]) -> None:
    result = run(pairs.main, *PAIRS)
    assert (result.exit_code, result.output) == (
        0,
        (
            "reference_over_plain, by second: 4 of 5 (dropped: no_verdict 1); the judge is not calibrated on expert"
            " pairs (es)\n"
            "data/pairs.jsonl: 4 pairs\n"
        ),
    )
    found = read_rows(Path("data/pairs.jsonl"), Pair)
    assert {(p.thread, p.language, p.split, p.sides[0][0], p.sides[1][0]) for p in found} == {
        (row.id, "es", row.split, row.reference, "No lo sé.") for row in judged[1:]
    }
    dropped = {
        "contradictory": 0,
        "repeated": 0,
        "cut": 0,
        "empty": 0,
        "alone": 0,
        "identical": 0,
        "margin": 0,
        "reversed": 0,
        "no_answer": 0,
        "no_reference": 0,
        "no_verdict": 1,
        "length": 0,
        "similar": 0,
        "tie": 0,
        "too_short": 0,
        "unequal": 0,
        "not_learned": 0,
        "per_thread": 0,
        "wrong_language": 0,
    }
    counts = read_json("metrics/pairs.json")["reference_over_plain"]
    splits = counts.pop("splits")
    assert counts["threads"] == {"dropped": dropped, "kept": 4, "total": 5}
    assert (counts["languages"], counts["label_noise"], counts["judge"]) == ({"es": 4}, {"es": None}, "second")
    assert Path("metrics/curves/pairs/words/reference_over_plain.csv").read_text().startswith("words,pairs\n")
    assert Counter({split: of["pairs"] for split, of in splits.items()}) == Counter(row.split for row in judged[1:])
    assert {(of["cut_rejected"], of["share"]) for of in splits.values()} == {(0, 0)}


def test_pairs_of_which_too_many_were_cut(judged: list[Thread]) -> None:
    answers = read_rows(Path("data/generated/plain.jsonl"), Answer)
    cut = {f"plain-{row.id}" for row in judged[:3]}
    write_rows(
        Path("data/generated/plain.jsonl"),
        [row.model_copy(update={"finish": "length"}) if row.id in cut else row for row in answers],
    )
    assert run(pairs.main, *PAIRS).exit_code == 0  # the first has no verdict, and of four two may be cut
    splits = read_json("metrics/pairs.json")["reference_over_plain"]["splits"]
    assert sum(of["cut_rejected"] for of in splits.values()) == 2
    before = Path("data/pairs.jsonl").read_bytes(), Path("metrics/pairs.json").read_bytes()
    Path("params.yaml").write_text(PARAMS.replace("max_cut_rejected: 0.5", "max_cut_rejected: 0.4"), encoding="utf-8")
    assert refused(pairs.main, *PAIRS) == (
        "Error: pairs.rules: reference_over_plain: 2 of 4 rejected sides were cut at max_tokens, over"
        " pairs.max_cut_rejected 0.4; raise generated.plain.max_tokens"
    )
    assert (Path("data/pairs.jsonl").read_bytes(), Path("metrics/pairs.json").read_bytes()) == before


@pytest.mark.parametrize(
    ("path", "row", "expected"),
    [
        ("data/scored/second.jsonl", {"id": "a", "thread": "t", "answer": "w", "judge": "j", "outcome": "tie",
                                    "score": None, "label_mass": None},
         "outcome: input should be 'score', 'unparsed' or 'error', got \"tie\"; fix the row"),
        ("data/scored/rubric.jsonl", {"id": "a", "thread": "t", "answer": "w", "judge": "j", "outcome": "score",
                                      "label_mass": None}, "score: missing; add it"),
        ("data/generated/plain.jsonl", {"id": "a", "thread": "t", "generator": "plain", "index": "0", "text": "",
                                        "tokens": 1, "finish": "stop"},
         'index: input should be a valid integer, got "0"; fix the row'),
        ("data/threads.jsonl", {"id": "a", "conversation": "c", "language": "es", "group": "g", "split": "dev",
                                "prompt": [], "reference": ""},
         "split: input should be 'train', 'validation' or 'test', got \"dev\"; fix the row"),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("judged")
def test_pairs_refuses(path: str, row: dict[str, Any], expected: str) -> None:
    assert run(pairs.main, *PAIRS).exit_code == 0
    before = Path("data/pairs.jsonl").read_bytes()
    number = len(Path(path).read_bytes().splitlines()) + 1
    with Path(path).open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
    assert refused(pairs.main, *PAIRS) == f"Error: {path}:{number}: {expected}"
    assert Path("data/pairs.jsonl").read_bytes() == before


@pytest.mark.usefixtures("judged")
def test_pairs_without_a_generators_answers() -> None:
    Path("data/generated/other.jsonl").unlink()
    assert refused(pairs.main, *PAIRS) == (
        "Error: data/generated/other.jsonl: cannot be read (No such file or directory);"
        " put it there, or run the stage that makes it"
    )


@pytest.mark.parametrize(
    ("stage", "arguments", "expected"),
    [
        (models.main, "none out", "models: no 'none'; take one of base, elsewhere"),
        (generated.main, "none data/threads.jsonl toy out.jsonl report.json",
         "generated: no 'none'; take one of other, plain"),
        (scored.main, "none data/threads.jsonl data/generated toy out.jsonl report.json",
         "scored: no 'none'; take one of rubric, second"),
        (adapter.main, "none toy data/pairs.jsonl out report.json curves", "adapter: no 'none'; take one of dpo"),
        (quantized.main, "none toy out report.json", "quantized: no 'none'; take one of int8, nf4"),
        (metrics.main, "none toy toy data out",
         "metrics.models: no 'none'; take one of base, dpo, int8, nf4, prompted"),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("judged")
def test_a_name_that_is_not_in_params(stage: click.Command, arguments: str, expected: str) -> None:
    assert refused(stage, *arguments.split()) == f"Error: params.yaml: {expected}"
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("stage", "arguments", "bad", "outs"),
    [
        (generated.main, "plain data/threads.jsonl models/base out.jsonl report.json", "data/threads.jsonl",
         "out.jsonl"),
        (scored.main, "rubric data/threads.jsonl data/generated models/base out.jsonl out.json", "data/threads.jsonl",
         "out.jsonl out.json"),
        (scored.main, "rubric data/threads.jsonl data/generated models/base out.jsonl out.json",
         "data/generated/other.jsonl", "out.jsonl out.json"),
        (adapter.main, "dpo models/base data/pairs.jsonl out out.json curves", "data/pairs.jsonl",
         "out out.json curves"),
        (merged.main, "dpo models/base models/adapter data/threads.jsonl out out.json", "data/threads.jsonl",
         "out out.json"),
        (metrics.main, "base models/base models/base data out", "data/pairs.jsonl", "out"),
        (metrics.main, "base models/base models/base data out", "data/threads.jsonl", "out"),
        (metrics.main, "base models/base models/base data out", "data/suites/benchmark.jsonl", "out"),
        (metrics.main, "base models/base models/base data out", "data/suites/translation.jsonl", "out"),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("judged")
def test_a_bad_row_stops_a_stage_before_its_model_is_read(
    tokenizer: Callable[..., Path], stage: click.Command, arguments: str, bad: str, outs: str
) -> None:
    shutil.copytree(tokenizer(), "models/base")
    Path("models/base/config.json").write_text("{}")
    Path("models/base/model.safetensors").write_bytes(b"nothing that loads")
    assert run(pairs.main, *PAIRS).exit_code == 0
    for out in outs.split():
        Path(out).write_text("previous")
    Path("data/suites").mkdir()
    for suite in ("benchmark", "translation"):
        Path(f"data/suites/{suite}.jsonl").touch()
    with Path(bad).open("a", encoding="utf-8") as file:
        file.write('{"id": 7}\n')
    number = len(Path(bad).read_bytes().splitlines())
    assert refused(stage, *arguments.split()) == (
        f"Error: {bad}:{number}: id: input should be a valid string, got 7; fix the row"
    )
    assert {Path(out).read_text() for out in outs.split()} == {"previous"}


@pytest.mark.usefixtures("judged")
def test_a_training_hides_all_gpus_but_the_first_before_it_looks_for_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def look(*_: Any) -> None:
        raise BadInput(f"sees {os.environ['CUDA_VISIBLE_DEVICES']}")

    assert run(pairs.main, *PAIRS).exit_code == 0
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")
    monkeypatch.setattr(sampling, "Model", look)
    arguments = ("dpo", "models/base", "data/pairs.jsonl", "out", "out.json", "curves")
    assert refused(adapter.main, *arguments) == "Error: sees 2"


REPORT = ("data/threads.jsonl", "metrics", "out.json", "out.md")


def test_a_report_of_columns_that_were_not_measured() -> None:
    Path("out.md").write_text("previous")
    Path("data").mkdir()
    Path("data/threads.jsonl").write_text("")
    assert refused(report.main, *REPORT) == (
        "Error: metrics/measured/base/benchmark.items.jsonl: cannot be read (No such file or directory); put it there,"
        " or run the stage that makes it"
    )
    assert Path("out.md").read_text() == "previous"
    assert not Path("out.json").exists()


def test_a_report_without_the_language_suite(judged: list[Thread]) -> None:
    suites = "suites: [benchmark, preference, language, perplexity, translation]"
    Path("params.yaml").write_text(PARAMS.replace(suites, "suites: [benchmark]"), encoding="utf-8")
    for place, name in enumerate(("base", "prompted", "dpo", "nf4", "int8")):
        items = [
            SampleScore(id=f"{n:02}", language="es", group=f"{n:02}", figure="accuracy", values=[float(n < 8 * place)],
                        text="")
            for n in range(40)
        ]  # fmt: skip
        figure = significance.estimate("share", items, "{}").model_dump()
        write_rows(Path(f"metrics/measured/{name}/benchmark.items.jsonl"), items)
        write_json(Path(f"metrics/measured/{name}/benchmark.json"), {"figures": {"accuracy": figure}})
        write_json(Path(f"metrics/measured/{name}/model.json"), {"bytes": 1, "written_system_prompt": None})
    used = {"requests": 3, "prompt_tokens": 30, "tokens": 9}
    for judge in ("rubric", "second"):
        write_json(
            Path(f"metrics/scored/{judge}.json"), {"verdicts": {"dropped": {"error": 0}}, "accuracy": {}, "usage": used}
        )
    for name in ("plain", "other"):
        write_json(Path(f"metrics/generated/{name}.json"), {"answers": {"dropped": {"refused": 0}}, "usage": used})
    write_json(
        Path("metrics/adapter/dpo.json"), {"pairs": 4, "updates": 2, "validation": {"pairs": 2}, "last": {"loss": 0.5}}
    )
    for name in ("seeds", "experiments", "pairs"):
        write_json(Path(f"metrics/{name}.json"), {})
    result = run(report.main, *REPORT)
    assert (result.exit_code, result.output) == (0, "out.md: 5 columns, 9 differences\n")
    assert read_json("out.json") == {"accuracy": 0.4}
    page = Path("out.md").read_text(encoding="utf-8")
    held_out = sum(row.split == "validation" for row in judged)
    assert page.startswith(f"Measured on the {held_out} held-out threads of split `validation`.\n")
    assert "| `accuracy` | 0.000 | 0.200 | 0.400 | **+0.400 [+0." in page
    assert "| judge | generator |" in page
    assert "held-out questions" not in page
    assert "Not calibrated, as people have judged nothing in data/human: `rubric`, `second`." in page
    assert "| `scored second` | 3 | 0 | 30 | 9 | – |" in page
    assert "| `dpo` | 4 | 0 | 2 | 0.500 |" in page


SHARED = ROOT.parent / "shared/data"


@pytest.mark.skipif(not SHARED.is_dir(), reason="no ../shared/data with OpenAssistant's conversations")
@pytest.mark.parametrize(
    ("name", "form", "language", "counts"),
    [
        ("oasst1_en_validation.messages.jsonl", "oasst_messages", "en", (628, 203)),
        ("oasst1_fr_top1.jsonl", "messages", "fr", (756, 256)),
    ],
)
def test_openassistant_from_raw_to_threads(name: str, form: str, language: str, counts: tuple[int, int]) -> None:
    changed = PARAMS.replace("id: dialogues.jsonl, format: messages", f"id: {name}, {FORMATS[form]}")
    changed = changed.replace('"es"', f'"{language}"').replace("max_words: 30", "max_words: 400")
    Path("params.yaml").write_text(changed, encoding="utf-8")
    run(raw.main, str(SHARED), "data/raw.jsonl", "data/texts.jsonl", "metrics/raw.json")
    run(filtered.main, "data/raw.jsonl", "data/filtered.jsonl", "metrics/filtered.json")
    result = run(threads.main, "data/filtered.jsonl", "data/threads.jsonl", "metrics/threads.json")
    assert result.exit_code == 0, result.output
    assert (read_json("metrics/raw.json")[name]["kept"], read_json("metrics/filtered.json")["total"]) == counts
    filtering, cutting = read_json("metrics/filtered.json"), read_json("metrics/threads.json")
    assert filtering["kept"] + sum(filtering["dropped"].values()) == filtering["total"]
    assert cutting["kept"] + sum(cutting["dropped"].values()) == cutting["total"]
    assert filtering["kept"] > 0.8 * filtering["total"]
    rows = read_rows(Path("data/threads.jsonl"), Thread)
    assert cutting["kept"] == len(rows) == len({row.id for row in rows}) == sum(cutting["splits"][language].values())
    assert min(cutting["splits"][language].values()) >= 30
