"""Errors that a user can mend, told in one line, and how a stage ends."""

import signal
import subprocess
import sys
from collections.abc import Callable
from types import FrameType, TracebackType


class UserError(Exception):
    """Something outside the code is wrong: the message says what, and what to do about it."""


def run(main: Callable[[], None]) -> None:
    """Run a stage: what a user can mend ends it with one line on standard error and status 1.

    SIGTERM ends a stage as Ctrl-C does, with status 143 and 130.
    """
    signal.signal(signal.SIGTERM, _terminate)
    try:
        main()
    except UserError as error:
        sys.exit(f"error: {error}{_restore_hint()}")
    except OSError as error:
        where = f" {error.filename!r}" if error.filename else ""
        sys.exit(f"error: the system refused{where}: {error.strerror or error}{_restore_hint()}")
    except KeyboardInterrupt as stop:
        _tell_how_to_continue(stop)
        sys.exit(143 if isinstance(stop, Terminated) else 130)


def handle_uncaught(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    """A ``sys.excepthook``: Ctrl-C before `run`, while torch is imported, ends with its line as well."""
    if isinstance(error, KeyboardInterrupt):
        _tell_how_to_continue(error)
    else:
        sys.__excepthook__(kind, error, traceback)


class Terminated(KeyboardInterrupt):
    """SIGTERM arrived."""


def _tell_how_to_continue(stop: KeyboardInterrupt) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the impatient press twice
    line = stop if stop.args else "stopped: the same command continues"
    print(f"{line}{_restore_hint()}", file=sys.stderr)


def _terminate(signum: int, frame: FrameType | None) -> None:
    raise Terminated


def _restore_hint() -> str:
    """The command that brings back committed results, where DVC deleted them before the stage ran."""
    try:
        listing = subprocess.run(
            ["git", "ls-files", "--deleted", "--", "metrics", "plots"],
            capture_output=True,
            text=True,
            check=False,
        ).stdout
    except OSError:  # no git here
        return ""
    paths = sorted({path.split("/")[0] for path in listing.split()})
    return f" (restore the committed results: git checkout -- {' '.join(paths)})" if paths else ""
