"""Archives in CIFAR-10's binary layout, and a server for them: what the tests of the download need."""

import gzip
import hashlib
import io
import tarfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import MappingProxyType

import numpy as np

FOLDER = "cifar-10-batches-bin"
CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
BATCHES = [*(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin"]


def official_members() -> dict[str, bytes]:
    """Six batches of 10,000 records, 1,000 of each class; few grey levels, so that they pack fast.

    The first two bytes of the red plane are the record's number, so that every image can be told apart.
    """
    members = {f"{FOLDER}/batches.meta.txt": ("\n".join(CLASSES) + "\n\n").encode()}
    for number, name in enumerate(BATCHES):
        records = np.zeros((10_000, 3073), np.uint8)
        records[:, 0] = np.random.default_rng(number).permutation(np.arange(10_000) % 10)
        records[:, 1] = np.arange(10_000) // 256
        records[:, 2] = np.arange(10_000) % 256
        records[:, 3] = number
        records[:, 1025:2049] = records[:, :1] * 25  # green tells the class
        records[:, 2049] = 200
        members[f"{FOLDER}/{name}"] = records.tobytes()
    return members


def pack(members: dict[str, bytes], *extra: tarfile.TarInfo) -> bytes:
    """A ``.tar.gz`` of ``members`` and of ``extra`` members without content."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        for info in extra:
            archive.addfile(info)
    return gzip.compress(content.getvalue(), compresslevel=1, mtime=0)


def md5(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


class Server:
    """Answers every GET with ``answer(handler)``, and keeps what was asked for."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.asked: list[Message] = []  # the headers of each request
        self.answer: Callable[[BaseHTTPRequestHandler], None] = lambda handler: handler.send_error(404)
        self.ended = threading.Event()

    @property
    def requests(self) -> int:
        return len(self.asked)

    @property
    def ranges(self) -> list[str | None]:
        """What each request asked for: None for the whole file."""
        return [headers["Range"] for headers in self.asked]

    def serve(self, content: bytes) -> None:
        self.answer = lambda handler: reply(handler, content)

    def serve_ranges(self, content: bytes, *stops: int, etag: str | None = None) -> None:
        """Serve also parts of ``content``; each request after this ends at the next of ``stops`` bytes."""
        ends = iter(stops)

        def answer(handler: BaseHTTPRequestHandler) -> None:
            asked, known = handler.headers["Range"], handler.headers["If-Range"]
            start = (
                int(asked.removeprefix("bytes=").removesuffix("-")) if asked and known in (None, etag) else 0
            )
            end = next(ends, len(content))
            headers = {"ETag": etag} if etag else {}
            if start >= len(content):
                reply(handler, b"", status=416, headers=headers)
            elif start:
                headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
                reply(handler, content[start:end], len(content) - start, 206, headers=headers)
            else:
                reply(handler, content[:end], len(content), headers=headers)

        self.answer = answer


def reply(
    handler: BaseHTTPRequestHandler,
    content: bytes,
    length: int | None = None,
    status: int = 200,
    headers: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Send ``content``, announced as ``length`` bytes."""
    handler.send_response(status)
    handler.send_header("Content-Length", str(len(content) if length is None else length))
    for name, value in headers.items():
        handler.send_header(name, value)
    handler.end_headers()
    handler.wfile.write(content)


@contextmanager
def serving() -> Iterator[Server]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            server.asked.append(self.headers)
            server.answer(self)

        def log_message(self, *args: object) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server = Server(f"http://127.0.0.1:{http.server_port}/cifar-10-binary.tar.gz")
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.ended.set()
        http.shutdown()
        http.server_close()
        thread.join()
