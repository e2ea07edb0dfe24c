"""What is said before anything is installed, with an nvidia-smi that says what it is told to."""

import re
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from project import ROOT

MACHINE = ROOT / "requirements/machine.py"
LOCK = "torch==2.14.0 # via trl\nnvidia-cuda-runtime==13.0.96  # via cuda-toolkit\n"
FAILED = "NVIDIA-SMI has failed because it could not communicate with the NVIDIA driver.\nMake sure that it runs."
WORDS = FAILED.splitlines()[0]


@pytest.fixture
def box(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine whose commands are those in the folder that comes back, with a compiler, room and headers."""
    commands = tmp_path / "bin"
    commands.mkdir()
    command(commands, "gcc", "")
    monkeypatch.setenv("PATH", str(commands))
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.chdir(tmp_path)
    return commands


def command(folder: Path, name: str, said: str, code: int = 0) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n/bin/cat <<'END'\n{said}\nEND\nexit {code}\n", encoding="utf-8")
    path.chmod(0o755)


def ran(device: str, chosen: str, lock: str, patch: str) -> tuple[int, list[str]]:
    """Exit code and lines of the script, in a process where `patch` has set disk, memory and headers."""
    Path("lock.txt").write_text(lock, encoding="utf-8")
    code = f"{ROOM}; {patch}; sys.argv = sys.argv[1:]; import runpy; runpy.run_path(sys.argv[0], run_name='__main__')"
    done = subprocess.run(
        [sys.executable, "-c", code, str(MACHINE), device, "lock.txt", chosen],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == ""
    return done.returncode, done.stderr.splitlines()


def lacking(device: str, chosen: str = "found", *, lock: str = LOCK, patch: str = "pass") -> tuple[int, list[str]]:
    """The same without a word on memory, of which this machine may have little."""
    code, lines = ran(device, chosen, lock, patch)
    return code, [line for line in lines if not re.search("of memory free", line)]


ROOM = "import shutil, sys, sysconfig, types; shutil.disk_usage = lambda _: types.SimpleNamespace(free=100e9)"
HEADERS = "sysconfig.get_path = lambda _: 'include'"


def headers() -> None:
    Path("include").mkdir()
    Path("include/Python.h").touch()


@pytest.mark.parametrize("driver", ["580.65.06", "595.10", "610.47"])
def test_a_gpu_box_that_has_all_is_silent(box: Path, driver: str) -> None:
    command(box, "nvidia-smi", f"{driver}\n{driver}")
    headers()
    assert lacking("gpu", patch=HEADERS) == (0, [])


@pytest.mark.parametrize(
    ("said", "code", "line"),
    [
        (
            "570.124.06",
            0,
            "NVIDIA's driver is 570.124.06, and CUDA 13 of this lock needs 580 or newer; update the driver",
        ),
        (
            FAILED,
            9,
            f"nvidia-smi names no driver ({WORDS}); install NVIDIA's driver 580 or newer",
        ),
        ("", 0, "nvidia-smi names no driver (exit code 0); install NVIDIA's driver 580 or newer"),
    ],
)
def test_a_driver_that_is_too_old_or_absent(box: Path, said: str, code: int, line: str) -> None:
    command(box, "nvidia-smi", said, code)
    headers()
    assert lacking("gpu", patch=HEADERS) == (1, [line])


def test_an_older_lock_takes_an_older_driver(box: Path) -> None:
    command(box, "nvidia-smi", "570.124.06")
    headers()
    assert lacking("gpu", lock="nvidia-cuda-runtime==12.9.79\n", patch=HEADERS) == (0, [])


def test_all_that_is_lacking_is_told_at_once(box: Path) -> None:
    (box / "gcc").unlink()
    absent = "[Errno 2] No such file or directory: 'nvidia-smi'"
    package = f"python{sysconfig.get_python_version()}-dev"
    code, lines = lacking("gpu", patch=f"{HEADERS}; {ROOM.replace('100e9', '3.2e9')}")
    assert code == 1
    assert lines == [
        f"nvidia-smi names no driver ({absent}); install NVIDIA's driver 580 or newer",
        "no C compiler, which Triton needs when it starts; install gcc (Debian: apt install gcc)",
        f"no include/Python.h, which Triton needs when it starts; install them (Debian: apt install {package})",
        f"3 GB free on the disk of {Path.cwd()}, and .venv and a run take 16; make room",
    ]


def test_a_compiler_may_be_named(box: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command(box, "nvidia-smi", "580.65.06")
    headers()
    (box / "gcc").rename(box / "my-cc")
    assert lacking("gpu", patch=HEADERS)[0] == 1
    monkeypatch.setenv("CC", "my-cc")
    assert lacking("gpu", patch=HEADERS) == (0, [])


@pytest.mark.parametrize(
    ("said", "code", "chosen", "lines"),
    [
        (None, 0, "found", []),
        ("GPU 0: NVIDIA H100 (UUID: GPU-1)", 0, "named", []),  # DEVICE=cpu on a GPU box, on purpose
        (FAILED, 9, "named", []),
        (
            FAILED,
            9,
            "found",
            [f"nvidia-smi is here and finds no GPU ({WORDS}); mend the driver, or say make DEVICE=cpu ..."],
        ),
    ],
)
def test_a_cpu_box_needs_room_only(box: Path, said: str | None, code: int, chosen: str, lines: list[str]) -> None:
    (box / "gcc").unlink()
    if said is not None:
        command(box, "nvidia-smi", said, code)
    assert lacking("cpu", chosen) == (bool(lines), lines)


@pytest.mark.usefixtures("box")
@pytest.mark.parametrize(
    ("available", "lines"),
    [
        (6_000_000, []),
        (3_000_000, ["3.1 GB of memory free, and the demo takes 5; end other programs before make repro"]),
    ],
)
def test_little_memory_is_told_and_stops_nothing(available: int, lines: list[str]) -> None:
    Path("meminfo").write_text(f"MemTotal:  9000000 kB\nMemAvailable: {available} kB\n", encoding="utf-8")
    patch = "import pathlib; read = pathlib.Path.read_text"
    patch += "; pathlib.Path.read_text = lambda p, **k: read(pathlib.Path('meminfo') if 'proc' in str(p) else p, **k)"
    assert ran("cpu", "found", LOCK, patch) == (0, lines)


def test_the_driver_of_the_committed_locks_cuda_is_known(box: Path) -> None:
    command(box, "nvidia-smi", "1.0")
    headers()
    code, (line,) = lacking("gpu", lock=(ROOT / "requirements/gpu.txt").read_text(encoding="utf-8"), patch=HEADERS)
    assert code == 1
    assert re.fullmatch(r"NVIDIA's driver is 1\.0, and CUDA \d+ of this lock needs \d{3} or newer; .*", line)


def test_make_looks_before_it_installs() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert 0 < makefile.index("requirements/machine.py $(DEVICE) $(LOCK) $(CHOSEN)") < makefile.index("-m venv --clear")
