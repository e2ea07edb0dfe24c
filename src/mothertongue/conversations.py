"""Rows of the formats conversations come in, as one schema."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

from pydantic import ConfigDict

from mothertongue.errors import BadInput
from mothertongue.params import Replies
from mothertongue.records import Conversation, Message, Row, Tally, parse, row_id

Numbered = Iterable[tuple[str, object]]  # ("file:line", value)


class _Loose(Row):
    """Rows that others wrote carry fields that are not asked for."""

    model_config = ConfigDict(extra="ignore")


class _Turn(_Loose):
    role: Literal["system", "user", "assistant"]
    content: str


class _Dialogue(_Loose):
    messages: list[_Turn]


class _OasstMessage(_Loose):
    message_id: str
    parent_id: str | None
    role: Literal["prompter", "assistant"]
    text: str
    deleted: bool | None = None
    review_result: bool | None = None
    rank: float | None = None  # of the replies to one message, from 0; a whole number that some exports write as 0.0


class _OasstNode(_Loose):
    message_id: str
    role: Literal["prompter", "assistant"]
    text: str
    deleted: bool | None = None
    review_result: bool | None = None
    rank: float | None = None  # of the replies to one message, from 0; a whole number that some exports write as 0.0
    replies: list["_OasstNode"]


class _OasstTree(_Loose):
    prompt: _OasstNode


def from_messages(source: str, rows: Numbered) -> tuple[list[Conversation], Tally]:
    """`{"messages": [{"role": ..., "content": ...}, ...]}` a row."""
    found = []
    for where, row in rows:
        dialogue = parse(_Dialogue, row, where)
        if not dialogue.messages:
            raise BadInput(f"{where}: messages: empty conversation; add a message or delete the line")
        found.append(_conversation(source, [Message(role=t.role, content=t.content) for t in dialogue.messages]))
    return found, _tally(found, Counter())


def from_exchanges(source: str, rows: Numbered) -> tuple[list[Conversation], Tally]:
    """Lists of sentences that user and assistant say in turn, the user first.

    What is no such list is dropped and counted as one message: packages carry some, and their users cannot mend them.
    """
    found = []
    dropped: Counter[str] = Counter()
    for _, row in rows:
        if not isinstance(row, list) or not row or not all(isinstance(turn, str) for turn in row):
            dropped["not_a_list_of_sentences"] += 1
            continue
        turns = [Message(role="assistant" if i % 2 else "user", content=turn) for i, turn in enumerate(row)]
        found.append(_conversation(source, turns))
    return found, _tally(found, dropped)


def from_oasst_trees(source: str, rows: Numbered, replies: Replies) -> tuple[list[Conversation], Tally]:
    """OpenAssistant's nested export, one tree a row: a conversation for each leaf.

    Deleted and badly reviewed messages are dropped with all that answers them, and counted in messages. Of the
    assistant's replies to one message `best` follows the one that people ranked first (the lowest `rank` of those that
    are left) and drops the others as `outranked`; where none has a rank, the one with the first message_id in the order
    of strings, and drops the others as `unranked`. What users reply is nothing to learn, and all of it is followed.
    """
    roots = [parse(_OasstTree, row, where).prompt for where, row in rows]
    return _leaves(source, roots, replies)


def from_oasst_messages(source: str, rows: Numbered, replies: Replies) -> tuple[list[Conversation], Tally]:
    """OpenAssistant's flat export, one message a row, joined by `parent_id`; else as `from_oasst_trees`.

    Raises BadInput for a cycle, an id that stands twice, and an orphan that would not be dropped anyway (the export by
    language has such: a message in another language was taken for this one, and reviewed badly for that).
    """
    messages: dict[str, _OasstMessage] = {}
    places: dict[str, str] = {}
    for where, row in rows:
        message = parse(_OasstMessage, row, where)
        if message.message_id in messages:
            first = places[message.message_id]
            raise BadInput(f"{where}: message_id: {message.message_id!r} stands at {first} already; delete one")
        messages[message.message_id], places[message.message_id] = message, where
    children: dict[str | None, list[_OasstMessage]] = {}
    for message in messages.values():
        parent = message.parent_id
        if parent is not None and parent not in messages:
            if not _refused(message):
                raise BadInput(
                    f"{places[message.message_id]}: parent_id: orphan, no message {parent!r} in this file;"
                    " add the parent or delete the row"
                )
            parent = None  # dropped below, with all that answers it
        children.setdefault(parent, []).append(message)

    reached: set[str] = set()

    def node(message: _OasstMessage) -> _OasstNode:
        reached.add(message.message_id)
        replies = [node(child) for child in children.get(message.message_id, [])]
        return _OasstNode.model_construct(**{**message.__dict__, "replies": replies})

    roots = [node(message) for message in children.get(None, [])]
    for identity in messages:
        if identity not in reached:
            raise BadInput(
                f"{places[identity]}: parent_id: cycle, no root above this message; give one of it parent null"
            )
    return _leaves(source, roots, replies)


def _leaves(source: str, roots: Sequence[_OasstNode], followed: Replies) -> tuple[list[Conversation], Tally]:
    dropped: Counter[str] = Counter()

    def size(node: _OasstNode) -> int:
        return 1 + sum(map(size, node.replies))

    def paths(node: _OasstNode, above: list[Message]) -> Iterator[list[Message]]:
        path = [*above, Message(role="user" if node.role == "prompter" else "assistant", content=node.text)]
        replies = []
        for reply in node.replies:
            if reason := _refused(reply):
                dropped[reason] += size(reply)
            else:
                replies.append(reply)
        if followed == "best" and (answers := [reply for reply in replies if reply.role == "assistant"]):
            best, others = _best(answers)
            replies = [reply for reply in replies if reply.role == "prompter" or reply is best]
            for other, reason in others:
                dropped[reason] += size(other)
        if not replies:
            yield path
        for reply in replies:
            yield from paths(reply, path)

    found = []
    for root in roots:
        if reason := _refused(root):
            dropped[reason] += size(root)
        else:
            found += [_conversation(source, path) for path in paths(root, [])]
    total = sum(map(size, roots))
    return found, Tally(taken=total, kept=total - dropped.total(), dropped=dict(dropped))


def _best(replies: Sequence[_OasstNode]) -> tuple[_OasstNode, list[tuple[_OasstNode, str]]]:
    """The best of several replies, and those that are left out, with the reason."""
    best, *others = sorted(replies, key=lambda reply: (reply.rank is None, reply.rank or 0, reply.message_id))
    return best, [(other, "unranked" if best.rank is None else "outranked") for other in others]


def _refused(node: _OasstMessage | _OasstNode) -> str | None:
    if node.deleted:
        return "deleted"
    return "badly_reviewed" if node.review_result is False else None


def _tally(found: Sequence[Conversation], dropped: Counter[str]) -> Tally:
    kept = sum(len(c.messages) for c in found)
    return Tally(taken=kept + dropped.total(), kept=kept, dropped=dict(dropped))


def _conversation(source: str, messages: list[Message]) -> Conversation:
    return Conversation(id=row_id(source, [(m.role, m.content) for m in messages]), source=source, messages=messages)
