"""Whether the DVC that started a stage still lives, with real processes."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from stages.common import parent
from stages.common.errors import Terminated
from tests.project import ROOT

ARGUMENTS = [sys.executable, "-m", "stages.train_cnn"]


class Process:
    """A stand-in for psutil's: its command line, and its parent."""

    def __init__(self, *words: str, above: "Process | None" = None, pid: int = 100) -> None:
        self.words, self.above, self.pid = words, above, pid

    def cmdline(self) -> list[str]:
        return list(self.words)

    def parent(self) -> "Process | None":
        return self.above


DVC = Process("/env/bin/python", "/env/bin/dvc", "repro")
SHELL = ("/bin/dash", "-c", "python -m stages.train_cnn")
INIT = Process("/sbin/init", pid=1)


@pytest.mark.parametrize(
    ("above", "stage", "found"),
    [
        (DVC, "train_cnn", DVC),
        (Process(*SHELL, above=DVC), "train_cnn", DVC),
        (Process(*SHELL, above=DVC), "hw3/dvc.yaml:train_cnn", DVC),
        (Process("/usr/bin/dvc", "exp", "run"), "train_cnn", "above"),
        (Process("python", "-m", "ipykernel_launcher"), "train_cnn", "above"),  # DVC in a notebook
        (Process("dvc", "repro", pid=1), "train_cnn", "above"),  # of a container
        (INIT, "train_cnn", "ended"),
        (Process(*SHELL, above=INIT), "train_cnn", "ended"),
        (Process(*SHELL, above=Process("/lib/systemd/systemd", "--user")), "train_cnn", "ended"),
        (Process("bash"), "train_cnn", None),  # someone has exported DVC_STAGE
        (Process("bash", above=DVC), "", None),
        (INIT, "", None),
        (DVC, "train_baseline", None),
    ],
)
def test_who_has_started_it(
    above: Process, stage: str, found: Process | str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(psutil, "Process", lambda: Process(*ARGUMENTS, above=above))
    answer = parent.find(ARGUMENTS, {"DVC_STAGE": stage})
    if found is None:
        assert answer is None
    else:
        assert answer is not None
        assert answer.process == {"above": above, "ended": None}.get(str(found), found)


@pytest.mark.parametrize(("number", "found"), [(0, False), (7, True)])
def test_without_a_parent(number: int, found: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first process of a container has none; that of another has just ended."""
    monkeypatch.setattr(psutil, "Process", lambda: Process(*ARGUMENTS))
    monkeypatch.setattr(os, "getppid", lambda: number)
    answer = parent.find(ARGUMENTS, {"DVC_STAGE": "train_cnn"})
    assert (answer is not None) == found
    assert not (answer and answer.process)


def test_other_processes_have_no_dvc() -> None:
    for arguments in (["python", "-m", "tools.report"], ["python", "-c", "x"], ["python", "-m"], ["pytest"]):
        assert parent.find(arguments, {"DVC_STAGE": "train_cnn"}) is None


@pytest.fixture
def child() -> Iterator["subprocess.Popen[bytes]"]:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as process:
        yield process
        process.kill()


def test_one_that_has_ended_but_was_not_waited_for_does_not_live(child: "subprocess.Popen[bytes]") -> None:
    dvc = parent.Parent(psutil.Process(child.pid))
    assert dvc.lives()
    dvc.check()
    child.kill()
    while psutil.Process(child.pid).status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.01)
    assert not dvc.lives()
    with pytest.raises(Terminated) as stop:
        dvc.check()
    assert stop.value.reason == f"the DVC (process {child.pid}) that started this stage has ended: "
    child.wait()
    assert not dvc.lives()


SCRIPT = """
import os, pathlib, psutil, sys, time
from stages.common import errors, parent, files
parent.PARENT = parent.Parent(psutil.Process(int(sys.argv[1])))
def main():
    parent.watch()
    print("ready", flush=True)
    if sys.argv[2] == "sleep":
        time.sleep(60)
    sys.stdin.readline()
    files.write_bytes(pathlib.Path("result"), b"mine")
if sys.argv[2] == "write":
    parent.SECONDS = 60
errors.run(main)
"""


@pytest.mark.parametrize("how", ["sleep", "write"])
def test_it_ends_soon_and_writes_nothing(how: str, tmp_path: Path, child: "subprocess.Popen[bytes]") -> None:
    """Also where another run has written meanwhile, and before the stage has looked for its DVC again."""
    command = [sys.executable, "-c", SCRIPT, str(child.pid), how]
    with subprocess.Popen(
        command,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "GIT_CEILING_DIRECTORIES": str(tmp_path.parent)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as stage:
        assert stage.stdout is not None
        assert stage.stdout.readline() == "ready\n"
        child.send_signal(signal.SIGKILL)
        child.wait()
        (tmp_path / "result").write_text("another run's")
        _, log = stage.communicate("go\n", timeout=20)
    assert stage.returncode == 143
    assert log == (
        f"the DVC (process {child.pid}) that started this stage has ended: "
        "stopped: the same command continues\n"
    )
    assert (tmp_path / "result").read_text() == "another run's"
