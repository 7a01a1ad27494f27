"""Generate what README and docs show of the results and of the parameters."""

import argparse
import hashlib
import io
import json
import math
import statistics
import sys
from pathlib import Path
from typing import Any, NamedTuple

import vl_convert
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from tabulate import tabulate

from stages.common.errors import UserError, run
from stages.common.files import write_bytes
from stages.common.params import Params, load
from tools.charts import VEGA_LITE

README = Path("README.md")
FINDINGS = Path("docs/findings.md")
PERFORMANCE = Path("docs/performance.md")
METRICS = Path("metrics")
STUDIES = Path("sweeps/results")
TEMPLATE = Path(".dvc/plots/accuracy.json")
CHART = Path("docs/accuracy.png")
MODELS = ("baseline", "cnn", "augmented", "regularized")

MEANING = {
    "data.source": "the images: CIFAR-10, or drawn by code, which needs no network",
    "data.url": "where the binary archive comes from; the environment variable `CIFAR10_ARCHIVE` replaces it",
    "data.md5": "the archive's MD5",
    "data.train_size": "training images; fewer are a subset with equal shares of the classes",
    "data.validation_size": "images taken out of the training images for choosing parameters",
    "data.test_size": "test images, chosen likewise",
    "data.seed": "chooses subsets, draws the synthetic images",
    "train.epochs": "passes over the training images",
    "train.batch_size": "images per step",
    "train.learning_rate": "Adam's step size",
    "train.betas": "Adam's two decay rates",
    "train.seed": "weights, order of the images, augmentation, dropout",
    "train.device": "`auto` takes CUDA where there is one",
    "train.precision": "`auto` takes bf16 where the device computes it fast",
    "baseline.hidden": "widths of the MLP's hidden layers",
    "cnn.blocks": "channels of the convolutions; 2x2 max pooling after each block",
    "cnn.kernel_size": "width of the convolutions' kernels in pixels",
    "cnn.padding": "of the convolutions: none, or such that the size stays",
    "cnn.relu_logits": "a ReLU on the logits too, as the sheet's words can be read (findings: what it costs)",
    "aug.crop_pad": "random crop after padding by this many pixels; 0: off",
    "aug.flip": "probability of a horizontal flip; 0: off",
    "aug.brightness": "largest relative change of brightness; 0: off",
    "reg.batch_norm": "batch normalization after each convolution",
    "reg.dropout": "share of the activations that dropout sets to zero; 0: off",
    "reg.weight_decay": "decoupled weight decay (AdamW); 0: off",
    "reg.label_smoothing": "share of the target spread evenly over the classes; 0: off",
    "reg.one_cycle_peak": "peak of a one-cycle learning rate schedule; null: constant `train.learning_rate`",
    "reg.averaging": "length of the weights' moving average as a share of the run; 0: off",
    "viz.model": "whose filter responses are drawn",
    "viz.image": "index of the test image; null: drawn with the seed",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--check", action="store_true", help="write nothing; status 1 where something is stale"
    )
    check = parser.parse_args().check
    metrics = read_metrics(METRICS)
    results = f"{results_table(metrics)}\n\n{archive_note()}".rstrip()
    filters = read_json(METRICS / "filters.json")
    parts = {
        README: {"results": results, "parameters": parameter_table(load())},
        FINDINGS: {
            "results": results,
            "evidence": evidence_table(filters),
            "filters": filter_table(filters),
        },
        PERFORMANCE: {},
    }
    pages = {page: page.read_text(encoding="utf-8") for page in parts}
    for path in sorted(STUDIES.glob("*.json")):  # a page shows those that it has a place for
        for page, text in pages.items():
            if f"<!-- study {path.stem} -->" in text:
                parts[page][f"study {path.stem}"] = study_table(read_json(path))
    filled = {page: filled_in(pages[page], contents, page) for page, contents in parts.items()}
    chart = chart_specification(metrics)
    stale = [page for page in pages if filled[page] != pages[page]]
    stale += [CHART] if drawn_from(CHART) != digest(chart) else []
    if check and stale:
        sys.exit(f"stale: {' and '.join(map(str, stale))}: run 'make readme'")
    for path in stale:
        if path == CHART:
            draw_chart(chart, CHART)
        else:
            write_bytes(path, filled[path].encode())
    print(f"written: {', '.join(map(str, stale))}" if stale else "nothing to write")


def read_metrics(folder: Path) -> dict[str, dict[str, Any]]:
    """The metrics of each model.

    Raises:
        UserError: a model has none.
    """
    return {model: read_json(folder / f"{model}.json") for model in MODELS}


def read_json(path: Path) -> dict[str, Any]:
    """The content of a metrics file.

    Raises:
        UserError: it is missing.
    """
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} is missing: run 'dvc repro' first") from None
    return content


def results_table(metrics: dict[str, dict[str, Any]]) -> str:
    """The models side by side, as a Markdown table."""
    rows = [
        (
            model,
            f"{result['test_accuracy']:.4f}",
            f"{result['test_loss']:.4f}",
            f"{result['train_accuracy']:.4f}",
            f"{result['train_accuracy'] - result['test_accuracy']:+.4f}",
            f"{result['parameters']:,}",
        )
        for model, result in metrics.items()
    ]
    head = ("model", "test accuracy", "test loss", "train accuracy", "gap", "parameters")
    align = ("left", *["right"] * 5)
    return tabulate(rows, head, tablefmt="pipe", colalign=align, disable_numparse=True)


def archive_note() -> str:
    """A sentence where the committed results come from another archive than the official one."""
    used, official = read_json(METRICS / "download.json")["archive_md5"], load().data.md5
    if used == official:
        return ""
    if used is None:
        return "Made from synthetic images, not from CIFAR-10."
    return f"Made from an archive whose md5 is `{used}`, not the official one's, `{official}`."


def parameter_table(params: Params) -> str:
    """Every key of ``params.yaml`` with its value there, what is allowed and what it does."""
    rows = []
    for section, values in params:
        for name, field in type(values).model_fields.items():
            key, default = f"{section}.{name}", getattr(values, name)
            shown = default if isinstance(default, str) else json.dumps(default)
            rows.append((f"`{key}`", f"`{shown}`", field.description, MEANING[key]))
    return tabulate(
        rows, ("key", "default", "allowed", "what it does"), tablefmt="pipe", disable_numparse=True
    )


def filter_table(filters: dict[str, Any]) -> str:
    """What the survey of the test set found, layer by layer, as a Markdown table."""
    rows = [
        (
            layer["layer"],
            len(layer["active"]),
            f"{layer['receptive_field']} x {layer['receptive_field']}",
            f"{layer['effective_field']:.1f}",
            f"{min(layer['active']):.0%} to {max(layer['active']):.0%}",
            f"{statistics.median(layer['active']):.0%}",
            f"{max(layer['maximum']):.1f}",
            layer["dead"],
        )
        for layer in filters["layers"]
    ]
    head = ("layer", "channels", "field", "effective side", "active", "median", "largest", "dead channels")
    align = ("left", *["right"] * 7)
    return tabulate(rows, head, tablefmt="pipe", colalign=align, disable_numparse=True)


def evidence_table(filters: dict[str, Any]) -> str:
    """What hiding a fifth of the image does to the predicted class's logit, as a Markdown table."""
    evidence = filters["evidence"]
    rows = [
        ("the fifth that the map ranks highest", f"{evidence['drop_top_fifth']:.2f}", ""),
        *(
            (
                f"a random fifth, {name}",
                f"{evidence[f'drop_{key}_fifth']:.2f}",
                f"{evidence[f'share_top_above_{key}']:.1%}",
            )
            for key, name in (("moved", "of the same shape elsewhere"), ("scattered", "scattered pixels"))
        ),
    ]
    head = (
        "hidden",
        f"mean drop of the logit, {evidence['images']} images",
        "where the map's is larger",
    )
    return tabulate(rows, head, tablefmt="pipe", colalign=("left", "right", "right"), disable_numparse=True)


class StudyRow(NamedTuple):
    """A model in one setting of a study; ``deviation`` is the seeds' sample standard deviation, or NaN."""

    model: str
    setting: str
    mean: float
    deviation: float
    train: float
    seeds: int


def study_rows(study: dict[str, Any]) -> tuple[str, list[StudyRow]]:
    """Which accuracy a study compares, and its rows.

    A search knows of validation accuracy alone; its settings are named by what they change, the best first.
    """
    rows, metric = [], study["metric"]
    for setting, entry in study["settings"].items():
        seeds = list(entry["seeds"].values())
        for stage in (key for key in seeds[0] if key != "experiment"):
            results, label = [seed[stage] for seed in seeds], setting.replace("_", " ")
            if metric == "validation_accuracy":
                label = ", ".join(f"{key} {_short(value)}" for key, value in entry["changes"].items())
            values = [result[metric] for result in results]
            spread = statistics.stdev(values) if len(values) > 1 else math.nan
            train = statistics.mean(result["train_accuracy"] for result in results)
            model = stage.removeprefix("train_")
            rows.append(StudyRow(model, label, statistics.mean(values), spread, train, len(seeds)))
    if metric == "validation_accuracy":
        rows.sort(key=lambda row: -row.mean)
    return str(metric).replace("_", " "), rows


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else json.dumps(value)


def study_table(study: dict[str, Any]) -> str:
    """The rows of a study as a Markdown table; what a model's first row has, its others are compared with."""
    metric, rows = study_rows(study)
    first = {row.model: row.mean for row in reversed(rows)}
    cells = [
        (
            row.model,
            row.setting,
            f"{row.mean:.4f}",
            f"{row.deviation:.4f}" if row.seeds > 1 else "",
            f"{row.mean - first[row.model]:+.4f}" if row.mean != first[row.model] else "",
            f"{row.train:.4f}",
            f"{row.train - row.mean:+.4f}",
            str(row.seeds),
        )
        for row in rows
    ]
    head = ("model", "setting", metric, "deviation", "difference", "train accuracy", "gap", "seeds")
    align = ("left", "left", *["right"] * 6)
    return tabulate(cells, head, tablefmt="pipe", colalign=align, disable_numparse=True)


def filled_in(text: str, contents: dict[str, str], page: Path) -> str:
    """``text`` of ``page`` with each of ``contents`` between its markers."""
    for name, content in contents.items():
        text = fill(text, name, content, page)
    return text


def fill(text: str, name: str, content: str, page: Path) -> str:
    """``text`` of ``page`` with ``content`` between the markers ``<!-- name -->`` and ``<!-- /name -->``.

    Raises:
        UserError: it does not have these markers once, in this order.
    """
    start, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    before, found_start, rest = text.partition(start)
    _, found_end, after = rest.partition(end)
    if not (found_start and found_end):
        raise UserError(f"{page} has no {start} followed by {end}")
    return f"{before}{start}\n\n{content}\n\n{end}{after}"


def chart_specification(metrics: dict[str, dict[str, Any]]) -> str:
    """The accuracy chart of ``dvc plots show`` as a Vega-Lite specification in JSON."""
    rows = [
        {"rev": "workspace", "filename": f"metrics/{model}.json", "field": "test_accuracy"} | epoch
        for model, result in metrics.items()
        for epoch in result["history"]
    ]
    chart = json.loads(
        TEMPLATE.read_text(encoding="utf-8")
        .replace("<DVC_METRIC_TITLE>", "Test accuracy")
        .replace("<DVC_METRIC_X>", "epoch")
        .replace("<DVC_METRIC_Y>", "test_accuracy")
        .replace('"<DVC_METRIC_DATA>"', json.dumps(rows))
    )
    del chart["encoding"]["strokeDash"]  # there is one revision
    return json.dumps(chart, sort_keys=True)


def draw_chart(specification: str, path: Path) -> None:
    """Write the chart as PNG. It carries its digest, since fonts differ between machines."""
    picture = vl_convert.vegalite_to_png(specification, vl_version=VEGA_LITE, scale=2)
    note = PngInfo()
    note.add_text("specification", digest(specification))
    content = io.BytesIO()
    Image.open(io.BytesIO(picture)).save(content, "PNG", pnginfo=note, optimize=True)
    write_bytes(path, content.getvalue())


def drawn_from(path: Path) -> str | None:
    """The digest of the specification that the picture at ``path`` was drawn from."""
    if not path.exists():
        return None
    with Image.open(path) as picture:
        return picture.info.get("specification")


def digest(specification: str) -> str:
    """SHA-256 of ``specification``, as hexadecimal digits."""
    return hashlib.sha256(specification.encode()).hexdigest()


if __name__ == "__main__":
    run(main)
