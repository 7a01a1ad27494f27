"""The picture of augmented samples: each row an original and what augmentation makes of it."""

import io
from pathlib import Path

import torch
from torchvision.transforms.functional import to_pil_image
from torchvision.utils import make_grid

from stages.study.augmentation import Augmentation
from stages.study.dataset import Split
from stages.study.files import write_bytes

ROWS, VERSIONS, SCALE = 8, 8, 2


def draw(split: Split, augmentation: Augmentation, seed: int, path: Path) -> None:
    """Write to ``path`` rows of one original (left, apart) and its augmented versions, as PNG."""
    generator = torch.Generator().manual_seed(seed)
    rows = min(ROWS, len(split))
    chosen = torch.randperm(len(split), generator=generator)[:rows]
    originals = split.images[chosen].float()
    indices = torch.arange(rows).repeat_interleave(VERSIONS)
    draws = augmentation.draw(len(indices), generator)
    versions = augmentation.apply(augmentation.pad(split.images[chosen]), indices, draws)
    left = _grid(originals, columns=1)
    right = _grid(versions, columns=VERSIONS)
    gap = torch.ones(3, left.shape[1], 4)
    picture = to_pil_image(torch.cat([left, gap, right], dim=2))
    content = io.BytesIO()
    picture.resize((SCALE * picture.width, SCALE * picture.height), resample=0).save(content, "png")
    write_bytes(path, content.getvalue())


def _grid(images: torch.Tensor, columns: int) -> torch.Tensor:
    """``images`` (N, H, W, 3), 0 to 255, as one (3, height, width) with values from 0 to 1."""
    return make_grid(images.permute(0, 3, 1, 2) / 255, nrow=columns, pad_value=1.0)
