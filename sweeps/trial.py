"""A trial's experiment: DVC runs it in a clone of its own that shares the cache, and hands it over."""

import json
import re
import subprocess
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from subprocess import DEVNULL, PIPE, Popen
from tempfile import TemporaryDirectory
from typing import Any

from dvc.config import Config, merge
from dvc.repo import Repo
from dvc.repo.experiments.refs import ExpRefInfo
from filelock import FileLock

from stages.common.errors import UserError
from tools.charts import DVC, environment
from tools.metrics import require_finished

# it is in the process group that it kills, as soon as the worker closes the pipe or dies
WATCHDOG = "trap '' INT TERM; read -r _; kill -KILL 0"
Monitor = Callable[[Path], None]  # given the clone, looks at the training that runs there


@dataclass(frozen=True)
class Checkout:
    """The repository at ``root``, of it ``commit``. Experiments go to its Git ``remote``, or to itself."""

    root: Path
    commit: str
    remote: str | None

    def exists(self, experiment: str) -> bool:
        """Whether ``experiment`` exists where experiments go."""
        return bool(git(self.root, "ls-remote", self.remote or ".", str(ExpRefInfo(self.commit, experiment))))

    def fetch(self, prefix: str) -> None:
        """Where there is a remote, bring here its experiments whose names begin with ``prefix``."""
        ref = ExpRefInfo(self.commit, prefix)
        if self.remote:
            with FileLock(self.root / ".dvc/tmp/fetch.lock"):  # two that bring one reference fail
                git(self.root, "fetch", "-q", self.remote, f"+{ref}*:{ref}*")

    def metrics(self, experiment: str, stage: str) -> dict[str, Any]:
        """The metrics of training ``stage`` in ``experiment``, which is here, without lists.

        Raises:
            UserError: the training has not ended, or the experiment is not here.
        """
        path = f"metrics/{stage.removeprefix('train_')}.json"
        content = json.loads(git(self.root, "show", f"{ExpRefInfo(self.commit, experiment)}:{path}"))
        require_finished(content, f"{experiment}: {path}")
        return {key: value for key, value in content.items() if not isinstance(value, list)}

    def run(self, name: str, changes: dict[str, Any], stages: Sequence[str], monitor: Monitor | None) -> None:
        """Run experiment ``name`` in a new clone, calling ``monitor`` all the time, and hand it over.

        Raises:
            UserError: it failed, and says why.
            Exception: what ``monitor`` raised; no process is left then either.
        """
        address = git(self.root, "ls-remote", "--get-url", self.remote or str(self.root))
        options = [word for key, value in changes.items() for word in ("-S", f"{key}={hydra(value)}")]
        options += ["-n", name, *stages, *(["--pull"] if self.remote else [])]
        with TemporaryDirectory(prefix=f"{name}-", ignore_cleanup_errors=True) as folder:
            clone = Path(folder)
            self.clone(clone)
            dvc(clone, monitor, "exp", "run", *options)
            if self.remote:  # files first: where the name is, the experiment is whole
                dvc(clone, monitor, "push", "--with-deps", *stages)
            dvc(clone, monitor, "exp", "push", "--no-cache", address, name)

    def clone(self, clone: Path) -> None:
        """Check out the commit in folder ``clone``, with this one's Git objects, DVC cache and settings."""
        identity = [f"-cuser.{key}={git(self.root, 'config', f'user.{key}')}" for key in ("name", "email")]
        git(self.root, "clone", "-q", "--shared", "--no-checkout", *identity, str(self.root), str(clone))
        git(clone, "checkout", "-q", "--detach", self.commit)
        with Repo(str(self.root)) as repo, Config(str(clone / ".dvc")).edit("local") as local:
            for level in ("repo", "local"):  # addresses relative to this checkout are so no more there
                merge(local, repo.config.load_one(level))
            local["cache"] = {"dir": repo.cache.local_cache_dir, "type": "reflink,hardlink,symlink,copy"}


def hydra(value: Any) -> str:
    """``value`` as ``dvc exp run -S`` reads it: JSON, but for the keys of mappings, which have no quotes."""
    return re.sub(r'"(\w+)":', r"\1:", json.dumps(value))


def git(folder: Path, *args: str) -> str:
    """What Git prints in ``folder``.

    Raises:
        UserError: it failed.
    """
    result = subprocess.run(["git", *args], cwd=folder, capture_output=True, text=True, check=False)
    if result.returncode:
        problem = " ".join(result.stderr.split()) or f"status {result.returncode}"
        raise UserError(f"git {' '.join(args[:2])} failed: {problem}")
    return result.stdout.strip()


def dvc(clone: Path, monitor: Monitor | None, *args: str) -> None:
    """Run DVC in ``clone`` and call ``monitor`` meanwhile.

    It and all that it starts end with this call, or with this process.
    """
    log = clone / ".dvc/tmp/log"
    env = environment() | {"DVC_ROOT": str(clone), "DVC_SITE_CACHE_DIR": str(clone / ".dvc/tmp/site")}
    log.parent.mkdir(exist_ok=True)
    with open(log, "w") as out, Popen(["sh", "-c", WATCHDOG], stdin=PIPE, process_group=0) as group:
        process = Popen(
            [*DVC, *args], cwd=clone, env=env, stdin=DEVNULL, stdout=out, stderr=out, process_group=group.pid
        )
        try:
            while process.poll() is None:
                if monitor:
                    monitor(clone)
                with suppress(subprocess.TimeoutExpired):
                    process.wait(0.2)
        finally:
            group.communicate()  # closes the pipe
            process.wait()
    if process.returncode:
        lines = log.read_text().splitlines()
        line = next((line for line in lines if "error:" in line.lower()), f"dvc {args[0]} failed")
        # how to restore files is said of the clone, which is gone
        raise UserError(re.sub(r" \(to restore what is committed: .*\)$", "", line).removeprefix("error: "))
