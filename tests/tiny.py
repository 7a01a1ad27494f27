"""Small data, parameters and runs for the tests."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from stages.common.dataset import DATASET, Data, Split, channel_statistics, save_data
from stages.training.params import Train
from stages.training.runtime import Runtime
from tests.project import ROOT

CPU = Runtime(torch.device("cpu"), "fp32", "tests")
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def tiny_data(train: int = 104, test: int = 45, validation: int = 0, seed: int = 0) -> Data:
    """Random images, each class with a colour of its own so that there is something to learn."""
    generator = np.random.default_rng(seed)

    def split(count: int) -> Split:
        labels = generator.permutation(np.arange(count) % 10)
        colours = generator.integers(0, 128, (count, 1, 1, 3)) + (labels * 12)[:, None, None, None]
        images = (colours + generator.integers(0, 20, (count, 32, 32, 3))).astype(np.uint8)
        return Split(torch.from_numpy(images), torch.from_numpy(labels))

    parts = {"train": split(train), "test": split(test)}
    mean, std = channel_statistics(parts["train"].images.numpy())
    return Data(
        train=parts["train"],
        validation=split(validation) if validation else None,
        test=parts["test"],
        mean=torch.tensor(mean, dtype=torch.float32),
        std=torch.tensor(std, dtype=torch.float32),
        classes=CLASSES,
    )


def tiny_train(**changes: Any) -> Train:
    """The section ``train``, for few and small batches."""
    section = {
        "epochs": 2,
        "batch_size": 16,
        "learning_rate": 0.01,
        "betas": [0.9, 0.95],
        "seed": 0,
        "device": "cpu",
        "precision": "fp32",
    }
    return Train.model_validate(section | changes)


def tiny_project(folder: Path, data: Data, /, **changes: dict[str, Any]) -> None:
    """What a stage needs in its working directory: the project's parameters, made small, and ``data``."""
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    small: dict[str, dict[str, Any]] = {
        "data": {"train_size": len(data.train), "test_size": len(data.test)},
        "train": tiny_train().model_dump(),
        "baseline": {"hidden": [8]},
        "cnn": {"blocks": [[4, 4], [6]]},
    }
    for section, keys in (*small.items(), *changes.items()):
        params[section] |= keys
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    save_data(data, folder / DATASET)


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """In place of a full disk, which root could fill as well: no file can grow past ``size`` bytes."""
    import resource  # not on Windows

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
