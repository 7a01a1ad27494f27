import os
import pickle
import platform
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import chdir
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import patch

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from stages import train_augmented, train_regularized
from stages.augmentation.transforms import augmentation
from stages.common import errors
from stages.common.errors import UserError
from stages.networks.models import CNN
from stages.training import results, runtime
from stages.training import run as training_run
from stages.training import trainer as training
from stages.training.checkpoint import Checkpoint, code_digests, runs_folder
from stages.training.optimization import Regularization
from stages.training.trainer import Trainer
from tests.project import ROOT, accident
from tests.tiny import CPU, largest_file, tiny_data, tiny_project, tiny_train

EVERYTHING = {"batch_norm": True, "dropout": 0.2, "averaging": 0.3, "one_cycle_peak": 0.02}
DATA = tiny_data(train=64, test=40, validation=20)


def outputs(folder: Path) -> dict[str, bytes]:
    """Every tracked output below ``folder``."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for part in ("models", "metrics", "plots")
        for path in sorted((folder / part).rglob("*"))
        if path.is_file()
    }


def left_over(folder: Path) -> list[str]:
    """Checkpoints, holders and files half written."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return [path.name for path in files if path.suffix in (".pt", ".holder", ".partial")]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("uninterrupted")
    tiny_project(folder, DATA, reg=EVERYTHING)
    with chdir(folder), patch.dict(os.environ):
        os.environ.pop("DVC_ROOT", None)
        train_regularized.main()
    assert left_over(folder) == []
    return outputs(folder)


@pytest.fixture
def project(workplace: Path) -> Path:
    tiny_project(workplace, DATA, reg=EVERYTHING)
    return workplace


class Interruption:
    """Calls a function until its ``count``-th call, which is interrupted before or after its work."""

    def __init__(self, owner: Any, name: str, count: int, after: bool) -> None:
        self.owner, self.name, self.count, self.after = owner, name, count, after

    def __repr__(self) -> str:
        return f"{'after' if self.after else 'before'} call {self.count} of {self.name}"

    def __enter__(self) -> None:
        original, calls = getattr(self.owner, self.name), 0

        def interrupted(*args: Any, **kwargs: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == self.count and not self.after:
                raise KeyboardInterrupt
            result = original(*args, **kwargs)
            if calls == self.count:
                raise KeyboardInterrupt
            return result

        self.patch = patch.object(self.owner, self.name, interrupted)
        self.patch.start()

    def __exit__(self, *_: object) -> None:
        self.patch.stop()


def interruptions() -> st.SearchStrategy[Interruption]:
    places = [
        (Trainer, "step", 8),
        (training, "evaluate", 4),
        (Checkpoint, "save", 2),
        (training_run, "write_record", 3),
        (os, "replace", 12),
        (os, "fsync", 12),
        (results, "evaluate", 2),
        (results, "save_model", 1),
        (results, "write_csv", 1),
        (results, "write_json", 1),
        (Checkpoint, "delete", 1),
    ]
    return st.one_of(
        [
            st.builds(Interruption, st.just(owner), st.just(name), st.integers(1, calls), st.booleans())
            for owner, name, calls in places
        ]
    )


@settings(max_examples=20)
@given(stops=st.lists(interruptions(), min_size=1, max_size=3))
def test_interrupted_anywhere_and_started_again_it_ends_with_the_same_bytes(
    uninterrupted: dict[str, bytes], stops: list[Interruption]
) -> None:
    with tempfile.TemporaryDirectory() as name, chdir(name), patch.dict(os.environ):
        os.environ.pop("DVC_ROOT", None)
        folder = Path(name)
        tiny_project(folder, DATA, reg=EVERYTHING)
        for stop in stops:
            try:
                with stop:
                    train_regularized.main()
            except KeyboardInterrupt:
                pass
        train_regularized.main()
        assert outputs(folder) == uninterrupted
        assert left_over(folder) == []


def test_it_goes_on_after_the_last_whole_epoch(
    project: Path, uninterrupted: dict[str, bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    with Interruption(Trainer, "step", 6, after=False), pytest.raises(SystemExit) as end:
        errors.run(train_regularized.main)
    assert end.value.code == 130
    *_, last = capsys.readouterr().err.splitlines()
    assert last == "regularized: stopped after epoch 1 of 2; the same command continues from there"
    steps: list[Tensor] = []
    step = Trainer.step

    def counted(self: Trainer, batch: Tensor) -> Tensor:
        steps.append(batch)
        return step(self, batch)

    with patch.object(Trainer, "step", counted):
        train_regularized.main()
    assert len(steps) == 4
    assert "regularized: continues after epoch 1\n" in capsys.readouterr().err
    assert outputs(project) == uninterrupted


def test_other_parameters_do_not_continue_an_old_run(
    project: Path, uninterrupted: dict[str, bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    with Interruption(Trainer, "step", 6, after=False), pytest.raises(KeyboardInterrupt):
        train_regularized.main()
    tiny_project(project, DATA, reg=EVERYTHING | {"weight_decay": 0.5})
    train_regularized.main()
    assert "continues" not in capsys.readouterr().err
    assert outputs(project) != uninterrupted
    tiny_project(project, DATA, reg=EVERYTHING)
    train_regularized.main()
    assert "continues after epoch 1" in capsys.readouterr().err
    assert outputs(project) == uninterrupted


@pytest.mark.usefixtures("workplace")
def test_all_methods_off_gives_the_files_of_the_augmented_model(workplace: Path) -> None:
    off = {
        "batch_norm": False,
        "dropout": 0.0,
        "weight_decay": 0.0,
        "label_smoothing": 0.0,
        "one_cycle_peak": None,
        "averaging": 0.0,
    }
    tiny_project(workplace, DATA, reg=off, aug={"brightness": 0.1})
    train_augmented.main()
    train_regularized.main()
    for path in (
        "models/{}.safetensors",
        "metrics/{}.json",
        "plots/{}/confusion.csv",
        "metrics/predictions/{}.json",
    ):
        augmented, regularized = (Path(path.format(name)) for name in ("augmented", "regularized"))
        assert augmented.read_bytes() == regularized.read_bytes()


def one_line(end: pytest.ExceptionInfo[SystemExit]) -> str:
    """The message with which a stage ended: Python prints it on standard error, with status 1."""
    message = end.value.code
    assert isinstance(message, str)
    assert "\n" not in message
    assert message.startswith("error: ")
    return message


def test_a_disk_that_is_full_for_the_checkpoint(project: Path, uninterrupted: dict[str, bytes]) -> None:
    with largest_file(3000), pytest.raises(SystemExit) as end:
        errors.run(train_regularized.main)
    message = one_line(end)
    assert "runs/checkpoints/regularized-" in message
    assert "File too large" in message
    assert left_over(project) == []
    train_regularized.main()
    assert outputs(project) == uninterrupted


def test_a_disk_that_is_full_for_the_model(project: Path, uninterrupted: dict[str, bytes]) -> None:
    with Interruption(results, "save_model", 1, after=False), pytest.raises(KeyboardInterrupt):
        train_regularized.main()
    with largest_file(3000), pytest.raises(SystemExit) as end:
        errors.run(train_regularized.main)
    assert "'models/regularized.safetensors': File too large" in one_line(end)
    assert not Path("models/regularized.safetensors").exists()
    with Interruption(Trainer, "step", 1, after=False):  # nothing is left to train
        train_regularized.main()
    assert outputs(project) == uninterrupted
    assert left_over(project) == []


@pytest.mark.parametrize("folder", ["models", "metrics", "plots", "runs"])
def test_a_file_where_a_directory_belongs(
    project: Path, uninterrupted: dict[str, bytes], folder: str
) -> None:
    Path(folder).write_text("in the way")
    with pytest.raises(SystemExit) as end:
        errors.run(train_regularized.main)
    assert f"'{folder}" in one_line(end)
    Path(folder).unlink()
    train_regularized.main()
    assert outputs(project) == uninterrupted


def flip_a_byte(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


@pytest.mark.parametrize(
    "damage",
    [
        flip_a_byte,
        lambda content: content[:-1],
        lambda content: content[:10],
        lambda content: b"",
        lambda content: b"other" + content,
    ],
)
def test_a_damaged_checkpoint_is_put_aside(
    project: Path,
    uninterrupted: dict[str, bytes],
    capsys: pytest.CaptureFixture[str],
    damage: Callable[[bytes], bytes],
) -> None:
    with Interruption(Trainer, "step", 6, after=False), pytest.raises(KeyboardInterrupt):
        train_regularized.main()
    (path,) = Path("runs/checkpoints").iterdir()
    path.write_bytes(damage(path.read_bytes()))
    capsys.readouterr()
    train_regularized.main()
    lines = capsys.readouterr().err.splitlines()
    assert len([line for line in lines if "damaged" in line]) == 1
    assert [file.suffix for file in Path("runs/checkpoints").iterdir()] == [".damaged"]
    assert outputs(project) == uninterrupted


@pytest.mark.usefixtures("workplace")
def test_a_checkpoint_cannot_run_code() -> None:
    class Attack:
        def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
            return os.mkdir, ("attacked",)

    with Checkpoint.locked("model", "key") as held:
        held.save({"attack": Attack()})
        with pytest.raises(pickle.UnpicklingError):
            held.load()
    assert not Path("attacked").exists()


def key(**changes: Any) -> str:
    """The key of a training in which ``changes`` were made."""
    settings: dict[str, Any] = {
        "data": DATA,
        "train": tiny_train(),
        "runtime": CPU,
        "transform": augmentation(2, 0.5),
        "regularization": Regularization(),
        "network": {},
        "weights": 0,
    } | changes
    torch.manual_seed(settings["weights"])
    model = CNN([[2]], **settings["network"])
    arguments = (settings[name] for name in ("data", "train", "runtime", "transform", "regularization"))
    return Trainer(model, *arguments).key


def changed(tensor: Tensor) -> Tensor:
    """``tensor`` with its last value changed by one."""
    result = tensor.clone()
    result.view(-1)[-1] += 1
    return result


def test_everything_that_determines_the_result_is_in_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    train, test, validation = DATA.train, DATA.test, DATA.validation
    assert validation is not None
    keys = {
        "nothing": key(),
        "epochs": key(train=tiny_train(epochs=3)),
        "batch size": key(train=tiny_train(batch_size=8)),
        "learning rate": key(train=tiny_train(learning_rate=0.02)),
        "betas": key(train=tiny_train(betas=[0.9, 0.96])),
        "seed": key(train=tiny_train(seed=1)),
        "initial weights": key(weights=1),
        "kernel": key(network={"kernel_size": 5}),
        "padding": key(network={"padding": "same"}),
        "batch norm": key(network={"batch_norm": True}),
        "dropout": key(network={"dropout": 0.1}),
        "no augmentation": key(transform=None),
        "crop": key(transform=augmentation(3, 0.5, 0.0)),
        "flip": key(transform=augmentation(2, 0.4, 0.0)),
        "brightness": key(transform=augmentation(2, 0.5, 0.1)),
        "extra": key(transform=augmentation(2, 0.5, extra=[{"RandomErasing": {"p": 0.2}}])),
        "extra's argument": key(transform=augmentation(2, 0.5, extra=[{"RandomErasing": {"p": 0.3}}])),
        "label smoothing": key(regularization=Regularization(label_smoothing=0.1)),
        "weight decay": key(regularization=Regularization(weight_decay=0.1)),
        "schedule": key(regularization=Regularization(one_cycle_peak=0.1)),
        "averaging": key(regularization=Regularization(averaging=0.1)),
        "precision": key(runtime=replace(CPU, precision="bf16")),
        "device": key(runtime=replace(CPU, device=torch.device("cpu:0"))),
        "a pixel": key(data=replace(DATA, train=replace(train, images=changed(train.images)))),
        "a label": key(data=replace(DATA, train=replace(train, labels=changed(train.labels)))),
        "a test pixel": key(data=replace(DATA, test=replace(test, images=changed(test.images)))),
        "a validation label": key(
            data=replace(DATA, validation=replace(validation, labels=changed(validation.labels)))
        ),
        "no validation": key(data=replace(DATA, validation=None)),
        "mean": key(data=replace(DATA, mean=changed(DATA.mean))),
        "deviation": key(data=replace(DATA, std=changed(DATA.std))),
    }
    for name, owner, value in (
        ("threads", torch, "get_num_threads"),
        ("versions of libraries", runtime, "version"),
        ("version of Python", platform, "python_version"),
        ("instructions", torch.backends.cpu, "get_cpu_capability"),
        ("code", training, "code_digests"),
    ):
        with monkeypatch.context() as patched:
            patched.setattr(owner, value, lambda *_: "another")
            keys[name] = key()
    assert key() == keys["nothing"]
    assert len(set(keys.values())) == len(keys)


def test_the_digests_follow_the_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "new.py"
    source.write_text("one = 1\n")
    module = ModuleType("stages.common.new")
    module.__file__ = str(source)
    monkeypatch.setitem(sys.modules, "stages.common.new", module)
    before = code_digests()
    source.write_text("one = 2\n")
    after = code_digests()
    assert {name for name in after if before[name] != after[name]} == {"stages.common.new"}
    loaded = {name for name in sys.modules if name.startswith("stages.")}
    assert loaded <= after.keys()


@pytest.mark.usefixtures("workplace")
def test_a_second_holder_is_refused_and_told_who_holds() -> None:
    with (
        Checkpoint.locked("model", "key"),
        pytest.raises(UserError, match=rf"^process {os.getpid()} on .* is training this very model"),
        Checkpoint.locked("model", "key"),
    ):
        pass
    with (
        Checkpoint.locked("model", "key"),
        Checkpoint.locked("model", "other"),
        Checkpoint.locked("new", "key"),
    ):
        pass
    assert left_over(Path()) == []


def test_runs_stand_in_the_main_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    assert runs_folder() == tmp_path / "runs"
    with Checkpoint.locked("model", "key") as held:
        held.save({"weights": torch.ones(2), "history": [{"epoch": 1, "loss": 0.1}]})
        assert held.path.is_relative_to(tmp_path / "runs")
        state = held.load()
    assert state is not None
    assert torch.equal(state["weights"], torch.ones(2))
    assert state["history"] == [{"epoch": 1, "loss": 0.1}]
    held.delete()
    assert held.load() is None


# Real processes


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A working directory with the code, and data for some seconds of training."""
    (tmp_path / "stages").symlink_to(ROOT / "stages")
    data = tiny_data(train=1600, test=200)
    tiny_project(tmp_path, data, reg=EVERYTHING, train={"epochs": 6}, cnn={"blocks": [[16, 16], [16]]})
    return tmp_path


def start(folder: Path, **environment: str) -> "subprocess.Popen[str]":
    own = {name: value for name, value in os.environ.items() if name != "DVC_ROOT"}
    return subprocess.Popen(
        [sys.executable, "-m", "stages.train_regularized"],
        cwd=folder,
        stderr=subprocess.PIPE,
        text=True,
        env=own | environment,
    )


def wait_for_epoch(process: "subprocess.Popen[str]") -> int:
    """Read standard error up to the line of the next epoch; its number."""
    assert process.stderr is not None
    for line in process.stderr:
        epoch = re.search(r"epoch (\d+)/", line)
        if epoch:
            return int(epoch[1])
    raise AssertionError("the stage ended")


@pytest.fixture
def processes() -> Iterator[list["subprocess.Popen[str]"]]:
    """Processes that end with the test."""
    started: list[subprocess.Popen[str]] = []
    yield started
    for process in started:
        process.kill()
        process.wait()


@pytest.mark.slow
def test_killed_at_any_moment_it_ends_with_the_same_bytes(
    checkout: Path, processes: list["subprocess.Popen[str]"]
) -> None:
    whole = start(checkout)
    processes.append(whole)
    first = wait_for_epoch(whole)
    began = time.monotonic()
    assert wait_for_epoch(whole) == first + 1
    epoch = time.monotonic() - began
    _, log = whole.communicate()
    assert whole.returncode == 0, log
    expected = outputs(checkout)
    for path in expected:
        (checkout / path).unlink()
    reached = 0
    for share in (0.0, 0.4, 0.9):  # of the second epoch of each process
        process = start(checkout)
        processes.append(process)
        reached = wait_for_epoch(process)
        time.sleep(share * epoch)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert 3 <= reached < 6
    last = start(checkout)
    processes.append(last)
    _, log = last.communicate()
    assert last.returncode == 0, log
    assert "continues after epoch" in log
    assert outputs(checkout) == expected
    # a .partial may be there, from a kill in the middle of writing
    assert not list((checkout / "runs/checkpoints").glob("*.pt"))


@pytest.mark.slow
def test_killed_while_it_writes_it_ends_with_the_same_bytes(
    project: Path, uninterrupted: dict[str, bytes]
) -> None:
    (project / "stages").symlink_to(ROOT / "stages")
    for what, count, pattern, reached in (
        ("half", 1, r"\.pt\.\d+\.partial$", 0),
        ("half", 2, r"\.pt\.\d+\.partial$", 0),
        ("kill", 1, r"\.pt$", 1),
        ("kill", 1, "models/regularized", 1),
        ("half", 1, "confusion.csv", 2),
        ("kill", 1, "metrics/regularized", 2),
    ):
        process = start(project, **accident(what, count, pattern))
        _, log = process.communicate()
        assert process.returncode == -(signal.SIGKILL if what == "kill" else signal.SIGXFSZ), log
        assert re.findall(r"continues after epoch (\d)", log) == ([str(reached)] if reached else [])
    last = start(project)
    _, log = last.communicate()
    assert last.returncode == 0, log
    assert "continues after epoch 2" in log
    found = outputs(project)  # and what was half written
    assert {name: found[name] for name in uninterrupted} == uninterrupted
    assert [
        path.suffix for path in (project / "runs/checkpoints").iterdir() if path.suffix != ".partial"
    ] == []


def test_git_does_not_see_what_a_killed_process_left_half_written() -> None:
    names = [f"{folder}/.x.1.partial" for folder in ("metrics", "plots/cnn", "plots/filters", "models")]
    ignored = subprocess.run(["git", "check-ignore", *names], cwd=ROOT, capture_output=True, text=True)
    assert ignored.stdout.split() == names


@pytest.mark.slow
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_stage_with_one_line(
    checkout: Path, processes: list["subprocess.Popen[str]"], number: signal.Signals, status: int
) -> None:
    first = start(checkout)
    processes.append(first)
    wait_for_epoch(first)
    first.send_signal(number)
    _, log = first.communicate()
    assert first.returncode == status
    *epochs, last = log.splitlines()
    assert re.fullmatch(
        r"regularized: stopped after epoch \d of 6; the same command continues from there", last
    )
    assert all(re.search(r"epoch \d/6", line) for line in epochs)


@pytest.mark.slow
def test_two_processes_never_train_the_same_model(
    checkout: Path, processes: list["subprocess.Popen[str]"]
) -> None:
    first = start(checkout)
    processes.append(first)
    wait_for_epoch(first)
    first.send_signal(signal.SIGSTOP)
    second = start(checkout)
    processes.append(second)
    _, log = second.communicate()
    assert second.returncode == 1
    *_, last = log.splitlines()
    assert re.match(rf"error: process {first.pid} on \S+ is training this very model", last)
    assert "Traceback" not in log
    first.send_signal(signal.SIGCONT)
    _, log = first.communicate()
    assert first.returncode == 0, log
