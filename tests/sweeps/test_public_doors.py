"""Sweeps use what the documentation of Optuna, SQLAlchemy and DVC offers: their next release will have it."""

import ast
from pathlib import Path

import pytest

from tests.project import ROOT

DOCUMENTED = {
    "optuna": {"optuna", "optuna.exceptions", "optuna.storages", "optuna.trial"},
    "sqlalchemy": {"sqlalchemy", "sqlalchemy.exc"},
    "dvc": {"dvc.api"},
}
FILES = sorted(path for folder in ("sweeps", "tools") for path in (ROOT / folder).glob("*.py"))


def faults(code: str) -> list[str]:
    """Modules that no documentation offers, and private names of others."""
    found = []
    for node in ast.walk(ast.parse(code)):
        modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names = []
        if isinstance(node, ast.ImportFrom):
            modules, names = [str(node.module)], [alias.name for alias in node.names]
        if isinstance(node, ast.Attribute) and not (
            isinstance(node.value, ast.Name) and node.value.id == "self"
        ):
            names = [node.attr]
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("getattr", "setattr", "hasattr"):
            names = [str(word.value) for word in node.args if isinstance(word, ast.Constant)]
        ours = modules and modules[0].split(".")[0] not in DOCUMENTED
        private = [name for name in names if name.startswith("_") and not name.startswith("__") and not ours]
        allowed = set[str]().union(*DOCUMENTED.values())
        found += [m for m in modules if m.split(".")[0] in DOCUMENTED and m not in allowed] + private
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_only_documented_names_are_used(path: Path) -> None:
    assert faults(path.read_text()) == []


@pytest.mark.parametrize(
    "code",
    [
        "from optuna.storages._heartbeat import BaseHeartbeat",
        "from optuna.storages import _CachedStorage",
        "import dvc.repo",
        "from dvc.config import Config",
        "trial._trial_id",
        "study.storage._backend",
        "getattr(study, '_storage')",
    ],
)
def test_others_are_found(code: str) -> None:
    assert len(faults(code)) == 1
