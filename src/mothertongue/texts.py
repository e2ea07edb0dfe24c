"""Figures of an answer's text: language, repetition, length, questions, and likeness to the expert's answer."""

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from typing import NamedTuple

from mothertongue import languages, overlap
from mothertongue.measurements import SampleScore
from mothertongue.records import Thread

MIN_WORDS = 4  # of shorter texts the language cannot be detected reliably, and no trigram can be repeated
CONFOUNDED = ("right_language", "repetition", "chrf_to_expert", "chrf_mismatched")  # figures that depend on length
MEDOID_OF = 100  # training answers among which the trivial one is searched; the search is quadratic
Texts = Mapping[str, str]  # by item id

_QUESTION_MARKS = "?？؟⸮՞፧\u037e"


def score_answers(threads: Sequence[Thread], answers: Sequence[str]) -> list[SampleScore]:
    """All figures of the language suite but `finished`, for one answer to each thread.

    Answers under four words are undecided: `right_language` and `repetition` have no value there ([0, 0]).
    """
    times = Counter((t.language, _normalized(text)) for t, text in zip(threads, answers, strict=True))
    others = pick_mismatched([exchange(thread) for thread in threads])
    chrf = _chrf(answers, [thread.expert for thread in threads])
    mismatched = [thread if place is None else threads[place] for thread, place in zip(threads, others, strict=True)]
    control = _chrf(answers, [thread.expert for thread in mismatched])
    scores = []
    for thread, text, row, other, unlike in zip(threads, answers, chrf, others, control, strict=True):
        right, repeated = score_language_and_repetition(text, thread.language)
        count = len(languages.split_words(text))
        values = {
            "right_language": right,
            "undecided": [float(count < MIN_WORDS)],
            "repetition": repeated,
            "chrf_to_expert": row,
            "questions": [float(is_question(text))],
            "distinct": [1 / times[thread.language, _normalized(text)]],
            "words": [float(count)],
        } | ({"chrf_mismatched": unlike} if other is not None else {})
        scores += [
            SampleScore(
                id=thread.id,
                language=thread.language,
                group=thread.group,
                figure=figure,
                values=value,
                text=text if figure == "right_language" else "",
            )
            for figure, value in values.items()
        ]
    return scores


def _chrf(answers: Sequence[str], references: Sequence[str]) -> list[list[float]]:
    return overlap.segment_statistics("chrf", answers, references, "")  # chrF++ does not depend on the language


class Exchange(NamedTuple):
    """A question and its answer; controls are picked within a stratum, and from another group."""

    id: str
    stratum: Hashable
    group: str
    question: str
    answer: str


def exchange(thread: Thread) -> Exchange:
    """The last question of a thread and the expert's answer."""
    return Exchange(thread.id, thread.language, thread.group, thread.prompt[-1].content, thread.expert)


def pick_mismatched(rows: Sequence[Exchange]) -> list[int | None]:
    """For each row the index of another one of its stratum, with another group, question and answer (by their words).

    The one whose answer is nearest in length (characters), ties by id; None where there is none.
    """
    keyed = [(row, languages.split_words(row.question), languages.split_words(row.answer)) for row in rows]
    found: list[int | None] = []
    for row, question, answer in keyed:
        length = len(row.answer)
        candidates = [
            (abs(len(other.answer) - length), other.id, place)
            for place, (other, q, a) in enumerate(keyed)
            if other.stratum == row.stratum and other.group != row.group and q != question and a != answer
        ]
        found.append(min(candidates)[2] if candidates else None)
    return found


def score_language_and_repetition(text: str, code: str) -> tuple[list[float], list[float]]:
    """(whether it is in the language, repetition rate), each as numerator and denominator; [0, 0] under four words."""
    if len(languages.split_words(text)) < MIN_WORDS:
        return [0.0, 0.0], [0.0, 0.0]
    return [float(languages.is_in(text, code)), 1.0], [repetition_rate(text), 1.0]


def score_at_equal_lengths(
    figure: str, items: Sequence[SampleScore], answers: Sequence[Texts], threads: Mapping[str, Thread]
) -> list[list[SampleScore]]:
    """A figure that depends on length, of two models' answers, each pair cut to the words of its shorter one.

    A short answer can hardly repeat itself, change its language, or share words with the expert's. `items` are those of
    one model, `answers` those of the two models by item id. A pair is undecided where its shorter answer is.
    """
    cut: list[list[str]] = [[], []]
    for item in items:
        pair = [texts[item.id] for texts in answers]
        shorter = min(len(languages.split_words(text)) for text in pair)
        for side, text in zip(cut, pair, strict=True):
            side.append(languages.truncate_words(text, shorter))
    if figure in ("chrf_to_expert", "chrf_mismatched"):
        asked = [threads[item.id] for item in items]
        if figure == "chrf_mismatched":  # items are those with a partner, and a partner is one of them
            partners = pick_mismatched([exchange(thread) for thread in asked])
            asked = [asked[partner] for partner in partners if partner is not None]
        values = [_chrf(side, [thread.expert for thread in asked]) for side in cut]
    else:
        place = ("right_language", "repetition").index(figure)
        codes = [item.language for item in items]
        values = [
            [score_language_and_repetition(text, code)[place] for text, code in zip(side, codes, strict=True)]
            for side in cut
        ]
    return [[item.model_copy(update={"values": row}) for item, row in zip(items, side, strict=True)] for side in values]


def repetition_rate(text: str) -> float:
    """Share of a text's word trigrams that occur earlier in it; 0 for a text of fewer than four words."""
    words = languages.split_words(text)
    trigrams = list(zip(words, words[1:], words[2:], strict=False))
    return 1 - len(set(trigrams)) / len(trigrams) if len(trigrams) > 1 else 0.0


def is_question(text: str) -> bool:
    """Whether there is a question mark after a text's last letter or digit; quotes or a smiley may follow.

    In Greek text `;` is a question mark.
    """
    last = max((place for place, character in enumerate(text) if character.isalnum()), default=-1)
    marks = f"{_QUESTION_MARKS};" if any("\u0370" <= c <= "\u03ff" for c in text) else _QUESTION_MARKS
    return any(character in marks for character in text[last + 1 :])


def find_medoid(answers: Sequence[str]) -> str:
    """The answer most similar to all others by mean chrF++: the best single answer to every question.

    Of the first 100 distinct ones; ties go to the first.
    """
    distinct = list(dict.fromkeys(answers))[:MEDOID_OF]
    return max(distinct, key=lambda text: sum(overlap.sentence_chrf(text, other) for other in distinct))


def _normalized(text: str) -> str:
    return " ".join(languages.split_words(text)) or text.strip()
