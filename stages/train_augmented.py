"""Sheet b.1 to b.4: the CNN on augmented images."""

import io
from pathlib import Path

import torch
from PIL import Image
from torch.nn.functional import pad

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
    originals = split.images[chosen]
    indices = torch.arange(len(chosen)).repeat_interleave(8)
    draws = augmentation.draw(len(indices), generator)
    versions = augmentation.apply(augmentation.pad(originals), indices, draws).round().byte()
    tiles = torch.cat([originals[:, None], versions.unflatten(0, (-1, 8))], dim=1)  # (row, column, H, W, C)
    tiles = pad(tiles, (0, 0, 1, 1, 1, 1), value=255)
    left, right = (part.transpose(1, 2).flatten(0, 1).flatten(1, 2) for part in (tiles[:, :1], tiles[:, 1:]))
    image = Image.fromarray(torch.cat([pad(left, (0, 0, 0, 6), value=255), right], dim=1).numpy())
    content = io.BytesIO()
    image.resize((2 * image.width, 2 * image.height), resample=Image.Resampling.NEAREST).save(content, "png")
    write_bytes(path, content.getvalue())


if __name__ == "__main__":
    run(main)
