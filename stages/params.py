"""The whole of ``params.yaml``: the sections of all rooms, and what must hold between them."""

from pathlib import Path
from typing import Any, Self

from pydantic import model_validator

from stages.augmentation.transforms import Aug
from stages.common.params import PARAMS, Schema, check, read, refusal
from stages.data.params import Data
from stages.filters.params import Viz
from stages.networks.params import Baseline, Cnn
from stages.regularization.params import Reg
from stages.training.params import Train


class Params(Schema):
    """All sections, by name."""

    data: Data
    train: Train
    baseline: Baseline
    cnn: Cnn
    aug: Aug
    reg: Reg
    viz: Viz

    @model_validator(mode="after")
    def _enough_images(self) -> Self:
        left = self.data.train_size - self.data.validation_size
        if self.train.batch_size > left:
            allowed = f"at most the number of training images, {left}"
            raise refusal("train.batch_size", self.train.batch_size, allowed)
        if self.viz.image is not None and self.viz.image >= self.data.test_size:
            allowed = f"null, or below data.test_size, {self.data.test_size}"
            raise refusal("viz.image", self.viz.image, allowed)
        return self


def load_all(path: Path = PARAMS) -> Params:
    """Read and check all of ``path``.

    Raises:
        UserError: naming the key, its value and what is allowed.
    """
    return check_all(read(path), str(path))


def check_all(content: Any, path: str = str(PARAMS)) -> Params:
    """Check the content of a parameter file, named ``path`` in messages.

    Raises:
        UserError: naming the key, its value and what is allowed.
    """
    return check(Params, content, path)
