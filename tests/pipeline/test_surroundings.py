"""The project without Git, and as a folder of a larger repository, with the real commands on tiny data."""

import csv
import sys
from pathlib import Path

import pytest

from tests.project import TINY, command, copy_files, dvc, executed, make_repository

pytestmark = pytest.mark.slow
NO_GIT = str(Path(sys.executable).parent)  # as a PATH


def test_a_source_tree_on_a_machine_without_git(tmp_path: Path) -> None:
    copy_files(tmp_path, TINY)
    dvc(tmp_path, "config", "--local", "core.no_scm", "true", PATH=NO_GIT)
    assert executed(dvc(tmp_path, "repro", "train_baseline", PATH=NO_GIT)) == ["download", "train_baseline"]
    charts = command(tmp_path, "python", "-m", "tools.charts", PATH=NO_GIT)
    assert charts.returncode == 0, charts.stderr
    # of these tests the one needs the project's repository, the other makes one
    tests = (
        "tests/pipeline/test_committed.py::test_the_lock_is_not_stale",
        "tests/tools/test_revisions.py::test_nothing_differs",
    )
    tested = command(tmp_path, "python", "-m", "pytest", "-n", "0", "-rs", *tests, PATH=NO_GIT)
    assert "2 skipped" in tested.stdout, tested.stdout
    assert "needs a Git repository" in tested.stdout
    assert "needs git" in tested.stdout


def test_a_folder_of_a_larger_repository(tmp_path: Path) -> None:
    folder = tmp_path / "hw3"
    copy_files(folder, TINY)
    make_repository(tmp_path)
    before = (folder / "params.yaml").read_text()
    output = dvc(
        folder, "exp", "run", "--temp", "-n", "narrow", "-S", "baseline.hidden=[8]", "train_baseline"
    )
    assert executed(output) == ["download", "train_baseline"]
    assert (folder / "params.yaml").read_text() == before
    assert (folder / "runs/baseline.json").exists()  # not lost with DVC's temporary copy
    shown = csv.DictReader(dvc(folder, "exp", "show", "--csv").splitlines())
    assert {row["Experiment"]: row["baseline.hidden"] for row in shown}["narrow"] == "[8]"
