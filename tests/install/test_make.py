"""When `make` installs, with a stand-in for Python that only writes down what it is asked for."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.install.locks import CPU, DEV, RUN
from tests.project import ROOT

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="needs make")

# installs itself as the environment's python; pip fails where there is a file FAIL
# imports.log has what is imported, and whether it is kept compiled
PYTHON = """#!/bin/sh
case "$*" in
  "-m venv "*) mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
  "-m pip "*) echo "$*" >> pip.log && test ! -e FAIL ;;
  "-c import "[!s]*) echo "${PYTHONDONTWRITEBYTECODE:-compiled} $*" >> imports.log ;;
esac
"""
INSTALL = "-m pip install --disable-pip-version-check --no-compile -r "


class Clone:
    """A clone of the project, reduced to what decides about installing, and as on a machine without Git."""

    def __init__(self, folder: Path, environment: Path) -> None:
        self.folder, self.environment = folder, environment
        folder.mkdir()
        for name in ("Makefile", RUN, CPU, DEV):
            shutil.copyfile(ROOT / name, folder / name)  # without its time
        for name, script in (("python", PYTHON), ("git", "#!/bin/sh\nexit 127\n")):
            (folder / name).write_text(script)
            (folder / name).chmod(0o755)

    def make(self, *words: str) -> list[str]:
        """Run ``make setup`` and return what it asked of pip."""
        log = self.folder / "pip.log"
        log.unlink(missing_ok=True)
        command = ["make", "setup", f"PYTHON={self.folder / 'python'}", f"VENV={self.environment}", *words]
        own = os.environ | {"PATH": f"{self.folder}{os.pathsep}{os.environ['PATH']}"}
        result = subprocess.run(
            command, cwd=self.folder, env=own, capture_output=True, text=True, check=False
        )
        if result.returncode:
            raise ChildProcessError(result.stderr)
        return log.read_text().splitlines() if log.exists() else []


@pytest.fixture
def clone(tmp_path: Path) -> Clone:
    return Clone(tmp_path / "clone", tmp_path / "environment")


def edit(lock: Path) -> None:
    lock.write_text(lock.read_text() + "six==1.17.0\n")


def test_a_second_time_nothing_is_installed(clone: Clone) -> None:
    assert clone.make() == [INSTALL + RUN, INSTALL + DEV]
    assert clone.make() == []


def test_another_time_of_the_lock_files_installs_nothing(clone: Clone) -> None:
    clone.make()
    for lock in (RUN, CPU, DEV):
        (clone.folder / lock).touch()
    assert clone.make() == []


def test_another_clone_with_the_same_environment_installs_nothing(clone: Clone, tmp_path: Path) -> None:
    clone.make()
    assert Clone(tmp_path / "second", clone.environment).make() == []


def test_another_content_installs_again(clone: Clone) -> None:
    clone.make()
    edit(clone.folder / DEV)
    assert clone.make() == [INSTALL + DEV]
    edit(clone.folder / RUN)
    assert clone.make() == [INSTALL + RUN, INSTALL + DEV]
    shutil.copyfile(ROOT / RUN, clone.folder / RUN)
    assert clone.make() == [INSTALL + RUN, INSTALL + DEV]


def test_the_build_of_torch_stays_until_another_one_is_asked_for(clone: Clone) -> None:
    assert clone.make("TORCH=cpu") == [INSTALL + CPU, INSTALL + DEV]
    assert clone.make() == []
    edit(clone.folder / CPU)
    assert clone.make() == [INSTALL + CPU, INSTALL + DEV]
    for build, lock in (("pypi", RUN), ("cpu", CPU)):
        removed, *rest = clone.make(f"TORCH={build}")
        assert removed.startswith("-m pip uninstall --yes")
        assert {"torch", "torchvision", "triton", "nvidia-cublas"} <= set(removed.split())
        assert not {"numpy", "pandas"} & set(removed.split())
        assert rest == [INSTALL + lock, INSTALL + DEV]


def test_after_a_failure_it_is_installed_again(clone: Clone) -> None:
    clone.make()
    edit(clone.folder / RUN)
    (clone.folder / "FAIL").touch()
    with pytest.raises(ChildProcessError):
        clone.make()
    (clone.folder / "FAIL").unlink()
    shutil.copyfile(ROOT / RUN, clone.folder / RUN)
    assert clone.make() == [INSTALL + RUN, INSTALL + DEV]


def test_what_a_start_imports_is_compiled_even_where_the_environment_forbids_it(
    clone: Clone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    clone.make()
    clone.make()
    imports = (clone.folder / "imports.log").read_text().splitlines()
    assert imports == [
        "compiled -c import dvc.cli, stages.train_regularized, stages.visualize_filters",
        "compiled -c import pytest, sweeps.__main__",
    ]


def test_an_unknown_build_is_refused(clone: Clone) -> None:
    with pytest.raises(ChildProcessError, match="TORCH is 'cuda': it can be pypi or cpu"):
        clone.make("TORCH=cuda")
