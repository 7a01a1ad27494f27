"""CIFAR-10's binary archive: fetching it, and reading it without trusting it."""

import hashlib
import os
import sys
import tarfile
import zlib
from pathlib import Path, PurePosixPath

import numpy as np
import pooch
import requests

from stages.study.errors import UserError

FOLDER = "cifar-10-batches-bin"
TRAIN_FILES = tuple(f"data_batch_{number}.bin" for number in range(1, 6))
TEST_FILES = ("test_batch.bin",)
CLASS_FILE = "batches.meta.txt"
RECORDS = 10_000
RECORD_BYTES = 1 + 3 * 32 * 32
TIMEOUT = 30.0  # seconds without a byte
REMEDY = (
    "set CIFAR10_ARCHIVE=<a local cifar-10-binary.tar.gz>, correct data.url and data.md5, "
    "or use -S data.source=synthetic"
)


def locate(url: str, md5: str) -> Path:
    """The archive's path: ``CIFAR10_ARCHIVE`` if it is set, else ``url``, fetched once into the user's cache.

    Raises:
        UserError: there is no such file, or the server does not give the file with ``md5``.
    """
    at_hand = os.environ.get("CIFAR10_ARCHIVE")
    if at_hand:
        if not Path(at_hand).is_file():
            raise UserError(f"CIFAR10_ARCHIVE is {at_hand!r}, which is no file: {REMEDY}")
        return Path(at_hand)
    name = f"{md5}-cifar-10-binary.tar.gz"
    store = pooch.create(
        path=pooch.os_cache("cifar10-dvc-study"),
        base_url="",
        registry={name: f"md5:{md5}"},
        urls={name: url},
        retry_if_failed=2,
    )
    pooch.get_logger().setLevel("WARNING")
    print(f"archive: {url}", file=sys.stderr)
    downloader = pooch.HTTPDownloader(progressbar=sys.stderr.isatty(), timeout=TIMEOUT)
    try:
        return Path(store.fetch(name, downloader=downloader))
    except requests.RequestException as error:
        problem = " ".join(str(error).split())
        raise UserError(f"{url}: expected the archive, found {problem}; {REMEDY}") from None
    except ValueError as error:  # pooch's word for a wrong hash
        found = str(error).partition("Got ")[2].split(" ")[0].rstrip(".") or "another"
        raise UserError(f"{url}: expected md5 {md5}, found {found}; {REMEDY}") from None


def md5_of(path: Path) -> str:
    """MD5 of a file, as 32 hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()


def read(path: Path, source: str) -> tuple[dict[str, tuple[np.ndarray, np.ndarray]], tuple[str, ...]]:
    """``{"train": (images, labels), "test": ...}`` and the ten class names.

    Images are (N, 32, 32, 3) uint8, labels (N,) int64. Nothing is extracted to disk. ``source`` names
    the archive in messages.

    Raises:
        UserError: it is no whole archive in CIFAR-10's binary layout.
    """
    try:
        with tarfile.open(path, "r:gz") as archive:
            for member in archive:
                inside = PurePosixPath(member.name)
                if not (member.isfile() or member.isdir()) or inside.is_absolute() or ".." in inside.parts:
                    raise _foreign(source, f"a link or a path that leads outside: {member.name!r}")
            splits = {
                "train": _batches(archive, TRAIN_FILES, source),
                "test": _batches(archive, TEST_FILES, source),
            }
            names = tuple(_member(archive, CLASS_FILE, source).decode("ascii", "replace").split())
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        if isinstance(error, OSError) and error.errno:
            raise
        raise _foreign(source, f"a damaged or truncated file ({error})") from None
    if len(names) != 10 or not all(name.isidentifier() for name in names):
        raise _foreign(source, f"{len(names)} class names in {CLASS_FILE}")
    return splits, names


def _batches(archive: tarfile.TarFile, files: tuple[str, ...], source: str) -> tuple[np.ndarray, np.ndarray]:
    images, labels = [], []
    for name in files:
        content = np.frombuffer(_member(archive, name, source), np.uint8)
        if content.size != RECORDS * RECORD_BYTES:
            raise _foreign(source, f"{content.size:,} bytes instead of {RECORDS * RECORD_BYTES:,} in {name}")
        records = content.reshape(RECORDS, RECORD_BYTES)
        if records[:, 0].max() > 9:
            raise _foreign(source, f"the label {records[:, 0].max()} in {name}")
        labels.append(records[:, 0].astype(np.int64))
        images.append(records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
    return np.concatenate(images), np.concatenate(labels)


def _member(archive: tarfile.TarFile, name: str, source: str) -> bytes:
    try:
        member = archive.getmember(f"{FOLDER}/{name}")
    except KeyError:
        raise _foreign(source, f"no {FOLDER}/{name}") from None
    if member.size > RECORDS * RECORD_BYTES:
        raise _foreign(source, f"{member.size:,} bytes in {name}")
    file = archive.extractfile(member)
    if file is None:
        raise _foreign(source, f"a {name} that is no file")
    return file.read()


def _foreign(source: str, found: str) -> UserError:
    return UserError(
        f"{source}: expected CIFAR-10's binary archive (five data batches and a test batch of "
        f"10,000 records, labels 0 to 9), found {found}; {REMEDY}"
    )
