"""Filters: which conversations are worth learning from."""

import unicodedata
from collections import Counter
from collections.abc import Hashable, Iterable

from mothertongue import languages
from mothertongue.params import Filtered
from mothertongue.records import Conversation, RowCounts

REASONS = ("duplicate", "no_answer", "too_short", "too_long", "few_letters", "other_language")


def filter_conversations(rows: Iterable[Conversation], params: Filtered) -> tuple[list[Conversation], RowCounts]:
    """Conversations that pass every filter, and the number dropped by each reason (the first that applies).

    The filters look at the turns of a conversation. Of several answers that people rated, that is the best; the others
    are not looked at, because they are there to be rejected: the rules of pairs have limits for them. Conversations
    with the same turns and other rated answers are no duplicates.
    """
    found: list[Conversation] = []
    dropped = Counter(dict.fromkeys(REASONS, 0))
    seen: set[Hashable] = set()
    for row in rows:
        same = find_key(row)
        reason = "duplicate" if same in seen else drop_reason(row, params)
        seen.add(same)
        if reason:
            dropped[reason] += 1
        else:
            found.append(row)
    return found, RowCounts(total=len(found) + dropped.total(), kept=len(found), dropped=dict(dropped))


def find_key(row: Conversation) -> Hashable:
    """What duplicates have in common."""
    turns = tuple((m.role, " ".join(m.content.split())) for m in row.messages)
    rated = tuple((t.turn, " ".join(each.text.split()), each.score) for t in row.rated for each in t.answers)
    return row.language, row.unanswered, turns, rated


def drop_reason(row: Conversation, params: Filtered) -> str | None:
    """The first filter that a conversation does not pass, or None."""
    answers = [languages.split_words(m.content) for m in row.messages if m.role == "assistant"]
    text = "\n".join(m.content for m in row.messages)
    if not answers and not row.unanswered:
        return "no_answer"
    if min(map(len, answers), default=params.min_words) < params.min_words:  # each of them becomes an example
        return "too_short"
    if max(len(languages.split_words(m.content)) for m in row.messages) > params.max_words:
        return "too_long"
    if letter_share(text) < params.min_letters:
        return "few_letters"
    if languages.probability(text, row.language) < params.min_language:
        return "other_language"
    return None


def letter_share(text: str) -> float:
    """Share of letters and marks (Indic vowels are marks) among the characters that are not white space."""
    solid = [character for character in text if not character.isspace()]
    return sum(unicodedata.category(c)[0] in "LM" for c in solid) / len(solid) if solid else 0.0
