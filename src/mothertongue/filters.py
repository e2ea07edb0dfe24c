"""Which conversations are worth learning from."""

import unicodedata
from collections import Counter
from collections.abc import Iterable

from mothertongue import languages
from mothertongue.params import Filtered
from mothertongue.records import Conversation, Tally

REASONS = ("duplicate", "no_answer", "too_short", "too_long", "few_letters", "other_language")


def kept(rows: Iterable[Conversation], params: Filtered, language: str) -> tuple[list[Conversation], Tally]:
    """Conversations that pass every filter, and how many fell by which reason (the first that applies)."""
    languages.name(language)
    found: list[Conversation] = []
    dropped = Counter(dict.fromkeys(REASONS, 0))
    seen: set[tuple[tuple[str, str], ...]] = set()
    for row in rows:
        same = tuple((m.role, " ".join(m.content.split())) for m in row.messages)
        reason = "duplicate" if same in seen else refusal(row, params, language)
        seen.add(same)
        if reason:
            dropped[reason] += 1
        else:
            found.append(row)
    return found, Tally(taken=len(found) + dropped.total(), kept=len(found), dropped=dict(dropped))


def refusal(row: Conversation, params: Filtered, language: str) -> str | None:
    """The named reason against one conversation, or None."""
    answers = [languages.words(m.content) for m in row.messages if m.role == "assistant"]
    text = "\n".join(m.content for m in row.messages)
    if not answers:
        return "no_answer"
    if min(map(len, answers)) < params.min_words:  # each of them becomes an example
        return "too_short"
    if max(len(languages.words(m.content)) for m in row.messages) > params.max_words:
        return "too_long"
    if letters(text) < params.min_letters:
        return "few_letters"
    if languages.probability(text, language) < params.min_language:
        return "other_language"
    return None


def letters(text: str) -> float:
    """Share of letters and marks (Indic vowels are marks) among the characters that are not white space."""
    solid = [character for character in text if not character.isspace()]
    return sum(unicodedata.category(c)[0] in "LM" for c in solid) / len(solid) if solid else 0.0
