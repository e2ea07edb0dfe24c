"""The stages without a model, from outside: data out, and the whole message of one bad row."""

import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result
from conftest import PARAMS
from project import ROOT

from mothertongue import languages, params
from mothertongue.records import Answer, Conversation, Pair, Thread, Verdict, read_rows, reference_answer, write_rows
from stages import adapter, base, filtered, generated, merged, metrics, pairs, raw, report, scored, threads

pytestmark = pytest.mark.usefixtures("workplace")


def run(stage: click.Command, *arguments: str) -> Result:
    return CliRunner().invoke(stage, arguments)


def refused(stage: click.Command, *arguments: str) -> str:
    """What a stage says that stops at bad input: one line, exit code 1, no traceback."""
    result = run(stage, *arguments)
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit)
    assert result.stdout == ""
    said = result.stderr.removesuffix("\n")
    assert "\n" not in said
    return said


def lines(path: str, rows: list[Any]) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text("".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows), encoding="utf-8")


def told(path: str) -> Any:
    return json.loads(Path(path).read_text(encoding="utf-8"))


def dialogue(*turns: str) -> dict[str, Any]:
    return {
        "messages": [
            {"role": "assistant" if place % 2 else "user", "content": turn} for place, turn in enumerate(turns)
        ]
    }


GOOD = [
    dialogue("¿Dónde queda la biblioteca?", "Está en la plaza mayor, junto al museo."),
    dialogue("¿Qué bebes por la mañana?", "Bebo café con leche, casi siempre.", "¿Y luego?", "Luego salgo a caminar."),
    dialogue("¿Qué hora es en Madrid?", "Son las tres de la tarde."),
    dialogue("¿Dónde está la farmacia?", "No la he visto hoy por aquí."),
]  # train, train, test, validation
BAD = [dialogue("Do you speak English?", "Yes, of course I can speak English with you."), dialogue("Hola", "Sí")]


def until_threads() -> None:
    """raw, filtered and threads, one after the other."""
    assert Path.cwd() != ROOT, "these tests write where they are run"
    lines("data/sources/dialogues.jsonl", GOOD + BAD)
    for stage, arguments in (
        (raw.main, ("data/sources", "data/raw.jsonl", "metrics/raw.json")),
        (filtered.main, ("data/raw.jsonl", "data/filtered.jsonl", "metrics/filtered.json")),
        (threads.main, ("data/filtered.jsonl", "data/threads.jsonl", "metrics/threads.json")),
    ):
        result = run(stage, *arguments)
        assert result.exit_code == 0, result.output


def test_from_sources_to_threads() -> None:
    until_threads()
    rows = read_rows(Path("data/raw.jsonl"), Conversation)
    assert [row.id for row in rows] == sorted(row.id for row in rows)
    assert told("metrics/raw.json") == {"dialogues.jsonl": {"dropped": {}, "kept": 14, "taken": 14}}
    kept = read_rows(Path("data/filtered.jsonl"), Conversation)
    openings = {row.messages[0].content for row in kept}
    assert openings == {row["messages"][0]["content"] for row in GOOD}
    counts = told("metrics/filtered.json")
    assert (counts.pop("taken"), counts.pop("kept")) == (6, 4)
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
    counts = told("metrics/threads.json")
    assert (counts["taken"], counts["kept"], counts["splits"]) == (5, 5, {"test": 1, "train": 3, "validation": 1})


def test_what_the_stages_say() -> None:
    until_threads()
    said = [
        run(raw.main, "data/sources", "data/raw.jsonl", "metrics/raw.json").output,
        run(filtered.main, "data/raw.jsonl", "data/filtered.jsonl", "metrics/filtered.json").output,
        run(threads.main, "data/filtered.jsonl", "data/threads.jsonl", "metrics/threads.json").output,
    ]
    assert said[:2] == [
        "dialogues.jsonl: messages 14 of 14\ndata/raw.jsonl: 6 conversations\n",
        "data/filtered.jsonl: conversations 4 of 6 (dropped: other_language 1, too_short 1)\n",
    ]
    splits = told("metrics/threads.json")["splits"]
    shares = ", ".join(f"{split} {count}" for split, count in splits.items())
    assert said[2] == f"data/threads.jsonl: answers 5 of 5; {shares}\n"


def test_the_same_rows_give_the_same_bytes() -> None:
    until_threads()
    outs = [Path(f"data/{name}.jsonl") for name in ("raw", "filtered", "threads")]
    before = [path.read_bytes() for path in outs]
    shutil.copyfile("data/sources/dialogues.jsonl", "kept")
    shutil.rmtree("data")
    lines("data/sources/dialogues.jsonl", [json.loads(line) for line in Path("kept").read_text().splitlines()][::-1])
    for stage, *arguments in (
        (raw.main, "data/sources", "data/raw.jsonl", "metrics/raw.json"),
        (filtered.main, "data/raw.jsonl", "data/filtered.jsonl", "metrics/filtered.json"),
        (threads.main, "data/filtered.jsonl", "data/threads.jsonl", "metrics/threads.json"),
    ):
        run(stage, *arguments)
    assert [path.read_bytes() for path in outs] == before


MESSAGE = {"message_id": "a", "parent_id": None, "role": "prompter", "text": "Hola"}


@pytest.mark.parametrize(
    ("form", "content", "expected"),
    [
        ("messages", b'{"messages": [\n', "1: not JSON (Expecting value at character 15); mend or delete the line"),
        ("messages", b'{"messages": [{"role": "user", "content": "\xf1"}]}\n',
         "1: not UTF-8 (byte 0xf1 at position 44); save the file as UTF-8"),
        ("messages", b'{"dialogue": []}\n', "1: messages: missing; add it"),
        ("messages", b'{"messages": []}\n', "1: messages: empty conversation; add a message or delete the line"),
        ("messages", b'{"messages": [{"role": "bot", "content": "Hola"}]}\n',
         "1: messages.0.role: input should be 'system', 'user' or 'assistant', got \"bot\"; mend the row"),
        ("oasst_messages", json.dumps(MESSAGE | {"parent_id": "z"}).encode(),
         "1: parent_id: orphan, no message 'z' in this file; add the parent or delete the row"),
        ("oasst_messages", json.dumps(MESSAGE | {"parent_id": "a"}).encode(),
         "1: parent_id: cycle, no root above this message; give one of it parent null"),
    ],
)  # fmt: skip
def test_raw_refuses(form: str, content: bytes, expected: str) -> None:
    until_threads()
    before = Path("data/raw.jsonl").read_bytes()
    Path("params.yaml").write_text(PARAMS.replace("format: messages", f"format: {form}"), encoding="utf-8")
    Path("data/sources/dialogues.jsonl").write_bytes(content)
    said = refused(raw.main, "data/sources", "data/raw.jsonl", "metrics/raw.json")
    assert said == f"Error: data/sources/dialogues.jsonl:{expected}"
    assert Path("data/raw.jsonl").read_bytes() == before


@pytest.mark.parametrize(
    ("stage", "arguments", "source", "row", "expected"),
    [
        (filtered.main, ("data/raw.jsonl", "data/filtered.jsonl", "metrics/filtered.json"), "data/raw.jsonl",
         {"id": "a", "source": "s"}, "messages: missing; add it"),
        (threads.main, ("data/filtered.jsonl", "data/threads.jsonl", "metrics/threads.json"), "data/filtered.jsonl",
         {"id": "a", "source": "s", "messages": []},
         "messages: list should have at least 1 item after validation, not 0, got []; mend the row"),
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
    said = refused(raw.main, "data/sources", "data/raw.jsonl", "metrics/raw.json")
    why = "cannot be written (No space left on device); make room or mend the folder and run again"
    assert said == f"Error: {out}: {why}"
    assert Path(out).read_bytes() == before
    assert [path.name for path in place.parent.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("min_words: 2", "min_words: 2.5", "14: filtered.min_words: input should be a valid integer, got 2.5"),
        ("  min_words: 2\n", "", "12: filtered.min_words: missing; add it"),
        ("min_words: 2", "min_word: 2\n  min_words: 2",
         "14: filtered.min_word: unknown parameter; remove it or mend its name"),
        ("min_letters: 0.5", "min_letters: 50",
         "16: filtered.min_letters: input should be less than or equal to 1, got 50"),
    ],
)  # fmt: skip
def test_a_mistake_in_another_section_stops_every_stage(old: str, new: str, expected: str) -> None:
    until_threads()
    assert old in PARAMS
    Path("params.yaml").write_text(PARAMS.replace(old, new), encoding="utf-8")
    before = Path("data/raw.jsonl").read_bytes()
    for stage, *arguments in (
        (raw.main, "data/sources", "data/raw.jsonl", "metrics/raw.json"),
        (threads.main, "data/filtered.jsonl", "data/threads.jsonl", "metrics/threads.json"),
    ):
        assert refused(stage, *arguments) == f"Error: params.yaml:{expected}"
    assert Path("data/raw.jsonl").read_bytes() == before


def test_an_unknown_language() -> None:
    until_threads()
    before = [Path(f"data/{name}.jsonl").read_bytes() for name in ("raw", "filtered")]
    Path("params.yaml").write_text(PARAMS.replace('"es"', '"xx"'), encoding="utf-8")
    for stage, *arguments in (
        (raw.main, "data/sources", "data/raw.jsonl", "metrics/raw.json"),
        (filtered.main, "data/raw.jsonl", "data/filtered.jsonl", "metrics/filtered.json"),
    ):
        known = ", ".join(sorted(languages.NAMES))
        assert refused(stage, *arguments) == (
            f"Error: params.yaml: language: unknown language 'xx'; take one of {known}"
        )
    assert [Path(f"data/{name}.jsonl").read_bytes() for name in ("raw", "filtered")] == before


@pytest.mark.parametrize(("count", "split", "threads_"), [(1, "validation", 1), (3, "validation", 4)])
def test_a_split_without_threads(count: int, split: str, threads_: int) -> None:
    lines("data/sources/dialogues.jsonl", GOOD[:count])
    run(raw.main, "data/sources", "data/raw.jsonl", "metrics/raw.json")
    run(filtered.main, "data/raw.jsonl", "data/filtered.jsonl", "metrics/filtered.json")
    assert refused(threads.main, "data/filtered.jsonl", "data/threads.jsonl", "metrics/threads.json") == (
        f"Error: data/filtered.jsonl: no thread of split {split} ({threads_} of {threads_});"
        " add conversations or loosen filtered"
    )
    assert not Path("data/threads.jsonl").exists()


@pytest.mark.parametrize(
    ("old", "new", "code", "said"),
    [
        ("min_words: 2", "min_words: 2", 0, ""),
        ("min_words: 2", "min_word: 2", 1, "14: filtered.min_word"),
        ("metrics:\n", "metric:\n", 1, "1: metrics: missing; add it\nparams.yaml:"),
    ],
)
def test_make_repro_asks_of_params_first(old: str, new: str, code: int, said: str) -> None:
    Path("params.yaml").write_text(PARAMS.replace(old, new), encoding="utf-8")
    result = run(params.main)
    assert result.exit_code == code
    assert said in result.stderr
    assert "python -m mothertongue.params\n" in (ROOT / "Makefile").read_text(encoding="utf-8")


def test_a_model_without_safetensors() -> None:
    Path("toy").mkdir()
    Path("toy/pytorch_model.bin").write_bytes(b"pickle")
    Path("models/base").mkdir(parents=True)
    Path("models/base/model.safetensors").write_bytes(b"previous")
    assert refused(base.main, "models/base") == (
        "Error: toy: no *.safetensors file; convert the weights to safetensors first"
    )
    assert Path("models/base/model.safetensors").read_bytes() == b"previous"


def test_a_folder_is_the_base() -> None:
    Path("toy").mkdir()
    header = b'{"x":{"dtype":"U8","shape":[2000000],"data_offsets":[0,2000000]}}'
    Path("toy/model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + b"x" * 2_000_000)
    result = run(base.main, "models/base")
    assert (result.exit_code, result.output) == (0, "models/base: toy, 2 MB, to compute in float32\n")


# Pairs, from what generators and judges wrote.

PAIRS = ("data/threads.jsonl", "data/generated", "data/scored", "data/pairs.jsonl", "metrics/pairs.json")


@pytest.fixture
def judged(workplace: Path) -> list[Thread]:
    """Threads with an answer of each generator, all of them scored by the one judge that makes pairs."""
    until_threads()
    rows = read_rows(workplace / "data/threads.jsonl", Thread)
    verdicts = [
        Verdict(id=f"v-{row.id}", thread=row.id, answer=reference_answer(row).id, judge="second", outcome="score",
                score=100.0, mass=None)
        for row in rows
    ]  # fmt: skip
    for generator in ("plain", "other"):
        answers = [
            {"id": f"{generator}-{row.id}", "thread": row.id, "generator": generator, "index": 0,
             "text": "No lo sé.", "tokens": 4, "finish": "stop"}
            for row in rows
        ]  # fmt: skip
        lines(f"data/generated/{generator}.jsonl", answers)
    for place, row in enumerate(rows):
        outcome = "score" if place else "unparsed"
        verdicts.append(
            Verdict(id=f"w-{row.id}", thread=row.id, answer=f"plain-{row.id}", judge="second", outcome=outcome,
                    score=12.5 if place else None, mass=None)
        )  # fmt: skip
    write_rows(Path("data/scored/second.jsonl"), verdicts)
    write_rows(Path("data/scored/rubric.jsonl"), [])
    return rows


def test_pairs(judged: list[Thread]) -> None:
    result = run(pairs.main, *PAIRS)
    assert (result.exit_code, result.output) == (
        0,
        "reference_over_plain: 4 of 5 (dropped: no_verdict 1)\ndata/pairs.jsonl: 4 pairs\n",
    )
    found = read_rows(Path("data/pairs.jsonl"), Pair)
    assert {(p.thread, p.split, p.chosen.text, p.rejected.text) for p in found} == {
        (row.id, row.split, row.reference, "No lo sé.") for row in judged[1:]
    }
    dropped = {
        "cut": 0,
        "empty": 0,
        "identical": 0,
        "margin": 0,
        "no_answer": 0,
        "no_verdict": 1,
        "tie": 0,
        "wrong_language": 0,
    }
    counts = told("metrics/pairs.json")["reference_over_plain"]
    splits = counts.pop("splits")
    assert counts == {"dropped": dropped, "kept": 4, "taken": 5}
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
    splits = told("metrics/pairs.json")["reference_over_plain"]["splits"]
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
                                    "score": None, "mass": None},
         "outcome: input should be 'score', 'unparsed' or 'error', got \"tie\"; mend the row"),
        ("data/scored/rubric.jsonl", {"id": "a", "thread": "t", "answer": "w", "judge": "j", "outcome": "score",
                                      "mass": None}, "score: missing; add it"),
        ("data/generated/plain.jsonl", {"id": "a", "thread": "t", "generator": "plain", "index": "0", "text": "",
                                        "tokens": 1, "finish": "stop"},
         'index: input should be a valid integer, got "0"; mend the row'),
        ("data/threads.jsonl", {"id": "a", "conversation": "c", "group": "g", "split": "dev",
                                "prompt": [], "reference": ""},
         "split: input should be 'train', 'validation' or 'test', got \"dev\"; mend the row"),
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


@pytest.mark.usefixtures("judged")
def test_a_name_that_is_not_in_params() -> None:
    for stage, arguments, expected in (
        (generated.main, ("nobody", "data/threads.jsonl", "toy", "out.jsonl"),
         "params.yaml: generated: no 'nobody'; take one of other, plain"),
        (scored.main, ("nobody", "data/threads.jsonl", "data/generated", "toy", "out.jsonl", "report.json"),
         "params.yaml: scored: no 'nobody'; take one of rubric, second"),
    ):  # fmt: skip
        assert refused(stage, *arguments) == f"Error: {expected}"


@pytest.mark.parametrize(
    ("stage", "arguments", "bad", "outs"),
    [
        (generated.main, "plain data/threads.jsonl models/base out.jsonl", "data/threads.jsonl", "out.jsonl"),
        (scored.main, "rubric data/threads.jsonl data/generated models/base out.jsonl out.json", "data/threads.jsonl",
         "out.jsonl out.json"),
        (scored.main, "rubric data/threads.jsonl data/generated models/base out.jsonl out.json",
         "data/generated/other.jsonl", "out.jsonl out.json"),
        (adapter.main, "models/base data/pairs.jsonl out out.csv out.json", "data/pairs.jsonl", "out out.csv out.json"),
        (merged.main, "models/base models/adapter data/pairs.jsonl out out.json", "data/pairs.jsonl", "out out.json"),
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
        f"Error: {bad}:{number}: id: input should be a valid string, got 7; mend the row"
    )
    assert {Path(out).read_text() for out in outs.split()} == {"previous"}


def test_a_report_of_what_was_not_measured() -> None:
    Path("out.md").write_text("previous")
    Path("data").mkdir()
    Path("data/threads.jsonl").write_text("")
    files = ("data/threads.jsonl", "measured", "scored", "seeds", "experiments", "out.json", "out.md")
    said = refused(report.main, *files)
    assert said == (
        "Error: measured/base/language.json: cannot be read (No such file or directory); run the stage that makes it"
    )
    assert Path("out.md").read_text() == "previous"
    assert not Path("out.json").exists()


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
    changed = PARAMS.replace("id: dialogues.jsonl, format: messages", f"id: {name}, format: {form}")
    changed = changed.replace('"es"', f'"{language}"').replace("max_words: 30", "max_words: 400")
    Path("params.yaml").write_text(changed, encoding="utf-8")
    run(raw.main, str(SHARED), "data/raw.jsonl", "metrics/raw.json")
    run(filtered.main, "data/raw.jsonl", "data/filtered.jsonl", "metrics/filtered.json")
    result = run(threads.main, "data/filtered.jsonl", "data/threads.jsonl", "metrics/threads.json")
    assert result.exit_code == 0, result.output
    assert (told("metrics/raw.json")[name]["kept"], told("metrics/filtered.json")["taken"]) == counts
    filtering, cutting = told("metrics/filtered.json"), told("metrics/threads.json")
    assert filtering["kept"] + sum(filtering["dropped"].values()) == filtering["taken"]
    assert cutting["kept"] + sum(cutting["dropped"].values()) == cutting["taken"]
    assert filtering["kept"] > 0.8 * filtering["taken"]
    rows = read_rows(Path("data/threads.jsonl"), Thread)
    assert cutting["kept"] == len(rows) == len({row.id for row in rows}) == sum(cutting["splits"].values())
    assert min(cutting["splits"].values()) >= 30
