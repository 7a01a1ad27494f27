"""Drawing with matplotlib, the same whatever the user's own settings are."""

import io
from pathlib import Path

import matplotlib as mpl
import torch
from matplotlib.figure import Figure

from stages.common.dataset import Split
from stages.common.files import write_bytes

mpl.rcdefaults()  # a user's matplotlibrc must not change a tracked file


def save_figure(figure: Figure, path: Path, dpi: int = 100) -> None:
    """Write ``figure`` as PNG, without the time and versions that matplotlib would add."""
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=dpi, metadata={"Software": None})
    write_bytes(path, content.getvalue())


def samples(split: Split, classes: tuple[str, ...], path: Path, columns: int = 10) -> None:
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
