"""The tables of the sweeps' results."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from stages.common.errors import UserError
from sweeps.drawing import MARKS, draw
from sweeps.report import classes
from sweeps.results import RESULTS, curves, frame, gains, load, summary, table
from sweeps.trial import Checkout
from tests.project import ROOT, make_repository
from tests.project import commit as commit_all
from tools.git import output

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


def test_the_metrics_of_a_training_that_has_not_ended_are_no_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "metrics").mkdir()
    path = tmp_path / "metrics/cnn.json"
    unfinished = {"test_accuracy": 0.5, "history": [{"epoch": 1}, {"epoch": 2}]}
    path.write_text(json.dumps(unfinished))
    make_repository(tmp_path)
    monkeypatch.chdir(tmp_path)
    commit = output("rev-parse", "HEAD")
    checkout = Checkout("search", commit, None, tmp_path / "kept")
    ref = f"refs/exps/{commit[:2]}/{commit[2:]}/search-a-s0"
    output("update-ref", ref, commit)
    assert checkout.missing(["search-a-s0", "search-b-s0"]) == ["search-b-s0"]
    with pytest.raises(
        UserError, match=r"^search-a-s0: metrics/cnn.json is of a training that has not ended"
    ):
        checkout.metrics("search-a-s0", "train_cnn")
    path.write_text(json.dumps(unfinished | {"train_accuracy": 0.7}))
    output("commit", "-qam", "ended")
    output("update-ref", ref, "HEAD")
    checkout = Checkout("search", commit, None, tmp_path / "kept")
    assert checkout.missing(["search-a-s0"]) == []
    assert checkout.metrics("search-a-s0", "train_cnn") == unfinished | {"train_accuracy": 0.7}
    with pytest.raises(UserError, match=r"^git show .* failed: .*metrics/baseline\.json"):
        checkout.metrics("search-a-s0", "train_baseline")
    # and with its predictions the accuracy of each class
    assert classes(checkout, "search-a-s0", "train_cnn") == {}
    (tmp_path / "metrics/predictions").mkdir()
    answers = {"actual": ["cat", "dog", "cat", "cat"], "predicted": ["cat", "cat", "dog", "cat"]}
    (tmp_path / "metrics/predictions/cnn.json").write_text(json.dumps(answers))
    commit_all(tmp_path, "predictions")
    output("update-ref", ref, "HEAD")
    checkout = Checkout("search", commit, None, tmp_path / "kept")
    assert checkout.missing(["search-a-s0"]) == []
    assert classes(checkout, "search-a-s0", "train_cnn") == {"classes": {"cat": 0.666667, "dog": 0.0}}


def test_the_curves_are_means_over_the_seeds() -> None:
    assert curves(ABLATION).empty
    content = json.loads(json.dumps(ABLATION))
    for number, histories in enumerate(([[0.5, 0.8], [0.7, 0.82]], [[0.6, 0.85]])):
        seeds = list(content["settings"].values())[number]["seeds"].values()
        for seed, history in zip(seeds, histories, strict=True):
            seed["train_cnn"]["history"] = history
    lines = curves(content)
    assert lines[0, "cnn"].tolist() == pytest.approx([0.6, 0.81])
    assert lines[1, "cnn"].tolist() == [0.6, 0.85]
    left, right = draw(content).axes
    assert [label.get_text() for label in left.get_yticklabels()] == ["cnn, all", "cnn, no dropout"]
    drawn = [np.asarray(line.get_ydata()).tolist() for line in right.lines]
    assert drawn == [lines[0, "cnn"].tolist(), lines[1, "cnn"].tolist()]
    assert [line.get_color() for line in right.lines] == ["C0", "C1"]


def test_what_each_class_gains_over_the_seeds() -> None:
    def seed(cats: float, dogs: float, more: float, most: float) -> dict[str, Any]:
        shares = {"train_cnn": {"cat": cats, "dog": dogs}, "train_augmented": {"cat": more, "dog": most}}
        return {stage: {"test_accuracy": 0.5, "classes": classes} for stage, classes in shares.items()}

    seeds = {"0": seed(0.5, 0.5, 0.7, 0.4), "1": seed(0.5, 0.6, 0.6, 0.65)}
    content = {"metric": "test_accuracy", "settings": {"defaults": {"changes": {}, "seeds": seeds}}}
    head, _, *rows = gains(content, [("cnn", "augmented")]).splitlines()
    assert [cell.strip() for cell in head.strip("|").split("|")] == ["class", "cnn to augmented"]
    assert [[cell.strip() for cell in row.strip("|").split("|")] for row in rows] == [
        ["dog", "-2.5 (-10.0 to +5.0)"],
        ["cat", "+15.0 (+10.0 to +20.0)"],
    ]


def test_named_settings_keep_name_and_place_where_images_are_held_out() -> None:
    content = json.loads(json.dumps(ABLATION).replace("test_accuracy", "validation_accuracy"))
    rows = cells(content | {"named": True})
    assert rows[0][2] == "validation accuracy"
    assert [row[1] for row in rows[2:]] == ["all", "no dropout"]
    assert [row[1] for row in cells(content)[2:]] == ["reg.dropout 0", ""]


def test_what_was_given_up_stands_below_the_table() -> None:
    content = ABLATION | {
        "pruned": {"0003": {"changes": {"reg.dropout": 0.5}, "epoch": 2, "test_accuracy": 0.25}},
        "failed": {"none-s0": {"changes": {}, "why": "the loss is NaN"}},
    }
    lines = table(content).split("\n\n")
    assert lines[0] == table(ABLATION)
    assert lines[1:] == [
        "Given up by the pruner (test accuracy so far): reg.dropout 0.5 (epoch 2, 0.2500).",
        "Failed: none-s0 (the loss is NaN).",
    ]


def test_a_picture_shows_every_trial_at_its_values() -> None:
    """Null, true and 1 are three choices; a pruned trial stands at its last accuracy, a failed one below."""
    space = {
        "reg.one_cycle_peak": {"categorical": {"choices": [None, True, 1]}},
        "reg.dropout": {"float": {"low": 0.001, "high": 0.1, "log": True}},
        "aug.crop_pad": {"int": {"low": 0, "high": 4}},
        "aug.extra": {"categorical": {"choices": ["a", "b"]}},
    }

    def changes(peak: Any, dropout: float, pad: int) -> dict[str, Any]:
        return {"reg.one_cycle_peak": peak, "reg.dropout": dropout, "aug.crop_pad": pad, "aug.extra": "b"}

    done = {"train_cnn": {"validation_accuracy": 0.7, "train_accuracy": 0.9}}
    content = {
        "metric": "validation_accuracy",
        "space": space,
        "settings": {"0001": {"changes": changes(None, 0.01, 1), "seeds": {"0": done}}},
        "pruned": {"0000": {"changes": changes(1, 0.1, 2), "epoch": 3, "validation_accuracy": 0.4}},
        "failed": {"0002": {"changes": changes(True, 0.001, 3), "why": "NaN"}},
    }
    figure = draw(content)
    assert figure.get_supylabel() == "validation accuracy"
    panels = figure.axes
    assert [panel.get_xlabel() for panel in panels] == list(space)
    assert [panel.get_xscale() for panel in panels] == ["linear", "log", "linear", "linear"]
    assert [label.get_text() for label in panels[0].get_xticklabels()] == ["null", "true", "1"]
    expected = ([0, 2, 1], [0.01, 0.1, 0.001], [1, 2, 3], [1, 1, 1])
    for panel, xs in zip(panels, expected, strict=True):
        points = [np.asarray(line.get_xydata()) for line in panel.lines]
        assert np.allclose(np.concatenate(points), np.stack([np.asarray(xs), [0.7, 0.4, 0]], axis=1))
    assert [text.get_text() for text in panels[0].texts] == ["3"]
    assert [text.get_text() for text in figure.legends[0].texts] == list(MARKS)
    one = {key: content[key] for key in ("metric", "settings", "pruned")}
    labels = [label.get_text() for label in draw(one).axes[0].get_yticklabels()]
    assert [label.count("after epoch 3") for label in labels] == [0, 1]
