"""The models here and the committed ones: the same bytes, the same within chance, not here, or different."""

import hashlib
import json
import math
import shutil
import statistics
from pathlib import Path
from typing import Any

import pytest
import yaml

from stages.common.dataset import save_data
from stages.common.errors import UserError
from tests.project import ROOT, commit, make_repository
from tests.tiny import tiny_data
from tests.tools.support import cells, write_results
from tools import report, verify
from tools.machine import COMMITTED, differences, machine, newly_trained
from tools.models import MODELS

SPREAD = {model: 0.002 * number for number, model in enumerate(MODELS, start=1)}
RECORD = {"device": "cpu", "precision": "bf16", "threads": 2, "torch": "2.9", "reason": "auto", "epochs": []}


def train(model: str, content: str, **record: Any) -> None:
    """Leave behind what a training does, as far as the tools look at it."""
    files = {
        f"models/{model}.safetensors": content,
        f"plots/{model}/confusion.csv": "confusion",
        f"runs/{model}.json": json.dumps(
            RECORD | {"model_sha256": hashlib.sha256(content.encode()).hexdigest()} | record
        ),
    }
    for name, text in files.items():
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(text)


def measured(model: str, accuracy: float, **more: Any) -> None:
    path = Path(f"metrics/{model}.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"test_accuracy": accuracy} | more))


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository whose models are trained and committed, as far as Git has them."""
    monkeypatch.chdir(tmp_path)
    write_results(tmp_path, MODELS)
    outputs: dict[str, list[str]] = {"download": ["data/dataset.safetensors", "metrics/download.json"]}
    Path("data/dataset.safetensors").write_text("images")
    for model in MODELS:
        train(model, model)
        outputs[f"train_{model}"] = [
            f"models/{model}.safetensors",
            f"metrics/{model}.json",
            f"plots/{model}/confusion.csv",
        ]
    lock = {
        stage: {
            "outs": [
                {"path": path, "md5": hashlib.md5(Path(path).read_bytes()).hexdigest()} for path in paths
            ]
        }
        for stage, paths in outputs.items()
    }
    seeds = {
        str(seed): {
            f"train_{model}": {"test_accuracy": 0.5 + sign * SPREAD[model], "train_accuracy": 0.9}
            for model in MODELS
        }
        for seed, sign in enumerate((-1, 0, 1))
    }
    content = {"metric": "test_accuracy", "settings": {"defaults": {"changes": {}, "seeds": seeds}}}
    Path("sweeps/results").mkdir(parents=True)
    Path("sweeps/results/seeds.json").write_text(json.dumps(content))
    Path("dvc.lock").write_text(yaml.safe_dump({"stages": lock}))
    Path("params.yaml").write_text((ROOT / "params.yaml").read_text())
    Path(".gitignore").write_text("/models/\n/runs/\n/data/\n")
    COMMITTED.write_text(newly_trained(MODELS) or "")
    make_repository(tmp_path)
    return tmp_path


def verified(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str
) -> tuple[int, list[str], str]:
    """Status, the last line, and what is printed."""
    monkeypatch.setattr("sys.argv", ["verify", *arguments])
    with pytest.raises(SystemExit) as ended:
        verify.main()
    text = capsys.readouterr().out
    return int(ended.value.code or 0), text.rstrip().splitlines(), text


@pytest.mark.usefixtures("project")
def test_the_same_bytes(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    status, lines, _ = verified(monkeypatch, capsys)
    assert (status, lines[-1]) == (0, "same bytes")
    assert [row[0] for row in cells("\n".join(lines[2:6]))] == [*MODELS]
    assert {row[-1] for row in cells("\n".join(lines[2:6]))} == {"same bytes"}
    assert len(lines) == 8  # where all is the same, nothing is said of machines


@pytest.mark.usefixtures("project")
def test_the_same_within_chance(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    train("cnn", "another", precision="fp32", torch="2.10")
    measured("cnn", 0.607)
    status, lines, text = verified(monkeypatch, capsys)
    assert (status, lines[-1]) == (0, "same within what another seed does: cnn")
    # three seeds of each model deviate by 0.002 to 0.008, the difference of two by more
    variance = statistics.mean(statistics.variance([0.5 - s, 0.5, 0.5 + s]) for s in SPREAD.values())
    deviations = 0.007 / math.sqrt(2 * variance)
    assert cells(lines[3]) == [
        ["cnn", "0.6000", "0.6070", "+0.0070", f"{deviations:.1f}", "same within what another seed does"]
    ]
    assert "cnn: precision bf16 there, fp32 here; torch 2.9 there, 2.10 here" in lines
    assert "the same machine" not in text  # those of the same bytes need no reason
    assert "changed here" not in text
    assert "other images" not in text


@pytest.mark.usefixtures("project")
def test_other_bytes_at_the_same_accuracy(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("plots/cnn/confusion.csv").write_text("other")
    status, lines, _ = verified(monkeypatch, capsys)
    assert (status, lines[-1]) == (0, "same within what another seed does: cnn")
    assert cells(lines[3])[0][3:5] == ["+0.0000", "0.0"]


@pytest.mark.usefixtures("project")
def test_different(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    Path("params.yaml").write_text(Path("params.yaml").read_text().replace("crop_pad: 2", "crop_pad: 4"))
    Path("data/dataset.safetensors").write_text("others")
    Path("runs/baseline.json").unlink()
    measured("regularized", 0.5)
    measured("cnn", 0.601)
    measured("baseline", 0.501)
    status, lines, _ = verified(monkeypatch, capsys)
    assert (status, lines[-1]) == (1, "different: regularized")
    assert "changed here: params.yaml" in lines
    assert "other images: data/dataset.safetensors" in lines
    assert "baseline: its machine is not known here (DVC restored the model)" in lines


@pytest.mark.usefixtures("project")
def test_a_fresh_clone_has_nothing_to_compare(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("models/cnn.safetensors").unlink()
    Path("models/augmented.safetensors").unlink()
    status, lines, text = verified(monkeypatch, capsys)
    assert (status, lines[-1]) == (1, "not here: cnn, augmented (run 'dvc repro' first)")
    assert "restored" not in text


@pytest.mark.usefixtures("project")
def test_a_training_that_has_not_ended(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    content = json.loads(Path("metrics/cnn.json").read_text())
    del content["train_accuracy"]
    Path("metrics/cnn.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"^metrics/cnn.json is of a training that has not ended"):
        verified(monkeypatch, capsys)


def test_another_commit(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    train("cnn", "another")
    measured("cnn", 0.5)
    lock = yaml.safe_load(Path("dvc.lock").read_text())
    for output in lock["stages"]["train_cnn"]["outs"]:
        output["md5"] = hashlib.md5(Path(output["path"]).read_bytes()).hexdigest()
    Path("dvc.lock").write_text(yaml.safe_dump(lock))
    commit(project, "another run")
    assert verified(monkeypatch, capsys)[0] == 0
    status, lines, _ = verified(monkeypatch, capsys, "HEAD~")
    assert (status, lines[-1]) == (1, "different: cnn")
    Path("dvc.lock").unlink()
    commit(project, "no lock")
    status, lines, _ = verified(monkeypatch, capsys)
    assert (status, lines[-1]) == (1, f"not committed: {', '.join(MODELS)}")
    Path("sweeps/results/seeds.json").unlink()
    commit(project, "no seeds")
    with pytest.raises(UserError, match=r"^sweeps/results/seeds.json is missing at [0-9a-f]{10}"):
        verified(monkeypatch, capsys)
    with pytest.raises(UserError, match=r"^'v9' is no revision that Git knows here"):
        verified(monkeypatch, capsys, "v9")


@pytest.mark.usefixtures("project")
def test_the_report_writes_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(ROOT / ".dvc/plots", ".dvc/plots")
    save_data(tiny_data())
    monkeypatch.setattr("sys.argv", ["report"])
    report.main()
    train("cnn", "another", threads=7)
    report.main()
    assert json.loads(COMMITTED.read_text())["cnn"]["threads"] == 7


@pytest.mark.usefixtures("project")
def test_metrics_that_are_damaged(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for content, message in (("<<<<<<< HEAD", "is no JSON"), ("[]", "holds no metrics")):
        Path("metrics/cnn.json").write_text(content)
        with pytest.raises(UserError, match=rf"^metrics/cnn.json {message}"):
            verified(monkeypatch, capsys)


@pytest.mark.usefixtures("project")
def test_the_committed_machine_is_that_of_the_committed_models() -> None:
    assert newly_trained(MODELS) is None
    train("cnn", "cnn", threads=1)  # the same bytes: nothing new
    assert newly_trained(MODELS) is None
    train("cnn", "another", threads=1)
    content = json.loads(newly_trained(MODELS) or "")
    assert content["cnn"]["threads"] == 1
    assert content["cnn"].keys() == {"device", "precision", "threads", "torch", "model_sha256"}
    Path("models/baseline.safetensors").write_text("restored by DVC, and trained elsewhere")
    assert machine("baseline") is None
    Path("models/augmented.safetensors").unlink()
    content = json.loads(newly_trained(MODELS) or "")
    assert list(content) == ["cnn", "augmented", "regularized"]  # known: two, and the one that is not here
    Path("runs/cnn.json").write_text("{")
    assert machine("cnn") is None


def test_what_differs_between_machines() -> None:
    assert [*differences({"threads": 2, "model_sha256": "a"}, {"threads": 2, "model_sha256": "b"})] == []
    assert [*differences({"device_name": "A"}, {"threads": 1})] == [
        "device name A there, None here",
        "threads None there, 1 here",
    ]
