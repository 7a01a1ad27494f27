"""docs/theory.md: its examples are recomputed from the page itself, and its pointers lead somewhere."""

import re
from math import prod
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from stages.common.geometry import Layer, output_size, receptive_field
from stages.networks.models import CNN
from theory.gradients import (
    convolve,
    kernel_gradient,
    max_pool,
    mean_squared_error,
    pooled_pixel,
    pooling_gradient,
)

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/theory.md").read_text(encoding="utf-8")
MATH = [*re.findall(r"```math\n(.*?)```", PAGE, re.S), *re.findall(r"\$`(.*?)`\$", PAGE, re.S)]
NETWORK = CNN([[32, 32], [64, 64]])


def section(part: str) -> str:
    """The text below the heading ``### Theory part: …``."""
    return PAGE.split(f"\n### Theory {part}: ")[1].split("\n## ")[0].split("\n### ")[0]


def example(part: str) -> dict[str, NDArray[np.float64]]:
    """The matrices of a section by the name left of their equals sign, with the fraction before them."""
    matrix = r"([^=\n]+?) = (?:\\frac\{(\d+)\}\{(\d+)\} )?\\begin\{bmatrix\}(.*?)\\end\{bmatrix\}"
    found = {}
    for name, above, below, body in re.findall(matrix, section(part)):
        rows = [[float(number) for number in row.split("&")] for row in body.split(r"\\")]
        found[name] = np.array(rows) * (int(above) / int(below) if above else 1)
    return found


def autograd_of_kernel(
    w: NDArray[np.float64], x: NDArray[np.float64], y: NDArray[np.float64], stride: int
) -> NDArray[np.float64]:
    kernel = torch.tensor(w, requires_grad=True)
    image = torch.tensor(x)[None, None]
    output = F.conv2d(image, kernel.flip(0, 1)[None, None], stride=stride, padding=len(w) // 2)
    (gradient,) = torch.autograd.grad(F.mse_loss(output[0, 0], torch.tensor(y)), kernel)
    return np.asarray(gradient)


def test_example_of_a1() -> None:
    of = example("a.1")
    w, x, y = of["w"], of["x"], of["y"]
    np.testing.assert_array_equal(convolve(w, x), of["o"])
    np.testing.assert_array_equal(of["o"] - y, of["o - y"])
    assert mean_squared_error(of["o"], y) == 28 / 16 == 1.75
    assert r"E = \frac{28}{16} = 1.75" in section("a.1")
    np.testing.assert_allclose(kernel_gradient(w, x, y), of[r"\nabla_w E"])
    np.testing.assert_allclose(autograd_of_kernel(w, x, y, 1), of[r"\nabla_w E"])
    by_hand = np.sum(of["o - y"][:-1] * x[1:], axis=1)  # s = -1, t = 0: the pixel below, none below the last
    assert list(by_hand) == [5, 0, -1]
    assert of[r"\nabla_w E"][0, 1] == by_hand.sum() / 8 == 4 / 8


def test_example_of_a2() -> None:
    of = example("a.2")
    np.testing.assert_array_equal(max_pool(of["x"]), of["o'"])
    np.testing.assert_array_equal(of["o'"] - of["y'"], of["o' - y'"])
    np.testing.assert_allclose(pooling_gradient(of["x"], of["y'"]), of[r"\nabla_x E"])
    image = torch.tensor(of["x"], requires_grad=True)
    loss = F.mse_loss(F.max_pool2d(image[None], 2)[0], torch.tensor(of["y'"]))
    np.testing.assert_allclose(torch.autograd.grad(loss, image)[0], of[r"\nabla_x E"])


def test_index_map_of_a2() -> None:
    block = next(text for text in MATH if r"\pi_{2,2}(4)" in text)
    rows = [re.findall(r"\\pi_\{(\d),(\d)\}\((\d)\)", row) for row in block.split("\\\\\n")]
    printed = {
        (row, column): tuple(map(int, entry))
        for row, entries in enumerate(rows, start=1)
        for column, entry in enumerate(entries, start=1)
    }
    assert len(printed) == 16
    for pixel, (i, j, k) in printed.items():
        assert pooled_pixel(i, j, k) == pixel


def test_example_of_a3() -> None:
    of = example("a.3")
    w, x, y = example("a.1")["w"], example("a.1")["x"], of["y"]
    np.testing.assert_array_equal(convolve(w, x, 2), of["o"])
    np.testing.assert_array_equal(of["o"] - y, of["o - y"])
    np.testing.assert_allclose(kernel_gradient(w, x, y, 2), of[r"\nabla_w E"])
    np.testing.assert_allclose(autograd_of_kernel(w, x, y, 2), of[r"\nabla_w E"])
    assert of[r"\nabla_w E"][1, 1] == 8 / 2
    assert r"1 \cdot 1 - 1 \cdot 0 + 2 \cdot 2 + 3 \cdot 1 = 8" in section("a.3")


def test_examples_of_b() -> None:
    assert receptive_field([Layer(3), Layer(5), Layer(3)]).size == 9
    assert "kernels of 3, 5 and 3 see $`1 + 2 + 4 + 2 = 9`$ pixels" in section("b.1")
    layers = NETWORK.geometry()
    field = receptive_field(layers)
    assert (field.size, field.stride) == (16, 4)
    assert "(2 + 2 + 1) + 2 \\cdot (2 + 2 + 1) = 16`$, and $`D_2 = 4`$" in section("b.2")
    sizes = [output_size(32, layers[:3]), output_size(32, layers)]
    assert rf"\lfloor (32 - 4) / 2 \rfloor = {sizes[0]}`$ and" in section("b.3")
    assert rf"\lfloor (14 - 4) / 2 \rfloor = {sizes[1]}`$." in section("b.3")
    inputs = prod((64, sizes[1], sizes[1]))
    assert NETWORK.get_submodule("dense").in_features == inputs
    assert rf"64 \cdot {sizes[1]} \cdot {sizes[1]} = {inputs}" in PAGE
    assert field.span(sizes[1] - 1) == (16, 32)


def test_table_of_the_network() -> None:
    names = [name for name, _ in NETWORK.named_children() if name.startswith(("conv", "pool"))]
    valid, same = NETWORK.geometry(), CNN([[32, 32], [64, 64]], padding="same").geometry()
    lines = ["| image |  | 32 | 32 | 1 | 1 |"]
    for number, name in enumerate(names, start=1):
        field = receptive_field(valid[:number])
        sizes = f"{output_size(32, valid[:number])} | {output_size(32, same[:number])}"
        lines.append(f"| {name} | {valid[number - 1].kernel} | {sizes} | {field.stride} | {field.size} |")
    assert "\n".join(lines) + "\n\n" in PAGE


def test_pointers_lead_to_functions_and_tests() -> None:
    rows = PAGE.split("## Where each formula stands")[1]
    pointers = re.findall(r"`([\w/]+\.py)`: ((?:`\w+`(?:, )?)+)", rows)
    assert len(pointers) == 11
    for path, names in pointers:
        code = (ROOT / path).read_text(encoding="utf-8")
        for name in re.findall(r"\w+", names):
            assert re.search(rf"^(def|class) {name}\b", code, re.M), f"{path} has no {name}"


def test_math_is_written_so_that_github_renders_it() -> None:
    """GitHub refuses some macros, and Markdown eats backslashes and underscores of plain dollars."""
    inline = r"(?<=[\s])\$`[^`]*`\$(?=[\s,.:;])"  # white space before it, white space or punctuation after it
    assert "$" not in re.sub(inline, "", PAGE)
    for formula in MATH:
        assert not re.search(
            r"\\(operatorname|newcommand|def|mbox|phantom|require|href|class|style)\b", formula
        )
        assert formula.count("{") == formula.count("}")
        assert sorted(re.findall(r"\\begin\{(\w+)\}", formula)) == sorted(
            re.findall(r"\\end\{(\w+)\}", formula)
        )
        assert "\n\n" not in formula
