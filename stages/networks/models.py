"""The two networks of the sheet, and their files."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from stages.common.errors import UserError
from stages.common.files import reading, write_bytes
from stages.common.geometry import IMAGE_SIZE, Layer, block_layers, output_size

CLASSES = 10


class MLP(nn.Sequential):
    """The baseline: for each of ``hidden`` linear, batch norm, ReLU; then linear to the logits.

    (N, 3, 32, 32) to logits (N, 10).
    """

    def __init__(self, hidden: Sequence[int]) -> None:
        super().__init__()
        self.config: dict[str, Any] = {"hidden": list(hidden)}
        self.add_module("flatten", nn.Flatten())
        inputs = 3 * IMAGE_SIZE**2
        for number, width in enumerate(hidden, start=1):
            # batch norm subtracts the mean, and with it any bias before it
            self.add_module(f"linear{number}", nn.Linear(inputs, width, bias=False))
            self.add_module(f"norm{number}", nn.BatchNorm1d(width))
            self.add_module(f"relu{number}", nn.ReLU())
            inputs = width
        self.add_module("dense", nn.Linear(inputs, CLASSES))


class CNN(nn.Sequential):
    """The sheet's CNN: for each block convolutions with ReLU, then 2x2 max pooling; then dense.

    (N, 3, 32, 32) to logits (N, 10). ``blocks`` holds each convolution's output channels.
    ``batch_norm`` follows every convolution, ``dropout`` (a probability) every pooling. With
    ``relu_logits`` the logits have a ReLU too.

    Every layer is a module of its own, in the order of the formulas: a forward hook on ``relu1`` ...
    sees each convolution's activation.

    Raises:
        ValueError: the blocks shrink the image below one pixel.
    """

    def __init__(
        self,
        blocks: Sequence[Sequence[int]],
        kernel_size: int = 3,
        padding: str = "valid",
        batch_norm: bool = False,
        dropout: float = 0.0,
        relu_logits: bool = False,
    ) -> None:
        super().__init__()
        self.config: dict[str, Any] = {
            "blocks": [list(block) for block in blocks],
            "kernel_size": kernel_size,
            "padding": padding,
            "batch_norm": batch_norm,
            "dropout": dropout,
            "relu_logits": relu_logits,
        }
        side = output_size(IMAGE_SIZE, self.geometry())
        channels, number = 3, 0
        for block_number, block in enumerate(blocks, start=1):
            for width in block:
                number += 1
                self.add_module(
                    f"conv{number}",
                    nn.Conv2d(channels, width, kernel_size, padding=padding, bias=not batch_norm),
                )
                if batch_norm:
                    self.add_module(f"norm{number}", nn.BatchNorm2d(width))
                self.add_module(f"relu{number}", nn.ReLU())
                channels = width
            self.add_module(f"pool{block_number}", nn.MaxPool2d(2))
            if dropout:
                self.add_module(f"dropout{block_number}", nn.Dropout(dropout))
        self.add_module("flatten", nn.Flatten())
        self.add_module("dense", nn.Linear(channels * side**2, CLASSES))
        if relu_logits:
            self.add_module("logits_relu", nn.ReLU())

    def geometry(self) -> list[Layer]:
        """The convolutions and poolings, in order, for the formulas of `stages.common.geometry`."""
        blocks = self.config["blocks"]
        return block_layers(
            [[self.config["kernel_size"]] * len(block) for block in blocks],
            [2] * len(blocks),
            self.config["padding"],
        )

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, 10) of normalized ``images`` (N, 3, 32, 32)."""
        for layer in self._in_training_order() if self.training else self:
            images = layer(images)
        return images

    def _in_training_order(self) -> Iterator[nn.Module]:
        """The layers with each pooling before the ReLU that it follows, if it follows one.

        The maximum commutes with ReLU, so values and gradients are equal bit for bit, and ReLU has
        a quarter of the pixels to read and write. It does not commute with every activation.
        """
        layers = list(self)
        for index in range(1, len(layers)):
            if isinstance(layers[index - 1], nn.ReLU) and isinstance(layers[index], nn.MaxPool2d):
                layers[index - 1], layers[index] = layers[index], layers[index - 1]
        return iter(layers)


def count_parameters(model: nn.Module) -> int:
    """Trainable numbers of ``model``."""
    return sum(parameter.numel() for parameter in model.parameters())


def save_model(model: MLP | CNN, path: Path) -> None:
    """Write weights and architecture of ``model`` as one safetensors file."""
    tensors = {name: tensor.cpu().contiguous() for name, tensor in model.state_dict().items()}
    # a single key: safetensors writes several in an order that changes from process to process
    metadata = {"model": json.dumps({"architecture": type(model).__name__, "config": model.config})}
    write_bytes(path, save(tensors, metadata))


def load_model(path: Path) -> MLP | CNN:
    """Rebuild the model in ``path``, in evaluation mode on the CPU.

    Raises:
        UserError: the file is missing, damaged, or of another architecture.
    """
    architectures: dict[str, type[MLP | CNN]] = {"MLP": MLP, "CNN": CNN}
    try:
        with reading(path), safe_open(path, framework="pt") as file:
            metadata: dict[str, str] = file.metadata()
            # copies: what is mapped would follow later changes of the file
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
        description: dict[str, Any] = json.loads(metadata["model"])
        model = architectures[description["architecture"]](**description["config"])
        model.load_state_dict(tensors)
    except FileNotFoundError:
        raise UserError(f"{path} is missing: make it with 'dvc repro train_{path.stem}'") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error}") from None
    except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        problem = str(error).splitlines()[0]
        raise UserError(
            f"{path} is no model of this project ({problem}): delete it, then 'dvc repro train_{path.stem}'"
        ) from None
    return model.eval()
