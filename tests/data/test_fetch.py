"""The archive's way: fetched once and whole, continued where it stopped, or refused in one line."""

import gzip
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from platformdirs import user_cache_dir

from stages.common.errors import UserError
from stages.data import archive, fetch
from tests.archives import Server, md5, reply, serving
from tests.project import ROOT

SMALL = b"a stand-in: fetching does not look inside\n" * 100
OTHER = SMALL.swapcase()
NAME = "cifar-10-binary.tar.gz"
# a stage that fetches, and what it says then
FETCHING = (
    "import sys; from stages.common.errors import run; from stages.data.fetch import fetch; "
    "run(lambda: print(fetch(*sys.argv[1:])))"
)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, no variable from outside, no waiting between attempts."""
    for name in os.environ:
        if name == "CIFAR10_ARCHIVE" or name.lower().endswith(("_proxy", "_ca_bundle")):
            monkeypatch.delenv(name)
    for name in ("XDG_CACHE_HOME", "WIN_PD_OVERRIDE_LOCAL_APPDATA"):
        monkeypatch.setenv(name, str(tmp_path / "cache"))
    monkeypatch.setattr(fetch, "PAUSE", 0)
    monkeypatch.setattr(fetch, "PROGRESS", 1)
    return Path(user_cache_dir("cifar10-dvc-study"))


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as server:
        yield server


@pytest.fixture
def told(capsys: pytest.CaptureFixture[str]) -> Callable[[], list[str]]:
    """What was told since the line that every fetch begins with; each line is the archive's."""

    def lines() -> list[str]:
        _, *rest = capsys.readouterr().err.splitlines()
        return [line.removeprefix("archive: ") for line in rest]

    return lines


def left(cache: Path) -> dict[str, bytes]:
    """The files in the cache, without the lock and the note whose bytes the leftover holds."""
    return {path.name: path.read_bytes() for path in cache.glob("*") if path.suffix not in (".lock", ".json")}


def refused(url: str) -> str:
    """The one line that ``locate`` refuses with."""
    with pytest.raises(UserError) as caught:
        archive.locate(url, md5(SMALL))
    message = str(caught.value)
    assert message.isprintable()
    assert message.startswith(f"{url}: expected the archive, found ")
    assert all(part in message for part in ("CIFAR10_ARCHIVE=", "data.url", "-S data.source=synthetic"))
    assert "0x" not in message, "an object's address"
    return message


def refused_without_a_trace(url: str) -> str:
    message = refused(url)
    cache = Path(user_cache_dir("cifar10-dvc-study"))
    assert [path.name for path in cache.glob("*")] in ([], [f"{NAME}.lock"])
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


def leave(server: Server, cache: Path, content: bytes) -> None:
    """Make ``content`` what an earlier run left."""
    server.serve_ranges(SMALL, *[1] * 4)
    refused(server.url)
    (cache / f"{NAME}.part").write_bytes(content)
    server.asked.clear()
    server.serve_ranges(SMALL)


@pytest.fixture
def nobody() -> Iterator[str]:
    """An address where nobody listens."""
    with socket.socket() as silent:  # kept, so that nobody else gets the port
        silent.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{silent.getsockname()[1]}"


def test_fetches_once(server: Server, cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fetched(server)
    assert server.requests == 1
    first = f"archive: {server.url}, kept in {cache}"
    assert capsys.readouterr().err.splitlines() == [first, "archive: 4,200 of 4,200 bytes", first]
    assert {path.name for path in cache.iterdir()} == {f"{md5(SMALL)}-{NAME}", f"{NAME}.lock"}


def test_the_cache_is_where_it_always_was_and_need_not_be_writable(server: Server, cache: Path) -> None:
    assert cache == Path(os.environ["XDG_CACHE_HOME"]) / "cifar10-dvc-study"
    path = cache / f"{md5(SMALL)}-{NAME}"
    cache.mkdir(parents=True)
    path.write_bytes(SMALL)
    assert archive.locate(server.url, md5(SMALL))[0] == path
    assert server.requests == 0
    assert list(cache.iterdir()) == [path]


def test_continues_where_the_server_closed(server: Server, told: Callable[[], list[str]]) -> None:
    server.serve_ranges(SMALL, 2520, 2521, 2522, 4000, etag='"1"')
    assert archive.locate(server.url, md5(SMALL))[0].read_bytes() == SMALL
    # more attempts than may bring nothing
    assert server.ranges == [None, "bytes=2520-", "bytes=2521-", "bytes=2522-", "bytes=4000-"]
    assert [headers["If-Range"] for headers in server.asked] == [None, *['"1"'] * 4]
    assert {headers["Accept-Encoding"] for headers in server.asked} == {"identity"}
    early = "of 4,200 bytes, then a body that ended early; again in 0 s"
    assert told() == [f"{n:,} {early}" for n in (2520, 2521, 2522, 4000)] + ["4,200 of 4,200 bytes"]


def test_the_next_run_continues(server: Server, cache: Path, told: Callable[[], list[str]]) -> None:
    server.serve_ranges(SMALL, 2520, 2520, 2520, 2520, etag='"1"')
    kept = "(2,520 of 4,200 bytes are kept, the same command asks for the rest)"
    assert f"found a body that ended early {kept};" in refused(server.url)
    assert server.ranges == [None, *["bytes=2520-"] * 3]
    server.answer = lambda handler: handler.send_error(404)
    assert "found HTTP 404 Not Found;" in refused(server.url)
    assert left(cache) == {f"{NAME}.part": SMALL[:2520]}
    told()
    server.serve_ranges(SMALL, etag='"1"')
    assert archive.locate(server.url, md5(SMALL))[0].read_bytes() == SMALL
    assert server.ranges[-2:] == ["bytes=2520-"] * 2
    assert server.asked[-1]["If-Range"] == '"1"'
    assert told() == ["2,520 bytes are left from an earlier run", "4,200 of 4,200 bytes"]
    assert left(cache) == {f"{md5(SMALL)}-{NAME}": SMALL}


@pytest.mark.parametrize("name", ["SIGKILL", "SIGTERM", "SIGINT"])
def test_what_a_signal_leaves_is_continued(name: str, server: Server, cache: Path) -> None:
    number = signal.Signals[name]
    content = os.urandom(400_000)

    def answer(handler: BaseHTTPRequestHandler) -> None:
        reply(handler, content[:240_000], len(content))
        server.ended.wait(5)

    server.answer = answer
    stage = subprocess.Popen(
        [sys.executable, "-c", FETCHING, server.url, md5(content)],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
    )
    part = cache / f"{NAME}.part"
    while not (part.exists() and part.stat().st_size > 200_000):
        assert stage.poll() is None
        time.sleep(0.01)
    stage.send_signal(number)
    _, err = stage.communicate()
    size = part.stat().st_size
    if name == "SIGKILL":
        assert stage.returncode == -number
    else:
        assert stage.returncode == 128 + number
        assert f"\narchive: stopped with {size:,} of 400,000 bytes kept; the same command asks for" in err
    server.serve_ranges(content)
    assert archive.locate(server.url, md5(content))[0].read_bytes() == content
    assert server.ranges == [None, f"bytes={size}-"]


def test_server_without_ranges(server: Server, told: Callable[[], list[str]]) -> None:
    lengths = iter([2520, 4200])
    server.answer = lambda handler: reply(handler, SMALL[: next(lengths)], len(SMALL))
    assert archive.locate(server.url, md5(SMALL))[0].read_bytes() == SMALL
    assert told() == [
        "2,520 of 4,200 bytes, then a body that ended early; again in 0 s",
        "4,200 of 4,200 bytes, from the first byte because the server does not continue",
    ]


def test_server_without_ranges_that_always_closes(server: Server) -> None:
    lengths = iter([1000, 900, 1000, 990])
    server.answer = lambda handler: reply(handler, SMALL[: next(lengths)], len(SMALL))
    # the same bytes again are no progress
    assert "found a body that ended early (990 of 4,200 bytes are kept," in refused(server.url)
    assert server.requests == 4
    fetched(server)


def test_file_that_changes_meanwhile(server: Server, told: Callable[[], list[str]]) -> None:
    server.serve_ranges(OTHER, 2520, etag='"1"')
    before = server.answer

    def answer(handler: BaseHTTPRequestHandler) -> None:
        before(handler)
        server.serve_ranges(SMALL, etag='"2"')

    server.answer = answer
    assert archive.locate(server.url, md5(SMALL))[0].read_bytes() == SMALL
    assert server.ranges == [None, "bytes=2520-"]
    assert told()[-1] == "4,200 of 4,200 bytes, from the first byte because the file has changed there"


@pytest.mark.parametrize(
    ("leftover", "found"),
    [
        (
            OTHER[:2520],
            f"4,200 of 4,200 bytes, but md5 {md5(OTHER[:2520] + SMALL[2520:])} (4,200 bytes), not",
        ),
        (OTHER, "4,200 bytes, but HTTP 416 "),
        (OTHER * 2, "8,400 bytes, but HTTP 416 "),
    ],
)
def test_leftover_that_does_not_fit(
    leftover: bytes, found: str, server: Server, cache: Path, told: Callable[[], list[str]]
) -> None:
    leave(server, cache, leftover)
    server.serve_ranges(SMALL, 4200, 1000, 2000, 3000)  # progress, although less than there was before
    told()
    assert archive.locate(server.url, md5(SMALL))[0].read_bytes() == SMALL
    assert server.ranges == [f"bytes={len(leftover)}-", None, *(f"bytes={n}000-" for n in (1, 2, 3))]
    _, thrown_away, *_, last = told()
    assert thrown_away.startswith(found)
    assert thrown_away.endswith("; thrown away, from the first byte in 0 s")
    assert last == "4,200 of 4,200 bytes"


def test_another_file_in_place_of_the_rest(server: Server, cache: Path) -> None:
    leave(server, cache, SMALL[:1000])
    server.serve(OTHER)
    assert f"found md5 {md5(OTHER)} " in refused_without_a_trace(server.url)
    assert server.requests == 1


def test_rest_cut_short_without_a_length(server: Server, cache: Path) -> None:
    leave(server, cache, SMALL[:1000])

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(206)
        handler.send_header("Content-Range", "bytes 1000-4199/4200")
        handler.end_headers()
        handler.wfile.write(SMALL[1000:2000])
        server.serve_ranges(SMALL)

    server.answer = answer
    assert archive.locate(server.url, md5(SMALL))[0].read_bytes() == SMALL
    assert server.ranges == ["bytes=1000-", "bytes=2000-"]


def test_page_of_a_login_in_place_of_the_rest(server: Server, cache: Path) -> None:
    leave(server, cache, SMALL[:1000])
    server.serve(b"<html>log in</html>")
    assert "found 19 bytes, fewer than the 1,000 that an earlier attempt left in" in refused(server.url)
    fetched_rest = SMALL[1000:]
    server.serve_ranges(SMALL)
    assert archive.locate(server.url, md5(SMALL))[0].read_bytes() == SMALL[:1000] + fetched_rest
    assert server.ranges == ["bytes=1000-"] * 2


def test_another_part_than_was_asked_for(server: Server, cache: Path) -> None:
    leave(server, cache, SMALL[:2520])

    def answer(handler: BaseHTTPRequestHandler) -> None:
        if handler.headers["Range"]:
            reply(handler, SMALL[2000:], status=206, headers={"Content-Range": "bytes 2000-4199/4200"})
        else:
            reply(handler, SMALL)

    server.answer = answer
    assert archive.locate(server.url, md5(SMALL))[0].read_bytes() == SMALL
    assert server.ranges == ["bytes=2520-", None]


def test_begins_anew_only_once(server: Server) -> None:
    server.serve_ranges(OTHER, 2520, 4200, 2520)
    assert f"found md5 {md5(OTHER)} (4,200 bytes), not {md5(SMALL)};" in refused_without_a_trace(server.url)
    assert server.ranges == [None, "bytes=2520-", None, "bytes=2520-"]


def test_leftover_that_is_whole_needs_no_server(server: Server, cache: Path) -> None:
    """Killed after the last byte, before the file had its name."""
    leave(server, cache, SMALL)
    assert archive.locate(server.url, md5(SMALL))[0].read_bytes() == SMALL
    assert server.requests == 0


@pytest.mark.parametrize("note", [None, b"{", b"[]", b'{"url": "http://an.other/", "md5": "0"}'])
def test_leftover_of_another_file_is_not_continued(note: bytes | None, server: Server, cache: Path) -> None:
    leave(server, cache, OTHER)
    (cache / f"{NAME}.part.json").write_bytes(note) if note else (cache / f"{NAME}.part.json").unlink()
    server.answer = lambda handler: handler.send_error(404)
    refused_without_a_trace(server.url)
    assert server.ranges == [None]


def test_two_at_once_fetch_once(server: Server) -> None:
    content = os.urandom(100_000)
    started = threading.Event()

    def answer(handler: BaseHTTPRequestHandler) -> None:
        started.set()
        waits.wait(20)
        reply(handler, content)

    waits = threading.Event()
    server.answer = answer
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(fetch.fetch, server.url, md5(content))
        assert started.wait(5)
        second = subprocess.Popen(
            [sys.executable, "-c", FETCHING, server.url, md5(content)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert second.stderr is not None
        lines = [second.stderr.readline(), second.stderr.readline()]
        waits.set()
        assert lines[1] == "archive: another process is fetching it: waiting for that one\n"
        out, err = second.communicate()
        assert (second.returncode, err) == (0, "")
        assert Path(out.rstrip()) == first.result()
    assert first.result().read_bytes() == content
    assert server.requests == 1


def test_encoded_body_is_kept_as_it_was_sent(server: Server) -> None:
    packed = gzip.compress(SMALL)
    server.answer = lambda handler: reply(handler, packed, headers={"Content-Encoding": "gzip"})
    assert archive.locate(server.url, md5(packed))[0].read_bytes() == packed


def test_body_in_chunks(server: Server) -> None:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.protocol_version = "HTTP/1.1"
        handler.send_response(206 if handler.headers["Range"] else 200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.send_header("Content-Range", "bytes 1000-4199/*")
        handler.send_header("Connection", "close")
        handler.end_headers()
        for part in [SMALL[1000:], b""] if handler.headers["Range"] else [SMALL[:1000]]:
            handler.wfile.write(b"%x\r\n%b\r\n" % (len(part), part))
        handler.close_connection = True

    server.answer = answer
    assert archive.locate(server.url, md5(SMALL))[0].read_bytes() == SMALL
    assert server.ranges == [None, "bytes=1000-"]


@pytest.mark.parametrize("announced", [10**9, None])
def test_more_than_an_archive_has(
    announced: int | None, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        if announced:
            handler.send_header("Content-Length", str(announced))
        handler.end_headers()
        handler.wfile.write(SMALL)

    server.answer = answer
    monkeypatch.setattr(fetch, "MOST_BYTES", 4199)
    expected = (
        "found 1,000,000,000 bytes, where at most 4,199 are" if announced else "found more than 4,199 bytes"
    )
    assert expected in refused_without_a_trace(server.url)
    assert server.requests == 1


def test_disk_without_room(server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    leave(server, cache, SMALL[:1000])
    room = shutil.disk_usage(cache)._replace(free=3199)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: room)
    with pytest.raises(UserError, match=r"could not be kept in '.*' \(No space left on device\): make room"):
        archive.locate(server.url, md5(SMALL))
    assert left(cache) == {f"{NAME}.part": SMALL[:1000]}
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache.parent))
    assert archive.locate(server.url, md5(SMALL))[0].read_bytes() == SMALL
    assert server.ranges == ["bytes=1000-"] * 2


def test_server_that_gives_next_to_nothing(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "PROGRESS", 100)
    server.serve_ranges(SMALL, 1000, *range(1001, 1100))
    assert "found a body that ended early (1,003 of 4,200 bytes are kept," in refused(server.url)
    assert server.requests == 4


@pytest.mark.parametrize("validator", [7, ["a"], "two\nlines", None])
def test_leftover_with_a_damaged_note(validator: Any, server: Server, cache: Path) -> None:
    leave(server, cache, SMALL[:1000])
    note = cache / f"{NAME}.part.json"
    note.write_text(json.dumps(json.loads(note.read_text()) | {"validator": validator}))
    assert archive.locate(server.url, md5(SMALL))[0].read_bytes() == SMALL
    assert server.ranges == ["bytes=1000-"]


@pytest.mark.parametrize(
    ("scheme", "name", "value", "found"),
    [
        ("http", "http_proxy", "http://{}", "Connection refused (the environment sets http_proxy);"),
        ("http", "ALL_PROXY", "http://[", "(the environment sets ALL_PROXY);"),
        ("http", "ALL_PROXY", "carrier-pigeon://x", "(the environment sets ALL_PROXY);"),
        ("https", "REQUESTS_CA_BUNDLE", "none.pem", "none.pem (the environment sets REQUESTS_CA_BUNDLE);"),
    ],
)
def test_settings_that_lead_nowhere(
    scheme: str,
    name: str,
    value: str,
    found: str,
    nobody: str,
    server: Server,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(name, value.format(nobody))
    assert found in refused_without_a_trace(server.url.replace("http", scheme))
    assert server.requests == 0


def test_socks_proxy_without_its_package(nobody: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", f"socks5://{nobody}")
    stage = subprocess.run(
        [
            sys.executable,
            "-c",
            f"import sys; sys.modules['socks'] = None; {FETCHING}",
            "http://x.invalid/",
            "0",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    error = stage.stderr.splitlines()[-1]
    assert "found Missing dependencies for SOCKS support (the environment sets ALL_PROXY);" in error
    assert (stage.returncode, len(stage.stderr.splitlines())) == (1, 2)


def test_connection_refused(nobody: str, told: Callable[[], list[str]]) -> None:
    assert "found Connection refused;" in refused_without_a_trace(f"http://{nobody}/x.tar.gz")
    assert told() == ["0 bytes, then Connection refused; again in 0 s"] * 2


def test_unknown_host() -> None:
    assert "found " in refused_without_a_trace("http://no-such-host.invalid/x.tar.gz")


@pytest.mark.parametrize(
    "url", ["http://[", "http://:99999/", "http://%zz/", "http://a:b/", "https://.", "http://*"]
)
def test_an_address_that_is_none(url: str) -> None:
    refused_without_a_trace(url)


@pytest.mark.parametrize("status", [403, 404, 410])
def test_client_error_is_not_asked_again(server: Server, status: int) -> None:
    server.answer = lambda handler: handler.send_error(status)
    assert f"found HTTP {status} " in refused_without_a_trace(server.url)
    assert server.requests == 1
    fetched(server)


def test_404_by_name(server: Server) -> None:
    assert "found HTTP 404 Not Found;" in refused_without_a_trace(server.url)


def test_unnamed_status(server: Server) -> None:
    server.answer = lambda handler: handler.send_error(599, "\x1b[31mred")
    assert "found HTTP 599;" in refused_without_a_trace(server.url)


def test_500_that_stays(server: Server) -> None:
    server.answer = lambda handler: handler.send_error(500)
    assert "found HTTP 500 Internal Server Error;" in refused_without_a_trace(server.url)
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


def test_body_cut_short_without_a_length(server: Server, told: Callable[[], list[str]]) -> None:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        handler.wfile.write(SMALL[:1000])

    def answer_once(handler: BaseHTTPRequestHandler) -> None:
        answer(handler)
        server.serve(SMALL)

    server.answer = answer
    found = (
        f"md5 {md5(SMALL[:1000])} (1,000 bytes, of a length that the server does not tell), not {md5(SMALL)}"
    )
    assert f"found {found};" in refused_without_a_trace(server.url)
    assert told() == [f"1,000 bytes, but {found}; thrown away, from the first byte in 0 s"]
    server.answer = answer_once
    assert archive.locate(server.url, md5(SMALL))[0].read_bytes() == SMALL
    fetched(server)


def test_wrong_bytes(server: Server) -> None:
    server.serve(b"<html>log in first</html>")
    message = refused_without_a_trace(server.url)
    assert f"found md5 {md5(b'<html>log in first</html>')} (25 bytes), not {md5(SMALL)};" in message
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
        impatient.setattr(fetch, "TIMEOUT", 0.2)
        assert "found no answer for 0.2 s" in refused(server.url)
    fetched(server)


def test_hangs_up_at_once(server: Server) -> None:
    server.answer = lambda handler: handler.connection.close()
    refused_without_a_trace(server.url)
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
    refused_without_a_trace(server.url)
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
