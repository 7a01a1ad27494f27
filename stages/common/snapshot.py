"""The code of the stages as it was when this process began to import it.

Only the standard library, and first of all modules: what is edited later is not what runs.
"""

import hashlib
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
STARTED = time.time()  # seconds since 1970


class Seen(NamedTuple):
    """A file: when it was written, in nanoseconds, its size in bytes, and the MD5 of its content."""

    written: int
    size: int
    md5: str


def md5_of(path: Path) -> str:
    """MD5 of a file, as 32 hexadecimal digits: what DVC knows a file by."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()


def seen(path: Path) -> Seen:
    """The file at ``path`` as it is now."""
    status = path.stat()
    return Seen(status.st_mtime_ns, status.st_size, md5_of(path))


def code(root: Path = ROOT) -> dict[str, Seen]:
    """Every file below ``root``/stages, by its path from ``root``."""
    found, folders = {}, set[str]()
    for folder, below, names in os.walk(root / "stages", followlinks=True):
        if folder.endswith("__pycache__") or os.path.realpath(folder) in folders:  # links may form a circle
            below.clear()
            continue
        folders.add(os.path.realpath(folder))
        for path in (Path(folder, name) for name in names):
            with suppress(OSError):  # an editor's, for a moment or for itself
                if path.is_file():
                    found[path.relative_to(root).as_posix()] = seen(path)
    return dict(sorted(found.items()))


AT_START = code()
