"""The download stage: what it writes from an archive, and that a failure writes nothing."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
import yaml

from stages import download
from stages.common.dataset import Data, load_data
from stages.common.errors import UserError
from tests.archives import BATCHES, CLASSES, FOLDER, md5, official_members, pack, serving
from tests.project import ROOT

OUTPUTS = ("data/dataset.safetensors", "metrics/download.json", "plots/samples.png")


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("archive") / "cifar.tar.gz"
    path.write_bytes(pack(official_members()))
    return path


@pytest.fixture
def stage(tmp_path: Path, archive: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    """Runs the stage in a folder of its own with the given keys of ``data``; returns its metrics."""
    monkeypatch.setenv("CIFAR10_ARCHIVE", str(archive))
    monkeypatch.chdir(tmp_path)

    def run(**data: Any) -> dict[str, Any]:
        write_params(tmp_path, **data)
        download.main()
        metrics: dict[str, Any] = json.loads(Path("metrics/download.json").read_text())
        return metrics

    return run


def write_params(folder: Path, **data: Any) -> None:
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    params["data"] |= {"train_size": 1003, "test_size": 205} | data
    (folder / "params.yaml").write_text(yaml.safe_dump(params))


def identities(data: Data, split: str) -> set[tuple[int, int]]:
    """Batch and record of each image, as `official_members` wrote them into its first row."""
    first_row = getattr(data, split).images[:, 0, :3, 0].int()
    return {(batch, high * 256 + low) for high, low, batch in first_row.tolist()}


def test_subsets(stage: Callable[..., dict[str, Any]], archive: Path) -> None:
    metrics = stage(validation_size=207)
    data = load_data()
    assert data.classes == tuple(CLASSES)
    assert data.validation is not None
    train, validation, test = (identities(data, name) for name in ("train", "validation", "test"))
    assert (len(train), len(validation), len(test)) == (796, 207, 205)
    assert not train & validation
    assert {batch for batch, _ in train | validation} == {0, 1, 2, 3, 4}
    assert {batch for batch, _ in test} == {5}
    members = official_members()
    for name in ("train", "validation", "test"):
        split = getattr(data, name)
        counts = np.bincount(split.labels.numpy(), minlength=10)
        assert counts.max() - counts.min() <= 1
        assert metrics[f"{name}_per_class"] == counts.tolist()
        for image, label in list(zip(split.images.numpy(), split.labels.tolist(), strict=True))[::50]:
            batch, record = int(image[0, 2, 0]), int(image[0, 0, 0]) * 256 + int(image[0, 1, 0])
            content = members[f"{FOLDER}/{BATCHES[batch]}"][record * 3073 : (record + 1) * 3073]
            assert content[0] == label
            assert content[1:] == image.transpose(2, 0, 1).tobytes()
    # of the training images alone, computed another way
    pixels = data.train.images.double() / 255
    mean, std = pixels.mean(dim=(0, 1, 2)), pixels.std(dim=(0, 1, 2), correction=0)
    np.testing.assert_allclose(data.mean, mean, rtol=1e-6)
    np.testing.assert_allclose(data.std, std, rtol=1e-6)
    np.testing.assert_allclose(metrics["mean"], mean, atol=1e-6)
    np.testing.assert_allclose(metrics["std"], std, atol=1e-6)
    assert metrics["archive_md5"] == [md5(archive.read_bytes())]


def test_smaller_is_part_of_larger(stage: Callable[..., dict[str, Any]]) -> None:
    stage(train_size=1003)
    large = identities(load_data(), "train")
    stage(train_size=211)
    small = identities(load_data(), "train")
    assert len(small) == 211
    assert small < large


@pytest.mark.slow
def test_same_bytes_for_the_same_seed(stage: Callable[..., dict[str, Any]]) -> None:
    def outputs(seed: int) -> list[bytes]:
        stage(train_size=128, test_size=50, seed=seed)
        return [Path(name).read_bytes() for name in OUTPUTS]

    first = outputs(seed=1)
    assert outputs(seed=1) == first
    assert outputs(seed=2) != first


@pytest.mark.slow
def test_all_images_keep_the_archives_order(stage: Callable[..., dict[str, Any]]) -> None:
    stage(train_size=50_000, test_size=10_000)
    data = load_data()
    assert data.validation is None
    batch, record = np.divmod(np.arange(50_000), 10_000)
    high, low, origin = data.train.images[:, 0, :3, 0].int().numpy().T
    assert (origin == batch).all()
    assert (high * 256 + low == record).all()


@pytest.mark.slow
def test_another_archive_is_told(
    stage: Callable[..., dict[str, Any]], archive: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stage()
    expected = f"CIFAR10_ARCHIVE={archive}: md5 {md5(archive.read_bytes())}, not data.md5 c32a1d4ab5d0"
    assert expected in capsys.readouterr().err
    stage(md5=md5(archive.read_bytes()))
    assert "md5" not in capsys.readouterr().err


@pytest.mark.slow
def test_uneven_classes(
    stage: Callable[..., dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Class 0 has 10 training images fewer, class 1 as many more."""
    members = official_members()
    name = f"{FOLDER}/{BATCHES[0]}"
    records = np.frombuffer(members[name], np.uint8).reshape(10_000, 3073).copy()
    records[np.flatnonzero(records[:, 0] == 0)[:10], 0] = 1
    path = tmp_path / "uneven.tar.gz"
    path.write_bytes(pack(members | {name: records.tobytes()}))
    monkeypatch.setenv("CIFAR10_ARCHIVE", str(path))
    with pytest.raises(UserError) as caught:
        stage(train_size=50_000)
    assert str(caught.value) == (
        f"CIFAR10_ARCHIVE={path}: data.train_size is 50000, but must be at most 49909: "
        "the rarest class has 4990 images"
    )
    assert stage(train_size=49_909)["train_per_class"].count(4991) == 9


def run_stage(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """The stage as DVC runs it, with a cache of its own."""
    environment = {
        **{name: value for name, value in os.environ.items() if name != "CIFAR10_ARCHIVE"},
        "PYTHONPATH": str(ROOT),
        "XDG_CACHE_HOME": str(folder / "cache"),
        "MPLCONFIGDIR": matplotlib.get_cachedir(),  # its list of fonts takes seconds to make
        **environment,
    }
    return subprocess.run(
        [sys.executable, "-m", "stages.download"], cwd=folder, env=environment, capture_output=True, text=True
    )


def assert_one_line(ended: subprocess.CompletedProcess[str], folder: Path) -> str:
    """Status 1, no traceback, an error of one line, no output."""
    *log, error = ended.stderr.splitlines()
    assert ended.returncode == 1, ended.stderr
    assert error.startswith("error: ")
    assert not [line for line in log if not line.startswith(("archive: ", "CIFAR10_ARCHIVE="))]
    written = {path.name for name in ("data", "metrics", "plots") for path in (folder / name).rglob("*")}
    assert not [name for name in written if name.endswith((".safetensors", ".json", ".png", ".partial"))]
    return error


@pytest.mark.slow
def test_server_that_fails_then_works(tmp_path: Path, archive: Path) -> None:
    content = archive.read_bytes()
    with serving() as server:

        def answer(handler: BaseHTTPRequestHandler) -> None:
            handler.send_error(404)

        server.answer = answer
        write_params(tmp_path, url=server.url, md5=md5(content))
        error = assert_one_line(run_stage(tmp_path), tmp_path)
        assert error.startswith(f"error: {server.url}: expected the archive, found HTTP 404 Not Found; ")
        server.serve(content)
        good = run_stage(tmp_path)
        assert good.returncode == 0, good.stderr
        assert server.requests == 2
    assert all((tmp_path / name).is_file() for name in OUTPUTS)
    # the network is gone, the size has changed: the copy in the cache is enough
    write_params(tmp_path, url=server.url, md5=md5(content), train_size=500)
    assert run_stage(tmp_path).returncode == 0
    assert len(load_data(tmp_path / OUTPUTS[0]).train) == 500


@pytest.mark.slow
def test_file_where_a_folder_belongs(tmp_path: Path, archive: Path) -> None:
    write_params(tmp_path)
    (tmp_path / "data").write_text("in the way")
    error = assert_one_line(run_stage(tmp_path, CIFAR10_ARCHIVE=str(archive)), tmp_path)
    assert error == "error: the system refused 'data': File exists"
    (tmp_path / "data").unlink()
    assert run_stage(tmp_path, CIFAR10_ARCHIVE=str(archive)).returncode == 0


@pytest.mark.slow
def test_full_disk(tmp_path: Path, archive: Path) -> None:
    """A limit on the size of files stands for a full disk: it holds for root too."""
    write_params(tmp_path)
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, hard))
    try:
        ended = run_stage(tmp_path, CIFAR10_ARCHIVE=str(archive))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    error = assert_one_line(ended, tmp_path)
    assert error == "error: the system refused 'data/dataset.safetensors': File too large"
    assert run_stage(tmp_path, CIFAR10_ARCHIVE=str(archive)).returncode == 0


@pytest.mark.slow
def test_full_disk_under_the_cache(tmp_path: Path, archive: Path) -> None:
    content = archive.read_bytes()
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with serving() as server:
        server.serve(content)
        write_params(tmp_path, url=server.url, md5=md5(content))
        resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, hard))
        try:
            ended = run_stage(tmp_path)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        error = assert_one_line(ended, tmp_path)
        assert f"{server.url}: the archive could not be kept in '{tmp_path}/cache/" in error
        assert "(File too large)" in error
        kept = {path.suffix: path for path in (tmp_path / "cache").rglob("*") if path.is_file()}
        assert kept.keys() == {".lock", ".part", ".json"}  # for the next run, which asks for the rest
        assert kept[".part"].read_bytes() == content[:500_000]
        assert run_stage(tmp_path).returncode == 0


@pytest.mark.slow
def test_bad_parameters_before_any_work(tmp_path: Path) -> None:
    write_params(tmp_path, train_size="all")
    error = assert_one_line(run_stage(tmp_path, CIFAR10_ARCHIVE="/nowhere"), tmp_path)
    assert error == (
        "error: params.yaml: data.train_size is 'all', but must be a whole number from 10 to 50000"
    )
