"""The committed dvc.lock and results are those of the committed code and parameters."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from stages.common.snapshot import md5_of
from tests.project import ROOT, command, dvc, tracked_files


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """The project without data, models and cache: what ``git clone`` gives."""
    folder = tmp_path / "clone"
    for name in tracked_files():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, folder / name)
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    return folder


def stale_stages(folder: Path) -> dict[str, list[str]]:
    """Stages whose lock entry does not fit code, parameters or results, and why.

    ``dvc status`` compares the lock with the files. That data and models are missing is no fault of
    a clone, so for these the lock itself must fit together: what a stage read is what another wrote.
    """
    lock = yaml.safe_load((folder / "dvc.lock").read_text())["stages"]
    written = {out["path"]: out["md5"] for stage in lock.values() for out in stage.get("outs", [])}
    status: dict[str, list[Any]] = json.loads(dvc(folder, "status", "--json"))
    found: dict[str, list[str]] = {}
    for stage, changes in status.items():
        for entry in changes:
            if not isinstance(entry, dict):
                found.setdefault(stage, []).append(str(entry))
                continue
            for kind, paths in entry.items():
                for path, how in paths.items():
                    absent = path.startswith(("data/", "models/", "explorer/")) and how in (
                        "deleted",
                        "not in cache",
                    )
                    if not absent:
                        found.setdefault(stage, []).append(f"{kind}: {path} {how}")
    for stage, entry in lock.items():
        for dep in entry["deps"]:
            if dep["path"] in written and dep["md5"] != written[dep["path"]]:
                found.setdefault(stage, []).append(f"read another {dep['path']} than was written")
    return found


def test_the_lock_is_not_stale(clone: Path) -> None:
    assert stale_stages(clone) == {}


def test_a_clone_shows_metrics_and_charts_without_data(clone: Path) -> None:
    assert json.loads(dvc(clone, "metrics", "show", "--json"))[""]["data"]
    dvc(clone, "plots", "show")
    assert (clone / "dvc_plots/index.html").is_file()


@pytest.mark.parametrize(
    ("path", "old", "new", "stage"),
    [
        ("stages/augmentation/transforms.py", "reflected", "mirrored", "train_augmented"),
        ("params.yaml", "crop_pad: 2", "crop_pad: 3", "train_regularized"),
        ("metrics/cnn.json", '"train_accuracy": ', '"train_accuracy": 1', "train_cnn"),
        ("dvc.lock", "seed: 0", "seed: 1", "download"),
    ],
)
def test_a_stale_lock_is_told_by_the_stage(clone: Path, path: str, old: str, new: str, stage: str) -> None:
    text = (clone / path).read_text()
    assert old in text
    (clone / path).write_text(text.replace(old, new, 1))
    assert stage in stale_stages(clone)


def test_a_deleted_result_is_told_by_the_stage(clone: Path) -> None:
    (clone / "metrics/baseline.json").unlink()
    assert "train_baseline" in stale_stages(clone)


def test_a_stage_that_read_other_data_is_told(clone: Path) -> None:
    """Data and models are not in a clone: that the stages fit together, the lock itself says."""
    lock = yaml.safe_load((clone / "dvc.lock").read_text())
    for dep in lock["stages"]["train_cnn"]["deps"]:
        if dep["path"] == "data/dataset.safetensors":
            dep["md5"] = "0" * 32
    (clone / "dvc.lock").write_text(yaml.safe_dump(lock))
    assert "read another data/dataset.safetensors than was written" in stale_stages(clone)["train_cnn"]


def test_a_stage_that_was_never_run_is_told(clone: Path) -> None:
    lock = yaml.safe_load((clone / "dvc.lock").read_text())
    del lock["stages"]["train_baseline"]
    (clone / "dvc.lock").write_text(yaml.safe_dump(lock))
    assert "train_baseline" in stale_stages(clone)


def test_the_page_in_the_docs_is_that_of_the_committed_run() -> None:
    lock = yaml.safe_load((ROOT / "dvc.lock").read_text())["stages"]["visualize_filters"]["outs"]
    (page,) = [output for output in lock if output["path"] == "explorer/filters.html"]
    assert md5_of(ROOT / "docs/explorer.html") == page["md5"]
    assert page["size"] <= 3_000_000


def test_the_readme_and_the_findings_fit_the_metrics() -> None:
    result = command(ROOT, "python", "-m", "tools.report", "--check")
    assert result.returncode == 0, result.stderr
