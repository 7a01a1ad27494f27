"""Speed, side by side in one run: ``make bench``. No test: it prints, and asserts nothing.

The yardstick is the script that a user writes after PyTorch's own tutorial: a dataset that transforms
one PIL image at a time, a ``DataLoader`` with two workers, fp32. Rounds of all contestants take turns,
so that a slower minute of the machine meets all of them; each figure is the median of the rounds.
Run it on an idle machine.
"""

import statistics
import time
from collections.abc import Callable, Iterator

import numpy as np
import torch
from PIL import Image
from tabulate import tabulate
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from stages.study.augmentation import Augmentation
from stages.study.dataset import Data, Split
from stages.study.models import CNN, MLP
from stages.study.params import load
from stages.study.runtime import prepare
from stages.study.training import Methods, Trainer, evaluate

ROUNDS, STEPS, BATCH = 5, 20, 128
FLOP_PER_IMAGE = 3 * 2 * 14_359_552  # FLOP of the sheet's CNN per image: forward, and twice that backward


class Tutorial(Dataset[tuple[Tensor, int]]):
    """PIL images, transformed one at a time."""

    def __init__(self, split: Split, augmented: bool) -> None:
        self.images, self.labels = split.images.numpy(), split.labels.tolist()
        steps = [transforms.RandomCrop(32, padding=2), transforms.RandomHorizontalFlip()] if augmented else []
        normalize = transforms.Normalize((0.49, 0.48, 0.45), (0.25, 0.24, 0.26))
        self.transform = transforms.Compose([*steps, transforms.ToTensor(), normalize])

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.images[index])), self.labels[index]


def tutorial_steps(model: nn.Module, split: Split, augmented: bool) -> Iterator[None]:
    """Training steps of the tutorial's script, for ever."""
    loader = DataLoader(
        Tutorial(split, augmented), BATCH, shuffle=True, num_workers=2, persistent_workers=True
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-4, betas=(0.9, 0.95))
    criterion = nn.CrossEntropyLoss()
    while True:
        for images, labels in loader:
            if len(labels) == BATCH:
                optimizer.zero_grad()
                criterion(model(images), labels).backward()
                optimizer.step()
                yield


def own_steps(trainer: Trainer) -> Iterator[None]:
    """Training steps of this project, for ever."""
    trainer.model.train()
    while True:
        for batch in torch.randperm(len(trainer.images)).split(BATCH):
            if len(batch) == BATCH:
                trainer.step(batch)
                yield


def rate(steps: Iterator[None]) -> float:
    """Images per second over a round."""
    start = time.perf_counter()
    for _ in range(STEPS):
        next(steps)
    return STEPS * BATCH / (time.perf_counter() - start)


def matrix_product_rate(dtype: torch.dtype) -> float:
    """FLOP/s of a 2048 x 2048 matrix product."""
    left, right = (torch.randn(2048, 2048).to(dtype) for _ in range(2))
    start = time.perf_counter()
    torch.mm(left, right)
    return 2 * 2048**3 / (time.perf_counter() - start)


def main() -> None:
    params = load()
    runtime = prepare(params.train)
    generator = np.random.default_rng(0)
    split = Split(
        torch.from_numpy(generator.integers(0, 256, (10_000, 32, 32, 3), np.uint8)),
        torch.from_numpy(generator.integers(0, 10, 10_000)),
    )
    data = Data(split, None, split, torch.full((3,), 0.48), torch.full((3,), 0.25), tuple("0123456789"))
    augmentation = Augmentation(params.aug.crop_pad, params.aug.flip, params.aug.brightness)
    reg = params.reg
    methods = Methods(reg.label_smoothing, reg.weight_decay, reg.one_cycle_peak, reg.averaging)
    # the schedule's length must outlast the rounds
    train = params.train.model_copy(update={"epochs": 100})
    blocks = params.cnn.blocks

    def trainer(model: MLP | CNN, *more: Augmentation | Methods | None) -> Trainer:
        return Trainer(model, data, train, runtime, *more)  # type: ignore[arg-type]

    regularized = CNN(blocks, batch_norm=reg.batch_norm, dropout=reg.dropout)
    contestants: dict[str, Callable[[], float]] = {}
    for name, steps in {
        "tutorial MLP": tutorial_steps(MLP(params.baseline.hidden), split, augmented=False),
        "tutorial CNN": tutorial_steps(CNN(blocks), split, augmented=False),
        "tutorial CNN, crop and flip": tutorial_steps(CNN(blocks), split, augmented=True),
        "baseline": own_steps(trainer(MLP(params.baseline.hidden))),
        "cnn": own_steps(cnn := trainer(CNN(blocks))),
        "augmented": own_steps(trainer(CNN(blocks), augmentation)),
        "regularized": own_steps(trainer(regularized, augmentation, methods)),
    }.items():
        contestants[name] = lambda steps=steps: rate(steps)  # type: ignore[misc]

    def evaluation() -> float:
        start = time.perf_counter()
        evaluate(cnn.model, cnn.test, runtime)
        return len(cnn.test) / (time.perf_counter() - start)

    contestants["evaluation of the CNN"] = evaluation
    dtype = torch.bfloat16 if runtime.precision == "bf16" else torch.float32
    contestants["matrix product (FLOP/s)"] = lambda: matrix_product_rate(dtype)

    for measure in contestants.values():
        measure()  # warm up
    rounds = [{name: measure() for name, measure in contestants.items()} for _ in range(ROUNDS)]
    median = {name: statistics.median(row[name] for row in rounds) for name in contestants}

    yardsticks = {
        "baseline": "tutorial MLP",
        "cnn": "tutorial CNN",
        "augmented": "tutorial CNN, crop and flip",
        "regularized": "cnn",
    }
    rows = [
        (
            name,
            f"{value:,.0f}",
            f"{min(row[name] for row in rounds):,.0f}",
            f"{max(row[name] for row in rounds):,.0f}",
            f"{value / median[yardsticks[name]]:.2f} x {yardsticks[name]}" if name in yardsticks else "",
        )
        for name, value in median.items()
    ]
    print(f"{runtime.precision} on {runtime.describe()['device_name']}, {torch.get_num_threads()} threads\n")
    head = ("", "images/s", "slowest", "fastest", "ratio")
    print(tabulate(rows, head, tablefmt="pipe", colalign=("left", *["right"] * 4), disable_numparse=True))
    print(f"\naugmented over cnn: {median['augmented'] / median['cnn']:.2f}")
    share = median["cnn"] * FLOP_PER_IMAGE / median["matrix product (FLOP/s)"]
    print(f"FLOP/s of the CNN's training step over those of the matrix product: {share:.2f}")


if __name__ == "__main__":
    main()
