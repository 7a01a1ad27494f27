import csv
import hashlib
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from stages.augmentation.transforms import augmentation
from stages.common.dataset import Data, Split
from stages.networks.images import Images
from stages.networks.models import CNN, load_model
from stages.training import run
from stages.training.optimization import Recipe
from stages.training.run import train_and_write
from stages.training.trainer import Trainer
from tests.tiny import CPU, tiny_data, tiny_train


@pytest.fixture
def data() -> Data:
    return tiny_data(validation=20)


@pytest.fixture
def metrics(workplace: Path, data: Data) -> dict[str, Any]:
    """The metrics of a finished training whose averaged weights are far from the last ones."""
    model = CNN([[4], [6]], batch_norm=True, dropout=0.3)
    recipe = Recipe(label_smoothing=0.1, averaging=0.5)
    trainer = Trainer(model, data, tiny_train(epochs=3), CPU, augmentation(2, 0.5), recipe)
    train_and_write("cnn", trainer)
    result: dict[str, Any] = json.loads(Path("metrics/cnn.json").read_text())
    return result


def logits(data: Data, split: Split) -> Tensor:
    """What the model in the file says of each image of ``split``, one at a time and not augmented."""
    model = load_model(Path("models/cnn.safetensors"))
    images = Images(split, data)
    with torch.inference_mode():
        return torch.cat([model(images[[index]][0]) for index in range(len(split))])


def test_the_metrics_are_those_of_the_model_in_the_file(metrics: dict[str, Any], data: Data) -> None:
    assert data.validation is not None
    for name, split in (("train", data.train), ("validation", data.validation), ("test", data.test)):
        outputs = logits(data, split)
        hits = (outputs.argmax(dim=1) == split.labels).double().mean().item()
        assert metrics[f"{name}_accuracy"] == pytest.approx(hits, abs=1e-6)
        if name != "train":
            loss = cross_entropy(outputs, split.labels).item()
            assert metrics[f"{name}_loss"] == pytest.approx(loss, abs=1e-4)


def test_the_metrics_are_those_of_the_last_epoch(metrics: dict[str, Any]) -> None:
    history = metrics["history"]
    assert [figures["epoch"] for figures in history] == [1, 2, 3]
    of_an_epoch = {"train_loss", "test_loss", "test_accuracy", "validation_loss", "validation_accuracy"}
    assert history[-1].keys() == {"epoch"} | of_an_epoch
    assert metrics.keys() == of_an_epoch | {"train_accuracy", "history"}
    assert {name: metrics[name] for name in of_an_epoch} == {name: history[-1][name] for name in of_an_epoch}


@pytest.mark.usefixtures("workplace")
def test_the_metrics_grow_with_every_epoch_and_are_final_at_the_end(data: Data) -> None:
    def fresh() -> Trainer:
        torch.manual_seed(0)
        return Trainer(CNN([[4], [6]]), data, tiny_train(epochs=3), CPU)

    trainer, resumed = fresh(), fresh()
    seen: list[dict[str, Any]] = []

    def epoch(after_step: Callable[[], Any]) -> None:
        path = Path("metrics/cnn.json")
        seen.append(json.loads(path.read_text()) if path.exists() else {})
        if len(seen) == 3:
            raise KeyboardInterrupt
        Trainer.epoch(trainer, after_step)

    with patch.object(trainer, "epoch", epoch), pytest.raises(KeyboardInterrupt):
        train_and_write("cnn", trainer)
    assert [len(metrics.get("history", [])) for metrics in seen] == [0, 1, 2]
    stopped = json.loads(Path("metrics/cnn.json").read_text())
    assert stopped == seen[-1]  # what it has stays
    assert "train_accuracy" not in stopped
    Path("metrics/cnn.json").unlink()  # as DVC does before it starts a stage
    with patch.object(resumed, "epoch", side_effect=KeyboardInterrupt), pytest.raises(KeyboardInterrupt):
        train_and_write("cnn", resumed)
    assert json.loads(Path("metrics/cnn.json").read_text()) == stopped
    train_and_write("cnn", resumed)
    final = json.loads(Path("metrics/cnn.json").read_text())
    assert final["history"][:2] == stopped["history"]
    assert "train_accuracy" in final
    # one that waited for this takes it, while DVC records these final metrics
    with patch.object(run, "write_metrics", side_effect=AssertionError("not final")):
        train_and_write("cnn", fresh())
    assert json.loads(Path("metrics/cnn.json").read_text()) == final


@pytest.mark.usefixtures("metrics")
def test_the_predictions_are_those_of_the_model_in_the_file(data: Data) -> None:
    predictions = json.loads(Path("metrics/predictions/cnn.json").read_text())
    confidences, predicted = logits(data, data.test).double().softmax(dim=1).max(dim=1)
    assert predictions["actual"] == [data.classes[label] for label in data.test.labels]
    assert predictions["predicted"] == [data.classes[label] for label in predicted]
    assert predictions["confidence"] == pytest.approx(confidences.tolist(), abs=1e-4)

    with open("plots/cnn/confusion.csv", newline="") as file:
        rows = [(row["actual"], row["predicted"], int(row["images"])) for row in csv.DictReader(file)]
    pairs = list(zip(predictions["actual"], predictions["predicted"], strict=True))
    assert rows == [(a, p, pairs.count((a, p))) for a, p in itertools.product(data.classes, repeat=2)]


@pytest.mark.usefixtures("metrics")
def test_what_varies_from_run_to_run_stands_in_the_record() -> None:
    record = json.loads(Path("runs/cnn.json").read_text())
    model = Path("models/cnn.safetensors").read_bytes()
    assert record["model_sha256"] == hashlib.sha256(model).hexdigest()
    assert record["precision"] == "fp32"
    assert record["device"] == "cpu"
    assert record["threads"] == torch.get_num_threads()
    assert torch.__version__.startswith(record["torch"])
    for number, epoch in enumerate(record["epochs"], start=1):
        assert epoch.keys() == {"epoch", "seconds", "evaluation_seconds", "images_per_second"}
        assert epoch["epoch"] == number
        assert 0 < epoch["evaluation_seconds"] < epoch["seconds"]
        images_per_second = 6 * 16 / (epoch["seconds"] - epoch["evaluation_seconds"])
        assert epoch["images_per_second"] == pytest.approx(images_per_second)
