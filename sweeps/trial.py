"""A trial's experiment: DVC runs it in a clone of its own that shares the cache, and hands it over."""

import json
import os
import platform
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from subprocess import DEVNULL, PIPE, Popen, TimeoutExpired
from tempfile import gettempdir
from typing import Any, BinaryIO

from configobj import ConfigObj
from filelock import FileLock

from stages.common.errors import UserError
from stages.common.locks import free, locked
from stages.common.params import PARAMS
from sweeps.pipeline import Pipeline, digest, read
from sweeps.storage import VARIABLE
from tools.charts import DVC, environment
from tools.git import git, output
from tools.metrics import require_finished

GATE = 'read -r _ && exec "$@" </dev/null'  # begins only when the watchdog is there
WATCHDOG = "trap '' INT TERM; read -r _; kill -s KILL -- -{}"  # as soon as the worker closes the pipe or dies
# what a stage says of its parameters; it would say it again, anywhere
OF_THE_SETTING = re.compile(r"(?!dvc \w+ failed: ).*(, but must be | is not finite: |the loss became )")
# DVC's settings that may be relative to the file they stand in
PATHS = {
    *("dir", "url", "credentialpath", "configpath", "keyfile", "cert_path", "key_path"),
    *("gdrive_user_credentials_file", "gdrive_service_account_json_file_path"),
}
FETCH = ("fetch", "-q", "--no-tags", "--no-prune", "--no-write-fetch-head", "--no-auto-maintenance")
Look = Callable[[Path, BinaryIO], None]  # at a training: given the clone, and what it has printed meanwhile


class Failed(Exception):  # noqa: N818
    """A training failed. ``again`` says that it may succeed the next time."""

    def __init__(self, words: str, again: bool) -> None:
        super().__init__(words)
        self.again = again


class Checkout:
    """The project in this folder, of it ``commit``, for the search ``name``.

    Experiments go to its Git ``remote``, or to itself. Checkpoints and logs are ``kept`` in a folder.
    """

    def __init__(self, name: str, commit: str, remote: str | None, kept: Path) -> None:
        self.root, self.name, self.commit, self.remote, self.kept = Path.cwd(), name, commit, remote, kept
        self.found: dict[str, tuple[str, str]] = {}  # commit and reference of experiments where they go
        (self.root / ".dvc/tmp").mkdir(parents=True, exist_ok=True)
        self.lock = FileLock(self.root / ".dvc/tmp/sweeps.lock")

    def experiment(self, setting: str, changes: Mapping[str, Any], stages: Sequence[str]) -> str:
        """The name for ``stages`` with ``changes``, which no other changes or stages have."""
        return f"{self.name}-{setting}-s{changes['train.seed']}-{digest([changes, [*stages]])[:6]}"

    def missing(self, experiments: Sequence[str]) -> list[str]:
        """Which of ``experiments`` are not where experiments go."""
        if not self.found.keys() >= set(experiments):
            words = output("ls-remote", self.remote or ".", f"refs/exps/*/{self.name}-*").split()
            pairs = zip(words[::2], words[1::2], strict=True)
            self.found = {
                ref.split("/")[-1]: (commit, ref)
                for commit, ref in pairs
                if self.commit in ref.replace("/", "")
            }
        return [experiment for experiment in experiments if experiment not in self.found]

    def folder(self, experiment: str) -> Path:
        """What is kept of ``experiment`` until it is done: checkpoints, and the log of each attempt."""
        return self.kept / experiment

    def log(self, experiment: str, attempt: int) -> Path:
        """What DVC and the stages print in an ``attempt`` at ``experiment``."""
        return self.folder(experiment) / f"{attempt}.log"

    def metrics(self, experiment: str, stage: str) -> dict[str, Any]:
        """The metrics of training ``stage`` in ``experiment``.

        Raises:
            UserError: the training has not ended.
        """
        path = f"metrics/{stage.removeprefix('train_')}.json"
        content: dict[str, Any] = json.loads(output("show", f"{self.reached(experiment)}:./{path}"))
        require_finished(content, f"{experiment}: {path}")
        return content

    def reached(self, experiment: str) -> str:
        """The commit of ``experiment``, which is brought here where only the remote has it."""
        commit, ref = self.found[experiment]
        if git("cat-file", "-e", commit).returncode:
            self.fetch(str(self.remote), ref)
        return commit

    @cached_property
    def params(self) -> Any:
        """The content of ``params.yaml`` at the commit."""
        return read(PARAMS, self.commit)

    def try_way(self, fixed: Mapping[str, Any], stages: Sequence[str]) -> None:
        """Go all the way of a trial but the training ``stages``, to find here what would stop it.

        Raises:
            UserError: something on the way is wrong.
        """
        before = Pipeline(stages, self.commit).before
        if not before:  # without stages DVC would run all
            return
        # one name for this checkout, lest those that a killed worker leaves become many
        experiment = f"{self.name}-try-{digest([platform.node(), str(self.root)])[:6]}"
        log = self.kept / f"{experiment}.log"
        waiting = f"{self.name}: waits for another worker, which tries the way from here"
        with locked(self.root / ".dvc/tmp/sweeps-try.lock", lambda: waiting), self.clone(experiment) as clone:
            dvc(clone, log, *self.words(experiment, fixed, before))
            # where the data set is there already, this alone says whether more may be written
            (clone / "try").write_text(f"{experiment} {time.time()}")
            dvc(clone, log, "add", "try")
            (ref,) = named(experiment, clone)
            try:
                self.hand_over(clone, experiment, [*before, "try.dvc"], log)
                if self.remote and (undone := git("push", "-q", "--delete", self.remote, ref)).returncode:
                    words = " ".join(undone.stderr.split())
                    print(f"{ref} stays at {self.remote}, and may be deleted: {words}", file=sys.stderr)
            finally:
                self.found.pop(experiment, None)
                git("update-ref", "-d", ref)  # which is not here where it could not be brought
        log.unlink()

    def train(
        self,
        clone: Path,
        experiment: str,
        changes: Mapping[str, Any],
        stages: Sequence[str],
        log: Path,
        look: Look,
    ) -> None:
        """Make ``experiment`` in ``clone``, calling ``look`` all the time. A stopped training goes on.

        Raises:
            Failed: a training did.
            UserError: something else did, such as a stage before them.
            Exception: what ``look`` raised; no process is left then either.
        """
        for part in (Path("runs/checkpoints"), Path("runs/locks")):
            kept = self.folder(experiment) / part.name
            kept.mkdir(parents=True, exist_ok=True)
            (clone / part).parent.mkdir(exist_ok=True)
            (clone / part).symlink_to(kept.resolve())
        try:
            dvc(clone, log, *self.words(experiment, changes, stages), look=look)
        except UserError as error:
            failed = Failed(str(error), again=not OF_THE_SETTING.match(str(error)))
            before = Pipeline(stages, self.commit).before
            if failed.again and before and not any(map(Pipeline(before, self.commit).reads, changes)):
                status = dvc(clone, log.with_suffix(".status"), "status", "--json", *before)
                if not status.endswith("{}\n"):
                    raise
            raise failed from None

    def words(self, experiment: str, changes: Mapping[str, Any], stages: Sequence[str]) -> list[str]:
        """DVC's command that makes ``experiment``: ``stages`` with ``changes``."""
        options = [word for key, value in changes.items() for word in ("-S", f"{key}={hydra(value)}")]
        return ["exp", "run", "-n", experiment, *options, *(["--pull"] if self.remote else []), *stages]

    def hand_over(self, clone: Path, experiment: str, stages: Sequence[str], log: Path) -> None:
        """Bring ``experiment`` here, and to the remotes; files first: where the name is, it is whole."""
        (ref,) = named(experiment, clone)
        if self.remote:
            dvc(clone, log, "push", "--with-deps", *stages)
        self.fetch(output("rev-parse", "--show-toplevel", folder=clone), ref)
        if self.remote:  # from here, where its address, credentials and hooks are those of the checkout
            output("push", "-q", self.remote, f"+{ref}:{ref}")
        self.found[experiment] = output("rev-parse", ref), ref

    def fetch(self, source: str, ref: str) -> None:
        """Bring ``ref`` here from ``source``."""
        with self.lock:  # two that bring one reference fail
            output(*FETCH, source, f"+{ref}:{ref}")

    @contextmanager
    def clone(self, name: str) -> Iterator[Path]:
        """The project at the commit, in a temporary folder with this one's objects, cache and settings.

        Folders that killed workers of this machine have left are removed before.
        """
        home = Path(gettempdir()) / f"sweeps-{os.getuid()}"
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        if home.is_symlink() or home.stat().st_uid != os.getuid():
            raise UserError(f"{home} is another user's: set TMPDIR to a folder of your own")
        for left in home.glob("*.lock"):
            with free(left) as nobody_has_it:
                if nobody_has_it:
                    shutil.rmtree(left.with_suffix(""), ignore_errors=True)
                    left.unlink(missing_ok=True)
        folder = home / f"{name}-{os.getpid()}"
        with FileLock(f"{folder}.lock"):
            try:
                top, prefix = (output("rev-parse", f"--show-{part}") for part in ("toplevel", "prefix"))
                identity = git("var", "GIT_COMMITTER_IDENT").stdout
                if not identity:
                    raise UserError(
                        "Git knows no name for commits: git config user.name <name>, and user.email"
                    )
                output("clone", "-q", "--shared", "--no-checkout", top, str(folder))
                for key, value in zip(("name", "email"), re.split(" <|> ", identity), strict=False):
                    output("config", f"user.{key}", value, folder=folder)
                output("checkout", "-q", "--detach", self.commit, folder=folder)
                self.share(folder / prefix)
                yield folder / prefix
            finally:
                shutil.rmtree(folder, ignore_errors=True)
                Path(f"{folder}.lock").unlink(missing_ok=True)

    def share(self, clone: Path) -> None:
        """Give ``clone`` this checkout's cache and settings; relative paths would lead elsewhere there."""
        cache = self.root / ".dvc/cache"  # where no setting says another
        cache.mkdir(exist_ok=True)
        (clone / ".dvc/cache").symlink_to(cache)

        def absolute(section: Any, key: str) -> None:
            value = section[key]  # a list, where it has a comma, DVC refuses
            if key in PATHS and isinstance(value, str) and not re.match(r"\w+://|~", value):
                section[key] = str(self.root / ".dvc" / value)

        options: Any = {"encoding": "utf-8", "interpolation": False}  # as the file has it
        merged = ConfigObj(**options)
        for level in ("config", "config.local"):
            settings = ConfigObj(str(self.root / ".dvc" / level), **options)
            settings.walk(absolute)
            merged.merge(settings)
        merged.filename = str(clone / ".dvc/config.local")
        merged.write()


def named(experiment: str, folder: Path) -> list[str]:
    """The references of ``experiment`` in the repository of ``folder``."""
    refs = output("for-each-ref", "--format=%(refname)", "refs/exps", folder=folder).split()
    return [ref for ref in refs if ref.endswith(f"/{experiment}")]


def hydra(value: Any) -> str:
    """``value`` as ``dvc exp run -S`` reads it: JSON, but for the keys of mappings, which have no quotes."""
    return re.sub(r'"(\w+)":', r"\1:", json.dumps(value))


@contextmanager
def guarded(command: Sequence[str], **options: Any) -> Iterator["Popen[bytes]"]:
    """``command`` in a session of its own, without a terminal that it could ask and wait for.

    Its process group ends with the block, or with this process. ``options`` are those of `Popen`.
    """
    own: Any = {"stdin": PIPE, "start_new_session": True}
    with (
        Popen(["sh", "-c", GATE, "sh", *command], **own, **options) as process,
        Popen(["sh", "-c", WATCHDOG.format(process.pid)], **own, stderr=DEVNULL) as watchdog,
    ):
        try:
            if process.stdin:
                os.write(process.stdin.fileno(), b"\n")
                process.stdin.close()
            yield process
        finally:
            watchdog.communicate()  # closes the pipe


def dvc(clone: Path, log: Path, *args: str, look: Look | None = None) -> str:
    """Run DVC in ``clone`` and call ``look`` meanwhile; returns what it printed, which is in ``log`` too.

    Raises:
        UserError: it failed, with the line that says why.
    """
    env = {name: value for name, value in environment().items() if name != VARIABLE}
    env |= {"DVC_ROOT": str(clone), "DVC_SITE_CACHE_DIR": str(clone / ".dvc/tmp/site")}
    env["GIT_TERMINAL_PROMPT"] = "0"
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "wb") as out, open(log, "rb") as said:  # whoever removes the file meanwhile
        with guarded([*DVC, *args], cwd=clone, env=env, stdout=out, stderr=out) as process:
            while process.poll() is None:
                if look:
                    look(clone, said)
                with suppress(TimeoutExpired):
                    process.wait(0.2)
        said.seek(0)
        text = said.read().decode(errors="replace")
    if process.returncode:
        errors = (line for line in text.splitlines() if line.lower().startswith("error: "))
        line = next(errors, f"status {process.returncode}")
        if line.startswith("error: "):  # DVC's are in capitals; the clone, where to restore files, is gone
            raise UserError(re.sub(r" \(to restore what is committed: .*\)$", "", line[7:]))
        raise UserError(f"dvc {args[0]} failed: {line.removeprefix('ERROR: ')} ({log} has all)")
    return text
