"""Results of model calls, kept outside DVC's outputs: one content-addressed SQLite file for all workspaces of a user.

DVC deletes a stage's outputs before it runs. Because every result is kept here, a killed stage resumes, and a changed
one computes only what is new.
"""

import hashlib
import json
import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import platformdirs

from mothertongue import console
from mothertongue.errors import BadInput

VARIABLE = "MOTHERTONGUE_STORE"
DAMAGED = "the file is damaged: move it away, and its results are computed again"

SCHEMA = """
create table if not exists samples (key blob primary key, value text not null) without rowid;
create table if not exists counts
    (at text not null, label text not null, hits integer not null, misses integer not null);
"""


def store_folder() -> Path:
    """The folder that MOTHERTONGUE_STORE names, else the user's cache folder."""
    named = os.environ.get(VARIABLE)
    try:
        # A shell does not expand `~` in quotes, in a .env file and after `env`.
        return Path(named).expanduser() if named else Path(platformdirs.user_cache_dir("mothertongue", appauthor=False))
    except RuntimeError as error:  # `~somebody` who does not exist
        raise BadInput(f"{VARIABLE}: {named}: {error}; set it to a folder") from error


class Store:
    """Results by key. Safe to kill at any moment, and to share between processes."""

    def __init__(self, where: Path | None = None) -> None:
        self.path = path = (where or store_folder()) / "samples.sqlite"
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

    def get_or_compute(
        self,
        identity: Mapping[str, str],
        requests: Sequence[Any],
        compute: Callable[[Sequence[Any]], Sequence[Any]],
        batch: Callable[[], int],
        label: str,
    ) -> list[Any]:
        """The result of each request (a dataclass), in order, as decoded from JSON; `compute` is called for misses.

        Misses are computed in batches of `batch()`, in order, and each batch is committed whole: a run that was killed
        continues with the batches that an undisturbed run would have computed. Prints the numbers of hits and misses.
        """
        keys = _compute_keys(identity, requests)
        values = self._get(keys)
        missing = {key: request for key, request in zip(keys, requests, strict=True) if key not in values}
        hits = len(requests) - sum(key in missing for key in keys)
        self._count(label, hits, 0)
        todo = list(missing)
        if todo:
            size = batch()
            with console.progress(len(todo), label, "call") as bar:
                for start in range(0, len(todo), size):
                    part = todo[start : start + size]
                    self._count(label, 0, len(part))
                    results = compute([missing[key] for key in part])
                    self._put(
                        {
                            key: json.dumps(result if isinstance(result, list) else asdict(result))
                            for key, result in zip(part, results, strict=True)
                        }
                    )
                    values |= self._get(part)  # another process may have been first
                    bar.update(len(part))
        _report(label, len(requests), hits, len(todo))
        return [values[key] for key in keys]

    def get_or_request(
        self,
        identity: Mapping[str, str],
        requests: Sequence[Any],
        stream: Callable[[Sequence[Any]], Iterator[tuple[int, Any]]],
        label: str,
    ) -> list[Any]:
        """As get_or_compute, for answers that come one by one in any order, and each of which costs something.

        `stream` is given the misses, and yields (place, result) of each as it arrives. Each is committed at once, so
        that a killed run asks again only for what was under way. The result of a request that it yields nothing for is
        None, and it is asked again the next time.
        """
        keys = _compute_keys(identity, requests)
        values = self._get(keys)
        missing = {key: request for key, request in zip(keys, requests, strict=True) if key not in values}
        hits = len(requests) - sum(key in missing for key in keys)
        todo = list(missing)
        self._count(label, hits, len(todo))
        with console.progress(len(todo), label, "call") if todo else nullcontext() as bar:
            for place, result in stream(list(missing.values())) if todo else ():
                self._put({todo[place]: json.dumps(result if isinstance(result, dict) else asdict(result))})
                values |= self._get([todo[place]])
                if bar:
                    bar.update(1)
        _report(label, len(requests), hits, len(todo), sum(key not in values for key in todo))
        return [values.get(key) for key in keys]

    def count_calls(self) -> list[tuple[str, int, int]]:
        """(label, hits, misses) in total for each label; a batch counts as soon as its computation starts."""
        rows = self._read("select label, sum(hits), sum(misses) from counts group by label order by label")
        return [(str(label), int(hits), int(misses)) for label, hits, misses in rows]

    def _get(self, keys: Sequence[bytes]) -> dict[bytes, Any]:
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
            raise self._unusable("read", error, "fix that and run again") from error

    def _put(self, values: Mapping[bytes, str]) -> None:
        self._write("insert or ignore into samples values (?, ?)", sorted(values.items()))

    def _count(self, label: str, hits: int, misses: int) -> None:
        at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        self._write("insert into counts values (?, ?, ?, ?)", [(at, label, hits, misses)])

    def _write(self, statement: str, rows: Sequence[tuple[Any, ...]]) -> None:
        """All rows or none."""
        try:
            with self._db:
                self._db.executemany(statement, rows)
        except sqlite3.Error as error:
            raise self._unusable("written", error, "free some space and run again") from error

    def _unusable(self, what: str, error: Exception, remedy: str) -> BadInput:
        damaged = getattr(error, "sqlite_errorcode", None) in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
        return BadInput(f"{self.path}: the sample store cannot be {what} ({error}); {DAMAGED if damaged else remedy}")


def _report(label: str, requests: int, hits: int, misses: int, refused: int = 0) -> None:
    duplicates = requests - hits - misses
    share = hits / requests if requests else 1.0
    console.say(
        f"{label}: {requests} calls, {hits} hits in the sample store ({share:.0%}), {misses} misses"
        + (f", {duplicates} duplicates" if duplicates else "")
        + (f", {refused} refused by the server" if refused else "")
    )


def _compute_keys(identity: Mapping[str, str], requests: Sequence[Any]) -> list[bytes]:
    """SHA-256 of the model's identity (weights, chat, engine, dtype) and of the whole request."""
    who = hashlib.sha256(json.dumps(identity, sort_keys=True).encode())
    keys = []
    for request in requests:
        what = who.copy()
        what.update(json.dumps([type(request).__name__, asdict(request)], sort_keys=True).encode())
        keys.append(what.digest())
    return keys
