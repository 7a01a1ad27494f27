"""Training and evaluation of a classifier."""

import math
import sys
import time
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim.lr_scheduler import OneCycleLR
from torch.optim.swa_utils import get_ema_multi_avg_fn
from tqdm import tqdm

from stages.study.augmentation import Augmentation
from stages.study.checkpoint import Checkpoint, code_digests, digest, runs_folder
from stages.study.dataset import Data
from stages.study.errors import UserError
from stages.study.files import write_json
from stages.study.images import Images
from stages.study.models import CNN, MLP
from stages.study.params import Train
from stages.study.runtime import Runtime

EVALUATION_BATCH = 500


@dataclass(frozen=True)
class Methods:
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


PLAIN = Methods()


@dataclass(frozen=True)
class Evaluation:
    """Mean cross entropy, share of correct predictions, and the predicted classes (N,) int64."""

    loss: float
    accuracy: float
    predictions: Tensor


@torch.inference_mode()
def evaluate(model: nn.Module, images: Images, runtime: Runtime) -> Evaluation:
    """Evaluate ``model`` on ``images`` in evaluation mode, then put its mode back."""
    was_training = model.training
    model.eval()
    logits = []
    for batch in torch.arange(len(images), device=runtime.device).split(EVALUATION_BATCH):
        with runtime.autocast():
            logits.append(model(images[batch][0]))
    model.train(was_training)
    outputs = torch.cat(logits).double()
    predictions = outputs.argmax(dim=1)
    return Evaluation(
        loss=cross_entropy(outputs, images.labels).item(),
        accuracy=(predictions == images.labels).double().mean().item(),
        predictions=predictions.cpu(),
    )


class Trainer:
    """A training run: model, optimizer, schedule, averaged weights and the figures so far.

    All randomness of an epoch (order, augmentation, dropout) is seeded from ``train.seed`` and the
    epoch's number, so that a run continued between two epochs ends as an uninterrupted one.
    """

    def __init__(
        self,
        model: MLP | CNN,
        data: Data,
        train: Train,
        runtime: Runtime,
        augmentation: Augmentation | None = None,
        methods: Methods = PLAIN,
    ) -> None:
        device = runtime.device
        self.train, self.runtime, self.methods = train, runtime, methods
        self.model = model.to(device).to(memory_format=torch.channels_last)
        self.images = Images(data.train, data, device, augmentation)
        self.test = Images(data.test, data, device)
        self.validation = Images(data.validation, data, device) if data.validation else None
        # whole batches only: every batch weighs the same, and batch norm never sees a lone image
        self.steps = len(self.images) // train.batch_size
        matrices = [weight for weight in model.parameters() if weight.dim() > 1]
        vectors = [weight for weight in model.parameters() if weight.dim() == 1]
        self.optimizer = torch.optim.Adam(
            [
                {"params": matrices, "weight_decay": methods.weight_decay},
                {"params": vectors, "weight_decay": 0.0},
            ],
            lr=train.learning_rate,
            betas=(train.betas[0], train.betas[1]),
            decoupled_weight_decay=True,
            fused=True,
        )
        total = train.epochs * self.steps
        self.schedule = (
            OneCycleLR(
                self.optimizer,
                methods.one_cycle_peak,
                total_steps=total,
                anneal_strategy="linear",
                cycle_momentum=False,
                final_div_factor=1000,
            )
            if methods.one_cycle_peak
            else None
        )
        self.average = deepcopy(self.model).requires_grad_(False) if methods.averaging else None
        self._blend = get_ema_multi_avg_fn(1 - 1 / max(1, methods.averaging * total))
        self.history: list[dict[str, float]] = []
        self.timing: list[dict[str, float]] = []
        self.key = digest(
            asdict(methods),
            train.model_dump(),
            asdict(augmentation) if augmentation else None,
            model.config,
            runtime.describe(),
            code_digests(),
            *model.state_dict().values(),
            *(t for s in (data.train, data.validation, data.test) if s for t in (s.images, s.labels)),
            data.mean,
            data.std,
        )

    @property
    def result(self) -> MLP | CNN:
        """The model that is evaluated and kept: the averaged one where there is one."""
        return self.model if self.average is None else self.average

    def run(self, checkpoint: Checkpoint, name: str) -> None:
        """Train the epochs that are missing, with a checkpoint and a run record after each.

        Raises:
            UserError: the loss became NaN or infinite.
            KeyboardInterrupt: with a line that says how to continue.
        """
        state = checkpoint.load()
        if state is not None:
            self.load_state_dict(state)
            print(f"{name}: continues after epoch {len(self.history)}", file=sys.stderr)
        epochs, saved = self.train.epochs, len(self.history)
        try:
            with tqdm(
                total=epochs * self.steps,
                initial=len(self.history) * self.steps,
                desc=name,
                unit="batch",
                disable=not sys.stderr.isatty(),
            ) as bar:
                while len(self.history) < epochs:
                    self._epoch(bar)
                    checkpoint.save(self.state_dict())
                    saved = len(self.history)
                    self.write_record(name)
                    figures = self.history[-1]
                    line = (
                        f"train loss {figures['train_loss']:.4f}  test loss "
                        f"{figures['test_loss']:.4f}  accuracy {figures['test_accuracy']:.4f}"
                    )
                    bar.set_postfix_str(line)
                    if bar.disable:
                        seconds = self.timing[-1]["seconds"]
                        print(
                            f"{name}: epoch {len(self.history)}/{epochs}  {line}  {seconds:.1f} s",
                            file=sys.stderr,
                            flush=True,
                        )
        except KeyboardInterrupt as stop:
            stop.args = (
                f"{name}: stopped after epoch {saved} of {epochs}; the same command continues from there",
            )
            raise

    def _epoch(self, bar: "tqdm[Any]") -> None:
        """Train one epoch, evaluate, and append to history and timing."""
        epoch = len(self.history) + 1
        start = time.perf_counter()
        losses = torch.empty(self.steps, device=self.runtime.device)
        self.model.train()
        for step, batch in enumerate(self._batches(epoch)):
            losses[step] = self.step(batch)
            bar.update()
        figures = {"epoch": epoch, "train_loss": self._mean(losses, epoch)}
        trained = time.perf_counter()
        for name, images in (("test", self.test), ("validation", self.validation)):
            if images is not None:
                evaluation = evaluate(self.result, images, self.runtime)
                figures[f"{name}_loss"] = evaluation.loss
                figures[f"{name}_accuracy"] = evaluation.accuracy
        if not all(math.isfinite(figure) for figure in figures.values()):
            raise UserError(f"after epoch {epoch} {figures} is not finite: {self._remedy()}")
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
        loss = cross_entropy(logits.float(), labels, label_smoothing=self.methods.label_smoothing)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        if self.schedule:
            self.schedule.step()
        if self.average is not None:
            self._blend(_floats(self.average), _floats(self.model), None)
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
        if self.methods.one_cycle_peak:
            return f"lower reg.one_cycle_peak, the learning rate, from {self.methods.one_cycle_peak}"
        return f"lower train.learning_rate from {self.train.learning_rate}"

    def write_record(self, name: str, **more: str) -> None:
        """Write ``runs/<name>.json``: what varies from run to run, and the figures so far."""
        epochs = [figures | timing for figures, timing in zip(self.history, self.timing, strict=True)]
        record = {
            **self.runtime.describe(),
            "reason": self.runtime.reason,
            **more,
            "epochs": epochs,
        }
        write_json(runs_folder() / f"{name}.json", record)

    def state_dict(self) -> dict[str, Any]:
        """Everything that changes during training."""
        parts = {name: getattr(self, name) for name in ("model", "optimizer", "schedule", "average")}
        return {
            "history": self.history,
            "timing": self.timing,
            **{name: part.state_dict() for name, part in parts.items() if part is not None},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from what `state_dict` gave."""
        self.history, self.timing = state["history"], state["timing"]
        for name in ("model", "optimizer", "schedule", "average"):
            if name in state:
                getattr(self, name).load_state_dict(state[name])


def _floats(model: nn.Module) -> list[Tensor]:
    """Weights and batch norm's running statistics of ``model``; its count of batches is no float."""
    return [tensor for tensor in (*model.parameters(), *model.buffers()) if tensor.is_floating_point()]
