"""The picture ``docs/accuracy.png``: the chart ``accuracy`` of ``dvc plots show``."""

import hashlib
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import vl_convert
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from stages.common.files import write_bytes
from tools.charts import VEGA_LITE, specification


def accuracy_chart(metrics: Mapping[str, Mapping[str, Any]]) -> str:
    """The chart in Vega-Lite, as JSON; ``metrics`` holds the content of each ``metrics/<model>.json``."""
    rows = [
        {"rev": "workspace", "filename": f"metrics/{model}.json"} | epoch
        for model, result in metrics.items()
        for epoch in result["history"]
    ]
    chart = specification("accuracy", rows, "epoch", "test_accuracy", "Test accuracy")
    return json.dumps(chart, sort_keys=True)


def draw(chart: str, path: Path) -> None:
    """Write ``chart`` as PNG. The file carries the chart's digest, since fonts differ between machines."""
    note = PngInfo()
    note.add_text("specification", digest(chart))
    content = io.BytesIO()
    png = vl_convert.vegalite_to_png(chart, vl_version=VEGA_LITE, scale=2)
    Image.open(io.BytesIO(png)).save(content, "PNG", pnginfo=note, optimize=True)
    write_bytes(path, content.getvalue())


def is_drawn_from(chart: str, path: Path) -> bool:
    """Whether the picture at ``path`` was drawn from ``chart``."""
    if not path.exists():
        return False
    with Image.open(path) as picture:
        return picture.info.get("specification") == digest(chart)


def digest(chart: str) -> str:
    """SHA-256 of ``chart``, as hexadecimal digits."""
    return hashlib.sha256(chart.encode()).hexdigest()
