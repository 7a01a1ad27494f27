"""Print the layers of the four models at the parameters of params.yaml, as torchsummary would."""

from typing import NamedTuple

import torch
from torch import nn

from stages.common.errors import run
from stages.common.geometry import Layer, receptive_field
from stages.networks.models import CNN, MLP, count_parameters
from stages.common.params import IMAGE_SIZE, Params, load


class Row(NamedTuple):
    """One layer: shape of an image's output, trainable numbers, receptive field of a unit in pixels."""

    layer: str
    shape: tuple[int, ...]
    parameters: int
    field: int


def build(params: Params) -> dict[str, MLP | CNN]:
    """The four models, as the training stages build them."""
    cnn, reg = params.cnn, params.reg
    return {
        "baseline": MLP(params.baseline.hidden),
        "cnn": CNN(cnn.blocks, cnn.kernel_size, cnn.padding, relu_logits=cnn.relu_logits),
        "augmented": CNN(cnn.blocks, cnn.kernel_size, cnn.padding, relu_logits=cnn.relu_logits),
        "regularized": CNN(
            cnn.blocks, cnn.kernel_size, cnn.padding, reg.batch_norm, reg.dropout, cnn.relu_logits
        ),
    }


def rows(model: MLP | CNN) -> list[Row]:
    """The layers of ``model``, which is left in evaluation mode, in order.

    A dense layer sees all that is left of the image, like a convolution whose kernel covers it.
    Every other layer works on single units and keeps their receptive field.
    """
    ahead = iter(model.geometry()) if isinstance(model, CNN) else iter(())
    passed: list[Layer] = []
    side = IMAGE_SIZE
    units = torch.zeros(1, 3, IMAGE_SIZE, IMAGE_SIZE)
    found = []
    model.eval()
    for name, layer in model.named_children():
        with torch.no_grad():
            units = layer(units)
        if isinstance(layer, nn.Conv2d | nn.MaxPool2d):
            passed.append(next(ahead))
            side = units.shape[-1]
        elif isinstance(layer, nn.Linear):
            passed.append(Layer(side))
            side = 1
        found.append(Row(name, tuple(units.shape[1:]), count_parameters(layer), receptive_field(passed).size))
    return found


def table(title: str, model: MLP | CNN) -> str:
    """The layers of ``model`` as lines of text, and their total."""
    lines = [title, f"  {'layer':<10}{'output':<14}{'parameters':>12}  receptive field"]
    for row in rows(model):
        shape = "x".join(map(str, row.shape))
        lines.append(f"  {row.layer:<10}{shape:<14}{row.parameters:>12,}  {row.field}x{row.field}")
    lines.append(f"  {'total':<24}{count_parameters(model):>12,}")
    return "\n".join(lines)


def main() -> None:
    print(
        "Output of each layer for one image, without the batch; receptive fields in pixels, padding included."
    )
    for name, model in build(load()).items():
        print(f"\n{table(name, model)}")


if __name__ == "__main__":
    run(main)
