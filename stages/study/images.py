"""Normalized images, a whole batch at a time."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.utils.data import Dataset

from stages.study.augmentation import Augmentation
from stages.study.dataset import Data, Split


class Images(Dataset[tuple[Tensor, Tensor]]):
    """Normalized images of a split, a whole batch at a time, resident on ``device``.

    ``images[i]`` is an image (3, 32, 32) float32 and its label (); with a list or tensor of N
    indices, (N, 3, 32, 32) in channels_last memory and (N,). With an ``augmentation`` every look-up
    draws new transformations, from ``generator`` (so no worker processes: each would repeat its draws).
    """

    def __init__(
        self,
        split: Split,
        data: Data,
        device: torch.device | str = "cpu",
        augmentation: Augmentation | None = None,
    ) -> None:
        self.labels = split.labels.to(device)
        self.augmentation = augmentation
        self.generator = torch.Generator(device)
        # with an augmentation padded, and only so: the device does not hold the images twice
        self._images = (augmentation.pad(split.images) if augmentation else split.images).to(device)
        # (x / 255 - mean) / std in one pass over the memory, with a factor for every value of an image:
        # a broadcast over only the three colours keeps the processor from using its vector registers
        shape = split.images.shape[1:]
        self._scale = (1 / (255 * data.std)).expand(shape).contiguous().to(device)
        self._shift = (-data.mean / data.std).expand(shape).contiguous().to(device)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int | Sequence[int] | Tensor) -> tuple[Tensor, Tensor]:
        indices = torch.as_tensor(index, device=self.labels.device)
        if indices.dim() == 0:
            images, labels = self[indices[None]]
            return images[0], labels[0]
        if self.augmentation is None:
            images = self._images[indices].float()
        else:
            draws = self.augmentation.draw(len(indices), self.generator)
            images = self.augmentation.apply(self._images, indices, draws)
        images = torch.addcmul(self._shift, images, self._scale)
        return images.permute(0, 3, 1, 2), self.labels[indices]

    def __getitems__(self, indices: list[int]) -> list[tuple[Tensor, Tensor]]:
        """What a ``DataLoader`` calls with the indices of a batch; transforms them at once."""
        return list(zip(*self[indices], strict=True))
