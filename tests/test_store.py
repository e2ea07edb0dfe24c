"""The sample store: hits and misses, kills, several processes, and a damaged file."""

import multiprocessing
import secrets
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, replace
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest

from mothertongue import store
from mothertongue.errors import BadInput
from mothertongue.sampling import Completion, Generation, LogLikelihood, NextTokenLogprobs, derive_seed
from mothertongue.store import Store

WHO = {"weights": "w", "chat": "c", "engine": "e 1", "dtype": "float32"}


def request(number: int) -> Generation:
    return Generation(prompt=(1, number), max_tokens=8, temperature=0.7, top_p=0.9, seed=number, index=0)


class Killed(Exception):
    pass


@dataclass
class Model:
    """Answers a prompt with its number, keeps each batch, and may be killed in the middle of one."""

    batches: list[list[int]]
    killed_in: int | None = None

    def ask(self, part: Sequence[Generation]) -> list[Completion]:
        self.batches.append([r.prompt[1] for r in part])
        if len(self.batches) - 1 == self.killed_in:
            raise Killed
        return [Completion(text=f"ñ {r.prompt[1]}", tokens=1, finish="stop") for r in part]


def answered(
    where: Store, numbers: Sequence[int], model: Model, who: dict[str, str] = WHO, batch: int = 3, label: str = "test"
) -> list[str]:
    found = where.get_or_compute(who, [request(number) for number in numbers], model.ask, lambda: batch, label)
    return [value["text"] for value in found]


def test_only_misses_are_computed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = Model([])
    assert answered(Store(tmp_path), range(7), model) == [f"ñ {n}" for n in range(7)]
    assert model.batches == [[0, 1, 2], [3, 4, 5], [6]]
    assert capsys.readouterr().out == "test: 7 calls, 0 hits in the sample store (0%), 7 misses\n"

    model = Model([])
    assert answered(Store(tmp_path), [8, 3, 7, 0], model) == ["ñ 8", "ñ 3", "ñ 7", "ñ 0"]
    assert model.batches == [[8, 7]]
    assert capsys.readouterr().out == "test: 4 calls, 2 hits in the sample store (50%), 2 misses\n"

    model = Model([])
    assert answered(Store(tmp_path), range(9), model) == [f"ñ {n}" for n in range(9)]
    assert model.batches == []
    assert capsys.readouterr().out == "test: 9 calls, 9 hits in the sample store (100%), 0 misses\n"
    assert Store(tmp_path).count_calls() == [("test", 11, 9)]


def test_no_requests_load_no_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def batch() -> int:
        raise AssertionError("the model was loaded for nothing")

    assert Store(tmp_path).get_or_compute(WHO, [], Model([]).ask, batch, "test") == []
    assert capsys.readouterr().out == "test: 0 calls, 0 hits in the sample store (100%), 0 misses\n"


def test_duplicate_requests_are_computed_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = Model([])
    assert answered(Store(tmp_path), [5, 6, 5, 5], model) == ["ñ 5", "ñ 6", "ñ 5", "ñ 5"]
    assert model.batches == [[5, 6]]
    assert capsys.readouterr().out == "test: 4 calls, 0 hits in the sample store (0%), 2 misses, 2 duplicates\n"


def test_a_kill_loses_only_the_batch_that_was_being_computed(tmp_path: Path) -> None:
    killed = Model([], killed_in=2)
    with pytest.raises(Killed):
        answered(Store(tmp_path), range(10), killed)
    resumed = Model([])
    found = answered(Store(tmp_path), range(10), resumed)
    assert found == [f"ñ {n}" for n in range(10)]
    # the batches of an undisturbed run, one of them twice
    undisturbed = Model([])
    answered(Store(tmp_path / "other"), range(10), undisturbed)
    assert killed.batches + resumed.batches == [
        *undisturbed.batches[:2], undisturbed.batches[2], *undisturbed.batches[2:]
    ]  # fmt: skip
    assert Store(tmp_path).count_calls() == [("test", 6, 13)]


def test_a_batch_with_too_few_results_is_not_stored(tmp_path: Path) -> None:
    where = Store(tmp_path)
    model = Model([])

    def incomplete(part: Sequence[Generation]) -> list[Completion]:
        return model.ask(part)[:-1]

    with pytest.raises(ValueError, match="zip"):
        where.get_or_compute(WHO, [request(n) for n in range(3)], incomplete, lambda: 3, "test")
    assert answered(Store(tmp_path), range(3), model) == ["ñ 0", "ñ 1", "ñ 2"]
    assert model.batches == [[0, 1, 2], [0, 1, 2]]


ASKED = request(1)


@pytest.mark.parametrize(
    ("who", "what"),
    [
        *(({**WHO, name: "other"}, ASKED) for name in WHO),
        ({**WHO, "level": "nf4"}, ASKED),
        (WHO, replace(ASKED, prompt=(1, 2))),
        (WHO, replace(ASKED, prompt=(1, 1, 1))),
        (WHO, replace(ASKED, max_tokens=9)),
        (WHO, replace(ASKED, temperature=0.8)),
        (WHO, replace(ASKED, top_p=1.0)),
        (WHO, replace(ASKED, seed=2)),
        (WHO, replace(ASKED, index=1)),
        (WHO, NextTokenLogprobs(prompt=(1, 1), options=(2,))),
        (WHO, LogLikelihood(prompt=(1, 1), continuation=(2,))),
    ],
)
def test_a_request_or_identity_that_differs_is_a_miss(
    tmp_path: Path, who: dict[str, str], what: Generation | NextTokenLogprobs | LogLikelihood
) -> None:
    where = Store(tmp_path)
    asked: list[object] = []

    def ask(part: Sequence[object]) -> list[list[float]]:
        asked.extend(part)
        return [[0.5]] * len(part)

    where.get_or_compute(WHO, [ASKED], ask, lambda: 1, "test")
    where.get_or_compute(who, [what], ask, lambda: 1, "test")
    assert asked == [ASKED, what]
    where.get_or_compute(dict(reversed(who.items())), [replace(what)], ask, lambda: 1, "test")
    assert len(asked) == 2


def test_requests_of_two_classes_with_equal_values_differ(tmp_path: Path) -> None:
    alike = [NextTokenLogprobs(prompt=(1,), options=(2,)), LogLikelihood(prompt=(1,), continuation=(2,))]
    asked: list[object] = []

    def ask(part: Sequence[object]) -> list[list[float]]:
        asked.extend(part)
        return [[0.5]] * len(part)

    Store(tmp_path).get_or_compute(WHO, alike, ask, lambda: 2, "test")
    assert asked == alike


def test_numbers_are_stored_to_the_last_bit(tmp_path: Path) -> None:
    logs = [-0.1, -1 / 3, -1e-17, -123.456789012345678]
    first, again = (
        Store(tmp_path).get_or_compute(WHO, [ASKED], lambda _: [logs], lambda: 1, "test")[0] for _ in range(2)
    )
    assert first == again == logs


def test_two_connections_share_their_results(tmp_path: Path) -> None:
    one, two = Store(tmp_path), Store(tmp_path)
    first, second = Model([]), Model([])
    answered(one, [1, 2], first)
    answered(two, [2, 3], second)
    answered(one, [1, 2, 3], first)
    assert (first.batches, second.batches) == ([[1, 2]], [[3]])


def test_one_connection_writes_while_another_computes(tmp_path: Path) -> None:
    one, two = Store(tmp_path), Store(tmp_path)
    inner = Model([])

    def ask(part: Sequence[Generation]) -> list[Completion]:
        answered(two, [r.prompt[1] for r in part], inner)
        return Model([]).ask(part)

    found = one.get_or_compute(WHO, [request(n) for n in range(6)], ask, lambda: 2, "test")
    assert [value["text"] for value in found] == [f"ñ {n}" for n in range(6)]
    assert inner.batches == [[0, 1], [2, 3], [4, 5]]


def compute_with_others(folder: Path, number: int, barrier: Barrier, outputs: "Queue[list[str]]") -> None:
    """A process whose model computes a batch only when all others have reached it, with results of its own."""

    def ask(part: Sequence[Generation]) -> list[Completion]:
        barrier.wait(timeout=300)
        return [Completion(text=f"{number} {secrets.token_hex(8)}", tokens=1, finish="stop") for _ in part]

    found = Store(folder).get_or_compute(WHO, [request(n) for n in (*range(10), 3)], ask, lambda: 3, "test")
    outputs.put([value["text"] for value in found])


def test_eight_processes_return_what_is_in_the_store(tmp_path: Path) -> None:
    spawn, n = multiprocessing.get_context("spawn"), 8
    barrier, outputs = spawn.Barrier(n), spawn.Queue()
    processes = [spawn.Process(target=compute_with_others, args=(tmp_path, i, barrier, outputs)) for i in range(n)]
    for process in processes:
        process.start()
    found = [outputs.get(timeout=300) for _ in processes]
    for process in processes:
        process.join()
    kept = answered(Store(tmp_path), [*range(10), 3], Model([]))
    assert found == [kept] * n
    assert len(set(kept)) == 10
    assert Store(tmp_path).count_calls() == [("test", 11, n * 10)]  # each computes everything


@pytest.fixture
def connections(monkeypatch: pytest.MonkeyPatch) -> list[sqlite3.Connection]:
    """The connections that stores open, in order."""
    opened: list[sqlite3.Connection] = []
    connect = sqlite3.connect

    def keep(path: Path, timeout: float) -> sqlite3.Connection:
        opened.append(connect(path, timeout=timeout))
        return opened[-1]

    monkeypatch.setattr(store.sqlite3, "connect", keep)
    return opened


def test_a_full_disk(tmp_path: Path, connections: list[sqlite3.Connection]) -> None:
    where = Store(tmp_path)
    answered(where, [1], Model([]))
    pages = connections[0].execute("pragma page_count").fetchone()[0]
    connections[0].execute(f"pragma max_page_count = {pages}")  # as if the disk had no more pages
    with pytest.raises(BadInput) as caught:
        answered(where, range(2, 500), Model([]), batch=500)
    assert caught.value.message == (
        f"{tmp_path}/samples.sqlite: the sample store cannot be written (database or disk is full);"
        " free some space and run again"
    )
    model = Model([])
    assert answered(Store(tmp_path), [1, 2], model) == ["ñ 1", "ñ 2"]
    assert model.batches == [[2]]


TO_A_FOLDER = "set MOTHERTONGUE_STORE to a folder"
DAMAGED = "the file is damaged: move it away, and its results are computed again"


def test_a_store_that_cannot_be_opened(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("a file")
    (tmp_path / "samples.sqlite").write_text("a text that is as long as the header of a database, and more")
    for folder, why, remedy in (
        (tmp_path / "file", f"[Errno 17] File exists: '{tmp_path}/file'", TO_A_FOLDER),
        (tmp_path, "file is not a database", DAMAGED),
    ):
        with pytest.raises(BadInput) as caught:
            Store(folder)
        assert caught.value.message == (f"{folder}/samples.sqlite: the sample store cannot be opened ({why}); {remedy}")


def damage(folder: Path, page: int) -> Path:
    """A store of a few hundred results, with one of its pages of 4096 bytes overwritten."""
    answered(Store(folder), range(400), Model([]), batch=400)
    path = folder / "samples.sqlite"
    with sqlite3.connect(path) as database:
        database.execute("pragma wal_checkpoint(truncate)")
    database.close()
    with path.open("r+b") as file:
        file.seek((page - 1) * 4096 + (100 if page == 1 else 0))  # what follows the header
        file.write(b"\xff" * 2048)
    return path


@pytest.mark.parametrize(
    ("page", "what"),
    [(1, "opened"), (2, "read"), (3, "written")],  # the schema, and the first pages of samples and counts
)
def test_a_damaged_page(tmp_path: Path, page: int, what: str) -> None:
    path = damage(tmp_path, page)
    model = Model([])
    with pytest.raises(BadInput) as caught:
        answered(Store(tmp_path), range(500), model)
    assert caught.value.message == (
        f"{path}: the sample store cannot be {what} (database disk image is malformed); {DAMAGED}"
    )
    assert model.batches == []


def test_a_result_that_is_not_json(tmp_path: Path) -> None:
    where = Store(tmp_path)
    answered(where, [1], Model([]))
    with sqlite3.connect(tmp_path / "samples.sqlite") as database:
        database.execute("update samples set value = '{'")
    database.close()
    with pytest.raises(BadInput) as caught:
        answered(where, [1], Model([]))
    assert caught.value.message == (
        f"{tmp_path}/samples.sqlite: the sample store cannot be read (Expecting property name enclosed in double"
        f" quotes: line 1 column 2 (char 1)); {DAMAGED}"
    )


def test_a_home_folder_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("MOTHERTONGUE_STORE", "~/samples")
    assert store.store_folder() == tmp_path / "samples"
    monkeypatch.setenv("MOTHERTONGUE_STORE", "~no-such-user/samples")
    with pytest.raises(BadInput) as caught:
        store.store_folder()
    assert caught.value.message == (
        "MOTHERTONGUE_STORE: ~no-such-user/samples: Could not determine home directory.; set it to a folder"
    )


def test_the_variable_moves_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOTHERTONGUE_STORE", str(tmp_path / "a/b"))
    assert store.store_folder() == tmp_path / "a/b"
    assert Store().path == tmp_path / "a/b/samples.sqlite"
    assert Store().path.exists()
    monkeypatch.setenv("MOTHERTONGUE_STORE", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert store.store_folder() == tmp_path / "cache/mothertongue"


def test_what_was_committed_is_there_without_closing(tmp_path: Path) -> None:
    """As after a kill: another connection reads what the first has committed."""
    where = Store(tmp_path)
    answered(where, range(3), Model([]))
    with sqlite3.connect(tmp_path / "samples.sqlite") as other:
        assert other.execute("select count(*) from samples").fetchone() == (3,)
        assert other.execute("pragma journal_mode").fetchone() == ("wal",)
    other.close()


def test_seeds_depend_on_their_parts_alone() -> None:
    seeds = {(thread, index): derive_seed(1, thread, index) for thread in ("a", "b") for index in range(50)}
    assert len(set(seeds.values())) == 100
    assert all(0 <= seed < 2**31 for seed in seeds.values())
    assert derive_seed(1, "a", 7) == seeds["a", 7]
    assert derive_seed(2, "a", 7) != seeds["a", 7]
