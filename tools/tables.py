"""The tables in README and docs, as Markdown."""

import json
import statistics
from collections.abc import Mapping
from typing import Any

import pandas as pd

from stages.params import Params


def results_table(
    metrics: Mapping[str, Mapping[str, Any]], sizes: Mapping[str, int], seeds: pd.DataFrame | None = None
) -> str:
    """The models side by side: over the ``seeds``, where they are given, then one run.

    ``metrics`` holds the content of each ``metrics/<model>.json`` of the run, ``sizes`` the number of
    parameters. ``seeds`` has a row for each model and seed, with ``model``, ``seed``, ``test_accuracy``.
    """
    table, run = pd.DataFrame(index=pd.Index(metrics, name="")), ""
    if seeds is not None:
        over = seeds.groupby("model")["test_accuracy"].agg(["mean", "std"])
        shown = over["mean"].map("**{:.4f}**".format) + " ± " + over["std"].map("{:.4f}".format)
        table[f"test accuracy, mean ± deviation of {seeds['seed'].nunique()} seeds"] = shown
        run = "the committed run: "
    results = pd.DataFrame.from_dict(dict(metrics), orient="index")
    figures = results[["test_accuracy", "test_loss", "train_accuracy"]]
    figures = figures.assign(gap=results["train_accuracy"] - results["test_accuracy"])
    for name, form in zip(map(str, figures), ("{:.4f}", "{:.4f}", "{:.4f}", "{:+.4f}"), strict=True):
        table[run + name.replace("_", " ")] = figures[name].map(form.format)
    table["parameters"] = pd.Series(sizes).map("{:,}".format)
    return table.fillna("").T.to_markdown(disable_numparse=True, colalign=("left", *["right"] * len(metrics)))


def filter_table(filters: Mapping[str, Any]) -> str:
    """How the layers answer to the test images; ``filters`` is the content of ``metrics/filters.json``."""
    layers = pd.DataFrame(filters["layers"])
    table = pd.DataFrame(
        {
            "channels": layers["active"].str.len(),
            "field": layers["receptive_field"].map("{0} x {0}".format),
            "effective width": layers["effective_width"],
            "active": layers["active"].map(lambda shares: f"{min(shares):.0%} to {max(shares):.0%}"),
            "median": layers["active"].map(statistics.median).map("{:.0%}".format),
            "largest": layers["maximum"].map(max),
            "dead channels": layers["dead"],
        }
    )
    return str(
        table.set_index(layers["layer"]).to_markdown(
            floatfmt=("", ".0f", "", ".1f", "", "", ".1f", ".0f"), colalign=("left", *["right"] * 7)
        )
    )


def evidence_table(filters: Mapping[str, Any]) -> str:
    """How far the predicted class's logit drops where a fifth of the image is hidden.

    ``filters`` is the content of ``metrics/filters.json``.
    """
    evidence, images = filters["evidence"], filters["examined"][0]["evidence_images"]
    shares = [evidence["share_top_above_moved"], evidence["share_top_above_scattered"]]
    table = pd.DataFrame(
        {
            "hidden": [
                "the fifth that the map ranks highest",
                "a random fifth, of the same shape elsewhere",
                "a random fifth, scattered pixels",
            ],
            f"mean drop of the logit, {images} images": [
                evidence[f"drop_{part}_fifth"] for part in ("top", "moved", "scattered")
            ],
            "where the map's is larger": ["", *map("{:.1%}".format, shares)],
        }
    )
    return table.to_markdown(index=False, floatfmt=".2f", colalign=("left", "right", "right"))


def parameter_table(params: Params) -> str:
    """Every key with its value in ``params``, what is allowed and what it does."""
    rows = []
    for section, values in params:
        for name, field in type(values).model_fields.items():
            value = getattr(values, name)
            shown = value if isinstance(value, str) else json.dumps(value)
            rows.append((f"`{section}.{name}`", f"`{shown}`", field.description, field.title))
    table = pd.DataFrame(rows, columns=["key", "default", "allowed", "what it does"])
    return table.to_markdown(index=False, disable_numparse=True)
