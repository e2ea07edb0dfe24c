"""Blinded sheets on which people choose the better of two answers, and reading them back."""

import csv
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from mothertongue.annotations import AnnotatedItem, Annotation
from mothertongue.errors import BadInput
from mothertongue.files import new_file
from mothertongue.records import Answer, Thread, reference_answer, row_id, unit_hash
from mothertongue.rows import read_lines, write_rows

CHOICES = {"1": 1, "2": 2, "0": 0}


def draw_items(threads: Iterable[Thread], answers: Iterable[Answer], count: int, seed: int) -> list[AnnotatedItem]:
    """`count` random threads with two different answers each, in random order; fewer where there are not so many.

    The expert's answer is one of those to draw from. Threads of split test are left out, because judges are chosen by
    what people say. Only `origins` say who wrote an answer. Raises BadInput where there is no such thread.
    """
    by_thread: dict[str, list[Answer]] = {}
    for answer in answers:
        by_thread.setdefault(answer.thread, []).append(answer)
    found = []
    for thread in threads:
        if thread.split == "test" or thread.id not in by_thread:
            continue
        given = [*by_thread[thread.id], *([reference_answer(thread)] if thread.reference is not None else [])]
        ordered = sorted(given, key=lambda answer: unit_hash(f"{seed} {answer.id}"))
        distinct: dict[str, Answer] = {}
        for answer in ordered:
            distinct.setdefault(" ".join(answer.text.split()), answer)
        if len(different := list(distinct.values())[:2]) == 2:
            texts = [answer.text for answer in different]
            found.append(
                AnnotatedItem(
                    id=f"i{row_id(thread.id, *texts)}",  # a spreadsheet would take digits alone for a number
                    language=thread.language,
                    prompt=thread.prompt,
                    answers=texts,
                    annotations=[],
                    origins=[answer.generator for answer in different],
                )
            )
    if not found:
        raise BadInput(
            "no thread outside split test has two different answers; run stage generated, for a generator more"
        )
    return sorted(found, key=lambda item: unit_hash(f"{seed} {item.id}"))[:count]


def write_sheet(out: Path, items: Sequence[AnnotatedItem]) -> None:
    """Write <out>.html, <out>.tsv and <out>.key.jsonl, which alone has the origins of the answers.

    Raises BadInput where one of them is there already.
    """
    page, table, key = (out.with_name(f"{out.name}.{suffix}") for suffix in ("html", "tsv", "key.jsonl"))
    for path in (page, table, key):
        refuse_existing(path)
    write_rows(key, items)
    with new_file(table) as file:
        file.write(render_tsv(items).encode("utf-8-sig"))  # with a mark by which spreadsheets know UTF-8
    with new_file(page) as file:
        file.write(render_html(items).encode())


def refuse_existing(path: Path) -> None:
    """Raises BadInput: people's work is not written over."""
    if path.exists():
        raise BadInput(f"{path}: is there already; take another name, or delete it")


def render_html(items: Sequence[AnnotatedItem]) -> str:
    """One page that works offline, with the items in it but not their origins."""
    rows = json.dumps([item.model_dump(include={"id", "prompt", "answers"}) for item in items], ensure_ascii=False)
    # No text can end the element that it is in, nor begin a comment there.
    safe = rows.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
    return files("mothertongue").joinpath("sheet.html").read_text(encoding="utf-8").replace("ITEMS", safe, 1)


def render_tsv(items: Sequence[AnnotatedItem]) -> str:
    """The same as a table for a spreadsheet, whose last column is to be filled with 1, 2 or 0."""
    text = io.StringIO()
    # All quoted: csv leaves a bare carriage return as it is, which ends a row.
    writer = csv.writer(text, "excel-tab", lineterminator="\n", quoting=csv.QUOTE_ALL)
    writer.writerow(("id", "question", "first", "second", "preferred"))
    for item in items:
        question = "\n".join(f"{turn.role}: {turn.content}" for turn in item.prompt)
        writer.writerow([item.id, *map(_as_text, (question, *item.answers)), ""])
    return text.getvalue()


def _as_text(cell: str) -> str:
    """A cell that no spreadsheet takes for a formula."""
    return f"'{cell}" if cell.startswith(("=", "+", "-", "@", "\t")) else cell


def read_choices(path: Path, items: Sequence[AnnotatedItem], annotator: str) -> list[AnnotatedItem]:
    """The items for which a table has a choice, annotated. Raises BadInput on a row that is wrong."""
    if not (annotator := annotator.strip()):
        raise BadInput("the annotator's name is empty; give a name or a sign")
    csv.field_size_limit(2**31 - 1)
    text = "\n".join(line for _, line in read_lines(path)) + "\n"
    reader = csv.DictReader(io.StringIO(text, newline=""), dialect="excel-tab", strict=True)
    if not {"id", "preferred"} <= set(reader.fieldnames or ()):
        raise BadInput(f"{path}:1: no columns id and preferred, separated by tabs; save the sheet's table as TSV")
    by_id = {item.id: item for item in items}
    chosen: dict[str, str] = {}
    for row in _read_strictly(reader, path):
        where, identity = f"{path}:{reader.line_num}", row["id"]
        if identity not in by_id:
            raise BadInput(f"{where}: id: no {identity!r} in the sheet; take the table of that sheet")
        if identity in chosen:
            raise BadInput(f"{where}: id: {identity!r} is a duplicate; delete one of them")
        if row["preferred"] is None:
            raise BadInput(
                f"{where}: preferred: no such cell; save the table as TSV with quoted texts, and all its columns"
            )
        if (choice := row["preferred"].strip()) not in ("", *CHOICES):
            raise BadInput(f"{where}: preferred: {choice!r} is none of 1, 2 and 0; fix it, or leave it empty")
        chosen[identity] = choice
    if lost := [identity for identity in by_id if identity not in chosen]:
        raise BadInput(
            f"{path}: no row for {len(lost)} of the sheet's {len(by_id)} items, such as {lost[0]!r}; take the whole"
            " table, with an empty cell where nothing was chosen"
        )
    if not any(chosen.values()):
        raise BadInput(f"{path}: nothing is chosen; write 1, 2 or 0 into column preferred")
    return [
        by_id[identity].model_copy(update={"annotations": [Annotation(annotator=annotator, preferred=CHOICES[choice])]})
        for identity, choice in chosen.items()
        if choice
    ]


def _read_strictly(reader: "csv.DictReader[str]", path: Path) -> Iterator[dict[str, Any]]:
    try:
        yield from reader
    except csv.Error as error:
        raise BadInput(
            f"{path}: after line {reader.line_num}: not TSV ({error}); save the table as TSV with quoted texts"
        ) from error
