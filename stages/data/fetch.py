"""The archive from its server: what arrived stays, and the next attempt or run asks for the rest."""

import errno
import http.client
import json
import os
import re
import shutil
import sys
import time
from contextlib import suppress
from http import HTTPStatus
from pathlib import Path

import requests
import urllib3
from platformdirs import user_cache_dir
from tqdm import tqdm

from stages.common.errors import UserError
from stages.common.files import write_json
from stages.common.locks import locked
from stages.common.snapshot import md5_of

NAME = "cifar-10-binary.tar.gz"
TIMEOUT = 30.0  # seconds without a byte
ATTEMPTS = 3  # in a row that bring next to nothing new
PROGRESS = 2**14  # bytes that an attempt must bring to count
PAUSE = 1.0  # seconds before the next attempt; longer after each that brought nothing new
MOST_BYTES = 500_000_000  # the official archive has 170,052,171
# what decides about the way to a server, by the address's scheme
SETTINGS = {
    "http": ("http_proxy", "all_proxy"),
    "https": ("https_proxy", "all_proxy", "requests_ca_bundle", "curl_ca_bundle"),
}
REMEDY = (
    "set CIFAR10_ARCHIVE=<a local cifar-10-binary.tar.gz>, correct data.url and data.md5, "
    "or use -S data.source=synthetic"
)


def fetch(url: str, md5: str) -> Path:
    """The file with ``md5`` in the user's cache, from ``url`` where it is not there yet.

    Raises:
        UserError: the server does not give the file, or the cache cannot keep it.
        KeyboardInterrupt: with a line that says what is kept.
    """
    try:
        cache = Path(user_cache_dir("cifar10-dvc-study"))
    except RuntimeError:  # nobody knows where the home folder is
        raise UserError(
            "the archive has no place: this user has no home folder, set HOME or XDG_CACHE_HOME=<a folder>"
        ) from None
    target = cache / f"{md5}-{NAME}"
    print(f"archive: {url}, kept in {cache}", file=sys.stderr)
    try:
        if _is_whole(target, md5):  # before the lock, for a cache that can only be read
            return target
        waiting = "archive: another process is fetching it: waiting for that one"
        with locked(cache / f"{NAME}.lock", lambda: waiting):
            if not _is_whole(target, md5):  # another process may have fetched it meanwhile
                _Download(url, md5, cache).run(target)
    except OSError as error:
        problem = error.strerror or " ".join(str(error).split())
        raise UserError(
            f"{url}: the archive could not be kept in {str(cache)!r} ({problem}): "
            "make room there, set XDG_CACHE_HOME=<another folder>, or "
            "CIFAR10_ARCHIVE=<a local cifar-10-binary.tar.gz>"
        ) from None
    return target


def _is_whole(path: Path, md5: str) -> bool:
    return path.is_file() and md5_of(path) == md5


class _EndedError(Exception):
    """An attempt ended before the last byte: what arrived is good, and another attempt may bring more."""


class _UnusableError(Exception):
    """What arrived cannot become the file."""


class _Download:
    """A file on its way: its first bytes in ``part``, and in ``origin`` whose they are.

    There is one such pair in the cache, whatever is fetched: the lock of `fetch` protects it.
    """

    def __init__(self, url: str, md5: str, folder: Path) -> None:
        self.url = url
        self.md5 = md5
        self.part = folder / f"{NAME}.part"
        self.origin = folder / f"{NAME}.part.json"
        self.validator: str | None = None  # the ETag or date by which the server knows this version
        self.total: int | None = None  # bytes that the server announced
        self.joined = False  # whether ``part`` comes from several answers, which may not fit each other
        self.anew = ""  # why the last answer began at the first byte though the rest was asked for

    def run(self, target: Path) -> None:
        """Fetch the file, with one line for each attempt, and rename it to ``target`` when its MD5 is right.

        Raises:
            UserError: the server does not give it.
            OSError: the disk refused; what arrived is kept.
            KeyboardInterrupt: with a line that says what is kept.
        """
        try:
            if not self._take_over():
                self._attempts()
            os.replace(self.part, target)
        except KeyboardInterrupt as stop:
            stop.args = (f"archive: stopped with {self._arrived()} kept; the same command asks for the rest",)
            raise
        finally:
            if not self.size:
                self._discard()

    @property
    def size(self) -> int:
        """Bytes that are here."""
        return self.part.stat().st_size if self.part.exists() else 0

    def _arrived(self) -> str:
        return f"{self.size:,} of {self.total:,} bytes" if self.total is not None else f"{self.size:,} bytes"

    def _take_over(self) -> bool:
        """Take what an earlier run left of this very file, or throw it away; whether it is the whole file."""
        try:
            origin = json.loads(self.origin.read_bytes())
            ours = (origin["url"], origin["md5"]) == (self.url, self.md5)
        except (OSError, ValueError, LookupError, TypeError):
            ours = False
        if not ours or not 0 < self.size <= MOST_BYTES:
            self._discard()
            return False
        validator = origin.get("validator")
        self.validator = validator if isinstance(validator, str) and validator.isprintable() else None
        print(f"archive: {self.size:,} bytes are left from an earlier run", file=sys.stderr)
        return md5_of(self.part) == self.md5

    def _attempts(self) -> None:
        """Attempt until the file is whole, or too many attempts in a row brought nothing new."""
        most, fruitless, began_anew = self.size, 0, False
        while True:
            self.anew = ""
            try:
                self._attempt()
                print(f"archive: {self._arrived()}{self.anew}", file=sys.stderr)
                return
            except _EndedError as problem:
                # a server that always begins anew makes no progress by sending the same bytes again
                fruitless = 0 if self.size >= most + PROGRESS else fruitless + 1
                most = max(most, self.size)
                kept = f" ({self._arrived()} are kept, the same command asks for the rest)"
                if fruitless == ATTEMPTS:
                    raise self._refused(f"{problem}{kept if self.size else ''}") from None
                line = f"archive: {self._arrived()}{self.anew}, then {problem}; again"
            except _UnusableError as problem:
                line = (
                    f"archive: {self._arrived()}{self.anew}, but {problem}; thrown away, from the first byte"
                )
                self._discard()
                if began_anew or not (self.joined or self.total is None):
                    raise self._refused(str(problem)) from None
                began_anew, most = True, 0
            pause = PAUSE * max(fruitless, 1)
            print(f"{line} in {pause:g} s", file=sys.stderr)
            time.sleep(pause)

    def _attempt(self) -> None:
        """Ask for the rest once, and check the file.

        Raises:
            _EndedError: the server or the way to it failed.
            _UnusableError: the file is complete and has another MD5, or the rest does not fit what is here.
            UserError: the server refuses, or it cannot be asked.
            OSError: the disk refused.
        """
        start = self.size
        # compressed on the way, ranges would count other bytes than the file's
        headers = {"Accept-Encoding": "identity"}
        self.joined = start > 0
        if start:
            headers["Range"] = f"bytes={start}-"
            if self.validator:
                headers["If-Range"] = self.validator
        with self._ask(headers) as response:
            self._check_status(response, start)
            limit = MOST_BYTES if self.total is None else self.total
            if limit > MOST_BYTES:
                raise self._refused(f"{limit:,} bytes, where at most {MOST_BYTES:,} are expected")
            if response.status_code == HTTPStatus.OK:
                if self.total is not None and self.total < start:  # such as the page of a login
                    raise self._refused(
                        f"{self.total:,} bytes, fewer than the {start:,} that an earlier attempt left in "
                        f"{str(self.part)!r} (delete that file if it is wrong)"
                    )
                if start:
                    changed = self.validator not in (None, _validator(response))
                    reason = "the file has changed there" if changed else "the server does not continue"
                    self.anew = f", from the first byte because {reason}"
                start, self.joined = 0, False
                self._begin(response)
            if self.total is not None and self.total - start > shutil.disk_usage(self.part.parent).free:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self._keep(response, start, limit)
        if self.total is not None and self.size < self.total:
            raise _EndedError("a body that ended early")
        actual = md5_of(self.part)
        if actual != self.md5:
            cut = ", of a length that the server does not tell" if self.total is None else ""
            raise _UnusableError(f"md5 {actual} ({self.size:,} bytes{cut}), not {self.md5}")

    def _ask(self, headers: dict[str, str]) -> requests.Response:
        try:
            return requests.get(self.url, headers=headers, stream=True, timeout=TIMEOUT)
        except (requests.ConnectionError, requests.Timeout) as error:
            raise _EndedError(f"{_reason(error)}{_settings(self.url)}") from None
        except (OSError, ValueError, urllib3.exceptions.HTTPError) as error:  # what no second attempt mends
            raise self._refused(f"{_reason(error)}{_settings(self.url)}") from None

    def _check_status(self, response: requests.Response, start: int) -> None:
        """Whether this is the file, or its rest where ``start`` is not 0; notes the size of the whole."""
        status = response.status_code
        if status == HTTPStatus.OK or (start and status == HTTPStatus.PARTIAL_CONTENT):
            header = "Content-Length" if status == HTTPStatus.OK else "Content-Range"
            match = re.fullmatch(r"(?:bytes .*/)?([0-9]{1,18})", response.headers.get(header, ""))
            self.total = int(match[1]) if match else None
            return
        name = f"HTTP {status} {HTTPStatus(status).phrase}" if status in set(HTTPStatus) else f"HTTP {status}"
        if status >= 500:
            raise _EndedError(name)
        if start and status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise _UnusableError(name)
        raise self._refused(name)  # what a server says on purpose it says again

    def _begin(self, response: requests.Response) -> None:
        """Empty ``part``, then say in ``origin`` whose bytes will stand there."""
        self.part.write_bytes(b"")
        self.validator = _validator(response)
        write_json(self.origin, {"url": self.url, "md5": self.md5, "validator": self.validator})

    def _keep(self, response: requests.Response, start: int, limit: int) -> None:
        """Append the body to ``part`` as it comes, up to ``limit`` bytes in all."""
        with (
            open(self.part, "ab") as file,
            tqdm(
                total=self.total,
                initial=start,
                desc="archive",
                unit="B",
                unit_scale=True,
                disable=not sys.stderr.isatty(),
            ) as bar,
        ):
            while chunk := _read(response):
                if file.tell() + len(chunk) > limit:
                    if not self.joined:
                        self._discard()
                        raise self._refused(f"more than {limit:,} bytes")
                    raise _UnusableError(f"more than {limit:,} bytes")
                file.write(chunk)
                bar.update(len(chunk))

    def _discard(self) -> None:
        # the bytes first: they must never stand beside another file's origin
        with suppress(OSError):  # what cannot be removed cannot be written either, and that is told
            self.part.unlink(missing_ok=True)
            self.origin.unlink(missing_ok=True)

    def _refused(self, found: str) -> UserError:
        return UserError(f"{self.url}: expected the archive, found {found}; {REMEDY}")


def _read(response: requests.Response) -> bytes:
    """The bytes that are there, as they were sent; none at the end of the body."""
    try:
        return response.raw.read1(2**16, decode_content=False)
    except (OSError, ValueError, urllib3.exceptions.HTTPError) as error:
        raise _EndedError(_reason(error)) from None


def _validator(response: requests.Response) -> str | None:
    """By what If-Range names this version of the file: a weak ETag must not stand there."""
    etag = response.headers.get("ETag", "")
    return etag if etag.startswith('"') else response.headers.get("Last-Modified")


def _reason(error: Exception) -> str:
    """What went wrong, without the objects that requests' own messages name."""
    root: BaseException = error
    while root.__cause__ or root.__context__:
        root = root.__cause__ or root.__context__  # type: ignore[assignment]
    if isinstance(root, http.client.IncompleteRead):
        return "a body that ended early"
    if isinstance(root, TimeoutError):
        return f"no answer for {TIMEOUT:g} s"
    problem = getattr(root, "strerror", None) or str(root)
    return ascii(" ".join(problem.split()))[1:-1].rstrip(".")


def _settings(url: str) -> str:
    """Which variables decide about the way to ``url``, where nothing came from there."""
    names = [name for name in os.environ if name.lower() in SETTINGS[url.partition(":")[0]]]
    return f" (the environment sets {', '.join(names)})" if names else ""
