"""What a stage shows on the terminal, and what goes to its log file."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

STAGE = """
import os, sys, warnings
import click
from mothertongue import console
from mothertongue.errors import BadInput

@click.command()
@click.argument("name")
@click.argument("how", default="well")
def main(name, how):
    print("a vendor's dictionary")
    warnings.warn("a vendor's warning")
    os.system("echo a native line")
    with console.progress(3, "label", "call") as bar:
        bar.update(3)
    console.say("closing line é")
    if how == "input":
        raise BadInput("file:1: field: wrong; fix it")
    if how == "crash":
        raise ValueError("first line\\n  second line")
    if how == "stop":
        raise KeyboardInterrupt

if __name__ == "__main__":
    console.run(main)
"""


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    (folder / "thing.py").write_text(STAGE, encoding="utf-8")
    return subprocess.run(
        [sys.executable, "thing.py", *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT / "src"), "PYTHONIOENCODING": "utf-8"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_terminal_gets_the_stages_own_lines_and_the_log_all_others(tmp_path: Path) -> None:
    done = run(tmp_path, "plain")
    assert (done.returncode, done.stdout) == (0, "closing line é\n")
    assert "label: 100%" in done.stderr
    assert "call/s" in done.stderr
    assert "vendor" not in done.stderr
    log = (tmp_path / "logs/thing-plain.log").read_text(encoding="utf-8")
    assert "a vendor's dictionary\n" in log
    assert "UserWarning: a vendor's warning" in log
    assert "a native line\n" in log
    assert "closing line" not in log


@pytest.mark.parametrize(
    ("how", "code", "last"),
    [
        ("input", 1, "Error: file:1: field: wrong; fix it"),
        (
            "crash",
            1,
            "Error: ValueError: first line second line; logs/thing-plain.log has the traceback",
        ),
    ],
)
def test_a_failure_is_one_line_on_the_terminal(tmp_path: Path, how: str, code: int, last: str) -> None:
    done = run(tmp_path, "plain", how)
    assert done.returncode == code
    assert done.stderr.splitlines()[-1] == last
    assert "Traceback" not in done.stderr
    log = (tmp_path / "logs/thing-plain.log").read_text(encoding="utf-8")
    assert ("ValueError: first line" in log) == (how == "crash")


def test_an_interrupted_stage_fails(tmp_path: Path) -> None:
    assert run(tmp_path, "plain", "stop").returncode == 130


def test_a_wrong_command_line_and_help_are_as_usual(tmp_path: Path) -> None:
    wrong = run(tmp_path, "plain", "well", "more")
    assert wrong.returncode == 2
    assert "Error: Got unexpected extra argument (more)" in wrong.stderr
    helped = run(tmp_path, "--help")
    assert helped.returncode == 0
    assert helped.stdout.startswith("Usage: thing.py [OPTIONS] NAME [HOW]\n")


def test_a_log_is_of_the_last_run(tmp_path: Path) -> None:
    run(tmp_path, "plain", "crash")
    run(tmp_path, "plain")
    assert "ValueError" not in (tmp_path / "logs/thing-plain.log").read_text(encoding="utf-8")
