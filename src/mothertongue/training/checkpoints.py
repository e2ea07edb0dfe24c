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

ENDED = "ended"  # the file that marks a training which is over
KEPT = "kept-"  # a checkpoint that is complete; the trainer's own name for one that it writes is checkpoint-<update>


class Checkpoints:
    """The checkpoints of one training, in a folder that is named by all that the training depends on."""

    def __init__(self, where: Path, *parts: object) -> None:
        digest = hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:16]
        self.folder = where / "training" / digest

    @contextmanager
    def used(self) -> Iterator[Path | None]:
        """Hand out the last checkpoint, and keep the folder for this process.

        What a killed one left half-written is removed, and the folders of other trainings that have ended.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise BadInput(
                    f"{self.folder}: another process trains the same step with the same data; wait for it, or stop it"
                ) from error
            (self.folder / ENDED).unlink(missing_ok=True)
            for path in [*self.folder.glob("checkpoint-*"), *(path.parent for path in self._find_ended())]:
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

    def end(self) -> None:
        """Leave the folder to the next training, which removes it.

        A run that is killed before DVC has recorded its outputs loses them, and goes on from the last checkpoint.
        """
        (self.folder / ENDED).touch()

    def _find_ended(self) -> list[Path]:
        return list(self.folder.parent.glob(f"*/{ENDED}"))


def _update(path: Path) -> int:
    return int(path.name.removeprefix(KEPT))


def digest_rows(rows: Sequence[Any]) -> str:
    """SHA-256 of rows."""
    whole = hashlib.sha256()
    for row in rows:
        whole.update(row.model_dump_json().encode() + b"\n")
    return whole.hexdigest()
