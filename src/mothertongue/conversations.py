"""Rows of the formats that conversations come in, converted to one schema."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from mothertongue.errors import BadInput
from mothertongue.params import Columns, Replies
from mothertongue.records import Conversation, Message, Rated, RatedTurn, RowCounts, row_id
from mothertongue.rows import NonBlank, Row, parse

Numbered = Iterable[tuple[str, object]]  # ("file:line", value)
FindLanguage = Callable[[str | None, str], str | None]  # row_language of a source


class Loose(Row):
    """Rows written by others have fields that are not used here."""

    model_config = ConfigDict(extra="ignore")


class Turn(Loose):
    role: Literal["system", "user", "assistant"]
    content: str


class _Dialogue(Loose):
    messages: list[Turn]
    language: str | None = None
    lang: str | None = None


class _Lima(Loose):
    conversations: Annotated[list[NonBlank], Field(min_length=1)]
    language: str | None = None


class _Prompt(Loose):
    prompt: NonBlank
    language: str | None = None
    lang: str | None = None


class _OasstMessage(Loose):
    message_id: str
    parent_id: str | None
    role: Literal["prompter", "assistant"]
    text: str
    lang: str | None = None
    deleted: bool | None = None
    review_result: bool | None = None
    rank: float | None = None  # of the replies to one message, from 0; a whole number that some exports write as 0.0


class _OasstNode(Loose):
    message_id: str
    role: Literal["prompter", "assistant"]
    text: str
    lang: str | None = None
    deleted: bool | None = None
    review_result: bool | None = None
    rank: float | None = None  # of the replies to one message, from 0; a whole number that some exports write as 0.0
    replies: list["_OasstNode"]


class _OasstTree(Loose):
    prompt: _OasstNode


def row_language(own: str | None, where: str, declared: str | None, wanted: Sequence[str]) -> str | None:
    """The language of a row: that of its source, else its own, else the only one of params.yaml.

    None for a language that is not in params.yaml, and where source and row differ. `own` may name a region, which is
    ignored: `pt-BR` is `pt`. `nb` is `no`, as the detector has it. Raises BadInput where the language is not known and
    params.yaml has several.
    """
    code = own and own.strip().replace("_", "-").partition("-")[0].lower()
    code = "no" if code == "nb" else code
    if declared and code and code != declared:
        return None
    if code := declared or code:
        return code if code in wanted else None
    if len(wanted) > 1:
        raise BadInput(
            f"{where}: no language, and params.yaml has {', '.join(wanted)}; add one to the row, or to its source"
        )
    return wanted[0]


def from_messages(source: str, rows: Numbered, find_language: FindLanguage) -> tuple[list[Conversation], RowCounts]:
    """Rows like `{"messages": [{"role": ..., "content": ...}, ...], "language": ...}`; language may be missing."""
    found = []
    dropped: Counter[str] = Counter()
    for where, row in rows:
        dialogue = parse(_Dialogue, row, where)
        if not dialogue.messages:
            raise BadInput(f"{where}: messages: empty conversation; add a message or delete the line")
        if language := find_language(dialogue.language or dialogue.lang, where):
            turns = [Message(role=turn.role, content=turn.content) for turn in dialogue.messages]
            found.append(build_conversation(source, language, turns))
        else:
            dropped["other_language"] += len(dialogue.messages)
    return found, count_messages(found, dropped)


def from_lima(source: str, rows: Numbered, find_language: FindLanguage) -> tuple[list[Conversation], RowCounts]:
    """Rows like `{"conversations": ["...", "..."]}`, user and assistant in turn (LIMA, Zhou et al. 2023).

    One that ends with the user, as in LIMA's split test, is a prompt that no expert has answered.
    """
    found = []
    dropped: Counter[str] = Counter()
    for where, row in rows:
        dialogue = parse(_Lima, row, where)
        if language := find_language(dialogue.language, where):
            texts = enumerate(dialogue.conversations)
            turns = [Message(role="assistant" if place % 2 else "user", content=text) for place, text in texts]
            conversation = build_conversation(source, language, turns)
            found.append(conversation.model_copy(update={"unanswered": True}) if len(turns) % 2 else conversation)
        else:
            dropped["other_language"] += len(dialogue.conversations)
    return found, count_messages(found, dropped)


def from_prompts(source: str, rows: Numbered, find_language: FindLanguage) -> tuple[list[Conversation], RowCounts]:
    """Rows like `{"prompt": "...", "language": ...}`, which no expert has answered; language may be missing."""
    found = []
    dropped: Counter[str] = Counter()
    for where, row in rows:
        asked = parse(_Prompt, row, where)
        if language := find_language(asked.language or asked.lang, where):
            turn = Message(role="user", content=asked.prompt)
            found.append(build_conversation(source, language, [turn]).model_copy(update={"unanswered": True}))
        else:
            dropped["other_language"] += 1
    return found, count_messages(found, dropped)


def from_exchanges(source: str, rows: Numbered) -> tuple[list[Conversation], RowCounts]:
    """Lists of sentences by user and assistant in turn, the user first; `rows` are (language, list).

    Anything else is dropped and counted as one message: packages contain some, and their users cannot fix them.
    """
    found = []
    dropped: Counter[str] = Counter()
    for language, row in rows:
        if not isinstance(row, list) or not row or not all(isinstance(turn, str) for turn in row):
            dropped["not_a_list_of_sentences"] += 1
            continue
        turns = [Message(role="assistant" if i % 2 else "user", content=turn) for i, turn in enumerate(row)]
        found.append(build_conversation(source, language, turns))
    return found, count_messages(found, dropped)


def from_columns(
    source: str, rows: Numbered, find_language: FindLanguage, columns: Columns
) -> tuple[list[Conversation], RowCounts]:
    """Rows whose fields are a question and its answer, under the names that `columns` gives.

    A row without text in one of the two turns is dropped.
    """
    found = []
    dropped: Counter[str] = Counter()
    for where, row in rows:
        texts = [get_text(row, name, where, "columns") for name in (*columns.user, columns.assistant)]
        question, answer = "\n\n".join(filter(None, texts[:-1])), texts[-1]
        language = find_language(own_language(row), where)
        if not language or not question or not answer:
            dropped["other_language" if not language else "empty"] += 2
        else:
            turns = [Message(role="user", content=question), Message(role="assistant", content=answer)]
            found.append(build_conversation(source, language, turns))
    return found, count_messages(found, dropped)


def own_language(row: object) -> str | None:
    """The language that a row itself names."""
    codes = [code for name in ("language", "lang") if isinstance(row, dict) and (code := row.get(name))]
    return str(codes[0]) if codes else None


def get_field(row: object, name: str, where: str, block: str) -> object:
    """A field, which may be null. Raises BadInput where there is none of the name that `block` of the source gives."""
    if not isinstance(row, dict) or name not in row:
        raise BadInput(f"{where}: {name}: missing; add it, or correct `{block}` of the source")
    return row[name]


def get_text(row: object, name: str, where: str, block: str) -> str:
    """The text of a field, empty for null. Raises BadInput where it is missing or no text."""
    value = get_field(row, name, where, block)
    if value is not None and not isinstance(value, str):
        raise BadInput(f"{where}: {name}: input should be text, got {str(value)[:60]}; take another column")
    return (value or "").strip()


def from_oasst_trees(
    source: str, rows: Numbered, find_language: FindLanguage, replies: Replies
) -> tuple[list[Conversation], RowCounts]:
    """OpenAssistant's nested export, one tree a row: a conversation for each leaf.

    Deleted and badly reviewed messages are dropped with all replies to them, and counted in messages. A tree is in the
    language of its root. Of the assistant's replies to one message `best` follows the one that people ranked first (the
    lowest `rank` of those that are left) and drops the others as `outranked`; where none has a rank, the first by
    message_id, and drops the others as `unranked`. All replies of users are followed.

    `ranked` follows the same replies. Where several have a rank, these are kept as answers to their message with a
    score of minus their rank, so 0 for the best; what replies to the others is dropped.
    """
    roots = [(where, parse(_OasstTree, row, where).prompt) for where, row in rows]
    return _follow_leaves(source, roots, find_language, replies)


def from_oasst_messages(
    source: str, rows: Numbered, find_language: FindLanguage, replies: Replies
) -> tuple[list[Conversation], RowCounts]:
    """OpenAssistant's flat export, one message a row, joined by `parent_id`; otherwise as `from_oasst_trees`.

    Raises BadInput for a cycle, a duplicate id, and an orphan that would not be dropped anyway (exports by language
    have some that are: messages in another language, labelled as this one and badly reviewed).
    """
    messages: dict[str, _OasstMessage] = {}
    places: dict[str, str] = {}
    for where, row in rows:
        message = parse(_OasstMessage, row, where)
        if message.message_id in messages:
            first = places[message.message_id]
            raise BadInput(f"{where}: message_id: {message.message_id!r} is a duplicate of {first}; delete one")
        messages[message.message_id], places[message.message_id] = message, where
    children: dict[str | None, list[_OasstMessage]] = {}
    for message in messages.values():
        parent = message.parent_id
        if parent is not None and parent not in messages:
            if not _drop_reason(message):
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

    roots = [(places[message.message_id], node(message)) for message in children.get(None, [])]
    for identity in messages:
        if identity not in reached:
            raise BadInput(
                f"{places[identity]}: parent_id: cycle, no root above this message; give one of it parent null"
            )
    return _follow_leaves(source, roots, find_language, replies)


def _follow_leaves(
    source: str, roots: Sequence[tuple[str, _OasstNode]], find_language: FindLanguage, followed: Replies
) -> tuple[list[Conversation], RowCounts]:
    dropped: Counter[str] = Counter()

    def size(node: _OasstNode) -> int:
        return 1 + sum(map(size, node.replies))

    def paths(
        node: _OasstNode, above: list[Message], rated: list[RatedTurn]
    ) -> Iterator[tuple[list[Message], list[RatedTurn]]]:
        path = [*above, Message(role="user" if node.role == "prompter" else "assistant", content=node.text)]
        replies = []
        best, ranked = None, []
        for reply in node.replies:
            if reason := _drop_reason(reply):
                dropped[reason] += size(reply)
            else:
                replies.append(reply)
        if followed != "all" and (answers := [reply for reply in replies if reply.role == "assistant"]):
            best, others = _split_best(answers)
            replies = [reply for reply in replies if reply.role == "prompter" or reply is best]
            ranked = _find_rated([best, *(other for other, _ in others)]) if followed == "ranked" else []
            for other, reason in others:
                dropped[reason] += size(other) - (bool(ranked) and other.rank is not None)
        if not replies:
            yield path, rated
        for reply in replies:
            here = [RatedTurn(turn=len(path), answers=ranked)] if ranked and reply is best else []
            yield from paths(reply, path, [*rated, *here])

    found = []
    for where, root in roots:
        if reason := _drop_reason(root):
            dropped[reason] += size(root)
        elif language := find_language(root.lang, where):
            found += [build_conversation(source, language, path, rated) for path, rated in paths(root, [], [])]
        else:
            dropped["other_language"] += size(root)
    total = sum(size(root) for _, root in roots)
    return found, RowCounts(total=total, kept=total - dropped.total(), dropped=dict(+dropped))


def _find_rated(replies: Sequence[_OasstNode]) -> list[Rated]:
    """The replies that people ranked, where these are several."""
    found = [Rated(text=reply.text, score=0.0 - reply.rank) for reply in replies if reply.rank is not None]
    return found if len(found) > 1 else []


def _split_best(replies: Sequence[_OasstNode]) -> tuple[_OasstNode, list[tuple[_OasstNode, str]]]:
    """The best of several replies, and those that are left out, with the reason."""
    best, *others = sorted(replies, key=lambda reply: (reply.rank is None, reply.rank or 0, reply.message_id))
    return best, [(other, "unranked" if best.rank is None else "outranked") for other in others]


def _drop_reason(node: _OasstMessage | _OasstNode) -> str | None:
    if node.deleted:
        return "deleted"
    return "badly_reviewed" if node.review_result is False else None


def count_messages(found: Sequence[Conversation], dropped: Counter[str]) -> RowCounts:
    """Messages kept, with the rated answers, and those dropped by reason."""
    kept = sum(len(c.messages) + sum(len(turn.answers) - 1 for turn in c.rated) for c in found)
    return RowCounts(total=kept + dropped.total(), kept=kept, dropped=dict(dropped))


def build_conversation(
    source: str, language: str, messages: list[Message], rated: Sequence[RatedTurn] = ()
) -> Conversation:
    """The row of a conversation. Its id depends on the source, the messages and the rated answers."""
    # Two rows may prefer the same answer to different ones.
    more = [[(turn.turn, [(each.text, each.score) for each in turn.answers]) for turn in rated]] if rated else []
    identity = row_id(source, [(m.role, m.content) for m in messages], *more)
    return Conversation(id=identity, source=source, language=language, messages=messages, rated=list(rated))
