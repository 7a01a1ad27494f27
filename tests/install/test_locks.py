"""The lock files against each other and against what the code imports."""

import ast
import sys
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.utils import canonicalize_name

from tests.install.locks import CPU, DEV, RUN, declared, is_cuda, locked, pinned
from tests.project import ROOT, local_modules

SYSTEMS = {
    "Linux x86_64": {"sys_platform": "linux", "platform_machine": "x86_64"},
    "Linux aarch64": {"sys_platform": "linux", "platform_machine": "aarch64"},
    "macOS": {"sys_platform": "darwin", "platform_machine": "arm64"},
    "Windows": {"sys_platform": "win32", "platform_machine": "AMD64"},
}
# imported, and a part of another package that is asked for
PARTS = {"dvc-render": "dvc", "pydantic-core": "pydantic"}
# asked for, and not imported: pandas writes Markdown with tabulate
BEHIND = {"tabulate"}
# of the Python that `make bench KERAS=...` names
ELSEWHERE = {"keras", "tensorflow"}


def imported(*folders: str) -> Iterator[str]:
    """The packages that the code in ``folders`` imports, itself or through other code of this project."""
    packages = packages_distributions()
    waiting = [file for folder in folders for file in (ROOT / folder).rglob("*.py")]
    files: set[Path] = set()
    while waiting:
        file = waiting.pop()
        waiting += local_modules(file) - files
        files.add(file)
    for file in files:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [str(node.module)] if isinstance(node, ast.ImportFrom) else []
            for module in {name.split(".")[0] for name in names} - sys.stdlib_module_names - ELSEWHERE:
                if not (ROOT / module).is_dir():
                    (package,) = {canonicalize_name(name) for name in packages[module]}
                    yield PARTS.get(package, package)


@pytest.mark.parametrize("name", SYSTEMS)
def test_the_cpu_build_differs_in_torch_alone(name: str) -> None:
    system, local = SYSTEMS[name], "" if name == "macOS" else "+cpu"
    expected = {package: number for package, number in pinned(system, RUN).items() if not is_cuda(package)}
    expected |= {package: f"{expected[package]}{local}" for package in ("torch", "torchvision")}
    assert pinned(system, CPU) == expected


@pytest.mark.parametrize("name", SYSTEMS)
def test_checks_and_tests_come_on_top_of_running(name: str) -> None:
    assert not pinned(SYSTEMS[name], RUN).keys() & pinned(SYSTEMS[name], DEV).keys()


def test_the_locks_hold_what_is_declared() -> None:
    assert declared() <= {package.name for package in locked(RUN)}
    assert declared("dev") <= {package.name for package in (*locked(RUN), *locked(DEV))}


def test_running_needs_what_stages_and_tools_import() -> None:
    assert set(imported("stages", "tools")) | BEHIND == declared()


def test_the_rest_needs_no_more_than_dev() -> None:
    assert set(imported("sweeps", "theory", "tests")) <= declared("dev")
