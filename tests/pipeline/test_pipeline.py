"""The promises about reruns and repeats, with the real commands in clones on reduced data."""

import csv
import hashlib
import json
import os
import shutil
import tarfile
import time
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from filelock import FileLock
from PIL import Image
from safetensors.numpy import load_file

from stages.data import synthetic
from tests.project import (
    MODELS,
    STAGES,
    TINY,
    TRAININGS,
    accident,
    change,
    command,
    commit,
    copy_project,
    dvc,
    executed,
    series,
)
from tools.quickstart import REDUCED

pytestmark = pytest.mark.slow
THREADS = "2"  # of the runs whose bytes are compared: a sum in parts must repeat as well


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


def git(folder: Path, *words: str) -> str:
    """Run git in ``folder``."""
    result = command(folder, "git", *words)
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone with a finished, committed run on tiny data. Copy it, do not change it."""
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:  # one for all workers: theirs stand beside each other
        shared = shared.parent
    folder, done = shared / "finished" / "clone", shared / "finished" / "done"
    with FileLock(shared / "finished.lock"):
        if not done.exists():
            shutil.rmtree(folder, ignore_errors=True)
            copy_project(folder, TINY)
            assert executed(dvc(folder, "repro", OMP_NUM_THREADS=THREADS)) == sorted(STAGES)
            commit(folder, "a finished run")
            done.touch()
    return folder


@pytest.fixture
def clone(finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished clone."""
    return Path(shutil.copytree(finished, tmp_path / "clone", symlinks=True))


def test_the_whole_study_learns(tmp_path: Path) -> None:
    """On the images of the quickstart, in fewer epochs: enough for the order but for augmentation's place."""
    assert REDUCED["data"]["train_size"] >= 2000
    folder = copy_project(tmp_path / "clone", {**REDUCED, "train": {**REDUCED["train"], "epochs": 4}})
    assert executed(dvc(folder, "repro", *TRAININGS)) == sorted(["download", *TRAININGS])
    accuracy = {}
    for name in MODELS:
        metrics = json.loads((folder / f"metrics/{name}.json").read_text())
        losses = [epoch["train_loss"] for epoch in metrics["history"]]
        assert losses[-1] < losses[0]
        assert [epoch["epoch"] for epoch in metrics["history"]] == list(range(1, len(losses) + 1))
        accuracy[name] = metrics["test_accuracy"]
        assert accuracy[name] > 0.1 + 0.2
        predictions = json.loads((folder / f"metrics/predictions/{name}.json").read_text())
        pairs = list(zip(predictions["actual"], predictions["predicted"], strict=True))
        right = sum(actual == predicted for actual, predicted in pairs)
        assert right / len(pairs) == pytest.approx(accuracy[name], abs=1e-6)
    assert accuracy["baseline"] < min(accuracy["cnn"], accuracy["augmented"])
    assert max(accuracy["cnn"], accuracy["augmented"]) < accuracy["regularized"]


def test_every_file_can_be_read(finished: Path) -> None:
    paths = [finished / path for path in outputs(finished)]
    assert {path.suffix for path in paths} == {".json", ".csv", ".png", ".html", ".safetensors"}
    for path in paths:
        if path.suffix == ".json":
            json.loads(path.read_text())
        elif path.suffix == ".csv":
            assert len(list(csv.DictReader(path.read_text().splitlines()))) == 10 * 10
        elif path.suffix == ".png":
            Image.open(path).verify()
        elif path.suffix == ".safetensors":
            assert load_file(path)


def test_a_second_repro_runs_nothing(clone: Path) -> None:
    before = outputs(clone)
    assert executed(dvc(clone, "repro")) == []
    assert outputs(clone) == before


@pytest.mark.parametrize(
    ("key", "value", "stages"),
    [
        ("reg.dropout", 0.5, ["train_regularized", "visualize_filters"]),
        ("baseline.hidden", [8], ["train_baseline"]),
        ("viz.model", "cnn", ["visualize_filters"]),
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


# what an edit of a file makes stale: its room's stages and no other
EDITS = {
    "stages/__init__.py": list(STAGES),
    "stages/common/errors.py": list(STAGES),
    "stages/data/synthetic.py": ["download"],
    "stages/drawing/figures.py": ["download", "visualize_filters"],
    "stages/networks/models.py": [*TRAININGS, "visualize_filters"],
    "stages/training/trainer.py": [*TRAININGS],
    "stages/augmentation/transforms.py": ["train_augmented", "train_regularized"],
    "stages/regularization/params.py": ["train_regularized"],
    "stages/filters/figures.py": ["visualize_filters"],
    "stages/filters/explorer.html": ["visualize_filters"],
    "stages/filters/params.py": ["visualize_filters"],
    "stages/train_cnn.py": ["train_cnn"],
    "stages/params.py": [],
    "tools/report.py": [],
    "sweeps/worker.py": [],
    "theory/gradients.py": [],
}


def stale(folder: Path) -> list[str]:
    """The stages of which DVC says that something has changed, sorted."""
    return sorted(json.loads(dvc(folder, "status", "--json")))


def test_an_edit_makes_the_stages_of_its_room_stale(clone: Path) -> None:
    for file, stages in EDITS.items():
        content = (clone / file).read_text()
        (clone / file).write_text(content + "\n")
        assert stale(clone) == sorted(stages), file
        (clone / file).write_text(content)
    assert stale(clone) == []


def test_an_edit_that_changes_no_output_runs_its_stage_alone(clone: Path) -> None:
    """Here the schema of the images' section: `download` writes the same bytes."""
    with open(clone / "stages/data/params.py", "a") as file:
        file.write("# edited\n")
    assert executed(dvc(clone, "repro")) == ["download"]


def test_only_code_counts_in_a_room(clone: Path) -> None:
    """What Python, editors, notebooks and operating systems leave there makes no stage stale."""
    for room in ("stages", *(str(path.parent) for path in clone.glob("stages/*/__init__.py"))):
        for name in (
            "__pycache__/errors.cpython-311.pyc",
            ".ipynb_checkpoints/errors-checkpoint.py",
            ".mypy_cache/3.11/cache.json",
            ".idea/workspace.xml",
            "errors.pyc",
            "errors.py~",
            ".errors.py.swp",
            "#errors.py#",
            ".#errors.py",
            "errors.py.orig",
            ".DS_Store",
            "Thumbs.db",
        ):
            (clone / room / name).parent.mkdir(parents=True, exist_ok=True)
            (clone / room / name).write_text("left behind")
    assert stale(clone) == []


def test_everything_again_elsewhere_gives_the_same_bytes(clone: Path, tmp_path: Path) -> None:
    other = Path(shutil.move(clone, tmp_path / "another place"))
    (tmp_path / "matplotlibrc").write_text("figure.dpi: 33\naxes.facecolor: red\nfont.size: 30\n")
    before = outputs(other)
    again = command(
        other,
        "dvc",
        "repro",
        "-f",
        PYTHONHASHSEED="12345",
        MPLCONFIGDIR=str(tmp_path),
        OMP_NUM_THREADS=THREADS,
    )
    assert executed(again.stdout) == sorted(STAGES), again.stderr
    for name in MODELS:  # trained, not taken from what is kept
        assert f"{name}: epoch 1/2" in again.stderr
    assert outputs(other) == before
    assert git(other, "status", "--porcelain") == ""


def test_an_experiment_can_be_run_and_compared(clone: Path) -> None:
    """Of several parameters, one of which names a transformation of torchvision's."""
    wrong = command(clone, "dvc", "exp", "run", "-S", "aug.extra=[{RandomErase: {}}]", "train_augmented")
    assert wrong.returncode
    assert "transformations of torchvision.transforms.v2, which has no 'RandomErase'" in wrong.stderr
    changes = ("-S", "aug.crop_pad=4", "-S", "aug.extra=[{RandomErasing: {p: 0.25}}]")
    output = dvc(clone, "exp", "run", "-n", "wider", *changes)
    assert executed(output) == ["train_augmented", "train_regularized", "visualize_filters"]

    shown = {
        row["Experiment"]: row for row in csv.DictReader(dvc(clone, "exp", "show", "--csv").splitlines())
    }
    assert shown["wider"]["aug.crop_pad"] == "4"
    assert "RandomErasing" in shown["wider"]["aug.extra"]
    params = yaml.safe_load((clone / "params.yaml").read_text())
    assert params["aug"]["extra"] == [{"RandomErasing": {"p": 0.25}}]

    metrics = json.loads(dvc(clone, "metrics", "diff", "--json", "HEAD", "wider"))
    assert set(metrics) == {f"metrics/{name}.json" for name in ("augmented", "regularized", "filters")}
    for path, changes in metrics.items():
        now, then = (
            json.loads(text) for text in ((clone / path).read_text(), git(clone, "show", f"HEAD:{path}"))
        )
        for key, values in changes.items():
            if key in now:
                assert (values["old"], values["new"]) == (then[key], now[key])

    plots = json.loads(dvc(clone, "plots", "diff", "--json", "HEAD", "wider"))["data"]
    for chart in ("accuracy", "losses"):
        rows = [row for part in plots[chart] for row in part["content"]["data"]["values"]]
        lines = {(row["rev"], Path(series(row)[0]).stem) for row in rows}
        assert lines == {(rev, name) for rev in ("HEAD", "wider") for name in MODELS}
        for row in rows:
            file, field = series(row)
            path = f"metrics/{Path(file).name}"
            metrics = (
                (clone / path).read_text() if row["rev"] == "wider" else git(clone, "show", f"HEAD:{path}")
            )
            epoch = json.loads(metrics)["history"][int(row["epoch"]) - 1]
            assert row[field] == epoch[field]

    # back and forth without training: everything comes out of the cache
    before = outputs(clone)
    git(clone, "checkout", "-q", "--", ".")
    dvc(clone, "checkout")
    assert outputs(clone) != before
    dvc(clone, "exp", "apply", "wider")
    assert outputs(clone) == before
    assert executed(dvc(clone, "repro")) == []


def test_the_table_of_experiments_can_be_read(clone: Path) -> None:
    columns = dvc(clone, "exp", "show", "--csv").splitlines()[0].split(",")
    assert len(columns) <= 80
    files = {name for name in columns if name.endswith((".py", ".html"))}
    assert files == {"stages/__init__.py", *(f"stages/{stage}.py" for stage in STAGES)}
    metrics = json.loads(dvc(clone, "metrics", "show", "--json"))[""]["data"]

    def scalars(content: Any) -> list[Any]:
        if not isinstance(content, dict):
            return [content]
        return [scalar for value in content.values() for scalar in scalars(value)]

    values = [value for file in metrics.values() for value in scalars(file.get("data", {}))]
    assert len(values) > 16
    assert not [value for value in values if isinstance(value, str)]


def queued(folder: Path, name: str) -> str:
    """What the queued experiment ``name`` has printed when it ends."""
    for _ in range(120):
        log = command(folder, "dvc", "queue", "logs", "--follow", name)
        if log.returncode == 0:
            return log.stdout
        time.sleep(0.5)  # it has not begun
    raise AssertionError(log.stderr)


def wait_for_the_queue(folder: Path) -> str:
    """The status of the queue when nothing in it runs or waits."""
    for _ in range(120):
        status = dvc(folder, "queue", "status")
        if "Running" not in status and "Queued" not in status:
            return status
        time.sleep(0.5)
    raise AssertionError(status)


def test_two_experiments_at_a_time_train_each_model_once(clone: Path) -> None:
    """Here ``aug.flip`` makes two trainings stale, of which the experiments share the first."""
    changes = ("-S", "aug.flip=0.25", "-S", "reg.dropout=0.0,0.1")
    dvc(clone, "exp", "run", "--queue", "-n", "drop", *changes, "train_augmented", "train_regularized")
    dvc(clone, "queue", "start", "-j", "2")
    logs = [queued(clone, name) for name in ("drop-1", "drop-2")]
    status = wait_for_the_queue(clone)
    assert status.count("Success") == 2, status
    for log in logs:
        assert "train_regularized" in executed(log)
        assert log.count("regularized: epoch 2/") == 1
    assert sum(log.count("augmented: epoch 2/") for log in logs) == 1
    shown = {
        row["Experiment"]: row for row in csv.DictReader(dvc(clone, "exp", "show", "--csv").splitlines())
    }
    assert [shown[name]["reg.dropout"] for name in ("drop-1", "drop-2")] == ["0.0", "0.1"]
    # run records land in the main checkout
    assert {path.stem for path in (clone / "runs").glob("*.json")} == set(MODELS)
    assert len(list((clone / "runs/checkpoints").glob("*.pt"))) <= 4


def test_ctrl_c_and_the_same_command_again(clone: Path) -> None:
    change(clone, "reg.dropout", 0.3)
    stopped = command(clone, "dvc", "repro", **accident("interrupt", 2, r"\.pt$"))
    assert stopped.returncode
    assert executed(stopped.stdout) == ["train_regularized"]
    assert (
        "regularized: stopped after epoch 1 of 2; the same command continues from there "
        "(to restore what is committed: git checkout -- metrics params.yaml plots)\n"
    ) in stopped.stderr
    assert "Traceback" not in stopped.stderr
    again = command(clone, "dvc", "repro")
    assert again.returncode == 0, again.stderr
    assert executed(again.stdout) == ["train_regularized", "visualize_filters"]
    assert "regularized: continues after epoch 1\n" in again.stderr
    assert_as_if_uninterrupted(clone)


def assert_as_if_uninterrupted(folder: Path) -> None:
    """Training the regularized model in one go changes none of the outputs."""
    before = outputs(folder)
    whole = command(folder, "python", "-m", "stages.train_regularized")
    assert whole.returncode == 0, whole.stderr
    assert "continues" not in whole.stderr
    assert outputs(folder) == before


def test_a_run_elsewhere_that_was_killed_continues_wherever_it_is_run_again(clone: Path) -> None:
    change = ("-S", "reg.dropout=0.3")
    dvc(clone, "exp", "run", "--queue", "-n", "killed", *change)
    dvc(clone, "queue", "start", "-j", "1", **accident("kill", 2, r"\.pt$"))
    assert executed(queued(clone, "killed")) == ["train_regularized"]
    assert "Failed" in wait_for_the_queue(clone)
    (checkpoint,) = (clone / "runs/checkpoints").glob("*.pt")
    again = accident("kill", 1, "models/regularized.safetensors$")
    elsewhere = command(clone, "dvc", "exp", "run", "--temp", *change, **again)
    assert elsewhere.returncode
    assert "regularized: continues after epoch 1\n" in elsewhere.stderr
    assert checkpoint.exists()
    here = command(clone, "dvc", "exp", "run", *change)
    assert here.returncode == 0, here.stderr
    assert executed(here.stdout) == ["train_regularized", "visualize_filters"]
    assert "regularized: takes the training that has ended after epoch 2\n" in here.stderr
    assert_as_if_uninterrupted(clone)


def test_damaged_files_come_back_from_the_cache(clone: Path) -> None:
    before = outputs(clone)
    for name in ("data/dataset.safetensors", "models/regularized.safetensors", "explorer/filters.html"):
        path = clone / name
        content = path.read_bytes()
        path.unlink()  # it may be a link into the cache
        path.write_bytes(content[:-1])
    assert executed(dvc(clone, "repro")) == []
    assert outputs(clone) == before


def test_charts_show_each_thing_once(clone: Path) -> None:
    plots = json.loads(dvc(clone, "plots", "show", "--json"))["data"]
    pictures = {name for name, parts in plots.items() if parts[0]["type"] == "image"}
    charts = set(plots) - pictures
    assert {"accuracy", "losses"} <= charts
    assert len(charts) == 2 + len(MODELS)
    on_disk = {str(file.relative_to(clone)) for file in (clone / "plots").glob("**/*.png")}
    assert set(pictures) == on_disk
    for name in MODELS:
        (part,) = plots[f"plots/{name}/confusion.csv"]
        values = part["content"]["data"]["values"]
        assert sum(int(value["images"]) for value in values) == TINY["data"]["test_size"]
        assert len(values) == 10 * 10


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


def test_the_images_come_from_an_archive_in_the_official_layout(tmp_path: Path) -> None:
    archive = tmp_path / "archive.tar.gz"
    official_archive(archive)
    cifar = TINY | {"data": TINY["data"] | {"source": "cifar10", "validation_size": 50}}
    folder = copy_project(tmp_path / "clone", cifar)
    ran = executed(dvc(folder, "repro", "download", CIFAR10_ARCHIVE=str(archive)))
    assert ran == ["download"]
    download = json.loads((folder / "metrics/download.json").read_text())
    assert download["archive_md5"] == [hashlib.md5(archive.read_bytes()).hexdigest()]
    assert sum(download["train_per_class"]) == 150
    assert sum(download["validation_per_class"]) == 50
