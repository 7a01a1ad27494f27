"""The archive: a file at hand in place of the server's, and reading it without trusting it."""

import gzip
import io
import tarfile
from pathlib import Path

import numpy as np
import pytest

from stages.common.errors import UserError
from stages.data import archive
from tests.archives import BATCHES, CLASSES, FOLDER, official_members, pack

NOWHERE = "http://127.0.0.1:1/x"


@pytest.fixture(scope="module")
def members() -> dict[str, bytes]:
    return official_members()


def test_file_at_hand_replaces_the_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "mine.tar.gz"
    path.write_bytes(b"other bytes")
    monkeypatch.setenv("CIFAR10_ARCHIVE", str(path))
    assert archive.locate(NOWHERE, "0" * 32) == (path, f"CIFAR10_ARCHIVE={path}")


@pytest.mark.parametrize("name", ["none.tar.gz", ".", "a\nb"])
def test_file_at_hand_is_missing(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CIFAR10_ARCHIVE", str(tmp_path / name))
    with pytest.raises(UserError, match="CIFAR10_ARCHIVE: expected a file, found none at '/") as caught:
        archive.locate(NOWHERE, "0" * 32)
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
