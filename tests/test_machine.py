"""requirements/machine.py before anything is installed, with a made-up nvidia-smi."""

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
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the only commands on the PATH: a compiler, until a test adds others."""
    commands = tmp_path / "bin"
    commands.mkdir()
    command(commands, "gcc", "")
    monkeypatch.setenv("PATH", str(commands))
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.chdir(tmp_path)
    return commands


def command(folder: Path, name: str, output: str, code: int = 0) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n/bin/cat <<'END'\n{output}\nEND\nexit {code}\n", encoding="utf-8")
    path.chmod(0o755)


def ran(device: str, chosen: str, lock: str, patch: str) -> tuple[int, list[str]]:
    """Exit code and lines of the script, in a process where `patch` has set disk, memory and headers."""
    Path("lock.txt").write_text(lock, encoding="utf-8")
    run = "import runpy; sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
    code = f"{ENOUGH_DISK}; {patch}; {run}"
    done = subprocess.run(
        [sys.executable, "-c", code, str(MACHINE), device, "lock.txt", chosen],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == ""
    return done.returncode, done.stderr.splitlines()


def lacking(device: str, chosen: str = "found", *, lock: str = LOCK, patch: str = "pass") -> tuple[int, list[str]]:
    """The same without the line on memory, of which this machine may have little."""
    code, lines = ran(device, chosen, lock, patch)
    return code, [line for line in lines if not re.search("of memory free", line)]


ENOUGH_DISK = "import shutil, sys, sysconfig, types; shutil.disk_usage = lambda _: types.SimpleNamespace(free=100e9)"
HEADERS = "sysconfig.get_path = lambda _: 'include'"


def headers() -> None:
    Path("include").mkdir()
    Path("include/Python.h").touch()


@pytest.mark.parametrize("driver", ["580.65.06", "595.10", "610.47"])
def test_a_complete_gpu_machine_prints_nothing(machine: Path, driver: str) -> None:
    command(machine, "nvidia-smi", f"{driver}\n{driver}")
    headers()
    assert lacking("gpu", patch=HEADERS) == (0, [])


@pytest.mark.parametrize(
    ("output", "code", "line"),
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
def test_a_driver_that_is_too_old_or_absent(machine: Path, output: str, code: int, line: str) -> None:
    command(machine, "nvidia-smi", output, code)
    headers()
    assert lacking("gpu", patch=HEADERS) == (1, [line])


def test_an_older_lock_needs_an_older_driver(machine: Path) -> None:
    command(machine, "nvidia-smi", "570.124.06")
    headers()
    assert lacking("gpu", lock="nvidia-cuda-runtime==12.9.79\n", patch=HEADERS) == (0, [])


def test_everything_that_is_missing_is_reported_at_once(machine: Path) -> None:
    (machine / "gcc").unlink()
    absent = "[Errno 2] No such file or directory: 'nvidia-smi'"
    package = f"python{sysconfig.get_python_version()}-dev"
    code, lines = lacking("gpu", patch=f"{HEADERS}; {ENOUGH_DISK.replace('100e9', '3.2e9')}")
    assert code == 1
    assert lines == [
        f"nvidia-smi names no driver ({absent}); install NVIDIA's driver 580 or newer",
        "no C compiler, which Triton needs when it starts; install gcc (Debian: apt install gcc)",
        f"no include/Python.h, which Triton needs when it starts; install them (Debian: apt install {package})",
        f"3 GB free on the disk of {Path.cwd()}; .venv and a run take 16: free some space",
    ]


def test_a_compiler_may_be_named_in_the_environment(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command(machine, "nvidia-smi", "580.65.06")
    headers()
    (machine / "gcc").rename(machine / "my-cc")
    assert lacking("gpu", patch=HEADERS)[0] == 1
    monkeypatch.setenv("CC", "my-cc")
    assert lacking("gpu", patch=HEADERS) == (0, [])


@pytest.mark.parametrize(
    ("output", "code", "chosen", "lines"),
    [
        (None, 0, "found", []),
        ("GPU 0: NVIDIA H100 (UUID: GPU-1)", 0, "named", []),  # DEVICE=cpu although there is a GPU
        (FAILED, 9, "named", []),
        (
            FAILED,
            9,
            "found",
            [f"nvidia-smi is here and finds no GPU ({WORDS}); fix the driver, or run make DEVICE=cpu ..."],
        ),
    ],
)
def test_a_cpu_machine_needs_disk_space_only(
    machine: Path, output: str | None, code: int, chosen: str, lines: list[str]
) -> None:
    (machine / "gcc").unlink()
    if output is not None:
        command(machine, "nvidia-smi", output, code)
    assert lacking("cpu", chosen) == (bool(lines), lines)


@pytest.mark.usefixtures("machine")
@pytest.mark.parametrize(
    ("available", "lines"),
    [
        (6_000_000, []),
        (3_000_000, ["3.1 GB of memory free, and the demo takes 5; end other programs before make repro"]),
    ],
)
def test_little_memory_is_reported_and_is_no_error(available: int, lines: list[str]) -> None:
    Path("meminfo").write_text(f"MemTotal:  9000000 kB\nMemAvailable: {available} kB\n", encoding="utf-8")
    patch = "import pathlib; read = pathlib.Path.read_text"
    patch += "; pathlib.Path.read_text = lambda p, **k: read(pathlib.Path('meminfo') if 'proc' in str(p) else p, **k)"
    assert ran("cpu", "found", LOCK, patch) == (0, lines)


def test_the_driver_of_the_committed_locks_cuda_is_known(machine: Path) -> None:
    command(machine, "nvidia-smi", "1.0")
    headers()
    code, (line,) = lacking("gpu", lock=(ROOT / "requirements/gpu.txt").read_text(encoding="utf-8"), patch=HEADERS)
    assert code == 1
    assert re.fullmatch(r"NVIDIA's driver is 1\.0, and CUDA \d+ of this lock needs \d{3} or newer; .*", line)


def test_make_checks_the_machine_before_it_installs() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert 0 < makefile.index("requirements/machine.py $(DEVICE) $(LOCK) $(CHOSEN)") < makefile.index("-m venv --clear")
