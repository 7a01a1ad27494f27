"""Locks between processes, as files that the operating system unlocks when their process ends."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

MOMENT = 1.0  # seconds; longer than `free` holds a lock


@contextmanager
def locked(path: Path, waiting: Callable[[], str]) -> Iterator[bool]:
    """Hold the lock ``path`` inside; gives whether another process had it before.

    Where one has it, print what ``waiting`` gives on standard error, and wait.
    """
    lock = _lock(path)
    try:
        lock.acquire(timeout=MOMENT)
        waited = False
    except Timeout:
        print(waiting(), file=sys.stderr)
        lock.acquire(poll_interval=0.2)
        waited = True
    try:
        yield waited
    finally:
        lock.release()


@contextmanager
def free(path: Path) -> Iterator[bool]:
    """Whether no other process has the lock ``path``; inside, none can have it. For a moment only."""
    lock = _lock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def _lock(path: Path) -> FileLock:
    path.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(path, is_singleton=False)
