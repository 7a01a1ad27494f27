"""Sizes, strides and receptive fields of stacks of convolutions and poolings.

The formulas of the exercise sheet's theory b), derived in docs/theory.md. Everything here is about
one axis: kernels, strides and images are square.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

IMAGE_SIZE = 32  # pixels along one axis


class Layer(NamedTuple):
    """A convolution or a pooling along one axis: kernel, stride and padding in pixels of its input."""

    kernel: int
    stride: int = 1
    padding: int = 0


class Field(NamedTuple):
    """The receptive field of a layer's units along one axis, in pixels of the image.

    Unit ``u`` sees the pixels ``start + u * stride`` to ``start + u * stride + size - 1``. Those
    below 0 or beyond the image are padding.
    """

    size: int
    stride: int
    start: int

    def span(self, unit: int) -> tuple[int, int]:
        """First pixel, and the one after the last, that ``unit`` sees."""
        first = self.start + unit * self.stride
        return first, first + self.size


def output_size(size: int, layers: Iterable[Layer]) -> int:
    """Units along one axis after ``layers``, for an input of ``size`` pixels.

    One layer: ``floor((size + 2 padding - kernel) / stride) + 1``.

    Raises:
        ValueError: a layer's kernel does not fit into what reaches it.
    """
    for number, layer in enumerate(layers, start=1):
        padded = size + 2 * layer.padding
        if layer.kernel > padded:
            raise ValueError(
                f"layer {number} has a kernel of {layer.kernel} pixels, but only {padded} reach it"
            )
        size = (padded - layer.kernel) // layer.stride + 1
    return size


def receptive_field(layers: Iterable[Layer]) -> Field:
    """The receptive field of the units of the last of ``layers``.

    Each layer widens the field by ``(kernel - 1)`` steps of the layer before, whose neighbouring
    units are the product of all earlier strides apart.
    """
    field = Field(size=1, stride=1, start=0)
    for layer in layers:
        field = Field(
            size=field.size + (layer.kernel - 1) * field.stride,
            stride=field.stride * layer.stride,
            start=field.start - layer.padding * field.stride,
        )
    return field


def same_padding(kernel: int) -> int:
    """Padding on each side with which a stride-1 convolution with an odd kernel keeps the size."""
    return (kernel - 1) // 2


def block_layers(
    kernels: Sequence[Sequence[int]], pools: Sequence[int], padding: str = "valid"
) -> list[Layer]:
    """Layers of blocks: block j is convolutions with ``kernels[j]``, then a pooling by ``pools[j]``.

    ``padding`` is ``"valid"`` (none) or ``"same"`` (convolutions keep the size).
    """
    layers = []
    for block, pool in zip(kernels, pools, strict=True):
        layers += [Layer(k, 1, same_padding(k) if padding == "same" else 0) for k in block]
        layers.append(Layer(pool, pool))
    return layers
