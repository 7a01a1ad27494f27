import inspect

import numpy as np
import pytest
from matplotlib.path import Path as Outline

from stages.data import archive, synthetic

TRAIN, TEST = 1503, 1006


@pytest.fixture(scope="module")
def splits() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    return synthetic.generate(TRAIN, TEST, seed=5)[0]


def test_layout_is_that_of_the_archive(splits: dict[str, tuple[np.ndarray, np.ndarray]]) -> None:
    assert list(splits) == ["train", "test"]
    for size, (images, labels) in zip((TRAIN, TEST), splits.values(), strict=True):
        assert images.shape == (size, 32, 32, 3)
        assert images.dtype == np.uint8
        assert labels.shape == (size,)
        assert labels.dtype == np.int64
    expected = inspect.signature(archive.read).return_annotation
    assert inspect.signature(synthetic.generate).return_annotation == expected


def test_ten_class_names_fit_into_csv_and_metadata() -> None:
    _, classes = synthetic.generate(10, 10, seed=0)
    assert len(set(classes)) == 10
    assert all(name.isidentifier() for name in classes)


@pytest.mark.parametrize("size", [10, 13, 1999])
def test_classes_are_balanced_and_shuffled(size: int) -> None:
    splits, _ = synthetic.generate(size, 10, seed=1)
    counts = np.bincount(splits["train"][1], minlength=10)
    assert len(counts) == 10
    assert np.ptp(counts) <= 1
    assert (np.diff(splits["train"][1]) < 0).sum() > 1  # neither sorted nor one cycle


def test_same_seed_gives_same_bytes(splits: dict[str, tuple[np.ndarray, np.ndarray]]) -> None:
    again, _ = synthetic.generate(TRAIN, TEST, seed=5)
    for name, (images, labels) in splits.items():
        np.testing.assert_array_equal(again[name][0], images)
        np.testing.assert_array_equal(again[name][1], labels)


def test_a_split_does_not_depend_on_the_other_ones_size(
    splits: dict[str, tuple[np.ndarray, np.ndarray]],
) -> None:
    other, _ = synthetic.generate(20, TEST, seed=5)
    np.testing.assert_array_equal(other["test"][0], splits["test"][0])


def test_no_image_comes_twice_within_or_between_splits_and_seeds(
    splits: dict[str, tuple[np.ndarray, np.ndarray]],
) -> None:
    other, _ = synthetic.generate(500, 500, seed=6)
    images = [*splits["train"][0], *splits["test"][0], *other["train"][0], *other["test"][0]]
    assert len({image.tobytes() for image in images}) == len(images)


def test_mean_colour_does_not_tell_the_class(splits: dict[str, tuple[np.ndarray, np.ndarray]]) -> None:
    colours = {name: images.mean(axis=(1, 2)) for name, (images, _) in splits.items()}
    labels = splits["train"][1]
    centres = np.stack([colours["train"][labels == label].mean(axis=0) for label in range(10)])
    distances = np.linalg.norm(colours["test"][:, None] - centres, axis=2)
    accuracy = (distances.argmin(axis=1) == splits["test"][1]).mean()
    assert accuracy < 0.15  # chance is 0.10, its standard error here 0.0095


def contrast(images: np.ndarray) -> np.ndarray:
    """How far each pixel's brightness is from its image's median: (N, 32, 32), whatever the colours."""
    grey = images.mean(axis=3)
    return abs(grey - np.median(grey, axis=(1, 2), keepdims=True))


def test_a_flip_keeps_the_class_statistically() -> None:
    """Which way the objects of a class face is a fair coin: the mean over a class is its own mirror image."""
    images, labels = synthetic.generate(3000, 10, seed=2)[0]["train"]
    for label in range(10):
        pictures = contrast(images[labels == label])
        # means of 4x4 pixels: the odd part under a flip, in standard errors
        blocks = pictures.reshape(-1, 8, 4, 8, 4).mean(axis=(2, 4))
        odd = blocks - blocks[:, :, ::-1]
        deviations = odd.mean(axis=0) / (odd.std(axis=0) / np.sqrt(len(odd)))
        assert abs(deviations[:, :4]).max() < 4.8  # 320 normal deviates: exceeded once in 2,000 seeds


def test_the_outline_tells_the_class(splits: dict[str, tuple[np.ndarray, np.ndarray]]) -> None:
    """Where contrast is tells the class, although the position varies: a crude classifier beats chance."""
    train, test = (contrast(images).reshape(len(images), -1) for images, _ in splits.values())
    labels = splits["train"][1]
    centres = np.stack([train[labels == label].mean(axis=0) for label in range(10)])
    scores = test @ centres.T - (centres**2).sum(axis=1) / 2  # the nearest has the highest
    accuracy = (scores.argmax(axis=1) == splits["test"][1]).mean()
    assert accuracy > 0.2


def test_polygon_is_inside_where_matplotlib_says_so() -> None:
    corners = [(-0.6, -0.5), (0.15, -0.5), (0.5, 0.0), (-0.8, 0.1)]
    points = np.random.default_rng(0).uniform(-1, 1, (2, 5000))
    distance = synthetic._polygon(*points, *corners)
    np.testing.assert_array_equal(distance < 0, Outline(corners).contains_points(points.T))
    # the distance from the middle of the upper side, straight up
    assert synthetic._polygon(np.array(-0.2), np.array(-0.8), *corners) == pytest.approx(0.3)


@pytest.mark.parametrize("name", synthetic.OUTLINES)
def test_an_outline_fills_its_square_and_does_not_leave_it(name: str) -> None:
    y, x = np.mgrid[-2:2:401j, -2:2:401j]
    inside = synthetic.OUTLINES[name](x, y) < 0
    assert abs(x[inside]).max() <= 1.01
    assert abs(y[inside]).max() <= 1.01
    assert 0.1 < inside.sum() * 0.01**2 / 4 < 0.7  # share of the square from -1 to 1
    assert max(np.ptp(x[inside]), np.ptp(y[inside])) > 1.7
