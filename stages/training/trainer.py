"""A training run, one epoch after another."""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from stages.common.dataset import Data
from stages.common.errors import UserError
from stages.networks.images import Images, Transform
from stages.networks.models import CNN, MLP
from stages.training.checkpoint import code_digests, digest
from stages.training.evaluation import evaluate
from stages.training.optimization import Average, Recipe, one_cycle, optimizers
from stages.training.params import Train
from stages.training.runtime import Runtime

PLAIN = Recipe()


class Trainer:
    """A training run: model, optimizers, schedules, averaged weights and the figures so far.

    All randomness of an epoch (order, augmentation, dropout) is seeded from ``train.seed`` and the
    epoch's number, so that a run continued between two epochs ends as an uninterrupted one.

    ``history`` holds the figures of each epoch, ``timing`` its seconds and images per second.

    Raises:
        UserError: a batch is larger than the training set.
    """

    def __init__(
        self,
        model: MLP | CNN,
        data: Data,
        train: Train,
        runtime: Runtime,
        transform: Transform | None = None,
        recipe: Recipe = PLAIN,
    ) -> None:
        if train.batch_size > len(data.train):
            raise UserError(
                f"train.batch_size is {train.batch_size}, but must be at most the number of training images, "
                f"{len(data.train)}"
            )
        device = runtime.device
        self.data, self.train, self.runtime, self.recipe = data, train, runtime, recipe
        self.model = model.to(device).to(memory_format=torch.channels_last)
        self.images = Images(data.train, data, device, transform)
        self.test = Images(data.test, data, device)
        self.validation = Images(data.validation, data, device) if data.validation else None
        # whole batches only: every batch weighs the same, and batch norm never sees a lone image
        self.steps = len(self.images) // train.batch_size
        total = train.epochs * self.steps
        self.optimizers = optimizers(self.model, train, recipe)
        self.schedules = [
            one_cycle(optimizer, total) for optimizer in self.optimizers if recipe.one_cycle_peak
        ]
        self.average = Average(self.model, recipe.averaging * total) if recipe.averaging else None
        self.history: list[dict[str, float]] = []
        self.timing: list[dict[str, float]] = []
        # all that determines the result, by names that tell a user what differs
        self.identity: dict[str, Any] = {
            "train": train.model_dump(),
            "reg": asdict(recipe),
            "network": model.config,
            "machine": runtime.describe(),
            "code": code_digests(),
            "augmentation": repr(transform),
            "images": digest(
                *(t for s in (data.train, data.validation, data.test) if s for t in (s.images, s.labels)),
                data.mean,
                data.std,
            ),
            "initial weights": digest(*model.state_dict().values()),
        }

    @property
    def result(self) -> MLP | CNN:
        """The model that is evaluated and kept: the averaged one where there is one."""
        return self.average.model if self.average else self.model

    def epoch(self, after_step: Callable[[], Any]) -> None:
        """Train one epoch, evaluate, append to `history` and `timing`; ``after_step`` follows each step.

        Raises:
            UserError: the loss became NaN or infinite.
        """
        number = len(self.history) + 1
        start = time.perf_counter()
        losses = torch.empty(self.steps, device=self.runtime.device)
        self.model.train()
        for step, batch in enumerate(self._batches(number)):
            losses[step] = self.step(batch)
            after_step()
        figures = {"epoch": number, "train_loss": self._mean(losses, number)}
        trained = time.perf_counter()
        for name, images in (("test", self.test), ("validation", self.validation)):
            if images is not None:
                evaluation = evaluate(self.result, images, self.runtime)
                figures[f"{name}_loss"] = evaluation.loss
                figures[f"{name}_accuracy"] = evaluation.accuracy
        if not all(math.isfinite(figure) for figure in figures.values()):
            raise UserError(f"after epoch {number} {figures} is not finite: {self._remedy()}")
        self.history.append(figures)
        end = time.perf_counter()
        self.timing.append(
            {
                "seconds": end - start,
                "evaluation_seconds": end - trained,
                "images_per_second": self.steps * self.train.batch_size / (trained - start),
            }
        )

    def step(self, batch: Tensor) -> Tensor:
        """One optimizer step on the images with indices ``batch`` (N,); the loss (), not waited for."""
        images, labels = self.images[batch]
        with self.runtime.autocast():
            logits = self.model(images)
        # in fp32: on CUDA autocast leaves the logarithm of the softmax in bf16
        loss = cross_entropy(logits.float(), labels, label_smoothing=self.recipe.label_smoothing)
        for optimizer in self.optimizers:
            optimizer.zero_grad()
        loss.backward()
        for optimizer in self.optimizers:
            optimizer.step()
        for schedule in self.schedules:
            schedule.step()
        if self.average:
            self.average.update()
        return loss.detach()

    def _batches(self, epoch: int) -> Iterator[Tensor]:
        """The epoch's batches of indices (N,); seeds everything random in the epoch."""
        seeds = np.random.SeedSequence((self.train.seed, epoch)).generate_state(3, np.uint64)
        order_seed, augmentation_seed, dropout_seed = (int(seed) for seed in seeds)
        order = torch.randperm(len(self.images), generator=torch.Generator().manual_seed(order_seed)).to(
            self.runtime.device
        )
        self.images.generator.manual_seed(augmentation_seed)
        torch.manual_seed(dropout_seed)
        return iter(order[: self.steps * self.train.batch_size].split(self.train.batch_size))

    def _mean(self, losses: Tensor, epoch: int) -> float:
        """The mean of the epoch's ``losses`` (steps,).

        Raises:
            UserError: one of them is NaN or infinite.
        """
        bad = torch.nonzero(~torch.isfinite(losses))
        if len(bad):
            first = int(bad[0])
            raise UserError(
                f"the loss became {losses[first].item()} in epoch {epoch}, batch {first + 1} of "
                f"{self.steps}: {self._remedy()}"
            )
        return losses.double().mean().item()

    def _remedy(self) -> str:
        peak = self.recipe.one_cycle_peak
        if peak:
            return f"lower reg.one_cycle_peak, the learning rate, from {peak}"
        return f"lower train.learning_rate from {self.train.learning_rate}"

    def state_dict(self) -> dict[str, Any]:
        """Everything that changes during training."""
        return {
            "history": self.history,
            "timing": self.timing,
            **{name: part.state_dict() for name, part in self._parts().items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from what `state_dict` gave."""
        self.history, self.timing = state["history"], state["timing"]
        for name, part in self._parts().items():
            part.load_state_dict(state[name])

    def _parts(self) -> dict[str, Any]:
        parts: dict[str, Any] = {"model": self.model}
        for kind, those in (("optimizer", self.optimizers), ("schedule", self.schedules)):
            parts |= {f"{kind} {number}": part for number, part in enumerate(those)}
        return parts | ({"average": self.average} if self.average else {})
