"""CIFAR-10's binary archive: fetching it, and reading it without trusting it."""

import gzip
import hashlib
import os
import sys
import tarfile
import zlib
from http import HTTPStatus
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pooch
import requests

from stages.common.errors import UserError

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
    return _fetched(url, md5), url


def _fetched(url: str, md5: str) -> Path:
    """The file with ``md5`` in the user's cache, from ``url`` where it is not there yet."""
    http = pooch.HTTPDownloader(progressbar=sys.stderr.isatty(), chunk_size=2**16, timeout=TIMEOUT)

    def download(url: str, output_file: str, store: Any) -> None:
        # pooch tries again after every error; what a server says on purpose it says again
        try:
            http(url, output_file, store)
        except requests.HTTPError as error:
            if error.response.status_code < 500:
                raise UserError(f"{url}: expected the archive, found {_reason(error)}; {REMEDY}") from None
            raise
        actual = md5_of(Path(output_file))
        if actual != md5:
            size = Path(output_file).stat().st_size
            raise UserError(f"{url}: expected md5 {md5}, found {actual} ({size:,} bytes); {REMEDY}")

    cache = Path(pooch.os_cache("cifar10-dvc-study"))
    name = f"{md5}-cifar-10-binary.tar.gz"
    store = pooch.create(
        path=cache, base_url="", registry={name: f"md5:{md5}"}, urls={name: url}, retry_if_failed=2
    )
    pooch.get_logger().setLevel("WARNING")
    print(f"archive: {url}, kept in {cache}", file=sys.stderr)
    try:
        return Path(store.fetch(name, downloader=download))
    except requests.RequestException as error:
        raise UserError(f"{url}: expected the archive, found {_reason(error)}; {REMEDY}") from None
    except OSError as error:
        problem = error.strerror or " ".join(str(error).split())
        raise UserError(
            f"{url}: the archive could not be kept in {str(cache)!r} ({problem}): "
            "make room there, set XDG_CACHE_HOME=<another folder>, or "
            "CIFAR10_ARCHIVE=<a local cifar-10-binary.tar.gz>"
        ) from None


def _reason(error: requests.RequestException) -> str:
    """What went wrong, without the objects that requests' own messages name."""
    if isinstance(error, requests.HTTPError):
        status = error.response.status_code
        return f"HTTP {status} {HTTPStatus(status).phrase}" if status in set(HTTPStatus) else f"HTTP {status}"
    if isinstance(error, requests.exceptions.ChunkedEncodingError):
        return "a body that ended early"
    root: BaseException = error
    while root.__cause__ or root.__context__:
        root = root.__cause__ or root.__context__  # type: ignore[assignment]
    if isinstance(root, TimeoutError):
        return f"no answer for {TIMEOUT:g} s"
    problem = getattr(root, "strerror", None) or str(root)
    return ascii(" ".join(problem.split()))[1:-1]


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
