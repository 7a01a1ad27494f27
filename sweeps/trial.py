"""A trial: a DVC experiment, run in a clone of its own that shares the cache, and handed over."""

import json
import subprocess
from collections.abc import Callable, Iterator, Sequence
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

# among the processes that it ends; it reads until the worker closes the pipe, or dies
WATCHDOG = "trap '' INT TERM; read -r _; kill -KILL 0"
Watch = Callable[[Path], Iterator[Any]]  # given the clone, a step for each look at the running training


@dataclass(frozen=True)
class Checkout:
    """The repository at ``root``, of it ``commit``. Experiments go to its Git ``remote``, or to itself."""

    root: Path
    commit: str
    remote: str | None

    def exists(self, experiment: str) -> bool:
        """Whether ``experiment`` exists where results go."""
        return bool(git(self.root, "ls-remote", self.remote or ".", str(ExpRefInfo(self.commit, experiment))))

    def fetch(self, prefix: str) -> None:
        """Bring here, where there is a remote, its experiments whose names begin with ``prefix``."""
        ref = ExpRefInfo(self.commit, prefix)
        if self.remote:
            with FileLock(self.root / ".dvc/tmp/fetch.lock"):  # two that bring one reference fail
                git(self.root, "fetch", "-q", self.remote, f"+{ref}*:{ref}*")

    def metrics(self, experiment: str, stage: str) -> dict[str, Any]:
        """The metrics of training ``stage`` in ``experiment``, which was fetched, without lists."""
        path = f"metrics/{stage.removeprefix('train_')}.json"
        content = json.loads(git(self.root, "show", f"{ExpRefInfo(self.commit, experiment)}:{path}"))
        return {key: value for key, value in content.items() if not isinstance(value, list)}

    def run(self, name: str, changes: dict[str, Any], stages: Sequence[str], watch: Watch) -> None:
        """Run experiment ``name`` in a new clone, and hand it over; what ``watch`` returns goes on meanwhile.

        Raises:
            UserError: it failed, and says why.
            Exception: what was raised by the watch; no process is left then either.
        """
        address = git(self.root, "ls-remote", "--get-url", self.remote or str(self.root))
        words = [word for key, value in changes.items() for word in ("-S", f"{key}={json.dumps(value)}")]
        words += ["-n", name, *stages, *(["--pull"] if self.remote else [])]
        with TemporaryDirectory(prefix=f"{name}-", ignore_cleanup_errors=True) as folder:
            clone = Path(folder)
            watching = watch(clone)
            self.clone(clone)
            dvc(clone, watching, "exp", "run", *words)
            if self.remote:  # files first: where the name is, the experiment is whole
                dvc(clone, watching, "push", "--with-deps", *stages)
            dvc(clone, watching, "exp", "push", "--no-cache", address, name)

    def clone(self, clone: Path) -> None:
        """Check out the commit in folder ``clone``, with this one's Git objects, DVC cache and settings."""
        who = [f"-cuser.{key}={git(self.root, 'config', f'user.{key}')}" for key in ("name", "email")]
        git(self.root, "clone", "-q", "--shared", "--no-checkout", *who, str(self.root), str(clone))
        git(clone, "checkout", "-q", "--detach", self.commit)
        with Repo(str(self.root)) as repo, Config(str(clone / ".dvc")).edit("local") as local:
            for level in ("repo", "local"):  # addresses relative to this checkout are so no more there
                merge(local, repo.config.load_one(level))
            local["cache"] = {"dir": repo.cache.local_cache_dir, "type": "reflink,hardlink,symlink,copy"}


def git(folder: Path, *words: str) -> str:
    """What Git says in ``folder``.

    Raises:
        UserError: it failed.
    """
    done = subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        problem = " ".join(done.stderr.split()) or f"status {done.returncode}"
        raise UserError(f"git {' '.join(words[:2])} failed: {problem}")
    return done.stdout.strip()


def dvc(clone: Path, watching: Iterator[Any], *words: str) -> None:
    """Run DVC in ``clone``; it and all that it starts end with this call, or with this process."""
    log = clone / ".dvc/tmp/log"
    env = environment() | {"DVC_ROOT": str(clone), "DVC_SITE_CACHE_DIR": str(clone / ".dvc/tmp/site")}
    log.parent.mkdir(exist_ok=True)
    with open(log, "w") as out, Popen(["sh", "-c", WATCHDOG], stdin=PIPE, process_group=0) as dog:
        process = Popen(
            [*DVC, *words], cwd=clone, env=env, stdin=DEVNULL, stdout=out, stderr=out, process_group=dog.pid
        )
        try:
            while process.poll() is None:
                next(watching)
                with suppress(subprocess.TimeoutExpired):
                    process.wait(0.2)
        finally:
            dog.communicate()  # closes the pipe
            process.wait()
    if process.returncode:
        lines = log.read_text().splitlines()
        raise UserError(next((line for line in lines if "error:" in line.lower()), f"dvc {words[0]} failed"))
