import errno
import json
import os
from pathlib import Path

import pytest

from stages.common.files import write_bytes, write_csv, write_json
from tests.tiny import largest_file


def test_a_file_and_its_directories_appear(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "file"
    write_bytes(path, b"one")
    write_bytes(path, b"two")
    assert path.read_bytes() == b"two"
    assert list(path.parent.iterdir()) == [path]


def test_who_reads_the_old_file_is_not_disturbed(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_bytes(path, b"old")
    with open(path, "rb", buffering=0) as reader:
        write_bytes(path, b"new")
        assert reader.read() == b"old"


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_bytes(path, b"old")
    with largest_file(1000), pytest.raises(OSError, match="File too large") as failure:
        write_bytes(path, b"x" * 5000)
    assert failure.value.errno == errno.EFBIG
    assert failure.value.filename == str(path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]


def test_a_directory_in_the_place_of_the_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").mkdir()
    with pytest.raises(IsADirectoryError) as failure:
        write_bytes(tmp_path / "file", b"content")
    assert failure.value.filename == str(tmp_path / "file")
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]


def test_a_file_in_the_place_of_the_directory_is_named(tmp_path: Path) -> None:
    (tmp_path / "folder").write_text("in the way")
    with pytest.raises(FileExistsError) as failure:
        write_bytes(tmp_path / "folder" / "file", b"content")
    assert failure.value.filename == str(tmp_path / "folder")
    assert (tmp_path / "folder").read_text() == "in the way"


def test_an_interrupted_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(descriptor: int) -> None:
        raise KeyboardInterrupt

    path = tmp_path / "file"
    write_bytes(path, b"old")
    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_bytes(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]


def test_json_has_no_nan(tmp_path: Path) -> None:
    write_json(tmp_path / "file", {"loss": 0.5, "history": [1, 2]})
    assert json.loads((tmp_path / "file").read_text()) == {"loss": 0.5, "history": [1, 2]}
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "file", {"loss": float("nan")})
    assert json.loads((tmp_path / "file").read_text())["loss"] == 0.5


def test_csv_has_unix_line_ends(tmp_path: Path) -> None:
    write_csv(tmp_path / "file", ("actual", "predicted"), [("cat", "dog"), ("ship", 'a "b", c')])
    assert (tmp_path / "file").read_bytes() == b'actual,predicted\ncat,dog\nship,"a ""b"", c"\n'
