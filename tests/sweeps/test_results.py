"""The tables of the sweeps' results."""

import json
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from dvc.repo.experiments.refs import ExpRefInfo

from stages.common.errors import UserError
from sweeps.results import RESULTS, frame, load, summary, table
from sweeps.trial import Checkout, git
from tests.project import ROOT, make_repository

ABLATION = {
    "metric": "test_accuracy",
    "settings": {
        "all": {
            "changes": {},
            "seeds": {
                "0": {"experiment": "a", "train_cnn": {"test_accuracy": 0.8, "train_accuracy": 0.9}},
                "1": {"experiment": "b", "train_cnn": {"test_accuracy": 0.82, "train_accuracy": 0.94}},
            },
        },
        "no_dropout": {
            "changes": {"reg.dropout": 0},
            "seeds": {"0": {"experiment": "c", "train_cnn": {"test_accuracy": 0.85, "train_accuracy": 1.0}}},
        },
    },
}


def cells(content: dict[str, Any]) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table(content).splitlines()]


def test_the_frame_has_a_row_for_each_setting_model_and_seed() -> None:
    rows = frame(ABLATION)
    assert [*rows.itertuples(index=False, name=None)] == [
        (0, "all", "cnn", 0, 0.8, 0.9),
        (0, "all", "cnn", 1, 0.82, 0.94),
        (1, "no dropout", "cnn", 0, 0.85, 1.0),
    ]


def test_an_ablation_is_shown_as_means_over_its_seeds_in_the_order_of_the_file() -> None:
    assert cells(ABLATION)[2:] == [
        # the deviation of 0.80 and 0.82 with n - 1 is 0.01 sqrt(2)
        ["cnn", "all", "0.8100", "0.0141", "", "0.9200", "+0.1100", "2"],
        ["cnn", "no dropout", "0.8500", "", "+0.0400", "1.0000", "+0.1500", "1"],
    ]
    assert pd.isna(summary(ABLATION)["deviation"][1])


def test_a_search_is_shown_by_what_it_changes_the_best_first() -> None:
    def setting(accuracy: float, peak: float | None) -> dict[str, Any]:
        metrics = {"train_cnn": {"validation_accuracy": accuracy, "train_accuracy": 0.9}}
        return {"changes": {"reg.one_cycle_peak": peak}, "seeds": {"0": {"experiment": "a", **metrics}}}

    # of two values that are equal when shown each has its row
    settings = {"0000": setting(0.7, 0.012341), "0001": setting(0.6, 0.012342), "0002": setting(0.8, None)}
    content = cells({"metric": "validation_accuracy", "settings": settings})
    assert content[0][2] == "validation accuracy"
    assert content[2:] == [
        ["cnn", "reg.one_cycle_peak null", "0.8000", "", "", "0.9000", "+0.1000", "1"],
        ["cnn", "reg.one_cycle_peak 0.0123", "0.7000", "", "-0.1000", "0.9000", "+0.2000", "1"],
        ["cnn", "reg.one_cycle_peak 0.0123", "0.6000", "", "-0.2000", "0.9000", "+0.3000", "1"],
    ]


def test_each_model_is_compared_with_its_own_first_row() -> None:
    def setting(mlp: float, cnn: float) -> dict[str, Any]:
        accuracies = {"train_baseline": mlp, "train_cnn": cnn}
        metrics = {key: {"test_accuracy": value, "train_accuracy": 1} for key, value in accuracies.items()}
        return {"changes": {}, "seeds": {"0": {"experiment": "a", **metrics}}}

    rows = cells({"metric": "test_accuracy", "settings": {"1": setting(0.5, 0.7), "2": setting(0.4, 0.9)}})
    assert [[*row[:3], row[4]] for row in rows[2:]] == [
        ["baseline", "1", "0.5000", ""],
        ["cnn", "1", "0.7000", ""],
        ["baseline", "2", "0.4000", "-0.1000"],
        ["cnn", "2", "0.9000", "+0.2000"],
    ]


@pytest.mark.parametrize("path", sorted((ROOT / RESULTS).glob("*.json")), ids=lambda path: path.stem)
def test_the_docs_show_the_committed_results(path: Path) -> None:
    pages = "".join((ROOT / f"docs/{page}.md").read_text() for page in ("findings", "performance"))
    shown = re.findall(rf"<!-- \w+ {path.stem} -->\n\n(.*?)\n\n<!-- /", pages, re.DOTALL)
    assert shown == [table(load(path))]


def test_the_metrics_of_a_training_that_has_not_ended_are_no_result(tmp_path: Path) -> None:
    (tmp_path / "metrics").mkdir()
    path = tmp_path / "metrics/cnn.json"
    unfinished = {"test_accuracy": 0.5, "history": [{"epoch": 1}, {"epoch": 2}]}
    path.write_text(json.dumps(unfinished))
    make_repository(tmp_path)
    commit = git(tmp_path, "rev-parse", "HEAD")
    checkout = Checkout(tmp_path, commit, None)
    git(tmp_path, "update-ref", str(ExpRefInfo(commit, "fast")), commit)
    with pytest.raises(
        UserError, match=r"^fast: metrics/cnn.json is of a training that has not ended, after"
    ):
        checkout.metrics("fast", "train_cnn")
    path.write_text(json.dumps(unfinished | {"train_accuracy": 0.7}))
    git(tmp_path, "commit", "-qam", "ended")
    git(tmp_path, "update-ref", str(ExpRefInfo(commit, "fast")), "HEAD")
    assert checkout.metrics("fast", "train_cnn") == {"test_accuracy": 0.5, "train_accuracy": 0.7}
