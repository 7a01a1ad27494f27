"""Search files: what they mean, and that a wrong one is refused before any trial."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml

from stages.common.errors import UserError
from sweeps.search import Search, load
from tests.project import ROOT, command

TARGET = {"targets": ["train_regularized"], "seeds": [0]}
HELD_OUT = {**TARGET, "fixed": {"data.validation_size": 5000}}
SPACED = {**HELD_OUT, "trials": 2}
DROPOUT = {"reg.dropout": {"float": {"low": 0, "high": 0.2}}}


@pytest.fixture
def read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Load a search of this content."""
    monkeypatch.chdir(ROOT)

    def search(content: Any) -> Search:
        path = tmp_path / "search.yaml"
        path.write_text(content if isinstance(content, str) else yaml.safe_dump(content, sort_keys=False))
        return load(path)

    return search


@pytest.mark.parametrize("path", sorted((ROOT / "sweeps").glob("*.yaml")), ids=lambda path: path.stem)
def test_the_committed_searches_are_valid(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert load(path).planned_trials()


def test_the_search_that_the_docs_show_is_valid(read: Any) -> None:
    shown = (ROOT / "docs/sweeps.md").read_text().partition("```yaml\n")[2].partition("```")[0]
    assert len(read(shown).planned_trials()) == yaml.safe_load(shown)["trials"]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (
            {**TARGET, "settings": {"a": {"reg.droput": 0}}},
            "unknown key 'reg.droput' (did you mean dropout?)",
        ),
        ({**TARGET, "settings": {"a": {"regg.dropout": 0}}}, "unknown key 'regg'"),
        ({**TARGET, "settings": {"a": {"dropout": 0}}}, "settings.a.dropout"),
        (
            {**TARGET, "settings": {"a": {"reg.dropout": 2}}},
            "reg.dropout is 2, but must be a number from 0 to",
        ),
        ({**TARGET, "settings": {"a/b": {}}}, "settings.a/b"),
        ({**TARGET, "settings": {"a" * 61: {}}}, "settings.aaaa"),
        ({**TARGET, "settings": {"a": {"train.seed": 3}}}, "train.seed is what seeds are for"),
        ({**TARGET, "settings": {"a": {}}, "seed": [1]}, "unknown key 'seed' (did you mean seeds?)"),
        ({**TARGET, "seeds": [], "settings": {"a": {}}}, "seeds is [], but must be a list of whole numbers"),
        ({**TARGET, "seeds": [-1], "settings": {"a": {}}}, "seeds[0] is -1, but must be"),
        (
            {**TARGET, "settings": {"a": {}}, "targets": ["train_mlp"]},
            "targets[0] is 'train_mlp', but must be a list of trainings: train_baseline, train_cnn, ",
        ),
        (
            {**TARGET, "settings": {"a": {}}, "targets": ["visualize_filters"]},
            "targets[0] is 'visualize_filters'",
        ),
        (
            {**HELD_OUT, "grid": {"reg.dropout": []}},
            "grid.reg.dropout is [], but must be parameters and lists",
        ),
        ({**TARGET, "settings": {"a": {}}, "pruner": {"NoPruner": {}}}, "NoPruner"),
        ({**SPACED, "space": DROPOUT, "sampler": {"TPESampler": {"seeed": 1}}}, "seeed"),
        ({**HELD_OUT}, "give one of settings, grid and space"),
        ({**SPACED, "settings": {"a": {}}, "space": DROPOUT}, "give one of settings, grid and space"),
        ({**TARGET, "trials": 2, "space": DROPOUT}, "data.validation_size above 0"),
        ({**TARGET, "grid": {"reg.dropout": [0, 0.1]}}, "data.validation_size above 0"),
        ({**HELD_OUT, "grid": {"reg.dropout": [0, 0.1, 7]}}, "reg.dropout is 7"),
        ({**SPACED, "space": DROPOUT, "targets": ["train_cnn", "train_augmented"]}, "one target"),
        ({**SPACED, "space": {"reg.dropout": {"float": {"low": 0.2, "high": 0.1}}}}, "low <= high"),
        ({**SPACED, "space": {"reg.dropout": {"float": {"low": 0, "high": 2}}}}, "reg.dropout is 2,"),
        ({**SPACED, "space": {"reg.dropout": {"float": {"low": 0}}}}, "high"),
        ({**SPACED, "space": {"reg.dropout": {"real": {"low": 0, "high": 1}}}}, "suggest_real"),
        ({**SPACED, "space": {"aug.crop_pad": {"float": {"low": 0, "high": 2}}}}, "must be a whole number"),
        (
            {**SPACED, "space": {"reg.dropout": {"categorical": {"choices": [0, "a"]}}}},
            "reg.dropout is 'a'",
        ),
        (
            {**SPACED, "space": {"reg.droput": {"float": {"low": 0, "high": 0.2}}}},
            "unknown key 'reg.droput'",
        ),
        ({**HELD_OUT, "space": DROPOUT, "trials": 0}, "trials is 0, but must be a whole number above 0"),
        ({**HELD_OUT, "grid": {"dropout": [0]}}, "grid.dropout"),
        ("targets: [", "while parsing"),
        ("targets: [train_cnn]\nseeds: [0]\nseeds: [1]", "the key seeds is there twice"),
        ("settings:\n  a: {reg.dropout: 0}\n  a: {}", "the key a is there twice"),
        ("fixed: {train.learning_rate: 5e-05}", "5e-05 is text in YAML 1.1: write 5.0e-05"),
        ("space: {reg.dropout: {float: {low: 0, high: 1e3}}}", "1e3 is text in YAML 1.1: write 1000.0"),
        ("grid: {train.betas: [[0.9, -.5E2]]}", "-.5E2 is text in YAML 1.1: write -50.0"),
        (
            "targets: [train_cnn]\nseeds: [0]\nsettings: {off: {}}",
            "is false, but must be {name: changes}, names such as off in quotes",
        ),
        ({**TARGET, "settings": {"a": {}}, "trails": 2}, "unknown key 'trails' (did you mean trials?)"),
        ({**TARGET, "settings": {"a": {}}, "trials": 2}, "trials means nothing with settings: remove it"),
        ({**TARGET, "settings": {"a": {}}, "pruner": {"MedianPruner": {}}}, "pruner means nothing with sett"),
        (
            {**HELD_OUT, "grid": {"reg.dropout": [0]}, "trials": 2},
            "trials means nothing with grid: remove it",
        ),
        ({**HELD_OUT, "grid": {"reg.dropout": [0]}, "sampler": {"TPESampler": {}}}, "sampler means nothing"),
        ({**HELD_OUT, "space": DROPOUT}, "trials is missing: it must be a whole number above 0"),
        ({**TARGET, "seeds": [0, 1, 0], "settings": {"a": {}}}, "seeds has 0 twice"),
        ({**TARGET, "targets": ["train_cnn"] * 2, "settings": {"a": {}}}, 'targets has "train_cnn" twice'),
        ({**HELD_OUT, "grid": {"cnn.blocks": [[[4]], [[4]]]}}, "grid.cnn.blocks has [[4]] twice"),
        ({**HELD_OUT, "grid": {"data.validation_size": [100, 200]}}, "is in fixed and in grid"),
        (
            {"targets": ["train_cnn"], "seeds": [0], "settings": {"a": {}, "b": {"reg.dropout": 0.1}}},
            "reg.dropout is read by none of train_cnn: it would change nothing",
        ),
        (
            {**TARGET, "fixed": {"viz.crop_top": 1}, "settings": {"a": {}}},
            "unknown key 'viz.crop_top'",
        ),
        ({**TARGET, "fixed": {"viz.model": "cnn"}, "settings": {"a": {}}}, "viz.model is read by none of"),
        (
            {**SPACED, "space": {"cnn.blocks": {"categorical": {"choices": [[[4]], [[8]]]}}}},
            "space.cnn.blocks has the choice [[4]], but Optuna takes no lists: use a grid",
        ),
        ("", "the file is null, but must be a mapping with text keys: targets, seeds, "),
        ("[train_cnn]", "the file is ['train_cnn'], but must be a mapping"),
        ("7", "the file is 7, but must be a mapping with text keys: targets, seeds, "),
    ],
)
def test_a_wrong_file_is_refused_in_one_line(read: Any, content: Any, expected: str) -> None:
    with pytest.raises(UserError) as refused:
        read(content)
    message = str(refused.value)
    assert "search.yaml" in message
    assert expected in message
    assert "\n" not in message


@pytest.mark.parametrize(
    "name",
    ["GridSampler", "CmaEsSampler", "GPSampler", "QMCSampler", "BruteForceSampler", "PartialFixedSampler"],
)
def test_a_sampler_that_could_not_run_is_refused_by_name(name: str, read: Any) -> None:
    with pytest.raises(UserError, match=rf"sampler\.{name}.* must be one of TPESampler, RandomSampler, "):
        read({**SPACED, "space": DROPOUT, "sampler": {name: {}}})


@pytest.mark.parametrize("name", ["WilcoxonPruner", "PatientPruner"])
def test_a_pruner_that_could_not_run_is_refused_by_name(name: str, read: Any) -> None:
    with pytest.raises(UserError, match=rf"pruner\.{name}.* must be one of MedianPruner, "):
        read({**SPACED, "space": DROPOUT, "pruner": {name: {}}})


@pytest.mark.parametrize(
    "call",
    [
        {"pruner": {"HyperbandPruner": {"reduction_factor": 1}}},
        {"pruner": {"HyperbandPruner": {"reduction_factor": 2.5}}},
        {"pruner": {"MedianPruner": {"n_startup_trials": "x"}}},
        {"sampler": {"TPESampler": {"n_ei_candidates": 0}}},
        {"sampler": {"NSGAIISampler": {"elite_population_selection_strategy": "x"}}},
        {"sampler": {"TPESampler": {"n_startup_trials": 1, "n_ei_candidates": "x"}}},
    ],
    ids=json.dumps,
)
def test_arguments_that_would_fail_in_the_middle_are_refused_before(call: Any, read: Any) -> None:
    with pytest.raises(UserError, match=r"search.yaml: \w+Error: "):
        read({**SPACED, "space": DROPOUT, **call})


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.yaml: FileNotFoundError"):
        load(tmp_path / "none.yaml")


def test_numbers_are_read_as_yaml_1_2_has_them(read: Any) -> None:
    text = "targets: [train_cnn]\nseeds: [0]\nsettings: {'off': {train.learning_rate: 5.0e-05}, '5e5': {}}\n"
    assert read(text).settings == {"off": {"train.learning_rate": 5e-05}, "5e5": {}}


def test_a_training_added_to_the_pipeline_may_be_a_target(tmp_path: Path) -> None:
    for folder in ("stages", "sweeps", "tools"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    shutil.copy(ROOT / "params.yaml", tmp_path)
    (tmp_path / "dvc.yaml").write_text((ROOT / "dvc.yaml").read_text().replace("train_cnn:", "train_fifth:"))
    for target in ("train_fifth", "train_cnn"):
        search = {**TARGET, "targets": [target], "settings": {"a": {}}}
        (tmp_path / f"{target}.yaml").write_text(yaml.safe_dump(search))
    code = """if True:
        from pathlib import Path
        from sweeps.search import load
        print(load(Path("train_fifth.yaml")).targets)
        load(Path("train_cnn.yaml"))
    """
    result = command(tmp_path, sys.executable, "-c", code)
    assert result.stdout == "['train_fifth']\n", result.stderr
    assert "'train_cnn', but must be a list of trainings: train_baseline, train_fifth, " in result.stderr


@pytest.mark.parametrize(
    ("args", "status", "expected"),
    [
        (["--help"], 0, "usage: python -m sweeps [-h]"),
        ([], 2, "the following arguments are required: command"),
        (["run"], 2, "the following arguments are required: search"),
        (["stop", "x"], 2, "the following arguments are required: trial"),
        (["run", "x.yaml", "--stroage", "x"], 2, "unrecognized arguments: --stroage x"),
        (["walk", "x.yaml"], 2, "invalid choice: 'walk'"),
    ],
)
def test_the_command_line(args: list[str], status: int, expected: str) -> None:
    result = command(ROOT, sys.executable, "-m", "sweeps", *args)
    assert result.returncode == status
    assert expected in result.stdout + result.stderr


def test_every_setting_has_a_trial_for_each_seed(read: Any) -> None:
    search = read({**TARGET, "seeds": [3, 5], "settings": {"all": {}, "none": {"reg.one_cycle_peak": None}}})
    assert search.planned_trials() == {
        "all-s3": ("all", {}, [3]),
        "all-s5": ("all", {}, [5]),
        "none-s3": ("none", {"reg.one_cycle_peak": None}, [3]),
        "none-s5": ("none", {"reg.one_cycle_peak": None}, [5]),
    }


def test_held_out_images_keep_the_test_set_unseen(read: Any) -> None:
    settings: dict[str, Any] = {"settings": {"a": {}}}
    assert read({**TARGET, **settings}).metric == "test_accuracy"
    assert read({**HELD_OUT, **settings}).metric == "validation_accuracy"
    assert read({**HELD_OUT, "grid": {"reg.dropout": [0]}}).metric == "validation_accuracy"


def test_a_grid_is_all_combinations(read: Any) -> None:
    search = read({**HELD_OUT, "grid": {"reg.dropout": [0, 0.1], "cnn.padding": ["valid", "same"]}})
    changes = [changes for _, changes, _ in search.planned_trials().values()]
    assert changes == [{"reg.dropout": d, "cnn.padding": p} for d in (0, 0.1) for p in ("valid", "same")]


@pytest.mark.parametrize(("axes", "most"), [(3, 3**3), (12, 3 * 12)])
def test_the_corners_of_a_space_stand_for_it(axes: int, most: int) -> None:
    space = {f"reg.x{number}": {"float": {"low": 0, "high": 1}} for number in range(axes)}
    content: dict[str, Any] = {**SPACED, "space": space}
    examples = Search(**content).examples()
    assert len(examples) == most
    for parameter in space:
        assert {changes[parameter] for changes in examples} == {0, 5e-324, 1}


def test_a_space_is_sampled_within_its_ranges(read: Any) -> None:
    space = {
        "reg.dropout": {"float": {"low": 0.05, "high": 0.2}},
        "aug.crop_pad": {"int": {"low": 1, "high": 3}},
        "reg.one_cycle_peak": {"categorical": {"choices": [None, 0.01]}},
    }
    search = read({**SPACED, "space": space, "trials": 7, "sampler": {"RandomSampler": {"seed": 0}}})
    assert list(search.planned_trials()) == [f"{number:04}" for number in range(7)]
    study = optuna.create_study()
    search.prepare(study)
    assert isinstance(study.sampler, optuna.samplers.RandomSampler)
    for _ in range(30):
        changes = search.suggest(study.ask())
        assert 0.05 <= changes["reg.dropout"] <= 0.2
        assert changes["aug.crop_pad"] in (1, 2, 3)
        assert changes["reg.one_cycle_peak"] in (None, 0.01)
