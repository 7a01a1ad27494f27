"""Random crop, flip and brightness in the form of torchvision's transforms, drawn for each image of a batch.

torchvision's own draw once for whatever they are given: they would crop and mirror all images of a
batch alike. Otherwise these are theirs, image by image and bit for bit, and take what theirs take:
images (..., C, H, W), uint8 from 0 to 255 or float from 0 to 1.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from pydantic import field_validator
from torch import Tensor
from torchvision.transforms import v2

from stages.augmentation.extra import EachImage, build
from stages.common.params import Section, key, number, refusal, whole


class Aug(Section):
    """The section ``aug``, whose keys are the arguments of `augmentation`."""

    name = "aug"
    crop_pad: int = whole("random crop after padding by this many pixels; 0: off", 0, 16)
    flip: float = number("probability of a horizontal flip; 0: off", 0, 1)
    brightness: float = number("largest relative change of brightness; 0: off", 0, 1)
    extra: list[dict[str, Any]] = key(
        "more transformations, applied to each image after the others, in this order",
        "a list of at most 10 transformations of torchvision.transforms.v2, such as "
        "[{RandomErasing: {p: 0.25}}]",
        max_length=10,
    )

    @field_validator("extra")
    @classmethod
    def _possible(cls, extra: list[dict[str, Any]]) -> list[dict[str, Any]]:
        try:
            build(extra)
        except ValueError as error:
            raise refusal("", extra, str(error)) from None
        return extra


def augmentation(
    crop_pad: int = 0,
    flip: float = 0.0,
    brightness: float = 0.0,
    extra: Sequence[Mapping[str, Any]] = (),
) -> v2.Compose:
    """The transformations of a batch of images.

    Those of ``extra`` come last, applied image by image. Whatever is switched off (0) still draws its
    random numbers, so that the others' draws do not depend on it.

    Raises:
        ValueError: ``extra`` is not a list of transformations that keep shape and type.
    """
    transforms = [RandomCrop(crop_pad), RandomHorizontalFlip(flip), RandomBrightness(brightness)]
    return v2.Compose([*transforms, *([EachImage(extra)] if extra else [])])


class RandomCrop(v2.Transform):
    """Pad by ``padding`` reflected pixels on each side, then crop at random to the size before."""

    def __init__(self, padding: int) -> None:
        super().__init__()
        self.padding = padding

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Tensor]:
        """Draw ``top`` and ``left`` (N,) int64: the crop's first pixel in the padded image."""
        images: Tensor = flat_inputs[0]
        if self.padding >= min(images.shape[-2:]):
            raise ValueError(f"no {self.padding} pixels to reflect in images of {tuple(images.shape[-2:])}")
        top, left = torch.randint(2 * self.padding + 1, (2, images.shape[:-3].numel()))
        return {"top": top, "left": left}

    def transform(self, inpt: Tensor, params: dict[str, Tensor]) -> Tensor:
        """Crop ``inpt`` (..., C, H, W): one gather of pixels, without padding anything."""
        if not self.padding:
            return inpt
        channels, height, width = inpt.shape[-3:]
        images = inpt.reshape(-1, channels, height, width)
        rows, columns = (
            self._pixels(params[start].to(inpt.device), size)
            for start, size in (("top", height), ("left", width))
        )
        first = torch.arange(len(images), device=inpt.device) * height * width
        places = ((first[:, None] + rows * width)[:, :, None] + columns[:, None, :]).flatten()
        pixels = images.permute(0, 2, 3, 1).reshape(-1, channels)  # no copy of channels_last images
        crops = pixels.index_select(0, places).view(len(images), height, width, channels)
        return crops.permute(0, 3, 1, 2).view_as(inpt)

    def _pixels(self, start: Tensor, size: int) -> Tensor:
        """Along one axis the pixels (N, ``size``) that lie from ``start`` (N,) on in the padded image."""
        pixels = start[:, None] + torch.arange(-self.padding, size - self.padding, device=start.device)
        return size - 1 - (size - 1 - pixels.abs()).abs()  # reflected at the first pixel and at the last


class RandomHorizontalFlip(v2.Transform):
    """Mirror an image with probability ``p``."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Tensor]:
        """Draw ``flip`` (..., 1, 1, 1) bool."""
        return {"flip": _for_each_image(flat_inputs[0]) < self.p}

    def transform(self, inpt: Tensor, params: dict[str, Tensor]) -> Tensor:
        """Mirror images of ``inpt`` (..., C, H, W)."""
        return torch.where(params["flip"].to(inpt.device), inpt.flip(-1), inpt)


class RandomBrightness(v2.Transform):
    """Multiply all values of an image by a factor from 1 - ``strength`` to 1 + ``strength``."""

    def __init__(self, strength: float) -> None:
        super().__init__()
        self.strength = strength

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Tensor]:
        """Draw ``factor`` (..., 1, 1, 1) float32."""
        return {"factor": 1 + self.strength * (2 * _for_each_image(flat_inputs[0]) - 1)}

    def transform(self, inpt: Tensor, params: dict[str, Tensor]) -> Tensor:
        """Make ``inpt`` (..., C, H, W) brighter or darker; what would be brighter than white is white."""
        if not self.strength:
            return inpt
        white = 1 if inpt.is_floating_point() else 255
        return (inpt * params["factor"].to(inpt.device)).clamp_(max=white).to(inpt.dtype)


def _for_each_image(images: Tensor) -> Tensor:
    """A uniform draw for each of ``images`` (..., C, H, W), as (..., 1, 1, 1) on the CPU.

    From torch's global generator, as torchvision draws.
    """
    return torch.rand(images.shape[:-3].numel()).view(*images.shape[:-3], 1, 1, 1)
