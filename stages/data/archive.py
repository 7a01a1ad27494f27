"""CIFAR-10's binary archive: where it is, and reading it without trusting it."""

import gzip
import os
import tarfile
import zlib
from pathlib import Path, PurePosixPath

import numpy as np

from stages.common.errors import UserError
from stages.data.fetch import REMEDY, fetch

FOLDER = "cifar-10-batches-bin"
TRAIN_FILES = tuple(f"data_batch_{number}.bin" for number in range(1, 6))
TEST_FILES = ("test_batch.bin",)
CLASS_FILE = "batches.meta.txt"
RECORDS = 10_000
RECORD_BYTES = 1 + 3 * 32 * 32


def locate(url: str, md5: str) -> tuple[Path, str]:
    """The archive's path, and its source for messages.

    ``CIFAR10_ARCHIVE`` if it is set, else ``url``, fetched once into the user's cache.

    Raises:
        UserError: there is no such file, or the server does not give the file with ``md5``.
    """
    local = os.environ.get("CIFAR10_ARCHIVE")
    if local:
        path = Path(local)
        if not path.is_file():
            raise UserError(
                f"CIFAR10_ARCHIVE: expected a file, found none at {str(path.absolute())!r}; {REMEDY}"
            )
        return path, f"CIFAR10_ARCHIVE={local}"
    return fetch(url, md5), url


def read(path: Path, source: str) -> tuple[dict[str, tuple[np.ndarray, np.ndarray]], tuple[str, ...]]:
    """``{"train": (images, labels), "test": ...}`` and the ten class names.

    Images are (N, 32, 32, 3) uint8, labels (N,) int64. Nothing is extracted to disk. ``source`` names
    the archive in messages.

    Raises:
        UserError: it is no whole archive in CIFAR-10's binary layout.
    """
    contents = _contents(path, source)
    for name in (*TRAIN_FILES, *TEST_FILES, CLASS_FILE):
        if name not in contents:
            raise _not_cifar10(source, f"no {FOLDER}/{name}")
    names = tuple(contents[CLASS_FILE].decode("ascii", "replace").split())
    if len(set(names)) != 10 or not all(name.isidentifier() for name in names):
        raise _not_cifar10(source, f"{len(set(names))} different class names in {CLASS_FILE}")
    splits = {
        "train": _records(contents, TRAIN_FILES, source),
        "test": _records(contents, TEST_FILES, source),
    }
    return splits, names


def _contents(path: Path, source: str) -> dict[str, bytes]:
    """The bytes of the files that matter, by name, in one pass over the archive."""
    contents = {}
    try:
        with gzip.open(path) as stream:
            with tarfile.open(fileobj=stream, mode="r:") as archive:
                for member in archive:
                    inside = PurePosixPath(member.name)
                    file = archive.extractfile(member) if member.isfile() else None
                    if inside.is_absolute() or ".." in inside.parts or not (file or member.isdir()):
                        raise _not_cifar10(source, f"a link or a path that leads outside: {member.name!a}")
                    name = inside.name
                    if (
                        file
                        and inside.parts == (FOLDER, name)
                        and name in (*TRAIN_FILES, *TEST_FILES, CLASS_FILE)
                    ):
                        contents[name] = file.read(RECORDS * RECORD_BYTES + 1)
            while stream.read(2**20):  # to the end, where gzip keeps the checksum
                pass
    except (tarfile.TarError, EOFError, zlib.error, ValueError, OSError) as error:
        if isinstance(error, OSError) and error.errno:
            raise
        raise _not_cifar10(source, f"a damaged or truncated file ({ascii(str(error))[1:-1]})") from None
    return contents


def _records(
    contents: dict[str, bytes], files: tuple[str, ...], source: str
) -> tuple[np.ndarray, np.ndarray]:
    """Images (N, 32, 32, 3) uint8 and labels (N,) int64: a record is a label, then three planes."""
    images, labels = [], []
    for name in files:
        content = np.frombuffer(contents[name], np.uint8)
        if content.size != RECORDS * RECORD_BYTES:
            size = f"{content.size:,}" if content.size < RECORDS * RECORD_BYTES else "more"
            raise _not_cifar10(source, f"{size} bytes instead of {RECORDS * RECORD_BYTES:,} in {name}")
        records = content.reshape(RECORDS, RECORD_BYTES)
        if records[:, 0].max() > 9:
            raise _not_cifar10(source, f"the label {records[:, 0].max()} in {name}")
        labels.append(records[:, 0].astype(np.int64))
        images.append(records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
    missing = set(range(10)) - set(np.unique(np.concatenate(labels)).tolist())
    if missing:
        raise _not_cifar10(source, f"no image with the label {min(missing)} in {', '.join(files)}")
    return np.concatenate(images), np.concatenate(labels)


def _not_cifar10(source: str, problem: str) -> UserError:
    return UserError(
        f"{source}: expected CIFAR-10's binary archive (five data batches and a test batch of "
        f"10,000 records, labels 0 to 9), found {problem}; {REMEDY}"
    )
