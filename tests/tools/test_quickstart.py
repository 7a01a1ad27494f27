import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from stages.common.errors import UserError
from stages.common.params import load
from tools.charts import draw, dvc
from tools.quickstart import REDUCED, prepare
from tools.report import MODELS


def test_the_copy_has_the_changes_and_the_other_defaults(tmp_path: Path) -> None:
    prepare(tmp_path, REDUCED)
    copied = load(tmp_path / "params.yaml").model_dump()
    changed = load().model_dump()
    for section, values in REDUCED.items():
        changed[section].update(values)
    assert copied == changed


def test_a_second_preparation_keeps_results_and_drops_old_sources(tmp_path: Path) -> None:
    prepare(tmp_path, REDUCED)
    (tmp_path / "models").mkdir()
    (tmp_path / "models/cnn.safetensors").write_text("a result")
    (tmp_path / "dvc.lock").write_text("a lock")
    (tmp_path / "stages/gone.py").write_text("a source that the checkout does not have")
    (tmp_path / "stages/download.py").write_text("an old source")
    prepare(tmp_path, REDUCED)
    assert (tmp_path / "models/cnn.safetensors").read_text() == "a result"
    assert (tmp_path / "dvc.lock").read_text() == "a lock"
    assert not (tmp_path / "stages/gone.py").exists()
    assert (tmp_path / "stages/download.py").read_bytes() == Path("stages/download.py").read_bytes()


def test_changes_are_checked(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"train\.epochs is 0"):
        prepare(tmp_path, {"train": {"epochs": 0}})


@pytest.mark.slow
def test_the_copy_is_a_pipeline_without_git(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    prepare(tmp_path, REDUCED)
    assert dvc(tmp_path, "stage", "list", "--name-only") == 0
    assert "train_regularized" in capfd.readouterr().out.split()
    assert dvc(tmp_path, "config", "core.no_scm") == 0
    assert capfd.readouterr().out.strip() == "true"


@pytest.mark.slow
def test_the_charts_page_draws_without_a_network(tmp_path: Path) -> None:
    prepare(tmp_path, REDUCED)
    (tmp_path / "metrics").mkdir()
    history = [{"epoch": 1, "test_accuracy": 0.5, "train_loss": 2.0, "test_loss": 1.0}]
    for model in MODELS:
        (tmp_path / f"metrics/{model}.json").write_text(json.dumps({"history": history}))
        (tmp_path / f"plots/{model}").mkdir(parents=True)
        (tmp_path / f"plots/{model}/predictions.csv").write_text("actual,predicted\ncat,dog\ndog,dog\n")
    page = draw(tmp_path, [])
    assert not re.findall(r"<(?:script|link|img)[^>]*(?:src|href)=[\"']?(?:https?:)?//", page.read_text())

    browser = shutil.which("chromium")
    if browser is None:
        pytest.skip("no chromium")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=10000", "--dump-dom"]
    no_network = "--host-resolver-rules=MAP * ~NOTFOUND"
    document = subprocess.run(
        [browser, *options, no_network, f"--user-data-dir={tmp_path / 'browser'}", page.as_uri()],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    ).stdout
    drawn = re.findall(
        r'<div id="(\w+)"[^>]*class="vega-embed[^>]*>(?:<div[^>]*>)*<svg[^>]*class="marks"', document
    )
    assert {"accuracy", "losses", *(f"plots_{model}_predictions_csv" for model in MODELS)} <= set(drawn)
