"""Checkpoints: a training that was ended continues after its last whole epoch, one that has ended is kept."""

import hashlib
import io
import json
import os
import platform
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch

from stages.common.files import replace_bytes
from stages.common.locks import free, locked
from stages.common.params import short
from stages.common.record import recorded
from stages.common.snapshot import AT_START, ROOT, STARTED

# What is kept of trainings that nobody continues, at most: of each model, in all, and for how long
MOST_OF_A_MODEL = 8
MOST_BYTES = 2**30
LONGEST = 30 * 24 * 3600.0  # seconds
WRITING = 3600.0  # seconds after which nobody writes a file any more that is half written


def runs_folder() -> Path:
    """Where run records and checkpoints stand: in the main checkout, in DVC's temporary ones too."""
    return Path(os.environ.get("DVC_ROOT", ".")) / "runs"


def code_digests() -> dict[str, str]:
    """MD5 of every file of this project whose module is loaded, as it was when the process began."""
    files = (getattr(module, "__file__", None) for module in list(sys.modules.values()))
    local = {
        Path(file).relative_to(ROOT).as_posix() for file in files if file and Path(file).is_relative_to(ROOT)
    }
    return {file: AT_START[file].md5 for file in sorted(local & AT_START.keys())}


def digest(*parts: Any) -> str:
    """SHA-256 of JSON values and tensors."""
    result = hashlib.sha256()
    for part in parts:
        if isinstance(part, torch.Tensor):
            result.update(part.detach().cpu().contiguous().numpy().data)
        else:
            result.update(json.dumps(part, sort_keys=True).encode())
    return result.hexdigest()


class Checkpoint:
    """The state of one training, in a file named after its ``identity``: all that determines its result.

    Use it as ``with Checkpoint.locked(name, identity) as checkpoint``. ``waited`` says whether another
    process had it before. The file is the SHA-256 of the rest (32 bytes); a line of JSON with the epochs,
    the identity and the result, as `save` has them; then what ``torch.save`` wrote.
    """

    def __init__(self, name: str, identity: Mapping[str, Any]) -> None:
        self.name, self.identity, self.waited = name, identity, False
        self.path = _folder() / f"{name}-{digest(identity)[:16]}.pt"

    @classmethod
    @contextmanager
    def locked(cls, name: str, identity: Mapping[str, Any]) -> Iterator["Checkpoint"]:
        """The checkpoint of model ``name`` and ``identity``, which no second process can have.

        Where another process has it, this one says so in one line, and waits.
        """
        checkpoint = cls(name, identity)
        holder = _lock_file(checkpoint.path, ".holder")

        def waiting() -> str:
            try:
                who = holder.read_text()
            except OSError:  # it has just begun or just ended
                who = "another process"
            return f"{name}: waits for {who}, which trains this very model; Ctrl-C ends this"

        with locked(_lock_file(checkpoint.path), waiting) as checkpoint.waited:
            try:
                replace_bytes(holder, f"process {os.getpid()} on {platform.node()}".encode())
                yield checkpoint
            finally:
                holder.unlink(missing_ok=True)

    def save(self, state: Mapping[str, Any], epochs: int, result: Mapping[str, Any] | None = None) -> None:
        """Replace the file by ``state`` after ``epochs``: tensors, numbers, text, lists and dicts of them.

        ``result`` is what `record.description` says of a training that has written its results.
        """
        content = io.BytesIO()
        about = {"epochs": epochs, "identity": self.identity, "result": result}
        content.write(json.dumps(about).encode() + b"\n")
        torch.save(state, content)
        replace_bytes(self.path, hashlib.sha256(content.getbuffer()).digest() + content.getbuffer())

    def resume(self) -> dict[str, Any] | None:
        """The state to go on from, or None.

        The state of a training that has ended counts while DVC has not recorded its result: whoever
        starts it again after that wants it trained. A process that has waited for it takes it anyway.
        """
        result = _about(self.path).get("result")
        if result and not self.waited and recorded(result, before=STARTED):
            self.path.unlink(missing_ok=True)
        state = self._load()
        if state is None and not self.waited:
            self._tell_what_does_not_fit()
        return state

    def _load(self) -> dict[str, Any] | None:
        """The saved state, or None. A damaged file is put aside, with one line."""
        if not self.path.exists():
            return None
        content = self.path.read_bytes()
        if hashlib.sha256(content[32:]).digest() == content[:32]:
            start = content.index(b"\n", 32) + 1
            state: dict[str, Any] = torch.load(io.BytesIO(content[start:]), weights_only=True)
            return state
        aside = self.path.with_suffix(".damaged")
        self.path.replace(aside)
        print(f"{self.path.name} is damaged: put aside as {aside}, training starts over", file=sys.stderr)
        return None

    def _tell_what_does_not_fit(self) -> None:
        """Name the checkpoint of this model's last training, where that was stopped and does not fit."""
        for path in _newest_first(f"{self.name}-*.pt"):
            with suppress(OSError), free(_lock_file(path)) as nobody_has_it:
                about, last = _about(path), runs_folder() / f"{self.name}.json"
                # a training writes both after each epoch; one that ended since has written the second
                if not about or (last.exists() and last.stat().st_mtime > path.stat().st_mtime + 60):
                    return
                if nobody_has_it and about["result"] is None:
                    print(
                        f"{self.name}: the checkpoint after epoch {about['epochs']} does not fit "
                        f"({differences(about['identity'], self.identity)}): training starts over",
                        file=sys.stderr,
                    )
                    return


def differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """What differs between two identities: the first three of what they hold, and how many more."""
    found = []
    for part in now:
        if isinstance(now[part], Mapping):
            was, is_now = then.get(part, {}), now[part]
            for key in sorted({*was, *is_now}):
                if was.get(key) != is_now.get(key):
                    values = f" was {short(was.get(key))}, is {short(is_now.get(key))}"
                    found.append(f"{key} was edited" if part == "code" else f"{part}.{key}{values}")
        elif then.get(part) != now[part]:
            found.append(f"other {part}")
    more = f" and {len(found) - 3} more" if len(found) > 3 else ""
    return f"{', '.join(found[:3])}{more}"


def tidy() -> None:
    """Remove the states that nobody needs: recorded by DVC, or beyond what is kept at most, or too old."""
    of_a_model, total = Counter[str](), 0
    for path in _newest_first("*"):
        with suppress(OSError):  # another process has removed it, or another user has it
            if path.suffix == ".partial" and time.time() - path.stat().st_mtime > WRITING:
                path.unlink()
            if path.suffix not in (".pt", ".damaged"):
                continue
            model, status = path.name.rpartition("-")[0], path.stat()
            result = _about(path).get("result") if path.suffix == ".pt" else None
            if result and recorded(result, before=STARTED):
                _remove_if_free(path)
                continue
            of_a_model[model] += 1
            total += status.st_size
            if (
                of_a_model[model] > MOST_OF_A_MODEL
                or (total > MOST_BYTES and of_a_model[model] > 1)
                or time.time() - status.st_mtime > LONGEST
            ):
                _remove_if_free(path)
    for lock in (runs_folder() / "locks").glob("*.lock"):
        with suppress(OSError):
            if time.time() - lock.stat().st_mtime > LONGEST:
                _remove_if_free(lock)


def _remove_if_free(path: Path) -> None:
    with free(_lock_file(path)) as nobody_has_it:
        if nobody_has_it:
            path.unlink(missing_ok=True)


def _folder() -> Path:
    return runs_folder() / "checkpoints"


def _newest_first(pattern: str) -> list[Path]:
    """The files in the checkpoints' folder that match; another process may remove them at any time."""
    times = []
    for path in _folder().glob(pattern):
        with suppress(FileNotFoundError):
            times.append((path.stat().st_mtime, path))
    return [path for _, path in sorted(times, reverse=True)]


def _about(path: Path) -> dict[str, Any]:
    """What the first line of a checkpoint says; nothing where there is none or it is damaged."""
    try:
        with open(path, "rb") as file:
            file.seek(32)
            about = json.loads(file.readline(2**20))
    except (OSError, ValueError):
        return {}
    return about if isinstance(about, dict) else {}


def _lock_file(path: Path, suffix: str = ".lock") -> Path:
    return runs_folder() / "locks" / path.with_suffix(suffix).name
