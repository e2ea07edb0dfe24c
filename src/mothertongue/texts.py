"""What can be read off answers: their language, repetition, length, questions, and likeness to the expert's."""

from collections import Counter
from collections.abc import Mapping, Sequence

from mothertongue import languages, overlap
from mothertongue.records import Item, Thread

MIN_WORDS = 4  # under it the detector guesses, and no trigram can stand twice
CONFOUNDED = ("right_language", "repetition", "chrf_to_expert")  # with length
MEDOID_OF = 100  # training answers among which the trivial one is looked for: the search is quadratic
Said = Mapping[str, str]

_QUESTION_MARKS = "?？؟⸮՞፧\u037e"


def items(threads: Sequence[Thread], said: Sequence[str], code: str) -> list[Item]:
    """Items of the language suite's figures, `finished` aside, for one answer a thread.

    Answers under four words are undecided: `right_language` and `repetition` have no value there ([0, 0]).
    """
    times = Counter(map(_flat, said))
    others = mismatched(threads)
    chrf = overlap.statistics("chrf", said, [thread.reference for thread in threads], code)
    control = overlap.statistics("chrf", said, [(o or t).reference for o, t in zip(others, threads, strict=True)], code)
    found = []
    for thread, text, row, other, unlike in zip(threads, said, chrf, others, control, strict=True):
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
        } | ({"chrf_mismatched": unlike} if other else {})
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


def mismatched(threads: Sequence[Thread]) -> list[Thread | None]:
    """For each thread another of another group and another last question, whose expert says something else.

    The one whose answer is nearest in length (characters), ties by id; None where there is none.
    """
    spoken = [(t, languages.words(t.prompt[-1].content), languages.words(t.reference)) for t in threads]
    found: list[Thread | None] = []
    for thread, question, answer in spoken:
        length = len(thread.reference)
        candidates = [o for o, q, a in spoken if o.group != thread.group and q != question and a != answer]
        nearest = min(candidates, key=lambda o: (abs(len(o.reference) - length), o.id), default=None)
        found.append(nearest)
    return found


def readings(text: str, code: str) -> tuple[list[float], list[float]]:
    """(is it in the language, its repetition), each as numerator and denominator; [0, 0] under four words."""
    if len(languages.words(text)) < MIN_WORDS:
        return [0.0, 0.0], [0.0, 0.0]
    return [float(languages.is_in(text, code)), 1.0], [repetition(text), 1.0]


def at_like_lengths(
    figure: str, items: Sequence[Item], said: Sequence[Said], threads: Mapping[str, Thread], code: str
) -> list[list[Item]]:
    """A figure that depends on length, of two models' answers, each pair cut to the words of its shorter one.

    A short answer has little room to repeat itself, to change its language, or to say what the expert says. `items` are
    those of one model, `said` what each of the two said, by item id. A pair is undecided where its shorter answer is.
    """
    cut: list[list[str]] = [[], []]
    for item in items:
        pair = [texts[item.id] for texts in said]
        shorter = min(len(languages.words(text)) for text in pair)
        for side, text in zip(cut, pair, strict=True):
            side.append(languages.first_words(text, shorter))
    if figure == "chrf_to_expert":
        references = [threads[item.id].reference for item in items]
        values = [overlap.statistics("chrf", side, references, code) for side in cut]
    else:
        place = ("right_language", "repetition").index(figure)
        values = [[readings(text, code)[place] for text in side] for side in cut]
    return [[item.model_copy(update={"values": row}) for item, row in zip(items, side, strict=True)] for side in values]


def repetition(text: str) -> float:
    """Share of a text's word trigrams that stood in it before; 0 for a text of fewer than four words."""
    words = languages.words(text)
    trigrams = list(zip(words, words[1:], words[2:], strict=False))
    return 1 - len(set(trigrams)) / len(trigrams) if len(trigrams) > 1 else 0.0


def is_question(text: str) -> bool:
    """Whether a question mark stands after a text's last letter or digit, whatever else is there: quotes, a smiley.

    Where the text is Greek its `;` is one.
    """
    last = max((place for place, character in enumerate(text) if character.isalnum()), default=-1)
    marks = f"{_QUESTION_MARKS};" if any("\u0370" <= c <= "\u03ff" for c in text) else _QUESTION_MARKS
    return any(character in marks for character in text[last + 1 :])


def medoid(answers: Sequence[str]) -> str:
    """The answer that is likest to all others by mean chrF++: the best that one same answer to everything can do.

    Looks at the first 100 distinct ones. Ties go to the first.
    """
    distinct = list(dict.fromkeys(answers))[:MEDOID_OF]
    return max(distinct, key=lambda text: sum(overlap.sentence_chrf(text, other) for other in distinct))


def _flat(text: str) -> str:
    return " ".join(languages.words(text)) or text.strip()
