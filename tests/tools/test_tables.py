"""The tables against figures worked by hand, and against the text of params.yaml."""

import json
from pathlib import Path

import pandas as pd
import yaml

from stages.params import Params, load_all
from tests.tools.support import FILTERS, cells, result
from tools.tables import evidence_table, filter_table, parameter_table, results_table


def test_the_results_are_rounded_and_the_gap_is_their_difference() -> None:
    metrics = {"cnn": result(0.5), "baseline": result(0.78125)}
    sizes = {"baseline": 1842186, "cnn": 578}
    table = cells(results_table(metrics, sizes))
    assert table[0] == ["", "cnn", "baseline"]  # in the order of the metrics, not of the alphabet
    assert [cell.endswith(":") for cell in table[1]] == [False, True, True]
    assert table[2:] == [
        ["test accuracy", "0.5000", "0.7812"],
        ["test loss", "1.2500", "1.2500"],
        ["train accuracy", "0.7500", "0.7500"],
        ["gap", "+0.2500", "-0.0312"],
        ["parameters", "578", "1,842,186"],
    ]
    seeds = pd.DataFrame({"model": ["cnn"] * 3, "seed": [0, 1, 2], "test_accuracy": [0.5, 0.51, 0.55]})
    headed = cells(results_table(metrics, sizes, seeds))
    # a model that a user has added has no seeds; the deviation is the sample's, sqrt(0.0014 / 2)
    assert headed[2] == ["test accuracy, mean ± deviation of 3 seeds", "**0.5200** ± 0.0265", ""]
    assert headed[3] == ["the committed run: test accuracy", "0.5000", "0.7812"]
    assert headed[-1] == table[-1]


def test_the_layers_show_how_many_channels_are_active_and_dead() -> None:
    assert cells(filter_table(FILTERS))[2:] == [
        ["conv1", "3", "3 x 3", "2.9", "0% to 90%", "20%", "4.2", "1"]
    ]


def test_the_evidence_is_compared_with_both_random_fifths() -> None:
    table = cells(evidence_table(FILTERS))
    assert table[0][1] == "mean drop of the logit, 500 images"
    assert [row[1:] for row in table[2:]] == [["3.46", ""], ["1.20", "87.7%"], ["0.70", "90.0%"]]


def test_the_parameters_are_those_of_the_file() -> None:
    content = yaml.safe_load(Path("params.yaml").read_text())
    shown = {row[0]: row[1].strip("`") for row in cells(parameter_table(load_all()))[2:]}
    values = {f"`{section}.{key}`": value for section, keys in content.items() for key, value in keys.items()}
    assert shown.keys() == values.keys()
    for key, value in values.items():
        assert (shown[key] if isinstance(value, str) else json.loads(shown[key])) == value


def test_every_parameter_says_what_it_does_and_what_it_may_be() -> None:
    wordless = [
        f"{section}.{key}"
        for section, schema in Params.model_fields.items()
        for key, field in schema.annotation.model_fields.items()  # type: ignore[union-attr]
        if not (field.title and field.description)
    ]
    assert not wordless, f"without title or description in the schema of their section: {wordless}"
