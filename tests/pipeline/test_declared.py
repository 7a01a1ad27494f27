"""What dvc.yaml declares is what the stages use, no more and no less."""

import importlib
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from stages.common.params import Params, check
from tests.project import ROOT, STAGES, TINY, TRAININGS, import_closure


class Recorder:
    """Parameters that note which keys are read."""

    def __init__(self, section: Any, prefix: str, seen: set[str]) -> None:
        self._section, self._prefix, self._seen = section, prefix, seen

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._section, name)
        if isinstance(value, BaseModel):
            return Recorder(value, f"{name}.", self._seen)
        if name in type(self._section).model_fields:
            self._seen.add(self._prefix + name)
        return value


def leaves(declared: list[str]) -> set[str]:
    """Keys that ``declared`` keys and sections stand for."""
    content = yaml.safe_load((ROOT / "params.yaml").read_text())
    keys = set()
    for name in declared:
        section, _, key = name.partition(".")
        keys |= {name} if key else {f"{section}.{key}" for key in content[section]}
    return keys


def test_the_stages_are_the_six_of_the_study() -> None:
    assert list(STAGES) == ["download", *TRAININGS, "visualize_filters"]
    assert all(stage["cmd"] == f"python -m stages.{name}" for name, stage in STAGES.items())


@pytest.mark.parametrize("name", STAGES)
def test_deps_are_the_import_closure(name: str) -> None:
    modules = {dep for dep in STAGES[name]["deps"] if dep.endswith(".py")}
    assert modules == import_closure(ROOT / "stages" / f"{name}.py")


def test_other_deps_are_the_outputs_of_stages_and_the_page_template() -> None:
    others = {
        name: [dep for dep in stage["deps"] if not dep.endswith(".py")] for name, stage in STAGES.items()
    }
    assert others["download"] == []
    for name in TRAININGS:
        assert others[name] == ["data/dataset.safetensors"]
    assert others["visualize_filters"] == [
        "data/dataset.safetensors",
        "models/${viz.model}.safetensors",
        "stages/study/explorer.html",
    ]


@pytest.mark.parametrize("name", TRAININGS)
def test_no_training_depends_on_drawing_or_on_the_gradients(name: str) -> None:
    closure = import_closure(ROOT / "stages" / f"{name}.py")
    drawing = {file for file in closure if {"matplotlib", "pandas"} & imported_libraries(ROOT / file)}
    assert not drawing
    assert "stages/study/gradients.py" not in closure


def imported_libraries(file: Path) -> set[str]:
    """Top-level names that ``file`` imports."""
    words = (line.split() for line in file.read_text().splitlines())
    return {line[1].split(".")[0] for line in words if line and line[0] in ("from", "import") and line[1:]}


def test_params_are_the_keys_that_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = yaml.safe_load((ROOT / "params.yaml").read_text())
    for section, values in TINY.items():
        content[section] |= values
    params = check(content)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    read = {name: keys_read(name, params, monkeypatch) for name in STAGES}
    declared = {name: leaves(stage["params"]) for name, stage in STAGES.items()}

    # of the archive's own keys, the synthetic source reads none
    assert read["download"] | {"data.url", "data.md5"} == declared["download"]
    assert {name: read[name] for name in read if name != "download"} == {
        name: declared[name] for name in declared if name != "download"
    }
    assert json.loads((tmp_path / "metrics/filters.json").read_text())


def keys_read(name: str, params: Params, monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Run stage ``name`` here; the keys that it read."""
    seen: set[str] = set()
    script = importlib.import_module(f"stages.{name}")
    monkeypatch.setattr(script, "load", lambda: Recorder(params, "", seen))
    script.main()
    return seen
