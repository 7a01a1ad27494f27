"""The models of the pipeline: one for each stage ``train_<model>`` of ``dvc.yaml``."""

from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import yaml

if TYPE_CHECKING:  # torch takes seconds to import, and `MODELS` does not need it
    from torch import nn

PIPELINE = Path(__file__).resolve().parent.parent / "dvc.yaml"
MODELS: tuple[str, ...] = tuple(
    stage.removeprefix("train_")
    for stage in yaml.safe_load(PIPELINE.read_text(encoding="utf-8"))["stages"]
    if stage.startswith("train_")
)


def script(model: str) -> ModuleType:
    """The training script of ``model``, with its functions ``network`` and ``trainer``."""
    return import_module(f"stages.train_{model}")


def networks() -> "dict[str, nn.Module]":
    """The untrained network of each model, as its script builds it from ``params.yaml``.

    Raises:
        UserError: a section of ``params.yaml`` is not valid.
    """
    return {model: script(model).network() for model in MODELS}


def parameter_counts() -> dict[str, int]:
    """The number of trainable parameters of each model; raises as `networks`."""
    from stages.networks.models import count_parameters

    return {model: count_parameters(network) for model, network in networks().items()}
