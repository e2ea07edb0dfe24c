"""Checkpoints of a training step, kept outside DVC's outputs, which DVC deletes before a stage runs."""

import fcntl
import hashlib
import json
import math
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mothertongue.errors import BadInput

KEPT = "kept-"  # a checkpoint that is complete; the trainer's own name for one that it writes is checkpoint-<update>


class Checkpoints:
    """The checkpoints of one training, in a folder that is named by all that the training depends on."""

    def __init__(self, where: Path, *parts: object) -> None:
        digest = hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:16]
        self.folder = where / "training" / digest

    @contextmanager
    def used(self) -> Iterator[Path | None]:
        """Hand out the last checkpoint, and keep the folder for this process; what a killed one left is removed."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise BadInput(
                    f"{self.folder}: another process trains the same step with the same data; wait for it, or stop it"
                ) from error
            for path in self.folder.glob("checkpoint-*"):
                shutil.rmtree(path)
            yield self.last()

    def last(self, until: float = math.inf) -> Path | None:
        """The newest complete checkpoint, or the newest of an update up to `until`."""
        return max((path for path in self._all() if _update(path) <= until), key=_update, default=None)

    def keep(self, update: int, sound: int) -> None:
        """Name the checkpoint of an update as complete, and remove those before it but the newest one up to `sound`.

        That is the update of the last evaluation which found nothing wrong: what came after it may be broken already.
        """
        (self.folder / f"checkpoint-{update}").rename(self.folder / f"{KEPT}{update}")
        kept = {self.last(), self.last(sound)}
        for path in self._all():
            if path not in kept:
                shutil.rmtree(path)

    def _all(self) -> list[Path]:
        return list(self.folder.glob(f"{KEPT}*"))

    def remove(self) -> None:
        """Remove the folder: what was learned is in its output now."""
        shutil.rmtree(self.folder)


def _update(path: Path) -> int:
    return int(path.name.removeprefix(KEPT))


def digest_rows(rows: Sequence[Any]) -> str:
    """SHA-256 of rows."""
    whole = hashlib.sha256()
    for row in rows:
        whole.update(row.model_dump_json().encode() + b"\n")
    return whole.hexdigest()
