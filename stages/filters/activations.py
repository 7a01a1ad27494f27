"""What the convolutions of a CNN answer: activations by forward hooks, and a survey of the test set."""

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from stages.common.geometry import Field, receptive_field
from stages.networks.images import Images
from stages.networks.models import CNN

BATCH = 256


@contextmanager
def recorded(modules: Iterable[nn.Module]) -> Iterator[list[Tensor]]:
    """Record the output of each of ``modules`` by forward hooks, in the order in which they run.

    The yielded list grows with every forward pass; clear it between passes. The hooks are removed on
    leaving, whatever happens inside.
    """
    outputs: list[Tensor] = []
    handles = []
    try:
        for module in modules:
            handles.append(module.register_forward_hook(lambda _module, _inputs, out: outputs.append(out)))
        yield outputs
    finally:
        for handle in handles:
            handle.remove()


def convolutions(model: CNN) -> list[str]:
    """Names of the convolutions of ``model``, in order."""
    return [name for name, module in model.named_children() if isinstance(module, nn.Conv2d)]


def activations(model: CNN, images: Tensor) -> tuple[list[Tensor], Tensor]:
    """Every convolution's activation after ReLU, each (N, C, H, W), and the logits (N, 10).

    ``model`` is in evaluation mode, where each ReLU directly follows its convolution (and its batch
    norm), so that H and W are those of the convolution.

    Raises:
        ValueError: ``model`` is in training mode.
    """
    if model.training:
        raise ValueError("activations are those of evaluation mode: call model.eval() first")
    # those that follow a convolution, not the logits' own
    relus = (module for name, module in model.named_children() if name.startswith("relu"))
    with recorded(relus) as outputs:
        logits = model(images)
    return list(outputs), logits


def fields(model: CNN) -> list[Field]:
    """The receptive field of each convolution's units."""
    layers = model.geometry()
    ends = [
        end
        for end, module in enumerate(
            (module for module in model if isinstance(module, nn.Conv2d | nn.MaxPool2d)), start=1
        )
        if isinstance(module, nn.Conv2d)
    ]
    return [receptive_field(layers[:end]) for end in ends]


@dataclass(frozen=True)
class Survey:
    """One layer over all images: C channels, K best images of each.

    ``active`` (share of images and positions above 0), ``mean`` (C,) float64 and ``maximum`` (C,)
    float32; ``values`` (K, C) float32, descending: the largest activations of different images,
    ``images`` (K, C) int64: which images, ``rows`` and ``columns`` (K, C) int64: at which unit.
    """

    active: Tensor
    mean: Tensor
    maximum: Tensor
    values: Tensor
    images: Tensor
    rows: Tensor
    columns: Tensor

    @property
    def dead(self) -> int:
        """Channels that no image activates anywhere."""
        return int((self.maximum == 0).sum())


@torch.inference_mode()
def survey(model: CNN, images: Images, best: int = 9) -> list[Survey]:
    """One pass over ``images``: each layer's statistics and the units that each channel answers most.

    At most one unit per image; of equal values the earlier image, and in it the first unit, wins.
    Memory does not grow with the number of images.
    """
    running: list[_Running] = []
    for start in range(0, len(images), BATCH):
        indices = torch.arange(start, min(start + BATCH, len(images)))
        layers, _ = activations(model, images[indices][0])
        running = running or [_Running(layer, best) for layer in layers]
        for state, layer in zip(running, layers, strict=True):
            state.add(layer, indices)
    return [state.result() for state in running]


class _Running:
    """The sums and the best units so far of one layer."""

    def __init__(self, layer: Tensor, best: int) -> None:
        channels = layer.shape[1]
        self.best = best
        self.count = 0
        self.width = layer.shape[3]
        self.active = torch.zeros(channels, dtype=torch.int64)
        self.sum = torch.zeros(channels, dtype=torch.float64)
        self.values = torch.empty(0, channels)
        self.images = torch.empty(0, channels, dtype=torch.int64)
        self.units = torch.empty(0, channels, dtype=torch.int64)

    def add(self, layer: Tensor, indices: Tensor) -> None:
        """Add the activations (N, C, H, W) of the images ``indices`` (N,)."""
        flat = layer.flatten(2)
        self.count += flat.shape[0] * flat.shape[2]
        self.active += (flat > 0).sum(dim=(0, 2))
        self.sum += flat.sum(dim=2).double().sum(dim=0)
        values, units = flat.max(dim=2)
        values = torch.cat([self.values, values])
        # stable: of equal values the earlier image stays first
        values, order = values.sort(dim=0, descending=True, stable=True)
        images = torch.cat([self.images, indices[:, None].expand_as(units)])
        order = order[: self.best]
        self.values = values[: self.best]
        self.images = images.gather(0, order)
        self.units = torch.cat([self.units, units]).gather(0, order)

    def result(self) -> Survey:
        return Survey(
            active=self.active.double() / self.count,
            mean=self.sum / self.count,
            maximum=self.values[0],
            values=self.values,
            images=self.images,
            rows=self.units // self.width,
            columns=self.units % self.width,
        )


def cut(images: Tensor, field: Field, rows: Tensor, columns: Tensor, padding: Sequence[int]) -> Tensor:
    """What units see: the patches (M, size, size, 3) uint8 of ``images`` (M, H, W, 3) uint8.

    ``rows`` and ``columns`` (M,) are the units, ``field`` their receptive field. Where it leaves the
    image stands the colour ``padding`` (red, green, blue).
    """
    height, width = images.shape[1:3]
    steps = torch.arange(field.size)
    y = field.start + rows[:, None] * field.stride + steps
    x = field.start + columns[:, None] * field.stride + steps
    inside = ((y >= 0) & (y < height))[:, :, None] & ((x >= 0) & (x < width))[:, None, :]
    item = torch.arange(len(images))[:, None, None]
    patches = images[item, y.clamp(0, height - 1)[:, :, None], x.clamp(0, width - 1)[:, None, :]]
    return torch.where(inside[..., None], patches, torch.tensor(padding, dtype=torch.uint8))


def top_patches(images: Tensor, field: Field, result: Survey, padding: Sequence[int]) -> Tensor:
    """The patches (C, K, size, size, 3) uint8 of ``images`` (N, H, W, 3) uint8 that a layer answers most.

    In the colour ``padding`` are also the patches of units that are not active (value 0).
    """
    best, channels = result.values.shape
    patches = cut(
        images[result.images.T.flatten()],
        field,
        result.rows.T.flatten(),
        result.columns.T.flatten(),
        padding,
    )
    patches[result.values.T.flatten() == 0] = torch.tensor(padding, dtype=torch.uint8)
    return patches.view(channels, best, field.size, field.size, 3)


def effective_fields(model: CNN, images: Images, indices: Tensor) -> list[Tensor]:
    """How strongly each layer's central unit depends on each pixel, averaged over images ``indices``.

    Per layer (H, W) float64: the magnitude of the gradient of the unit's activation, summed over
    the layer's channels, by the pixel, averaged over images and colours (Luo et al. 2016,
    "Understanding the Effective Receptive Field in Deep Convolutional Neural Networks").
    """
    totals: list[Tensor] = []
    for chunk in torch.split(indices, BATCH):
        batch = images[chunk][0].requires_grad_()
        layers, _ = activations(model, batch)
        units = [layer[:, :, layer.shape[2] // 2, layer.shape[3] // 2].sum() for layer in layers]
        gradients = [torch.autograd.grad(unit, batch, retain_graph=True)[0].abs() for unit in units]
        sums = [gradient.double().sum(dim=(0, 1)) / (3 * len(indices)) for gradient in gradients]
        totals = [total + part for total, part in zip(totals, sums, strict=True)] if totals else sums
    return totals


def effective_width(magnitude: Tensor) -> float:
    """Side in pixels of the square with as many pixels as matter in ``magnitude`` (H, W).

    Those above 1 - 95.45 % of the largest count, as in Luo et al. 2016; 0 where nothing is above 0.
    """
    return math.sqrt(int((magnitude > (1 - 0.9545) * magnitude.max()).sum()))
