"""The promises about reruns and repeats, with the real commands in clones on reduced data."""

import csv
import hashlib
import json
import shutil
import tarfile
import time
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from stages.study import synthetic
from stages.tools.quickstart import REDUCED
from tests.project import MODELS, STAGES, TINY, commit, copy_project, dvc, executed

pytestmark = pytest.mark.slow


def change(folder: Path, key: str, value: Any) -> None:
    """Set ``key`` of params.yaml."""
    path = folder / "params.yaml"
    content = yaml.safe_load(path.read_text())
    section, name = key.split(".")
    content[section][name] = value
    path.write_text(yaml.safe_dump(content))


def outputs(folder: Path) -> dict[str, str]:
    """MD5 of every file that the stages declare as their output."""
    declared = [
        path if isinstance(path, str) else next(iter(path))
        for stage in STAGES.values()
        for kind in ("outs", "metrics", "plots")
        for path in stage[kind]
    ]
    files = [file for path in declared for file in ([folder / path, *sorted((folder / path).glob("**/*"))])]
    return {
        str(file.relative_to(folder)): hashlib.md5(file.read_bytes()).hexdigest()
        for file in files
        if file.is_file()
    }


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone with a finished, committed run on tiny data. Copy it, do not change it."""
    folder = copy_project(tmp_path_factory.mktemp("finished") / "clone", TINY)
    assert executed(dvc(folder, "repro")) == sorted(STAGES)
    commit(folder, "a finished run")
    return folder


@pytest.fixture
def clone(finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished clone."""
    return Path(shutil.copytree(finished, tmp_path / "clone", symlinks=True))


def test_a_second_repro_runs_nothing(clone: Path) -> None:
    before = outputs(clone)
    assert executed(dvc(clone, "repro")) == []
    assert outputs(clone) == before


@pytest.mark.parametrize(
    ("key", "value", "stages"),
    [
        ("aug.crop_pad", 4, ["train_augmented", "train_regularized", "visualize_filters"]),
        ("reg.dropout", 0.5, ["train_regularized", "visualize_filters"]),
        ("baseline.hidden", [8], ["train_baseline"]),
        ("viz.image", 7, ["visualize_filters"]),
    ],
)
def test_a_changed_parameter_runs_its_stages_and_changing_it_back_runs_none(
    clone: Path, key: str, value: Any, stages: list[str]
) -> None:
    content = yaml.safe_load((clone / "params.yaml").read_text())
    section, name = key.split(".")
    before, lock = outputs(clone), (clone / "dvc.lock").read_bytes()
    change(clone, key, value)
    assert executed(dvc(clone, "repro")) == stages
    assert outputs(clone) != before
    change(clone, key, content[section][name])
    assert executed(dvc(clone, "repro")) == []
    assert outputs(clone) == before
    assert (clone / "dvc.lock").read_bytes() == lock


def test_editing_what_draws_retrains_nothing(clone: Path) -> None:
    for module in ("figures", "filter_figures"):
        with open(clone / f"stages/study/{module}.py", "a") as file:
            file.write("# edited\n")
    assert executed(dvc(clone, "repro")) == ["download", "visualize_filters"]


def test_everything_again_elsewhere_gives_the_same_bytes(clone: Path, tmp_path: Path) -> None:
    other = Path(shutil.move(clone, tmp_path / "another place"))
    (tmp_path / "matplotlibrc").write_text("figure.dpi: 33\naxes.facecolor: red\nfont.size: 30\n")
    before = outputs(other)
    output = dvc(other, "repro", "-f", PYTHONHASHSEED="12345", MPLCONFIGDIR=str(tmp_path))
    assert executed(output) == sorted(STAGES)
    assert outputs(other) == before
    assert dvc_git(other, "status", "--porcelain") == ""


def dvc_git(folder: Path, *words: str) -> str:
    """Run git in ``folder``."""
    from tests.project import command

    result = command(folder, "git", *words)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_an_experiment_can_be_run_and_compared(clone: Path) -> None:
    output = dvc(clone, "exp", "run", "-n", "wider", "-S", "aug.crop_pad=4")
    assert executed(output) == ["train_augmented", "train_regularized", "visualize_filters"]

    shown = {
        row["Experiment"]: row for row in csv.DictReader(dvc(clone, "exp", "show", "--csv").splitlines())
    }
    assert shown["wider"]["aug.crop_pad"] == "4"

    metrics = json.loads(dvc(clone, "metrics", "diff", "--json", "HEAD", "wider"))
    assert set(metrics) == {f"metrics/{name}.json" for name in ("augmented", "regularized", "filters")}

    plots = json.loads(dvc(clone, "plots", "diff", "--json", "HEAD", "wider"))["data"]
    for chart in ("accuracy", "losses"):
        rows = [row for part in plots[chart] for row in part["content"]["data"]["values"]]
        series = {(row["rev"], Path(row["filename"]).stem) for row in rows}
        assert series == {(rev, name) for rev in ("HEAD", "wider") for name in MODELS}

    # back and forth without training: everything comes out of the cache
    before = outputs(clone)
    dvc_git(clone, "checkout", "-q", "--", ".")
    dvc(clone, "checkout")
    assert outputs(clone) != before
    dvc(clone, "exp", "apply", "wider")
    assert outputs(clone) == before
    assert executed(dvc(clone, "repro")) == []


def test_a_queued_sweep_runs_every_setting(clone: Path) -> None:
    dvc(clone, "exp", "run", "--queue", "-S", "aug.crop_pad=range(3,5)")
    dvc(clone, "queue", "start", "-j", "1")
    for _ in range(240):
        status = dvc(clone, "queue", "status")
        if "Running" not in status and "Queued" not in status:
            break
        time.sleep(1)
    assert status.count("Success") == 2, status
    shown = list(csv.DictReader(dvc(clone, "exp", "show", "--csv").splitlines()))
    assert {"3", "4"} <= {row["aug.crop_pad"] for row in shown}
    # run records land in the main checkout, checkpoints are gone after success
    assert not list((clone / "runs/checkpoints").iterdir())


def test_charts_show_each_thing_once(clone: Path) -> None:
    plots = json.loads(dvc(clone, "plots", "show", "--json"))["data"]
    pictures = {name for name, parts in plots.items() if parts[0]["type"] == "image"}
    charts = set(plots) - pictures
    assert {"accuracy", "losses"} <= charts
    assert len(charts) == 2 + len(MODELS)
    on_disk = {str(file.relative_to(clone)) for file in (clone / "plots").glob("**/*.png")}
    assert set(pictures) == on_disk
    for name in MODELS:
        (part,) = plots[f"plots/{name}/predictions.csv"]
        values = part["content"]["data"]["values"]
        assert len(values) == TINY["data"]["test_size"]


def test_the_whole_study_learns(tmp_path: Path) -> None:
    folder = copy_project(tmp_path / "clone", REDUCED)
    assert REDUCED["data"]["train_size"] >= 2000
    assert executed(dvc(folder, "repro")) == sorted(STAGES)
    accuracy = {}
    for name in MODELS:
        metrics = json.loads((folder / f"metrics/{name}.json").read_text())
        losses = [epoch["train_loss"] for epoch in metrics["history"]]
        assert losses[-1] < losses[0]
        assert [epoch["epoch"] for epoch in metrics["history"]] == list(range(1, len(losses) + 1))
        accuracy[name] = metrics["test_accuracy"]
        assert accuracy[name] > 0.1 + 0.2
        with open(folder / f"plots/{name}/predictions.csv") as file:
            rows = list(csv.DictReader(file))
        right = sum(row["actual"] == row["predicted"] for row in rows)
        assert right / len(rows) == pytest.approx(accuracy[name], abs=1e-6)
    assert accuracy["baseline"] < accuracy["cnn"] < min(accuracy["augmented"], accuracy["regularized"])
    for path in outputs(folder):
        if path.endswith(".json"):
            json.loads((folder / path).read_text())
        elif path.endswith(".png"):
            Image.open(folder / path).verify()


def official_archive(path: Path) -> None:
    """An archive in the layout of cifar-10-binary.tar.gz, of synthetic images."""
    splits, classes = synthetic.generate(5000, 1000, seed=0)
    members = {"batches.meta.txt": "\n".join([*classes, ""]).encode(), "readme.html": b"<html></html>"}
    for split, names in (
        ("train", [f"data_batch_{number}.bin" for number in range(1, 6)]),
        ("test", ["test_batch.bin"]),
    ):
        images, labels = splits[split]
        repeated = np.arange(10_000) % len(labels)
        planes = images[repeated].transpose(0, 3, 1, 2).reshape(10_000, -1)
        record = np.hstack([labels[repeated, None].astype(np.uint8), planes]).tobytes()
        members |= dict.fromkeys(names, record)
    with tarfile.open(path, "w:gz", compresslevel=1) as archive:
        for name, content in members.items():
            entry = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            entry.size = len(content)
            archive.addfile(entry, BytesIO(content))


def test_the_study_runs_from_an_archive_in_the_official_layout(tmp_path: Path) -> None:
    archive = tmp_path / "archive.tar.gz"
    official_archive(archive)
    cifar = TINY | {"data": TINY["data"] | {"source": "cifar10", "validation_size": 50}}
    folder = copy_project(tmp_path / "clone", cifar)
    assert executed(dvc(folder, "repro", CIFAR10_ARCHIVE=str(archive))) == sorted(STAGES)
    download = json.loads((folder / "metrics/download.json").read_text())
    assert download["archive_md5"] == hashlib.md5(archive.read_bytes()).hexdigest()
    assert sum(download["train_per_class"]) == 150
    assert sum(download["validation_per_class"]) == 50
    metrics = json.loads((folder / "metrics/cnn.json").read_text())
    assert 0 <= metrics["validation_accuracy"] <= 1
