"""Search files: what they mean, and that nothing wrong in one gets as far as a trial."""

from pathlib import Path
from typing import Any, get_args

import optuna
import pytest
import yaml

from stages.common.errors import UserError
from sweeps.search import Search, Training, load
from tests.project import ROOT

TARGET = {"targets": ["train_regularized"], "seeds": [0]}
HELD_OUT = {**TARGET, "fixed": {"data.validation_size": 5000}}
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
    assert load(path).plan()


def test_the_search_that_the_docs_show_is_valid(read: Any) -> None:
    shown = (ROOT / "docs/sweeps.md").read_text().partition("```yaml\n")[2].partition("```")[0]
    assert len(read(shown).plan()) == yaml.safe_load(shown)["trials"]


@pytest.mark.parametrize(
    ("content", "said"),
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
        ({**TARGET, "settings": {"a": {"train.seed": 3}}}, "train.seed is what seeds are for"),
        ({**TARGET, "settings": {"a": {}}, "seed": [1]}, "seed: Extra inputs are not permitted"),
        ({**TARGET, "seeds": [], "settings": {"a": {}}}, "seeds: "),
        ({**TARGET, "seeds": [-1], "settings": {"a": {}}}, "seeds.0: Input should be greater"),
        (
            {**TARGET, "settings": {"a": {}}, "targets": ["train_mlp"]},
            "targets.0: Input should be 'train_baseline', 'train_cnn'",
        ),
        ({**TARGET, "settings": {"a": {}}, "targets": ["visualize_filters"]}, "targets.0: Input should be"),
        ({**HELD_OUT, "grid": {"reg.dropout": []}}, "grid.reg.dropout: List should have at least 1"),
        ({**TARGET, "settings": {"a": {}}, "pruner": {"NoPruner": {}}}, "NoPruner"),
        ({**TARGET, "settings": {"a": {}}, "sampler": {"TPESampler": {"seeed": 1}}}, "seeed"),
        ({**HELD_OUT}, "give one of settings, grid and space"),
        ({**HELD_OUT, "settings": {"a": {}}, "space": DROPOUT}, "give one of settings, grid and space"),
        ({**TARGET, "space": DROPOUT}, "data.validation_size above 0"),
        ({**TARGET, "grid": {"reg.dropout": [0, 0.1]}}, "data.validation_size above 0"),
        ({**HELD_OUT, "grid": {"reg.dropout": [0, 0.1, 7]}}, "reg.dropout is 7"),
        ({**HELD_OUT, "space": DROPOUT, "targets": ["train_cnn", "train_augmented"]}, "one target"),
        ({**HELD_OUT, "space": {"reg.dropout": {"float": {"low": 0.2, "high": 0.1}}}}, "low <= high"),
        ({**HELD_OUT, "space": {"reg.dropout": {"float": {"low": 0, "high": 2}}}}, "reg.dropout is 2.0"),
        ({**HELD_OUT, "space": {"reg.dropout": {"float": {"low": 0}}}}, "high"),
        ({**HELD_OUT, "space": {"reg.dropout": {"real": {"low": 0, "high": 1}}}}, "suggest_real"),
        ({**HELD_OUT, "space": {"aug.crop_pad": {"float": {"low": 0, "high": 2}}}}, "must be a whole number"),
        (
            {**HELD_OUT, "space": {"reg.dropout": {"categorical": {"choices": [0, "a"]}}}},
            "reg.dropout is 'a'",
        ),
        (
            {**HELD_OUT, "space": {"reg.droput": {"float": {"low": 0, "high": 0.2}}}},
            "unknown key 'reg.droput'",
        ),
        ({**HELD_OUT, "space": DROPOUT, "trials": 0}, "trials: "),
        ("targets: [", "while parsing"),
        ("7", "dictionary"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(read: Any, content: Any, said: str) -> None:
    with pytest.raises(UserError) as refused:
        read(content)
    message = str(refused.value)
    assert "search.yaml" in message
    assert said in message
    assert "\n" not in message


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.yaml: FileNotFoundError"):
        load(tmp_path / "none.yaml")


def test_every_training_may_be_a_target() -> None:
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    assert [*get_args(Training)] == [stage for stage in stages if stage.startswith("train_")]


def test_every_setting_has_a_trial_for_each_seed(read: Any) -> None:
    search = read({**TARGET, "seeds": [3, 5], "settings": {"all": {}, "none": {"reg.one_cycle_peak": None}}})
    assert search.plan() == {
        "all-s3": ("all", {}, [3]),
        "all-s5": ("all", {}, [5]),
        "none-s3": ("none", {"reg.one_cycle_peak": None}, [3]),
        "none-s5": ("none", {"reg.one_cycle_peak": None}, [5]),
    }


def test_a_grid_is_all_combinations(read: Any) -> None:
    search = read({**HELD_OUT, "grid": {"reg.dropout": [0, 0.1], "cnn.padding": ["valid", "same"]}})
    changes = [changes for _, changes, _ in search.plan().values()]
    assert changes == [{"reg.dropout": d, "cnn.padding": p} for d in (0, 0.1) for p in ("valid", "same")]


def test_a_space_is_sampled_within_its_ranges(read: Any) -> None:
    space = {
        "reg.dropout": {"float": {"low": 0.05, "high": 0.2}},
        "aug.crop_pad": {"int": {"low": 1, "high": 3}},
        "reg.one_cycle_peak": {"categorical": {"choices": [None, 0.01]}},
    }
    search = read({**HELD_OUT, "space": space, "trials": 7, "sampler": {"RandomSampler": {"seed": 0}}})
    assert list(search.plan()) == [f"{number:04}" for number in range(7)]
    study = optuna.create_study()
    search.prepare(study)
    assert isinstance(study.sampler, optuna.samplers.RandomSampler)
    for _ in range(30):
        changes = search.suggest(study.ask())
        assert 0.05 <= changes["reg.dropout"] <= 0.2
        assert changes["aug.crop_pad"] in (1, 2, 3)
        assert changes["reg.one_cycle_peak"] in (None, 0.01)
