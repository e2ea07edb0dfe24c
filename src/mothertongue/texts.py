"""What can be read off answers: their language, repetition, length, questions, and likeness to the expert's."""

from collections import Counter
from collections.abc import Mapping, Sequence

from mothertongue import languages, overlap
from mothertongue.records import Item, Thread

MIN_WORDS = 4  # under it the detector guesses, and no trigram can stand twice
CONFOUNDED = ("right_language", "repetition")  # with length; what `readings` gives, in its order
MEDOID_OF = 100  # training answers among which the trivial one is looked for: the search is quadratic
Said = Mapping[str, str]

_QUESTION_MARKS = "?？؟⸮՞፧"
_AFTER = "\"'”’»)]}*_. "  # what may follow the last mark of a sentence


def items(threads: Sequence[Thread], said: Sequence[str], code: str) -> list[Item]:
    """Items of the language suite's figures, `finished` aside, for one answer a thread.

    Answers under four words are undecided: `right_language` and `repetition` have no value there ([0, 0]).
    """
    times = Counter(map(_flat, said))
    chrf = overlap.statistics("chrf", said, [thread.reference for thread in threads], code)
    found = []
    for thread, text, row in zip(threads, said, chrf, strict=True):
        right, repeated = readings(text, code)
        count = len(languages.words(text))
        values = {
            "right_language": right,
            "undecided": [float(count < MIN_WORDS)],
            "repetition": repeated,
            "chrf_to_expert": row,
            "questions": [float(is_question(text))],
            "distinct": [1 / times[_flat(text)]],
            "words": [float(count)],
        }
        found += [
            Item(
                id=thread.id,
                group=thread.group,
                figure=figure,
                values=value,
                text=text if figure == "right_language" else "",
            )
            for figure, value in values.items()
        ]
    return found


def readings(text: str, code: str) -> tuple[list[float], list[float]]:
    """(is it in the language, its repetition), each as numerator and denominator; [0, 0] under four words."""
    if len(languages.words(text)) < MIN_WORDS:
        return [0.0, 0.0], [0.0, 0.0]
    return [float(languages.is_in(text, code)), 1.0], [repetition(text), 1.0]


def at_like_lengths(
    figure: str, ours: Sequence[Item], theirs: Sequence[Item], said: Said, other: Said, code: str
) -> tuple[list[Item], list[Item]]:
    """A figure that depends on length, of two models' answers, each pair cut to the words of its shorter one.

    A short answer has little room to repeat itself, or to change its language. `said` and `other` are what was said, by
    item id. A pair is undecided where its shorter answer is. Raises ValueError where the items are not the same.
    """
    if sorted((i.group, i.id) for i in ours) != sorted((i.group, i.id) for i in theirs):
        raise ValueError("the items differ")
    sides: tuple[list[Item], list[Item]] = ([], [])
    for item in ours:
        pair = (said[item.id], other[item.id])
        shorter = min(len(languages.words(text)) for text in pair)
        for side, text in zip(sides, pair, strict=True):
            read = dict(zip(CONFOUNDED, readings(languages.first_words(text, shorter), code), strict=True))
            side.append(item.model_copy(update={"values": read[figure]}))
    return sides


def repetition(text: str) -> float:
    """Share of a text's word trigrams that stood in it before; 0 for a text of fewer than four words."""
    words = languages.words(text)
    trigrams = list(zip(words, words[1:], words[2:], strict=False))
    return 1 - len(set(trigrams)) / len(trigrams) if len(trigrams) > 1 else 0.0


def is_question(text: str) -> bool:
    """Whether a text ends with a question mark, quotes and brackets after it aside."""
    return text.rstrip().rstrip(_AFTER).endswith(tuple(_QUESTION_MARKS))


def medoid(answers: Sequence[str]) -> str:
    """The answer that is likest to all others by mean chrF++: the best that one same answer to everything can do.

    Looks at the first 100 distinct ones. Ties go to the first.
    """
    distinct = list(dict.fromkeys(answers))[:MEDOID_OF]
    return max(distinct, key=lambda text: sum(overlap.sentence_chrf(text, other) for other in distinct))


def _flat(text: str) -> str:
    return " ".join(languages.words(text)) or text.strip()
