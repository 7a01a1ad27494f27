"""Pictures of the docs: charts, and images about which two models disagree."""

import hashlib
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import vl_convert
from matplotlib.figure import Figure
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from stages.common.dataset import load_data
from stages.common.files import write_bytes
from stages.drawing.figures import save_figure
from tools.charts import TEMPLATES, VEGA_LITE, specification
from tools.classes import Predictions, class_accuracies, reliability, turned

IN_A_ROW = 8  # images that turned
LEAST = 20  # images in a bin of confidence, for its accuracy to be worth a point


def charts(
    metrics: Mapping[str, Mapping[str, Any]], predictions: Predictions, seeds: pd.DataFrame | None
) -> dict[Path, str]:
    """The chart of each picture in Vega-Lite, as JSON.

    ``metrics`` holds the content of each ``metrics/<model>.json``, ``predictions`` that of each
    ``metrics/predictions/<model>.json``; ``seeds`` may have a row for each model and seed, with ``model`` and
    ``history``, the test accuracy after each epoch.
    """
    epochs = [
        {"rev": "workspace", "filename": f"metrics/{model}.json"} | epoch
        for model, result in metrics.items()
        for epoch in result["history"]
    ]
    losses = [
        {key: row[key] for key in ("rev", "filename", "epoch")} | {"field": field, "loss": row[field]}
        for field in ("train_loss", "test_loss")
        for row in epochs
    ]
    return {
        Path(f"docs/{name}.png"): json.dumps(chart, sort_keys=True)
        for name, chart in {
            "accuracy": accuracy_chart(epochs, seeds),
            "losses": specification("losses", losses, "epoch", "loss", "Losses", (360, 300)),
            "classes": classes_chart(predictions),
            "calibration": calibration_chart(predictions),
        }.items()
    }


def accuracy_chart(epochs: Sequence[dict[str, Any]], seeds: pd.DataFrame | None) -> dict[str, Any]:
    """The test accuracy of each model after each of the ``epochs``, and as a band that of all ``seeds``."""
    band: dict[Any, Any] = {}
    if seeds is not None and "history" in seeds:
        each = seeds.dropna(subset="history").explode("history")
        each["epoch"] = each.groupby(level=0).cumcount() + 1
        ends: pd.DataFrame = each.groupby(["model", "epoch"])["history"].agg(["min", "max"])
        ends.columns = pd.Index(["least", "most"])
        band = ends.to_dict("index")
    rows = [row | band.get((Path(row["filename"]).stem, row["epoch"]), {}) for row in epochs]
    chart = specification("accuracy", rows, "epoch", "test_accuracy", "Test accuracy")
    if band:
        y = chart["encoding"]["y"] | {"field": "least"}
        area = {"y": y, "y2": {"field": "most"}, "opacity": {"value": 0.2}}
        chart["layer"].insert(0, {"mark": "area", "encoding": area})
        chart["encoding"]["color"]["legend"] = {"symbolOpacity": 1}
    return chart


def classes_chart(predictions: Predictions) -> dict[str, Any]:
    """The accuracy of each model on each class, a row for each class."""
    accuracies = class_accuracies(predictions)
    rows = accuracies.reset_index().melt("class", var_name="model", value_name="accuracy")
    return {
        "title": "Test accuracy by class",
        "data": {"values": rows.to_dict("records")},
        "width": 560,
        "height": {"step": 26},
        "encoding": {
            "y": {"field": "class", "type": "nominal", "sort": list(accuracies.index), "title": None},
            "x": {
                "field": "accuracy",
                "type": "quantitative",
                "title": "test accuracy",
                "scale": {"zero": False},
                "axis": {"format": ".0%"},
            },
        },
        "layer": [
            {"mark": {"type": "line", "color": "lightgray"}, "encoding": {"detail": {"field": "class"}}},
            {
                "mark": {"type": "point", "filled": True, "opacity": 1, "size": 90},
                "encoding": {"color": _by_model(predictions)},
            },
        ],
    }


def calibration_chart(predictions: Predictions) -> dict[str, Any]:
    """How often each model is right at each confidence; on the diagonal it is as often right as it says."""
    rows = [
        {"model": model} | row
        for model, answers in predictions.items()
        for row in reliability(answers).query("images >= @LEAST").to_dict("records")
    ]
    axes: dict[str, Any] = {
        name: {"field": field, "type": "quantitative", "title": title, "axis": {"format": ".0%"}}
        for name, field, title in (
            ("x", "confidence", "probability of the predicted class"),
            ("y", "accuracy", "share of such predictions that are right"),
        )
    }
    diagonal = [{"confidence": end, "accuracy": end} for end in (0, 1)]
    return {
        "title": "Calibration on the test images",
        "width": 400,
        "height": 400,
        "encoding": axes,
        "layer": [
            {
                "data": {"values": diagonal},
                "mark": {"type": "line", "color": "gray", "strokeDash": [4, 4], "strokeWidth": 1},
            },
            {
                "data": {"values": rows},
                "mark": {"type": "line", "point": True, "strokeWidth": 1.5},
                "encoding": {"color": _by_model(predictions)},
            },
        ],
    }


def _by_model(models: Iterable[str]) -> dict[str, Any]:
    """The colours that the models have in the charts of DVC."""
    template = json.loads((TEMPLATES / "accuracy.json").read_text(encoding="utf-8"))
    colours = template["encoding"]["color"]["scale"]["range"]
    names = list(models)
    return {
        "field": "model",
        "type": "nominal",
        "scale": {"domain": names, "range": colours[: len(names)]},
    }


def disagreements(predictions: Predictions, before: str, after: str) -> str:
    """The test images of `turned`, in two lists, with what both models say of them, as JSON."""
    lists = []
    for indices in turned(predictions, before, after, IN_A_ROW):
        rows = []
        for index in indices:
            said = {
                model: [predictions[model]["predicted"][index], predictions[model]["confidence"][index]]
                for model in (before, after)
            }
            rows.append({"index": index, "actual": predictions[after]["actual"][index], "said": said})
        lists.append(rows)
    return json.dumps(dict(zip(("turned right", "turned wrong"), lists, strict=True)))


def draw_disagreements(content: str, path: Path) -> None:
    """Write the images of `disagreements` as PNG, which carries the digest of ``content``.

    Raises:
        UserError: the data set is missing.
    """
    images = load_data().test.images
    rows = json.loads(content)
    figure = Figure(figsize=(1.5 * IN_A_ROW, 2.35 * len(rows)), layout="constrained")
    for part, (title, found) in zip(
        figure.subfigures(len(rows), squeeze=False)[:, 0], rows.items(), strict=True
    ):
        part.suptitle(title, fontsize=12, x=0.01, ha="left")
        axes = part.subplots(1, IN_A_ROW, squeeze=False)[0]
        for axis in axes:
            axis.set_axis_off()
        for axis, image in zip(axes, found, strict=False):
            axis.imshow(images[image["index"]].numpy())
            lines = [f"{model}: {name} {share:.0%}" for model, (name, share) in image["said"].items()]
            axis.set_title("\n".join([f"{image['actual']} ({image['index']})", *lines]), fontsize=7)
    save_figure(figure, path, metadata={"Software": None, "specification": digest(content)})


def draw(chart: str, path: Path) -> None:
    """Write ``chart`` as PNG. The file carries the chart's digest, since fonts differ between machines."""
    note = PngInfo()
    note.add_text("specification", digest(chart))
    content = io.BytesIO()
    png = vl_convert.vegalite_to_png(chart, vl_version=VEGA_LITE, scale=2)
    Image.open(io.BytesIO(png)).save(content, "PNG", pnginfo=note, optimize=True)
    write_bytes(path, content.getvalue())


def is_drawn_from(chart: str, path: Path) -> bool:
    """Whether the picture at ``path`` was drawn from ``chart``."""
    if not path.exists():
        return False
    with Image.open(path) as picture:
        return picture.info.get("specification") == digest(chart)


def digest(chart: str) -> str:
    """SHA-256 of ``chart``, as hexadecimal digits."""
    return hashlib.sha256(chart.encode()).hexdigest()
