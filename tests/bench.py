"""Speed, side by side in one run: ``make bench``. No test: it prints, and asserts nothing.

The yardstick is the script that a user writes after PyTorch's own tutorial: a dataset that transforms
one PIL image at a time, a ``DataLoader`` with two workers, fp32. With ``--keras PYTHON``, a Python that
has Keras and TensorFlow, there is a second one (``make bench KERAS=...``). Rounds of all contestants take
turns, so that a slower minute of the machine meets all of them; each figure is the median of the rounds.
Run it on an idle machine.
"""

import argparse
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tabulate import tabulate
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from stages.augmentation.transforms import Augmentation
from stages.common.dataset import Data, Split
from stages.networks.models import CNN, MLP
from stages.common.params import load
from stages.training.runtime import prepare
from stages.training.trainer import Methods, Trainer, evaluate

ROUNDS, STEPS, BATCH = 15, 20, 128
# of the sheet's CNN: forward, and twice that backward, but no gradient for the image itself
FLOP_PER_IMAGE = 2 * (3 * 14_359_552 - 777_600)


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


def keras_rounds(python: str, *words: str) -> Callable[[], float]:
    """Rounds of training steps in Keras, in a process of its own; each call gives images per second."""
    script = Path(__file__).with_name("bench_keras.py")
    process = subprocess.Popen(
        [python, script, str(BATCH), str(STEPS), *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdin
    assert process.stdout
    requests, answers = process.stdin, process.stdout

    def measure() -> float:
        print(file=requests, flush=True)
        return float(answers.readline())

    return measure


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


def operators(steps: Iterator[None]) -> list[tuple[str, str]]:
    """Operators of ten training steps with their share of the time, those above one percent."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        for _ in range(10):
            next(steps)
    events = sorted(profile.key_averages(), key=lambda event: -event.self_cpu_time_total)
    total = sum(event.self_cpu_time_total for event in events)
    shares = ((f"`{event.key}`", event.self_cpu_time_total / total) for event in events)
    return [(name, f"{share:.1%}") for name, share in shares if share > 0.01]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keras", metavar="PYTHON", help="a Python that has Keras and TensorFlow")
    keras = parser.parse_args().keras
    params = load()
    # the clock does not wait for a GPU, and the yardstick is a script for the processor
    runtime = prepare(params.train.model_copy(update={"device": "cpu"}))
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
    loops = {
        "tutorial MLP": tutorial_steps(MLP(params.baseline.hidden), split, augmented=False),
        "tutorial CNN": tutorial_steps(CNN(blocks), split, augmented=False),
        "tutorial CNN, crop and flip": tutorial_steps(CNN(blocks), split, augmented=True),
        "baseline": own_steps(trainer(MLP(params.baseline.hidden))),
        "cnn": own_steps(cnn := trainer(CNN(blocks))),
        "augmented": own_steps(augmented := trainer(CNN(blocks), augmentation)),
        "regularized": own_steps(trainer(regularized, augmentation, methods)),
    }
    for name, steps in loops.items():
        contestants[name] = lambda steps=steps: rate(steps)  # type: ignore[misc]

    if keras:
        contestants["Keras CNN"] = keras_rounds(keras)
        contestants["Keras CNN, crop and flip"] = keras_rounds(keras, "augmented")

    def augmentation_alone() -> float:
        start = time.perf_counter()
        for batch in torch.randperm(len(augmented.images)).split(BATCH):
            augmented.images[batch]
        return len(augmented.images) / (time.perf_counter() - start)

    def evaluation() -> float:
        start = time.perf_counter()
        evaluate(cnn.model, cnn.test, runtime)
        return len(cnn.test) / (time.perf_counter() - start)

    contestants["augmented batches alone"] = augmentation_alone
    contestants["evaluation of the CNN"] = evaluation
    dtype = torch.bfloat16 if runtime.precision == "bf16" else torch.float32
    product = f"{runtime.precision} matrix product"
    contestants[product] = lambda: matrix_product_rate(dtype)

    for measure in contestants.values():
        measure()  # warm up
    rounds = [{name: measure() for name, measure in contestants.items()} for _ in range(ROUNDS)]
    median = {name: statistics.median(row[name] for row in rounds) for name in contestants}

    yardsticks = {
        "baseline": ["tutorial MLP"],
        "cnn": ["tutorial CNN", "Keras CNN"],
        "augmented": ["tutorial CNN, crop and flip", "Keras CNN, crop and flip", "cnn"],
        "regularized": ["cnn"],
    }
    rows = [
        (
            name,
            f"{value:,.0f}",
            f"{min(row[name] for row in rounds):,.0f}",
            f"{max(row[name] for row in rounds):,.0f}",
            ", ".join(
                f"{value / median[other]:.2f} x {other}"
                for other in yardsticks.get(name, [])
                if other in median
            ),
        )
        for name, value in median.items()
        if name != product
    ]
    print(f"{runtime.precision} on {runtime.describe()['device_name']}, {torch.get_num_threads()} threads\n")
    head = ("", "images/s", "slowest", "fastest", "ratio")
    print(tabulate(rows, head, tablefmt="pipe", colalign=("left", *["right"] * 4), disable_numparse=True))
    reached, most = median["cnn"] * FLOP_PER_IMAGE, median[product]
    print(
        f"\nThe CNN's training step computes {reached / 1e9:.0f} GFLOP/s, "
        f"{reached / most:.2f} of the {most / 1e9:.0f} GFLOP/s of the processor's {product}."
    )
    for name in ("baseline", "cnn", "regularized"):
        print(f"\n{tabulate(operators(loops[name]), (name, 'share'), tablefmt='pipe')}")


if __name__ == "__main__":
    main()
