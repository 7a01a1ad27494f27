from dataclasses import replace

import pytest
import torch
from torch.utils.data import DataLoader
from torchvision.transforms.functional import normalize
from torchvision.transforms.v2 import RandomRotation

from stages.augmentation.transforms import augmentation
from stages.networks.images import Images, Transform
from tests.tiny import tiny_data


def test_images_are_normalized_as_torchvision_does() -> None:
    data = tiny_data()
    images, labels = Images(data.test, data)[torch.arange(45)]
    expected = normalize(
        data.test.images.permute(0, 3, 1, 2).float() / 255, data.mean.tolist(), data.std.tolist()
    )
    torch.testing.assert_close(images, expected, rtol=1e-5, atol=2e-6)
    assert torch.equal(labels, data.test.labels)


def test_the_training_set_has_mean_0_and_deviation_1() -> None:
    data = tiny_data()
    images, _ = Images(data.train, data)[torch.arange(len(data.train))]
    torch.testing.assert_close(images.mean(dim=(0, 2, 3)), torch.zeros(3), rtol=0, atol=1e-4)
    torch.testing.assert_close(images.std(dim=(0, 2, 3)), torch.ones(3), rtol=0, atol=1e-4)


@pytest.mark.parametrize("transform", [None, augmentation(2, 0.5, 0.2), RandomRotation(30)])
def test_every_way_of_looking_up_gives_the_same(transform: Transform | None) -> None:
    data = tiny_data()
    images = Images(data.train, data, transform=transform)
    indices = [5, 3, 5, 100]
    images.generator.manual_seed(1)
    batch, labels = images[torch.tensor(indices)]
    assert batch.shape == (4, 3, 32, 32)
    assert batch.dtype == torch.float32
    assert batch.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(labels, data.train.labels[indices])

    images.generator.manual_seed(1)
    from_list, labels_from_list = images[indices]
    assert torch.equal(from_list, batch)
    assert torch.equal(labels_from_list, labels)

    images.generator.manual_seed(1)
    loader = DataLoader(images, batch_sampler=[indices])
    from_loader, labels_from_loader = next(iter(loader))
    assert torch.equal(from_loader, batch)
    assert torch.equal(labels_from_loader, labels)

    images.generator.manual_seed(1)
    image, label = images[100]
    images.generator.manual_seed(1)
    alone, _ = images[[100]]
    assert image.shape == (3, 32, 32)
    assert label == data.train.labels[100]
    assert torch.equal(image, alone[0])


def test_augmentation_is_drawn_anew_for_every_look_up() -> None:
    data = tiny_data()
    images = Images(data.train, data, transform=augmentation(4, 0.5))
    first, _ = images[torch.zeros(50, dtype=torch.int64)]
    again, _ = images[torch.zeros(50, dtype=torch.int64)]
    assert not torch.equal(first, again)
    assert len(first.flatten(1).unique(dim=0)) > 30  # of 162


def test_normalization_comes_from_the_training_set_whatever_the_split() -> None:
    data = tiny_data()
    other = replace(data, mean=data.mean + 0.1, std=2 * data.std)
    images, _ = Images(data.test, data)[[0]]
    shifted, _ = Images(data.test, other)[[0]]
    expected = (images - (0.1 / data.std)[:, None, None]) / 2
    torch.testing.assert_close(shifted, expected, rtol=1e-5, atol=1e-5)
