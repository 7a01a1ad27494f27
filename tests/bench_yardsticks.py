"""What ``tests.bench`` compares with: the script of PyTorch's tutorial, and Keras in a process of its own."""

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from stages.common.dataset import Split


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


def tutorial_steps(
    model: nn.Module, split: Split, batch: int, device: torch.device, augmented: bool = False
) -> Iterator[None]:
    """Training steps of the tutorial's script, for ever."""
    model = model.to(device)
    loader = DataLoader(
        Tutorial(split, augmented), batch, shuffle=True, num_workers=2, persistent_workers=True
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-4, betas=(0.9, 0.95))
    criterion = nn.CrossEntropyLoss()
    while True:
        for images, labels in loader:
            if len(labels) == batch:
                optimizer.zero_grad()
                criterion(model(images.to(device)), labels.to(device)).backward()
                optimizer.step()
                yield


def keras_rounds(python: str, batch: int, steps: int, *words: str) -> Callable[[], float]:
    """Rounds of training steps in Keras, in a process of its own; each call gives images per second."""
    process = subprocess.Popen(
        [python, Path(__file__).with_name("bench_keras.py"), str(batch), str(steps), *words],
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
