"""Sources: the corpus package, files, and a data set in the hub's format."""

import json
import re
from importlib import metadata
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import TypeAdapter

from mothertongue import sources
from mothertongue.errors import BadInput
from mothertongue.params import FileConversations, Format, HubConversations, HubTexts, PackageConversations, Raw, Texts
from mothertongue.records import RowCounts

VERSION = metadata.version("chatterbot-corpus")
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def corpus(name: str = "chatterbot-corpus", version: str = VERSION, *declared: str | None) -> Raw:
    """One source for each declared language; without one, a source that declares none."""
    return Raw(
        sources=[
            PackageConversations(source="package", id=name, revision=version, format="chatterbot", language=language)
            for language in declared or (None,)
        ]
    )


@pytest.mark.parametrize(
    ("language", "opening", "least"), [("es", "¿Qué es la inteligencia artificial?", 240), ("it", "Ciao", 100)]
)
def test_the_corpus(tmp_path: Path, language: str, opening: str, least: int) -> None:
    found, counts = sources.read_sources(corpus(), [language], tmp_path)
    assert len({row.messages[0].content for row in found}) >= least
    assert opening.lower() in {row.messages[0].content.lower() for row in found}
    assert {row.source for row in found} == {"chatterbot-corpus"}
    assert {row.language for row in found} == {language}
    assert all(row.messages[0].role == "user" for row in found)
    turns = sum(len(row.messages) for row in found)
    assert counts == {"chatterbot-corpus": RowCounts(total=turns, kept=turns, dropped={})}


@pytest.mark.parametrize(
    ("raw", "language", "expected"),
    [
        (corpus(version="0.0.1"), "es",
         (f"params.yaml: revision: chatterbot-corpus is installed at {VERSION}, not 0.0.1; pip install --no-deps"
         " chatterbot-corpus==0.0.1 or pin the other")),
        (corpus("no-such-corpus", "1.0"), "es",
         "params.yaml: revision: package no-such-corpus is not installed; pip install --no-deps no-such-corpus==1.0"),
    ],
)  # fmt: skip
def test_a_corpus_that_is_not_installed(tmp_path: Path, raw: Raw, language: str, expected: str) -> None:
    with pytest.raises(BadInput) as caught:
        sources.read_sources(raw, [language], tmp_path)
    assert caught.value.message == expected


def test_the_corpus_in_two_languages(tmp_path: Path) -> None:
    (spanish, one), (italian, two), (both, counts), (turned, _) = (
        sources.read_sources(corpus(), wanted, tmp_path) for wanted in (["es"], ["it"], ["es", "it"], ["it", "es"])
    )
    assert both == spanish + italian
    assert turned == italian + spanish
    messages = one["chatterbot-corpus"].total + two["chatterbot-corpus"].total
    assert counts == {"chatterbot-corpus": RowCounts(total=messages, kept=messages, dropped={})}


def test_a_corpus_with_a_declared_language(tmp_path: Path) -> None:
    found, counts = sources.read_sources(corpus("chatterbot-corpus", VERSION, "it"), ["es", "it"], tmp_path)
    italian, only = sources.read_sources(corpus(), ["it"], tmp_path)
    assert found == italian
    assert counts == {"chatterbot-corpus it": only["chatterbot-corpus"]}


def test_two_corpora_with_declared_languages_are_counted_apart(tmp_path: Path) -> None:
    found, counts = sources.read_sources(corpus("chatterbot-corpus", VERSION, "it", "es"), ["es", "it"], tmp_path)
    assert list(counts) == ["chatterbot-corpus it", "chatterbot-corpus es"]
    assert sum(counted.kept for counted in counts.values()) == sum(len(row.messages) for row in found)
    assert [row.language for row in found] == sorted((row.language for row in found), reverse=True)


DIALOGUE = {"messages": [{"role": "user", "content": "Hola"}, {"role": "assistant", "content": "Buenas"}]}
MESSAGES = [
    {"message_id": "a", "parent_id": None, "role": "prompter", "text": "Hola"},
    {"message_id": "b", "parent_id": "a", "role": "assistant", "text": "Buenas"},
    {"message_id": "c", "parent_id": "a", "role": "assistant", "text": "Calla", "deleted": True},
]
TREE = {"prompt": {**MESSAGES[0], "replies": [{**row, "replies": []} for row in MESSAGES[1:]]}}
ROW = {"instruction": "Hola", "input": "", "output": "Buenas"}
FORMATS = {"columns": [ROW], "messages": [DIALOGUE], "oasst_messages": MESSAGES, "oasst_trees": [TREE]}
FORMATS |= {"prompts": [{"prompt": "Hola"}]}
FORMATS |= {"preferences": [{"prompt": "Hola", "chosen": "Buenas", "rejected": "Calla"}]}
FORMATS |= {"ratings": [{"q": "Hola", "a": "Buenas", "good": 4}, {"q": "Hola", "a": "Calla", "good": 0}]}
FORMATS |= {"lima": [{"conversations": ["Hola", "Buenas"], "source": "x"}]}
COLUMNS = {"user": ["instruction", "input"], "assistant": "output"}


def file(name: str, form: str, **other: str) -> FileConversations:
    blocks = {"columns": COLUMNS, "ratings": {"prompt": "q", "answer": "a", "scores": {"good": 1.0}}}
    own = {form: blocks[form]} if form in blocks else {}
    return FileConversations.model_validate({"source": "file", "id": name, "format": form, **own, **other})


@pytest.mark.parametrize(
    ("chosen", "expected", "dropped"),
    [
        ({}, ["d"], {"outranked": 1}),
        ({"replies": "best"}, ["d"], {"outranked": 1}),
        ({"replies": "all"}, ["b", "d"], {}),
    ],
)
@pytest.mark.parametrize("form", ["oasst_messages", "oasst_trees"])
def test_the_best_reply_is_followed_unless_all_are_asked_for(
    tmp_path: Path, form: str, chosen: dict[str, str], expected: list[str], dropped: dict[str, int]
) -> None:
    root = {"message_id": "A", "parent_id": None, "role": "prompter", "text": "a"}
    replies: list[dict[str, object]] = [
        {"message_id": text, "parent_id": "A", "role": "assistant", "text": text, "rank": rank}
        for text, rank in (("b", 1), ("d", 0))
    ]
    rows = (
        [root, *replies]
        if form == "oasst_messages"
        else [{"prompt": {**root, "replies": [r | {"replies": []} for r in replies]}}]
    )
    write(tmp_path / "mine.jsonl", list(rows))
    source = FileConversations.model_validate({"source": "file", "id": "mine.jsonl", "format": form, **chosen})
    found, counts = sources.read_sources(Raw(sources=[source]), ["es"], tmp_path)
    assert [row.messages[-1].content for row in found] == expected
    assert counts["mine.jsonl"].dropped == dropped


def write(path: Path, rows: list[object]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def test_a_source_without_a_message_is_named(tmp_path: Path) -> None:
    write(tmp_path / "mine.jsonl", [])
    with pytest.raises(BadInput) as caught:
        sources.read_sources(Raw(sources=[file("mine.jsonl", "messages")]), ["es"], tmp_path)
    assert caught.value.message == ("params.yaml: raw.sources: mine.jsonl: has no message; add some, or take it out")


def test_files_of_every_format_together(tmp_path: Path) -> None:
    for form, rows in FORMATS.items():
        write(tmp_path / f"{form}.jsonl", rows)
    raw = Raw(sources=[file(f"{form}.jsonl", form) for form in FORMATS])
    found, counts = sources.read_sources(raw, ["es"], tmp_path)
    two = [["Hola", "Buenas"]]
    assert [[m.content for m in row.messages] for row in found] == [*two * 4, ["Hola"], *two * 3]
    assert [row.unanswered for row in found] == [False] * 4 + [True] + [False] * 3
    assert [row.source for row in found] == [f"{form}.jsonl" for form in FORMATS]
    assert len({row.id for row in found}) == 8
    assert {name: str(counted) for name, counted in counts.items()} == {
        "columns.jsonl": "2 of 2",
        "messages.jsonl": "2 of 2",
        "oasst_messages.jsonl": "2 of 3 (dropped: deleted 1)",
        "oasst_trees.jsonl": "2 of 3 (dropped: deleted 1)",
        "prompts.jsonl": "1 of 1",
        "preferences.jsonl": "3 of 3",
        "ratings.jsonl": "3 of 3",
        "lima.jsonl": "2 of 2",
    }
    assert set(FORMATS) == set(get_args(Format))


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize(("declared", "expected"), [({"language": "it"}, "it"), ({}, "es")])
def test_the_declared_language_of_a_file(tmp_path: Path, form: str, declared: dict[str, str], expected: str) -> None:
    write(tmp_path / "mine.jsonl", FORMATS[form])
    wanted = ["es", "it"] if declared else ["es"]
    found, _ = sources.read_sources(Raw(sources=[file("mine.jsonl", form, **declared)]), wanted, tmp_path)
    assert [row.language for row in found] == [expected]


@pytest.mark.parametrize("form", FORMATS)
def test_a_file_without_a_language_among_several(tmp_path: Path, form: str) -> None:
    write(tmp_path / "mine.jsonl", FORMATS[form])
    with pytest.raises(BadInput) as caught:
        sources.read_sources(Raw(sources=[file("mine.jsonl", form)]), ["es", "it"], tmp_path)
    assert caught.value.message == (
        f"{tmp_path}/mine.jsonl:1: no language, and params.yaml has es, it; add one to the row, or to its source"
    )


def test_rows_of_a_file_in_several_languages(tmp_path: Path) -> None:
    write(tmp_path / "mine.jsonl", [DIALOGUE | {"language": code} for code in ("pt-BR", "es", "fr", "pt")])
    raw = Raw(sources=[file("mine.jsonl", "messages")])
    found, counts = sources.read_sources(raw, ["es", "pt"], tmp_path)
    assert [row.language for row in found] == ["pt", "es", "pt"]
    assert counts == {"mine.jsonl": RowCounts(total=8, kept=6, dropped={"other_language": 2})}


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ('{"messages": [}\n', ":1: not JSON (Expecting value at character 15); fix or delete the line"),
        (f'{json.dumps(DIALOGUE)}\n{{"messages": []}}\n',
         ":2: messages: empty conversation; add a message or delete the line"),
        (None, ": cannot be read (No such file or directory); put it there, or run the stage that makes it"),
    ],
)  # fmt: skip
def test_a_bad_file_is_named(tmp_path: Path, content: str | None, expected: str) -> None:
    path = tmp_path / "mine.jsonl"
    if content:
        path.write_text(content, encoding="utf-8")
    with pytest.raises(BadInput) as caught:
        sources.read_sources(Raw(sources=[file("mine.jsonl", "messages")]), ["es"], tmp_path)
    assert caught.value.message == f"{path}{expected}"


def test_a_chain_of_replies_too_deep_to_follow(tmp_path: Path) -> None:
    message = {"role": "prompter", "text": "Hola"}
    rows = [{"message_id": str(n), "parent_id": str(n - 1) if n else None, **message} for n in range(5000)]
    write(tmp_path / "deep.jsonl", rows)
    with pytest.raises(BadInput) as caught:
        sources.read_sources(Raw(sources=[file("deep.jsonl", "oasst_messages")]), ["es"], tmp_path)
    assert caught.value.message == "deep.jsonl: a chain of replies goes too deep to follow; cut it into several"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data set's folder as the hub has it: one JSONL file per split."""
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_OFFLINE", True)
    folder = tmp_path / "someone--dialogues"
    folder.mkdir()
    write(folder / "train.jsonl", [DIALOGUE, {"messages": DIALOGUE["messages"][:1]}])
    write(folder / "test.jsonl", [DIALOGUE])
    return folder


def hub_raw(folder: Path, *splits: str) -> Raw:
    one = HubConversations(source="hub", id=str(folder), revision=COMMIT, format="messages", split="train")
    return Raw(sources=[one.model_copy(update={"split": split}) for split in splits])


def test_splits_of_a_data_set(hub: Path) -> None:
    found, counts = sources.read_sources(hub_raw(hub, "train", "test"), ["es"], hub)
    assert [[m.content for m in row.messages] for row in found] == [["Hola", "Buenas"], ["Hola"], ["Hola", "Buenas"]]
    assert {name: str(counted) for name, counted in counts.items()} == {
        f"{hub} train": "3 of 3",
        f"{hub} test": "2 of 2",
    }


def test_a_subset_of_a_data_set_and_a_part_of_its_split(hub: Path) -> None:
    """As OpenLLM's and others' data sets have it: a folder for each language, named in README.md."""
    for code, rows in (("es", [DIALOGUE] * 4), ("it", [{"messages": DIALOGUE["messages"][:1]}] * 4)):
        (hub / code).mkdir()
        write(hub / code / "train.jsonl", list(rows))
    configs = "".join(f"- config_name: {code}\n  data_files: {code}/*.jsonl\n" for code in ("es", "it"))
    (hub / "README.md").write_text(f"---\nconfigs:\n{configs}---\n", encoding="utf-8")
    parts = [{"subset": "es", "split": "train[:25%]"}, {"subset": "it", "split": "train"}]
    raw = Raw(sources=[hub_raw(hub, "train").sources[0].model_copy(update=part) for part in parts])
    found, counts = sources.read_sources(raw, ["es"], hub)
    assert [len(row.messages) for row in found] == [2, 1, 1, 1, 1]
    assert list(counts) == [f"{hub} es train[:25%]", f"{hub} it train"]
    with pytest.raises(BadInput, match="correct id, revision, subset or split"):
        sources.read_sources(Raw(sources=[raw.sources[0].model_copy(update={"subset": "fr"})]), ["es"], hub)


def test_a_bad_row_of_a_data_set_is_named(hub: Path) -> None:
    write(hub / "train.jsonl", [DIALOGUE, {"messages": []}])
    with pytest.raises(BadInput) as caught:
        sources.read_sources(hub_raw(hub, "train"), ["es"], hub)
    assert caught.value.message == f"{hub}: row 2: messages: empty conversation; add a message or delete the line"


def test_a_split_that_is_not_there(hub: Path) -> None:
    with pytest.raises(BadInput) as caught:
        sources.read_sources(hub_raw(hub, "trian"), ["es"], hub)
    text = re.sub(r"\['\w+', '\w+'\]", "[...]", caught.value.message)
    assert text == (
        f'params.yaml: raw.sources: {hub} at {COMMIT}: Unknown split "trian". Should be one of [...].;'
        " correct id, revision, subset or split"
    )


def test_the_declared_language_of_a_data_set(hub: Path) -> None:
    raw = hub_raw(hub, "train", "test")
    source = raw.sources[0].model_copy(update={"language": "it"})
    found, _ = sources.read_sources(Raw(sources=[source, *raw.sources[1:]]), ["it"], hub)
    assert [row.language for row in found] == ["it", "it", "it"]
    with pytest.raises(BadInput) as caught:
        sources.read_sources(raw, ["es", "it"], hub)
    assert caught.value.message == (
        f"{hub}: row 1: no language, and params.yaml has es, it; add one to the row, or to its source"
    )


def texts(*sources_: dict[str, Any]) -> Raw:
    """Those sources of texts, beside conversations that are not read."""
    read = TypeAdapter[Any](Texts).validate_python
    return Raw(sources=[file("mine.jsonl", "messages")], texts=[read(source) for source in sources_])


BOOKS = {"source": "file", "id": "books.jsonl"}
DROPPED = {"other_language": 0, "empty": 0, "duplicate": 0, "not_in_share": 0}


def test_texts_that_are_dropped_are_counted_by_reason(tmp_path: Path) -> None:
    """A duplicate is one of any source, and one that is empty or in another language is none."""
    write(tmp_path / "books.jsonl", [{"text": text} for text in ("uno", " \n", "dos", "uno", " \n")])
    write(tmp_path / "more.jsonl", [{"text": "dos"}, {"text": "one", "lang": "en"}, {"text": "tres", "author": "x"}])
    found, counts = sources.read_texts(texts(BOOKS, BOOKS | {"id": "more.jsonl"}), ["es"], tmp_path)
    assert [(row.text, row.source, row.language) for row in found] == [
        ("uno", "books.jsonl", "es"), ("dos", "books.jsonl", "es"), ("tres", "more.jsonl", "es")
    ]  # fmt: skip
    assert counts == {
        "books.jsonl (texts)": RowCounts(total=5, kept=2, dropped=DROPPED | {"empty": 2, "duplicate": 1}),
        "more.jsonl (texts)": RowCounts(total=3, kept=1, dropped=DROPPED | {"other_language": 1, "duplicate": 1}),
    }


def test_a_share_of_texts_is_part_of_a_larger_one(tmp_path: Path) -> None:
    write(tmp_path / "books.jsonl", [{"text": f"texto {number}"} for number in range(400)])
    found = {}
    for share in (0.05, 0.1, 0.2, 1.0):
        raw = texts(BOOKS | {"share": share})
        rows, counts = sources.read_texts(raw, ["es"], tmp_path)
        found[share] = {row.id for row in rows}
        dropped = DROPPED | {"not_in_share": 400 - len(rows)}
        assert counts == {"books.jsonl (texts)": RowCounts(total=400, kept=len(rows), dropped=dropped)}
    assert found[0.05] < found[0.1] < found[0.2] < found[1.0]
    assert [len(found[share]) for share in found] == pytest.approx([20, 40, 80, 400], rel=0.4)
    assert len(found[1.0]) == 400


def test_no_source_of_texts_gives_none(tmp_path: Path) -> None:
    assert sources.read_texts(texts(), ["es"], tmp_path) == ([], {})


@pytest.mark.parametrize(
    ("declared", "row", "wanted", "expected"),
    [
        (None, {}, ["es"], "es"),
        (None, {"language": "pt-BR"}, ["es", "pt"], "pt"),
        (None, {"lang": "pt"}, ["es", "pt"], "pt"),
        (None, {"language": "es", "lang": "pt"}, ["es", "pt"], "es"),
        (None, {"language": "fr"}, ["es", "pt"], None),
        ("pt", {}, ["es", "pt"], "pt"),
        ("pt", {"language": "es"}, ["es", "pt"], None),
    ],
)
def test_the_language_of_a_text(
    tmp_path: Path, declared: str | None, row: dict[str, str], wanted: list[str], expected: str | None
) -> None:
    write(tmp_path / "books.jsonl", [{"text": "uno"} | row])
    source = BOOKS | ({"language": declared} if declared else {})
    found, counts = sources.read_texts(texts(source), wanted, tmp_path)
    assert [text.language for text in found] == ([expected] if expected else [])
    assert counts["books.jsonl (texts)"].dropped["other_language"] == (0 if expected else 1)


def test_the_same_text_in_two_languages_is_no_duplicate(tmp_path: Path) -> None:
    write(tmp_path / "books.jsonl", [{"text": "no", "language": code} for code in ("es", "it")])
    found, _ = sources.read_texts(texts(BOOKS), ["es", "it"], tmp_path)
    assert [text.language for text in found] == ["es", "it"]


def test_one_text_in_fifty_is_held_out_and_none_changes_sides(tmp_path: Path) -> None:
    write(tmp_path / "books.jsonl", [{"text": f"texto {number}"} for number in range(2000)])
    found, _ = sources.read_texts(texts(BOOKS), ["es"], tmp_path)
    held_out = {row.text for row in found if row.split == "validation"}
    assert {row.split for row in found} == {"train", "validation"}
    assert 20 <= len(held_out) <= 65
    write(tmp_path / "books.jsonl", [{"text": f"texto {number}"} for number in range(2999, -1, -1)])
    more, _ = sources.read_texts(texts(BOOKS), ["es"], tmp_path)
    assert {row.text for row in more if row.split == "validation"} >= held_out
    assert not held_out & {row.text for row in more if row.split == "train"}


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([], "params.yaml: raw.texts: books.jsonl: has no row; add some, or take it out"),
        ([{"text": "uno", "language": "es"}, {"text": "dos"}],
         ("{folder}/books.jsonl:2: no language, and params.yaml has es, it; add one to the row, or to its source")),
        ([{"texto": "uno"}], "{folder}/books.jsonl:1: text: missing; add it"),
        ([{"text": 7}], "{folder}/books.jsonl:1: text: input should be a valid string, got 7; fix the row"),
    ],
)  # fmt: skip
def test_a_bad_file_of_texts_is_named(tmp_path: Path, rows: list[object], expected: str) -> None:
    write(tmp_path / "books.jsonl", rows)
    with pytest.raises(BadInput) as caught:
        sources.read_texts(texts(BOOKS), ["es", "it"], tmp_path)
    assert caught.value.message == expected.format(folder=tmp_path)


def test_texts_of_a_data_set(hub: Path) -> None:
    write(hub / "train.jsonl", [{"text": "uno"}, {"text": "dos"}, {"text": ""}])
    write(hub / "test.jsonl", [{"text": "uno"}, {"text": "tres"}])
    one = HubTexts(source="hub", id=str(hub), revision=COMMIT, split="train").model_dump(exclude_none=True)
    found, counts = sources.read_texts(texts(one, one | {"split": "test"}), ["es"], hub)
    assert [row.text for row in found] == ["uno", "dos", "tres"]
    assert {name: str(counted) for name, counted in counts.items()} == {
        f"{hub} train (texts)": "2 of 3 (dropped: empty 1)",
        f"{hub} test (texts)": "1 of 2 (dropped: duplicate 1)",
    }
    with pytest.raises(BadInput) as caught:
        sources.read_texts(texts(one | {"split": "trian"}), ["es"], hub)
    assert re.sub(r"\['\w+', '\w+'\]", "[...]", caught.value.message) == (
        f'params.yaml: raw.texts: {hub} at {COMMIT}: Unknown split "trian". Should be one of [...].;'
        " correct id, revision, subset or split"
    )
