"""Drawing with matplotlib, the same whatever the user's own settings are."""

import io
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from stages.common.files import write_bytes

mpl.rcdefaults()  # a user's matplotlibrc must not change a tracked file
mpl.use("agg")  # nor choose a window system: that is no part of the defaults


def save_figure(figure: Figure, path: Path, **options: Any) -> None:
    """Write ``figure`` as PNG, without the time and versions that matplotlib would add.

    ``options`` are those of `Figure.savefig`.
    """
    content = io.BytesIO()
    figure.savefig(content, **{"format": "png", "dpi": 100, "metadata": {"Software": None}, **options})
    write_bytes(path, content.getvalue())
