"""What the tests of sweeps share: a project with a fake training, and a PostgreSQL server of their own."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.project import ROOT, commit, dvc

# writes what a training writes; the accuracy is known, and each run leaves two lines in a log
TRAINING = """
import json, os, pathlib, time
import yaml
params = yaml.safe_load(open("params.yaml"))
log = open(os.environ["FAKE_LOG"], "a", buffering=1)
print("begin", params["train"]["seed"], params["reg"]["dropout"], os.getpid(), file=log)
accuracy = 1 - params["reg"]["dropout"] + params["train"]["seed"] / 100
for folder in ("metrics", "models"):
    pathlib.Path(folder).mkdir(exist_ok=True)
path = pathlib.Path("metrics/regularized.json")
epochs = []
for epoch in range(1, params["train"]["epochs"] + 1):
    time.sleep(params["train"]["learning_rate"])
    epochs.append({"epoch": epoch, "validation_accuracy": accuracy * epoch / params["train"]["epochs"]})
    path.with_suffix(".new").write_text(json.dumps({"history": epochs}))
    path.with_suffix(".new").replace(path)
assert params["reg"]["dropout"] != 0.9, "error: 0.9 is too much"
metrics = {"validation_accuracy": accuracy, "test_accuracy": accuracy - 0.5, "train_accuracy": accuracy}
metrics["history"] = epochs
path.write_text(json.dumps(metrics))
pathlib.Path("models/regularized.safetensors").write_text(f"{accuracy} {params['reg']}")
print("end", params["train"]["seed"], params["reg"]["dropout"], os.getpid(), file=log)
"""
DOWNLOAD = """
import os, pathlib
print("download", file=open(os.environ["FAKE_LOG"], "a"))
pathlib.Path("data").mkdir(exist_ok=True)
pathlib.Path("data/dataset").write_text("images")
"""
PIPELINE = {
    "download": {"cmd": "python download.py", "params": ["data"], "outs": ["data/dataset"]},
    "train_regularized": {
        "cmd": "python train.py",
        "deps": ["data/dataset", "train.py"],
        "params": ["train", "reg"],
        "outs": ["models/regularized.safetensors"],
        "metrics": [{"metrics/regularized.json": {"cache": False}}],
    },
}


def fake_project(folder: Path, config: str = "") -> Path:
    """A Git and DVC repository in ``folder`` with a finished run; an epoch takes half a second."""
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    params["data"]["validation_size"] = 100
    params["train"] |= {"epochs": 2, "learning_rate": 0.5}
    files = {
        "params.yaml": yaml.safe_dump(params),
        "dvc.yaml": yaml.safe_dump({"stages": PIPELINE}, sort_keys=False),
        "train.py": TRAINING,
        "download.py": DOWNLOAD,
        ".gitignore": "/data/\n/models/\n/runs/\n/log\n",
        ".dvc/config": f"[core]\n    analytics = false\n    check_update = false\n{config}",
        ".dvc/.gitignore": "/config.local\n/tmp\n/cache\n",
        ".dvcignore": "",
    }
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    for args in (
        ("init", "-q", "-b", "main"),
        ("config", "user.name", "T"),
        ("config", "user.email", "t@e.org"),
    ):
        subprocess.run(["git", *args], cwd=folder, check=True)
    dvc(folder, "repro", FAKE_LOG=str(folder / "log"))
    commit(folder, "a finished run")
    return folder


def write_search(folder: Path, name: str, **content: Any) -> None:
    """Commit ``name``.yaml in ``folder``: ``content`` with the fake training's target."""
    text = yaml.safe_dump({"targets": ["train_regularized"], "seeds": [0], **content})
    (folder / f"{name}.yaml").write_text(text)
    commit(folder, f"search {name}")


def start(
    folder: Path,
    *args: str,
    log: Path | None = None,
    temporary: Path | None = None,
    heartbeat: int = 1,
) -> subprocess.Popen[str]:
    """Start ``python -m sweeps`` in ``folder``, in a process group of its own.

    Its clones are in ``temporary``, or in a folder below ``folder``.
    """
    temporary = temporary or folder / "runs/tmp"
    temporary.mkdir(parents=True, exist_ok=True)
    environment: Mapping[str, str] = {
        **{name: value for name, value in os.environ.items() if not name.startswith("DVC_")},
        "PYTHONPATH": str(ROOT),
        "FAKE_LOG": str(log or folder / "log"),
        "TMPDIR": str(temporary),
    }
    return subprocess.Popen(
        [sys.executable, "-m", "sweeps", *args, "--heartbeat", str(heartbeat)],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def sweep(folder: Path, *args: str, temporary: Path | None = None) -> str:
    """Run ``python -m sweeps`` in ``folder`` and return its output. The test fails where it fails."""
    process = start(folder, *args, temporary=temporary)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    return output


def processes(folder: Path) -> list[str]:
    """Command lines of the processes that work in ``folder``."""
    lines = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if (entry / "cwd").readlink().is_relative_to(folder):
                    lines.append((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode())
            except OSError:  # it ended meanwhile
                continue
    return lines


def gone(folder: Path, seconds: float = 2) -> bool:
    """Whether within ``seconds`` no process works in ``folder`` any more."""
    end = time.monotonic() + seconds
    while processes(folder):
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


class Postgres:
    """A PostgreSQL server on a loopback port, with its data in a folder of its own."""

    def __init__(self, binaries: Path) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="postgres-"))
        self.binaries, self.user = binaries, []
        if os.geteuid() == 0:  # which PostgreSQL refuses
            shutil.chown(self.folder, "postgres")
            self.user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"postgresql://postgres@127.0.0.1:{self.port}/postgres"
        options = ["-D", f"{self.folder}/data", "-U", "postgres", "-A", "trust", "--no-sync"]
        subprocess.run([*self.user, binaries / "initdb", *options], check=True, capture_output=True, cwd="/")

    def start(self) -> None:
        """Start the server and wait until it answers."""
        options = [
            "-p",
            str(self.port),
            "-h",
            "127.0.0.1",
            "-k",
            str(self.folder),
            "-c",
            "max_connections=300",
        ]
        command = [*self.user, str(self.binaries / "postgres"), "-D", f"{self.folder}/data", *options]
        with open(self.folder / "log", "a") as log:
            # a child of this process, which will see it dead at once
            self.server = subprocess.Popen(command, stdout=log, stderr=log, cwd="/", start_new_session=True)
        while subprocess.run(
            [self.binaries / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self.port)], check=False
        ).returncode:
            assert self.server.poll() is None, (self.folder / "log").read_text()
            time.sleep(0.05)

    def kill(self) -> None:
        """End all its processes with SIGKILL."""
        pid = self.server.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        for victim in (pid, *map(int, children)):
            os.kill(victim, signal.SIGKILL)
        self.server.wait()
        while any(Path(f"/proc/{child}/exe").exists() for child in children):
            time.sleep(0.02)


@contextmanager
def postgres() -> Iterator[Postgres]:
    """A running PostgreSQL; the test is skipped where there is none."""
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not programs:
        pytest.skip("no PostgreSQL here: apt-get install postgresql")
    server = Postgres(programs[-1].parent)
    try:
        server.start()
        yield server
    finally:
        server.kill()
        shutil.rmtree(server.folder)
