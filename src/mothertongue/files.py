"""Atomic writing: a file or folder is complete under its name, or not there at all."""

import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from mothertongue.errors import BadInput


@contextmanager
def new_file(path: Path) -> Iterator[IO[bytes]]:
    """Open a temporary neighbour of `path` for writing; on success it takes the name `path`.

    A leftover of a killed run is written over. Raises BadInput when the disk is full or the folder cannot be written;
    what was at `path` before is untouched.
    """
    temporary = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise _unwritable(path, error.strerror or str(error)) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Hand out a temporary neighbour of `path` to fill; on success it takes the name `path`.

    A leftover of a killed run is removed first, so an incomplete folder never has the final name. Raises as `new_file`.
    """
    temporary = path.with_name(f".{path.name}.partial")
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        yield temporary
        shutil.rmtree(path, ignore_errors=True)
        temporary.replace(path)
    except OSError as error:
        if error.errno is None:  # raised by a vendor, and not about writing
            raise
        if (other := Path(str(error.filename or path))) not in (path, *path.parents) and not other.is_relative_to(
            temporary
        ):
            raise BadInput(f"{other}: cannot be used ({error.strerror}); fix that and run again") from error
        raise _unwritable(path, error.strerror or str(error)) from error
    except Exception as error:
        # safetensors has an error of its own: "... No space left on device (os error 28)"
        if number := re.search(r"\(os error (\d+)\)", str(error)):
            raise _unwritable(path, os.strerror(int(number[1]))) from error
        raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


MODEL_FILE = "take the model's own file again"


def read_json_object(path: Path, remedy: str = MODEL_FILE) -> dict[str, Any]:
    """The JSON object in a file. Raises BadInput, which ends in `remedy`, where it is missing or broken."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadInput(f"{path}: cannot be read ({error.strerror}); {remedy}") from error
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{path}: not JSON ({' '.join(str(error).split())}); {remedy}") from error
    if not isinstance(found, dict):
        raise BadInput(f"{path}: not a JSON object; {remedy}")
    return found


def _unwritable(path: Path, why: str) -> BadInput:
    return BadInput(f"{path}: cannot be written ({why}); free some space or fix the folder, and run again")
