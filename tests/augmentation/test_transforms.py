from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as tv

from stages.augmentation.transforms import (
    RandomBrightness,
    RandomCrop,
    RandomHorizontalFlip,
    augmentation,
)
from stages.networks.images import drawing_from
from stages.networks.models import CNN
from stages.train_augmented import draw_examples
from stages.training.trainer import Trainer
from tests.tiny import CPU, tiny_data, tiny_train


def images(count: int = 6, height: int = 20, width: int = 24) -> Tensor:
    """Random images (N, 3, H, W) that are not square, so that no axis passes for the other."""
    size = (count, height, width, 3)
    pixels = torch.randint(256, size, dtype=torch.uint8, generator=torch.Generator().manual_seed(7))
    return pixels.permute(0, 3, 1, 2)


def by_torchvision(image: Tensor, crop_pad: int, top: int, left: int, flip: bool, factor: float) -> Tensor:
    """One image (C, H, W) through torchvision's functions, which are given the draws."""
    result: Tensor = tv.pad(image, [crop_pad] * 4, padding_mode="reflect")
    result = tv.crop(result, top, left, *image.shape[1:])
    if flip:
        result = tv.horizontal_flip(result)
    return tv.adjust_brightness(result, factor) if factor != 1 else result


def draws(transforms: v2.Compose, batch: Tensor, seed: int) -> dict[str, Any]:
    """What the transformations draw with ``seed``, by name, as lists."""
    torch.manual_seed(seed)
    params = [transform.make_params([batch]) for transform in transforms.transforms]
    return {name: value.flatten().tolist() for param in params for name, value in param.items()}


@given(
    crop_pad=st.integers(0, 16),
    flip=st.sampled_from([0.0, 0.5, 1.0]),
    brightness=st.sampled_from([0.0, 0.3, 1.0]),
    seed=st.integers(0, 2**32 - 1),
    floats=st.booleans(),
)
def test_a_batch_equals_torchvision_image_by_image(
    crop_pad: int, flip: float, brightness: float, seed: int, floats: bool
) -> None:
    transforms = augmentation(crop_pad, flip, brightness)
    batch = images() / 255 if floats else images()
    drawn = draws(transforms, batch, seed)
    torch.manual_seed(seed)
    result = transforms(batch)
    assert (result.shape, result.dtype) == (batch.shape, batch.dtype)
    for n, image in enumerate(batch):
        place = (drawn["top"][n], drawn["left"][n])
        expected = by_torchvision(image, crop_pad, *place, drawn["flip"][n], drawn["factor"][n])
        assert torch.equal(result[n], expected)


@pytest.mark.parametrize("shape", [(3, 20, 24), (2, 3, 3, 20, 24), (1, 3, 20, 24)])
def test_one_image_and_clips_are_taken_as_torchvision_takes_them(shape: tuple[int, ...]) -> None:
    batch = images()[: torch.Size(shape[:-3]).numel()].reshape(shape)
    transforms = augmentation(2, 0.5, 0.3)
    torch.manual_seed(3)
    result = transforms(batch)
    torch.manual_seed(3)
    assert torch.equal(result, transforms(batch.reshape(-1, 3, 20, 24)).view(shape))
    assert not torch.equal(result, batch)


def test_the_layout_in_memory_does_not_matter() -> None:
    transforms = augmentation(2, 0.5, 0.3)
    torch.manual_seed(3)
    channels_last = transforms(images())
    torch.manual_seed(3)
    assert torch.equal(channels_last, transforms(images().contiguous()))


def test_crop_and_flip_move_pixels_and_change_none() -> None:
    image = torch.arange(20 * 24 * 3).reshape(1, 20, 24, 3).remainder(251).byte().permute(0, 3, 1, 2)
    moved = RandomCrop(4).transform(image, {"top": torch.tensor([0]), "left": torch.tensor([8])})
    mirrored = RandomHorizontalFlip(0.5).transform(moved, {"flip": torch.ones(1, 1, 1, 1, dtype=torch.bool)})
    # up by 4 and right by 4, then mirrored: the pixel (0, 0) comes from row -4, column 23 + 4,
    # which reflection finds at row 4 and column 23 - 4
    assert torch.equal(mirrored[0, :, 0, 0], image[0, :, 4, 19])


def test_a_crop_needs_pixels_to_reflect() -> None:
    with pytest.raises(ValueError, match="no 20 pixels to reflect in images of"):
        RandomCrop(20)(images())
    RandomCrop(19)(images())


def test_draws_are_uniform_over_offsets_and_flips() -> None:
    count, padding = 50_000, 2
    batch = torch.empty(count, 1, 4, 4)
    torch.manual_seed(0)
    offsets = RandomCrop(padding).make_params([batch])
    flips = RandomHorizontalFlip(0.3).make_params([batch])["flip"].flatten()
    factors = RandomBrightness(0.2).make_params([batch])["factor"].flatten()
    cells = torch.stack([offsets["top"], offsets["left"], flips.long()])
    assert cells.min() == 0
    assert cells[:2].max() == 2 * padding
    seen = torch.zeros(5, 5, 2).index_put(tuple(cells), torch.ones(count), accumulate=True)
    share = torch.tensor([0.7, 0.3]) / 25
    five_deviations = 5 * (count * share * (1 - share)).sqrt()
    assert ((seen - count * share).abs() < five_deviations).all()
    assert 0.8 <= factors.min() < 0.801
    assert 1.199 < factors.max() <= 1.2
    assert factors.mean() == pytest.approx(1, abs=0.003)
    assert torch.corrcoef(torch.stack([factors, flips.float()]))[0, 1].abs() < 0.025


def test_switched_off_is_the_identity() -> None:
    assert torch.equal(augmentation()(images()), images())


def test_switching_one_off_leaves_the_draws_of_the_others() -> None:
    both, flip_alone = augmentation(2, 0.5), augmentation(0, 0.5)
    assert draws(both, images(40), 1)["flip"] == draws(flip_alone, images(40), 1)["flip"]


def test_a_generator_of_its_own_repeats_its_draws_and_leaves_the_global_one() -> None:
    transforms = augmentation(2, 0.5, 0.2, [{"RandomErasing": {"p": 0.5}}])
    own, device = torch.Generator().manual_seed(5), torch.device("cpu")
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    results = []
    for _ in range(2):
        with drawing_from(own, device):
            results.append(transforms(images()))
    assert torch.equal(torch.rand(3), expected)
    assert not torch.equal(*results)
    own.manual_seed(5)
    with drawing_from(own, device):
        assert torch.equal(transforms(images()), results[0])
    torch.manual_seed(5)
    assert torch.equal(transforms(images()), results[0])  # as if it were the global one


@pytest.mark.parametrize("extra", [[], [{"RandomErasing": {"p": 0.5}}]])
def test_the_picture_shows_what_training_sees(tmp_path: Path, extra: list[dict[str, Any]]) -> None:
    data = tiny_data()
    trainer = Trainer(CNN([[2]]), data, tiny_train(), CPU, augmentation(4, 0.5, 0.3, extra))
    draw_examples(trainer, tmp_path / "picture.png")
    with Image.open(tmp_path / "picture.png") as drawn:
        picture = torch.from_numpy(np.array(drawn))[::2, ::2]  # two by two pixels are one

    chosen = torch.randperm(len(data.train), generator=torch.Generator().manual_seed(0))[:8]
    trainer.images.generator.manual_seed(0)
    batch, _ = trainer.images[chosen.repeat_interleave(8)]  # as a step of training looks images up
    seen = (batch * data.std[:, None, None] + data.mean[:, None, None]) * 255
    assert picture.shape == (8 * 33 + 1, 34 + 6 + 8 * 33 + 1, 3)
    for row, index in enumerate(chosen):
        tiles = picture[row * 33 + 1 : row * 33 + 33]
        assert torch.equal(tiles[:, 1:33], data.train.images[index])
        for column in range(8):
            left = 34 + 6 + 1 + column * 33
            expected = seen[8 * row + column].permute(1, 2, 0).round().byte()
            assert torch.equal(tiles[:, left : left + 32], expected)
