"""Normalized images, a whole batch at a time."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.utils.data import Dataset

from stages.common.dataset import Data, Split

Transform = Callable[[Tensor], Tensor]


class Images(Dataset[tuple[Tensor, Tensor]]):
    """Normalized images of a split, a whole batch at a time, resident on ``device``.

    ``images[i]`` is an image (3, 32, 32) float32 and its label (); with a list or tensor of N
    indices, (N, 3, 32, 32) in channels_last memory and (N,).

    ``transform``, as torchvision's data sets have it, is any callable: it is given the batch (N, 3, 32, 32)
    uint8 of every look-up, and returns one of the same shape and type. What it draws from torch's global
    generator comes from `generator` instead (so no worker processes: each would repeat its draws).
    """

    def __init__(
        self,
        split: Split,
        data: Data,
        device: torch.device | str = "cpu",
        transform: Transform | None = None,
    ) -> None:
        self.labels = split.labels.to(device)
        self.transform = transform
        self.generator = torch.Generator()
        self._images = split.images.to(device)
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
        pixels = self.pixels(indices).permute(0, 2, 3, 1).contiguous()  # as they lie in memory already
        images = torch.addcmul(self._shift, pixels.float(), self._scale)
        return images.permute(0, 3, 1, 2), self.labels[indices]

    def __getitems__(self, indices: list[int]) -> list[tuple[Tensor, Tensor]]:
        """What a ``DataLoader`` calls with the indices of a batch; transforms them at once."""
        return list(zip(*self[indices], strict=True))

    def pixels(self, indices: Tensor) -> Tensor:
        """The images ``indices`` (N,), transformed but not normalized: (N, 3, 32, 32) uint8."""
        images = self._images[indices].permute(0, 3, 1, 2)
        if self.transform is None:
            return images
        with drawing_from(self.generator, images.device):
            return self.transform(images)


@contextmanager
def drawing_from(generator: torch.Generator, device: torch.device) -> Iterator[None]:
    """Let what draws from torch's global generators draw from ``generator``, which is of the CPU.

    Draws on another ``device`` are seeded from it each time. On leaving, the global generators are as before.
    """
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.set_rng_state(generator.get_state())
        if device.type == "cuda":
            torch.cuda.manual_seed(int(torch.randint(2**62, ())))
        yield
        generator.set_state(torch.get_rng_state())
