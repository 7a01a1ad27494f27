"""What several tests need of the project: its files, its stages' imports, copies to run in."""

import ast
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
PIPELINE: dict[str, Any] = yaml.safe_load((ROOT / "dvc.yaml").read_text())
STAGES: dict[str, Any] = PIPELINE["stages"]
TRAININGS = tuple(name for name in STAGES if name.startswith("train_"))
MODELS = tuple(name.removeprefix("train_") for name in TRAININGS)
# smaller than any use of it, for tests that ask which stages run and not what they learn
TINY: dict[str, dict[str, Any]] = {
    "data": {"source": "synthetic", "train_size": 200, "test_size": 100},
    "train": {"epochs": 2, "batch_size": 50},
    "baseline": {"hidden": [16]},
    "cnn": {"blocks": [[4, 4], [8, 8]]},
}


def local_modules(file: Path) -> set[Path]:
    """Files of this project that ``file`` imports by name."""
    names: list[str] = []
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom):
            names += [f"{node.module}", *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
    files = (ROOT.joinpath(*name.split(".")).with_suffix(".py") for name in names)
    return {file for file in files if file.is_file()}


def import_closure(file: Path) -> set[str]:
    """``file``, everything of this project that importing it runs, as paths from the root."""
    closure: set[Path] = set()
    waiting = [file]
    while waiting:
        module = waiting.pop()
        if module not in closure:
            closure.add(module)
            waiting += local_modules(module)
            packages = (folder / "__init__.py" for folder in module.parents)
            waiting += [package for package in packages if package.is_file()]
    return {module.relative_to(ROOT).as_posix() for module in closure}


def need_repository() -> None:
    """Skip the test where the project is in no Git repository, but a downloaded source tree."""
    if not any((folder / ".git").exists() for folder in (ROOT, *ROOT.parents)):
        pytest.skip("needs a Git repository, which says what belongs to the project")


def tracked_files() -> list[str]:
    """Files that Git tracks or would track, as paths from the root."""
    need_repository()
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listing = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [name for name in listing.splitlines() if (ROOT / name).is_file()]


def copy_project(target: Path, changes: Mapping[str, Mapping[str, Any]], patches: Sequence[str] = ()) -> Path:
    """A clone of the project in ``target`` with ``patches``, ``changes`` to params.yaml, and no results."""
    copy_files(target, changes, patches)
    make_repository(target)
    return target


def copy_files(target: Path, changes: Mapping[str, Mapping[str, Any]], patches: Sequence[str] = ()) -> None:
    """What `copy_project` copies, without a repository."""
    for name in tracked_files():
        if not name.startswith(("metrics/", "plots/", "dvc.lock")):
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)
    for patch in patches:
        subprocess.run(["git", "apply", "-"], cwd=target, input=patch, text=True, check=True)
    params = yaml.safe_load((target / "params.yaml").read_text())
    for section, values in changes.items():
        params[section] |= values
    (target / "params.yaml").write_text(yaml.safe_dump(params))


def make_repository(folder: Path) -> None:
    """Make ``folder`` a Git repository with everything in it committed."""
    for command in (
        ("init", "-q", "-b", "main"),
        ("config", "user.name", "Test"),
        ("config", "user.email", "test@example.org"),
    ):
        subprocess.run(["git", *command], cwd=folder, check=True)
    commit(folder, "a project")


def commit(folder: Path, message: str) -> None:
    """Commit everything in ``folder``."""
    subprocess.run(["git", "add", "-A"], cwd=folder, check=True)
    subprocess.run(["git", "commit", "-q", "--allow-empty", "-m", message], cwd=folder, check=True)


def change(folder: Path, key: str, value: Any) -> None:
    """Set ``key`` of params.yaml."""
    path = folder / "params.yaml"
    content = yaml.safe_load(path.read_text())
    section, name = key.split(".")
    content[section][name] = value
    path.write_text(yaml.safe_dump(content))


def accident(what: str, count: int, pattern: str) -> dict[str, str]:
    """The environment in which a stage has an accident: see `tests/accidents/sitecustomize.py`."""
    return {"PYTHONPATH": str(ROOT / "tests/accidents"), "ACCIDENT": f"{what} {count} {pattern}"}


def variables(**more: str) -> dict[str, str]:
    """A process's variables, with this environment's commands and without the tests' own DVC variables."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("DVC_")}
    return own | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{own['PATH']}"} | more


def command(folder: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command of this environment in ``folder``.

    It is a process group of its own: a signal to the group does not reach the tests.
    """
    return subprocess.run(
        words,
        cwd=folder,
        env=variables(**environment),
        capture_output=True,
        text=True,
        check=False,
        process_group=0,
    )


def dvc(folder: Path, *words: str, **environment: str) -> str:
    """Run ``dvc`` in ``folder``; fails the test, with what it said, where it fails."""
    result = command(folder, "dvc", *words, **environment)
    assert result.returncode == 0, f"dvc {' '.join(words)}\n{result.stdout}\n{result.stderr}"
    return result.stdout


def executed(output: str) -> list[str]:
    """The stages that DVC says it ran, sorted."""
    return sorted(re.findall(r"Running stage '(\w+)'", output))


def series(row: Mapping[str, Any]) -> tuple[str, str]:
    """File and field of a row of a chart's data: DVC joins the two where both differ between lines."""
    if "filename::field" in row:
        file, field = row["filename::field"].split("::")
        return file, field
    return row["filename"], row.get("field", "test_accuracy")
