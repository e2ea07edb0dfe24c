"""New prompts for a round of training, written by the model itself after eight of people's.

As in Self-Instruct (Wang et al. 2023) and self-rewarding language models (Yuan et al. 2024).
"""

import random
import re
from collections import Counter
from collections.abc import Sequence

from mothertongue import filters, languages, prompts
from mothertongue.errors import BadInput
from mothertongue.params import Filtered
from mothertongue.records import Conversation, Message, RowCounts, Thread
from mothertongue.rows import Row
from mothertongue.sampling import Generation, Model, derive_seed

# Of Yuan et al. 2024.
EXAMPLES = 8
TEMPERATURE = 0.6
TOP_P = 0.9
MAX_TOKENS = 64  # our choice: a line
FILTERED = ("too_long", "few_letters", "other_language")  # the filters that apply to a prompt
LIKENESS = 0.7  # ROUGE-L over which Wang et al. 2023 take a prompt for a copy


class NewPrompt(Row):
    """A row of a source of format `prompts`."""

    prompt: str
    language: str


def write_prompts(
    threads: Sequence[Thread], count: int, seed: int, model: Model, label: str
) -> list[tuple[NewPrompt, str]]:
    """`count` prompts with how each ended, "stop" or "length" (cut in its line), by turns in each language.

    Each is the ninth of a list that begins with eight opening questions of training threads. Raises BadInput where
    there are none.
    """
    openings: dict[str, list[str]] = {}
    for thread in threads:
        if thread.split == "train" and thread.reference is not None and len(thread.prompt) == 1:
            openings.setdefault(thread.language, []).append(" ".join(thread.prompt[0].content.split()))
    if not openings:
        raise BadInput("no opening question in split train to write new prompts after; add conversations")
    codes = sorted(openings)
    asked = [(codes[index % len(codes)], index) for index in range(count)]
    pools = {code: sorted(set(texts)) for code, texts in openings.items()}
    requests = [
        Generation(
            prompt=_encode(code, pools[code], derive_seed(seed, label, index, "examples"), model),
            max_tokens=MAX_TOKENS,
            temperature=TEMPERATURE,
            top_p=TOP_P,
            seed=derive_seed(seed, label, index),
            index=index,
        )
        for code, index in asked
    ]
    found = []
    for (code, _), written in zip(asked, model.generate(requests, f"{label} new prompts"), strict=True):
        first, line_break, _ = written.text.strip().partition("\n")
        cut = written.finish == "length" and not line_break
        found.append((NewPrompt(prompt=_strip_marks(first), language=code), "length" if cut else "stop"))
    return found


def select_prompts(
    written: Sequence[tuple[NewPrompt, str]], known: Sequence[str], held_out: Sequence[str], params: Filtered
) -> tuple[list[NewPrompt], RowCounts]:
    """The new prompts that are whole and no near copy, and the number dropped by each reason (the first that applies).

    Those that stage `filtered` would drop are dropped here, so that the others are what is learned from. `known` are
    the texts that the model learns from already, `held_out` those that it is measured on. A near copy has a ROUGE-L
    over 0.7 with one of them, or with a new prompt before it.
    """
    kept: list[NewPrompt] = []
    dropped = Counter(dict.fromkeys(("empty", "cut", "broken", *FILTERED, "held_out", "near_copy"), 0))
    measured, learned = ([languages.split_words(text) for text in texts] for texts in (held_out, known))
    for row, finish in written:
        words = languages.split_words(row.prompt)
        if not words:
            reason = "empty"
        elif finish == "length":
            reason = "cut"
        elif "\ufffd" in row.prompt:  # half a character
            reason = "broken"
        elif filtered := filters.drop_reason(_as_conversation(row), params):
            reason = filtered
        elif is_near_copy(words, measured):
            reason = "held_out"
        elif is_near_copy(words, learned):
            reason = "near_copy"
        else:
            kept.append(row)
            learned.append(words)
            continue
        dropped[reason] += 1
    return kept, RowCounts(total=len(written), kept=len(kept), dropped=dict(dropped))


def _as_conversation(row: NewPrompt) -> Conversation:
    turn = Message(role="user", content=row.prompt)
    return Conversation(id="", source="", language=row.language, messages=[turn], unanswered=True)


def is_near_copy(words: Sequence[str], others: Sequence[Sequence[str]]) -> bool:
    """Whether the words have a ROUGE-L over 0.7 with one of the others."""
    counts = Counter(words)
    for other in others:
        least = LIKENESS * (len(words) + len(other)) / 2
        # The words that both have, in any order, are at least as many as those in the same order.
        if (counts & Counter(other)).total() > least and count_common(words, other) > least:
            return True
    return False


def count_common(one: Sequence[str], other: Sequence[str]) -> int:
    """The length of the longest common subsequence."""
    row = [0] * (len(other) + 1)
    for word in one:
        before = 0
        for place, also in enumerate(other, start=1):
            before, row[place] = row[place], before + 1 if word == also else max(row[place], row[place - 1])
    return row[-1]


def _encode(code: str, pool: Sequence[str], seed: int, model: Model) -> tuple[int, ...]:
    """The request, and as the beginning of the answer a list of eight questions and the number of the ninth."""
    drawn = random.Random(seed).sample(pool, min(EXAMPLES, len(pool)))
    lines = [f"{number}. {text}\n" for number, text in enumerate(drawn, start=1)]
    opening = model.chat.escape_control_tokens(f"{''.join(lines)}{len(drawn) + 1}.")
    prompt = model.chat.encode_prompt([Message(role="user", content=prompts.render("new_prompt", code))])
    return (*prompt, *model.chat.tokenizer.encode(opening, add_special_tokens=False))


def _strip_marks(line: str) -> str:
    """A line without the number of a list, and without quotes and asterisks around it."""
    line = re.sub(r"^\s*(\d{1,2}[.)]|[*-])\s+", "", line).strip("* \t")
    quoted = re.fullmatch(r"[\"«“]([^\"«»“”]*)[\"»”]", line)
    return quoted[1] if quoted else line
