"""Whether this machine can hold and run what a lock names, before anything is installed: a line for each lack.

    python requirements/machine.py cpu|gpu requirements/<cpu|gpu>.txt <named|found>

`named`: a person chose the device, `found`: the Makefile did. Run by the Python that .venv will have; the standard
library only.
"""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

# The oldest driver for each CUDA, by NVIDIA's table of minor version compatibility.
DRIVERS = {"12": 525, "13": 580}
DISK = {"cpu": 8, "gpu": 16}  # GB: the packages, pip's copies of the largest, and what a demo run writes
MEMORY = 5  # GB: the most that a demo run takes


def lacking(device: str, lock: str, *, named: bool) -> Iterator[str]:
    """One line for each thing without which the install or every stage would fail."""
    if device == "gpu":
        yield from _driver(lock)
        yield from _compiler()
    elif not named and shutil.which("nvidia-smi") and (words := _silent()):
        yield f"nvidia-smi is here and finds no GPU ({words}); fix the driver, or run make DEVICE=cpu ..."
    free = shutil.disk_usage(".").free / 1e9
    if free < DISK[device]:
        yield f"{free:.0f} GB free on the disk of {Path.cwd()}; .venv and a run take {DISK[device]}: free some space"


def scarce(meminfo: str) -> Iterator[str]:
    """A line where main memory is short now; other programs may end before a stage needs it."""
    found = re.search(r"^MemAvailable:\s+(\d+) kB", meminfo, re.MULTILINE)
    if found and (free := int(found[1]) * 1024 / 1e9) < MEMORY:
        yield f"{free:.1f} GB of memory free, and the demo takes {MEMORY}; end other programs before make repro"


def _driver(lock: str) -> Iterator[str]:
    runtime = re.search(r"^nvidia-cuda-runtime==(\d+)", lock, re.MULTILINE)
    if not runtime:
        return
    cuda, oldest = runtime[1], DRIVERS[runtime[1]]
    ran = _asked("--query-gpu=driver_version", "--format=csv,noheader")
    found = re.match(r"(\d+)[.\d]*", ran.stdout) if ran.returncode == 0 else None
    if not found:
        yield f"nvidia-smi names no driver ({_words(ran)}); install NVIDIA's driver {oldest} or newer"
    elif int(found[1]) < oldest:
        yield f"NVIDIA's driver is {found[0]}, and CUDA {cuda} of this lock needs {oldest} or newer; update the driver"


def _compiler() -> Iterator[str]:
    # Triton compiles when it starts: with CC, else gcc, else clang, against Python.h.
    if not any(shutil.which(name) for name in (os.environ.get("CC"), "gcc", "clang") if name):
        yield "no C compiler, which Triton needs when it starts; install gcc (Debian: apt install gcc)"
    header = Path(sysconfig.get_path("include"), "Python.h")
    if not header.exists():
        package = f"python{sys.version_info.major}.{sys.version_info.minor}-dev"
        yield f"no {header}, which Triton needs when it starts; install them (Debian: apt install {package})"


def _silent() -> str:
    """The output of nvidia-smi where it lists no GPU; empty where it lists one."""
    ran = _asked("-L")
    return "" if re.search("^GPU ", ran.stdout, re.MULTILINE) else _words(ran)


def _asked(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = ["nvidia-smi", *arguments]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired) as error:
        return subprocess.CompletedProcess(command, 1, "", str(error))


def _words(ran: subprocess.CompletedProcess[str]) -> str:
    text = (ran.stdout + ran.stderr).strip()
    return text.splitlines()[0] if text else f"exit code {ran.returncode}"


def main() -> None:
    """Print each line; exit with 1 where something is lacking."""
    device, lock, chosen = sys.argv[1:]
    for line in scarce(Path("/proc/meminfo").read_text(encoding="utf-8")):
        print(line, file=sys.stderr)
    wrong = list(lacking(device, Path(lock).read_text(encoding="utf-8"), named=chosen == "named"))
    for line in wrong:
        print(line, file=sys.stderr)
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
