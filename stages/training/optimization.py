"""How the weights move: Adam, and what the regularized model's recipe changes about it."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import OneCycleLR
from torch.optim.swa_utils import get_ema_multi_avg_fn

from stages.networks.models import CNN, MLP
from stages.training.params import Train


@dataclass(frozen=True)
class Recipe:
    """What is changed about plain Adam and cross entropy; the defaults change nothing.

    ``weight_decay`` is decoupled from the gradient (Loshchilov & Hutter 2019) and leaves biases, batch
    norm and the kernels of `Muon` alone. ``one_cycle_peak`` is Adam's highest learning rate in a
    one-cycle schedule (Smith & Topin 2018) over the whole run. ``averaging`` is the time constant of an
    exponential moving average of the weights (Polyak & Juditsky 1992), as a share of the run's steps;
    the averaged weights are what is evaluated and kept. ``muon`` is the learning rate of `Muon`, which
    then has the kernels: its highest where there is a one-cycle schedule, else a constant one.
    """

    label_smoothing: float = 0.0
    weight_decay: float = 0.0
    one_cycle_peak: float | None = None
    averaging: float = 0.0
    muon: float = 0.0


def optimizers(model: nn.Module, train: Train, recipe: Recipe) -> list[torch.optim.Optimizer]:
    """The optimizers of ``model``: Adam, and `Muon` for the kernels where the recipe has it.

    Each has its constant learning rate, or the peak of its one-cycle schedule. Adam decays matrices and
    kernels only; Muon, which fixes the norm of its kernels, decays nothing.
    """
    kernels = [weight for weight in model.parameters() if weight.dim() == 4] if recipe.muon else []
    others = [weight for weight in model.parameters() if weight.dim() < 4 or not recipe.muon]
    matrices = [weight for weight in others if weight.dim() > 1]
    vectors = [weight for weight in others if weight.dim() == 1]
    adam = torch.optim.Adam(
        [{"params": matrices, "weight_decay": recipe.weight_decay}, {"params": vectors, "weight_decay": 0.0}],
        lr=recipe.one_cycle_peak or train.learning_rate,
        betas=(train.betas[0], train.betas[1]),
        decoupled_weight_decay=True,
        fused=True,
    )
    return [adam, Muon(kernels, recipe.muon)] if kernels else [adam]


class Muon(torch.optim.Muon):
    """Muon for ``kernels`` (out, in, height, width) in channels_last format: matrices of ``out`` rows.

    torch's own takes matrices only. Its step is about the orthogonal matrix nearest to the momentum, so
    that all directions of a layer are learned at one pace; it is larger by sqrt(rows / columns) where a
    matrix has more rows. Before each step a kernel is scaled to the norm sqrt(out), which gives the
    learning rate one meaning for all of them. Batch norm takes that scale out again; without it the
    first step changes what the network computes. The scale and the momentum of 0.6 are those of
    airbench94_muon.py (Jordan 2024, github.com/KellerJordan/cifar10-airbench).
    """

    def __init__(self, kernels: Sequence[nn.Parameter], learning_rate: float) -> None:
        self.kernels = kernels
        matrices = [nn.Parameter(_matrix(kernel.detach())) for kernel in kernels]  # views of the kernels
        super().__init__(matrices, lr=learning_rate, weight_decay=0.0, momentum=0.6)

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        """Scale and move the kernels by their gradients."""
        matrices = self.param_groups[0]["params"]
        for kernel, matrix in zip(self.kernels, matrices, strict=True):
            assert kernel.grad is not None
            matrix.grad = _matrix(kernel.grad.contiguous(memory_format=torch.channels_last))
            matrix.mul_(len(matrix) ** 0.5 / matrix.norm())
        super().step()  # type: ignore[no-untyped-call]

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients of the kernels."""
        for kernel in self.kernels:
            kernel.grad = None


def _matrix(kernel: Tensor) -> Tensor:
    """A view (out, height * width * in) of a ``kernel`` (out, in, height, width) in channels_last format."""
    return kernel.permute(0, 2, 3, 1).view(len(kernel), -1)


def one_cycle(optimizer: torch.optim.Optimizer, steps: int) -> OneCycleLR:
    """A schedule over ``steps``: linear up to the learning rate of ``optimizer`` as it was made, and down."""
    return OneCycleLR(
        optimizer,
        optimizer.defaults["lr"],
        total_steps=steps,
        anneal_strategy="linear",
        cycle_momentum=False,
        final_div_factor=1000,
    )


class Average:
    """The exponential moving average of the weights of ``model``, with a time constant in steps.

    Only weights after a step count: as in Adam's moments, the share of the initial ones is divided out.
    """

    def __init__(self, model: MLP | CNN, time_constant: float) -> None:
        self.source = model
        self.model = deepcopy(model).requires_grad_(False)
        self.decay = 1 - 1 / max(1, time_constant)
        self.updates = 0

    def update(self) -> None:
        """Take in the model's weights as they are now."""
        self.updates += 1
        share = (1 - self.decay) / (1 - self.decay**self.updates)
        get_ema_multi_avg_fn(1 - share)(_floats(self.model), _floats(self.source), None)

    def state_dict(self) -> dict[str, Any]:
        """Everything that changes by `update`."""
        return {"updates": self.updates, "weights": self.model.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from what `state_dict` gave."""
        self.updates = state["updates"]
        self.model.load_state_dict(state["weights"])


def _floats(model: nn.Module) -> list[Tensor]:
    """Weights and batch norm's running statistics of ``model``; its count of batches is no float."""
    return [tensor for tensor in (*model.parameters(), *model.buffers()) if tensor.is_floating_point()]
