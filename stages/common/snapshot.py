"""The code of the stages as it was when this process began to import it.

Only the standard library, and first of all modules: what is edited later is not what runs.
"""

import hashlib
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
STARTED = time.time()  # seconds since 1970


class Seen(NamedTuple):
    """A file: when it was written, which file it is, its size in bytes, and the MD5 of its content."""

    written: int
    inode: int
    size: int
    md5: str


def md5_of(path: Path) -> str:
    """MD5 of a file, as 32 hexadecimal digits: what DVC knows a file by."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()


def seen(path: Path) -> Seen:
    """The file at ``path`` as it is now."""
    status = path.stat()
    return Seen(status.st_mtime_ns, status.st_ino, status.st_size, md5_of(path))


def code(root: Path = ROOT) -> dict[str, Seen]:
    """Every file below ``root``/stages, by its path from ``root``."""
    files = (path for path in sorted((root / "stages").rglob("*")) if "__pycache__" not in path.parts)
    return {path.relative_to(root).as_posix(): seen(path) for path in files if path.is_file()}


AT_START = code()
