"""Conversations out of trees, flat messages, dialogues and lists of sentences."""

import json
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from project import ROOT

from mothertongue import conversations
from mothertongue.conversations import Numbered
from mothertongue.errors import BadInput
from mothertongue.records import Conversation, Tally, read_objects

Reader = Callable[..., tuple[list[Conversation], Tally]]


def numbered(rows: list[Any]) -> Numbered:
    return [(f"f.jsonl:{number}", row) for number, row in enumerate(rows, start=1)]


def spoken(found: list[Conversation]) -> list[str]:
    """Each conversation in one word: "a>b" where the user said a and the assistant b."""
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


BRANCHES = [flat("A", None), flat("b", "A"), flat("c", "A"), flat("D", "b"), flat("e", "D"), flat("F", "b")]
DELETED, BAD = {"deleted": True}, {"review_result": False}


@pytest.mark.parametrize(
    ("rows", "found", "tally"),
    [
        ([flat("A", None), flat("b", "A")], ["A>b"], (2, 2, {})),
        ([flat("A", None)], ["A"], (1, 1, {})),
        (BRANCHES, ["A>b>D>e", "A>b>F", "A>c"], (6, 6, {})),
        ([flat("A", None), flat("b", "A"), flat("C", None), flat("d", "C")], ["A>b", "C>d"], (4, 4, {})),
        # dropped with all that answers it
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
        said, counted = conversations.from_oasst_trees("s", numbered(nested(rows)), "all")
    else:
        # in any order: a reply may stand before what it answers
        said, counted = conversations.from_oasst_messages("s", numbered(rows[::-1]), "all")
    assert sorted(spoken(said)) == found
    assert (counted.taken, counted.kept, counted.dropped) == tally
    assert all(m.role == ("assistant" if m.content.islower() else "user") for row in said for m in row.messages)


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
        # with all that answers it
        ([A, ranked("b", "A", 1), ranked("c", "A", 0), flat("D", "b"), flat("e", "D")], ["A>c"], {"outranked": 3}),
        # the best of those that are left
        ([A, ranked("b", "A", 0, **DELETED), ranked("c", "A", 2), ranked("d", "A", 1)], ["A>d"],
         {"deleted": 1, "outranked": 1}),
        ([A, ranked("b", "A", 0, **BAD), ranked("c", "A", 1)], ["A>c"], {"badly_reviewed": 1}),
        ([A, ranked("b", "A", 0, **BAD)], ["A"], {"badly_reviewed": 1}),
        # what was refused below a reply that is left out is counted with it
        ([A, ranked("b", "A", 1), ranked("c", "A", 0), flat("D", "b", **DELETED)], ["A>c"], {"outranked": 2}),
        # at each turn; what users say to it is followed, all of it, ranked or not
        ([A, ranked("b", "A", 0), ranked("D", "b", 1), ranked("E", "b", 0), ranked("f", "D", 1), ranked("g", "D", 0)],
         ["A>b>D>g", "A>b>E"], {"outranked": 1}),
        ([A, flat("b", "A"), flat("D", "b"), flat("E", "b")], ["A>b>D", "A>b>E"], {}),
        # one who goes on speaking is no alternative to the assistant
        ([A, flat("B", "A"), ranked("c", "A", 1), ranked("d", "A", 0)], ["A>B", "A>d"], {"outranked": 1}),
    ],
)  # fmt: skip
@pytest.mark.parametrize("form", ["trees", "messages", "backwards"])
def test_the_best_replies(form: str, rows: list[dict[str, Any]], found: list[str], dropped: dict[str, int]) -> None:
    if form == "trees":
        said, counted = conversations.from_oasst_trees("s", numbered(nested(rows)), "best")
    else:
        order = 1 if form == "messages" else -1
        said, counted = conversations.from_oasst_messages("s", numbered(rows[::order]), "best")
    assert sorted(spoken(said)) == found
    assert counted == Tally(taken=len(rows), kept=len(rows) - sum(dropped.values()), dropped=dropped)


def test_trees_and_messages_give_the_same_rows() -> None:
    trees, _ = conversations.from_oasst_trees("s", numbered(nested(BRANCHES)), "all")
    messages, _ = conversations.from_oasst_messages("s", numbered(BRANCHES), "all")
    assert trees == messages
    assert len({row.id for row in trees}) == len(trees) == 3


def test_an_orphan_that_is_dropped_anyway_is_counted() -> None:
    rows = [flat("A", None), flat("b", "lost", **BAD), flat("C", "b")]
    found, tally = conversations.from_oasst_messages("s", numbered(rows), "all")
    assert spoken(found) == ["A"]
    assert tally == Tally(taken=3, kept=1, dropped={"badly_reviewed": 2})


def test_dialogues() -> None:
    turns = [{"role": r, "content": c, "weight": 1} for r, c in (("system", "s"), ("user", "u"), ("assistant", "a"))]
    found, tally = conversations.from_messages("s", numbered([{"id": 7, "messages": turns}, {"messages": turns[1:2]}]))
    assert spoken(found) == ["s>u>a", "u"]
    assert [m.role for m in found[0].messages] == ["system", "user", "assistant"]
    assert tally == Tally(taken=4, kept=4, dropped={})


def test_exchanges() -> None:
    found, tally = conversations.from_exchanges("s", numbered([["Hola", "Buenas", "¿Qué tal?"]]))
    assert [m.role for m in found[0].messages] == ["user", "assistant", "user"]
    assert spoken(found) == ["Hola>Buenas>¿Qué tal?"]
    assert tally == Tally(taken=3, kept=3, dropped={})


@pytest.mark.parametrize("row", [[], ["Hola", 5], "Hola", {"a": "Hola"}, None], ids=repr)
def test_what_is_no_list_of_sentences_is_dropped_and_counted(row: object) -> None:
    found, tally = conversations.from_exchanges("s", numbered([["Hola", "Buenas"], row]))
    assert spoken(found) == ["Hola>Buenas"]
    assert tally == Tally(taken=3, kept=2, dropped={"not_a_list_of_sentences": 1})


def test_ids_depend_on_source_and_content_alone() -> None:
    rows = [{"messages": [{"role": "user", "content": "u"}]}]
    (one,), (again, two), (other,) = (
        [row.id for row in conversations.from_messages(source, numbered(part))[0]]
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
         "1: messages.0.role: input should be 'system', 'user' or 'assistant', got \"bot\"; mend the row"),
        (conversations.from_messages, [{"messages": [{"role": "user"}]}], "1: messages.0.content: missing; add it"),
        (conversations.from_messages, [{"messages": "Hola"}],
         '1: messages: input should be a valid array, got "Hola"; mend the row'),
        (conversations.from_oasst_messages, [flat("A", None), flat("b", "A", role="bot")],
         f'2: role: {ROLE}, got "bot"; mend the row'),
        (conversations.from_oasst_trees, nested([flat("A", None), flat("b", "A", role="bot")]),
         f'1: prompt.replies.0.role: {ROLE}, got "bot"; mend the row'),
        (conversations.from_oasst_messages, [flat("A", None), flat("b", "A", text=None)],
         "2: text: input should be a valid string, got null; mend the row"),
        (conversations.from_oasst_messages, [flat("A", None), flat("c", "b")],
         "2: parent_id: orphan, no message 'b' in this file; add the parent or delete the row"),
        (conversations.from_oasst_messages, [flat("A", None), flat("b", "C"), flat("C", "b")],
         "2: parent_id: cycle, no root above this message; give one of it parent null"),
        (conversations.from_oasst_messages, [flat("A", "A")],
         "1: parent_id: cycle, no root above this message; give one of it parent null"),
        (conversations.from_oasst_messages, [flat("A", None), flat("b", "A"), flat("A", None)],
         "3: message_id: 'A' stands at f.jsonl:1 already; delete one"),
    ],
)  # fmt: skip
def test_a_bad_row_is_named(read: Reader, rows: list[Any], expected: str) -> None:
    with pytest.raises(BadInput) as caught:
        read("s", numbered(rows), *(() if read is conversations.from_messages else ("best",)))
    assert caught.value.message == f"f.jsonl:{expected}"


SHARED = ROOT.parent / "shared/data"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="no ../shared/data with OpenAssistant's conversations")


@needs_shared
def test_openassistant_english() -> None:
    path = SHARED / "oasst1_en_validation.messages.jsonl"
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    found, tally = conversations.from_oasst_messages("oasst1", numbered(rows), "all")
    # counted in the file by itself: 1,936 messages are neither deleted nor badly reviewed, 40 are deleted
    assert tally == Tally(taken=2022, kept=1936, dropped={"deleted": 40, "badly_reviewed": 46})
    assert len({row.messages[0].content for row in found}) <= sum(row["parent_id"] is None for row in rows) == 188
    assert len(found) == 950
    for row in found:
        assert [message.role for message in row.messages] == (["user", "assistant"] * 3)[: len(row.messages)]


@needs_shared
def test_openassistant_english_best_replies() -> None:
    path = SHARED / "oasst1_en_validation.messages.jsonl"
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    found, tally = conversations.from_oasst_messages("oasst1", numbered(rows), "best")
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
    assert (tally.taken, tally.kept) == (2022, len(reached))
    assert tally.dropped == {"outranked": 1346, "deleted": 25, "badly_reviewed": 23}
    assert len(found) == 203


@needs_shared
def test_openassistant_french() -> None:
    rows = [row for _, row in read_objects(SHARED / "oasst1_fr_top1.jsonl")]
    found, tally = conversations.from_messages("oasst1_fr", numbered(rows))
    assert tally == Tally(taken=756, kept=756, dropped={})
    assert Counter(len(row.messages) for row in found) == {2: 137, 4: 116, 6: 3}
