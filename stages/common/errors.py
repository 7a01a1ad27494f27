"""Errors that a user can mend, told in one line, and how a stage or a command ends."""

from __future__ import annotations  # so that a Python too old for the rest can still tell that it is

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType, TracebackType

# what allocators of torch say, where they do not raise MemoryError
ALLOCATORS = (
    *("out of memory", "can't allocate memory", "not enough memory", "ALLOC_FAILED"),
    *("failed to map segment", "Cannot allocate memory"),  # the system's loader
)


OURS = ("stages", "tools", "sweeps", "theory", "tests")  # whose missing modules are mistakes of ours


class UserError(Exception):
    """Something outside the code is wrong: the message says what, and what to do about it."""


class Terminated(KeyboardInterrupt):
    """SIGTERM arrived. ``reason`` says why, where that is known."""

    reason = ""


def run(main: Callable[[], None]) -> None:
    """Run a command: what a user can mend ends it with one line on standard error and status 1.

    SIGTERM ends it as Ctrl-C does, with status 143 and 130.
    """
    end_on_sigterm()
    try:
        main()
    except UserError as error:
        sys.exit(f"error: {error}{_restore_hint()}")
    except OSError as error:
        where = f" {error.filename!r}" if error.filename else ""
        sys.exit(f"error: the system refused{where}: {error.strerror or error}{_restore_hint()}")
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        sys.exit(f"error: {_out_of_memory(error)}{_restore_hint()}")
    except KeyboardInterrupt as stop:
        _tell_how_to_continue(stop)
        sys.exit(143 if isinstance(stop, Terminated) else 130)


def end_on_sigterm() -> None:
    """From now on SIGTERM raises `Terminated`."""
    signal.signal(signal.SIGTERM, _terminate)


def handle_uncaught(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    """A ``sys.excepthook`` for what ends a stage before `run`, while torch is imported, or unexpectedly."""
    if isinstance(error, KeyboardInterrupt):
        _tell_how_to_continue(error)
        if isinstance(error, Terminated):  # end by the signal, as Python does for Ctrl-C
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.raise_signal(signal.SIGTERM)
    elif is_out_of_memory(error):
        print(f"error: {_out_of_memory(error)}{_restore_hint()}", file=sys.stderr)
    elif isinstance(error, ImportError) and error.name and error.name.split(".")[0] not in OURS:
        missing = isinstance(error, ModuleNotFoundError)
        reason = f"without the package {error.name!r}" if missing else f"where {error.name!r} fails ({error})"
        print(f"error: {_other_python(reason)}{_restore_hint()}", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, traceback)
        hint = _restore_hint().strip()
        print(hint, end="\n" if hint else "", file=sys.stderr)


def refuse_old_python() -> None:
    """End with one line where this Python cannot run the rest of the code."""
    if sys.version_info < (3, 11):  # noqa: UP036  # the others say nothing that is understood
        sys.exit(f"error: {_other_python('but 3.11 to 3.14 is needed')}{_restore_hint()}")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether ``error`` says that RAM or a GPU's memory ran out; torch raises RuntimeError on a CPU."""
    return isinstance(error, MemoryError) or any(words in str(error) for words in ALLOCATORS)


def _out_of_memory(error: BaseException) -> str:
    said = (str(error) or type(error).__name__).strip().splitlines()[0]
    return (
        f"memory ran out ({said}): lower train.batch_size, the widths in baseline.hidden or cnn.blocks, "
        "or data.train_size, end what else needs memory, or raise the limit (ulimit -v)"
    )


def _other_python(problem: str) -> str:
    version = ".".join(map(str, sys.version_info[:3]))
    return (
        f"'python' is {sys.executable}, Python {version}, {problem}: activate the environment ('make setup', "
        "then '. .venv/bin/activate') or put its bin folder first in PATH, then run again"
    )


def _tell_how_to_continue(stop: KeyboardInterrupt) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):  # the impatient press twice
        signal.signal(number, signal.SIG_IGN)
    line = stop if stop.args else "stopped: the same command continues"
    reason = stop.reason if isinstance(stop, Terminated) else ""
    print(f"{reason}{line}{_restore_hint()}", file=sys.stderr)


def _terminate(signum: int, frame: FrameType | None) -> None:
    raise Terminated


def _restore_hint() -> str:
    """The command that brings back what is committed of the results and the parameters, where it is changed.

    DVC deletes a stage's results before the stage runs, and writes the values of ``-S`` into the file.
    In DVC's temporary copies there is nothing to bring back.
    """
    if ".dvc/tmp/" in f"{Path.cwd().as_posix()}/":
        return ""
    command = ["git", "ls-files", "--deleted", "--modified", "--", "metrics", "plots", "params.yaml"]
    try:
        listing = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    except OSError:  # no git here
        return ""
    paths = sorted({path.split("/")[0] for path in listing.splitlines()})
    return f" (to restore what is committed: git checkout -- {' '.join(paths)})" if paths else ""
