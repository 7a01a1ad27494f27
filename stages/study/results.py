"""Train a model, and write everything that a training stage leaves behind."""

import hashlib
import sys
from pathlib import Path
from typing import Any

from stages.study.augmentation import Augmentation
from stages.study.checkpoint import Checkpoint
from stages.study.dataset import Data
from stages.study.files import write_csv, write_json
from stages.study.images import Images
from stages.study.models import CNN, MLP, count_parameters, save_model
from stages.study.params import Train
from stages.study.runtime import Runtime
from stages.study.training import PLAIN, Methods, Trainer, evaluate


def train_and_write(
    name: str,
    model: MLP | CNN,
    data: Data,
    train: Train,
    runtime: Runtime,
    augmentation: Augmentation | None = None,
    methods: Methods = PLAIN,
) -> None:
    """Train ``model`` and write ``models/<name>.safetensors``, its metrics, predictions and run record.

    The metrics are those of the last epoch.

    Raises:
        UserError: the loss became NaN or infinite, or another process trains this very model.
        OSError: a file could not be written; the checkpoint stays, so nothing is trained again.
    """
    trainer = Trainer(model, data, train, runtime, augmentation, methods)
    with Checkpoint.held(name, trainer.key) as checkpoint:
        trainer.run(checkpoint, name)
        result = trainer.result
        test = evaluate(result, trainer.test, runtime)
        clean = evaluate(result, Images(data.train, data, runtime.device), runtime)

        path = Path(f"models/{name}.safetensors")
        save_model(result, path)
        classes = data.classes
        write_csv(
            Path(f"plots/{name}/predictions.csv"),
            ("actual", "predicted"),
            (
                (classes[actual], classes[predicted])
                for actual, predicted in zip(
                    data.test.labels.tolist(), test.predictions.tolist(), strict=True
                )
            ),
        )
        metrics: dict[str, Any] = {key: value for key, value in trainer.history[-1].items() if key != "epoch"}
        metrics |= {
            "train_accuracy": clean.accuracy,
            "parameters": count_parameters(result),
            "history": trainer.history,
        }
        write_json(Path(f"metrics/{name}.json"), _rounded(metrics))
        trainer.write_record(name, model_sha256=hashlib.sha256(path.read_bytes()).hexdigest())
        checkpoint.delete()
    print(f"{name}: test accuracy {test.accuracy:.4f}", file=sys.stderr)


def _rounded(value: Any) -> Any:
    """``value`` with its floats to six decimals: more would only be noise to read."""
    if isinstance(value, float):
        return round(value, 6)
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return value
