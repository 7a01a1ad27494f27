"""The data set as one file without pickle."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from stages.common.errors import UserError
from stages.common.files import reading, write_bytes
from stages.common.record import require_room

DATASET = Path("data/dataset.safetensors")


@dataclass(frozen=True)
class Split:
    """Images (N, 32, 32, 3) uint8, red, green and blue last, and labels (N,) int64."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Data:
    """The splits, the class names, and the training images' mean and deviation per channel.

    ``mean`` and ``std`` are (3,) float32 in units of the full scale (black 0, white 1).
    """

    train: Split
    validation: Split | None
    test: Split
    mean: Tensor
    std: Tensor
    classes: tuple[str, ...]


def balanced_order(labels: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Indices of ``labels`` (N,) in random order; in every stretch class counts differ by at most one.

    As long as the rarest class allows.
    """
    # the classes take turns
    classes = generator.permutation(np.unique(labels))
    turns = [generator.permutation(np.flatnonzero(labels == label)) for label in classes]
    turns.sort(key=len, reverse=True)  # so that the last, incomplete round is a stretch too
    rarest = len(turns[-1])
    longest = len(turns) * rarest + sum(len(items) > rarest for items in turns)
    rounds = np.concatenate([np.arange(len(items)) for items in turns])
    return np.concatenate(turns)[np.argsort(rounds, kind="stable")][:longest]


def channel_statistics(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation, (3,) float64 of full scale, of ``images`` (N, H, W, 3) uint8.

    From the histogram of the 256 levels, so that they are exact and need no float copy.
    """
    levels = np.arange(256) / 255
    counts = np.stack([np.bincount(images[..., c].ravel(), minlength=256) for c in range(3)])
    share = counts / counts.sum(axis=1, keepdims=True)
    mean = share @ levels
    return mean, np.sqrt((share * (levels - mean[:, None]) ** 2).sum(axis=1))


def save_data(data: Data, path: Path = DATASET) -> None:
    """Write ``data`` as one safetensors file."""
    tensors = {"mean": data.mean, "std": data.std}
    for name in ("train", "validation", "test"):
        split = getattr(data, name)
        if split is not None:
            tensors |= {f"{name}_images": split.images, f"{name}_labels": split.labels}
    require_room(path, sum(tensor.nbytes for tensor in tensors.values()))
    write_bytes(path, save(tensors, {"classes": ",".join(data.classes)}))


def load_data(path: Path = DATASET) -> Data:
    """Read what `save_data` wrote.

    Raises:
        UserError: the file is missing or damaged.
    """
    try:
        with reading(path), safe_open(path, framework="pt") as file:
            # copies: what is mapped would follow later changes of the file
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
            classes = tuple(file.metadata()["classes"].split(","))
        splits = {
            name: Split(tensors[f"{name}_images"], tensors[f"{name}_labels"])
            if f"{name}_images" in tensors or name != "validation"
            else None
            for name in ("train", "validation", "test")
        }
        return Data(**splits, mean=tensors["mean"], std=tensors["std"], classes=classes)  # type: ignore[arg-type]
    except FileNotFoundError:
        raise UserError(f"{path} is missing: make it with 'dvc repro download'") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error}") from None
    except (SafetensorError, KeyError, TypeError) as error:
        raise UserError(
            f"{path} is no data set of this project ({error}): delete it, then 'dvc repro download'"
        ) from None
