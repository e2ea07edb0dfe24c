"""Rows of several answers of which some are better, as people or a model said, converted to conversations."""

import re
from collections import Counter
from collections.abc import Sequence
from typing import Annotated

from pydantic import BeforeValidator, Field
from pydantic_core import PydanticCustomError

from mothertongue.conversations import (
    FindLanguage,
    Loose,
    Numbered,
    Turn,
    build_conversation,
    count_messages,
    get_field,
    get_text,
    own_language,
)
from mothertongue.errors import BadInput
from mothertongue.params import Ratings, Sides
from mothertongue.records import Conversation, Message, Rated, RatedTurn, Role, RowCounts
from mothertongue.rows import parse

# Before each turn but the first, where a data set writes several into one text, as HelpSteer2 does.
TURN_MARK = re.compile(r"\s*<extra_id_1>(User|Assistant)\n")


def _as_turns(role: Role) -> BeforeValidator:
    """Text is one turn of a role; null is no turn of a user, and an assistant's without text."""

    def convert(value: object) -> object:
        if value is None and role == "user":
            return []
        if value is None or isinstance(value, str):
            return [{"role": role, "content": value or ""}]
        if not isinstance(value, list):
            raise PydanticCustomError("turns", "input should be text or a list of messages")
        return value

    return BeforeValidator(convert)


_Side = Annotated[list[Turn], Field(min_length=1), _as_turns("assistant")]


class _Preference(Loose):
    prompt: Annotated[list[Turn], Field(default_factory=list), _as_turns("user")]
    chosen: _Side
    rejected: _Side
    score_chosen: float | None = None
    score_rejected: float | None = None
    language: str | None = None
    lang: str | None = None


def _number(row: object, name: str, where: str, block: str) -> float | None:
    """The number of a field, which may be null. Raises BadInput where it is missing, no number, or a huge one."""
    value = get_field(row, name, where, block)
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
    `contradictory`, a rejected side with the higher score;
    `unrated`, one of two scores null. Raises BadInput where there is no prompt at all, and for one
    score without the other.
    """
    found = []
    dropped: Counter[str] = Counter()
    for where, row in rows:
        given = parse(_Preference, row, where)
        if not given.prompt and any(
            side[0].role == "assistant" and side[0].content for side in (given.chosen, given.rejected)
        ):
            raise BadInput(
                f"{where}: prompt: missing; add it, or let chosen and rejected be lists of messages that begin with it"
            )
        if given.model_fields_set >= {"score_chosen", "score_rejected"} and (
            (given.score_chosen is None) != (given.score_rejected is None)
        ):
            dropped["unrated"] += len(given.prompt) + 2
            continue
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
    return found, count_messages(found, dropped)


def _join_prompt(prompt: Sequence[Turn], side: Sequence[Turn]) -> list[Message]:
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

    Rows with the same prompt, in any order, are one conversation, and rows with the same answer to it are one rated
    answer, with their mean: several people may have rated it. A row's score is the sum of its numbers times
    their weights, divided by the sum of the weights' absolute values. Several turns in a prompt are split at the marks
    of HelpSteer2, `<extra_id_1>User` and `<extra_id_1>Assistant`, each on a line.

    Dropped, and counted in messages: `merged`, further rows of an answer; `empty`, rows without text in prompt or
    answer; `unrated`, rows where one of the numbers is null; `no_answer`, prompts that do not end with a user's turn. A
    prompt without an answer that is left is counted with its last row.
    """
    groups: dict[tuple[str | None, tuple[tuple[Role, str], ...]], dict[str, list[float]]] = {}
    reasons: dict[object, str] = {}
    dropped: Counter[str] = Counter()
    total_weight = sum(map(abs, ratings.scores.values()))
    for where, row in rows:
        asked, answer = (get_text(row, name, where, "ratings") for name in (ratings.prompt, ratings.answer))
        numbers = [(_number(row, name, where, "ratings"), weight) for name, weight in ratings.scores.items()]
        rated = [number * weight for number, weight in numbers if number is not None]
        language = find_language(own_language(row), where)
        turns = _split_turns(asked)
        answers = groups.setdefault(key := (language, tuple(turns)), {})
        if not language:
            reasons[key] = "other_language"
        elif not answer or not all(text.strip() for _, text in turns):
            reasons[key] = "empty"
        elif turns[-1][0] != "user":
            reasons[key] = "no_answer"
        elif len(rated) < len(numbers):
            reasons[key] = "unrated"
        else:
            dropped["merged"] += answer in answers
            answers.setdefault(answer, []).append(sum(rated) / total_weight)
            continue
        dropped[reasons[key]] += 1
    found = []
    for key, answers in groups.items():
        language, prompt = key[0], [Message(role=role, content=text) for role, text in key[1]]
        if language and answers:
            # Rounded, so that answers whose scores are equal are not told apart by their last bits.
            means = {text: round(sum(scores) / len(scores), 9) for text, scores in answers.items()}
            rated_answers = [Rated(text=text, score=score) for text, score in means.items()]
            found.append(_rated_conversation(source, language, prompt, rated_answers))
        else:
            dropped[reasons[key]] += len(prompt)
    return found, count_messages(found, +dropped)


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
    return build_conversation(source, language, turns, [RatedTurn(turn=len(prompt), answers=list(answers))])
