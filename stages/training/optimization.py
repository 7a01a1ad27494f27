"""How the weights move: Adam, and what regularization changes about it."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import OneCycleLR
from torch.optim.swa_utils import get_ema_multi_avg_fn

from stages.networks.models import CNN, MLP
from stages.training.params import Train


@dataclass(frozen=True)
class Regularization:
    """What is changed about plain Adam and cross entropy; the defaults change nothing.

    ``weight_decay`` is decoupled from the gradient (Loshchilov & Hutter 2019) and leaves biases and
    batch norm alone. ``one_cycle_peak`` is the highest learning rate of a one-cycle schedule
    (Smith & Topin 2018) over the whole run. ``averaging`` is the time constant of an exponential
    moving average of the weights (Polyak & Juditsky 1992), as a share of the run's steps; the
    averaged weights are what is evaluated and kept.
    """

    label_smoothing: float = 0.0
    weight_decay: float = 0.0
    one_cycle_peak: float | None = None
    averaging: float = 0.0


def adam(model: nn.Module, train: Train, weight_decay: float) -> torch.optim.Adam:
    """The optimizer of ``model``; the decay is of matrices and kernels only."""
    matrices = [weight for weight in model.parameters() if weight.dim() > 1]
    vectors = [weight for weight in model.parameters() if weight.dim() == 1]
    return torch.optim.Adam(
        [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}],
        lr=train.learning_rate,
        betas=(train.betas[0], train.betas[1]),
        decoupled_weight_decay=True,
        fused=True,
    )


def one_cycle(optimizer: torch.optim.Optimizer, peak: float | None, steps: int) -> OneCycleLR | None:
    """The learning rate's schedule over ``steps``: linear up to ``peak`` and down; without one, None."""
    if peak is None:
        return None
    return OneCycleLR(
        optimizer,
        peak,
        total_steps=steps,
        anneal_strategy="linear",
        cycle_momentum=False,
        final_div_factor=1000,
    )


class Average:
    """The exponential moving average of the weights of ``model``, with a time constant in steps."""

    def __init__(self, model: MLP | CNN, time_constant: float) -> None:
        self.source = model
        self.model = deepcopy(model).requires_grad_(False)
        self._blend: Callable[..., None] = get_ema_multi_avg_fn(1 - 1 / max(1, time_constant))

    def update(self) -> None:
        """Take in the model's weights as they are now."""
        self._blend(_floats(self.model), _floats(self.source), None)


def _floats(model: nn.Module) -> list[Tensor]:
    """Weights and batch norm's running statistics of ``model``; its count of batches is no float."""
    return [tensor for tensor in (*model.parameters(), *model.buffers()) if tensor.is_floating_point()]
