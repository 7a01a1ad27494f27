"""Print the layers of each model, at the parameters of params.yaml."""

import argparse
from typing import NamedTuple

import torch
from torch import nn

from stages.common.errors import run
from stages.common.geometry import IMAGE_SIZE, Layer, receptive_field
from stages.networks.models import count_parameters
from tools.models import networks


class Row(NamedTuple):
    """One layer: shape of its output for one image, parameters, receptive field of a unit in pixels."""

    layer: str
    shape: tuple[int, ...]
    parameters: int
    field: int


def main() -> None:
    argparse.ArgumentParser(allow_abbrev=False, description=__doc__).parse_args()
    print(
        "Output of each layer for one image, without the batch; receptive fields in pixels, padding included."
    )
    for name, network in networks().items():
        print(f"\n{table(name, network)}")


def rows(network: nn.Module) -> list[Row]:
    """The layers of ``network``, in order; it is left in evaluation mode.

    A dense layer sees all that is left of the image, like a convolution whose kernel covers it.
    Convolutions and poolings widen the receptive field; any other layer is taken to keep it.
    """
    passed: list[Layer] = []
    side = IMAGE_SIZE
    units = torch.zeros(1, 3, IMAGE_SIZE, IMAGE_SIZE)
    result = []
    network.eval()
    for name, layer in network.named_children():
        with torch.no_grad():
            units = layer(units)
        if isinstance(layer, nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d):
            passed.append(Layer(_one_axis(layer.kernel_size), _one_axis(layer.stride)))
            side = units.shape[-1]
        elif isinstance(layer, nn.Linear):
            passed.append(Layer(side))
            side = 1
        size = receptive_field(passed).size
        result.append(Row(name, tuple(units.shape[1:]), count_parameters(layer), size))
    return result


def _one_axis(size: int | tuple[int, ...]) -> int:
    return size if isinstance(size, int) else size[0]


def table(title: str, network: nn.Module) -> str:
    """The layers of ``network`` as lines of text, and their total."""
    lines = [title, f"  {'layer':<10}{'output':<14}{'parameters':>12}  receptive field"]
    for row in rows(network):
        shape = "x".join(map(str, row.shape))
        lines.append(f"  {row.layer:<10}{shape:<14}{row.parameters:>12,}  {row.field}x{row.field}")
    lines.append(f"  {'total':<24}{count_parameters(network):>12,}")
    return "\n".join(lines)


if __name__ == "__main__":
    run(main)
