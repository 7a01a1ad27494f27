"""Checkpoints: a training that was ended continues after its last whole epoch."""

import hashlib
import io
import json
import os
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from stages.common.errors import UserError
from stages.common.files import write_bytes


def runs_folder() -> Path:
    """Where run records and checkpoints stand: in the main checkout, in DVC's temporary ones too."""
    return Path(os.environ.get("DVC_ROOT", ".")) / "runs"


def code_digests() -> dict[str, str]:
    """SHA-256 of every module of this project that is loaded."""
    return {
        name: hashlib.sha256(Path(file).read_bytes()).hexdigest()
        for name, module in sorted(sys.modules.items())
        if name.split(".")[0] in ("stages", "__main__") and (file := getattr(module, "__file__", None))
    }


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
    """The state of one training, in a file named after everything that determines its result.

    Use it as ``with Checkpoint.locked(name, key) as checkpoint``. The file is the SHA-256 of the rest
    (32 bytes), then what ``torch.save`` wrote.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    @contextmanager
    def locked(cls, name: str, key: str) -> Iterator["Checkpoint"]:
        """The checkpoint of model ``name`` and ``key``, locked: no second process can have it.

        Raises:
            UserError: another process has it.
        """
        run = f"{name}-{key[:16]}"
        checkpoint = cls(runs_folder() / "checkpoints" / f"{run}.pt")
        locks = runs_folder() / "locks"
        locks.mkdir(parents=True, exist_ok=True)
        holder = locks / f"{run}.holder"
        try:
            with FileLock(locks / f"{run}.lock", timeout=0):
                write_bytes(holder, f"process {os.getpid()} on {platform.node()}".encode())
                try:
                    yield checkpoint
                finally:
                    holder.unlink(missing_ok=True)
        except Timeout:
            try:
                who = holder.read_text()
            except OSError:  # it has just begun or just ended
                who = "another process"
            raise UserError(
                f"{who} is training this very model: wait for it, or end it, then run again"
            ) from None

    def save(self, state: dict[str, Any]) -> None:
        """Replace the file by ``state``: tensors, numbers, text, and lists and dicts of them."""
        content = io.BytesIO()
        torch.save(state, content)
        write_bytes(self.path, hashlib.sha256(content.getbuffer()).digest() + content.getbuffer())

    def load(self) -> dict[str, Any] | None:
        """The saved state, or None. A damaged file is put aside, with one line."""
        if not self.path.exists():
            return None
        content = self.path.read_bytes()
        if hashlib.sha256(content[32:]).digest() == content[:32]:
            state: dict[str, Any] = torch.load(io.BytesIO(content[32:]), weights_only=True)
            return state
        aside = self.path.with_suffix(".damaged")
        self.path.replace(aside)
        print(
            f"{self.path.name} is damaged: put aside as {aside}, training starts over",
            file=sys.stderr,
        )
        return None

    def delete(self) -> None:
        """Forget the state: the training has succeeded."""
        self.path.unlink(missing_ok=True)
