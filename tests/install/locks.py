"""The lock files and ``pyproject.toml``, read."""

import re
import tomllib
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.project import ROOT

RUN, CPU, DEV = "requirements.lock", "requirements-cpu.lock", "requirements-dev.lock"
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def is_cuda(name: str) -> bool:
    """Whether a package is there for torch's CUDA build alone."""
    return re.match(r"(nvidia|cuda)-|triton$", name) is not None


def locked(name: str) -> list[Requirement]:
    """The packages of a lock file."""
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    return [Requirement(line) for line in lines if not line.startswith("--")]


def version(package: Requirement) -> str:
    """The version that a lock file pins ``package`` to."""
    (pin,) = package.specifier
    assert pin.operator == "==", package
    return pin.version


def pinned(system: dict[str, str], *names: str) -> dict[str, str]:
    """The version of each package that the lock files pin.

    ``system`` holds what differs from this machine: keys of environment markers and their values.
    """
    return {
        package.name: version(package)
        for name in names
        for package in locked(name)
        if package.marker is None or package.marker.evaluate(dict(system))
    }


def declared(*extras: str) -> set[str]:
    """The packages that ``pyproject.toml`` asks for, in its normalized spelling."""
    lines = [*PROJECT["dependencies"]]
    for extra in extras:
        lines += PROJECT["optional-dependencies"][extra]
    return {canonicalize_name(Requirement(line).name) for line in lines}
