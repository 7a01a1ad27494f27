"""The picture of images of each class."""

from pathlib import Path

import torch
from matplotlib.figure import Figure

from stages.common.dataset import Split
from stages.drawing.figures import save_figure


def draw_samples(split: Split, classes: tuple[str, ...], path: Path, columns: int = 10) -> None:
    """Write the first ``columns`` images of each class of ``split``, a row for each class."""
    figure = Figure(figsize=(7, 6.4), layout="constrained")
    axes = figure.subplots(len(classes), columns, squeeze=False)
    for label, row in enumerate(axes):
        chosen = torch.nonzero(split.labels == label).flatten()[:columns]
        for axis in row:
            axis.set_axis_off()
        for axis, index in zip(row, chosen, strict=False):
            axis.imshow(split.images[index].numpy())
        row[0].text(-0.25, 0.5, classes[label], transform=row[0].transAxes, ha="right", va="center")
    save_figure(figure, path)
