"""What the summary of a pull request shows, on a repository with results of two revisions."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from stages.common.errors import UserError
from tests.project import commit
from tools import revisions
from tools.models import MODELS

FIRST, SECOND, *_ = MODELS


def write(model: str, *accuracies: float) -> None:
    history = [{"epoch": i + 1, "test_accuracy": accuracy} for i, accuracy in enumerate(accuracies)]
    result = {"test_accuracy": accuracies[-1], "history": history}
    Path(f"metrics/{model}.json").write_text(json.dumps(result))


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Results of two models, committed and tagged ``base``, in the working directory.

    It is a folder of a larger repository, where Git's paths are not those of the project.
    """
    project = tmp_path / "hw3"
    project.mkdir()
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    monkeypatch.chdir(project)
    for command in (("config", "user.name", "x"), ("config", "user.email", "x@example.org")):
        subprocess.run(["git", *command], check=True)
    for folder in (".dvc", "metrics"):
        Path(folder).mkdir()
    Path(".dvc/config").touch()
    Path("dvc.yaml").write_text(json.dumps({"metrics": [f"metrics/{model}.json" for model in MODELS]}))
    write(FIRST, 0.3, 0.4, 0.5)
    write(SECOND, 0.6, 0.7, 0.8)
    commit(project, "base")
    subprocess.run(["git", "tag", "base"], check=True)
    return project


def charts(text: str) -> list[tuple[str, list[list[float]]]]:
    """The title and the lines of each chart."""
    return [
        (
            re.findall(r'title "(.*)"', block)[0],
            [json.loads(line) for line in re.findall(r"line (.*)", block)],
        )
        for block in re.findall(r"```mermaid\n(.*?)```", text, re.DOTALL)
    ]


def test_the_metrics_and_curves_that_differ(repository: Path) -> None:
    write(FIRST, 0.3, 0.45, 0.625)
    commit(repository, "another result")
    text = revisions.comparison("base", "HEAD")
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if "|" in line]
    assert rows[2:] == [[f"metrics/{FIRST}.json", "test_accuracy", "0.5", "0.625", "0.125"]]
    assert charts(text) == [(FIRST, [[0.3, 0.4, 0.5], [0.3, 0.45, 0.625]])]
    assert "grey: base, blue: HEAD" in text


def test_nothing_differs(repository: Path) -> None:
    text = revisions.comparison("base", "HEAD")
    assert "No metric differs." in text
    assert "|" not in text
    assert charts(text) == []


def test_curves_of_another_length_have_a_chart_of_their_own(repository: Path) -> None:
    write(FIRST, 0.3, 0.5)
    commit(repository, "fewer epochs")
    text = revisions.comparison("base", "HEAD")
    assert charts(text) == [(FIRST, [[0.3, 0.4, 0.5]]), (FIRST, [[0.3, 0.5]])]
    assert [colour in text for colour in revisions.COLOURS.values()] == [True, True]


def test_a_model_that_only_one_revision_has(repository: Path) -> None:
    Path(f"metrics/{SECOND}.json").unlink()
    commit(repository, "one model less")
    assert charts(revisions.comparison("base", "HEAD")) == [(SECOND, [[0.6, 0.7, 0.8]])]


def test_an_unknown_revision_is_refused(repository: Path) -> None:
    with pytest.raises(UserError, match="'nowhere' is no revision that Git knows here"):
        revisions.comparison("nowhere", "HEAD")


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_without_git_it_says_what_it_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"'base' is no revision that Git knows here: (?!fetch it)"):
        revisions.comparison("base", "HEAD")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UserError, match="git is not installed"):
        revisions.comparison("base", "HEAD")
