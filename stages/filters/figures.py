"""The pictures of `visualize_filters`."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from stages.drawing.figures import save_figure
from stages.filters.analysis import FilterAnalysis, mean
from stages.networks.models import CNN

DPI = 100
Array = np.ndarray


def draw(model: CNN, analysis: FilterAnalysis, folder: Path) -> None:
    """Write every picture of the ``analysis`` of ``model`` into ``folder``."""
    image = analysis.image.numpy()
    caption = (
        f"test image {analysis.index}\nlabel: {analysis.label}\n"
        f"prediction: {analysis.predicted} ({analysis.best[0][1]:.0%})"
    )
    largest = max(float(layer.activation.max()) for layer in analysis.layers)
    input_image(image, analysis.index, analysis.label, analysis.best, folder / "input.png")
    kernels(model.get_parameter("conv1.weight").numpy(), folder / "kernels_conv1.png")
    receptive_fields(
        image,
        [
            (
                layer.name,
                layer.field.span(layer.activation.shape[1] // 2),
                layer.magnitude.numpy(),
                layer.effective,
            )
            for layer in analysis.layers
        ],
        folder / "receptive_fields.png",
    )
    evidence(
        image,
        analysis.evidence.numpy(),
        analysis.predicted,
        mean(analysis.drops.top),
        mean(analysis.drops.moved),
        folder / "evidence.png",
    )
    for layer in analysis.layers:
        for suffix, top, scale in (
            ("", largest, "all layers on one scale"),
            ("_own_scale", float(layer.activation.max()), f"scale of {layer.name} alone"),
        ):
            activation_grid(
                f"{layer.name} after ReLU, {scale}",
                layer.activation.numpy(),
                top,
                image,
                caption,
                folder / f"activations_{layer.name}{suffix}.png",
            )
        top_patches(
            layer.name,
            layer.patches.numpy(),
            layer.survey.maximum.numpy(),
            folder / f"top_patches_{layer.name}.png",
        )


def grid_shape(channels: int) -> tuple[int, int]:
    """Rows and columns for ``channels`` tiles: 32 give (8, 4), 64 (8, 8), others a grid near square.

    Without an empty place, if that takes at most twice as many rows as columns.
    """
    widest = math.isqrt(channels)
    exact = [n for n in range(widest, 0, -1) if channels % n == 0 and channels <= 2 * n * n]
    columns = exact[0] if exact else widest
    return math.ceil(channels / columns), columns


def mosaic(tiles: Array, columns: int, gap: int, fill: float | Sequence[float]) -> Array:
    """``tiles`` (M, H, W) or (M, H, W, 3) in rows of ``columns``, ``gap`` pixels of ``fill`` between them.

    There is no gap around: the picture is (rows (H + gap) - gap, columns (W + gap) - gap).
    """
    count, height, width = tiles.shape[:3]
    rows = math.ceil(count / columns)
    shape = (rows * (height + gap) - gap, columns * (width + gap) - gap, *tiles.shape[3:])
    picture = np.empty(shape, tiles.dtype)
    picture[...] = fill
    for number, tile in enumerate(tiles):
        row, column = divmod(number, columns)
        top, left = row * (height + gap), column * (width + gap)
        picture[top : top + height, left : left + width] = tile
    return picture


class _Canvas:
    """A figure measured in pixels from the top left, so that image pixels stay whole pixels."""

    def __init__(self, width: int, height: int, title: str) -> None:
        self.width, self.height = width, height
        self.figure = Figure(figsize=(width / DPI, height / DPI), facecolor="white")
        self.text(14, 12, title, size=11, weight="bold", va="top")

    def axes(self, left: float, top: float, width: float, height: float) -> Axes:
        bottom = self.height - top - height
        box = (left / self.width, bottom / self.height, width / self.width, height / self.height)
        return self.figure.add_axes(box)

    def text(self, x: float, y: float, text: str, **style: object) -> None:
        self.figure.text(x / self.width, 1 - y / self.height, text, **style)  # type: ignore[arg-type]

    def image(self, left: float, top: float, picture: Array, zoom: int, **style: object) -> Axes:
        """Draw ``picture`` with every pixel as ``zoom`` x ``zoom``."""
        height, width = picture.shape[:2]
        axes = self.axes(left, top, width * zoom, height * zoom)
        axes.imshow(picture, interpolation="nearest", aspect="auto", **style)  # type: ignore[arg-type]
        axes.set_axis_off()
        return axes

    def save(self, path: Path) -> None:
        save_figure(self.figure, path, DPI)


def input_image(image: Array, index: int, label: str, best: Sequence[tuple[str, float]], path: Path) -> None:
    """Test image ``index``, ``image`` (H, W, 3) uint8, beside its ``best`` classes and probabilities."""
    canvas = _Canvas(700, 330, f"Test image {index}: {label}, predicted {best[0][0]}")
    canvas.image(14, 48, image, 256 // image.shape[0])
    axes = canvas.axes(390, 48, 250, 256)
    names = [name for name, _ in best]
    shares = [share for _, share in best]
    colours = ["#21918c" if name == label else "#b0b4ba" for name in names]
    axes.barh(range(len(best)), shares, color=colours, height=0.7)
    axes.set_yticks(range(len(best)), names)
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.set_xticks([])
    axes.tick_params(left=False)
    axes.spines[["top", "right", "bottom"]].set_visible(False)
    for place, share in enumerate(shares):
        inside = share > 0.8
        axes.text(
            share + (-0.02 if inside else 0.02),
            place,
            f"{share:.1%}",
            va="center",
            ha="right" if inside else "left",
            color="white" if inside and names[place] == label else "black",
        )
    canvas.text(390, 318, "probability (green: the true class)", size=8, color="0.35")
    canvas.save(path)


def activation_grid(
    title: str, activation: Array, largest: float, image: Array, caption: str, path: Path
) -> None:
    """``activation`` (C, H, W) as one tile per channel, colours from 0 to ``largest``.

    ``image`` (H, W, 3) uint8 stands beside, with its ``caption``.
    """
    rows, columns = grid_shape(len(activation))
    height, width = activation.shape[1:]
    zoom = max(1, 64 // height)
    label, gap = 13, 4  # pixels of the figure
    step_x, step_y = width * zoom + gap, height * zoom + gap + label
    side = image.shape[0] * 4
    left, top = side + 42, 44
    grid_height = rows * step_y
    canvas = _Canvas(max(left + columns * step_x + 84, 420), max(top + grid_height + 12, 330), title)
    canvas.image(14, top + label, image, 4)
    canvas.text(14, top + label + side + 6, caption, size=8.5, va="top")
    canvas.text(
        14,
        top + label + side + 62,
        f"{len(activation)} channels\nof {height}x{width} units",
        size=8.5,
        va="top",
        color="0.35",
    )
    # one image for the whole grid: a mosaic with room for the numbers between the rows
    picture = np.full((rows * step_y - gap, columns * step_x - gap), np.nan, np.float32)
    for channel, tile in enumerate(activation):
        row, column = divmod(channel, columns)
        y, x = row * step_y + label, column * step_x
        picture[y : y + height * zoom, x : x + width * zoom] = tile.repeat(zoom, 0).repeat(zoom, 1)
        canvas.text(left + x, top + y - 3, str(channel), size=6.5, color="0.35")
    norm = Normalize(0, largest or 1)
    canvas.image(left, top, picture, 1, cmap="viridis", norm=norm)
    bar = canvas.axes(left + columns * step_x + 14, top + label, 14, max(min(grid_height - label, 400), 100))
    canvas.figure.colorbar(ScalarMappable(norm, "viridis"), cax=bar)
    bar.tick_params(labelsize=8)
    canvas.save(path)


def kernels(weights: Array, path: Path) -> None:
    """``weights`` (C, 3, k, k) of the first convolution as colour tiles: grey is 0, one scale for all."""
    largest = float(np.abs(weights).max()) or 1.0
    tiles = (0.5 + weights.transpose(0, 2, 3, 1) / (2 * largest)).astype(np.float32)
    rows, columns = grid_shape(len(tiles))
    rows, columns = columns, rows  # lying: the legend stands below
    size = tiles.shape[1]
    zoom = max(1, 54 // size)
    label, gap = 13, 8
    step_x, step_y = size * zoom + gap, size * zoom + gap + label
    left, top = 14, 40
    width = max(left + columns * step_x + 6, 430)
    canvas = _Canvas(
        width, top + rows * step_y + 92, f"conv1: the {len(tiles)} kernels, {size}x{size} pixels each"
    )
    for channel, tile in enumerate(tiles):
        row, column = divmod(channel, columns)
        canvas.text(
            left + column * step_x, top + row * step_y + label - 3, str(channel), size=6.5, color="0.35"
        )
        canvas.image(left + column * step_x, top + row * step_y + label, tile, zoom)
    levels = np.linspace(0, 1, 256, dtype=np.float32)
    legend = np.full((3, 256, 3), 0.5, np.float32)
    for colour in range(3):
        legend[colour, :, colour] = levels
    below = top + rows * step_y + 14
    axes = canvas.axes(left + 44, below, 240, 42)
    axes.imshow(legend, aspect="auto", extent=(-largest, largest, 2.5, -0.5), interpolation="nearest")
    axes.set_yticks(range(3), ["red", "green", "blue"])
    axes.set_xticks([-largest, 0, largest], [f"{-largest:.2f}", "0", f"{largest:.2f}"])
    axes.tick_params(labelsize=8, length=2)
    canvas.text(
        left + 44 + 262, below + 4, "weight of each colour;\ngrey is 0", size=8, va="top", color="0.35"
    )
    canvas.save(path)


def top_patches(layer: str, patches: Array, maximum: Array, path: Path) -> None:
    """``patches`` (C, K, size, size, 3) uint8 as a block of three columns for each channel.

    ``maximum`` (C,) is each channel's largest activation, written above its block.
    """
    rows, columns = grid_shape(len(patches))
    size = patches.shape[2]
    zoom = max(1, 32 // size)
    inner, label, gap = 1, 13, 10
    blocks = [mosaic(block, 3, inner, (200, 200, 200)) for block in patches]
    height, width = (side * zoom for side in blocks[0].shape[:2])
    step_x, step_y = max(width, 62) + gap, height + gap + label
    left, top = 14, 58
    canvas = _Canvas(
        max(left + columns * step_x + 4, 560),
        top + rows * step_y + 6,
        f"{layer}: the {patches.shape[1]} test patches that excite each channel most",
    )
    canvas.text(
        14,
        33,
        f"{size}x{size} pixels: all that one unit sees. Pink: outside the image.",
        size=8.5,
        va="top",
        color="0.35",
    )
    picture = np.full((rows * step_y - gap, columns * step_x - gap, 3), 255, np.uint8)
    for channel, block in enumerate(blocks):
        row, column = divmod(channel, columns)
        y, x = row * step_y + label, column * step_x
        picture[y : y + height, x : x + width] = block.repeat(zoom, 0).repeat(zoom, 1)
        text = (
            f"{channel}: up to {maximum[channel]:.1f}" if maximum[channel] > 0 else f"{channel}: never active"
        )
        canvas.text(left + x, top + y - 3, text, size=6.5, color="0.35")
    canvas.image(left, top, picture, 1)
    canvas.save(path)


def receptive_fields(
    image: Array, layers: Sequence[tuple[str, tuple[int, int], Array, float]], path: Path
) -> None:
    """For each layer the field of its central unit: framed on ``image``, and as measured beneath.

    ``layers`` holds name, first pixel and end of the field, mean gradient (H, W), and how wide that
    is in pixels.
    """
    zoom, gap, left, top = 5, 16, 92, 66
    side = image.shape[0] * zoom
    canvas = _Canvas(
        left + len(layers) * (side + gap),
        top + 2 * (side + gap) + 28,
        "What the central unit of each layer sees",
    )
    canvas.text(14, top + side / 2, "can see\n(theory)", size=9, va="center")
    canvas.text(14, top + gap + side * 1.5, "does see\n(mean\ngradient)", size=9, va="center")
    for place, (layer, (first, end), magnitude, size) in enumerate(layers):
        x = left + place * (side + gap)
        canvas.text(x, top - 6, f"{layer}: {end - first}x{end - first}", size=9)
        upper = canvas.image(x, top, image, zoom)
        lower = canvas.image(x, top + side + gap, magnitude, zoom, cmap="magma", vmin=0)
        for axes in (upper, lower):
            colour = "#ffffff"
            for width, edge in ((3.0, "black"), (1.3, colour)):
                axes.add_patch(
                    Rectangle(
                        (first - 0.5, first - 0.5), end - first, end - first, fill=False, lw=width, ec=edge
                    )
                )
            axes.set_xlim(-0.5, image.shape[1] - 0.5)
            axes.set_ylim(image.shape[0] - 0.5, -0.5)
        canvas.text(x, top + 2 * side + gap + 16, f"as wide as {size:.1f} pixels", size=8.5, color="0.35")
    canvas.save(path)


def evidence(image: Array, heat: Array, predicted: str, top: float, moved: float, path: Path) -> None:
    """``image`` (H, W, 3) uint8, its evidence ``heat`` (H, W) for ``predicted``, and both in one.

    ``top`` and ``moved`` are the mean drops of the logit that show the map to be faithful.
    """
    zoom, gap, left, header = 7, 16, 14, 62
    side = image.shape[0] * zoom
    canvas = _Canvas(
        left + 3 * (side + gap) + 62, header + side + 40, f"Where the prediction comes from: {predicted}"
    )
    largest = float(np.abs(heat).max()) or 1.0
    style = {"cmap": "RdBu_r", "vmin": -largest, "vmax": largest}
    grey = np.repeat(image.mean(axis=2, keepdims=True), 3, axis=2).astype(np.uint8)
    for place, title in enumerate(("image", "evidence", "evidence over the image")):
        canvas.text(left + place * (side + gap), header - 6, title, size=9)
    canvas.image(left, header, image, zoom)
    canvas.image(left + side + gap, header, heat, zoom, **style)
    axes = canvas.image(left + 2 * (side + gap), header, grey, zoom)
    axes.imshow(heat, interpolation="nearest", aspect="auto", alpha=0.6, **style)  # type: ignore[arg-type]
    bar = canvas.axes(left + 3 * (side + gap) - 4, header, 12, side)
    canvas.figure.colorbar(ScalarMappable(Normalize(-largest, largest), "RdBu_r"), cax=bar)
    bar.tick_params(labelsize=8)
    canvas.text(
        left,
        header + side + 24,
        "Evidence: how far the logit drops while 8x8 pixels around a place are hidden. Over test images,\n"
        f"hiding the top fifth of the pixels costs {top:.2f}, hiding the same shape elsewhere {moved:.2f}.",
        size=8.5,
        color="0.35",
        va="center",
    )
    canvas.save(path)
