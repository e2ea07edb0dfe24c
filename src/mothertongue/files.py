"""Atomic writing: a file or folder is whole under its name, or not there at all."""

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
    what stood at `path` before is untouched.
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

    A leftover of a killed run is removed first, so a torn folder never carries the final name. Raises as `new_file`.
    """
    temporary = path.with_name(f".{path.name}.partial")
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        yield temporary
        shutil.rmtree(path, ignore_errors=True)
        temporary.replace(path)
    except OSError as error:
        if error.errno is None:  # a vendor's own, which is not about writing
            raise
        if (other := Path(str(error.filename or path))) not in (path, *path.parents) and not other.is_relative_to(
            temporary
        ):
            raise BadInput(f"{other}: cannot be used ({error.strerror}); mend it and run again") from error
        raise _unwritable(path, error.strerror or str(error)) from error
    except Exception as error:
        # safetensors has an error of its own: "... No space left on device (os error 28)"
        if number := re.search(r"\(os error (\d+)\)", str(error)):
            raise _unwritable(path, os.strerror(int(number[1]))) from error
        raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def read_settings(path: Path) -> dict[str, Any]:
    """The JSON object in a file of a model's folder. Raises BadInput where it is not there or broken."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadInput(f"{path}: cannot be read ({error.strerror}); take the whole folder of the model") from error
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{path}: not JSON ({' '.join(str(error).split())}); take the model's own file again") from error
    if not isinstance(found, dict):
        raise BadInput(f"{path}: not a JSON object; take the model's own file again")
    return found


def weights_size(folder: Path) -> int:
    """Bytes of a model folder's weights."""
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))


def _unwritable(path: Path, why: str) -> BadInput:
    return BadInput(f"{path}: cannot be written ({why}); make room or mend the folder and run again")
