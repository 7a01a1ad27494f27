"""The section ``data``."""

from typing import Literal, Self

from pydantic import Field, model_validator

from stages.common.params import Section, refusal, seed, whole


class Data(Section):
    """Where the images come from and how many of them are used."""

    name = "data"
    source: Literal["cifar10", "synthetic"] = Field(description="cifar10 or synthetic")
    url: str = Field(
        pattern=r"^https?://[!-~]+$", max_length=2000, description="an http:// or https:// address"
    )
    md5: str = Field(pattern=r"^[0-9a-f]{32}$", description="32 hexadecimal digits, letters in lower case")
    train_size: int = whole(10, 50_000)
    validation_size: int = whole(0, 49_990)
    test_size: int = whole(10, 10_000)
    seed: int = seed()

    @model_validator(mode="after")
    def _enough_images(self) -> Self:
        if self.train_size - self.validation_size < 10:
            raise refusal("validation_size", self.validation_size, "at least 10 less than data.train_size")
        return self
