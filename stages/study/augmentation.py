"""Random crop, horizontal flip and brightness for whole batches at once.

Each equals torchvision's functional transform, image by image, for the same draws: ``pad`` with
``padding_mode="reflect"`` and ``crop``, ``hflip``, ``adjust_brightness`` on float images.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Generator, Tensor
from torch.nn.functional import pad


class Draws(NamedTuple):
    """The random choices for a batch of N images."""

    top: Tensor  # (N,) int64, row of the crop's first pixel in the padded image
    left: Tensor  # (N,) int64
    flip: Tensor  # (N,) bool
    brightness: Tensor | None  # (N,) float32 factors, or None: not changed


@dataclass(frozen=True)
class Augmentation:
    """Which transformations, how strong.

    ``crop_pad``: reflected pixels on each side, out of which a crop of the image's size is taken.
    ``flip``: probability of a horizontal flip. ``brightness``: factors from 1 - b to 1 + b.
    """

    crop_pad: int
    flip: float
    brightness: float

    def pad(self, images: Tensor) -> Tensor:
        """``images`` (N, H, W, C) uint8 with `crop_pad` reflected pixels on each side, contiguous."""
        if self.crop_pad == 0:
            return images.contiguous()
        padded = images.new_empty(
            len(images), *(size + 2 * self.crop_pad for size in images.shape[1:3]), images.shape[3]
        )
        for start in range(0, len(images), 1000):  # padding needs floats: 4 bytes a value
            planes = images[start : start + 1000].permute(0, 3, 1, 2).float()
            planes = pad(planes, [self.crop_pad] * 4, mode="reflect")
            padded[start : start + 1000] = planes.permute(0, 2, 3, 1)
        return padded

    def draw(self, count: int, generator: Generator) -> Draws:
        """Choices for ``count`` images, on the generator's device."""
        device = generator.device
        offsets = torch.randint(2 * self.crop_pad + 1, (2, count), generator=generator, device=device)
        uniform = torch.rand(2, count, generator=generator, device=device)
        brightness = 1 + self.brightness * (2 * uniform[1] - 1) if self.brightness else None
        return Draws(offsets[0], offsets[1], uniform[0] < self.flip, brightness)

    def apply(self, padded: Tensor, indices: Tensor, draws: Draws) -> Tensor:
        """The images ``indices`` (N,) of ``padded``, transformed: (N, H, W, C) float32, 0 to 255."""
        height, width = (size - 2 * self.crop_pad for size in padded.shape[1:3])
        rows = draws.top[:, None] + torch.arange(height, device=padded.device)
        columns = torch.arange(width, device=padded.device)
        columns = torch.where(draws.flip[:, None], width - 1 - columns, columns)
        columns = draws.left[:, None] + columns
        # crop and flip are one gather of pixels: a choice of rows and of columns for every image
        pixels = ((indices * padded.shape[1])[:, None] + rows)[:, :, None] * padded.shape[2]
        pixels = (pixels + columns[:, None, :]).view(-1)
        images = padded.view(-1, padded.shape[3]).index_select(0, pixels).float()
        images = images.view(len(indices), height, width, padded.shape[3])
        if draws.brightness is not None:
            images = images.mul_(draws.brightness[:, None, None, None]).clamp_(max=255)
        return images
