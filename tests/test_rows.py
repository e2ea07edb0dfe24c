"""Rows as JSON lines: every message about a bad line, what is read back, and atomic writing."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from mothertongue.errors import BadInput
from mothertongue.files import new_file, new_folder
from mothertongue.measurements import SampleScore
from mothertongue.records import Answer, Conversation, Lineage, Message, Pair, Thread
from mothertongue.rows import Row, index_by_id, read_rows, write_json, write_rows
from mothertongue.suites.data import Question, Sentence
from mothertongue.verdicts import Verdict

GOOD = b'{"id":"a","source":"s","language":"es","messages":[{"role":"user","content":"Hola"}]}\n'


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b'{"id":"a",', ("not JSON (Expecting property name enclosed in double quotes at character 11); fix or delete"
         " the line")),
        (b"[1, 2]", "not a JSON object; write one object per line"),
        (b'{"id":"\xe9","source":"s","language":"es","messages":[]}',
         "not UTF-8 (byte 0xe9 at position 8); save the file as UTF-8"),
        (b'{"id":"a","source":"s","language":"es"}', "messages: missing; add it"),
        (b'{"id":"a","source":"s","language":"es","messages":[{"role":"user"}]}',
         "messages.0.content: missing; add it"),
        (b'{"id":"a","source":"s","language":"es","messages":[{"role":"user","content":"Hola"}],"lang":"es"}',
         "lang: unknown field; remove it"),
        (b'{"id":"a","source":"s","messages":[{"role":"user","content":"Hola"}]}', "language: missing; add it"),
        (b'{"id":"a","source":"s","language":"es","messages":[{"role":"user","content":"Hola"},{"role":"bot","content":"Hola"}]}',
         "messages.1.role: input should be 'system', 'user' or 'assistant', got \"bot\"; fix the row"),
        (b'{"id":7,"source":"s","language":"es","messages":[{"role":"user","content":"Hola"}]}',
         "id: input should be a valid string, got 7; fix the row"),
        (b'{"id":"a","source":"s","language":"es","messages":[{"role":"user","content":null}]}',
         "messages.0.content: input should be a valid string, got null; fix the row"),
        (b'{"id":"a","source":"s","language":"es","messages":[]}',
         "messages: list should have at least 1 item after validation, not 0, got []; fix the row"),
        (b'{"id":"b","source":"s","language":"es","id":"c","messages":[]}',
         "id: twice in one object; delete one"),
        (b'{"id":"b","source":"s","language":"es","messages":[{"role":"user","content":"Hola","role":"assistant"}]}',
         "role: twice in one object; delete one"),
        (b'{"id":"\\ud800","source":"s","language":"es","messages":[]}',
         "half a character (\\ud800 without its other half); write the whole character or delete it"),
        (b'{"id":' + b"1" * 5000 + b"}", "too large a number or too deep a nesting; delete the line"),
        (b'{"id":' + b"[" * 100_000, "too large a number or too deep a nesting; delete the line"),
    ],
)  # fmt: skip
def test_a_bad_line_is_named(tmp_path: Path, line: bytes, expected: str) -> None:
    path = tmp_path / "raw.jsonl"
    path.write_bytes(GOOD + line + b"\n" + GOOD)
    with pytest.raises(BadInput) as caught:
        read_rows(path, Conversation)
    assert caught.value.message == f"{path}:2: {expected}"


TURN = {"role": "user", "content": "¿Sí?"}
ANSWER = {"role": "assistant", "content": "Sí"}
LINEAGE = {"answer": "w", "generator": "g", "finish": "stop", "score": None}
PAIR = {
    "thread": "t", "language": "es", "split": "test", "rule": "r", "judge": "j", "prompt": [TURN], "chosen": [ANSWER],
    "rejected": [ANSWER], "chosen_from": LINEAGE, "rejected_from": LINEAGE,
}  # fmt: skip
JOINED: list[tuple[type[Row], dict[str, object]]] = [
    (Thread, {"conversation": "c", "language": "es", "group": "g", "split": "test", "prompt": [TURN],
              "reference": "Sí"}),
    (Answer, {"thread": "t", "generator": "g", "index": 0, "text": "Sí", "tokens": 1, "finish": "stop"}),
    (Verdict, {"thread": "t", "answer": "w", "judge": "j", "outcome": "error", "score": None, "label_mass": None}),
    (Pair, PAIR),
    (Sentence, {"text": {"en": "Yes", "es": "Sí"}}),
    (Question, {"language": "es", "topic": "t", "question": "¿Sí?", "choices": ["a", "b", "c", "d"], "answer": 0}),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "row"), JOINED, ids=[kind.__name__ for kind, _ in JOINED])
def test_an_id_is_unique_where_rows_are_joined_by_it(tmp_path: Path, kind: type[Row], row: dict[str, object]) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(json.dumps({"id": name, **row}) for name in ("a", "b", "a")), encoding="utf-8")
    with pytest.raises(BadInput) as caught:
        read_rows(path, kind)
    assert caught.value.message == f"{path}:3: id: 'a' is a duplicate of line 1; delete one of them"


def test_scores_of_one_item_share_its_id(tmp_path: Path) -> None:
    rows = [
        SampleScore(id="a", language="es", group="a", figure=figure, values=[1.0], text="")
        for figure in ("bleu", "chrf")
    ]
    write_rows(tmp_path / "items.jsonl", rows)
    assert read_rows(tmp_path / "items.jsonl", SampleScore) == rows


@pytest.mark.parametrize(
    ("kind", "change", "expected"),
    [
        (Sentence, {"text": {"es": "Sí"}},
         ("text: the sentence should be there in English ('en'), too, got {\"es\": \"S\\u00ed\"}; fix the row")),
        (Sentence, {"text": {"en": "Yes", "es": " "}}, 'text.es: there should be text, got " "; fix the row'),
        (Question, {"choices": ["a", "b", "c", ""]}, 'choices.3: there should be text, got ""; fix the row'),
        (Question, {"choices": ["a", "b", "c", "a "]},
         'choices: no two choices should be equal, got ["a", "b", "c", "a "]; fix the row'),
        (Question, {"choices": ["a", "b", "c"]},
         ("choices: list should have at least 4 items after validation, not 3, got [\"a\", \"b\", \"c\"]; fix the"
          " row")),
        (Question, {"answer": 4}, "answer: input should be less than or equal to 3, got 4; fix the row"),
        (Question, {"question": ""}, 'question: there should be text, got ""; fix the row'),
    ],
)  # fmt: skip
def test_a_row_of_a_suite_that_cannot_be_measured(
    tmp_path: Path, kind: type[Row], change: dict[str, object], expected: str
) -> None:
    path = tmp_path / "suite.jsonl"
    good = dict(JOINED)[kind]
    path.write_text("\n".join(json.dumps(r) for r in ({"id": "a", **good}, {"id": "b", **good, **change})))
    with pytest.raises(BadInput) as caught:
        read_rows(path, kind)
    assert caught.value.message == f"{path}:2: {expected}"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"chosen": [ANSWER, ANSWER]},
         ('chosen: list should have at most 1 item after validation, not 2, got [{"role": "assistant", "content":'
          ' "S\\u00ed"}, {"role": "assi; fix the row')),
        ({"rejected": []},
         "rejected: list should have at least 1 item after validation, not 0, got []; fix the row"),
        ({"rejected": "Sí"}, 'rejected: input should be a valid array, got "S\\u00ed"; fix the row'),
        ({"prompt": []}, "prompt: list should have at least 1 item after validation, not 0, got []; fix the row"),
        ({"chosen_from": LINEAGE | {"finish": "cut"}},
         "chosen_from.finish: input should be 'stop' or 'length', got \"cut\"; fix the row"),
        ({"rejected_from": LINEAGE | {"text": "Sí"}}, "rejected_from.text: unknown field; remove it"),
        ({"split": "dev"}, "split: input should be 'train', 'validation' or 'test', got \"dev\"; fix the row"),
    ],
)  # fmt: skip
def test_a_pair_has_one_answer_on_each_side(tmp_path: Path, change: dict[str, object], expected: str) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text(json.dumps({"id": "a", **PAIR, **change}), encoding="utf-8")
    with pytest.raises(BadInput) as caught:
        read_rows(path, Pair)
    assert caught.value.message == f"{path}:1: {expected}"


@pytest.mark.parametrize("between", [b"\n", b"\r\n", b"  \t\n"])
def test_a_byte_order_mark_and_empty_lines_are_no_rows(tmp_path: Path, between: bytes) -> None:
    path = tmp_path / "raw.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + GOOD + between + GOOD + between)
    assert len(read_rows(path, Conversation)) == 2


@pytest.mark.parametrize("score", ["NaN", "Infinity", "-Infinity"])
def test_numbers_that_are_not_finite_are_refused(tmp_path: Path, score: str) -> None:
    path = tmp_path / "judge.jsonl"
    path.write_text(
        f'{{"id":"a","thread":"t","answer":"w","judge":"j","outcome":"score","score":{score},"label_mass":null}}\n'
    )
    with pytest.raises(BadInput) as caught:
        read_rows(path, Verdict)
    assert caught.value.message == f"{path}:1: score: input should be a finite number, got {score}; fix the row"


@pytest.mark.parametrize(
    ("name", "why"),
    [("nowhere.jsonl", "No such file or directory"), (".", "Is a directory")],
    ids=["missing", "folder"],
)
def test_a_file_that_cannot_be_read(tmp_path: Path, name: str, why: str) -> None:
    with pytest.raises(BadInput) as caught:
        read_rows(tmp_path / name, Conversation)
    assert (
        caught.value.message
        == f"{tmp_path / name}: cannot be read ({why}); put it there, or run the stage that makes it"
    )


PROMPT = [Message(role="system", content="Sé breve."), Message(role="user", content='¿"Qué"\nhora\u2028es?')]
SIDE = [Message(role="assistant", content="Las dos.")]
LINE = Lineage(answer="w", generator="plain", finish="length", score=41.5)
ROWS = [
    Conversation(id="a", source="s", language="es", messages=PROMPT),
    Thread(id="a", conversation="c", language="hi", group="g", split="test", prompt=PROMPT, reference="नमस्ते 😀"),
    Answer(id="a", thread="t", generator="g", index=0, text="", tokens=1, finish="stop"),
    Verdict(id="a", thread="t", answer="w", judge="j", outcome="unparsed", score=None, label_mass=0.25),
    Pair(
        id="a",
        thread="t",
        language="es",
        split="train",
        rule="r",
        judge="j",
        prompt=PROMPT,
        chosen=SIDE,
        rejected=SIDE,
        chosen_from=LINE,
        rejected_from=LINE,
    ),
    SampleScore(id="a", language="es", group="g", figure="f", values=[0.1, 1 / 3, 1e-300], text=""),
]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: type(row).__name__)
def test_rows_are_read_as_they_were_written(tmp_path: Path, row: Row) -> None:
    path = tmp_path / "rows.jsonl"
    write_rows(path, [row])
    assert len(path.read_bytes().splitlines()) == 1
    assert read_rows(path, type(row)) == [row]


def test_rows_are_written_in_the_order_of_their_ids(tmp_path: Path) -> None:
    rows = [Conversation(id=name, source="s", language="es", messages=PROMPT) for name in ("b", "a", "c")]
    write_rows(tmp_path / "one", rows)
    write_rows(tmp_path / "two", rows[::-1])
    assert [row.id for row in read_rows(tmp_path / "one", Conversation)] == ["a", "b", "c"]
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_rows_by_their_id() -> None:
    rows = [Conversation(id=name, source="s", language="es", messages=PROMPT) for name in ("b", "a")]
    assert index_by_id(rows) == {"b": rows[0], "a": rows[1]}


def test_documents_have_sorted_keys_and_no_nan(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    write_json(path, {"b": "ñ", "a": 1})
    assert path.read_text(encoding="utf-8") == '{\n  "a": 1,\n  "b": "ñ"\n}\n'
    with pytest.raises(ValueError, match="Out of range float"):
        write_json(path, {"a": float("nan")})
    assert json.loads(path.read_text(encoding="utf-8")) == {"a": 1, "b": "ñ"}
    assert [p.name for p in tmp_path.iterdir()] == ["report.json"]


# Every write to /dev/full fails as on a full disk.

FULL = Path("/dev/full")
needs_full = pytest.mark.skipif(not FULL.is_char_device(), reason="no /dev/full here")


def large_file(path: Path) -> None:
    with new_file(path) as file:
        file.write(b"new" * 100_000)


def rows_file(path: Path) -> None:
    write_rows(path, ROWS[:1])


def json_file(path: Path) -> None:
    write_json(path, {"new": 1})


@needs_full
@pytest.mark.parametrize("write", [large_file, rows_file, json_file])
def test_a_full_disk_leaves_the_previous_file(tmp_path: Path, write: Callable[[Path], None]) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text("previous")
    (tmp_path / ".pairs.jsonl.partial").symlink_to(FULL)  # where the temporary file is written
    with pytest.raises(BadInput) as caught:
        write(path)
    assert caught.value.message == (
        f"{path}: cannot be written (No space left on device); free some space or fix the folder, and run again"
    )
    assert path.read_text() == "previous"
    assert [p.name for p in tmp_path.iterdir()] == ["pairs.jsonl"]
    write(path)
    assert path.read_text() != "previous"


def plain_write(file: Path) -> None:
    file.symlink_to(FULL)
    file.write_bytes(b"new")


def like_safetensors(_: Path) -> None:
    raise RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)")


@needs_full
@pytest.mark.parametrize("write", [plain_write, like_safetensors])
def test_a_full_disk_leaves_the_previous_folder(tmp_path: Path, write: Callable[[Path], None]) -> None:
    path = tmp_path / "merged"
    path.mkdir()
    (path / "model.safetensors").write_text("previous")

    def fill() -> None:
        with new_folder(path) as folder:
            (folder / "config.json").write_text("new")
            write(folder / "model.safetensors")

    with pytest.raises(BadInput) as caught:
        fill()
    assert caught.value.message == (
        f"{path}: cannot be written (No space left on device); free some space or fix the folder, and run again"
    )
    assert [p.name for p in path.iterdir()] == ["model.safetensors"]
    assert (path / "model.safetensors").read_text() == "previous"
    assert [p.name for p in tmp_path.iterdir()] == ["merged"]


def test_another_exception_is_raised_unchanged_and_the_previous_folder_stays(tmp_path: Path) -> None:
    path = tmp_path / "adapter"
    path.mkdir()

    def fill() -> None:
        with new_folder(path):
            raise KeyError("target_modules")

    with pytest.raises(KeyError, match="target_modules"):
        fill()
    assert [p.name for p in tmp_path.iterdir()] == ["adapter"]


def test_leftovers_of_a_killed_run_are_removed(tmp_path: Path) -> None:
    (tmp_path / ".merged.partial").mkdir()
    (tmp_path / ".merged.partial/partial.safetensors").write_text("partial")
    (tmp_path / "merged").mkdir()
    (tmp_path / "merged/old").write_text("old")
    with new_folder(tmp_path / "merged") as folder:
        (folder / "new").write_text("new")
    (tmp_path / ".pairs.jsonl.partial").write_text("partial")
    write_rows(tmp_path / "pairs.jsonl", ROWS[:1])
    found = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*"))
    assert found == ["merged", "merged/new", "pairs.jsonl"]
    assert read_rows(tmp_path / "pairs.jsonl", Conversation) == ROWS[:1]


def test_a_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file")
    path = tmp_path / "data/pairs.jsonl"
    with pytest.raises(BadInput) as caught:
        write_rows(path, ROWS[:1])
    assert caught.value.message == (
        f"{path}: cannot be written (File exists); free some space or fix the folder, and run again"
    )
