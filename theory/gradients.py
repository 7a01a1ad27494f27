"""Backpropagation through a convolution and through max pooling, as the sheet's theory a) defines them.

The sheet's answer in code, derived in docs/theory.md; no stage imports it. Images are square float64
arrays ``[row, column]``. The formulas count pixels from 1 and a kernel from its centre, ``w[0, 0]``;
the arrays start at 0, so the kernel's ``w_{s,t}`` is ``w[m + s, m + t]``.
"""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def convolve(w: Array, x: Array, stride: int = 1) -> Array:
    """The sheet's convolution ``o = w * x``: flipped indices, SAME zero padding.

    ``o_{i,j} = sum over s, t of w_{s,t} x_{g(i-1)+1-s, g(j-1)+1-t}`` for i, j = 1 ... ceil(n / g),
    with s, t = -m ... m, the stride g, and x = 0 outside of the image.

    Args:
        w: kernel (2m+1, 2m+1).
        x: image (n, n).
        stride: g, at least 1; with 1 this is the sheet's definition word for word.

    Returns:
        (ceil(n / g), ceil(n / g)).

    Raises:
        ValueError: the kernel's side is even, an array is not square, or the stride is below 1.
    """
    m = _radius(w)
    size = _strided_side(x, stride)
    o = np.zeros((size, size))
    for s in range(-m, m + 1):
        for t in range(-m, m + 1):
            o += w[m + s, m + t] * _under_weight(x, s, t, m, stride)
    return o


def mean_squared_error(o: Array, y: Array) -> float:
    """``E(o, y) = 1 / N^2 sum over i, j of (o_{i,j} - y_{i,j})^2``, for ``o`` and ``y`` (N, N).

    Raises:
        ValueError: the shapes differ, or the arrays are not square.
    """
    return float(np.sum(_error(o, y) ** 2) / _side(o) ** 2)


def kernel_gradient(w: Array, x: Array, y: Array, stride: int = 1) -> Array:
    """Gradient of ``E(w * x, y)`` with respect to the kernel.

    ``dE/dw_{s,t} = 2 / N^2 sum over i, j of (o_{i,j} - y_{i,j}) x_{g(i-1)+1-s, g(j-1)+1-t}``,
    with N = ceil(n / g): the mean runs over the output, which a stride makes smaller.

    Args:
        w: kernel (2m+1, 2m+1).
        x: image (n, n).
        y: target (N, N).
        stride: g, at least 1.

    Returns:
        (2m+1, 2m+1), in the layout of ``w``.

    Raises:
        ValueError: as `convolve`, or ``y`` has not the shape of the output.
    """
    m = _radius(w)
    error = _error(convolve(w, x, stride), y)
    gradient = np.empty((2 * m + 1, 2 * m + 1))
    for s in range(-m, m + 1):
        for t in range(-m, m + 1):
            gradient[m + s, m + t] = 2 / error.size * np.sum(error * _under_weight(x, s, t, m, stride))
    return gradient


def pooled_pixel(i: int, j: int, k: int, d: int = 2) -> tuple[int, int]:
    """The sheet's ``pi_{i,j}(k)``: row and column of the k-th pixel pooled into ``p_d(x)_{i,j}``.

    ``pi_{i,j}(k) = (d(i-1) + 1 + floor((k-1) / d), d(j-1) + 1 + (k-1) mod d)`` for k = 1 ... d^2:
    reading order, everything counted from 1. The first index is the row, as in ``x_{i,j}``
    (the sheet's printed map has it run along the columns).
    """
    down, right = divmod(k - 1, d)
    return d * (i - 1) + 1 + down, d * (j - 1) + 1 + right


def max_pool(x: Array, d: int = 2) -> Array:
    """``p_d(x)_{i,j} = max over k of x_{pi_{i,j}(k)}``, for i, j = 1 ... floor(n / d).

    The last ``n mod d`` rows and columns of ``x`` (n, n) fill no window and are not looked at.

    Returns:
        (floor(n / d), floor(n / d)).

    Raises:
        ValueError: ``x`` is not square, or smaller than one window.
    """
    size = _pooled_side(x, d)
    pooled = np.empty((size, size))
    for i in range(1, size + 1):
        for j in range(1, size + 1):
            row, column = _largest(x, i, j, d)
            pooled[i - 1, j - 1] = x[row - 1, column - 1]
    return pooled


def pooling_gradient(x: Array, y: Array, d: int = 2) -> Array:
    """Gradient of ``E(p_d(x), y)`` with respect to the image.

    ``dE/dx_{a,b} = 2 / N^2 (p_d(x)_{i,j} - y_{i,j})`` where (a, b) is the pixel that window (i, j)
    passes on, and 0 elsewhere; N = floor(n / d). With d = 2 and n even the factor is 8 / n^2.

    Ties: the first largest pixel in reading order gets everything, as in PyTorch.

    Args:
        x: image (n, n).
        y: target (N, N).
        d: side of a window, and the step between windows.

    Returns:
        (n, n); 0 in the rows and columns that no window covers.

    Raises:
        ValueError: as `max_pool`, or ``y`` has not the shape of the pooled image.
    """
    error = _error(max_pool(x, d), y)
    gradient = np.zeros(x.shape)
    for i in range(1, len(error) + 1):
        for j in range(1, len(error) + 1):
            row, column = _largest(x, i, j, d)
            gradient[row - 1, column - 1] = 2 / error.size * error[i - 1, j - 1]
    return gradient


def _under_weight(x: Array, s: int, t: int, m: int, stride: int) -> Array:
    """For all i, j the pixel ``x_{g(i-1)+1-s, g(j-1)+1-t}`` that ``w_{s,t}`` is multiplied with."""
    n = _side(x)
    padded = np.pad(x, m)
    return padded[m - s : m - s + n : stride, m - t : m - t + n : stride]


def _largest(x: Array, i: int, j: int, d: int) -> tuple[int, int]:
    """Row and column, from 1, of the largest pixel of window (i, j); the first one where several tie."""
    window = [pooled_pixel(i, j, k, d) for k in range(1, d**2 + 1)]
    return max(window, key=lambda pixel: x[pixel[0] - 1, pixel[1] - 1])


def _error(o: Array, y: Array) -> Array:
    if o.shape != y.shape:
        raise ValueError(f"the target is {y.shape}, but the output {o.shape}")
    return o - y


def _strided_side(x: Array, stride: int) -> int:
    if stride < 1:
        raise ValueError(f"the stride is {stride}, but must be at least 1")
    return -(-_side(x) // stride)  # rounded up


def _pooled_side(x: Array, d: int) -> int:
    if not 1 <= d <= _side(x):
        raise ValueError(f"a window of {d} pixels does not fit into an image of {_side(x)}")
    return _side(x) // d


def _radius(w: Array) -> int:
    if _side(w) % 2 == 0:
        raise ValueError(f"the kernel has {_side(w)} rows, but needs an odd number: a centre")
    return _side(w) // 2


def _side(array: Array) -> int:
    if array.ndim != 2 or array.shape[0] != array.shape[1] or not array.size:
        raise ValueError(f"the array is {array.shape}, but must be square")
    return len(array)
