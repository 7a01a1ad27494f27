"""Sizes and receptive fields against the sheet's closed forms and against PyTorch by brute force."""

from math import prod

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional as F

from stages.common.geometry import Field, Layer, block_layers, output_size, receptive_field, same_padding
from stages.networks.models import CNN

KERNELS = st.integers(1, 7)
BLOCKS = st.lists(
    st.tuples(st.lists(KERNELS, min_size=1, max_size=4), st.integers(1, 4)), min_size=1, max_size=4
)


@st.composite
def stacks(draw: st.DrawFn) -> list[tuple[str, Layer]]:
    """Up to four convolutions and poolings; PyTorch pads a pooling by half its kernel at most."""
    stack = []
    for _ in range(draw(st.integers(1, 4))):
        kind = draw(st.sampled_from(["convolution", "pooling"]))
        kernel = draw(st.integers(1, 5))
        limit = kernel // 2 if kind == "pooling" else 4
        stack.append((kind, Layer(kernel, draw(st.integers(1, 4)), draw(st.integers(0, limit)))))
    return stack


def apply(stack: list[tuple[str, Layer]], line: torch.Tensor) -> torch.Tensor:
    """The layers in PyTorch, along one axis; positive weights only, so that no influence cancels."""
    for kind, (kernel, stride, padding) in stack:
        if kind == "convolution":
            line = F.conv1d(line, torch.ones(1, 1, kernel, dtype=line.dtype), stride=stride, padding=padding)
        else:
            line = F.avg_pool1d(line, kernel, stride, padding)
    return line


def seen(stack: list[tuple[str, Layer]], size: int, unit: int) -> NDArray[np.bool_]:
    """Which of ``size`` pixels move ``unit`` of the last layer."""
    line = torch.zeros(1, 1, size, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(apply(stack, line)[0, 0, unit], line)
    return np.asarray(gradient[0, 0] != 0)


def clipped(span: tuple[int, int], size: int) -> tuple[int, int]:
    return max(span[0], 0), min(span[1], size)


def hull(hit: NDArray[np.bool_]) -> tuple[int, int]:
    positions = np.flatnonzero(hit)
    return int(positions[0]), int(positions[-1]) + 1


# the sheet's closed forms -----------------------------------------------------------------------


@given(st.lists(KERNELS, max_size=8))
def test_field_of_convolutions_is_the_closed_form_of_b1(kernels: list[int]) -> None:
    field = receptive_field([Layer(k) for k in kernels])
    assert field == Field(1 + sum(k - 1 for k in kernels), 1, 0)


@given(BLOCKS)
def test_field_of_blocks_is_the_closed_form_of_b2(blocks: list[tuple[list[int], int]]) -> None:
    kernels, pools = zip(*blocks, strict=True)
    size = 1
    for j, (block, d) in enumerate(blocks):
        size += prod(pools[:j]) * (sum(k - 1 for k in block) + d - 1)
    assert receptive_field(block_layers(kernels, pools)) == Field(size, prod(pools), 0)


@given(BLOCKS, st.integers(1, 200))
def test_output_of_blocks_is_the_closed_form_of_b3(blocks: list[tuple[list[int], int]], n: int) -> None:
    kernels, pools = zip(*blocks, strict=True)
    expected: int | None = n
    for block, d in blocks:
        assert expected is not None
        expected = (expected - sum(k - 1 for k in block)) // d
        if expected < 1:
            with pytest.raises(ValueError, match="but only"):
                output_size(n, block_layers(kernels, pools))
            return
    layers = block_layers(kernels, pools)
    assert output_size(n, layers) == expected
    field = receptive_field(layers)  # the stack is placed like one kernel
    assert output_size(n, layers) == (n - field.size) // field.stride + 1


def test_examples_of_the_sheet() -> None:
    assert receptive_field([Layer(3)]).size == 3
    assert receptive_field([Layer(3), Layer(3)]).size == 5
    assert receptive_field([Layer(2, 2)]).size == 2


@given(st.integers(0, 7).map(lambda m: 2 * m + 1), st.integers(1, 40))
def test_same_padding_keeps_the_size(kernel: int, size: int) -> None:
    assert output_size(size, [Layer(kernel, 1, same_padding(kernel))]) == size


def test_blocks_pad_convolutions_only() -> None:
    same = [Layer(3, 1, 1), Layer(5, 1, 2), Layer(2, 2, 0), Layer(1, 1, 0), Layer(3, 3, 0)]
    assert block_layers([[3, 5], [1]], [2, 3], "same") == same
    assert block_layers([[3, 5], [1]], [2, 3]) == [layer._replace(padding=0) for layer in same]


# brute force ------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=300)
@given(stacks(), st.integers(1, 24))
def test_sizes_are_those_of_torch_and_so_is_what_does_not_fit(
    stack: list[tuple[str, Layer]], size: int
) -> None:
    layers = [layer for _, layer in stack]
    try:
        output = apply(stack, torch.zeros(1, 1, size))
    except RuntimeError:
        with pytest.raises(ValueError, match=r"layer \d+ has a kernel of \d+ pixels, but only \d+ reach it"):
            output_size(size, layers)
    else:
        assert output.shape[-1] == output_size(size, layers)


def test_the_error_names_the_layer_the_kernel_and_what_is_left() -> None:
    with pytest.raises(ValueError, match=r"^layer 3 has a kernel of 5 pixels, but only 4 reach it$"):
        output_size(10, [Layer(3), Layer(2, 2), Layer(5)])


def reaches_every_edge(layers: list[Layer], size: int) -> bool:
    """No layer has a unit in the padding alone, and none drops real pixels at the far edge."""
    for layer in layers:
        dropped = (size + 2 * layer.padding - layer.kernel) % layer.stride
        if layer.padding >= layer.kernel or dropped > layer.padding:
            return False
        size = output_size(size, [layer])
    return True


@settings(deadline=None, max_examples=300)
@given(stacks(), st.integers(1, 24), st.data())
def test_span_is_what_moves_a_unit(stack: list[tuple[str, Layer]], size: int, data: st.DataObject) -> None:
    """Nothing outside of the span moves the unit; inside the image its ends do, and all between them
    where no stride jumps over pixels. Where padding is seen, likewise for the clipped span, unless a
    unit sees padding alone or the floor of a size dropped pixels at the far edge."""
    layers = [layer for _, layer in stack]
    try:
        units = output_size(size, layers)
    except ValueError:
        return
    unit = data.draw(st.integers(0, units - 1), label="unit")
    span = receptive_field(layers).span(unit)
    first, end = clipped(span, size)
    hit = seen(stack, size, unit)
    assert not hit[:first].any()
    assert not hit[end:].any()
    if span == (first, end) or reaches_every_edge(layers, size):
        assert hull(hit) == (first, end)
        jumps = any(layer.stride > layer.kernel for layer in layers)
        assert jumps or hit[first:end].all()


@pytest.mark.parametrize("padding", ["valid", "same"])
def test_fields_of_the_cnn_are_what_a_changed_pixel_moves(padding: str) -> None:
    """Each of the 1,024 pixels is raised in turn; max pooling, ReLU and all layers of the network stay."""
    model = CNN([[1, 1], [1, 1]], padding=padding).double().eval()
    for parameter in model.parameters():
        nn.init.ones_(parameter)
    plain = torch.ones(1, 3, 32, 32, dtype=torch.float64)
    raised = plain.repeat(1024, 1, 1, 1)
    pixel = torch.arange(1024)
    raised[pixel, :, pixel // 32, pixel % 32] += 1e6

    passed: list[Layer] = []
    ahead = iter(model.geometry())
    with torch.no_grad():
        for layer in model:
            plain, raised = layer(plain), layer(raised)
            if isinstance(layer, nn.Flatten):
                break
            if isinstance(layer, nn.Conv2d | nn.MaxPool2d):
                passed.append(next(ahead))
            moved = (raised != plain)[:, 0].reshape(32, 32, *plain.shape[-2:]).numpy()
            spans = [receptive_field(passed).span(unit) for unit in range(plain.shape[-1])]
            inside = np.array([[first <= row < end for first, end in spans] for row in range(32)])
            np.testing.assert_array_equal(moved, inside[:, None, :, None] & inside[None, :, None, :])
    assert len(passed) == 6
