"""Results of a run that never was, for the tests of the tools."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from stages.common.dataset import DATASET, save_data
from tests.tiny import tiny_data

FILTERS: dict[str, Any] = {
    "examined": [{"model": "cnn", "image": 3, "label": "cat", "prediction": "dog", "evidence_images": 500}],
    "evidence": {
        "drop_top_fifth": 3.456,
        "drop_moved_fifth": 1.2,
        "drop_scattered_fifth": 0.7,
        "share_top_above_moved": 0.87654,
        "share_top_above_scattered": 0.9,
    },
    "layers": [
        {
            "layer": "conv1",
            "receptive_field": 3,
            "effective_width": 2.94,
            "dead": 1,
            "active": [0.0, 0.2, 0.9],
            "maximum": [0.0, 4.25, 3.0],
        }
    ],
}


SECTIONS = ("results", "classes", "pairs", "changes", "calibration", "evidence", "filters")


def result(accuracy: float, epochs: int = 2) -> dict[str, Any]:
    """The metrics of a model whose test accuracy grows linearly to ``accuracy``."""
    history = [
        {
            "epoch": epoch,
            "train_loss": 2 / epoch,
            "test_loss": 1.25,
            "test_accuracy": accuracy * epoch / epochs,
        }
        for epoch in range(1, epochs + 1)
    ]
    return {"test_accuracy": accuracy, "test_loss": 1.25, "train_accuracy": 0.75, "history": history}


def predictions(accuracy: float) -> dict[str, list[Any]]:
    """Answers to ten cats and ten dogs, of which ``accuracy`` are right; the model is a little too sure."""
    actual, other = ["cat", "dog"] * 10, ["dog", "cat"] * 10
    right = round(20 * accuracy)
    return {
        "actual": actual,
        "predicted": actual[:right] + other[right:],
        "confidence": [min(1, accuracy + 0.1)] * 20,
    }


def write_results(folder: Path, models: Iterable[str]) -> None:
    """Write metrics of ``models`` into ``folder``, the test accuracies 0.5, 0.6, ..., and pages to fill."""
    pages = {
        "README.md": "above\n<!-- results -->\nold\n<!-- /results -->\nbelow\n",
        "docs/findings.md": "".join(f"<!-- {name} --><!-- /{name} -->\n" for name in SECTIONS),
        "docs/parameters.md": "<!-- parameters --><!-- /parameters -->\n",
        "docs/performance.md": "fast",
        "metrics/download.json": json.dumps({"archive_md5": ["0" * 32]}),
        "metrics/filters.json": json.dumps(FILTERS),
    }
    save_data(tiny_data(), folder / DATASET)
    for number, model in enumerate(models):
        pages[f"metrics/{model}.json"] = json.dumps(result(0.5 + number / 10))
        pages[f"metrics/predictions/{model}.json"] = json.dumps(predictions(0.5 + number / 10))
    for name, content in pages.items():
        (folder / name).parent.mkdir(exist_ok=True, parents=True)
        (folder / name).write_text(content)


def cells(table: str) -> list[list[str]]:
    """The cells of a Markdown table, row by row, the line below the head included."""
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
