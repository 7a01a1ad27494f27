"""Files that appear whole or not at all."""

import csv
import hashlib
import io
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from stages.common import parent
from stages.common.errors import UserError
from stages.common.snapshot import md5_of

# The MD5 of every file that this process has read as a stage's input, and written as its result
READ: dict[Path, str] = {}
WRITTEN: dict[Path, str] = {}


@contextmanager
def reading(path: Path) -> Iterator[str]:
    """Read the input at ``path`` inside; gives its MD5, and notes it to be compared when the stage ends.

    Raises:
        UserError: it was replaced meanwhile.
        FileNotFoundError: there is none.
    """
    before = path.stat()
    READ[path] = md5_of(path)
    yield READ[path]
    after = path.stat()
    if (before.st_ino, before.st_mtime_ns) != (after.st_ino, after.st_mtime_ns):
        raise UserError(f"{path} changed while it was read: run the command again")


def require_space(folder: Path, size: int) -> None:
    """Tell before the work that the disk of ``folder``, which need not be there yet, lacks ``size`` bytes.

    Raises:
        UserError: its disk has less left.
    """
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    free = shutil.disk_usage(existing).free
    if free < size:
        left, needed = free // 10**6, -(-size // 10**6)
        raise UserError(
            f"{folder}/: the disk has {left:,} MB left, but {needed:,} MB are needed: free some ('make "
            "clean'); DVC's cache can be on another disk ('dvc cache dir --local <folder>')"
        )


def write_bytes(path: Path, content: bytes | bytearray) -> None:
    """Write a result: as `replace_bytes`, but not where the DVC that asked for it has ended.

    By then another run may have written there.

    Raises:
        OSError: as `replace_bytes`.
        Terminated: DVC has ended.
    """
    parent.check()
    replace_bytes(path, content)
    WRITTEN[path] = hashlib.md5(content).hexdigest()


def replace_bytes(path: Path, content: bytes | bytearray) -> None:
    """Write ``content`` aside, then rename it to ``path``: nobody ever sees half a file.

    Raises:
        OSError: naming ``path``, which is left as it was, or the folder that cannot be made.
    """
    # by process: two experiments at a time may write the same run record
    aside = path.with_name(f".{path.name}.{os.getpid()}.partial")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with open(aside, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        with suppress(OSError):  # gone after the rename
            aside.unlink()


def write_json(path: Path, content: Mapping[str, Any], indent: int | None = 2) -> None:
    """Write ``content`` as JSON. Refuses NaN and infinity, which JSON does not have (ValueError)."""
    write_bytes(path, (json.dumps(content, indent=indent, allow_nan=False) + "\n").encode())


def write_csv(path: Path, header: Iterable[str], rows: Iterable[Iterable[Any]]) -> None:
    """Write ``header`` and ``rows`` as CSV with Unix line ends."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    write_bytes(path, text.getvalue().encode())
