"""What pip installs from the lock files, against a stand-in for PyPI and one for PyTorch's own index."""

import json
import os
import subprocess
import sys
import zipfile
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.install.locks import CPU, DEV, RUN, is_cuda, locked, pinned, version
from tests.project import ROOT

PYTORCH = "https://download.pytorch.org/whl/cpu"
ON_MACOS = sys.platform == "darwin"


def header(package: str, key: str) -> list[str]:
    """What the installed ``package`` says under ``key``; nothing where it is not installed."""
    try:
        return metadata(package).get_all(key) or []
    except PackageNotFoundError:  # for another system
        return []


def add_wheel(index: Path, package: Requirement, cuda: list[str]) -> None:
    """Put a wheel without content into a package index of plain files.

    It needs what the installed package of its name needs, torch ``cuda`` for CUDA.
    """
    needed = [line for line in header(package.name, "Requires-Dist") if not is_cuda(Requirement(line).name)]
    needed += cuda if package.name == "torch" else []
    name, number = package.name.replace("-", "_"), version(package)
    folder = index / package.name
    folder.mkdir(parents=True, exist_ok=True)
    wheel = f"{name}-{number}-py3-none-any.whl"
    info = f"{name}-{number}.dist-info"
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {number}"]
    lines += [f"Provides-Extra: {extra}" for extra in header(package.name, "Provides-Extra")]
    lines += [f"Requires-Dist: {line}" for line in needed]
    with zipfile.ZipFile(folder / wheel, "w") as archive:
        archive.writestr(f"{info}/METADATA", "\n".join(lines) + "\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    (folder / "index.html").write_text(f'<a href="{wheel}">{wheel}</a>')


@pytest.fixture(scope="module")
def indexes(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The stand-ins for PyPI and for PyTorch's index, with torch in its two builds.

    They hold the packages of the lock files alone: what is needed and not locked can't be found.
    """
    pypi, pytorch = (tmp_path_factory.mktemp(name) for name in ("pypi", "pytorch"))
    cuda = [str(package) for package in locked(RUN) if is_cuda(package.name)]
    for package in (*locked(RUN), *locked(DEV)):
        add_wheel(pypi, package, cuda)
    for package in locked(CPU):
        if version(package).endswith("+cpu"):
            add_wheel(pytorch, package, [])
    return pypi, pytorch


def installed(indexes: tuple[Path, Path], tmp_path: Path, *locks: str) -> dict[str, str]:
    """What ``pip install`` would install from the lock files: the version of each package."""
    pypi, pytorch = (index.as_uri() for index in indexes)
    files = []
    for lock in locks:
        copy = tmp_path / lock
        copy.write_text((ROOT / lock).read_text().replace(PYTORCH, pytorch))
        files += ["-r", str(copy)]
    own = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
    report = tmp_path / "report.json"
    options = ["--dry-run", "--ignore-installed", "--quiet", "--no-cache-dir", "--only-binary", ":all:"]
    subprocess.run(
        [sys.executable, "-m", "pip", "install", *options, "--index-url", pypi, "--report", report, *files],
        env=own | {"PIP_CONFIG_FILE": os.devnull, "PIP_DISABLE_PIP_VERSION_CHECK": "1"},
        check=True,
    )
    packages = [entry["metadata"] for entry in json.loads(report.read_text())["install"]]
    return {canonicalize_name(package["name"]): package["version"] for package in packages}


@pytest.mark.slow
@pytest.mark.parametrize("locks", [(RUN,), (CPU, DEV)], ids="+".join)
def test_all_that_is_installed_is_pinned(
    locks: tuple[str, ...], indexes: tuple[Path, Path], tmp_path: Path
) -> None:
    found = installed(indexes, tmp_path, *locks)
    assert found == pinned({}, *locks)
    cuda = {name for name in found if is_cuda(name)}
    if CPU in locks:
        assert not cuda
        assert found["torch"].endswith("+cpu") != ON_MACOS
        assert found["torchvision"].endswith("+cpu") != ON_MACOS
    elif sys.platform == "linux":
        assert {"triton", "cuda-toolkit", "nvidia-cublas"} <= cuda
        assert "+" not in found["torch"]
