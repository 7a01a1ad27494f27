"""Sheet b.1 to b.4: the CNN on augmented images."""

import io
from pathlib import Path

import torch
from torchvision.transforms.functional import to_pil_image
from torchvision.utils import make_grid

from stages.study.augmentation import Augmentation
from stages.study.dataset import Split, load_data
from stages.study.errors import run
from stages.study.files import write_bytes
from stages.study.models import CNN
from stages.study.params import load
from stages.study.results import train_and_write
from stages.study.runtime import prepare


def main() -> None:
    params = load()
    runtime = prepare(params.train)
    data = load_data()
    augmentation = Augmentation(params.aug.crop_pad, params.aug.flip, params.aug.brightness)
    picture(data.train, augmentation, params.train.seed, Path("plots/augmentations.png"))
    cnn = params.cnn
    model = CNN(cnn.blocks, cnn.kernel_size, cnn.padding, relu_logits=cnn.relu_logits)
    train_and_write("augmented", model, data, params.train, runtime, augmentation)


def picture(split: Split, augmentation: Augmentation, seed: int, path: Path) -> None:
    """Write rows of an original (left, apart) and eight augmented versions of it, as PNG."""
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(len(split), generator=generator)[:8]
    padded = augmentation.pad(split.images[chosen])
    indices = torch.arange(len(chosen)).repeat_interleave(8)
    versions = augmentation.apply(padded, indices, augmentation.draw(len(indices), generator))
    left, right = (
        make_grid(images.permute(0, 3, 1, 2) / 255, nrow=columns, pad_value=1.0)
        for images, columns in ((split.images[chosen], 1), (versions, 8))
    )
    image = to_pil_image(torch.cat([left, torch.ones(3, left.shape[1], 6), right], dim=2))
    content = io.BytesIO()
    image.resize((2 * image.width, 2 * image.height), resample=0).save(content, "png")
    write_bytes(path, content.getvalue())


if __name__ == "__main__":
    run(main)
