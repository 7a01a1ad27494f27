"""What a training stage leaves behind: the model, its metrics, its predictions."""

from pathlib import Path
from typing import Any

import torch

from stages.common.files import write_csv, write_json
from stages.networks.images import Images
from stages.networks.models import save_model
from stages.training.evaluation import evaluate
from stages.training.trainer import Trainer


def write_metrics(name: str, trainer: Trainer, **more: float) -> None:
    """Write the metrics of the model called ``name`` after the latest epoch, and ``more``.

    They are written after every epoch, so that charts show a training while it runs.
    """
    metrics = {key: value for key, value in trainer.history[-1].items() if key != "epoch"}
    write_json(Path(f"metrics/{name}.json"), _rounded({**metrics, **more, "history": trainer.history}))


def write_results(name: str, trainer: Trainer) -> float:
    """Write the model called ``name``, its predictions and its final metrics; return its test accuracy.

    ``train_accuracy`` is among the final metrics alone: with it no unfinished ones pass for them.
    """
    result, runtime, data = trainer.result, trainer.runtime, trainer.data
    test = evaluate(result, trainer.test, runtime)
    clean = evaluate(result, Images(data.train, data, runtime.device), runtime)

    save_model(result, Path(f"models/{name}.safetensors"))
    classes, labels = data.classes, data.test.labels
    predictions = {
        "actual": [classes[label] for label in labels],
        "predicted": [classes[label] for label in test.predictions],
        "confidence": [round(share, 4) for share in test.confidences.tolist()],
    }
    write_json(Path(f"metrics/predictions/{name}.json"), predictions, indent=None)
    counts = torch.bincount(labels * len(classes) + test.predictions, minlength=len(classes) ** 2)
    pairs = [(actual, predicted) for actual in classes for predicted in classes]
    write_csv(
        Path(f"plots/{name}/confusion.csv"),
        ("actual", "predicted", "images"),
        ((*pair, count) for pair, count in zip(pairs, counts.tolist(), strict=True)),
    )
    write_metrics(name, trainer, train_accuracy=clean.accuracy)
    return test.accuracy


def _rounded(value: Any) -> Any:
    """``value`` with its floats to six decimals: more would only be noise to read."""
    if isinstance(value, float):
        return round(value, 6)
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return value
