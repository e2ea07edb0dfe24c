"""Typed rows: what all of them share, and reading and writing them as JSON lines."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError
from pydantic_core import PydanticCustomError

from mothertongue.errors import BadInput
from mothertongue.files import new_file


class Row(BaseModel):
    """Base of all rows: no unknown field, no silent conversion, no change after reading, no NaN."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", allow_inf_nan=False)
    joined: ClassVar[bool] = True  # by id, so an id may be there only once


def _not_blank(text: str) -> str:
    if not text.strip():
        raise PydanticCustomError("blank", "there should be text")
    return text


NonBlank = Annotated[str, AfterValidator(_not_blank)]  # neither empty nor only white space

R = TypeVar("R", bound=Row)


def read_lines(path: Path) -> Iterable[tuple[int, str]]:
    """Numbered lines of a UTF-8 text file, without their line ends. Raises BadInput on bytes that are not UTF-8."""
    try:
        file = path.open("rb")
    except OSError as error:
        raise BadInput(
            f"{path}: cannot be read ({error.strerror}); put it there, or run the stage that makes it"
        ) from error
    with file:
        for number, line in enumerate(file, start=1):
            try:
                # A byte order mark is no part of the first line.
                yield number, line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
            except UnicodeDecodeError as error:
                raise BadInput(
                    f"{path}:{number}: not UTF-8 (byte 0x{line[error.start]:02x} at position {error.start + 1});"
                    " save the file as UTF-8"
                ) from error


def read_objects(path: Path) -> Iterable[tuple[int, dict[str, object]]]:
    """Numbered JSON objects of a JSONL file, empty lines left out. Raises BadInput on a line that is not one."""
    for number, line in read_lines(path):
        if not line.strip():
            continue
        try:
            value = json.loads(line, object_pairs_hook=_once)
            json.dumps(value, ensure_ascii=False).encode()
        except KeyError as error:
            raise BadInput(f"{path}:{number}: {error.args[0]}: twice in one object; delete one") from error
        except UnicodeEncodeError as error:
            raise BadInput(
                f"{path}:{number}: half a character (\\u{ord(error.object[error.start]):04x} without its other half);"
                " write the whole character or delete it"
            ) from error
        except json.JSONDecodeError as error:
            raise BadInput(
                f"{path}:{number}: not JSON ({error.msg} at character {error.pos + 1}); fix or delete the line"
            ) from error
        except (ValueError, RecursionError) as error:
            raise BadInput(f"{path}:{number}: too large a number or too deep a nesting; delete the line") from error
        if not isinstance(value, dict):
            raise BadInput(f"{path}:{number}: not a JSON object; write one object per line")
        yield number, value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON. Raises KeyError on a duplicate key, of which json would keep the last in silence."""
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise KeyError(key)
        found[key] = value
    return found


def read_rows(path: Path, kind: type[R]) -> list[R]:
    """All rows of a JSONL file. Raises BadInput as `file:line: field: what is wrong; what to do`."""
    rows: list[R] = []
    lines: dict[str, int] = {}
    for number, value in read_objects(path):
        rows.append(row := parse(kind, value, f"{path}:{number}"))
        if kind.joined and (before := lines.setdefault(row.id, number)) != number:  # type: ignore[attr-defined]
            raise BadInput(f"{path}:{number}: id: {value['id']!r} is a duplicate of line {before}; delete one of them")
    return rows


def read_folder(folder: Path, names: Iterable[str], kind: type[R]) -> list[R]:
    """The rows of <name>.jsonl of each name, one file after the other. Raises as `read_rows`."""
    return [row for name in names for row in read_rows(folder / f"{name}.jsonl", kind)]


def parse(kind: type[R], value: object, where: str) -> R:
    """Check one row. Raises BadInput as `where: field: what is wrong; what to do`."""
    try:
        return kind.model_validate_json(json.dumps(value, default=str))  # data sets hold dates, too
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "row"
        if first["type"] == "missing":
            what = "missing; add it"
        elif first["type"] == "extra_forbidden":
            what = "unknown field; remove it"
        else:
            what = f"{first['msg'][0].lower()}{first['msg'][1:]}, got {json.dumps(first['input'])[:60]}; fix the row"
        raise BadInput(f"{where}: {field}: {what}") from error


def write_rows(path: Path, rows: Iterable[Row], key: str = "id") -> None:
    """Write rows as JSONL, sorted by `key`, atomically. Raises BadInput when the disk is full."""
    ordered = sorted(rows, key=lambda row: str(getattr(row, key)))
    with new_file(path) as file:
        file.writelines(row.model_dump_json().encode() + b"\n" for row in ordered)


def write_json(path: Path, value: object) -> None:
    """Write one JSON document, keys sorted, atomically. Raises BadInput when the disk is full."""
    with new_file(path) as file:
        text = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
        file.write(text.encode() + b"\n")


def index_by_id(rows: Sequence[R]) -> dict[str, R]:
    """Rows under their id, to join by."""
    return {row.id: row for row in rows}  # type: ignore[attr-defined]
