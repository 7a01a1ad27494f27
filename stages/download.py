"""Get the images, and write them as one file."""

import os
import sys
from pathlib import Path

import numpy as np
import torch

from stages.study import archive, synthetic
from stages.study.dataset import Data, Split, balanced_subset, channel_statistics, save_data
from stages.study.errors import run
from stages.study.figures import samples
from stages.study.files import write_json
from stages.study.params import load


def main() -> None:
    data = load().data
    if data.source == "synthetic":
        splits, classes = synthetic.generate(data.train_size, data.test_size, data.seed)
        archive_md5 = None
    else:
        path = archive.locate(data.url, data.md5)
        archive_md5 = archive.md5_of(path)
        if archive_md5 != data.md5:
            print(f"{path}: md5 {archive_md5}, not data.md5 {data.md5}", file=sys.stderr)
        splits, classes = archive.read(path, os.environ.get("CIFAR10_ARCHIVE") or data.url)

    generator = np.random.default_rng(data.seed)
    images, labels = splits["train"]
    train = balanced_subset(labels, data.train_size, generator)
    validation = train[balanced_subset(labels[train], data.validation_size, generator)]
    train = np.setdiff1d(train, validation)
    test_images, test_labels = splits["test"]
    test = balanced_subset(test_labels, data.test_size, generator)

    mean, std = channel_statistics(images[train])
    result = Data(
        train=_split(images[train], labels[train]),
        validation=_split(images[validation], labels[validation]) if len(validation) else None,
        test=_split(test_images[test], test_labels[test]),
        mean=torch.tensor(mean, dtype=torch.float32),
        std=torch.tensor(std, dtype=torch.float32),
        classes=classes,
    )
    save_data(result)
    samples(result.train, classes, Path("plots/samples.png"))
    write_json(
        Path("metrics/download.json"),
        {
            "archive_md5": archive_md5,
            "train_per_class": np.bincount(labels[train], minlength=10).tolist(),
            "validation_per_class": np.bincount(labels[validation], minlength=10).tolist(),
            "test_per_class": np.bincount(test_labels[test], minlength=10).tolist(),
            "mean": mean.round(6).tolist(),
            "std": std.round(6).tolist(),
        },
    )


def _split(images: np.ndarray, labels: np.ndarray) -> Split:
    return Split(torch.from_numpy(np.ascontiguousarray(images)), torch.from_numpy(labels))


if __name__ == "__main__":
    run(main)
