"""The pictures of the filters, read back from their files: every tile in its place, in its colour."""

import itertools
import warnings
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image
from torch import Tensor

from stages.common.geometry import Field
from stages.filters import figures
from stages.filters.activations import Survey
from stages.filters.analysis import PADDING, FilterAnalysis, Layer
from stages.filters.evidence import Faithfulness
from stages.networks.models import CNN

Array = np.ndarray
DEAD = 2  # a channel


def layer(number: int, channels: int, size: int, strength: float, generator: torch.Generator) -> Layer:
    """A layer of random answers up to ``strength``, the channel `DEAD` never active."""
    activation = strength * torch.rand(channels, size, size, generator=generator)
    activation.view(-1)[0] = strength
    patches = torch.randint(0, 256, (channels, 9, 5, 5, 3), generator=generator, dtype=torch.uint8)
    if channels > DEAD:
        activation[DEAD] = 0
        patches[DEAD] = torch.tensor(PADDING, dtype=torch.uint8)
    maximum = activation.amax((1, 2))
    nothing = torch.zeros(9, channels)
    survey = Survey(maximum, maximum, maximum, nothing, nothing, nothing, nothing)
    magnitude = torch.rand(32, 32, generator=generator)
    return Layer(f"conv{number}", Field(5, 1, -2), activation, survey, patches, magnitude, 3.5)


def analysis(*layers: tuple[int, int, float]) -> FilterAnalysis:
    """An analysis of random values, ``layers`` with these channels, units along an axis, and strengths."""
    generator = torch.Generator().manual_seed(0)
    return FilterAnalysis(
        index=17,
        image=torch.randint(0, 256, (32, 32, 3), generator=generator, dtype=torch.uint8),
        label="horse",
        predicted="deer",
        best=list(
            zip(("deer", "horse", "airplane", "bird", "dog"), (0.9, 0.05, 0.03, 0.01, 0.01), strict=True)
        ),
        evidence=torch.rand(32, 32, generator=generator) - 0.3,
        layers=[layer(number, *shape, generator) for number, shape in enumerate(layers, start=1)],
        sample=torch.arange(3),
        drops=Faithfulness(*(torch.ones(3) for _ in Faithfulness.__dataclass_fields__)),
    )


def drawn(found: FilterAnalysis, folder: Path) -> dict[str, Array]:
    """Every picture (H, W, 3) by its name."""
    model = CNN([[found.layers[0].activation.shape[0]]], 3)
    figures.draw(model, found, folder)
    return {path.stem: np.asarray(Image.open(path).convert("RGB"), np.int16) for path in folder.glob("*.png")}


def coloured(values: Tensor, low: float, high: float, colours: str) -> Array:
    """``values`` in the colour map ``colours``, (..., 3) from 0 to 255."""
    steps = ((values.double().numpy() - low) / (high - low) * 256).astype(int).clip(0, 255)
    table = mpl.colormaps[colours](np.arange(256), bytes=True)[:, :3]
    return np.asarray(table[steps], np.int16)


def places(picture: Array, tile: Array, zoom: int) -> list[tuple[int, int]]:
    """Rows and columns in ``picture`` where ``tile`` begins, each of its pixels as ``zoom`` x ``zoom``.

    Colours may be off by 4: a value at the edge of a colour map's step can fall on either side.
    """
    large = tile.repeat(zoom, 0).repeat(zoom, 1)
    height, width = large.shape[:2]
    if height > picture.shape[0] or width > picture.shape[1]:
        return []
    room = picture[: picture.shape[0] - height + 1, : picture.shape[1] - width + 1, 0]
    rows, columns = np.nonzero(abs(room - large[0, 0, 0]) <= 4)
    for y, x in itertools.product((0, height - 1), (0, width - 1)):
        alike = (abs(picture[rows + y, columns + x] - large[y, x]) <= 4).all(1)
        rows, columns = rows[alike], columns[alike]
    return [
        (row, column)
        for row, column in zip(rows.tolist(), columns.tolist(), strict=True)
        if (abs(picture[row : row + height, column : column + width] - large) <= 4).all()
    ]


def grid_of(picture: Array, tiles: Sequence[Array]) -> tuple[int, int]:
    """Rows and columns of the ``tiles`` in ``picture``; fails where one is missing or out of its order."""
    zoom = next(zoom for zoom in range(20, 0, -1) if places(picture, tiles[0], zoom))
    found = []
    for tile in tiles:
        (place,) = places(picture, tile, zoom)
        found.append(place)
    rows, columns = (sorted(set(axis)) for axis in zip(*found, strict=True))
    for axis in (rows, columns):
        assert len(set(np.diff(axis))) <= 1
    assert found == list(itertools.product(rows, columns))[: len(tiles)]
    return len(rows), len(columns)


def test_activations_stand_in_the_sheets_grids_on_one_scale_and_on_their_own(tmp_path: Path) -> None:
    found = analysis((32, 30, 4.0), (64, 10, 1.5))
    pictures = drawn(found, tmp_path)
    for layer, own, shape in zip(found.layers, (4.0, 1.5), ((8, 4), (8, 8)), strict=True):
        for suffix, largest in (("", 4.0), ("_own_scale", own)):
            tiles = coloured(layer.activation, 0, largest, "viridis")
            assert grid_of(pictures[f"activations_{layer.name}{suffix}"], list(tiles)) == shape


@pytest.mark.parametrize(("channels", "shape"), [(7, (4, 2)), (32, (8, 4))])
def test_the_patches_of_a_channel_are_a_block(tmp_path: Path, channels: int, shape: tuple[int, int]) -> None:
    found = analysis((channels, 6, 2.0))
    picture = drawn(found, tmp_path)["top_patches_conv1"]
    patches = found.layers[0].patches.numpy().astype(np.int16)
    alive = [channel for channel in range(channels) if channel != DEAD]
    assert grid_of(picture, patches[0]) == grid_of(picture, patches[-1]) == (3, 3)
    zoom = next(zoom for zoom in range(20, 0, -1) if places(picture, patches[0, 0], zoom))
    firsts = [places(picture, patches[channel, 0], zoom)[0] for channel in alive]
    rows, columns = (sorted(set(axis)) for axis in zip(*firsts, strict=True))
    assert (len(rows), len(columns)) == shape
    corners = list(itertools.product(rows, columns))
    assert firsts == [corners[channel] for channel in alive]
    assert corners[DEAD] in places(picture, patches[DEAD, 0], zoom)


def test_kernels_are_colours_around_grey_in_a_lying_grid(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = CNN([[32]], 3)
    figures.draw(model, analysis((4, 30, 1.0)), tmp_path)
    picture = np.asarray(Image.open(tmp_path / "kernels_conv1.png").convert("RGB"), np.int16)
    weights = model.get_parameter("conv1.weight").detach()
    tiles = (weights / weights.abs().max() * 127.5 + 127.5).movedim(1, 3).numpy().astype(np.int16)
    assert grid_of(picture, list(tiles)) == (4, 8)


def test_the_image_and_its_evidence_are_drawn_pixel_by_pixel(tmp_path: Path) -> None:
    found = analysis((3, 30, 1.0))
    pictures = drawn(found, tmp_path)
    image = found.image.numpy().astype(np.int16)
    largest = float(found.evidence.abs().max())
    heat = coloured(found.evidence, -largest, largest, "RdBu_r")
    for name, tile in (("input", image), ("evidence", image), ("evidence", heat)):
        assert sum(len(places(pictures[name], tile, zoom)) for zoom in range(4, 12)) == 1, name


def test_receptive_fields_are_framed_over_the_image_and_over_what_is_measured(tmp_path: Path) -> None:
    found = analysis((3, 30, 1.0), (3, 12, 1.0))
    picture = drawn(found, tmp_path)["receptive_fields"]
    image = found.image[:3].numpy().astype(np.int16)  # above the frames
    zoom = next(zoom for zoom in range(20, 0, -1) if places(picture, image, zoom))
    upper = places(picture, image, zoom)
    assert len(upper) == 2
    for layer, (top, left) in zip(found.layers, sorted(upper), strict=True):
        magnitude = coloured(layer.magnitude, 0, float(layer.magnitude.max()), "magma")[:3]
        ((lower, same_left),) = places(picture, magnitude, zoom)
        assert same_left == left
        first, end = layer.field.span(layer.activation.shape[1] // 2)
        assert (first, end) == (layer.activation.shape[1] // 2 - 2, layer.activation.shape[1] // 2 + 3)
        for start in (top, lower):
            rows = picture[start : start + 32 * zoom, left + first * zoom + 2 : left + end * zoom - 2]
            white = np.flatnonzero((rows > 180).all((1, 2)))
            assert {round(row / zoom) for row in white.tolist()} == {first, end}


@pytest.mark.parametrize("channels", [1, 7, 32, 64])
def test_no_text_lies_on_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, channels: int) -> None:
    kept: dict[str, Figure] = {}
    monkeypatch.setattr(figures, "save_figure", lambda figure, path, **_: kept.update({path.stem: figure}))
    found = analysis((channels, 30, 20.0))
    figures.draw(CNN([[channels]], 3), found, tmp_path)
    for name, figure in kept.items():
        texts = [text for text in figure.findobj(Text) if isinstance(text, Text) and text.get_text()]
        boxes = [text.get_window_extent().padded(-1) for text in texts if text.get_visible()]
        assert len(boxes) >= 3
        for one, other in itertools.combinations(boxes, 2):
            assert not one.overlaps(other), name


def test_channels_are_named_with_what_they_reach(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figure = figures.top_patches(analysis((4, 6, 2.0)).layers[0])
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert texts[0] == "0: up to 2.0"
    assert texts[DEAD] == f"{DEAD}: never active"


def test_nothing_but_zeros_can_be_drawn(tmp_path: Path) -> None:
    found = analysis((4, 6, 0.0))
    found.evidence.zero_()
    found.layers[0].magnitude.zero_()
    model = CNN([[4]], 3)
    with torch.no_grad():
        model.get_parameter("conv1.weight").zero_()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figures.draw(model, found, tmp_path)
    assert len(list(tmp_path.iterdir())) == 7


@pytest.mark.parametrize(
    ("channels", "shape"),
    [
        (1, (1, 1)),
        (2, (2, 1)),
        (7, (4, 2)),
        (16, (4, 4)),
        (32, (8, 4)),
        (48, (8, 6)),
        (64, (8, 8)),
        (256, (16, 16)),
    ],
)
def test_grids(channels: int, shape: tuple[int, int]) -> None:
    assert figures.grid_shape(channels) == shape


def test_every_grid_has_room() -> None:
    for channels in range(1, 257):
        rows, columns = figures.grid_shape(channels)
        assert (rows - 1) * columns < channels <= rows * columns
        assert columns <= rows <= 3 * columns
