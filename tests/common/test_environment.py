"""What a user's shell exports neither ends a stage nor changes a byte that it writes."""

import hashlib
import os
import subprocess
import sys
import time
from pathlib import Path

import matplotlib as mpl
import pytest
import yaml

from stages.common import environment
from tests.project import ROOT

# each ends a stage, changes what it writes or prints between its lines, on this machine or on another
BAD = {
    "DNNL_MAX_CPU_ISA": "SSE41",
    "GIT_DIR": "/nowhere",
    "LRU_CACHE_CAPACITY": "many",
    "MATPLOTLIBRC": "/nowhere",
    "MKL_CBWR": "COMPATIBLE",
    "MKL_NUM_THREADS": "1",
    "MPLBACKEND": "module://matplotlib_inline.backend_inline",
    "NPY_ENABLE_CPU_FEATURES": "nothing",
    "NVIDIA_TF32_OVERRIDE": "1",
    "OMP_DYNAMIC": "true",
    "OMP_STACKSIZE": "much",
    "OMP_THREAD_LIMIT": "1",
    "ONEDNN_DEFAULT_FPMATH_MODE": "BF16",
    "ONEDNN_VERBOSE": "2",
    "OPENBLAS_CORETYPE": "Prescott",
    "PYTHONINSPECT": "1",
    "PYTHONWARNINGS": "error",
    "RUAMEL_DEBUG": "yes",
    "SHELL": "/bin/false",
    "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE": "1",
    "TORCH_FORCE_WEIGHTS_ONLY_LOAD": "1",
    "TORCH_LOGS": "nothing",
    "TQDM_MININTERVAL": "long",
}
# what is read before us, or stays: it must do no harm
OTHERS = {
    "COLUMNS": "many",
    "DVC_ROOT": "/nowhere/at/all",
    "FORCE_COLOR": "1",
    "LANG": "C",
    "LC_ALL": "C",
    "PYTHONCOERCECLOCALE": "0",
    "PYTHONHASHSEED": "7",
    "PYTHONIOENCODING": "ascii",
    "PYTHONUTF8": "0",
    "SOURCE_DATE_EPOCH": "never",
    "TMPDIR": "/nowhere",
    "TZ": "nowhere",
}
RUN_STAGES = """
import runpy
for stage in ("download", "train_cnn"):
    runpy.run_module(f"stages.{stage}", run_name="__main__", alter_sys=True)
"""


def python(code: str, **variables: str) -> str:
    """What ``code`` prints in a process of its own, with ``variables``; fails where it fails."""
    command = [sys.executable, "-c", code]
    ended = subprocess.run(command, cwd=ROOT, env=os.environ | variables, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def test_libraries_families_of_variables_are_removed_and_what_a_user_chooses_stays() -> None:
    chosen = {
        "OMP_NUM_THREADS": "1",
        "ATEN_CPU_CAPABILITY": "default",
        "CUDA_VISIBLE_DEVICES": "0",
        "PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True",
        "CIFAR10_ARCHIVE": "here",
        "MPLCONFIGDIR": "there",
        "DVC_ROOT": str(ROOT),
        "PATH": "/bin",
    }
    held = BAD | chosen | {"DVC_ROOT": str(ROOT)}
    for name in ("PYTHONINSPECT", "PYTHONWARNINGS"):  # tested below: they change this process
        held.pop(name)
    environment.hold(held)
    assert held == chosen


@pytest.mark.parametrize("package", ["stages", "tools", "sweeps", "tests"])
def test_every_package_with_commands_removes_them_before_it_imports_a_library(package: str) -> None:
    found = python(
        f"import {package}, os, sys; print(*(set({list(BAD)}) & {{*os.environ}}), 'numpy' in sys.modules)",
        **BAD,
    )
    assert found.split() == ["False"]


def test_warnings_as_errors_are_warnings_again() -> None:
    code = "import stages, warnings; warnings.warn('shown'); warnings.warn('hidden', DeprecationWarning)"
    ended = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=os.environ | {"PYTHONWARNINGS": "error"},
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0
    assert "shown" in ended.stderr
    assert "hidden" not in ended.stderr


def test_a_module_on_pythonpath_does_not_take_the_place_of_one_that_is_installed(tmp_path: Path) -> None:
    for name in ("safetensors", "only_here"):
        (tmp_path / f"{name}.py").write_text("")
    found = python(
        "import stages, safetensors, only_here; print(safetensors.__file__, only_here.__file__)",
        PYTHONPATH=os.pathsep.join([str(tmp_path), str(ROOT)]),
    )
    installed, offered = (Path(file).parent for file in found.split())
    assert (installed == tmp_path, offered) == (False, tmp_path)


def test_a_dvc_root_that_is_gone_is_forgotten(tmp_path: Path) -> None:
    code = "import stages, os; print('DVC_ROOT' in os.environ)"
    assert python(code, DVC_ROOT=str(tmp_path)) == "True\n"
    assert python(code, DVC_ROOT=str(tmp_path / "gone")) == "False\n"


def test_at_a_terminal_a_failure_is_no_success_with_a_prompt(tmp_path: Path) -> None:
    """PYTHONINSPECT would ask there for more, and end with status 0."""
    import pty

    (tmp_path / "fails.py").write_text("import stages\nraise SystemExit('error: told')\n")
    variables = os.environ | {"PYTHONINSPECT": "1", "PYTHONPATH": str(ROOT)}
    process, terminal = pty.fork()
    if process == 0:
        os.execve(sys.executable, [sys.executable, str(tmp_path / "fails.py")], variables)
    told, deadline = b"", time.monotonic() + 20
    os.set_blocking(terminal, False)
    while not (ended := os.waitpid(process, os.WNOHANG))[0] and b">>>" not in told:
        assert time.monotonic() < deadline
        time.sleep(0.02)
        told += read(terminal)
    told += read(terminal)
    os.close(terminal)  # ends the process if there is a prompt
    assert b"error: told" in told
    assert b">>>" not in told
    assert os.waitstatus_to_exitcode(ended[1]) == 1


def read(terminal: int) -> bytes:
    """What there is to read; nothing at the end."""
    try:
        return os.read(terminal, 2**16)
    except OSError:
        return b""


@pytest.mark.slow
def test_stages_write_the_same_bytes_whatever_is_exported(tmp_path: Path) -> None:
    """A download and a training, with everything at once and without anything of it."""
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    params["data"] |= {"source": "synthetic", "train_size": 200, "test_size": 100}
    params["train"] |= {"epochs": 1, "batch_size": 100, "device": "cpu"}
    params["cnn"]["blocks"] = [[32]]
    plain = {name: value for name, value in os.environ.items() if name not in BAD | OTHERS} | {
        "OMP_NUM_THREADS": "2",  # of a single one OMP_THREAD_LIMIT takes none
        "MPLCONFIGDIR": mpl.get_cachedir(),  # its list of fonts takes seconds to make
    }
    processes = {}
    for name, variables in {"plain": plain, "everything": plain | BAD | OTHERS}.items():
        folder = tmp_path / name / "ärchiv"
        folder.mkdir(parents=True)
        (folder / "params.yaml").write_text(yaml.safe_dump(params))
        (folder / "stages").symlink_to(ROOT / "stages")
        processes[folder] = subprocess.Popen(
            [sys.executable, "-c", RUN_STAGES],
            cwd=folder,
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
    written = []
    for folder, process in processes.items():
        output, log = process.communicate()
        assert (process.returncode, output) == (0, ""), log
        files = [
            path for name in ("data", "metrics", "models", "plots") for path in folder.glob(f"{name}/**/*.*")
        ]
        written.append(
            {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
        )
    assert {"data/dataset.safetensors", "models/cnn.safetensors", "plots/samples.png"} <= written[0].keys()
    assert written[0] == written[1]
