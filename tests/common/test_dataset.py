import json
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from stages.common.dataset import balanced_order, channel_statistics, load_data, save_data
from stages.common.errors import UserError
from tests.tiny import tiny_data


@pytest.mark.parametrize("validation", [0, 20])
def test_a_data_set_comes_back_as_it_was_saved(tmp_path: Path, validation: int) -> None:
    data = tiny_data(validation=validation)
    save_data(data, tmp_path / "data")
    loaded = load_data(tmp_path / "data")
    assert loaded.classes == data.classes
    assert (loaded.validation is None) == (validation == 0)
    for name in ("train", "test", *(["validation"] if validation else [])):
        for tensor in ("images", "labels"):
            expected = getattr(getattr(data, name), tensor)
            found = getattr(getattr(loaded, name), tensor)
            assert found.dtype == expected.dtype
            assert torch.equal(found, expected)
    assert torch.equal(loaded.mean, data.mean)
    assert torch.equal(loaded.std, data.std)


def test_the_file_is_a_header_in_json_and_raw_numbers(tmp_path: Path) -> None:
    data = tiny_data()
    save_data(data, tmp_path / "data")
    content = (tmp_path / "data").read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    start, end = header["test_images"]["data_offsets"]
    assert content[8 + length :][start:end] == data.test.images.numpy().tobytes()


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def _cut_in_header(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:100])


def _pickle(path: Path) -> None:
    path.write_bytes(pickle.dumps(print))


def _directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


DAMAGE: list[Callable[[Path], object]] = [
    _truncate,
    _cut_in_header,
    _pickle,
    _directory,
    lambda path: path.write_bytes(b""),
    lambda path: path.unlink(),
    lambda path: save_file({"other": torch.zeros(2)}, path),
    lambda path: save_file({"other": torch.zeros(2)}, path, {"classes": "a,b"}),
]


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_is_refused_in_one_line(tmp_path: Path, damage: Callable[[Path], object]) -> None:
    path = tmp_path / "data"
    save_data(tiny_data(), path)
    damage(path)
    with pytest.raises(UserError) as refusal:
        load_data(path)
    assert str(path) in str(refusal.value)
    assert "\n" not in str(refusal.value)


@given(per_class=st.lists(st.integers(1, 20), min_size=2, max_size=10), seed=st.integers(0, 99))
def test_a_balanced_order_gives_every_class_its_turn(per_class: list[int], seed: int) -> None:
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(per_class)), per_class))
    order = balanced_order(labels, np.random.default_rng(seed))
    assert len(set(order.tolist())) == len(order)
    before = np.cumsum(np.eye(len(per_class), dtype=int)[labels[order]], axis=0)
    assert np.ptp(before, axis=1).max() <= 1
    assert np.ptp(before[:, None] - before[None], axis=2).max() <= 1
    assert len(order) == sum(min(count, min(per_class) + 1) for count in per_class)  # no longer one is
    assert np.array_equal(order, balanced_order(labels, np.random.default_rng(seed)))


def test_a_balanced_order_is_random() -> None:
    labels = np.arange(200) % 10
    orders = [balanced_order(labels, np.random.default_rng(seed)) for seed in range(50)]
    firsts = {int(order[0]) for order in orders}
    assert len(firsts) > 30
    assert {int(labels[first]) for first in firsts} == set(range(10))


def test_statistics_equal_numpy_in_double_precision() -> None:
    images = np.random.default_rng(0).integers(0, 256, (50, 32, 32, 3), np.uint8)
    images //= np.array([1, 2, 3], np.uint8)
    mean, std = channel_statistics(images)
    np.testing.assert_allclose(mean, (images / 255).mean(axis=(0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(std, (images / 255).std(axis=(0, 1, 2)), rtol=1e-12)
