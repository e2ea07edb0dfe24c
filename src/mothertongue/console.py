"""What a stage shows on the terminal: progress bars, closing lines and errors. All else goes to a log file.

Vendors print warnings, bars and dictionaries of their own. `run` sends file descriptors 1 and 2 of the process to
logs/<stage>.log, also for native code, and keeps the terminal for `say` and `progress`. Without it, as in a test, those
two write to stdout and stderr.
"""

import gc
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import click

if TYPE_CHECKING:
    from tqdm import tqdm

LOGS = Path("logs")
_terminal: dict[int, TextIO] = {}  # 1: stdout, 2: stderr, while the process's own go to the log


def say(text: str) -> None:
    """Print a line on the terminal's stdout."""
    click.echo(text, file=_terminal.get(1))


def progress(total: int, label: str, unit: str, done: int = 0) -> "tqdm[Any]":
    """A progress bar on the terminal's stderr, with a rate and an estimate of the time left.

    What was done before (`done`) counts for neither.
    """
    from tqdm import tqdm

    every = float(os.environ.get("TQDM_MININTERVAL", 1))  # seconds from one drawing to the next
    file = _terminal.get(2, sys.stderr)
    return tqdm(total=total, initial=done, desc=label, unit=unit, mininterval=every, file=file)


def run(command: click.Command) -> None:
    """Run a stage's command and exit: 0, or with one line on the terminal's stderr 1 (2 for a wrong command line).

    An error that is not about the user's input also names the log file, which has its traceback.
    """
    arguments = sys.argv[1:]
    if not arguments or "--help" in arguments:
        command()
    gc.set_threshold(100_000)  # importing vendors makes many objects and no garbage: collecting takes a second of it
    key = f"-{arguments[0]}" if arguments[0].isidentifier() else ""
    path = LOGS / f"{Path(sys.argv[0]).stem}{key}.log"
    code = 0
    with redirected(path):
        try:
            command(standalone_mode=False)
        except click.ClickException as error:
            error.show(_terminal[2])
            code = error.exit_code
        except (KeyboardInterrupt, click.Abort):
            code = 130
        except Exception as error:  # noqa: BLE001
            traceback.print_exc()
            what = " ".join(str(error).split()) or "no message"
            click.echo(f"Error: {type(error).__name__}: {what[:300]}; {path} has the traceback", file=_terminal[2])
            code = 1
    # Without the interpreter's own teardown, which takes seconds once torch is loaded. All outputs are closed.
    os._exit(code)


@contextmanager
def redirected(path: Path) -> Iterator[None]:
    """Send file descriptors 1 and 2 to a file, and keep the terminal's in `_terminal`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    kept = {number: os.dup(number) for number in (1, 2)}
    with path.open("w", encoding="utf-8") as log:
        for number, descriptor in kept.items():
            _terminal[number] = os.fdopen(descriptor, "w", encoding="utf-8", buffering=1)
            os.dup2(log.fileno(), number)
        try:
            yield
        finally:
            for stream in (sys.stdout, sys.stderr):
                stream.flush()
            for number in kept:
                os.dup2(_terminal[number].fileno(), number)
                _terminal.pop(number).close()
