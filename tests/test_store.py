"""The sample store: what is asked, what is found, and what a kill can lose."""

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
from mothertongue.sampling import Choose, Generate, Text, Weigh, seed_of
from mothertongue.store import Store

WHO = {"weights": "w", "chat": "c", "engine": "e 1", "dtype": "float32"}


def request(number: int) -> Generate:
    return Generate(prompt=(1, number), max_tokens=8, temperature=0.7, top_p=0.9, seed=number, index=0)


class Killed(Exception):
    pass


@dataclass
class Model:
    """Answers a prompt with its number, remembers each batch, and may be killed in the middle of one."""

    batches: list[list[int]]
    killed_in: int | None = None

    def ask(self, part: Sequence[Generate]) -> list[Text]:
        self.batches.append([r.prompt[1] for r in part])
        if len(self.batches) - 1 == self.killed_in:
            raise Killed
        return [Text(text=f"ñ {r.prompt[1]}", tokens=1, finish="stop") for r in part]


def answered(
    where: Store, numbers: Sequence[int], model: Model, who: dict[str, str] = WHO, batch: int = 3, label: str = "test"
) -> list[str]:
    found = where.answered(who, [request(number) for number in numbers], model.ask, lambda: batch, label)
    return [value["text"] for value in found]


def test_only_what_is_missing_is_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = Model([])
    assert answered(Store(tmp_path), range(7), model) == [f"ñ {n}" for n in range(7)]
    assert model.batches == [[0, 1, 2], [3, 4, 5], [6]]
    assert capsys.readouterr().out == "test: 7 calls, 0 found in the sample store (0%), 7 asked\n"

    model = Model([])
    assert answered(Store(tmp_path), [8, 3, 7, 0], model) == ["ñ 8", "ñ 3", "ñ 7", "ñ 0"]
    assert model.batches == [[8, 7]]
    assert capsys.readouterr().out == "test: 4 calls, 2 found in the sample store (50%), 2 asked\n"

    model = Model([])
    assert answered(Store(tmp_path), range(9), model) == [f"ñ {n}" for n in range(9)]
    assert model.batches == []
    assert capsys.readouterr().out == "test: 9 calls, 9 found in the sample store (100%), 0 asked\n"
    assert Store(tmp_path).calls() == [("test", 11, 9)]


def test_nothing_is_asked_of_nobody(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def opened() -> int:
        raise AssertionError("the model was loaded for nothing")

    assert Store(tmp_path).answered(WHO, [], Model([]).ask, opened, "test") == []
    assert capsys.readouterr().out == "test: 0 calls, 0 found in the sample store (100%), 0 asked\n"


def test_the_same_request_twice_is_asked_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = Model([])
    assert answered(Store(tmp_path), [5, 6, 5, 5], model) == ["ñ 5", "ñ 6", "ñ 5", "ñ 5"]
    assert model.batches == [[5, 6]]
    said = "test: 4 calls, 0 found in the sample store (0%), 2 asked, 2 equal to one of those\n"
    assert capsys.readouterr().out == said


def test_a_kill_loses_the_batch_in_flight_alone(tmp_path: Path) -> None:
    killed = Model([], killed_in=2)
    with pytest.raises(Killed):
        answered(Store(tmp_path), range(10), killed)
    resumed = Model([])
    found = answered(Store(tmp_path), range(10), resumed)
    assert found == [f"ñ {n}" for n in range(10)]
    # the undisturbed run's batches, one of them twice
    undisturbed = Model([])
    answered(Store(tmp_path / "other"), range(10), undisturbed)
    assert killed.batches + resumed.batches == [
        *undisturbed.batches[:2], undisturbed.batches[2], *undisturbed.batches[2:]
    ]  # fmt: skip
    assert Store(tmp_path).calls() == [("test", 6, 13)]


def test_an_engine_that_loses_an_answer_leaves_no_half_batch(tmp_path: Path) -> None:
    where = Store(tmp_path)
    model = Model([])

    def torn(part: Sequence[Generate]) -> list[Text]:
        return model.ask(part)[:-1]

    with pytest.raises(ValueError, match="zip"):
        where.answered(WHO, [request(n) for n in range(3)], torn, lambda: 3, "test")
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
        (WHO, Choose(prompt=(1, 1), options=(2,))),
        (WHO, Weigh(prompt=(1, 1), continuation=(2,))),
    ],
)
def test_whatever_differs_is_asked_anew(tmp_path: Path, who: dict[str, str], what: Generate | Choose | Weigh) -> None:
    where = Store(tmp_path)
    asked: list[object] = []

    def ask(part: Sequence[object]) -> list[list[float]]:
        asked.extend(part)
        return [[0.5]] * len(part)

    where.answered(WHO, [ASKED], ask, lambda: 1, "test")
    where.answered(who, [what], ask, lambda: 1, "test")
    assert asked == [ASKED, what]
    where.answered(dict(reversed(who.items())), [replace(what)], ask, lambda: 1, "test")
    assert len(asked) == 2


def test_choosing_and_weighing_are_told_apart(tmp_path: Path) -> None:
    alike = [Choose(prompt=(1,), options=(2,)), Weigh(prompt=(1,), continuation=(2,))]
    asked: list[object] = []

    def ask(part: Sequence[object]) -> list[list[float]]:
        asked.extend(part)
        return [[0.5]] * len(part)

    Store(tmp_path).answered(WHO, alike, ask, lambda: 2, "test")
    assert asked == alike


def test_numbers_come_back_to_the_last_bit(tmp_path: Path) -> None:
    logs = [-0.1, -1 / 3, -1e-17, -123.456789012345678]
    first, again = (Store(tmp_path).answered(WHO, [ASKED], lambda _: [logs], lambda: 1, "test")[0] for _ in range(2))
    assert first == again == logs


def test_two_connections_share_what_they_have(tmp_path: Path) -> None:
    one, two = Store(tmp_path), Store(tmp_path)
    first, second = Model([]), Model([])
    answered(one, [1, 2], first)
    answered(two, [2, 3], second)
    answered(one, [1, 2, 3], first)
    assert (first.batches, second.batches) == ([[1, 2]], [[3]])


def test_one_writes_while_the_other_asks(tmp_path: Path) -> None:
    one, two = Store(tmp_path), Store(tmp_path)
    inner = Model([])

    def ask(part: Sequence[Generate]) -> list[Text]:
        answered(two, [r.prompt[1] for r in part], inner)
        return Model([]).ask(part)

    found = one.answered(WHO, [request(n) for n in range(6)], ask, lambda: 2, "test")
    assert [value["text"] for value in found] == [f"ñ {n}" for n in range(6)]
    assert inner.batches == [[0, 1], [2, 3], [4, 5]]


def _asks_with_others(folder: Path, number: int, barrier: Barrier, outputs: "Queue[list[str]]") -> None:
    """A process whose engine answers each batch only when all the others are asked it too, and as no other does."""

    def ask(part: Sequence[Generate]) -> list[Text]:
        barrier.wait(timeout=300)
        return [Text(text=f"{number} {secrets.token_hex(8)}", tokens=1, finish="stop") for _ in part]

    found = Store(folder).answered(WHO, [request(n) for n in (*range(10), 3)], ask, lambda: 3, "test")
    outputs.put([value["text"] for value in found])


def test_eight_processes_give_what_the_store_holds(tmp_path: Path) -> None:
    spawn, n = multiprocessing.get_context("spawn"), 8
    barrier, outputs = spawn.Barrier(n), spawn.Queue()
    processes = [spawn.Process(target=_asks_with_others, args=(tmp_path, i, barrier, outputs)) for i in range(n)]
    for process in processes:
        process.start()
    found = [outputs.get(timeout=300) for _ in processes]
    for process in processes:
        process.join()
    kept = answered(Store(tmp_path), [*range(10), 3], Model([]))
    assert found == [kept] * n
    assert len(set(kept)) == 10
    assert Store(tmp_path).calls() == [("test", 11, n * 10)]  # each asked for everything


def test_a_full_disk_is_told(tmp_path: Path) -> None:
    where = Store(tmp_path)
    answered(where, [1], Model([]))
    pages = where._db.execute("pragma page_count").fetchone()[0]
    where._db.execute(f"pragma max_page_count = {pages}")  # SQLite's own way to be full
    with pytest.raises(BadInput) as caught:
        answered(where, range(2, 500), Model([]), batch=500)
    assert caught.value.message == (
        f"{tmp_path}/samples.sqlite: the sample store cannot be written (database or disk is full);"
        " make room and run again"
    )
    model = Model([])
    assert answered(Store(tmp_path), [1, 2], model) == ["ñ 1", "ñ 2"]
    assert model.batches == [[2]]


TO_A_FOLDER = "set MOTHERTONGUE_STORE to a folder"
DAMAGED = "the file is damaged: move it away, and what it held is asked again"


def test_a_store_that_cannot_be_opened_is_told(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    (tmp_path / "samples.sqlite").write_text("no database, but a text that is long enough to be taken for one")
    for folder, why, remedy in (
        (tmp_path / "taken", f"[Errno 17] File exists: '{tmp_path}/taken'", TO_A_FOLDER),
        (tmp_path, "file is not a database", DAMAGED),
    ):
        with pytest.raises(BadInput) as caught:
            Store(folder)
        assert caught.value.message == (f"{folder}/samples.sqlite: the sample store cannot be opened ({why}); {remedy}")


def damaged(folder: Path, page: int) -> Path:
    """A store of a few hundred answers, one of its pages of 4096 bytes written over."""
    where = Store(folder)
    answered(where, range(400), Model([]), batch=400)
    where._db.execute("pragma wal_checkpoint(truncate)")
    where._db.close()
    path = folder / "samples.sqlite"
    with path.open("r+b") as file:
        file.seek((page - 1) * 4096 + (100 if page == 1 else 0))  # what follows the header
        file.write(b"\xff" * 2048)
    return path


@pytest.mark.parametrize(
    ("page", "what"),
    [(1, "opened"), (2, "read"), (3, "written")],  # the schema, the answers' and the calls' first page
)
def test_a_damaged_page_is_told(tmp_path: Path, page: int, what: str) -> None:
    path = damaged(tmp_path, page)
    model = Model([])
    with pytest.raises(BadInput) as caught:
        answered(Store(tmp_path), range(500), model)
    assert caught.value.message == (
        f"{path}: the sample store cannot be {what} (database disk image is malformed); {DAMAGED}"
    )
    assert model.batches == []


def test_an_answer_that_is_no_json_is_told(tmp_path: Path) -> None:
    where = Store(tmp_path)
    answered(where, [1], Model([]))
    with where._db:
        where._db.execute("update samples set value = '{'")
    with pytest.raises(BadInput) as caught:
        answered(where, [1], Model([]))
    assert caught.value.message == (
        f"{tmp_path}/samples.sqlite: the sample store cannot be read (Expecting property name enclosed in double"
        f" quotes: line 1 column 2 (char 1)); {DAMAGED}"
    )


def test_a_home_folder_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("MOTHERTONGUE_STORE", "~/samples")
    assert store.folder() == tmp_path / "samples"
    monkeypatch.setenv("MOTHERTONGUE_STORE", "~nobody-of-that-name/samples")
    with pytest.raises(BadInput) as caught:
        store.folder()
    assert caught.value.message == (
        "MOTHERTONGUE_STORE: ~nobody-of-that-name/samples: Could not determine home directory.; set it to a folder"
    )


def test_the_variable_moves_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOTHERTONGUE_STORE", str(tmp_path / "a/b"))
    assert store.folder() == tmp_path / "a/b"
    assert Store().path == tmp_path / "a/b/samples.sqlite"
    assert Store().path.exists()
    monkeypatch.setenv("MOTHERTONGUE_STORE", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert store.folder() == tmp_path / "cache/mothertongue"


def test_a_killed_process_leaves_what_it_committed(tmp_path: Path) -> None:
    """What another connection reads is what was committed, without the first being closed."""
    where = Store(tmp_path)
    answered(where, range(3), Model([]))
    with sqlite3.connect(tmp_path / "samples.sqlite") as other:
        assert other.execute("select count(*) from samples").fetchone() == (3,)
        assert other.execute("pragma journal_mode").fetchone() == ("wal",)
    other.close()


def test_seeds_depend_on_their_parts_alone() -> None:
    seeds = {(thread, index): seed_of(1, thread, index) for thread in ("a", "b") for index in range(50)}
    assert len(set(seeds.values())) == 100
    assert all(0 <= seed < 2**31 for seed in seeds.values())
    assert seed_of(1, "a", 7) == seeds["a", 7]
    assert seed_of(2, "a", 7) != seeds["a", 7]
