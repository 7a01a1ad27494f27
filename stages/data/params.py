"""The section ``data``."""

from typing import Literal, Self

from pydantic import model_validator

from stages.common.params import Section, key, refusal, seed, whole


class Data(Section):
    """Where the images come from and how many of them are used."""

    name = "data"
    source: Literal["cifar10", "synthetic"] = key(
        "CIFAR-10, or images that are drawn by code and need no network", "cifar10 or synthetic"
    )
    url: str = key(
        "where the binary archive comes from; the environment variable `CIFAR10_ARCHIVE` replaces it",
        "an http:// or https:// address",
        pattern=r"^https?://[!-~]+$",
        max_length=2000,
    )
    md5: str = key(
        "the archive's MD5", "32 hexadecimal digits, letters in lower case", pattern=r"^[0-9a-f]{32}$"
    )
    train_size: int = whole("training images; fewer are a subset with equal class shares", 10, 50_000)
    validation_size: int = whole("images taken out of the training images for choosing parameters", 0, 49_990)
    test_size: int = whole("test images; fewer are a subset with equal class shares", 10, 10_000)
    seed: int = seed("seed of the subsets and of the synthetic images")

    @model_validator(mode="after")
    def _enough_images(self) -> Self:
        if self.train_size - self.validation_size < 10:
            raise refusal("validation_size", self.validation_size, "at least 10 less than data.train_size")
        return self
