"""Rows of the formats that conversations come in, converted to one schema."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Annotated, Literal

from pydantic import BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

from mothertongue.errors import BadInput
from mothertongue.params import Columns, Ratings, Replies, Sides
from mothertongue.records import Conversation, Message, Rated, RatedTurn, Role, RowCounts, row_id
from mothertongue.rows import NonBlank, Row, parse

Numbered = Iterable[tuple[str, object]]  # ("file:line", value)
FindLanguage = Callable[[str | None, str], str | None]  # row_language of a source
# Before each turn but the first, where a data set writes several into one text, as HelpSteer2 does.
TURN_MARK = re.compile(r"\s*<extra_id_1>(User|Assistant)\n")


class _Loose(Row):
    """Rows written by others have fields that are not used here."""

    model_config = ConfigDict(extra="ignore")


class _Turn(_Loose):
    role: Literal["system", "user", "assistant"]
    content: str


class _Dialogue(_Loose):
    messages: list[_Turn]
    language: str | None = None
    lang: str | None = None


class _Lima(_Loose):
    conversations: Annotated[list[NonBlank], Field(min_length=1)]
    language: str | None = None


class _Prompt(_Loose):
    prompt: NonBlank
    language: str | None = None
    lang: str | None = None


def _as_turns(role: Role) -> BeforeValidator:
    """Text is one turn of a role; null is none."""

    def convert(value: object) -> object:
        if value is None or isinstance(value, str):
            return [] if value is None else [{"role": role, "content": value}]
        if not isinstance(value, list):
            raise PydanticCustomError("turns", "input should be text or a list of messages")
        return value

    return BeforeValidator(convert)


_Side = Annotated[list[_Turn], Field(min_length=1), _as_turns("assistant")]


class _Preference(_Loose):
    prompt: Annotated[list[_Turn], Field(default_factory=list), _as_turns("user")]
    chosen: _Side
    rejected: _Side
    score_chosen: float | None = None
    score_rejected: float | None = None
    language: str | None = None
    lang: str | None = None


class _OasstMessage(_Loose):
    message_id: str
    parent_id: str | None
    role: Literal["prompter", "assistant"]
    text: str
    lang: str | None = None
    deleted: bool | None = None
    review_result: bool | None = None
    rank: float | None = None  # of the replies to one message, from 0; a whole number that some exports write as 0.0


class _OasstNode(_Loose):
    message_id: str
    role: Literal["prompter", "assistant"]
    text: str
    lang: str | None = None
    deleted: bool | None = None
    review_result: bool | None = None
    rank: float | None = None  # of the replies to one message, from 0; a whole number that some exports write as 0.0
    replies: list["_OasstNode"]


class _OasstTree(_Loose):
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
            found.append(_conversation(source, language, turns))
        else:
            dropped["other_language"] += len(dialogue.messages)
    return found, _count(found, dropped)


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
            conversation = _conversation(source, language, turns)
            found.append(conversation.model_copy(update={"unanswered": True}) if len(turns) % 2 else conversation)
        else:
            dropped["other_language"] += len(dialogue.conversations)
    return found, _count(found, dropped)


def from_prompts(source: str, rows: Numbered, find_language: FindLanguage) -> tuple[list[Conversation], RowCounts]:
    """Rows like `{"prompt": "...", "language": ...}`, which no expert has answered; language may be missing."""
    found = []
    dropped: Counter[str] = Counter()
    for where, row in rows:
        asked = parse(_Prompt, row, where)
        if language := find_language(asked.language or asked.lang, where):
            turn = Message(role="user", content=asked.prompt)
            found.append(_conversation(source, language, [turn]).model_copy(update={"unanswered": True}))
        else:
            dropped["other_language"] += 1
    return found, _count(found, dropped)


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
        found.append(_conversation(source, language, turns))
    return found, _count(found, dropped)


def from_columns(
    source: str, rows: Numbered, find_language: FindLanguage, columns: Columns
) -> tuple[list[Conversation], RowCounts]:
    """Rows whose fields are a question and its answer, under the names that `columns` gives.

    A row without text in one of the two turns is dropped.
    """
    found = []
    dropped: Counter[str] = Counter()
    for where, row in rows:
        texts = [_text(row, name, where, "columns") for name in (*columns.user, columns.assistant)]
        question, answer = "\n\n".join(filter(None, texts[:-1])), texts[-1]
        language = find_language(_own_language(row), where)
        if not language or not question or not answer:
            dropped["other_language" if not language else "empty"] += 2
        else:
            turns = [Message(role="user", content=question), Message(role="assistant", content=answer)]
            found.append(_conversation(source, language, turns))
    return found, _count(found, dropped)


def _own_language(row: object) -> str | None:
    codes = [code for name in ("language", "lang") if isinstance(row, dict) and (code := row.get(name))]
    return str(codes[0]) if codes else None


def _field(row: object, name: str, where: str, block: str) -> object:
    """A field, which may be null. Raises BadInput where there is none of the name that `block` of the source gives."""
    if not isinstance(row, dict) or name not in row:
        raise BadInput(f"{where}: {name}: missing; add it, or correct `{block}` of the source")
    return row[name]


def _text(row: object, name: str, where: str, block: str) -> str:
    """The text of a field, empty for null. Raises BadInput where it is missing or no text."""
    value = _field(row, name, where, block)
    if value is not None and not isinstance(value, str):
        raise BadInput(f"{where}: {name}: input should be text, got {str(value)[:60]}; take another column")
    return (value or "").strip()


def _number(row: object, name: str, where: str, block: str) -> float | None:
    """The number of a field, which may be null. Raises BadInput where it is missing, no number, or a huge one."""
    value = _field(row, name, where, block)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e100:
        raise BadInput(f"{where}: {name}: input should be a number, got {str(value)[:60]}; take another column")
    return float(value)


def rename_sides(rows: Numbered, sides: Sides) -> Numbered:
    """Rows of other names as from_preferences reads them. Raises BadInput where a row lacks one of them."""
    names = {ours: theirs for ours, theirs in sides.model_dump().items() if theirs is not None}
    for where, row in rows:
        if not isinstance(row, dict) or (missing := [theirs for theirs in names.values() if theirs not in row]):
            what = missing[0] if isinstance(row, dict) else sides.prompt
            raise BadInput(f"{where}: {what}: missing; add it, or correct `sides` of the source")
        codes = {name: row[name] for name in ("language", "lang") if name in row}
        yield where, {ours: row[theirs] for ours, theirs in names.items()} | codes


def from_preferences(source: str, rows: Numbered, find_language: FindLanguage) -> tuple[list[Conversation], RowCounts]:
    """Rows like `{"prompt": ..., "chosen": ..., "rejected": ...}`, of two answers of which one was preferred.

    Each is text or a list of messages. The two sides may contain the whole conversation instead of the answer alone
    (implicit prompt, as TRL calls it); `prompt` is then not looked at. The scores are `score_chosen` and
    `score_rejected` where the row has both, else 1 and 0.

    Dropped, and counted in messages: `no_answer`, a side that is no answer of the assistant to a user's turn;
    `different_prompts`, two sides that answer different conversations; `empty`, a question or an answer without text;
    `contradictory`, a rejected side with the higher score. Raises BadInput where there is no prompt at all, and for one
    score without the other.
    """
    found = []
    dropped: Counter[str] = Counter()
    for where, row in rows:
        given = parse(_Preference, row, where)
        if not given.prompt and "assistant" in (given.chosen[0].role, given.rejected[0].role):
            raise BadInput(
                f"{where}: prompt: missing; add it, or let chosen and rejected be lists of messages that begin with it"
            )
        match given.score_chosen, given.score_rejected:
            case None, None:
                scores = 1.0, 0.0
            case float(better), float(worse):
                scores = better, worse
            case better, _:
                which = "score_chosen" if better is None else "score_rejected"
                raise BadInput(f"{where}: {which}: missing beside the score of the other side; add it, or remove both")
        sides = [_join_prompt(given.prompt, side) for side in (given.chosen, given.rejected)]
        language = find_language(given.language or given.lang, where)
        if not language:
            dropped["other_language"] += len(sides[0]) + 1
        elif reason := _preference_reason(sides, scores):
            dropped[reason] += len(sides[0]) + 1
        else:
            answers = [Rated(text=s[-1].content, score=score) for s, score in zip(sides, scores, strict=True)]
            found.append(_rated_conversation(source, language, sides[0][:-1], answers))
    return found, _count(found, dropped)


def _join_prompt(prompt: Sequence[_Turn], side: Sequence[_Turn]) -> list[Message]:
    """The whole conversation that a side ends: itself where it does not begin with an answer."""
    turns = side if side[0].role != "assistant" else [*prompt, *side]
    return [Message(role=turn.role, content=turn.content) for turn in turns]


def _preference_reason(sides: Sequence[Sequence[Message]], scores: Sequence[float]) -> str | None:
    """Why two conversations, the chosen and the rejected, are no preference between two answers; or None."""
    chosen, rejected = sides
    if any([turn.role for turn in side[-2:]] != ["user", "assistant"] for side in sides):
        return "no_answer"
    if chosen[:-1] != rejected[:-1]:
        return "different_prompts"
    if not all(turn.content.strip() for turn in (*chosen[-2:], rejected[-1])):
        return "empty"
    return "contradictory" if scores[0] < scores[1] else None


def from_ratings(
    source: str, rows: Numbered, find_language: FindLanguage, ratings: Ratings
) -> tuple[list[Conversation], RowCounts]:
    """Rows of a prompt, one answer to it, and numbers that say how good it is, under the names that `ratings` gives.

    Rows with the same prompt, in any order, are one conversation. An answer's score is the sum of its numbers times
    their weights, divided by the sum of the weights' absolute values. Several turns in a prompt are split at the marks
    of HelpSteer2, `<extra_id_1>User` and `<extra_id_1>Assistant`, each on a line.

    Dropped, and counted in messages: `empty`, rows without text in prompt or answer; `unrated`, rows where one of the
    numbers is null; `no_answer`, prompts that do not end with a user's turn. A prompt without an answer that is left
    is counted with its last row.
    """
    groups: dict[tuple[str | None, tuple[tuple[Role, str], ...]], list[Rated]] = {}
    reasons: dict[object, str] = {}
    dropped: Counter[str] = Counter()
    total_weight = sum(map(abs, ratings.scores.values()))
    for where, row in rows:
        asked, answer = (_text(row, name, where, "ratings") for name in (ratings.prompt, ratings.answer))
        numbers = [(_number(row, name, where, "ratings"), weight) for name, weight in ratings.scores.items()]
        rated = [number * weight for number, weight in numbers if number is not None]
        language = find_language(_own_language(row), where)
        turns = _split_turns(asked)
        answers = groups.setdefault(key := (language, tuple(turns)), [])
        if not language:
            reasons[key] = "other_language"
        elif not answer or not all(text.strip() for _, text in turns):
            reasons[key] = "empty"
        elif turns[-1][0] != "user":
            reasons[key] = "no_answer"
        elif len(rated) < len(numbers):
            reasons[key] = "unrated"
        else:
            # Rounded, so that answers whose scores are equal are not told apart by their last bits.
            answers.append(Rated(text=answer, score=round(sum(rated) / total_weight, 9)))
            continue
        dropped[reasons[key]] += 1
    found = []
    for key, answers in groups.items():
        language, prompt = key[0], [Message(role=role, content=text) for role, text in key[1]]
        if language and answers:
            found.append(_rated_conversation(source, language, prompt, answers))
        else:
            dropped[reasons[key]] += len(prompt)
    return found, _count(found, dropped)


def _split_turns(prompt: str) -> list[tuple[Role, str]]:
    """(role, text) of each turn of a prompt, of which the first is the user's."""
    first, *others = TURN_MARK.split(prompt)
    roles: list[Role] = ["user", *("assistant" if name == "Assistant" else "user" for name in others[::2])]
    return list(zip(roles, [first, *others[1::2]], strict=True))


def _rated_conversation(
    source: str, language: str, prompt: Sequence[Message], answers: Sequence[Rated]
) -> Conversation:
    """A conversation that ends with the best of several answers; of equally good ones the first."""
    best = max(answers, key=lambda answer: answer.score)
    turns = [*prompt, Message(role="assistant", content=best.text)]
    return _conversation(source, language, turns, [RatedTurn(turn=len(prompt), answers=list(answers))])


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
            found += [_conversation(source, language, path, rated) for path, rated in paths(root, [], [])]
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


def _count(found: Sequence[Conversation], dropped: Counter[str]) -> RowCounts:
    kept = sum(len(c.messages) + sum(len(turn.answers) - 1 for turn in c.rated) for c in found)
    return RowCounts(total=kept + dropped.total(), kept=kept, dropped=dict(dropped))


def _conversation(source: str, language: str, messages: list[Message], rated: Sequence[RatedTurn] = ()) -> Conversation:
    # Two rows may prefer the same answer to different ones.
    more = [[(turn.turn, [(each.text, each.score) for each in turn.answers]) for turn in rated]] if rated else []
    identity = row_id(source, [(m.role, m.content) for m in messages], *more)
    return Conversation(id=identity, source=source, language=language, messages=messages, rated=list(rated))
