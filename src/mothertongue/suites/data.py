"""What suites are measured on: held-out threads and pairs, benchmark questions and parallel sentences."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from mothertongue import languages
from mothertongue.params import Threads
from mothertongue.records import Pair, Split, Thread
from mothertongue.rows import NonBlank, Row, read_rows
from mothertongue.threads import select_split


def _distinct(choices: list[str]) -> list[str]:
    if len({choice.strip() for choice in choices}) < len(choices):
        raise PydanticCustomError("choices", "no two choices should be equal")
    return choices


def _known(code: str) -> str:
    if code not in languages.NAMES:
        raise PydanticCustomError("language", "input should be the code of a known language, such as 'es'")
    return code


Language = Annotated[str, AfterValidator(_known)]


class Question(Row):
    """A question with four choices; `answer` is the index of the right one, from 0."""

    id: str
    language: Language
    topic: str
    question: NonBlank
    choices: Annotated[list[NonBlank], Field(min_length=4, max_length=4), AfterValidator(_distinct)]
    answer: Annotated[int, Field(ge=0, le=3)]


def _with_english(text: dict[str, str]) -> dict[str, str]:
    if "en" not in text:
        raise PydanticCustomError("english", "the sentence should be there in English ('en'), too")
    return text


class Sentence(Row):
    """A sentence in several languages, by code."""

    id: str
    text: Annotated[dict[Language, NonBlank], AfterValidator(_with_english)]


def read_questions(path: Path, codes: Sequence[str]) -> list[Question]:
    """The questions in these languages."""
    return [row for row in read_rows(path, Question) if row.language in codes]


def read_sentences(path: Path, codes: Sequence[str]) -> list[Sentence]:
    """Parallel sentences, `{"id": ..., "text": {"en": ..., "es": ...}}` a row, in these languages and English."""
    found = []
    for row in read_rows(path, Sentence):
        text = {code: row.text[code] for code in row.text if code == "en" or code in codes}
        if len(text) > 1:
            found.append(Sentence(id=row.id, text=text))
    return found


@dataclass(frozen=True, slots=True)
class HeldOut:
    """The rows of one split that suites are measured on, in all languages of params.yaml."""

    threads: Sequence[Thread]
    pairs: Sequence[Pair]
    questions: Sequence[Question]
    sentences: Sequence[Sentence]


def read_held_out(data: Path, codes: Sequence[str], params: Threads, split: Split) -> HeldOut:
    """The rows of one held-out split in the files of the folder `data`."""
    return HeldOut(
        threads=[row for row in read_rows(data / "threads.jsonl", Thread) if row.split == split],
        pairs=[row for row in read_rows(data / "pairs.jsonl", Pair) if row.split == split],
        questions=select_split(read_questions(data / "suites/benchmark.jsonl", codes), params, split),
        sentences=select_split(read_sentences(data / "suites/translation.jsonl", codes), params, split),
    )
