"""Conversations from trees, flat messages, dialogues and lists of sentences, and their languages."""

import json
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from project import ROOT

from mothertongue import conversations
from mothertongue.conversations import FindLanguage, Numbered, row_language
from mothertongue.errors import BadInput
from mothertongue.params import Columns
from mothertongue.records import Conversation, RowCounts
from mothertongue.rows import read_objects

Reader = Callable[..., tuple[list[Conversation], RowCounts]]
SPANISH: FindLanguage = partial(row_language, declared=None, wanted=["es"])


def find_language(*wanted: str, declared: str | None = None) -> FindLanguage:
    return partial(row_language, declared=declared, wanted=wanted)


def numbered(rows: list[Any]) -> Numbered:
    return [(f"f.jsonl:{number}", row) for number, row in enumerate(rows, start=1)]


def as_text(found: list[Conversation]) -> list[str]:
    """Each conversation in one word: "a>b" where the user wrote a and the assistant b."""
    return [">".join(message.content for message in row.messages) for row in found]


def flat(identity: str, parent: str | None, **other: Any) -> dict[str, Any]:
    """A message as OpenAssistant's flat export has it; those named in lower case are the assistant's."""
    role = "assistant" if identity.islower() else "prompter"
    return {"message_id": identity, "parent_id": parent, "role": role, "text": identity, "lang": "es", **other}


def nested(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same messages as OpenAssistant's trees."""

    def node(row: dict[str, Any]) -> dict[str, Any]:
        return {**row, "replies": [node(other) for other in rows if other["parent_id"] == row["message_id"]]}

    return [{"message_tree_id": row["message_id"], "prompt": node(row)} for row in rows if row["parent_id"] is None]


COLUMNS = Columns(user=["instruction", "input"], assistant="output")


def test_columns_become_two_turns() -> None:
    rows = [
        {"instruction": "Suma", "input": "1 y 2", "output": "3", "id": 7},
        {"instruction": "Suma", "input": " ", "output": "3"},
        {"instruction": "", "input": None, "output": "3"},
        {"instruction": "Suma", "input": "", "output": "\n"},
        {"instruction": "Add", "input": "", "output": "3", "lang": "en"},
        {"instruction": "Resta", "input": "", "output": "1", "language": "es"},
    ]
    found, counts = conversations.from_columns("s", numbered(rows), SPANISH, COLUMNS)
    assert as_text(found) == ["Suma\n\n1 y 2>3", "Suma>3", "Resta>1"]
    assert [message.role for message in found[0].messages] == ["user", "assistant"]
    assert counts == RowCounts(total=12, kept=6, dropped={"empty": 4, "other_language": 2})


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"instruction": "Suma", "output": "3"}, "input: missing; add it, or correct `columns` of the source"),
        ({"instruction": "Suma", "input": "", "output": 3}, "output: input should be text, got 3; take another column"),
        (
            {"instruction": ["Suma"], "input": "", "output": "3"},
            "instruction: input should be text, got ['Suma']; take another column",
        ),
    ],
)
def test_a_column_that_is_missing_or_no_text_is_named(row: dict[str, Any], expected: str) -> None:
    with pytest.raises(BadInput) as caught:
        conversations.from_columns("s", numbered([row]), SPANISH, COLUMNS)
    assert caught.value.message == f"f.jsonl:1: {expected}"


BRANCHES = [flat("A", None), flat("b", "A"), flat("c", "A"), flat("D", "b"), flat("e", "D"), flat("F", "b")]
DELETED, BAD = {"deleted": True}, {"review_result": False}


@pytest.mark.parametrize(
    ("rows", "found", "tally"),
    [
        ([flat("A", None), flat("b", "A")], ["A>b"], (2, 2, {})),
        ([flat("A", None)], ["A"], (1, 1, {})),
        (BRANCHES, ["A>b>D>e", "A>b>F", "A>c"], (6, 6, {})),
        ([flat("A", None), flat("b", "A"), flat("C", None), flat("d", "C")], ["A>b", "C>d"], (4, 4, {})),
        # dropped with all replies to it
        ([flat("A", None), flat("b", "A", **DELETED), flat("C", "b")], ["A"], (3, 1, {"deleted": 2})),
        ([flat("A", None), flat("b", "A", **BAD), flat("c", "A")], ["A>c"], (3, 2, {"badly_reviewed": 1})),
        ([flat("A", None, **BAD), flat("b", "A", **DELETED)], [], (2, 0, {"badly_reviewed": 2})),
        ([flat("A", None), flat("b", "A", **DELETED, **BAD)], ["A"], (2, 1, {"deleted": 1})),
        ([flat("A", None), flat("b", "A", review_result=None, deleted=False)], ["A>b"], (2, 2, {})),
    ],
)
@pytest.mark.parametrize("form", ["trees", "messages"])
def test_openassistant(
    form: str, rows: list[dict[str, Any]], found: list[str], tally: tuple[int, int, dict[str, int]]
) -> None:
    if form == "trees":
        read, counted = conversations.from_oasst_trees("s", numbered(nested(rows)), SPANISH, "all")
    else:
        # in any order: a reply may be before its parent
        read, counted = conversations.from_oasst_messages("s", numbered(rows[::-1]), SPANISH, "all")
    assert sorted(as_text(read)) == found
    assert (counted.total, counted.kept, counted.dropped) == tally
    assert all(m.role == ("assistant" if m.content.islower() else "user") for row in read for m in row.messages)


def ranked(identity: str, parent: str, rank: float | None, **other: Any) -> dict[str, Any]:
    return flat(identity, parent, rank=rank, **other)


A = flat("A", None)


@pytest.mark.parametrize(
    ("rows", "found", "dropped"),
    [
        ([A, ranked("b", "A", 1), ranked("c", "A", 0), ranked("d", "A", 2)], ["A>c"], {"outranked": 2}),
        ([A, ranked("b", "A", 2), ranked("c", "A", 1)], ["A>c"], {"outranked": 1}),
        ([A, ranked("b", "A", 1.0), ranked("c", "A", 0.0)], ["A>c"], {"outranked": 1}),
        ([A, ranked("b", "A", None)], ["A>b"], {}),
        ([A, ranked("b", "A", 3)], ["A>b"], {}),
        # equal ranks: the first id
        ([A, ranked("c", "A", 0), ranked("b", "A", 0)], ["A>b"], {"outranked": 1}),
        # some have a rank: those go first; none has: the first id
        ([A, ranked("b", "A", None), ranked("c", "A", 2)], ["A>c"], {"outranked": 1}),
        ([A, ranked("c", "A", None), ranked("b", "A", None), flat("d", "A")], ["A>b"], {"unranked": 2}),
        # with all replies to it
        ([A, ranked("b", "A", 1), ranked("c", "A", 0), flat("D", "b"), flat("e", "D")], ["A>c"], {"outranked": 3}),
        # the best of those that are left
        ([A, ranked("b", "A", 0, **DELETED), ranked("c", "A", 2), ranked("d", "A", 1)], ["A>d"],
         {"deleted": 1, "outranked": 1}),
        ([A, ranked("b", "A", 0, **BAD), ranked("c", "A", 1)], ["A>c"], {"badly_reviewed": 1}),
        ([A, ranked("b", "A", 0, **BAD)], ["A"], {"badly_reviewed": 1}),
        # messages below a reply that is left out are counted with it, for whatever reason
        ([A, ranked("b", "A", 1), ranked("c", "A", 0), flat("D", "b", **DELETED)], ["A>c"], {"outranked": 2}),
        # at each turn; all replies of users are followed, ranked or not
        ([A, ranked("b", "A", 0), ranked("D", "b", 1), ranked("E", "b", 0), ranked("f", "D", 1), ranked("g", "D", 0)],
         ["A>b>D>g", "A>b>E"], {"outranked": 1}),
        ([A, flat("b", "A"), flat("D", "b"), flat("E", "b")], ["A>b>D", "A>b>E"], {}),
        # a user's second message is no alternative to an assistant's
        ([A, flat("B", "A"), ranked("c", "A", 1), ranked("d", "A", 0)], ["A>B", "A>d"], {"outranked": 1}),
    ],
)  # fmt: skip
@pytest.mark.parametrize("form", ["trees", "messages", "backwards"])
def test_the_best_replies_are_followed(
    form: str, rows: list[dict[str, Any]], found: list[str], dropped: dict[str, int]
) -> None:
    if form == "trees":
        read, counted = conversations.from_oasst_trees("s", numbered(nested(rows)), SPANISH, "best")
    else:
        order = 1 if form == "messages" else -1
        read, counted = conversations.from_oasst_messages("s", numbered(rows[::order]), SPANISH, "best")
    assert sorted(as_text(read)) == found
    assert counted == RowCounts(total=len(rows), kept=len(rows) - sum(dropped.values()), dropped=dropped)


def test_trees_and_messages_give_the_same_rows() -> None:
    trees, _ = conversations.from_oasst_trees("s", numbered(nested(BRANCHES)), SPANISH, "all")
    messages, _ = conversations.from_oasst_messages("s", numbered(BRANCHES), SPANISH, "all")
    assert trees == messages
    assert len({row.id for row in trees}) == len(trees) == 3


def test_an_orphan_that_is_dropped_anyway_is_counted() -> None:
    rows = [flat("A", None), flat("b", "lost", **BAD), flat("C", "b")]
    found, counts = conversations.from_oasst_messages("s", numbered(rows), SPANISH, "all")
    assert as_text(found) == ["A"]
    assert counts == RowCounts(total=3, kept=1, dropped={"badly_reviewed": 2})


def test_dialogues() -> None:
    turns = [{"role": r, "content": c, "weight": 1} for r, c in (("system", "s"), ("user", "u"), ("assistant", "a"))]
    found, counts = conversations.from_messages(
        "s", numbered([{"id": 7, "messages": turns}, {"messages": turns[1:2]}]), SPANISH
    )
    assert as_text(found) == ["s>u>a", "u"]
    assert [m.role for m in found[0].messages] == ["system", "user", "assistant"]
    assert counts == RowCounts(total=4, kept=4, dropped={})


def test_lima() -> None:
    rows = [{"conversations": ["u", "a", "v", "b"], "source": "x"}, {"conversations": ["w"]}]
    found, counts = conversations.from_lima("s", numbered([*rows, {"conversations": ["e"], "language": "en"}]), SPANISH)
    assert as_text(found) == ["u>a>v>b", "w"]
    assert [row.unanswered for row in found] == [False, True]
    assert [m.role for m in found[0].messages] == ["user", "assistant"] * 2
    assert counts == RowCounts(total=6, kept=5, dropped={"other_language": 1})


def test_exchanges() -> None:
    found, counts = conversations.from_exchanges("s", [("es", ["Hola", "Buenas", "¿Qué tal?"])])
    assert [m.role for m in found[0].messages] == ["user", "assistant", "user"]
    assert as_text(found) == ["Hola>Buenas>¿Qué tal?"]
    assert counts == RowCounts(total=3, kept=3, dropped={})


@pytest.mark.parametrize("row", [[], ["Hola", 5], "Hola", {"a": "Hola"}, None], ids=repr)
def test_rows_that_are_no_list_of_sentences_are_dropped_and_counted(row: object) -> None:
    found, counts = conversations.from_exchanges("s", [("es", ["Hola", "Buenas"]), ("it", row)])
    assert as_text(found) == ["Hola>Buenas"]
    assert counts == RowCounts(total=3, kept=2, dropped={"not_a_list_of_sentences": 1})


def test_exchanges_have_the_language_of_their_folder() -> None:
    rows = [("es", ["Hola", "Buenas"]), ("it", ["Ciao", "Salve"]), ("es", ["Adiós"])]
    found, counts = conversations.from_exchanges("s", rows)
    assert [(row.language, as_text([row])[0]) for row in found] == [
        ("es", "Hola>Buenas"),
        ("it", "Ciao>Salve"),
        ("es", "Adiós"),
    ]
    assert counts == RowCounts(total=5, kept=5, dropped={})


@pytest.mark.parametrize(
    ("own", "declared", "wanted", "expected"),
    [
        # the source's language, unless the row has another one
        (None, "es", ["es", "it"], "es"),
        (" ES ", "es", ["es", "it"], "es"),
        ("it", "es", ["es", "it"], None),
        ("en", "es", ["es"], None),
        # Norwegian as the detector has it
        ("nb", None, ["no"], "no"),
        ("nb-NO", "no", ["no"], "no"),
        # the row's own, with or without a region
        ("it", None, ["es", "it"], "it"),
        ("pt-BR", None, ["es", "pt"], "pt"),
        ("pt_BR", None, ["es", "pt"], "pt"),
        ("PT", None, ["pt"], "pt"),
        ("zh-Hant-TW", None, ["zh"], "zh"),
        # none of params.yaml
        ("en", None, ["es"], None),
        ("en-US", None, ["es", "it"], None),
        (None, "en", ["es", "it"], None),
        # the only one
        (None, None, ["es"], "es"),
        ("", None, ["es"], "es"),
    ],
)
def test_the_language_of_a_row(own: str | None, declared: str | None, wanted: list[str], expected: str | None) -> None:
    assert row_language(own, "f.jsonl:1", declared, wanted) == expected


@pytest.mark.parametrize("own", [None, ""])
def test_a_row_without_a_language_among_several(own: str | None) -> None:
    with pytest.raises(BadInput) as caught:
        row_language(own, "f.jsonl:7", None, ["es", "it", "pt"])
    assert caught.value.message == (
        "f.jsonl:7: no language, and params.yaml has es, it, pt; add one to the row, or to its source"
    )


def dialogue(user: str, assistant: str, **other: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": user}, {"role": "assistant", "content": assistant}], **other}


def test_dialogues_in_several_languages() -> None:
    rows = [
        dialogue("u", "a", language="es"),
        dialogue("v", "b", language="pt-BR"),
        dialogue("w", "c", language="en"),
    ]
    found, counts = conversations.from_messages("s", numbered(rows), find_language("es", "pt"))
    assert [(row.language, as_text([row])[0]) for row in found] == [("es", "u>a"), ("pt", "v>b")]
    assert counts == RowCounts(total=6, kept=4, dropped={"other_language": 2})


def test_dialogues_in_the_declared_language_of_their_source() -> None:
    rows = [dialogue("u", "a"), dialogue("v", "b", language="es")]
    found, counts = conversations.from_messages("s", numbered(rows), find_language("es", "it", declared="it"))
    assert [row.language for row in found] == ["it"]
    assert counts == RowCounts(total=4, kept=2, dropped={"other_language": 2})


@pytest.mark.parametrize("form", ["trees", "messages"])
def test_trees_in_several_languages(form: str) -> None:
    """A tree is in the language of its root, whatever its replies are in."""
    rows = [
        flat("A", None),
        flat("b", "A", lang="en"),
        flat("C", None, lang="pt-BR"),
        flat("d", "C", lang="pt-BR"),
        flat("E", None, lang="en"),
        flat("f", "E", lang="es"),
        flat("G", "f", lang="es"),
    ]
    if form == "trees":
        found, counts = conversations.from_oasst_trees("s", numbered(nested(rows)), find_language("es", "pt"), "all")
    else:
        found, counts = conversations.from_oasst_messages("s", numbered(rows), find_language("es", "pt"), "all")
    assert [(row.language, as_text([row])[0]) for row in found] == [("es", "A>b"), ("pt", "C>d")]
    assert counts == RowCounts(total=7, kept=4, dropped={"other_language": 3})


def test_a_tree_that_is_deleted_and_in_another_language_is_counted_once() -> None:
    rows = [flat("A", None, lang="en", **DELETED), flat("b", "A")]
    found, counts = conversations.from_oasst_messages("s", numbered(rows), SPANISH, "all")
    assert found == []
    assert counts == RowCounts(total=2, kept=0, dropped={"deleted": 2})


@pytest.mark.parametrize(
    ("read", "rows"),
    [
        (conversations.from_messages, [dialogue("u", "a", language="es"), dialogue("v", "b")]),
        (conversations.from_oasst_messages, [flat("A", None), flat("B", None, lang=None)]),
        (conversations.from_oasst_trees, nested([flat("A", None), flat("B", None, lang=None)])),
    ],
)
def test_a_row_without_a_language_among_several_is_named(read: Reader, rows: list[Any]) -> None:
    with pytest.raises(BadInput) as caught:
        read("s", numbered(rows), find_language("es", "it"), *(() if read is conversations.from_messages else ("all",)))
    assert caught.value.message == (
        "f.jsonl:2: no language, and params.yaml has es, it; add one to the row, or to its source"
    )


def test_ids_depend_on_source_and_content_alone() -> None:
    rows = [{"messages": [{"role": "user", "content": "u"}]}]
    (one,), (again, two), (other,) = (
        [row.id for row in conversations.from_messages(source, numbered(part), SPANISH)[0]]
        for source, part in (("s", rows), ("s", rows * 2), ("t", rows))
    )
    assert one == again == two != other


ROLE = "input should be 'prompter' or 'assistant'"


@pytest.mark.parametrize(
    ("read", "rows", "expected"),
    [
        (conversations.from_messages, [{"messages": []}],
         "1: messages: empty conversation; add a message or delete the line"),
        (conversations.from_messages, [{"text": "Hola"}], "1: messages: missing; add it"),
        (conversations.from_messages, [{"messages": [{"role": "bot", "content": "Hola"}]}],
         "1: messages.0.role: input should be 'system', 'user' or 'assistant', got \"bot\"; fix the row"),
        (conversations.from_messages, [{"messages": [{"role": "user"}]}], "1: messages.0.content: missing; add it"),
        (conversations.from_messages, [{"messages": "Hola"}],
         '1: messages: input should be a valid array, got "Hola"; fix the row'),
        (conversations.from_lima, [{"conversations": []}],
         "1: conversations: list should have at least 1 item after validation, not 0, got []; fix the row"),
        (conversations.from_lima, [{"conversations": ["Hola", 3]}],
         "1: conversations.1: input should be a valid string, got 3; fix the row"),
        (conversations.from_oasst_messages, [flat("A", None), flat("b", "A", role="bot")],
         f'2: role: {ROLE}, got "bot"; fix the row'),
        (conversations.from_oasst_trees, nested([flat("A", None), flat("b", "A", role="bot")]),
         f'1: prompt.replies.0.role: {ROLE}, got "bot"; fix the row'),
        (conversations.from_oasst_messages, [flat("A", None), flat("b", "A", text=None)],
         "2: text: input should be a valid string, got null; fix the row"),
        (conversations.from_oasst_messages, [flat("A", None), flat("c", "b")],
         "2: parent_id: orphan, no message 'b' in this file; add the parent or delete the row"),
        (conversations.from_oasst_messages, [flat("A", None), flat("b", "C"), flat("C", "b")],
         "2: parent_id: cycle, no root above this message; give one of it parent null"),
        (conversations.from_oasst_messages, [flat("A", "A")],
         "1: parent_id: cycle, no root above this message; give one of it parent null"),
        (conversations.from_oasst_messages, [flat("A", None), flat("b", "A"), flat("A", None)],
         "3: message_id: 'A' is a duplicate of f.jsonl:1; delete one"),
    ],
)  # fmt: skip
def test_a_bad_row_is_named(read: Reader, rows: list[Any], expected: str) -> None:
    with pytest.raises(BadInput) as caught:
        read("s", numbered(rows), SPANISH, *(("best",) if "oasst" in read.__name__ else ()))
    assert caught.value.message == f"f.jsonl:{expected}"


SHARED = ROOT.parent / "shared/data"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="no ../shared/data with OpenAssistant's conversations")


@needs_shared
def test_openassistant_english() -> None:
    path = SHARED / "oasst1_en_validation.messages.jsonl"
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    found, counts = conversations.from_oasst_messages("oasst1", numbered(rows), find_language("en"), "all")
    # counted in the file by itself: 1,936 messages are neither deleted nor badly reviewed, 40 are deleted
    assert counts == RowCounts(total=2022, kept=1936, dropped={"deleted": 40, "badly_reviewed": 46})
    assert len({row.messages[0].content for row in found}) <= sum(row["parent_id"] is None for row in rows) == 188
    assert len(found) == 950
    for row in found:
        assert [message.role for message in row.messages] == (["user", "assistant"] * 3)[: len(row.messages)]


@needs_shared
def test_openassistant_english_best_replies() -> None:
    path = SHARED / "oasst1_en_validation.messages.jsonl"
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    found, counts = conversations.from_oasst_messages("oasst1", numbered(rows), find_language("en"), "best")
    # Counted in the file by itself, from the top down: the first-ranked of the replies that are left, and their trees.
    kept = {row["message_id"]: row for row in rows if not row["deleted"] and row["review_result"] is not False}
    replies: dict[str, list[dict[str, Any]]] = {}
    for row in kept.values():
        replies.setdefault(row["parent_id"], []).append(row)
    reached = list(replies[None])  # type: ignore[index]
    for row in reached:
        below = replies.get(row["message_id"], [])
        assistants = [reply for reply in below if reply["role"] == "assistant"]
        if len(assistants) > 1:
            lowest = min(reply["rank"] for reply in assistants)  # all of several have one, and no two the same
            below = [r for r in below if r["role"] == "prompter" or r["rank"] == lowest]
        reached += below
    assert {m.content for row in found for m in row.messages} == {row["text"] for row in reached}
    assert (counts.total, counts.kept) == (2022, len(reached))
    assert counts.dropped == {"outranked": 1346, "deleted": 25, "badly_reviewed": 23}
    assert len(found) == 203


@needs_shared
def test_openassistant_french() -> None:
    rows = [row for _, row in read_objects(SHARED / "oasst1_fr_top1.jsonl")]
    found, counts = conversations.from_messages("oasst1_fr", numbered(rows), find_language("fr"))
    assert counts == RowCounts(total=756, kept=756, dropped={})
    assert Counter(len(row.messages) for row in found) == {2: 137, 4: 116, 6: 3}
