import ast
import hashlib
import os
import pickle
import platform
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import chdir
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from stages import train_augmented, train_regularized
from stages.augmentation.transforms import augmentation
from stages.common import errors, record
from stages.common.params import load
from stages.networks.models import CNN
from stages.training import checkpoint as checkpoints
from stages.training import results, runtime
from stages.training import run as training_run
from stages.training import trainer as training
from stages.training.checkpoint import Checkpoint, differences, digest, runs_folder, tidy
from stages.training.optimization import Recipe
from stages.training.params import Train
from stages.training.trainer import Trainer
from tests.project import ROOT, accident, need_repository
from tests.tiny import CPU, largest_file, tiny_data, tiny_project, tiny_train

EVERYTHING = {
    "batch_norm": True,
    "dropout": 0.2,
    "averaging": 0.3,
    "one_cycle_peak": 0.02,
    "stronger_crop": 1,
    "muon": 0.04,
}
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
    """Holders and files half written."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return [path.name for path in files if path.suffix in (".holder", ".partial")]


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
        (Checkpoint, "save", 3),
        (training_run, "write_record", 3),
        (os, "replace", 12),
        (os, "fsync", 12),
        (results, "evaluate", 2),
        (results, "save_model", 1),
        (results, "write_csv", 1),
        (results, "write_json", 1),
        (record, "description", 1),
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
        "stronger_crop": 0,
        "muon": 0.0,
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


def test_the_stronger_crop_is_of_the_regularized_model_alone(workplace: Path) -> None:
    tiny_project(workplace, DATA, reg={"stronger_crop": 3}, aug={"crop_pad": 2})
    for stage, padding in ((train_augmented, 2), (train_regularized, 5)):
        trainer = stage.trainer(DATA, load(Train), CPU)
        assert trainer.images.transform.transforms[0].padding == padding


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
    with Interruption(Trainer, "step", 1, after=False):  # nor now: DVC has not recorded it
        train_regularized.main()


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
    assert sorted(file.suffix for file in Path("runs/checkpoints").iterdir()) == [".damaged", ".pt"]
    assert outputs(project) == uninterrupted


@pytest.mark.usefixtures("workplace")
def test_a_checkpoint_cannot_run_code() -> None:
    class Attack:
        def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
            return os.mkdir, ("attacked",)

    with Checkpoint.locked("model", {"code": "x"}) as held:
        held.save({"attack": Attack()}, 1)
        with pytest.raises(pickle.UnpicklingError):
            held.resume()
    assert not Path("attacked").exists()


def key(**changes: Any) -> str:
    """The key of a training in which ``changes`` were made."""
    settings: dict[str, Any] = {
        "data": DATA,
        "train": tiny_train(),
        "runtime": CPU,
        "transform": augmentation(2, 0.5),
        "recipe": Recipe(),
        "network": {},
        "weights": 0,
    } | changes
    torch.manual_seed(settings["weights"])
    model = CNN([[2]], **settings["network"])
    arguments = (settings[name] for name in ("data", "train", "runtime", "transform", "recipe"))
    return digest(Trainer(model, *arguments).identity)


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
        "label smoothing": key(recipe=Recipe(label_smoothing=0.1)),
        "weight decay": key(recipe=Recipe(weight_decay=0.1)),
        "schedule": key(recipe=Recipe(one_cycle_peak=0.1)),
        "averaging": key(recipe=Recipe(averaging=0.1)),
        "muon": key(recipe=Recipe(muon=0.1)),
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


def test_the_digests_are_those_of_the_code_that_was_loaded(tmp_path: Path) -> None:
    """Not of what stands in the files by now: an edit after the start is not what runs."""
    shutil.copytree(ROOT / "stages", tmp_path / "stages", ignore=shutil.ignore_patterns("__pycache__"))
    script = (
        "import pathlib, stages.train_cnn\n"
        "from stages.training.checkpoint import code_digests\n"
        "pathlib.Path('stages/training/trainer.py').write_text('edited')\n"
        "print(code_digests())\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    digests = ast.literal_eval(result.stdout)
    loaded = (ROOT / "stages/training/trainer.py").read_bytes()
    assert digests["stages/training/trainer.py"] == hashlib.md5(loaded).hexdigest()
    assert {"stages/__init__.py", "stages/common/record.py", "stages/networks/models.py"} <= digests.keys()
    assert not [name for name in digests if "augmentation" in name or "filters" in name]


@pytest.mark.usefixtures("workplace")
def test_a_second_holder_waits_and_is_told_for_whom(capfd: pytest.CaptureFixture[str]) -> None:
    identity, order = {"network": {"hidden": [8]}}, []

    def second() -> None:
        with Checkpoint.locked("model", identity) as held:
            order.append("second")
            assert held.waited

    with (
        Checkpoint.locked("model", identity) as held,
        Checkpoint.locked("model", {"network": {"hidden": [9]}}),
        Checkpoint.locked("new", identity),
    ):
        assert not held.waited
        thread = threading.Thread(target=second)
        thread.start()
        while "waits" not in (line := capfd.readouterr().err):
            time.sleep(0.01)
        order.append("first")
    thread.join()
    assert order == ["first", "second"]
    who = rf"process {os.getpid()} on {re.escape(platform.node())}"
    assert re.fullmatch(rf"model: waits for {who}, which trains this very model; Ctrl-C ends this\n", line)
    assert left_over(Path()) == []


def test_runs_stand_in_the_main_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    assert runs_folder() == tmp_path / "runs"
    with Checkpoint.locked("model", {}) as held:
        held.save({"weights": torch.ones(2), "history": [{"epoch": 1, "loss": 0.1}]}, 1)
        assert held.path.is_relative_to(tmp_path / "runs")
        state = held.resume()
    assert state is not None
    assert torch.equal(state["weights"], torch.ones(2))
    assert state["history"] == [{"epoch": 1, "loss": 0.1}]


def test_what_differs_between_two_trainings_is_named() -> None:
    then = {
        "train": {"epochs": 25, "seed": 0},
        "machine": {"threads": 2},
        "code": {"stages/a.py": "1", "stages/b.py": "2"},
        "images": "0",
    }
    assert differences(then, then) == ""
    assert differences(then, then | {"machine": {"threads": 1}}) == "machine.threads was 2, is 1"
    assert differences(then, then | {"code": {"stages/b.py": "3"}}) == (
        "stages/a.py was edited, stages/b.py was edited"
    )
    others = {"train": {"epochs": 3, "seed": 1}, "machine": {"threads": 1}, "code": {}, "images": "1"}
    assert differences(then, others) == (
        "train.epochs was 25, is 3, train.seed was 0, is 1, machine.threads was 2, is 1 and 3 more"
    )


def test_a_stopped_training_that_does_not_fit_is_named(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Interruption(Trainer, "step", 6, after=False), pytest.raises(KeyboardInterrupt):
        train_regularized.main()
    capsys.readouterr()
    with patch.object(torch, "get_num_threads", lambda: 3):
        train_regularized.main()
    threads = torch.get_num_threads()
    assert [line for line in capsys.readouterr().err.splitlines() if "fit" in line] == [
        "regularized: the checkpoint after epoch 1 does not fit "
        f"(machine.threads was {threads}, is 3): training starts over"
    ]


@pytest.mark.usefixtures("workplace")
def test_states_that_nobody_needs_are_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "MOST_OF_A_MODEL", 3)
    monkeypatch.setattr(checkpoints, "MOST_BYTES", 12_000)
    paths = []
    for number in range(6):
        with Checkpoint.locked("cnn", {"number": number}) as held:
            held.save({"weights": torch.zeros(1)}, 1)
            paths.append(held.path)
            os.utime(held.path, (1e9 + number, 1e9 + number))

    partials = [Path(f"runs/checkpoints/.cnn-{number}.pt.7.partial") for number in range(2)]
    for age, partial in zip((60, 7200), partials, strict=True):
        partial.write_text("half")
        os.utime(partial, (1e9 + 10 - age, 1e9 + 10 - age))

    def left() -> list[int]:
        return [number for number, path in enumerate(paths) if path.exists()]

    monkeypatch.setattr(time, "time", lambda: 1e9 + 10)
    with Checkpoint.locked("cnn", {"number": 0}):
        tidy()
    assert left() == [0, 3, 4, 5]  # the newest three, and one that another process has
    tidy()
    assert left() == [3, 4, 5]
    assert [partial.exists() for partial in partials] == [True, False]  # someone may be writing it
    with Checkpoint.locked("baseline", {}) as held:
        held.save({"weights": torch.zeros(2000)}, 1)
        large = held.path
    os.utime(large, (1e9 + 6, 1e9 + 6))
    tidy()
    assert large.exists()
    assert left() == [5]  # beyond what is kept in all, but the newest of its model
    monkeypatch.setattr(checkpoints, "recorded", lambda result, before: result["model_md5"] == "0")
    monkeypatch.setattr(checkpoints, "MOST_OF_A_MODEL", 1)
    with Checkpoint.locked("baseline", {"number": 1}) as held:
        held.save({"weights": torch.zeros(1)}, 1, {"model_md5": "0"})
    tidy()
    assert not held.path.exists()
    assert large.exists()  # what DVC has does not count
    monkeypatch.setattr(time, "time", lambda: 1e9 + checkpoints.LONGEST + 7)
    for lock in Path("runs/locks").iterdir():
        os.utime(lock, (1e9, 1e9))
    tidy()
    assert not list(Path("runs/checkpoints").iterdir())
    assert not list(Path("runs/locks").iterdir())


@pytest.mark.usefixtures("workplace")
def test_a_disk_that_is_too_full_is_told_before_the_first_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    tiny_project(Path(), DATA)
    usage = shutil.disk_usage(".")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with (
        patch.object(Trainer, "epoch", side_effect=AssertionError("it trains")),
        pytest.raises(SystemExit) as end,
    ):
        errors.run(train_augmented.main)
    assert re.match(r"error: runs/: the disk has 0 MB left, but \d+ MB are needed: free some", one_line(end))


@pytest.mark.usefixtures("workplace")
def test_memory_that_runs_out_ends_in_one_line() -> None:
    tiny_project(Path(), DATA)
    problems: list[Callable[[], Any]] = [
        lambda: torch.empty(2**50),  # what PyTorch itself raises
        lambda: np.empty(2**50),
        lambda: (_ for _ in ()).throw(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")),
    ]
    for problem in problems:
        with (
            patch.object(Trainer, "step", lambda *_, problem=problem: problem()),
            pytest.raises(SystemExit) as end,
        ):
            errors.run(train_augmented.main)
        assert one_line(end).startswith("error: memory ran out (")
        assert "lower train.batch_size" in one_line(end)


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
    shutil.rmtree(checkout / "runs/checkpoints")
    reached = 0
    for share in (0.1, 0.9):  # of the second epoch of each process
        process = start(checkout)
        processes.append(process)
        reached = wait_for_epoch(process)
        time.sleep(share * epoch)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert 2 <= reached < 6
    last = start(checkout)
    processes.append(last)
    _, log = last.communicate()
    assert last.returncode == 0, log
    assert "continues after epoch" in log
    assert outputs(checkout) == expected
    assert len(list((checkout / "runs/checkpoints").glob("*.pt"))) == 1  # kept until DVC has the result


@pytest.mark.slow
def test_killed_while_it_writes_it_ends_with_the_same_bytes(
    project: Path, uninterrupted: dict[str, bytes]
) -> None:
    (project / "stages").symlink_to(ROOT / "stages")
    for what, count, pattern, reached in (
        ("half", 1, r"\.pt\.\d+\.partial$", 0),
        ("kill", 2, r"\.pt$", 0),
        ("half", 1, "confusion.csv", 1),
        ("kill", 1, "metrics/regularized", 2),
    ):
        process = start(project, **accident(what, count, pattern))
        _, log = process.communicate()
        assert process.returncode == -(signal.SIGKILL if what == "kill" else signal.SIGXFSZ), log
        assert re.findall(r"(?:continues|ended) after epoch (\d)", log) == ([str(reached)] if reached else [])
    last = start(project)
    _, log = last.communicate()
    assert last.returncode == 0, log
    assert "takes the training that has ended after epoch 2" in log
    found = outputs(project)  # and what was half written
    assert {name: found[name] for name in uninterrupted} == uninterrupted


def test_git_does_not_see_what_a_killed_process_left_half_written() -> None:
    need_repository()
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
def test_of_two_processes_one_trains_and_both_have_the_result(
    checkout: Path, tmp_path: Path, processes: list["subprocess.Popen[str]"]
) -> None:
    """Each in a folder of its own, as DVC's experiments are; the first is killed, the second goes on."""
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(checkout, elsewhere, symlinks=True)
    first = start(checkout, DVC_ROOT=str(checkout))
    processes.append(first)
    wait_for_epoch(first)
    first.send_signal(signal.SIGSTOP)
    others = [start(elsewhere, DVC_ROOT=str(checkout)) for _ in range(2)]
    processes += others
    for process in others:
        assert process.stderr is not None
        line = next(line for line in process.stderr if "waits" in line)
        assert f"waits for process {first.pid} on" in line
    others[1].send_signal(signal.SIGINT)  # the waiting can be ended
    others[1].communicate()
    assert others[1].returncode == 130
    first.send_signal(signal.SIGKILL)
    _, log = others[0].communicate()
    assert others[0].returncode == 0, log
    assert re.search(r"continues after epoch \d", log)
    assert set(outputs(elsewhere)) >= {"models/regularized.safetensors", "metrics/regularized.json"}
    last = start(checkout, DVC_ROOT=str(checkout))
    processes.append(last)
    _, log = last.communicate()
    assert last.returncode == 0, log
    assert "takes the training that has ended after epoch 6" in log
    assert outputs(checkout) == outputs(elsewhere)
