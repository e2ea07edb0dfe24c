"""Checkpoints: what is handed out after a killed run, and what is kept."""

import subprocess
import sys
from pathlib import Path

import pytest
from conftest import make_pair, make_step

from mothertongue.errors import BadInput
from mothertongue.training.checkpoints import Checkpoints, digest_rows


def write(checkpoints: Checkpoints, update: int) -> None:
    """What the trainer does before it calls keep."""
    folder = checkpoints.folder / f"checkpoint-{update}"
    folder.mkdir()
    (folder / "state").write_text(str(update), encoding="utf-8")


def names(checkpoints: Checkpoints) -> set[str]:
    return {path.name for path in checkpoints.folder.iterdir()} - {"lock"}


@pytest.fixture
def checkpoints(tmp_path: Path) -> Checkpoints:
    return Checkpoints(tmp_path, "key")


def test_at_first_there_is_none(checkpoints: Checkpoints) -> None:
    with checkpoints.used() as last:
        assert last is None
        assert checkpoints.folder.is_dir()
        assert checkpoints.last() is None


def test_the_last_one_is_kept_and_handed_out(checkpoints: Checkpoints) -> None:
    """By its number and not by its name: 9 is before 10."""
    with checkpoints.used():
        for update in (9, 10):
            write(checkpoints, update)
            checkpoints.keep(update, sound=0)
        assert names(checkpoints) == {"kept-10"}
    with Checkpoints(checkpoints.folder.parent.parent, "key").used() as last:
        assert last == checkpoints.folder / "kept-10"
        assert (last / "state").read_text(encoding="utf-8") == "10"


def test_the_last_one_that_is_known_to_be_good_is_kept_beside_it(checkpoints: Checkpoints) -> None:
    with checkpoints.used():
        for update, sound, kept in ((10, 0, {10}), (20, 15, {10, 20}), (25, 15, {10, 25}), (30, 30, {30})):
            write(checkpoints, update)
            checkpoints.keep(update, sound)
            assert names(checkpoints) == {f"kept-{each}" for each in kept}
            assert checkpoints.last(sound) == (checkpoints.folder / f"kept-{min(kept)}" if sound else None)
    with checkpoints.used() as last:
        assert last == checkpoints.folder / "kept-30"


def test_a_half_written_one_is_removed_and_never_handed_out(checkpoints: Checkpoints) -> None:
    with checkpoints.used():
        write(checkpoints, 10)
        checkpoints.keep(10, sound=0)
        write(checkpoints, 20)
        assert checkpoints.last() == checkpoints.folder / "kept-10"
    with checkpoints.used() as last:
        assert last == checkpoints.folder / "kept-10"
        assert names(checkpoints) == {"kept-10"}


def test_killed_between_naming_one_and_removing_those_before(checkpoints: Checkpoints) -> None:
    for update in (90, 100):
        (checkpoints.folder / f"kept-{update}").mkdir(parents=True)
    with checkpoints.used() as last:
        assert last == checkpoints.folder / "kept-100"
        write(checkpoints, 110)
        checkpoints.keep(110, sound=0)
    assert names(checkpoints) == {"kept-110"}


HOLD = """\
import sys
from pathlib import Path
from mothertongue.training.checkpoints import Checkpoints
with Checkpoints(Path(sys.argv[1]), "key").used():
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_second_process_is_refused_until_the_first_has_gone(tmp_path: Path, checkpoints: Checkpoints) -> None:
    """Also where the first was killed."""
    held = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with held:
        assert held.stdout
        assert held.stdout.readline() == "held\n"
        write(checkpoints, 10)
        with pytest.raises(BadInput) as caught, checkpoints.used():
            pass
        assert caught.value.message == (
            f"{checkpoints.folder}: another process trains the same step with the same data; wait for it, or stop it"
        )
        assert names(checkpoints) == {"checkpoint-10"}
        with Checkpoints(tmp_path, "another key").used() as last:
            assert last is None
        held.kill()
    with checkpoints.used() as last:
        assert last is None
        assert names(checkpoints) == set()


def test_a_training_that_has_ended_is_left_until_the_next_one(tmp_path: Path, checkpoints: Checkpoints) -> None:
    """A run may be killed before DVC has recorded what it learned."""
    with checkpoints.used():
        write(checkpoints, 10)
        checkpoints.keep(10, sound=0)
        checkpoints.end()
    with checkpoints.used() as last:
        assert last == checkpoints.folder / "kept-10"
        assert names(checkpoints) == {"kept-10"}
    other, third = Checkpoints(tmp_path, "another key"), Checkpoints(tmp_path, "a third key")
    with other.used():  # the first was killed since, and may go on
        assert names(checkpoints) == {"kept-10"}
        other.end()
    with third.used():
        assert not other.folder.exists()
        assert names(checkpoints) == {"kept-10"}


PARTS = (1, make_step("dpo").model_dump(), "digest of rows", {"chat": "a", "weights": "b"}, ["cpu", "trl 1.16"])


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (0, 2),
        (1, make_step("dpo", beta=0.2).model_dump()),
        (1, make_step("dpo", seed=3).model_dump()),
        (2, "digest of others"),
        (3, {"chat": "a", "weights": "c"}),
        (3, {"chat": "b", "weights": "a"}),
        (4, ["cpu", "trl 1.17"]),
        (4, ["gpu", "trl 1.16"]),
    ],
)
def test_a_change_of_any_part_is_another_training(tmp_path: Path, place: int, value: object) -> None:
    changed = [value if at == place else part for at, part in enumerate(PARTS)]
    assert Checkpoints(tmp_path, *changed).folder != Checkpoints(tmp_path, *PARTS).folder
    assert Checkpoints(tmp_path, *PARTS).folder == Checkpoints(tmp_path, *PARTS).folder


def test_a_digest_is_of_all_of_all_rows_in_their_order() -> None:
    rows = [make_pair(1), make_pair(2)]
    assert digest_rows(rows) == digest_rows([make_pair(1), make_pair(2)])
    others = ([], rows[:1], rows[::-1], [rows[0], make_pair(2, split="test")], [rows[0], make_pair(2, cut=True)])
    assert len({digest_rows(rows), *map(digest_rows, others)}) == 6
