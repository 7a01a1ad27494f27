"""What the tests of sweeps share: a project with a fake training, and a PostgreSQL server of their own."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml
from optuna.trial import TrialState

from stages.common.errors import UserError
from sweeps.__main__ import main
from tests.project import ROOT, command, commit, dvc

TWO = {"strong": {"reg.dropout": 0.5}, "weak": {"reg.dropout": 0.1}}
# Writes what a training writes, and continues as one does. The accuracy is known, and each run leaves
# lines in a log: when it began, with seed, dropout and the epochs that it found, and when it ended
TRAINING = """
import json, os, pathlib, sys, time
import yaml
def write(file, content):
    file.with_suffix(".new").write_text(json.dumps(content))
    file.with_suffix(".new").replace(file)
params = yaml.safe_load(open("params.yaml"))
seed, dropout = params["train"]["seed"], params["reg"]["dropout"]
accuracy = 1 - dropout + seed / 100
for folder in ("metrics", "models", "runs/checkpoints"):
    pathlib.Path(folder).mkdir(exist_ok=True, parents=True)
path = pathlib.Path("metrics/regularized.json")
kept = pathlib.Path(f"runs/checkpoints/regularized-{seed}-{dropout}.json")
epochs = json.loads(kept.read_text()) if kept.exists() else []
log = open(os.environ["FAKE_LOG"], "a", buffering=1)
print("begin", seed, dropout, len(epochs), file=log)
print("threads", os.environ.get("OMP_NUM_THREADS"), file=log)
if epochs:
    print(f"regularized: continues after epoch {len(epochs)}", file=sys.stderr, flush=True)
while len(epochs) < params["train"]["epochs"]:
    time.sleep(params["train"]["learning_rate"])
    epoch = len(epochs) + 1
    reached = accuracy * epoch / params["train"]["epochs"]
    epochs.append({"epoch": epoch, "validation_accuracy": reached, "test_accuracy": reached - 0.5})
    write(path, {"history": epochs})
    write(kept, epochs)
    print(f"regularized: epoch {epoch}/{params['train']['epochs']}", file=sys.stderr, flush=True)
if dropout == 0.9:
    sys.exit("error: reg.dropout is 0.9, but must be less")
if dropout == 0.8 and not os.path.exists(os.environ["FAKE_LOG"] + ".memory"):
    open(os.environ["FAKE_LOG"] + ".memory", "w")
    sys.exit("error: memory ran out (CUDA out of memory)")
metrics = {"validation_accuracy": accuracy, "test_accuracy": accuracy - 0.5, "train_accuracy": accuracy}
metrics["history"] = epochs
write(path, metrics)
pathlib.Path("models/regularized.safetensors").write_text(f"{accuracy} {params['reg']}")
print("end", seed, dropout, len(epochs), file=log)
"""
DOWNLOAD = """
import os, pathlib, sys
import yaml
if yaml.safe_load(open("params.yaml"))["data"]["seed"] == 7:
    sys.exit("error: no images")
print("download", file=open(os.environ["FAKE_LOG"], "a"))
pathlib.Path("data").mkdir(exist_ok=True)
pathlib.Path("data/dataset").write_text("images")
"""
PIPELINE = {
    "download": {
        "cmd": "python download.py",
        "deps": ["download.py"],
        "params": ["data"],
        "outs": ["data/dataset"],
    },
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
    if "settings" not in content:
        content["fixed"] = {"data.validation_size": 100} | content.get("fixed", {})
    text = yaml.safe_dump({"targets": ["train_regularized"], "seeds": [0], **content})
    (folder / f"{name}.yaml").write_text(text)
    commit(folder, f"search {name}")


def shortened(args: Sequence[str], tried: bool) -> tuple[str, ...]:
    """``args``, with which a worker counts as dead after seconds, and may take the way as ``tried``."""
    heartbeat = ("--heartbeat", "1") if args[0] == "run" and "--heartbeat" not in args else ()
    return (*args, *heartbeat, *(["--tried"] if tried else ()))


def start(
    folder: Path,
    *args: str,
    log: Path | None = None,
    temporary: Path | None = None,
    variables: Mapping[str, str] | None = None,
    tried: bool = True,
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
        **(variables or {}),
    }
    return subprocess.Popen(
        [sys.executable, "-m", "sweeps", *shortened(args, tried)],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def sweep(folder: Path, *args: str, tried: bool = True) -> str:
    """Run ``python -m sweeps`` in ``folder``, in this process, and return its output.

    Raises:
        UserError: it failed.
    """
    output = StringIO()
    patch = pytest.MonkeyPatch()
    patch.chdir(folder)
    for name in [name for name in os.environ if name.startswith("DVC_")]:
        patch.delenv(name)
    (folder / "runs/tmp").mkdir(parents=True, exist_ok=True)
    try:
        with patch.context() as variables, redirect_stderr(output), redirect_stdout(output):
            variables.setenv("FAKE_LOG", os.environ.get("FAKE_LOG", str(folder / "log")))
            variables.setattr(tempfile, "tempdir", str(folder / "runs/tmp"))
            variables.setattr(sys, "argv", ["sweeps", *shortened(args, tried)])
            main()
    finally:
        patch.undo()
    return output.getvalue()


def git(folder: Path, *args: str) -> str:
    result = command(folder, "git", *args)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def refs(folder: Path) -> list[str]:
    names = git(folder, "for-each-ref", "--format=%(refname)", "refs/exps").splitlines()
    return sorted(name for name in names if "/exec/" not in name and "/apply/" not in name)


def experiments(repository: Path) -> list[str]:
    """Names of the experiments in ``repository``, without what stands for their changes."""
    return sorted(ref.rsplit("/", 1)[1].rsplit("-", 1)[0] for ref in refs(repository))


def trained(folder: Path, line: str = "begin") -> list[tuple[str, str]]:
    """Seed and dropout of the trainings that began (or ended) since the project was made."""
    lines = [text.split() for text in (folder / "log").read_text().splitlines()]
    return [(values[0], values[1]) for kind, *values in lines if kind == line][1:]


def epochs_found(folder: Path) -> list[int]:
    """How many epochs each training that began found, since the project was made."""
    lines = (folder / "log").read_text().splitlines()
    return [int(line.split()[3]) for line in lines if line.startswith("begin")][1:]


def study_of(url: str, name: str) -> optuna.Study:
    """The only study of the search ``name``."""
    (title,) = [title for title in optuna.get_all_study_names(url) if title.startswith(f"{name}@")]
    return optuna.load_study(study_name=title, storage=url)


def store_of(folder: Path) -> str:
    return f"sqlite:///{folder}/runs/sweep/studies.db"


def embedded(folder: Path, name: str) -> optuna.Study:
    return study_of(store_of(folder), name)


def states(folder: Path, name: str) -> list[TrialState]:
    return [trial.state for trial in embedded(folder, name).trials]


def refusal(folder: Path, *args: str) -> str:
    """The one line with which ``python -m sweeps`` refuses; it tries the way."""
    with pytest.raises(UserError) as refused:
        sweep(folder, *args, tried=False)
    assert "\n" not in str(refused.value)
    return str(refused.value)


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


def free_port() -> int:
    """A loopback port that nobody has."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Postgres:
    """A PostgreSQL server on a loopback port, with its data in a folder of its own."""

    def __init__(self, binaries: Path) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="postgres-"))
        self.binaries, self.user = binaries, list[str]()
        self.before: subprocess.Popen[bytes] | None = None
        if os.geteuid() == 0:  # which PostgreSQL refuses
            shutil.chown(self.folder, "postgres")
            self.user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
        self.port = free_port()
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

    def pooler(self) -> str:
        """Start PgBouncer, in transaction mode, and return its address, empty where there is none."""
        if not (binary := shutil.which("pgbouncer", path=f"/usr/sbin:{os.environ['PATH']}")):
            return ""
        port = free_port()
        settings = f"""
            [databases]
            postgres = host=127.0.0.1 port={self.port} user=postgres
            [pgbouncer]
            listen_addr = 127.0.0.1
            listen_port = {port}
            unix_socket_dir =
            auth_type = any
            pool_mode = transaction
            default_pool_size = 2
            server_login_retry = 1
        """
        file = self.folder / "pgbouncer.ini"
        file.write_text("\n".join(line.strip() for line in settings.splitlines()))
        with open(self.folder / "pgbouncer.log", "w") as log:
            command = [*self.user, binary, str(file)]
            self.before = subprocess.Popen(command, stdout=log, stderr=log, cwd="/", start_new_session=True)
        return f"postgres://postgres@127.0.0.1:{port}/postgres"

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
        if server.before:
            server.before.kill()
            server.before.wait()
        server.kill()
        shutil.rmtree(server.folder)
