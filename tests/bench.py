"""Speed, side by side in one run: ``make bench``. No test: it prints, and asserts nothing.

The yardstick is the script that a user writes after PyTorch's own tutorial: a dataset that transforms
one PIL image at a time, a ``DataLoader`` with two workers, fp32 (on a GPU without TF32, as here).
With ``--keras PYTHON``, a Python that has Keras and TensorFlow, there is a second one
(``make bench KERAS=...``). Rounds of all contestants take turns, so that a slower minute of the machine
meets all of them; each figure is the median of the rounds.
With ``--extra``, it measures instead what transformations of ``aug.extra`` cost. Run it on an idle machine.
"""

import argparse
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
import pandas as pd
import torch
import yaml
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.flop_counter import FlopCounterMode

from stages.augmentation.extra import EachImage
from stages.augmentation.transforms import Aug, augmentation
from stages.common.dataset import Data, Split
from stages.common.errors import UserError, run
from stages.common.params import check, load
from stages.training.evaluation import evaluate
from stages.training.params import Train
from stages.training.runtime import Runtime, prepare
from stages.training.trainer import Trainer
from tests.bench_yardsticks import keras_rounds, tutorial_steps
from tools.models import MODELS, script

ROUNDS, STEPS, BATCH = 15, 20, 128
# what a contestant is compared with; a model that is not here stands in the table without a ratio
YARDSTICKS = {
    "baseline": ["tutorial MLP"],
    "cnn": ["tutorial CNN", "Keras CNN"],
    "augmented": ["tutorial CNN, crop and flip", "Keras CNN, crop and flip", "cnn"],
    "regularized": ["cnn"],
}
EXTRA = """[{RandomHorizontalFlip: {p: 0.5}}, {RandomErasing: {p: 0.25}}, {RandomRotation: {degrees: 10}},
{ColorJitter: {brightness: 0.2, hue: 0.1}}, {TrivialAugmentWide: {}}]"""


def own_steps(trainer: Trainer) -> Iterator[None]:
    """Training steps of this project, for ever."""
    trainer.model.train()
    while True:
        for batch in torch.randperm(len(trainer.images), device=trainer.runtime.device).split(BATCH):
            if len(batch) == BATCH:
                trainer.step(batch)
                yield


def rate(images: int, work: Callable[[], object]) -> float:
    """Images per second of ``work`` that goes through ``images`` of them, a GPU's part included."""
    wait_for_gpu()
    start = time.perf_counter()
    work()
    wait_for_gpu()
    return images / (time.perf_counter() - start)


def wait_for_gpu() -> None:
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


def step_rate(steps: Iterator[None]) -> float:
    return rate(STEPS * BATCH, lambda: list(islice(steps, STEPS)))


def matrix_product_rate(dtype: torch.dtype, device: torch.device) -> float:
    """FLOP/s of a square matrix product, large enough for ``device``."""
    size = 8192 if device.type == "cuda" else 2048
    left, right = (torch.randn(size, size, dtype=dtype, device=device) for _ in range(2))
    return 2 * size**3 * rate(1, lambda: torch.mm(left, right))


def flop_per_image(model: nn.Module) -> float:
    """FLOP of a training step for one image: forward and backward, without a gradient of the image itself."""
    images = torch.zeros(2, 3, 32, 32)
    with FlopCounterMode(display=False) as counter:
        cross_entropy(model(images), torch.zeros(2, dtype=torch.int64)).backward()
    return float(counter.get_total_flops() / len(images))


def operators(name: str, steps: Iterator[None], device: torch.device) -> str:
    """Operators of ten training steps with their share of the time, those above one percent, as Markdown.

    The time is the processor's, and the GPU's where the training is there.
    """
    kind = torch.profiler.ProfilerActivity
    activities, time_of = [kind.CPU], "self_cpu_time_total"
    if device.type == "cuda":
        activities, time_of = [kind.CPU, kind.CUDA], "self_device_time_total"
    with torch.profiler.profile(activities=activities) as profile:
        for _ in range(10):
            next(steps)
    # the time of an operator on the GPU stands again in the row of each kernel that it starts
    events = [event for event in profile.key_averages() if event.device_type.name == "CPU"]
    times = pd.Series({f"`{event.key}`": getattr(event, time_of) for event in events})
    share = (times / times.sum()).sort_values(ascending=False).rename_axis(name)
    return str(share[share > 0.01].map("{:.1%}".format).to_frame("share").to_markdown())


def random_data() -> Data:
    """10,000 random images, for training and testing."""
    generator = np.random.default_rng(0)
    split = Split(
        torch.from_numpy(generator.integers(0, 256, (10_000, 32, 32, 3), np.uint8)),
        torch.from_numpy(generator.integers(0, 10, 10_000)),
    )
    return Data(split, None, split, torch.full((3,), 0.48), torch.full((3,), 0.25), tuple("0123456789"))


def trainers(data: Data, train: Train, runtime: Runtime) -> dict[str, Trainer]:
    """A training run of each model."""
    # the schedule must be longer than all rounds together
    train = train.model_copy(update={"epochs": 100})
    return {model: script(model).trainer(data, train, runtime) for model in MODELS}


def measured(contestants: Mapping[str, Callable[[], float]]) -> pd.DataFrame:
    """A column for each contestant, a row for each round, in which they take turns."""
    for measure in contestants.values():
        measure()  # warm up
    return pd.DataFrame([{name: measure() for name, measure in contestants.items()} for _ in range(ROUNDS)])


def compare_trainings(train: Train, runtime: Runtime, keras: str | None) -> None:
    """Print the speed of all trainings beside their yardsticks, and what the processor spends it on."""
    data, device = random_data(), runtime.device
    own = trainers(data, train, runtime)
    mlp, cnn = script("baseline").network, script("cnn").network
    loops = {
        "tutorial MLP": tutorial_steps(mlp(), data.train, BATCH, device),
        "tutorial CNN": tutorial_steps(cnn(), data.train, BATCH, device),
        "tutorial CNN, crop and flip": tutorial_steps(cnn(), data.train, BATCH, device, augmented=True),
        **{model: own_steps(trainer) for model, trainer in own.items()},
    }
    contestants: dict[str, Callable[[], float]] = {
        name: partial(step_rate, steps) for name, steps in loops.items()
    }
    if keras:
        contestants["Keras CNN"] = keras_rounds(keras, BATCH, STEPS)
        contestants["Keras CNN, crop and flip"] = keras_rounds(keras, BATCH, STEPS, "augmented")
    images, test = own["augmented"].images, own["cnn"].test
    contestants["augmented batches alone"] = lambda: rate(
        len(images),
        lambda: [images[batch] for batch in torch.randperm(len(images), device=device).split(BATCH)],
    )
    contestants["evaluation of the CNN"] = lambda: rate(
        len(test), lambda: evaluate(own["cnn"].model, test, runtime)
    )
    product = f"{runtime.precision} matrix product"
    dtype = torch.bfloat16 if runtime.precision == "bf16" else torch.float32
    contestants[product] = partial(matrix_product_rate, dtype, device)

    table = measured(contestants).agg(["median", "min", "max"]).T
    table.columns = pd.Index(["images/s", "slowest", "fastest"])
    median = table["images/s"]
    table["ratio"] = [
        ", ".join(
            f"{median[name] / median[other]:.2f} x {other}"
            for other in YARDSTICKS.get(name, [])
            if other in median
        )
        for name in table.index
    ]
    print(table.drop(product).to_markdown(floatfmt=",.0f", colalign=("left", *["right"] * 4)))
    reached, most = median["cnn"] * flop_per_image(cnn()), median[product]
    print(
        f"\nThe CNN's training step computes {reached / 1e9:.0f} GFLOP/s, "
        f"{reached / most:.2f} of the {most / 1e9:.0f} GFLOP/s of this {device.type}'s {product}."
    )
    for model in MODELS:
        print(f"\n{operators(model, loops[model], device)}")


def compare_transformations(extra: list[dict[str, Any]], device: torch.device) -> None:
    """Print what each transformation of ``extra`` costs, and all together, beside the others of ``aug``."""
    transforms: dict[str, Callable[[Tensor], Tensor]] = {
        "aug without extra": augmentation(**dict(load(Aug)) | {"extra": []}),
        **{
            yaml.safe_dump(entry, default_flow_style=True, width=200).strip(): EachImage([entry])
            for entry in extra
        },
    }
    if len(extra) > 1:
        transforms["all of these"] = EachImage(extra)
    images = random_data().train.images[:BATCH].to(device).permute(0, 3, 1, 2)
    contestants = {
        name: partial(rate, BATCH, partial(transform, images)) for name, transform in transforms.items()
    }
    table = (1000 * BATCH / measured(contestants)).agg(["median", "min", "max"]).T
    table.columns = pd.Index([f"ms for {BATCH} images", "fastest", "slowest"])
    print(table.to_markdown(floatfmt=".2f"))


def transformations(text: str) -> list[dict[str, Any]]:
    """What ``--extra`` was given, checked as ``aug.extra`` is."""
    try:
        section = load(Aug).model_dump() | {"extra": yaml.safe_load(text)}
    except yaml.YAMLError as error:
        raise UserError(f"--extra is not valid YAML: {' '.join(str(error).split())}") from None
    return check(Aug, section, "--extra", ("aug",)).extra


def main() -> None:
    parser = argparse.ArgumentParser(
        allow_abbrev=False, description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--keras", metavar="PYTHON", help="a Python that has Keras and TensorFlow")
    parser.add_argument(
        "--extra",
        metavar="LIST",
        nargs="?",
        const=EXTRA,
        help="measure transformations instead, a list as for aug.extra; without one, a few common ones",
    )
    options = parser.parse_args()
    extra = transformations(options.extra) if options.extra else None
    train = load(Train)
    runtime = prepare(train)
    print(f"{runtime.precision} on {runtime.describe()['device_name']}, {torch.get_num_threads()} threads\n")
    if extra is not None:
        compare_transformations(extra, runtime.device)
    else:
        compare_trainings(train, runtime, options.keras)


if __name__ == "__main__":
    run(main)
