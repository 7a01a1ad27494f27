"""The pictures of `visualize_filters`."""

import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import matplotlib as mpl
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from torch import Tensor
from torch.nn.functional import pad
from torchvision.utils import make_grid

from stages.drawing.figures import save_figure
from stages.filters.analysis import FilterAnalysis, Layer, mean
from stages.networks.models import CNN

PAD = 0.08  # inches
STEP = 0.66  # inches from one tile to the next
STYLE = {
    "axes.titlelocation": "left",
    "axes.titlesize": "medium",
    "figure.constrained_layout.h_pad": PAD,
    "figure.constrained_layout.w_pad": PAD,
    "figure.titlesize": 11,
    "figure.titleweight": "bold",
    "font.size": 8.5,
    "image.interpolation": "nearest",
    "xaxis.labellocation": "left",
}


def draw(model: CNN, analysis: FilterAnalysis, folder: Path) -> None:
    """Write every picture of the ``analysis`` of ``model`` into ``folder``."""
    with mpl.rc_context(STYLE):
        for name, figure in pictures(model, analysis):
            _save(figure, folder / f"{name}.png")


def pictures(model: CNN, analysis: FilterAnalysis) -> Iterator[tuple[str, Figure]]:
    """The name of every picture of the ``analysis`` of ``model``, and the picture."""
    largest = max(float(layer.activation.max()) for layer in analysis.layers)
    yield "input", input_image(analysis)
    yield "kernels_conv1", kernels(model.get_parameter("conv1.weight"))
    yield "receptive_fields", receptive_fields(analysis)
    yield "evidence", evidence(analysis)
    for layer in analysis.layers:
        yield f"activations_{layer.name}", activations(analysis, layer, largest)
        yield f"activations_{layer.name}_own_scale", activations(analysis, layer)
        yield f"top_patches_{layer.name}", top_patches(layer)


def grid_shape(channels: int) -> tuple[int, int]:
    """Rows and columns for ``channels`` tiles: 32 give (8, 4), 64 (8, 8), others a grid near square.

    Without an empty place, if that takes at most twice as many rows as columns.
    """
    widest = math.isqrt(channels)
    exact = [n for n in range(widest, 0, -1) if channels % n == 0 and channels <= 2 * n * n]
    columns = exact[0] if exact else widest
    return math.ceil(channels / columns), columns


def input_image(analysis: FilterAnalysis) -> Figure:
    """The image beside its most probable classes."""
    figure = _figure(f"Test image {analysis.index}: {analysis.label}, predicted {analysis.predicted}", 6.6, 3)
    left, right = figure.subplots(1, 2)
    _show(left, analysis.image)
    names, shares = zip(*analysis.best, strict=True)
    colours = ["#21918c" if name == analysis.label else "#b0b4ba" for name in names]
    bars = right.barh(names, shares, 0.7, color=colours)
    right.bar_label(bars, [f"{share:.1%}" for share in shares], padding=4)
    right.invert_yaxis()
    right.tick_params(left=False)
    right.spines[["top", "right", "bottom"]].set_visible(False)
    right.set(xlim=(0, 1), xticks=[], xlabel="probability (green: the true class)")
    return figure


def activations(analysis: FilterAnalysis, layer: Layer, largest: float | None = None) -> Figure:
    """A tile for each channel of ``layer``, colours from 0 to ``largest`` (its own), beside the image."""
    channels, height, width = layer.activation.shape
    rows, columns = grid_shape(channels)
    scale = f"scale of {layer.name} alone" if largest is None else "all layers on one scale"
    figure = _figure(f"{layer.name} after ReLU, {scale}", STEP * columns + 2.2, STEP * 1.2 * rows + 0.4)
    left, right = figure.subplots(1, 2, width_ratios=(1.4, STEP * columns))
    _show(left, analysis.image)
    left.set_xlabel(
        f"test image {analysis.index}\nlabel: {analysis.label}\n"
        f"prediction: {analysis.predicted} ({analysis.best[0][1]:.0%})\n\n"
        f"{channels} channels\nof {height}x{width} units"
    )
    picture = _tiles(right, layer.activation[:, None], columns, range(channels), math.nan)
    picture.set_clim(0, (layer.activation.max() if largest is None else largest) or 1)
    figure.colorbar(picture, cax=right.inset_axes((1.03, 0, 0.04, 1)))
    return figure


def kernels(weights: Tensor) -> Figure:
    """``weights`` (C, 3, k, k) of the first convolution as colour tiles: grey is 0, one scale for all."""
    channels, _, size, _ = weights.shape
    largest = float(weights.abs().max()) or 1.0
    columns, rows = grid_shape(channels)  # lying: the legend stands below
    title = f"conv1: the {channels} kernels, {size}x{size} pixels each"
    figure = _figure(title, STEP * columns + 0.6, STEP * rows + 1.3)
    upper, lower = figure.subplots(2, 1, height_ratios=(STEP * rows, 0.4))
    _tiles(upper, 0.5 + weights / (2 * largest), columns, range(channels), 1)
    legend = torch.full((3, 256, 3), 0.5)
    legend[range(3), :, range(3)] = torch.linspace(0, 1, 256)
    lower.imshow(legend, aspect="auto", extent=(-largest, largest, 2.5, -0.5))
    lower.set_yticks(range(3), ["red", "green", "blue"])
    lower.set_xticks([-largest, 0, largest], [f"{-largest:.2f}", "0", f"{largest:.2f}"])
    lower.set_xlabel("weight of each colour; grey is 0")
    return figure


def top_patches(layer: Layer) -> Figure:
    """A block of three columns for the patches of each channel of ``layer``, its maximum above."""
    channels, best, size = layer.patches.shape[:3]
    rows, columns = grid_shape(channels)
    title = f"{layer.name}: the {best} test patches that activate each channel most"
    figure = _figure(title, 1.2 * columns, 1.4 * rows + 0.5)
    blocks = [make_grid(patches.movedim(3, 1), 3, padding=1, pad_value=200) for patches in layer.patches]
    labels = [
        f"{channel}: up to {maximum:.1f}" if maximum > 0 else f"{channel}: never active"
        for channel, maximum in enumerate(layer.survey.maximum)
    ]
    axes = figure.subplots()
    _tiles(axes, torch.stack(blocks), columns, labels, 255)
    axes.set_title(f"{size}x{size} pixels: all that one unit sees. Pink: outside the image.")
    return figure


def receptive_fields(analysis: FilterAnalysis) -> Figure:
    """For each layer the field of its central unit: framed on the image, and as measured beneath."""
    count = len(analysis.layers)
    figure = _figure("What the central unit of each layer sees", 1.75 * count + 0.3, 4.2)
    axes = figure.subplots(2, count, squeeze=False)
    for layer, (upper, lower) in zip(analysis.layers, axes.T, strict=True):
        first, end = layer.field.span(layer.activation.shape[1] // 2)
        _show(upper, analysis.image)
        _show(lower, layer.magnitude, cmap="magma", vmin=0)
        for place in (upper, lower):
            outline = [withStroke(linewidth=3, foreground="black")]
            corner, side = (first - 0.5, first - 0.5), end - first
            frame = Rectangle(corner, side, side, fill=False, lw=1.3, ec="white", path_effects=outline)
            place.add_patch(frame)
        upper.set_title(f"{layer.name}: {end - first}x{end - first}")
        lower.set_xlabel(f"as wide as {layer.effective:.1f} pixels")
    axes[0, 0].set_ylabel("in theory")
    axes[1, 0].set_ylabel("measured (mean gradient)")
    return figure


def evidence(analysis: FilterAnalysis) -> Figure:
    """The image, the evidence for the predicted class, and both in one."""
    figure = _figure(f"Where the prediction comes from: {analysis.predicted}", 7.6, 3.3)
    largest = float(analysis.evidence.abs().max()) or 1.0
    style = {"cmap": "RdBu_r", "vmin": -largest, "vmax": largest}
    axes = figure.subplots(1, 3)
    _show(axes[0], analysis.image)
    heat = _show(axes[1], analysis.evidence, **style)
    _show(axes[2], analysis.image.float().mean(2), cmap="gray", vmin=0, vmax=255)
    _show(axes[2], analysis.evidence, alpha=0.6, **style)
    figure.colorbar(heat, ax=axes, shrink=0.8)
    for place, title in zip(axes, ("image", "evidence", "evidence over the image"), strict=True):
        place.set_title(title)
    figure.supxlabel(
        "Evidence: how far the logit drops while 8x8 pixels around a place are hidden. Over test images,\n"
        f"hiding the top fifth of the pixels costs {mean(analysis.drops.top):.2f}, "
        f"hiding the same shape elsewhere {mean(analysis.drops.moved):.2f}.",
        x=0.01,
        ha="left",
        size="medium",
    )
    return figure


def _figure(title: str, width: float, height: float) -> Figure:
    """A figure of about ``width`` x ``height`` inches that lays itself out."""
    figure = Figure(figsize=(width, height), layout="constrained")
    figure.suptitle(title, x=PAD / width, ha="left")
    return figure


def _show(axes: Axes, picture: Tensor, **style: Any) -> AxesImage:
    """Draw ``picture`` (H, W) or (H, W, 3) without an axis."""
    axes.set(xticks=[], yticks=[], anchor="NW")
    axes.spines[:].set_visible(False)
    return axes.imshow(picture, **style)


def _tiles(
    axes: Axes, tiles: Tensor, columns: int, labels: Iterable[object], blank: float
) -> AxesImage:
    """Draw ``tiles`` (M, 1 or 3, H, W) in rows, ``labels`` above them, ``blank`` between them."""
    gap = math.ceil(tiles.shape[3] / 4)
    tiles = pad(tiles, (0, math.ceil(gap / 3), gap, 0), value=blank)
    height, width = tiles.shape[2:]
    grid = make_grid(tiles, columns, padding=0, pad_value=blank)
    for number, label in enumerate(labels):
        row, column = divmod(number, columns)
        x, y = column * width - 0.5, row * height + gap - 0.5
        axes.text(x, y, str(label), size=6.5, color="0.35", va="bottom", in_layout=False)
    return _show(axes, grid[0] if tiles.shape[1] == 1 else grid.movedim(0, 2))


def _save(figure: Figure, path: Path) -> None:
    """Write ``figure``, cut to what is drawn, at the resolution near its own that makes image pixels whole."""
    figure.get_layout_engine().execute(figure)
    figure.set_layout_engine("none")
    drawn = figure.get_tightbbox().padded(PAD)
    largest = max((image for axes in figure.axes for image in axes.images), key=lambda image: image.get_size())
    scale = largest.axes.get_window_extent().width / largest.get_size()[1]
    save_figure(figure, path, dpi=figure.dpi * max(1, round(scale)) / scale, bbox_inches=drawn)
