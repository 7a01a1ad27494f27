"""The sections ``baseline`` and ``cnn``: their keys are arguments of the networks."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from stages.common.geometry import IMAGE_SIZE, block_layers, output_size
from stages.common.params import Section, key, refusal, switch, whole


class Baseline(Section):
    """The MLP."""

    name = "baseline"
    hidden: list[Annotated[int, Field(ge=1, le=4096)]] = key(
        "widths of the MLP's hidden layers",
        "a list of 1 to 6 layer widths from 1 to 4096",
        min_length=1,
        max_length=6,
    )


class Cnn(Section):
    """The CNN: blocks of convolutions, a 2x2 max pooling after each block."""

    name = "cnn"
    blocks: list[Annotated[list[Annotated[int, Field(ge=1, le=128)]], Field(min_length=1, max_length=3)]] = (
        key(
            "channels of the convolutions; 2x2 max pooling after each block",
            "a list of 1 to 5 blocks, each a list of 1 to 3 channel counts from 1 to 128",
            min_length=1,
            max_length=5,
        )
    )
    kernel_size: int = whole("width of the convolutions' kernels in pixels", 1, 11)
    padding: Literal["valid", "same"] = key(
        "`valid`: the convolutions do not pad; `same`: they pad so that the size stays", "valid or same"
    )
    relu_logits: bool = switch("a ReLU on the logits too ([what it costs](findings.md))")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.padding == "same" and self.kernel_size % 2 == 0:
            raise refusal("kernel_size", self.kernel_size, "odd where cnn.padding is same")
        layers = block_layers(
            [[self.kernel_size] * len(block) for block in self.blocks],
            [2] * len(self.blocks),
            self.padding,
        )
        try:
            output_size(IMAGE_SIZE, layers)
        except ValueError as error:
            allowed = f"such that an image of {IMAGE_SIZE} pixels keeps at least one ({error})"
            raise refusal("blocks", self.blocks, allowed) from error
        return self
