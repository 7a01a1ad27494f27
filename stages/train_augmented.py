"""Sheet b.1 to b.3: the CNN on augmented images."""

from pathlib import Path

from stages.study.augmentation import Augmentation
from stages.study.augmentation_picture import draw
from stages.study.dataset import load_data
from stages.study.errors import run
from stages.study.models import CNN
from stages.study.params import load
from stages.study.results import train_and_write
from stages.study.runtime import prepare


def main() -> None:
    params = load()
    runtime = prepare(params.train)
    data = load_data()
    augmentation = Augmentation(params.aug.crop_pad, params.aug.flip, params.aug.brightness)
    draw(data.train, augmentation, params.train.seed, Path("plots/augmentations.png"))
    model = CNN(params.cnn.blocks, params.cnn.kernel_size, params.cnn.padding)
    train_and_write("augmented", model, data, params.train, runtime, augmentation)


if __name__ == "__main__":
    run(main)
