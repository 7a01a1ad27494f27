"""A trial's processes and settings, without trainings."""

import os
import re
import signal
import sys
import time
from pathlib import Path
from typing import BinaryIO

import pytest
from configobj import ConfigObj

from stages.common.errors import UserError
from sweeps import trial
from sweeps.trial import OF_THE_SETTING, Checkout, dvc, guarded
from tests.project import ROOT
from tests.sweeps.support import gone, processes

ASKING = """
import sys
from subprocess import DEVNULL
from sweeps.trial import guarded
from tools.git import git
open("/dev/tty").close()  # there is a terminal
command = ["sh", "-c", "read x </dev/tty"]
with guarded(command, stderr=DEVNULL) as process:
    assert process.wait()
assert git("ls-remote", "ssh://host/x").returncode
print("nothing asked")
"""


def test_nothing_asks_at_the_terminal() -> None:
    """Neither what runs in a trial nor Git, of which ssh is a stand-in that asks for a password."""
    import pty  # not on Windows

    child, terminal = pty.fork()
    if not child:
        os.chdir(ROOT)
        os.environ["GIT_SSH_COMMAND"] = "sh -c 'read x </dev/tty'"
        os.execv(sys.executable, [sys.executable, "-c", ASKING])
    said, end = b"", time.monotonic() + 30
    os.set_blocking(terminal, False)
    while b"nothing asked" not in said and time.monotonic() < end:
        try:
            said += os.read(terminal, 1000)
        except BlockingIOError:
            time.sleep(0.05)
        except OSError:  # it has ended
            break
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert b"nothing asked" in said, said


def test_a_process_ends_with_what_guards_it(tmp_path: Path) -> None:
    with guarded(["sh", "-c", "sleep 60 & wait"], cwd=tmp_path) as process:
        while "sleep 60 " not in processes(tmp_path):
            time.sleep(0.01)
    assert process.returncode == -signal.SIGKILL
    assert gone(tmp_path, seconds=30)  # on a busy machine what is killed takes a moment to end
    with guarded(["sh", "-c", "exit 3"]) as process:
        assert process.wait() == 3


def test_a_log_that_another_worker_removes_stays_readable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial, "DVC", (sys.executable, "-c", "import sys; sys.exit('error: ' + sys.argv[1])"))
    log = tmp_path / "kept/log"
    seen = []

    def look(_: Path, said: BinaryIO) -> None:
        log.unlink(missing_ok=True)
        seen.append(said.read())

    with pytest.raises(UserError, match=r"^said$"):
        dvc(tmp_path, log, "said", look=look)
    assert seen


@pytest.mark.parametrize(
    ("words", "whose"),
    [
        ("after epoch 3 {'train_loss': nan} is not finite: lower train.learning_rate", "setting"),
        ("the loss became nan in epoch 1, batch 2 of 390: lower train.learning_rate", "setting"),
        ("train.batch_size is 99, but must be at most the number of training images, 50", "setting"),
        ("params.yaml: reg.dropout is 2, but must be a number from 0 to 1", "setting"),
        ("memory ran out (CUDA out of memory): lower train.batch_size", "machine"),
        ("the system refused 'runs/x': No space left on device", "machine"),
        ("data/cifar10.safetensors is no data set of this project (x): delete it", "machine"),
        ("stages/run.py changed while it ran: put it back", "machine"),
        ("train.device is cuda, but torch finds no GPU here: use auto or cpu", "machine"),
        ("dvc exp failed: a name, but must be another", "machine"),
        ("dvc exp failed: status -9 (log has all)", "machine"),
    ],
)
def test_whose_words_are_whose(words: str, whose: str) -> None:
    assert bool(OF_THE_SETTING.match(words)) == (whose == "setting")


@pytest.mark.parametrize(
    ("file", "words"),
    [
        ("training/trainer.py", r"is not finite: \{"),
        ("training/trainer.py", r"the loss became \{"),
        ("training/trainer.py", ", but must be at most the number"),
        ("common/params.py", ", but must be "),
        ("download.py", ", but must be at most"),
    ],
)
def test_the_stages_say_so(file: str, words: str) -> None:
    assert re.search(words, (ROOT / "stages" / file).read_text())


def test_dvcs_settings_hold_in_a_clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here, clone = tmp_path / "here", tmp_path / "clone"
    for folder in (here, clone):
        (folder / ".dvc").mkdir(parents=True)
    (here / ".dvc/config").write_text(
        "[core]\n    remote = s\n['remote \"s\"']\n    url = ../store\n    profile = mü%(x)s\n"
    )
    (here / ".dvc/config.local").write_text(
        "[cache]\n    dir = cache2\n['remote \"s\"']\n    credentialpath = keys/a\n    keyfile = ~/k\n"
        "['remote \"t\"']\n    url = s3://bucket/x\n['remote \"u\"']\n    url = a, b\n"
    )
    monkeypatch.chdir(here)
    Checkout("x", "", None, tmp_path).share(clone)
    made = ConfigObj(str(clone / ".dvc/config.local"), encoding="utf-8", interpolation=False)
    assert made.dict() == {
        "core": {"remote": "s"},
        "cache": {"dir": f"{here}/.dvc/cache2"},
        'remote "s"': {
            "url": f"{here}/.dvc/../store",
            "profile": "mü%(x)s",
            "credentialpath": f"{here}/.dvc/keys/a",
            "keyfile": "~/k",
        },
        'remote "t"': {"url": "s3://bucket/x"},
        'remote "u"': {"url": ["a", "b"]},
    }


def test_the_temporary_folder_of_another_user_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sweeps.trial.gettempdir", lambda: str(tmp_path))
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / f"sweeps-{os.getuid()}").symlink_to("elsewhere")
    checkout = Checkout("x", "", None, tmp_path)
    with pytest.raises(UserError, match="is another user's: set TMPDIR"), checkout.clone("x"):
        pass


def test_an_experiment_is_named_by_all_that_makes_it() -> None:
    checkout = Checkout.__new__(Checkout)
    checkout.name = "find"
    given = {"reg.dropout": 0.1, "train.seed": 3}
    name = checkout.experiment("0001", given, ["train_cnn"])
    assert re.fullmatch(r"find-0001-s3-[0-9a-f]{6}", name)
    assert checkout.experiment("0001", dict(reversed(given.items())), ["train_cnn"]) == name
    others = (
        checkout.experiment("0001", given | {"reg.dropout": 0.2}, ["train_cnn"]),
        checkout.experiment("0001", given | {"reg.dropout": None}, ["train_cnn"]),
        checkout.experiment("0001", given, ["train_cnn", "train_augmented"]),
    )
    assert len({name, *others}) == 4
