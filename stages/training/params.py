"""The section ``train``."""

from typing import Annotated, Literal

from pydantic import Field

from stages.common.params import Section, positive, seed, whole


class Train(Section):
    """What all trainings share."""

    name = "train"
    epochs: int = whole(1, 10_000)
    batch_size: int = whole(2, 512)
    learning_rate: float = positive(1)
    betas: list[Annotated[float, Field(ge=0, le=0.99999)]] = Field(
        min_length=2, max_length=2, description="two numbers from 0 to 0.99999"
    )
    seed: int = seed()
    device: Literal["auto", "cpu", "cuda"] = Field(description="auto, cpu or cuda")
    precision: Literal["auto", "fp32", "bf16"] = Field(description="auto, fp32 or bf16")
