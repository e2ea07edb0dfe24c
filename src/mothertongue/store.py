"""What models said, kept outside DVC's outputs: one content-addressed SQLite file for all workspaces of a user.

DVC deletes a stage's outputs before it runs. Because every call is kept here, a killed stage resumes, and a changed one
asks only for what is new.
"""

import hashlib
import json
import os
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import platformdirs
from tqdm import tqdm

from mothertongue.errors import BadInput

VARIABLE = "MOTHERTONGUE_STORE"
DAMAGED = "the file is damaged: move it away, and what it held is asked again"

SCHEMA = """
create table if not exists samples (key blob primary key, value text not null) without rowid;
create table if not exists calls
    (at text not null, label text not null, found integer not null, asked integer not null);
"""


def folder() -> Path:
    """Where the store lies: the folder that MOTHERTONGUE_STORE names, else the user's cache folder."""
    named = os.environ.get(VARIABLE)
    try:
        # A shell leaves `~` as it stands in quotes, in a .env file and after `env`.
        return Path(named).expanduser() if named else Path(platformdirs.user_cache_dir("mothertongue", appauthor=False))
    except RuntimeError as error:  # `~somebody` who is not there
        raise BadInput(f"{VARIABLE}: {named}: {error}; set it to a folder") from error


class Store:
    """Answers by key. Safe to kill at any moment, and to share between processes."""

    def __init__(self, where: Path | None = None) -> None:
        self.path = path = (where or folder()) / "samples.sqlite"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(path, timeout=60)
            # WAL: a killed writer leaves the last commit, whole. NORMAL: no fsync per commit; a power cut may lose the
            # newest commits, never the file.
            self._db.execute("pragma journal_mode = wal")
            self._db.execute("pragma synchronous = normal")
            self._db.executescript(SCHEMA)
        except (OSError, ValueError, sqlite3.Error) as error:
            raise self._unusable("opened", error, f"set {VARIABLE} to a folder") from error

    def answered(
        self,
        identity: Mapping[str, str],
        requests: Sequence[Any],
        ask: Callable[[Sequence[Any]], Sequence[Any]],
        batch: Callable[[], int],
        label: str,
    ) -> list[Any]:
        """The answer to each request (a dataclass), in order, as JSON gives it back; `ask` is for what is missing.

        Missing requests are asked in batches of `batch()`, in order, and each batch is committed whole: a run that was
        killed goes on with just the batches that an undisturbed run would have asked. Prints how many were found.
        """
        keys = _keys(identity, requests)
        values = self._found(keys)
        missing = {key: request for key, request in zip(keys, requests, strict=True) if key not in values}
        found = len(requests) - sum(key in missing for key in keys)
        self._note(label, found, 0)
        todo = list(missing)
        if todo:
            size = batch()
            with tqdm(total=len(todo), desc=label, unit="call", mininterval=1) as bar:
                for start in range(0, len(todo), size):
                    part = todo[start : start + size]
                    self._note(label, 0, len(part))
                    answers = ask([missing[key] for key in part])
                    fresh = {
                        key: json.dumps(answer if isinstance(answer, list) else asdict(answer))
                        for key, answer in zip(part, answers, strict=True)
                    }
                    self._keep(fresh)
                    values |= self._found(part)  # which another process may have kept first
                    bar.update(len(part))
        alike = len(requests) - found - len(todo)
        share = found / len(requests) if requests else 1.0
        click.echo(
            f"{label}: {len(requests)} calls, {found} found in the sample store ({share:.0%}), {len(todo)} asked"
            + (f", {alike} equal to one of those" if alike else "")
        )
        return [values[key] for key in keys]

    def calls(self) -> list[tuple[str, int, int]]:
        """(label, found, asked) in total for each label; a batch counts as asked from the moment before it is."""
        rows = self._read("select label, sum(found), sum(asked) from calls group by label order by label")
        return [(str(label), int(found), int(asked)) for label, found, asked in rows]

    def _found(self, keys: Sequence[bytes]) -> dict[bytes, Any]:
        query = "select value from samples where key = ?"
        rows = ((key, self._read(query, key)) for key in dict.fromkeys(keys))
        try:
            return {key: json.loads(row[0][0]) for key, row in rows if row}
        except ValueError as error:
            raise self._unusable("read", error, DAMAGED) from error

    def _read(self, query: str, *values: bytes) -> list[tuple[Any, ...]]:
        try:
            return self._db.execute(query, values).fetchall()
        except sqlite3.Error as error:
            raise self._unusable("read", error, "mend what hinders it and run again") from error

    def _keep(self, values: Mapping[bytes, str]) -> None:
        self._write("insert or ignore into samples values (?, ?)", sorted(values.items()))

    def _note(self, label: str, found: int, asked: int) -> None:
        at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        self._write("insert into calls values (?, ?, ?, ?)", [(at, label, found, asked)])

    def _write(self, statement: str, rows: Sequence[tuple[Any, ...]]) -> None:
        """All rows or none."""
        try:
            with self._db:
                self._db.executemany(statement, rows)
        except sqlite3.Error as error:
            raise self._unusable("written", error, "make room and run again") from error

    def _unusable(self, what: str, error: Exception, remedy: str) -> BadInput:
        damaged = getattr(error, "sqlite_errorcode", None) in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
        return BadInput(f"{self.path}: the sample store cannot be {what} ({error}); {DAMAGED if damaged else remedy}")


def _keys(identity: Mapping[str, str], requests: Sequence[Any]) -> list[bytes]:
    """SHA-256 of who is asked (weights, chat, engine, dtype) and all of what is asked."""
    who = hashlib.sha256(json.dumps(identity, sort_keys=True).encode())
    keys = []
    for request in requests:
        what = who.copy()
        what.update(json.dumps([type(request).__name__, asdict(request)], sort_keys=True).encode())
        keys.append(what.digest())
    return keys
