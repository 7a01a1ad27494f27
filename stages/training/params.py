"""The section ``train``."""

from typing import Annotated, Literal

from pydantic import Field

from stages.common.params import Section, key, seed, whole


class Train(Section):
    """What all trainings share."""

    name = "train"
    epochs: int = whole("passes over the training images", 1, 10_000)
    batch_size: int = whole("images per step", 2, 512)
    learning_rate: float = key("Adam's step size", "a number above 0, at most 1", gt=0, le=1)
    betas: list[Annotated[float, Field(ge=0, le=0.99999)]] = key(
        "Adam's two decay rates", "two numbers from 0 to 0.99999", min_length=2, max_length=2
    )
    seed: int = seed("seed of the weights, the order of the images, augmentation and dropout")
    device: Literal["auto", "cpu", "cuda"] = key("`auto` takes CUDA where there is one", "auto, cpu or cuda")
    precision: Literal["auto", "fp32", "bf16"] = key(
        "`auto` takes bf16 where the device computes it fast", "auto, fp32 or bf16"
    )
