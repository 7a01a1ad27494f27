"""The DVC that started this stage: once it has ended, nobody records what the stage writes."""

import os
import signal
import sys
import threading
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import PurePath
from typing import TYPE_CHECKING

from stages.common.errors import Terminated

if TYPE_CHECKING:
    import psutil

SECONDS = 1.0  # between two looks


class Parent:
    """DVC's process; ``process`` is None where it had ended before we could look."""

    def __init__(self, process: "psutil.Process | None") -> None:
        self.process = process

    def lives(self) -> bool:
        """Whether it still runs. One that has ended, but was not waited for, does not."""
        import psutil

        ended = (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
        try:  # is_running tells it from a later process with the same number
            return (
                self.process is not None and self.process.is_running() and self.process.status() not in ended
            )
        except psutil.NoSuchProcess:
            return False

    def check(self) -> None:
        """End the stage as SIGTERM does where DVC has ended.

        Raises:
            Terminated: it has.
        """
        if not self.lives():
            stop = Terminated()
            which = f" (process {self.process.pid})" if self.process else ""
            stop.reason = f"the DVC{which} that started this stage has ended: "
            raise stop


def find(arguments: Sequence[str], environment: Mapping[str, str]) -> Parent | None:
    """The DVC that runs this process as the stage that ``arguments`` name, or None: it was started by hand.

    DVC exports the stage's name as ``DVC_STAGE``, and runs the command through a shell. Some shells replace
    themselves by the command, others wait for it.
    """
    stage = environment.get("DVC_STAGE", "").rpartition(":")[2]
    module = f"stages.{stage}"
    if not stage or ("-m", module) not in pairwise(arguments):
        return None
    import psutil  # here, since only a stage under DVC needs it

    try:
        parent = psutil.Process().parent()
        words = parent.cmdline() if parent else []
        shell = "-c" in words and module in words[-1]
        if parent and shell:
            parent = parent.parent()
            words = parent.cmdline() if parent else []
    except psutil.NoSuchProcess:
        return Parent(None)
    except psutil.AccessDenied:
        return None
    if parent and any("dvc" in PurePath(word).name or "python" in PurePath(word).name for word in words[:3]):
        return Parent(parent)
    # the shell's parent, or ours, has ended or is the process that adopts orphans; anything else has exported
    # DVC_STAGE. A container's first process has no parent, 0
    orphan = shell or (parent.pid == 1 if parent else os.getppid() != 0)
    return Parent(None) if orphan else None


PARENT = find(sys.orig_argv, os.environ)


def check() -> None:
    """End the stage where the DVC that started it has ended.

    Raises:
        Terminated: it has.
    """
    if PARENT:
        PARENT.check()


def watch() -> None:
    """From now on end the stage, as SIGTERM does, within two seconds after its DVC has ended."""
    if PARENT:
        signal.signal(signal.SIGTERM, lambda *_: _stop())
        threading.Thread(target=_wait, args=(PARENT,), daemon=True).start()


def _stop() -> None:
    check()
    raise Terminated


def _wait(parent: Parent) -> None:
    pause = threading.Event()
    while parent.lives():
        pause.wait(SECONDS)
    if hasattr(signal, "pthread_kill"):  # interrupts what the main thread waits for
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)
    else:
        signal.raise_signal(signal.SIGTERM)
