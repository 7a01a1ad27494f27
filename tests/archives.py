"""Archives in CIFAR-10's binary layout, and a server for them: what the tests of the download need."""

import gzip
import hashlib
import io
import tarfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

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
    """Answers every GET with ``answer(handler)``, and counts them."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.requests = 0
        self.answer: Callable[[BaseHTTPRequestHandler], None] = lambda handler: handler.send_error(404)
        self.ended = threading.Event()

    def serve(self, content: bytes) -> None:
        self.answer = lambda handler: reply(handler, content)


def reply(handler: BaseHTTPRequestHandler, content: bytes, length: int | None = None) -> None:
    """Status 200 and ``content``, announced as ``length`` bytes."""
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(content) if length is None else length))
    handler.end_headers()
    handler.wfile.write(content)


@contextmanager
def serving() -> Iterator[Server]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            server.requests += 1
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
