"""Get the images, and write them as one file."""

import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import torch

from stages.common.dataset import Data, Split, balanced_order, channel_statistics, save_data
from stages.common.errors import UserError
from stages.common.files import reading, write_json
from stages.common.params import load
from stages.common.stage import run
from stages.data import archive, params, synthetic
from stages.data.samples import draw_samples


def main() -> None:
    # all sections, so that a wrong one is told before the first training. Not by a statement that imports:
    # what this stage writes does not depend on how another room checks its section
    import_module("stages.params").load_all()
    data = load(params.Data)
    if data.source == "synthetic":
        splits, classes = synthetic.generate(data.train_size, data.test_size, data.seed)
        archive_md5, source = None, "synthetic"
    else:
        path, source = archive.locate(data.url, data.md5)
        with reading(path) as archive_md5:
            if archive_md5 != data.md5:
                print(f"{source}: md5 {archive_md5}, not data.md5 {data.md5}", file=sys.stderr)
            splits, classes = archive.read(path, source)

    generator = np.random.default_rng(data.seed)
    images, labels = splits["train"]
    order = _chosen(labels, generator, "data.train_size", data.train_size, source)
    kept = data.train_size - data.validation_size
    train, validation = np.sort(order[:kept]), np.sort(order[kept:])
    test_images, test_labels = splits["test"]
    test = np.sort(_chosen(test_labels, generator, "data.test_size", data.test_size, source))

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
    draw_samples(result.train, classes, Path("plots/samples.png"))
    write_json(
        Path("metrics/download.json"),
        {
            # in a list, since DVC makes a column of every number and text that is not in one
            "archive_md5": [archive_md5],
            "train_per_class": np.bincount(labels[train], minlength=10).tolist(),
            "validation_per_class": np.bincount(labels[validation], minlength=10).tolist(),
            "test_per_class": np.bincount(test_labels[test], minlength=10).tolist(),
            "mean": mean.round(6).tolist(),
            "std": std.round(6).tolist(),
        },
    )


def _chosen(
    labels: np.ndarray, generator: np.random.Generator, key: str, size: int, source: str
) -> np.ndarray:
    """Indices of ``size`` random items with equal shares of the classes.

    Raises:
        UserError: some class of ``source`` has too few items for ``size``, the value of ``key``.
    """
    order = balanced_order(labels, generator)
    if size > len(order):
        raise UserError(
            f"{source}: {key} is {size}, but must be at most {len(order)}: "
            f"the rarest class has {np.bincount(labels).min()} images"
        )
    return order[:size]


def _split(images: np.ndarray, labels: np.ndarray) -> Split:
    return Split(torch.from_numpy(np.ascontiguousarray(images)), torch.from_numpy(labels))


if __name__ == "__main__":
    run(main)
