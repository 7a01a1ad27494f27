"""Random crop, flip and brightness in the form of torchvision's transforms, drawn for each image of a batch.

torchvision's own draw once for whatever they are given: they would crop and mirror all images of a
batch alike. Otherwise these are theirs, image by image and bit for bit, and take what theirs take:
images (..., C, H, W), uint8 from 0 to 255 or float from 0 to 1.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torchvision.transforms import v2

from stages.augmentation.extra import EachImage


def augmentation(
    crop_pad: int = 0,
    flip: float = 0.0,
    brightness: float = 0.0,
    extra: Sequence[Mapping[str, Any]] = (),
) -> v2.Compose:
    """The transformations of the section ``aug``, whose keys are the arguments.

    Those of ``extra`` come last, applied image by image. Whatever is switched off (0) still draws its
    random numbers, so that the others' draws do not depend on it.

    Raises:
        ValueError: ``extra`` is not a list of transformations that keep shape and type.
    """
    transforms = [RandomCrop(crop_pad), RandomHorizontalFlip(flip), RandomBrightness(brightness)]
    return v2.Compose([*transforms, *([EachImage(extra)] if extra else [])])


class _EachDrawn(v2.Transform):
    """A transformation whose parameters are tensors (N,), a value for each of N images."""

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draw the parameters, on the CPU with torch's global generator, as torchvision does."""
        shape = flat_inputs[0].shape
        return self.draw(shape[:-3].numel(), *shape[-2:])

    def transform(self, inpt: Tensor, params: dict[str, Any]) -> Tensor:
        """Transform ``inpt`` (..., C, H, W)."""
        images = inpt.reshape(-1, *inpt.shape[-3:])
        return self.apply(images, **{key: value.to(inpt.device) for key, value in params.items()}).view_as(inpt)

    def draw(self, count: int, height: int, width: int) -> dict[str, Tensor]:
        raise NotImplementedError

    def apply(self, images: Tensor, **params: Tensor) -> Tensor:
        raise NotImplementedError


class RandomCrop(_EachDrawn):
    """Pad by ``padding`` reflected pixels on each side, then crop at random to the size before."""

    def __init__(self, padding: int) -> None:
        super().__init__()
        self.padding = padding

    def draw(self, count: int, height: int, width: int) -> dict[str, Tensor]:
        """``top`` and ``left`` (N,) int64: the crop's first pixel in the padded image."""
        if self.padding >= min(height, width):
            raise ValueError(f"{self.padding} reflected pixels need images with more than {self.padding} pixels")
        top, left = torch.randint(2 * self.padding + 1, (2, count))
        return {"top": top, "left": left}

    def apply(self, images: Tensor, top: Tensor, left: Tensor) -> Tensor:  # type: ignore[override]
        """The crops of ``images`` (N, C, H, W): one gather of pixels, without padding anything."""
        if not self.padding:
            return images
        count, channels, height, width = images.shape
        rows, columns = self._pixels(top, height), self._pixels(left, width)
        first = torch.arange(0, count * height * width, height * width, device=images.device)
        places = ((first[:, None] + rows * width)[:, :, None] + columns[:, None, :]).view(-1)
        pixels = images.permute(0, 2, 3, 1).reshape(-1, channels)  # no copy of channels_last images
        return pixels.index_select(0, places).view(count, height, width, channels).permute(0, 3, 1, 2)

    def _pixels(self, start: Tensor, size: int) -> Tensor:
        """Along one axis the pixels (N, ``size``) from ``start`` (N,) on in the padded image."""
        pixels = start[:, None] + torch.arange(-self.padding, size - self.padding, device=start.device)
        return size - 1 - (size - 1 - pixels.abs()).abs()  # reflected at the first pixel and at the last


class RandomHorizontalFlip(_EachDrawn):
    """Mirror an image with probability ``p``."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def draw(self, count: int, height: int, width: int) -> dict[str, Tensor]:
        """``flip`` (N,) bool."""
        return {"flip": torch.rand(count) < self.p}

    def apply(self, images: Tensor, flip: Tensor) -> Tensor:  # type: ignore[override]
        """``images`` (N, C, H, W), those of ``flip`` mirrored."""
        return torch.where(flip[:, None, None, None], images.flip(-1), images)


class RandomBrightness(_EachDrawn):
    """Multiply all values of an image by a factor from 1 - ``strength`` to 1 + ``strength``."""

    def __init__(self, strength: float) -> None:
        super().__init__()
        self.strength = strength

    def draw(self, count: int, height: int, width: int) -> dict[str, Tensor]:
        """``factor`` (N,) float32."""
        return {"factor": 1 + self.strength * (2 * torch.rand(count) - 1)}

    def apply(self, images: Tensor, factor: Tensor) -> Tensor:  # type: ignore[override]
        """``images`` (N, C, H, W), brighter or darker; what would be brighter than white is white."""
        if not self.strength:
            return images
        white = 1 if images.is_floating_point() else 255
        return (images * factor[:, None, None, None]).clamp_(max=white).to(images.dtype)
