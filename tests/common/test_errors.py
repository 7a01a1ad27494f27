"""How a stage ends: one line, the right status, and the command that restores committed results."""

import ast
import importlib
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from unittest.mock import patch

import pytest

from stages.common import errors
from stages.common.stage import run
from tests.project import ROOT, STAGES, TRAININGS


def end(body: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run ``body`` as the main function of a stage."""
    script = (
        "import os, signal\nfrom stages.common.errors import UserError, run\n"
        f"def main():\n    {body}\nrun(main)\n"
    )
    return subprocess.run(
        [sys.executable, "-c", script],
        cwd=folder,
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "GIT_CEILING_DIRECTORIES": str(folder.parent),
            **environment,
        },
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize(
    ("body", "status", "line"),
    [
        ("pass", 0, ""),
        ("raise UserError('what, and what to do')", 1, "error: what, and what to do\n"),
        ("open('none/file')", 1, "error: the system refused 'none/file': No such file or directory\n"),
        ("raise OSError('no number')", 1, "error: the system refused: no number\n"),
        ("os.kill(os.getpid(), signal.SIGTERM)", 143, "stopped: the same command continues\n"),
        ("os.kill(os.getpid(), signal.SIGINT)", 130, "stopped: the same command continues\n"),
        ("raise KeyboardInterrupt('after epoch 3')", 130, "after epoch 3\n"),
    ],
)
def test_status_and_line(body: str, status: int, line: str, tmp_path: Path) -> None:
    ended = end(body, tmp_path)
    assert (ended.returncode, ended.stderr, ended.stdout) == (status, line, "")


def test_a_mistake_of_ours_keeps_its_traceback(tmp_path: Path) -> None:
    ended = end("raise ValueError('ours')", tmp_path)
    assert ended.returncode == 1
    assert "Traceback" in ended.stderr


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A repository with committed metrics and plots."""
    for name in ("metrics/cnn.json", "plots/a.png", "params.yaml", "other.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("committed")
    git = ["git", "-c", "user.name=x", "-c", "user.email=x@x", "-c", "commit.gpgsign=false"]
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "x"]):
        subprocess.run([*git, *command], cwd=tmp_path, check=True)
    return tmp_path


def test_hint_only_where_committed_results_are_gone(checkout: Path) -> None:
    (checkout / "other.txt").unlink()
    (checkout / "metrics/new.json").touch()
    (checkout / "metrics/new.json").unlink()
    assert end("raise UserError('x')", checkout).stderr == "error: x\n"


@pytest.mark.parametrize("gone", [["metrics"], ["plots"], ["metrics", "plots"]])
@pytest.mark.parametrize(
    "body",
    [
        "raise UserError('x')",
        "open('none')",
        "raise KeyboardInterrupt('after epoch 3')",
        "os.kill(os.getpid(), signal.SIGTERM)",
    ],
)
def test_hint_restores_what_is_gone(gone: list[str], body: str, checkout: Path) -> None:
    for name in gone:
        shutil.rmtree(checkout / name)
    error = end(body, checkout).stderr
    command = f"git checkout -- {' '.join(gone)}"
    assert error.endswith(f" (to restore what is committed: {command})\n")
    assert error.count("\n") == 1
    subprocess.run(command.split(), cwd=checkout, check=True, capture_output=True)
    assert (checkout / "metrics/cnn.json").read_text() == "committed"
    assert (checkout / "plots/a.png").read_text() == "committed"


def test_hint_names_the_parameters_where_they_were_changed(checkout: Path) -> None:
    (checkout / "params.yaml").write_text("as -S wrote it")
    (checkout / "metrics/cnn.json").write_text("another's")
    line = "error: x (to restore what is committed: git checkout -- metrics params.yaml)\n"
    assert end("raise UserError('x')", checkout).stderr == line


def test_no_hint_in_a_temporary_copy(checkout: Path, tmp_path: Path) -> None:
    """An experiment of ``--temp`` or the queue: nobody works there."""
    copy = tmp_path / ".dvc/tmp/exps/standalone/tmpx"
    shutil.copytree(checkout, copy, ignore=shutil.ignore_patterns(".dvc"))
    shutil.rmtree(copy / "metrics")
    assert end("raise UserError('x')", copy).stderr == "error: x\n"
    (checkout / "params.yaml").unlink()
    assert "git checkout -- params.yaml" in end("raise UserError('x')", checkout).stderr


def test_hint_after_a_mistake_of_ours(checkout: Path) -> None:
    shutil.rmtree(checkout / "metrics")
    *_, error, hint = end("raise ValueError('ours')", checkout).stderr.splitlines()
    assert error == "ValueError: ours"
    assert hint == "(to restore what is committed: git checkout -- metrics)"


@pytest.mark.parametrize("stage", STAGES)
def test_arguments(
    stage: str, workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """``--help`` explains; anything else is refused. Neither trains."""
    module = importlib.import_module(f"stages.{stage}")
    monkeypatch.setitem(sys.modules, "__main__", module)
    with patch.object(sys, "argv", [stage, "--help"]), pytest.raises(SystemExit) as ended:
        run(module.main)
    assert ended.value.code == 0
    told = " ".join(capsys.readouterr().out.split())
    assert told.startswith(f"usage: python -m stages.{stage} [-h] {module.__doc__} options:")
    for wrong in (["--epochs", "3"], ["params.yaml", "-x"], ["--hel"]):
        with patch.object(sys, "argv", [stage, *wrong]), pytest.raises(SystemExit) as ended:
            run(module.main)
        assert ended.value.code == (
            f"error: unrecognized arguments: {' '.join(wrong)}: "
            f"python -m stages.{stage} has its parameters in params.yaml, and says with --help what it takes"
        )
    assert list(workplace.iterdir()) == []


@pytest.mark.parametrize("version", ["3.10.13", "3.7.16"])
def test_a_python_too_old_is_named(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = tuple(map(int, version.split(".")))
    monkeypatch.setattr(sys, "version_info", numbers)
    with pytest.raises(SystemExit) as ended:
        errors.refuse_old_python()
    assert str(ended.value.code).startswith(
        f"error: 'python' is {sys.executable}, Python {version}, but 3.11 to 3.14 is needed: activate"
    )
    for name in ("__init__", "common/__init__", "common/errors"):
        source = (ROOT / f"stages/{name}.py").read_text()
        ast.parse(source, feature_version=(numbers[0], numbers[1]))


def test_a_second_ctrl_c_while_a_stage_ends_changes_nothing(checkout: Path) -> None:
    shutil.rmtree(checkout / "metrics")
    git = checkout / "git"
    git.write_text(f'#!/bin/sh\nkill -INT $PPID\nexec {shutil.which("git")} "$@"\n')
    git.chmod(0o755)
    ended = end("raise KeyboardInterrupt", checkout, PATH=f"{checkout}{os.pathsep}{os.environ['PATH']}")
    hint = "to restore what is committed: git checkout -- metrics"
    assert (ended.returncode, ended.stderr) == (130, f"stopped: the same command continues ({hint})\n")


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("number", ["SIGINT", "SIGTERM"])
def test_stopped_while_the_libraries_are_imported(stage: str, number: str, tmp_path: Path) -> None:
    (tmp_path / "stages").symlink_to(ROOT / "stages")
    (tmp_path / "torch.py").write_text(f"import os, signal\nos.kill(os.getpid(), signal.{number})\n")
    ended = subprocess.run(
        [sys.executable, "-m", f"stages.{stage}"],
        cwd=tmp_path,
        env={**os.environ, "GIT_CEILING_DIRECTORIES": str(tmp_path.parent)},
        capture_output=True,
        text=True,
    )
    assert (ended.returncode, ended.stdout) == (-signal.Signals[number], "")
    assert ended.stderr == "stopped: the same command continues\n"


@pytest.mark.parametrize(
    ("body", "line"),
    [
        (
            "raise ImportError('libtorch.so: failed to map segment', name='torch._C')",
            r"memory ran out \(libtorch.so: failed to map segment\): lower .* \(ulimit -v\)",
        ),
        ("raise MemoryError", r"memory ran out \(MemoryError\): lower .*"),
        (
            "raise ImportError('no Tensor here', name='torch')",
            r"'python' is .*, Python 3.*, where 'torch' fails \(no Tensor here\): activate the .*",
        ),
    ],
)
def test_a_library_that_cannot_be_loaded(body: str, line: str, tmp_path: Path) -> None:
    (tmp_path / "stages").symlink_to(ROOT / "stages")
    (tmp_path / "torch.py").write_text(body)
    ended = subprocess.run(
        [sys.executable, "-m", "stages.train_cnn"], cwd=tmp_path, capture_output=True, text=True
    )
    assert ended.returncode == 1
    assert re.fullmatch(f"error: {line}\n", ended.stderr)


def test_other_exceptions_before_a_stage_keep_their_traceback(tmp_path: Path) -> None:
    (tmp_path / "stages").symlink_to(ROOT / "stages")
    (tmp_path / "torch.py").write_text("raise ImportError('no torch here')\n")
    command = [sys.executable, "-m", "stages.train_cnn"]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert ended.returncode == 1
    assert ended.stderr.startswith("Traceback")
    assert ended.stderr.endswith("ImportError: no torch here\n")


@pytest.mark.parametrize("stage", [*TRAININGS, "visualize_filters"])
def test_missing_data_ends_a_stage_with_one_line(stage: str, workplace: Path) -> None:
    shutil.copy(ROOT / "params.yaml", workplace)
    with pytest.raises(SystemExit) as ended:
        errors.run(importlib.import_module(f"stages.{stage}").main)
    assert ended.value.code == (
        "error: data/dataset.safetensors is missing: make it with 'dvc repro download'"
    )
    assert [path.name for path in workplace.iterdir()] == ["params.yaml"]


def test_no_git_no_hint(checkout: Path, tmp_path: Path) -> None:
    shutil.rmtree(checkout / "metrics")
    assert end("raise UserError('x')", checkout, PATH="").stderr == "error: x\n"


def test_terminated_while_working(tmp_path: Path) -> None:
    """SIGTERM from outside ends a stage as Ctrl-C would: what it holds is let go."""
    script = (
        "import time\nfrom stages.common.errors import run\n"
        "def main():\n    try:\n        print('ready', flush=True)\n        time.sleep(60)\n"
        "    finally:\n        print('let go', flush=True)\nrun(main)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGTERM)
        out, error = process.communicate(timeout=30)
    assert process.returncode == 143
    assert out == "let go\n"
    assert error == "stopped: the same command continues\n"
