"""The sheet's theory a) against autograd, finite differences and cases worked by hand."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch.nn import functional as F

from theory.gradients import (
    convolve,
    kernel_gradient,
    max_pool,
    mean_squared_error,
    pooled_pixel,
    pooling_gradient,
)

Array = NDArray[np.float64]
SIZES = st.integers(1, 8)
SEEDS = st.integers(0, 2**32 - 1)


def tensor(array: Array) -> torch.Tensor:
    return torch.tensor(array[None, None], requires_grad=True)


def finite_differences(function: Callable[[Array], float], at: Array) -> Array:
    """Central differences, exact but for rounding where ``function`` is a quadratic."""
    step = 1e-4
    gradient = np.empty_like(at)
    for index in np.ndindex(at.shape):
        up, down = at.copy(), at.copy()
        up[index] += step
        down[index] -= step
        gradient[index] = (function(up) - function(down)) / (2 * step)
    return gradient


def torch_convolve(w: torch.Tensor, x: torch.Tensor, stride: int) -> torch.Tensor:
    """The sheet's convolution in PyTorch, whose conv2d does not flip the kernel."""
    return F.conv2d(x, w.flip(-2, -1), stride=stride, padding=w.shape[-1] // 2)


@settings(deadline=None)
@given(n=SIZES, m=st.integers(0, 3), stride=st.integers(1, 4), seed=SEEDS)
def test_convolution_and_kernel_gradient_equal_autograd(n: int, m: int, stride: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    w, x = random.normal(size=(2 * m + 1, 2 * m + 1)), random.normal(size=(n, n))
    side = int(np.ceil(n / stride))
    y = random.normal(size=(side, side))

    weight = tensor(w)
    output = torch_convolve(weight, tensor(x), stride)
    loss = F.mse_loss(output, tensor(y))
    (expected,) = torch.autograd.grad(loss, weight)

    o = convolve(w, x, stride)
    np.testing.assert_allclose(o, output.detach()[0, 0], atol=1e-12)
    assert mean_squared_error(o, y) == pytest.approx(loss.item())
    np.testing.assert_allclose(kernel_gradient(w, x, y, stride), expected[0, 0], atol=1e-12)


@pytest.mark.parametrize("stride", [1, 2, 3])
def test_kernel_gradient_equals_finite_differences(stride: int) -> None:
    random = np.random.default_rng(0)
    w, x = random.normal(size=(3, 3)), random.normal(size=(7, 7))
    y = random.normal(size=convolve(w, x, stride).shape)
    expected = finite_differences(lambda v: mean_squared_error(convolve(v, x, stride), y), w)
    np.testing.assert_allclose(kernel_gradient(w, x, y, stride), expected, atol=1e-9)


def test_the_kernel_is_flipped() -> None:
    """A single bright pixel is replaced by the kernel itself; cross-correlation would turn it around."""
    w = np.arange(9.0).reshape(3, 3)
    x = np.zeros((3, 3))
    x[1, 1] = 1
    np.testing.assert_array_equal(convolve(w, x), w)


def test_a_stride_picks_every_second_output_from_the_first_on() -> None:
    random = np.random.default_rng(0)
    w, x = random.normal(size=(5, 5)), random.normal(size=(7, 7))
    np.testing.assert_allclose(convolve(w, x, 2), convolve(w, x)[::2, ::2])


def test_index_map_of_the_sheet() -> None:
    """The sheet's 4x4 map, with pi's first index as the row (the sheet prints pi_{2,1} upper right)."""
    upper_left, upper_right = [(1, 1), (1, 2), (2, 1), (2, 2)], [(1, 3), (1, 4), (2, 3), (2, 4)]
    lower_left, lower_right = [(3, 1), (3, 2), (4, 1), (4, 2)], [(3, 3), (3, 4), (4, 3), (4, 4)]
    windows = {(1, 1): upper_left, (1, 2): upper_right, (2, 1): lower_left, (2, 2): lower_right}
    for (i, j), pixels in windows.items():
        assert [pooled_pixel(i, j, k) for k in (1, 2, 3, 4)] == pixels


@settings(deadline=None)
@given(data=st.data(), n=SIZES, levels=st.integers(1, 9), seed=SEEDS)
def test_pooling_and_its_gradient_equal_autograd(data: st.DataObject, n: int, levels: int, seed: int) -> None:
    """A few whole grey levels make ties; odd sizes leave rows and columns over."""
    d = data.draw(st.integers(1, n), label="d")
    random = np.random.default_rng(seed)
    x = random.integers(-levels, levels, size=(n, n)).astype(float)
    y = random.normal(size=(n // d, n // d))

    image = tensor(x)
    pooled = F.max_pool2d(image, d)
    (expected,) = torch.autograd.grad(F.mse_loss(pooled, tensor(y)), image)

    np.testing.assert_array_equal(max_pool(x, d), pooled.detach()[0, 0])
    np.testing.assert_allclose(pooling_gradient(x, y, d), expected[0, 0], atol=1e-12)


@pytest.mark.parametrize(("n", "d"), [(6, 2), (7, 2), (8, 3)])
def test_pooling_gradient_equals_finite_differences(n: int, d: int) -> None:
    random = np.random.default_rng(0)
    x = random.permutation(n * n).reshape(n, n).astype(float)  # no ties: E has a derivative
    y = random.normal(size=(n // d, n // d))
    expected = finite_differences(lambda image: mean_squared_error(max_pool(image, d), y), x)
    np.testing.assert_allclose(pooling_gradient(x, y, d), expected, atol=1e-6)


def test_of_tied_pixels_the_first_in_reading_order_gets_the_gradient() -> None:
    x = np.array([[1.0, 5.0], [5.0, 5.0]])
    np.testing.assert_array_equal(pooling_gradient(x, np.zeros((1, 1))), [[0, 10], [0, 0]])


def test_an_odd_size_leaves_the_last_row_and_column_out() -> None:
    x = np.arange(9.0).reshape(3, 3)
    np.testing.assert_array_equal(max_pool(x), [[4]])
    np.testing.assert_array_equal(pooling_gradient(x, np.ones((1, 1))), [[0, 0, 0], [0, 6, 0], [0, 0, 0]])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: convolve(np.ones((2, 2)), np.ones((4, 4))), "kernel has 2 rows, but needs an odd number"),
        (lambda: convolve(np.ones((3, 3)), np.ones((4, 5))), r"\(4, 5\), but must be square"),
        (lambda: convolve(np.ones((3, 3)), np.ones((4, 4)), 0), "stride is 0, but must be at least 1"),
        (lambda: kernel_gradient(np.ones((3, 3)), np.ones((4, 4)), np.ones((4, 4)), 2), r"output \(2, 2\)"),
        (lambda: max_pool(np.ones((1, 1))), "window of 2 pixels does not fit into an image of 1"),
        (lambda: pooling_gradient(np.ones((4, 4)), np.ones((4, 4))), r"target is \(4, 4\)"),
        (lambda: mean_squared_error(np.ones((2, 3)), np.ones((2, 3))), "must be square"),
    ],
)
def test_what_does_not_fit_is_refused(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
