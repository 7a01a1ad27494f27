"""The archive: fetched once and whole, or refused in one line that says what to do."""

import gzip
import io
import socket
import tarfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import numpy as np
import pooch
import pytest

from stages.common.errors import UserError
from stages.data import archive
from tests.archives import BATCHES, CLASSES, FOLDER, Server, md5, official_members, pack, reply, serving

SMALL = b"a stand-in: fetching does not look inside\n" * 100


@pytest.fixture(autouse=True)
def _quick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty cache, no variable from outside, no waiting between attempts."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in ("CIFAR10_ARCHIVE", "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pooch.core.time, "sleep", lambda seconds: None)


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as server:
        yield server


@pytest.fixture(scope="module")
def members() -> dict[str, bytes]:
    return official_members()


def refused(url: str, digest: str = md5(SMALL)) -> str:
    """The one line that ``locate`` refuses with; nothing is left in the cache."""
    with pytest.raises(UserError) as caught:
        archive.locate(url, digest)
    message = str(caught.value)
    assert message.isprintable()
    assert message.startswith(f"{url}: expected ")
    assert all(part in message for part in ("CIFAR10_ARCHIVE=", "data.url", "-S data.source=synthetic"))
    assert "0x" not in message, "an object's address"
    cache = Path(pooch.os_cache("cifar10-dvc-study"))
    assert [path for path in cache.rglob("*") if path.is_file()] == []
    return message


def fetched(server: Server) -> None:
    """A good answer is taken after whatever went before, and only once."""
    server.serve(SMALL)
    path, source = archive.locate(server.url, md5(SMALL))
    assert path.read_bytes() == SMALL
    assert source == server.url
    before = server.requests
    assert archive.locate(server.url, md5(SMALL))[0] == path
    assert server.requests == before


def test_fetches_once(server: Server) -> None:
    fetched(server)
    assert server.requests == 1


def test_connection_refused() -> None:
    with socket.socket() as silent:  # kept, so that nobody else gets the port
        silent.bind(("127.0.0.1", 0))
        port = silent.getsockname()[1]
        assert "found Connection refused;" in refused(f"http://127.0.0.1:{port}/x.tar.gz")


def test_unknown_host() -> None:
    assert "found " in refused("http://no-such-host.invalid/x.tar.gz")


@pytest.mark.parametrize(
    "url", ["http://[", "http://:99999/", "http://%zz/", "http://a:b/", "https://.", "http://*"]
)
def test_an_address_that_is_none(url: str) -> None:
    refused(url)


@pytest.mark.parametrize("status", [403, 404, 410])
def test_client_error_is_not_asked_again(server: Server, status: int) -> None:
    server.answer = lambda handler: handler.send_error(status)
    assert f"found HTTP {status} " in refused(server.url)
    assert server.requests == 1
    fetched(server)


def test_404_by_name(server: Server) -> None:
    assert "found HTTP 404 Not Found;" in refused(server.url)


def test_unnamed_status(server: Server) -> None:
    server.answer = lambda handler: handler.send_error(599, "\x1b[31mred")
    assert "found HTTP 599;" in refused(server.url)


def test_500_that_stays(server: Server) -> None:
    server.answer = lambda handler: handler.send_error(500)
    assert "found HTTP 500 Internal Server Error;" in refused(server.url)
    assert server.requests == 3
    fetched(server)


def test_500_that_recovers(server: Server) -> None:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        if server.requests < 3:
            handler.send_error(500)
        else:
            reply(handler, SMALL)

    server.answer = answer
    assert archive.locate(server.url, md5(SMALL))[0].read_bytes() == SMALL
    assert server.requests == 3


def test_body_cut_short(server: Server) -> None:
    server.answer = lambda handler: reply(handler, SMALL[:1000], length=len(SMALL))
    assert "found a body that ended early;" in refused(server.url)
    fetched(server)


def test_body_cut_short_without_a_length(server: Server) -> None:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        handler.wfile.write(SMALL[:1000])

    server.answer = answer
    assert f"found {md5(SMALL[:1000])} (1,000 bytes);" in refused(server.url)
    fetched(server)


def test_wrong_bytes(server: Server) -> None:
    server.serve(b"<html>log in first</html>")
    message = refused(server.url)
    assert f"expected md5 {md5(SMALL)}, found {md5(b'<html>log in first</html>')} (25 bytes);" in message
    assert server.requests == 1
    fetched(server)


@pytest.mark.parametrize("sent", [0, 1000])
def test_stalling_server(server: Server, sent: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        if sent:
            reply(handler, SMALL[:sent], length=len(SMALL))
            handler.wfile.flush()
        server.ended.wait(5)

    server.answer = answer
    with monkeypatch.context() as impatient:
        impatient.setattr(archive, "TIMEOUT", 0.2)
        assert "found no answer for 0.2 s;" in refused(server.url)
    fetched(server)


def test_hangs_up_at_once(server: Server) -> None:
    server.answer = lambda handler: handler.connection.close()
    refused(server.url)
    fetched(server)


def test_redirect_is_followed(server: Server) -> None:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        if handler.path.startswith("/moved"):
            reply(handler, SMALL)
        else:
            handler.send_response(302)
            handler.send_header("Location", "/moved")
            handler.end_headers()

    server.answer = answer
    assert archive.locate(server.url, md5(SMALL))[0].read_bytes() == SMALL
    assert server.requests == 2


@pytest.mark.parametrize("target", ["/again", "ftp://127.0.0.1/x", "file:///etc/hostname"])
def test_redirect_to_nowhere(server: Server, target: str) -> None:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(302)
        handler.send_header("Location", target)
        handler.end_headers()

    server.answer = answer
    refused(server.url)
    fetched(server)


def test_damaged_copy_in_the_cache_is_fetched_anew(server: Server) -> None:
    server.serve(SMALL)
    path, _ = archive.locate(server.url, md5(SMALL))
    path.write_bytes(SMALL[:1000])
    fetched(server)
    assert server.requests == 2


def test_cache_that_cannot_be_written(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.serve(SMALL)
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(UserError) as caught:
        archive.locate(server.url, md5(SMALL))
    message = str(caught.value)
    assert message.isprintable()
    assert message.startswith(f"{server.url}: the archive could not be kept in '{tmp_path}/file/")
    assert "XDG_CACHE_HOME" in message


def test_file_at_hand_replaces_the_network(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "mine.tar.gz"
    path.write_bytes(b"other bytes")
    monkeypatch.setenv("CIFAR10_ARCHIVE", str(path))
    assert archive.locate(server.url, md5(SMALL)) == (path, f"CIFAR10_ARCHIVE={path}")
    assert server.requests == 0


@pytest.mark.parametrize("name", ["none.tar.gz", ".", "a\nb"])
def test_file_at_hand_is_missing(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CIFAR10_ARCHIVE", str(tmp_path / name))
    with pytest.raises(UserError, match="CIFAR10_ARCHIVE: expected a file, found none at '/") as caught:
        archive.locate("http://127.0.0.1:1/x", md5(SMALL))
    assert str(caught.value).isprintable()


def test_reads_the_official_layout(members: dict[str, bytes], tmp_path: Path) -> None:
    path = tmp_path / "archive.tar.gz"
    directory = tarfile.TarInfo(FOLDER)
    directory.type = tarfile.DIRTYPE
    extra = {f"{FOLDER}/readme.html": b"<html>", "README": b"hello"}
    path.write_bytes(pack(extra | dict(reversed(members.items())), directory))
    splits, classes = archive.read(path, "source")
    assert classes == tuple(CLASSES)
    for split, names in (("train", BATCHES[:5]), ("test", BATCHES[5:])):
        images, labels = splits[split]
        assert images.shape == (10_000 * len(names), 32, 32, 3)
        assert images.dtype == np.uint8
        assert labels.dtype == np.int64
        for index in (0, 257, 9_999, len(labels) - 1):
            # by the format's description: a label, then 1,024 red, green and blue values, row by row
            batch, row = divmod(index, 10_000)
            record = members[f"{FOLDER}/{names[batch]}"][row * 3073 : (row + 1) * 3073]
            assert labels[index] == record[0]
            for y, x, colour in ((0, 0, 0), (0, 1, 0), (0, 2, 0), (17, 5, 1), (0, 0, 2), (31, 31, 2)):
                assert images[index, y, x, colour] == record[1 + colour * 1024 + y * 32 + x]


def link(name: str, kind: bytes) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type = kind
    info.linkname = "/etc/passwd"
    return info


OUTSIDE = "a link or a path that leads outside: "
FIRST = f"{FOLDER}/data_batch_1.bin"


def with_label(content: bytes, label: int) -> bytes:
    return content[:3073] + bytes([label]) + content[3074:]


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"../outside": b"x"}, f"{OUTSIDE}'../outside'"),
        ({"/absolute": b"x"}, f"{OUTSIDE}'/absolute'"),
        ({f"{FOLDER}/../../outside": b"x"}, OUTSIDE),
        ({FIRST: None}, f"no {FIRST};"),
        ({f"{FOLDER}/batches.meta.txt": None}, f"no {FOLDER}/batches.meta.txt;"),
        ({FIRST: b""}, "0 bytes instead of 30,730,000 in data_batch_1.bin;"),
        ({FIRST: bytes(3073 * 9_999)}, "30,726,927 bytes instead of 30,730,000 in data_batch_1.bin;"),
        ({FIRST: bytes(3073 * 10_001)}, "more bytes instead of 30,730,000 in data_batch_1.bin;"),
        ({f"{FOLDER}/test_batch.bin": bytes(3073 * 10_000)}, "no image with the label 1 in test_batch.bin;"),
        ({f"{FOLDER}/batches.meta.txt": b"cat\ndog\n"}, "2 different class names in batches.meta.txt;"),
        ({f"{FOLDER}/batches.meta.txt": b"a b c d e f g h i \xff"}, "10 different class names"),
    ],
)
def test_foreign_members(
    members: dict[str, bytes], change: dict[str, bytes | None], found: str, tmp_path: Path
) -> None:
    # batches that are not looked at before the fault are left empty: packing them would take seconds
    meta = f"{FOLDER}/batches.meta.txt"
    base = members if "label" in found else dict.fromkeys(members, b"") | {meta: members[meta]}
    content = {name: data for name, data in (base | change).items() if data is not None}
    assert_foreign(pack(content), found, tmp_path)


def test_label_above_nine(members: dict[str, bytes], tmp_path: Path) -> None:
    content = members | {FIRST: with_label(members[FIRST], 10)}
    assert_foreign(pack(content), "the label 10 in data_batch_1.bin;", tmp_path)


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
@pytest.mark.parametrize("name", [FIRST, f"{FOLDER}/extra", "a\nb"])
def test_links_and_devices(name: str, kind: bytes, tmp_path: Path) -> None:
    assert_foreign(pack({}, link(name, kind)), OUTSIDE, tmp_path)


def test_not_a_tar(tmp_path: Path) -> None:
    assert_foreign(b"<html>log in first</html>", "a damaged or truncated file (Not a gzipped file", tmp_path)


def test_empty_file(tmp_path: Path) -> None:
    assert_foreign(b"", "a damaged or truncated file (", tmp_path)


def test_truncated_anywhere(members: dict[str, bytes], tmp_path: Path) -> None:
    content = pack({name: members[name][: 3073 * 50] for name in members})
    for length in (5, 100, len(content) // 2, len(content) - 9, len(content) - 1):
        assert_foreign(content[:length], "a damaged or truncated file (", tmp_path)


def test_wrong_checksum(members: dict[str, bytes], tmp_path: Path) -> None:
    content = bytearray(pack({FIRST: members[FIRST][:3073]}))
    content[-5] ^= 1
    assert_foreign(bytes(content), "a damaged or truncated file (CRC", tmp_path)


def test_damaged_bytes_raise_nothing_else(tmp_path: Path) -> None:
    """One changed byte in the tar's headers or the gzip stream: read, or refused in one line."""
    header = io.BytesIO()
    with tarfile.open(fileobj=header, mode="w", format=tarfile.PAX_FORMAT) as tar:
        info = tarfile.TarInfo(FIRST)
        info.pax_headers = {"mtime": "12.5", "size": "3", "comment": "x" * 50}
        info.size = 3
        tar.addfile(info, io.BytesIO(b"abc"))
    generator = np.random.default_rng(0)
    plain = header.getvalue()[:3072]
    for _ in range(400):
        content = bytearray(plain)
        for _ in range(generator.integers(1, 4)):
            content[generator.integers(len(content))] = generator.integers(256)
        assert_foreign(gzip.compress(bytes(content), 1), "", tmp_path)
    packed = gzip.compress(plain)
    for _ in range(400):
        content = bytearray(packed)
        content[generator.integers(len(content))] = generator.integers(256)
        assert_foreign(bytes(content), "", tmp_path)


def assert_foreign(content: bytes, found: str, folder: Path) -> None:
    path = folder / "archive.tar.gz"
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        archive.read(path, "http://the.source/")
    message = str(caught.value)
    assert message.isprintable()
    assert message.startswith("http://the.source/: expected CIFAR-10's binary archive (")
    assert f"found {found}" in message
    assert "CIFAR10_ARCHIVE=" in message
    assert [entry.name for entry in folder.iterdir()] == [path.name], "something was extracted"
