"""A model of ``dvc.yaml`` is everywhere, or a test says in which file it is missing."""

import json
import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torchinfo
import yaml
from PIL import Image

from stages.filters.params import Viz
from stages.networks.models import CNN
from tests.project import ROOT, command, copy_project
from tests.tiny import CPU, tiny_data
from tests.tools.support import cells, write_results
from tools.models import MODELS, networks, parameter_counts, script

WIDE = """\
from stages.common.dataset import Data
from stages.networks.models import CNN
from stages.training.params import Train
from stages.training.runtime import Runtime
from stages.training.trainer import Trainer


def network() -> CNN:
    return CNN([[3], [5]])


def trainer(data: Data, train: Train, runtime: Runtime) -> Trainer:
    return Trainer(network(), data, train, runtime)
"""
TOOLS = """\
import sys
from stages.common.params import load
from stages.training.params import Train
from tests import bench
from tests.tiny import CPU
from tools import report, summary
from tools.models import MODELS

sys.argv = ["tool"]
report.main()
summary.main()
print("contestants:", *bench.trainers(bench.random_data(), load(Train), CPU))
print("models:", *MODELS)
"""


def places_without(
    models: Iterable[str], cnns: Iterable[str], plots: Mapping[str, Mapping[str, Any]], choices: Iterable[str]
) -> list[str]:
    """Where a model is missing in the ``plots`` of dvc.yaml, and a CNN in the ``choices`` of viz.model."""
    places = [
        f"dvc.yaml: the plot {name} lacks metrics/{model}.json"
        for name in ("accuracy", "losses")
        for model in models
        if f"metrics/{model}.json" not in plots[name]["y"]
    ]
    missing = [model for model in cnns if model not in choices]
    return places + [f"stages/filters/params.py: viz.model cannot be {model}" for model in missing]


def plots(pipeline: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {name: plot for entry in pipeline["plots"] for name, plot in entry.items()}


def test_the_models_are_those_of_the_training_stages_in_order() -> None:
    assert list(MODELS) == re.findall(r"^  train_(\w+):$", (ROOT / "dvc.yaml").read_text(), re.MULTILINE)


def test_the_list_of_models_needs_no_torch() -> None:
    code = "import sys, tools.models; sys.exit('torch' in sys.modules)"
    assert command(ROOT, sys.executable, "-c", code).returncode == 0


def test_every_model_is_in_the_charts_and_every_cnn_can_be_examined() -> None:
    pipeline = yaml.safe_load((ROOT / "dvc.yaml").read_text())
    cnns = [model for model, network in networks().items() if isinstance(network, CNN)]
    choices = get_args(Viz.model_fields["model"].annotation)
    assert not places_without(MODELS, cnns, plots(pipeline), choices)
    assert set(choices) <= set(cnns)


def test_the_places_without_a_model_are_named() -> None:
    pipeline = {
        "plots": [{"accuracy": {"y": {"metrics/a.json": ""}}}, {"losses": {"y": {"metrics/b.json": ""}}}]
    }
    assert places_without(["a", "b"], ["b"], plots(pipeline), ["a"]) == [
        "dvc.yaml: the plot accuracy lacks metrics/b.json",
        "dvc.yaml: the plot losses lacks metrics/a.json",
        "stages/filters/params.py: viz.model cannot be b",
    ]


def test_the_numbers_of_parameters_are_those_of_torchinfo() -> None:
    assert parameter_counts() == {
        model: torchinfo.summary(network, (1, 3, 32, 32), verbose=0, device="cpu").total_params
        for model, network in networks().items()
    }


def test_the_networks_are_those_that_the_stages_train(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each stage's own main runs up to the training, which is caught."""
    built = networks()
    assert tuple(built) == MODELS
    for model, network in built.items():
        stage = script(model)
        caught: list[Any] = []
        monkeypatch.setattr(stage, "prepare", lambda _: CPU)
        monkeypatch.setattr(stage, "load_data", lambda: tiny_data(train=520))
        monkeypatch.setattr(stage, "draw_examples", lambda *_: None, raising=False)
        monkeypatch.setattr(stage, "train_and_write", lambda *arguments: caught.extend(arguments))  # noqa: B023
        stage.main()
        assert caught[0] == model
        assert str(caught[1].model) == str(network)


@pytest.mark.slow
def test_a_fifth_model_appears_by_its_stage_and_its_script_alone(tmp_path: Path) -> None:
    project = copy_project(tmp_path, {})
    pipeline = yaml.safe_load((project / "dvc.yaml").read_text())
    pipeline["stages"]["train_wide"] = {"cmd": "python -m stages.train_wide"}
    (project / "dvc.yaml").write_text(yaml.safe_dump(pipeline, sort_keys=False))
    (project / "stages/train_wide.py").write_text(WIDE)
    models = (*MODELS, "wide")
    write_results(project, models)

    ran = command(project, sys.executable, "-c", TOOLS)
    assert ran.returncode == 0, ran.stderr
    *_, contestants, listed = ran.stdout.splitlines()
    assert listed == f"models: {' '.join(models)}"
    assert contestants == f"contestants: {' '.join(models)}"
    assert re.findall(r"^(\w+)\n  layer ", ran.stdout, re.MULTILINE) == list(models)
    for page in ("README.md", "docs/findings.md"):
        table = (project / page).read_text().partition("<!-- results -->\n\n")[2].partition("\n\n")[0]
        rows = cells(table)
        assert rows[0] == ["", *models]
        # 3 x 3 kernels: 3 channels of 3, 5 of 3; then 6 x 6 pixels of 5 channels to 10 classes
        assert rows[-1][-1] == f"{3 * 28 + 5 * 28 + 10 * (180 + 1):,}"
    colours = json.loads((project / ".dvc/plots/accuracy.json").read_text())["encoding"]["color"]["scale"][
        "range"
    ]
    with Image.open(project / "docs/accuracy.png") as picture:
        pixels = np.asarray(picture.convert("RGB"))
    assert (pixels == list(bytes.fromhex(colours[len(MODELS)][1:]))).all(-1).sum() > 500
