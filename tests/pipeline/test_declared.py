"""What dvc.yaml declares is what the stages use, no more and no less."""

import importlib
import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from stages import params
from stages.common.errors import UserError
from stages.common.params import S, load
from stages.data.params import Data
from tests.project import ROOT, STAGES, TINY, TRAININGS, import_closure
from tests.test_no_pickle import imports
from tests.tiny import tiny_data, tiny_project

CONTENT: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / "params.yaml").read_text())
CODE = {name: [dep for dep in stage["deps"] if dep.startswith("stages/")] for name, stage in STAGES.items()}


def inside(file: str, dep: str) -> bool:
    """Whether ``file`` is the dependency ``dep``, or in the folder that it is."""
    return Path(file).is_relative_to(dep)


def test_the_stages_are_the_six_of_the_study() -> None:
    trainings = ["train_baseline", "train_cnn", "train_augmented", "train_regularized"]
    assert list(STAGES) == ["download", *trainings, "visualize_filters"]
    for name, stage in STAGES.items():
        # DVC chooses a dependency by it before the stage runs, and the stage compares
        chosen = " ${viz.model}" if name == "visualize_filters" else ""
        assert stage["cmd"] == f"python -m stages.{name}{chosen}"


@pytest.mark.parametrize("name", STAGES)
def test_a_module_that_is_reached_is_inside_of_what_is_declared(name: str) -> None:
    reached = import_closure(ROOT / "stages" / f"{name}.py")
    assert [file for file in sorted(reached) if not any(inside(file, dep) for dep in CODE[name])] == []


@pytest.mark.parametrize("name", STAGES)
def test_what_is_declared_is_reached(name: str) -> None:
    reached = import_closure(ROOT / "stages" / f"{name}.py")
    assert [dep for dep in CODE[name] if not any(inside(file, dep) for file in reached)] == []


@pytest.mark.parametrize("name", STAGES)
def test_rooms_are_declared_as_a_whole(name: str) -> None:
    files = {dep for dep in CODE[name] if not (ROOT / dep).is_dir()}
    assert files == {"stages/__init__.py", f"stages/{name}.py"}
    assert all(Path(dep).parent == Path("stages") for dep in CODE[name])


def test_every_room_is_declared_by_a_stage() -> None:
    rooms = {f"stages/{path.name}" for path in (ROOT / "stages").iterdir() if (path / "__init__.py").exists()}
    assert rooms == {dep for deps in CODE.values() for dep in deps if (ROOT / dep).is_dir()}


def test_other_deps_are_the_outputs_of_stages() -> None:
    others = {name: [dep for dep in stage["deps"] if dep not in CODE[name]] for name, stage in STAGES.items()}
    assert others["download"] == []
    for name in TRAININGS:
        assert others[name] == ["data/dataset.safetensors"]
    assert others["visualize_filters"] == ["data/dataset.safetensors", "models/${viz.model}.safetensors"]


def test_the_pipeline_can_be_read() -> None:
    assert len((ROOT / "dvc.yaml").read_text().splitlines()) <= 150
    assert max(len(stage["deps"]) for stage in STAGES.values()) <= 8


@pytest.mark.parametrize("name", TRAININGS)
def test_no_training_depends_on_what_draws_or_on_tables(name: str) -> None:
    files = [
        file
        for dep in CODE[name]
        for file in ((ROOT / dep).rglob("*.py") if (ROOT / dep).is_dir() else [ROOT / dep])
    ]
    assert len(files) > 10
    assert not [file for file in files if {"matplotlib", "pandas"} & imports(file)]


def test_no_stage_reaches_the_commands_around_the_pipeline() -> None:
    reached = {file for name in STAGES for file in import_closure(ROOT / "stages" / f"{name}.py")}
    assert {Path(file).parts[0] for file in reached} == {"stages"}


def test_arrows_between_the_rooms_go_down_only() -> None:
    floors = [
        ["common"],
        ["augmentation", "drawing", "networks", "regularization"],
        ["data", "filters", "training"],
    ]
    floor = {room: number for number, rooms in enumerate(floors) for room in rooms}
    for file in (ROOT / "stages").glob("*/*.py"):
        own = file.parent.name
        for reached in import_closure(file):
            other = Path(reached).parent.name
            assert other in ("stages", own) or floor[other] < floor[own], f"{file} imports from {other}"


def test_params_are_the_sections_that_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for section, values in TINY.items():
        CONTENT[section] |= values
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(CONTENT))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    for name, stage in STAGES.items():
        assert keys_read(name, monkeypatch) == leaves(stage["params"]), name
    assert json.loads((tmp_path / "metrics/filters.json").read_text())


def leaves(declared: list[str]) -> set[str]:
    """Keys that ``declared`` keys and sections stand for."""
    keys = set()
    for name in declared:
        section, _, key = name.partition(".")
        keys |= {name} if key else {f"{section}.{key}" for key in CONTENT[section]}
    return keys


def keys_read(name: str, monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Run stage ``name`` here; the keys that it read."""
    seen: set[str] = set()

    def recorded(section: type[S]) -> S:
        seen.update(f"{section.name}.{key}" for key in section.model_fields)
        return load(section)

    script = importlib.import_module(f"stages.{name}")
    if name == "download":  # it looks at all sections, but takes from this one alone
        monkeypatch.setattr(params, "load_all", lambda: SimpleNamespace(data=recorded(Data)))
    else:
        monkeypatch.setattr(script, "load", recorded)
    script.main()
    return seen


@pytest.mark.parametrize("section", CONTENT)
def test_download_checks_every_section(section: str, workplace: Path) -> None:
    shutil.copy(ROOT / "params.yaml", workplace)
    with open("params.yaml", "a") as file:
        file.write(f"{section}x: 1\n")
    with pytest.raises(UserError, match=f"unknown key '{section}x'"):
        importlib.import_module("stages.download").main()
    assert [path.name for path in workplace.iterdir()] == ["params.yaml"]


@pytest.mark.parametrize("name", [name for name in STAGES if name != "download"])
def test_a_stage_checks_its_sections_before_any_work(name: str, workplace: Path) -> None:
    tiny_project(workplace, tiny_data())
    for declared in STAGES[name]["params"]:
        section, _, key = declared.partition(".")
        content = yaml.safe_load((ROOT / "params.yaml").read_text())
        content[section][key or next(iter(content[section]))] = {}
        (workplace / "params.yaml").write_text(yaml.safe_dump(content))
        with pytest.raises(UserError, match=rf"^params\.yaml: {section}\."):
            importlib.import_module(f"stages.{name}").main()
    assert {path.name for path in workplace.iterdir()} == {"params.yaml", "data"}
