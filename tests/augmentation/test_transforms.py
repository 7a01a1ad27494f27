from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision.transforms.functional as tv
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from stages.augmentation.transforms import Augmentation, Draws
from stages.common.dataset import Split
from stages.train_augmented import picture


def images(count: int = 6, height: int = 20, width: int = 24) -> Tensor:
    """Random images that are not square, so that no axis passes for the other."""
    size = (count, height, width, 3)
    return torch.randint(256, size, dtype=torch.uint8, generator=torch.Generator().manual_seed(7))


def by_torchvision(image: Tensor, crop_pad: int, top: int, left: int, flip: bool, factor: float) -> Tensor:
    """One image (H, W, C) uint8 through torchvision's functions on floats from 0 to 1; as (H, W, C)."""
    height, width, _ = image.shape
    result: Tensor = tv.pad(image.permute(2, 0, 1).float() / 255, [crop_pad] * 4, padding_mode="reflect")
    result = tv.crop(result, top, left, height, width)
    if flip:
        result = tv.hflip(result)
    result = tv.adjust_brightness(result, factor)
    return result.permute(1, 2, 0)


@given(
    crop_pad=st.integers(0, 16),
    flip=st.sampled_from([0.0, 0.5, 1.0]),
    brightness=st.sampled_from([0.0, 0.3, 1.0]),
    seed=st.integers(0, 2**32 - 1),
)
def test_a_batch_equals_torchvision_image_by_image(
    crop_pad: int, flip: float, brightness: float, seed: int
) -> None:
    augmentation = Augmentation(crop_pad, flip, brightness)
    originals = images()
    indices = torch.tensor([3, 0, 5, 3, 1])
    draws = augmentation.draw(len(indices), torch.Generator().manual_seed(seed))
    batch = augmentation.apply(augmentation.pad(originals), indices, draws)
    factors = torch.ones(len(indices)) if draws.brightness is None else draws.brightness
    assert batch.shape == (5, 20, 24, 3)
    for n, index in enumerate(indices):
        expected = by_torchvision(
            originals[index],
            crop_pad,
            int(draws.top[n]),
            int(draws.left[n]),
            bool(draws.flip[n]),
            float(factors[n]),
        )
        torch.testing.assert_close(batch[n] / 255, expected, rtol=0, atol=3e-7)


def test_crop_and_flip_move_pixels_and_change_none() -> None:
    augmentation = Augmentation(4, 0.5, 0.0)
    original = torch.arange(20 * 24 * 3).reshape(1, 20, 24, 3).remainder(251).to(torch.uint8)
    draws = Draws(torch.tensor([4, 0]), torch.tensor([4, 8]), torch.tensor([False, True]), None)
    same, moved = augmentation.apply(augmentation.pad(original), torch.tensor([0, 0]), draws)
    assert torch.equal(same, original[0].float())
    # up by 4 and right by 4, then mirrored: the pixel (0, 0) comes from row -4, column 23 + 4,
    # which reflection finds at row 4 and column 23 - 4
    assert torch.equal(moved[0, 0], original[0, 4, 19].float())


def test_padding_more_images_than_one_chunk() -> None:
    many = images(count=2050, height=3, width=4)
    padded = Augmentation(2, 0.0, 0.0).pad(many)
    expected = tv.pad(many.permute(0, 3, 1, 2), [2] * 4, padding_mode="reflect").permute(0, 2, 3, 1)
    assert torch.equal(padded, expected)


def test_draws_are_uniform_over_offsets_and_flips() -> None:
    count, pad = 50_000, 2
    draws = Augmentation(pad, 0.3, 0.2).draw(count, torch.Generator().manual_seed(0))
    cells = torch.stack([draws.top, draws.left, draws.flip.long()])
    assert cells.min() == 0
    assert cells[:2].max() == 2 * pad
    seen = torch.zeros(5, 5, 2).index_put(tuple(cells), torch.ones(count), accumulate=True)
    share = torch.tensor([0.7, 0.3]) / 25
    five_deviations = 5 * (count * share * (1 - share)).sqrt()
    assert ((seen - count * share).abs() < five_deviations).all()
    assert draws.brightness is not None
    assert 0.8 <= draws.brightness.min() < 0.801
    assert 1.199 < draws.brightness.max() <= 1.2
    assert draws.brightness.mean() == pytest.approx(1, abs=0.003)
    assert torch.corrcoef(torch.stack([draws.brightness, draws.flip.float()]))[0, 1].abs() < 0.025


def test_switched_off_is_the_identity() -> None:
    augmentation = Augmentation(0, 0.0, 0.0)
    originals = images()
    draws = augmentation.draw(6, torch.Generator())
    assert torch.equal(
        augmentation.apply(augmentation.pad(originals), torch.arange(6), draws), originals.float()
    )


def test_a_seed_repeats_its_draws() -> None:
    augmentation = Augmentation(3, 0.5, 0.2)

    def draw(seed: int) -> Tensor:
        draws = augmentation.draw(40, torch.Generator().manual_seed(seed))
        assert draws.brightness is not None
        return torch.stack([draws.top, draws.left, draws.flip, draws.brightness])

    assert torch.equal(draw(1), draw(1))
    assert not torch.equal(draw(1), draw(2))


def test_the_picture_has_the_originals_beside_what_became_of_them(tmp_path: Path) -> None:
    split = Split(images(10, 32, 32), torch.zeros(10, dtype=torch.int64))
    picture(split, Augmentation(0, 1.0, 0.0), 0, tmp_path / "picture.png")
    with Image.open(tmp_path / "picture.png") as drawn:
        pixels = torch.from_numpy(np.array(drawn))[::2, ::2]  # two by two pixels are one
    assert pixels.shape == (8 * 34, 9 * 34 + 6, 3)
    chosen = torch.randperm(10, generator=torch.Generator().manual_seed(0))[:8]
    for row, original in enumerate(split.images[chosen]):
        tiles = pixels[row * 34 + 1 : row * 34 + 33]
        torch.testing.assert_close(tiles[:, 1:33], original)
        for column in range(8):
            left = 34 + 6 + column * 34 + 1
            torch.testing.assert_close(tiles[:, left : left + 32], original.flip(1))
