"""The pictures of `visualize_filters`."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from torch import Tensor
from torch.nn.functional import pad
from torchvision.utils import make_grid

from stages.drawing.figures import save_figure
from stages.filters.analysis import FilterAnalysis, Layer, mean
from stages.networks.models import CNN

PAD = 0.08  # inches around everything
TILE = 0.66  # inches from one channel to the next
STYLE: dict[Any, Any] = {
    "axes.titlelocation": "left",
    "axes.titlesize": "medium",
    "figure.titlesize": 11,
    "figure.titleweight": "bold",
    "font.size": 8.5,
    "image.interpolation": "nearest",
    "xaxis.labellocation": "left",
}


def draw(model: CNN, analysis: FilterAnalysis, folder: Path) -> None:
    """Write every picture of the ``analysis`` of ``model`` into ``folder``."""
    largest = max(float(layer.activation.max()) for layer in analysis.layers)
    with mpl.rc_context(STYLE):
        _save(input_image(analysis), folder / "input.png")
        _save(kernels(model.get_parameter("conv1.weight").detach()), folder / "kernels_conv1.png")
        _save(receptive_fields(analysis), folder / "receptive_fields.png")
        _save(evidence(analysis), folder / "evidence.png")
        for layer in analysis.layers:
            _save(activations(analysis, layer, largest), folder / f"activations_{layer.name}.png")
            _save(activations(analysis, layer), folder / f"activations_{layer.name}_own_scale.png")
            _save(top_patches(layer), folder / f"top_patches_{layer.name}.png")


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
    title = f"Test image {analysis.index}: {analysis.label}, predicted {analysis.predicted}"
    figure, (left, right) = _figure(title, 7, 3.2, 1, 2)
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
    """A tile for each channel of ``layer``, colours from 0 to ``largest`` (or its own), beside the image."""
    channels, height, width = layer.activation.shape
    rows, columns = grid_shape(channels)
    scale = f"scale of {layer.name} alone" if largest is None else "all layers on one scale"
    title, widths = f"{layer.name} after ReLU, {scale}", (1.4, TILE * columns)
    size = sum(widths) + 1, 1.2 * TILE * rows + 0.4
    figure, (left, right) = _figure(title, *size, 1, 2, width_ratios=widths)
    _show(left, analysis.image)
    left.set_xlabel(
        f"test image {analysis.index}\nlabel: {analysis.label}\n"
        f"prediction: {analysis.predicted} ({analysis.best[0][1]:.0%})\n\n"
        f"{channels} channels\nof {height}x{width} units"
    )
    grid = _tiles(right, layer.activation[:, None], columns, math.nan)
    grid.set_clim(0, (float(layer.activation.max()) if largest is None else largest) or 1)
    figure.colorbar(grid, cax=right.inset_axes((1.03, 0, 0.04, 1)))
    return figure


def kernels(weights: Tensor) -> Figure:
    """``weights`` (C, 3, k, k) of the first convolution as colour tiles: grey is 0, one scale for all."""
    channels, _, size, _ = weights.shape
    largest = float(weights.abs().max()) or 1.0
    columns, rows = grid_shape(channels)  # lying: the legend stands below
    title = f"conv1: the {channels} kernels, {size}x{size} pixels each"
    heights = 1.1 * TILE * rows, 0.4
    figure, (upper, lower) = _figure(
        title, TILE * columns + 1, sum(heights) + 0.9, 2, 1, height_ratios=heights
    )
    _tiles(upper, 0.5 + weights / (2 * largest), columns, 1)
    legend = 0.5 + torch.eye(3)[:, None] * torch.linspace(-0.5, 0.5, 256)[:, None]
    lower.imshow(legend.numpy(), aspect="auto", extent=(-largest, largest, 2.5, -0.5))
    lower.set_xticks([-largest, 0, largest], [f"{-largest:.2f}", "0", f"{largest:.2f}"])
    lower.set_yticks(range(3), ["red", "green", "blue"])
    lower.set_xlabel("weight of each colour; grey is 0")
    return figure


def top_patches(layer: Layer) -> Figure:
    """The patches of each channel of ``layer`` as a block of three columns, its maximum above."""
    channels, best, size = layer.patches.shape[:3]
    rows, columns = grid_shape(channels)
    title = f"{layer.name}: the {best} test patches that activate each channel most"
    figure, axes = _figure(title, 1.15 * columns, 1.35 * rows + 0.6)
    blocks = [make_grid(patches.movedim(3, 1), 3, padding=1, pad_value=200) for patches in layer.patches]
    maxima = (f"up to {maximum:.1f}" if maximum > 0 else "never active" for maximum in layer.survey.maximum)
    labels = [f"{channel}: {maximum}" for channel, maximum in enumerate(maxima)]
    _tiles(axes, torch.stack(blocks), columns, 255, labels)
    axes.set_title(f"{size}x{size} pixels: all that a unit sees. Pink: outside the image, or no activation.")
    return figure


def receptive_fields(analysis: FilterAnalysis) -> Figure:
    """For each layer the field of its central unit: framed on the image, and as measured beneath."""
    count = len(analysis.layers)
    title = "What the central unit of each layer sees"
    figure, axes = _figure(title, 1.75 * count + 0.3, 4.2, 2, count, squeeze=False)
    outline = [withStroke(linewidth=3, foreground="black")]
    for layer, (upper, lower) in zip(analysis.layers, axes.T, strict=True):
        first, end = layer.field.span(layer.activation.shape[1] // 2)
        corner, side = (first - 0.5, first - 0.5), end - first
        _show(upper, analysis.image, f"{layer.name}: {side}x{side}")
        _show(lower, layer.magnitude, cmap="magma", vmin=0)
        lower.set_xlabel(f"effective width: {layer.effective_width:.1f} pixels")
        for place in (upper, lower):
            frame = Rectangle(corner, side, side, fill=False, lw=1.3, ec="white", path_effects=outline)
            place.add_patch(frame)
    axes[0, 0].set_ylabel("in theory")
    axes[1, 0].set_ylabel("measured (mean gradient)")
    return figure


def evidence(analysis: FilterAnalysis) -> Figure:
    """The image, the evidence for the predicted class, and both in one."""
    figure, axes = _figure(f"Where the prediction comes from: {analysis.predicted}", 7.9, 3.45, 1, 3)
    largest = float(analysis.evidence.abs().max()) or 1.0
    colours = {"cmap": "RdBu_r", "vmin": -largest, "vmax": largest}
    _show(axes[0], analysis.image, "image")
    heat = _show(axes[1], analysis.evidence, "evidence", **colours)
    _show(axes[2], analysis.image.float().mean(2), cmap="gray", vmin=0, vmax=255)
    _show(axes[2], analysis.evidence, "evidence over the image", alpha=0.6, **colours)
    figure.colorbar(heat, cax=axes[2].inset_axes((1.04, 0, 0.06, 1)))
    text = (
        "Evidence: how far the logit drops while 8x8 pixels around a place are hidden. Over test images,\n"
        f"hiding the top fifth of the pixels costs {mean(analysis.drops.top):.2f}, "
        f"hiding the same shape elsewhere {mean(analysis.drops.moved):.2f}."
    )
    figure.supxlabel(text, x=0.01, ha="left", size="medium")
    return figure


def _figure(title: str, width: float, height: float, *shape: int, **options: Any) -> tuple[Figure, Any]:
    """A figure of about ``width`` x ``height`` inches, and its axes, as `Figure.subplots` makes them."""
    figure = Figure(figsize=(max(width, 4.5), max(height, 3)))
    figure.suptitle(title, x=PAD / figure.get_figwidth(), ha="left")
    return figure, figure.subplots(*shape, **options)


def _show(axes: Axes, picture: Tensor, title: str = "", **style: Any) -> AxesImage:
    """Draw ``picture`` (H, W) or (H, W, 3) under its ``title``, without ticks."""
    axes.set(xticks=[], yticks=[], anchor="NW", title=title)
    axes.spines[:].set_visible(False)
    return axes.imshow(picture.numpy(), **style)


def _tiles(axes: Axes, tiles: Tensor, columns: int, blank: float, labels: Sequence[str] = ()) -> AxesImage:
    """Draw ``tiles`` (M, 1 or 3, H, W) in rows, ``labels`` or numbers above, ``blank`` between them."""
    gap = tiles.shape[2] // 5 + 1
    tiles = pad(tiles, (0, math.ceil(gap / 3), gap, 0), value=blank)
    height, width = tiles.shape[2:]
    for number, label in enumerate(labels or range(len(tiles))):
        row, column = divmod(number, columns)
        x, y = column * width - 0.5, row * height + gap - 0.5
        axes.text(x, y, str(label), size=6.5, color="0.35", va="bottom", in_layout=False)
    grid = make_grid(tiles, columns, padding=0, pad_value=blank)
    return _show(axes, grid[0] if tiles.shape[1] == 1 else grid.movedim(0, 2))


def _save(figure: Figure, path: Path) -> None:
    """Write ``figure``, cut to what is drawn, at the resolution that gives its largest image whole pixels."""
    # before it is saved, which needs to know the resolution
    ConstrainedLayoutEngine(h_pad=PAD, w_pad=PAD).execute(figure)
    image = max((image for axes in figure.axes for image in axes.images), key=AxesImage.get_size)
    image.axes.apply_aspect()
    zoom = image.axes.get_window_extent().width / image.get_size()[1]
    dpi = figure.dpi * max(1, round(zoom)) / zoom
    save_figure(figure, path, dpi=dpi, bbox_inches="tight", pad_inches=PAD)
