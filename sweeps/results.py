"""The results in ``sweeps/results``: each seed's, their means and deviations, as data frames and Markdown."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

RESULTS = Path("sweeps/results")


def load(path: Path) -> dict[str, Any]:
    """The results of one sweep."""
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def frame(content: dict[str, Any]) -> pd.DataFrame:
    """A row for each setting, model and seed: ``number``, ``setting``, ``model``, ``seed``, then the metrics.

    ``history`` is the accuracy that the sweep compares, after each epoch; results before 2026-11-26 lack it.
    ``number`` is the setting's place in the results. Settings without names are told by what they change.
    """
    rows = []
    for number, (name, entry) in enumerate(content["settings"].items()):
        setting = name.replace("_", " ") if named(content) else changed(entry["changes"])
        for seed, result in entry["seeds"].items():
            for stage in (key for key in result if key != "experiment"):
                model = stage.removeprefix("train_")
                place = {"number": number, "setting": setting, "model": model, "seed": int(seed)}
                rows.append(place | result[stage])
    return pd.DataFrame(rows)


def named(content: Mapping[str, Any]) -> bool:
    """Whether the settings of the results have names. They had where the test set was looked at."""
    return bool(content.get("named", content["metric"] == "test_accuracy"))


def changed(changes: Mapping[str, Any]) -> str:
    """What a setting changes, in a line."""
    return ", ".join(f"{key} {_short(value)}" for key, value in changes.items())


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else json.dumps(value)


def summary(content: dict[str, Any]) -> pd.DataFrame:
    """A row for each setting and model, in the order of the results; those without names the best first.

    ``number`` is the setting's place in the results.
    ``mean`` is that of the accuracy that the sweep compares, over the seeds, ``deviation`` their sample
    standard deviation, NaN for one seed. ``difference`` is to the model's first row, NaN where there is none;
    ``train`` is the mean train accuracy, ``gap`` what it has above ``mean``.
    """
    seeds = frame(content).groupby(["number", "setting", "model"], sort=False)
    rows: pd.DataFrame = (
        seeds[content["metric"]].agg(mean="mean", deviation="std", seeds="count").reset_index()
    )
    rows["train"] = seeds["train_accuracy"].mean().array
    if not named(content):
        rows = rows.sort_values("mean", ascending=False, kind="stable", ignore_index=True)
    difference = rows["mean"] - rows.groupby("model")["mean"].transform("first")
    rows["difference"] = difference.mask(difference == 0)
    rows["gap"] = rows["train"] - rows["mean"]
    return rows[["number", "model", "setting", "mean", "deviation", "difference", "train", "gap", "seeds"]]


def curves(content: dict[str, Any]) -> pd.DataFrame:
    """The accuracy that the sweep compares after each epoch, the mean over the seeds.

    The columns are those of `summary`'s rows, by ``number`` and ``model``; none where there is no history.
    """
    rows = frame(content)
    if "history" not in rows:
        return pd.DataFrame()
    epochs = rows.explode("history").assign(epoch=lambda r: r.groupby(level=0).cumcount() + 1)
    return epochs.pivot_table("history", "epoch", ["number", "model"], "mean")


def gains(content: dict[str, Any], pairs: Sequence[tuple[str, str]]) -> str:
    """Per class, how many points the second model of each of ``pairs`` has above the first one.

    As a Markdown table: the mean over the seeds, and from the least to the most of any seed. Of the first
    setting; the class that gains most by the last pair stands last.
    """
    rows = frame(content).query("number == 0")
    each = pd.DataFrame(list(rows["classes"]), index=pd.MultiIndex.from_frame(rows[["model", "seed"]])) * 100
    cells = pd.DataFrame(index=each.columns.rename("class"))
    for before, after in pairs:
        differences = (each.loc[after] - each.loc[before]).agg(["mean", "min", "max"]).T
        cells[f"{before} to {after}"] = [
            f"{mean:+.1f} ({least:+.1f} to {most:+.1f})" for mean, least, most in differences.to_numpy()
        ]
    order = differences["mean"].sort_values(kind="stable").index
    return cells.loc[order].to_markdown(colalign=("left", *["right"] * len(pairs)), disable_numparse=True)


def table(content: dict[str, Any]) -> str:
    """The `summary` as a Markdown table, and below it what has no result, and why."""
    rows = (
        summary(content)
        .drop(columns="number")
        .rename(columns={"mean": content["metric"], "train": "train_accuracy"})
    )
    rows.columns = rows.columns.str.replace("_", " ")
    formats, align = ("", "", ".4f", ".4f", "+.4f", ".4f", "+.4f"), ("left", "left", *["right"] * 6)
    cells = rows.astype(object).where(rows.notna(), None).set_index("model")
    parts = [cells.to_markdown(floatfmt=formats, missingval="", colalign=align, disable_numparse=[0, 1])]
    if pruned := content.get("pruned"):
        metric = content["metric"]
        lines = [f"{changed(e['changes'])} (epoch {e['epoch']}, {e[metric]:.4f})" for e in pruned.values()]
        parts.append(f"Given up by the pruner ({metric.replace('_', ' ')} so far): {'; '.join(lines)}.")
    if failed := content.get("failed"):
        lines = [
            f"{name if named(content) else changed(entry['changes'])} ({entry['why']})"
            for name, entry in failed.items()
        ]
        parts.append(f"Failed: {'; '.join(lines)}.")
    return "\n\n".join(parts)
