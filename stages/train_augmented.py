"""Programming b.1 to b.4: the CNN on augmented images."""

import io
from pathlib import Path

import torch
from torch.nn.functional import pad
from torchvision.transforms.v2.functional import to_pil_image
from torchvision.utils import make_grid

from stages.augmentation.transforms import Aug, augmentation
from stages.common.dataset import Data, load_data
from stages.common.files import write_bytes
from stages.common.params import load
from stages.common.stage import run
from stages.networks.models import CNN
from stages.networks.params import Cnn
from stages.training.params import Train
from stages.training.run import train_and_write
from stages.training.runtime import Runtime, prepare
from stages.training.trainer import Trainer


def main() -> None:
    train = load(Train)
    runtime = prepare(train)
    augmented = trainer(load_data(), train, runtime)
    draw_examples(augmented, Path("plots/augmentations.png"))
    train_and_write("augmented", augmented)


def network() -> CNN:
    return CNN(**dict(load(Cnn)))


def trainer(data: Data, train: Train, runtime: Runtime) -> Trainer:
    return Trainer(network(), data, train, runtime, augmentation(**dict(load(Aug))))


def draw_examples(trainer: Trainer, path: Path) -> None:
    """Write rows of an original (left, apart) and eight versions of it as training sees them, as PNG."""
    images, seed = trainer.images, trainer.train.seed
    chosen = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))[:8]
    originals = trainer.data.train.images[chosen].permute(0, 3, 1, 2)
    images.generator.manual_seed(seed)  # each epoch of the training seeds it anew
    versions = images.pixels(chosen.repeat_interleave(8).to(images.labels.device)).cpu()
    left, right = (
        make_grid(part, nrow, padding=1, pad_value=255) for part, nrow in ((originals, 1), (versions, 8))
    )
    picture = to_pil_image(torch.cat([pad(left, (0, 6), value=255), right], dim=2))
    content = io.BytesIO()
    picture.resize((2 * picture.width, 2 * picture.height), resample=0).save(content, "png")
    write_bytes(path, content.getvalue())


if __name__ == "__main__":
    run(main)
