"""The page to explore: one HTML file that runs the trained network in a browser, from disk alone."""

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib import colormaps
from PIL import Image
from torch import Tensor, nn

from stages.common.dataset import Data
from stages.common.files import write_bytes
from stages.common.geometry import IMAGE_SIZE
from stages.filters.analysis import FilterAnalysis
from stages.networks.models import CNN

# read when the stage begins, as all code
PARTS = {
    name: Path(__file__).with_name(file).read_text(encoding="utf-8")
    for name, file in (("page", "explorer.html"), ("network", "network.js"), ("script", "explorer.js"))
}
PER_CLASS = 10


def choose(data: Data, first: int, order: Tensor) -> list[int]:
    """Test images for the page: ``first``, then the first `PER_CLASS` of each class in ``order`` (M,)."""
    labels = data.test.labels[order]
    chosen = [order[labels == label][:PER_CLASS].tolist() for label in range(len(data.classes))]
    return list(dict.fromkeys([first, *(index for indices in chosen for index in indices)]))


@torch.inference_mode()
def write(path: Path, name: str, model: CNN, data: Data, analysis: FilterAnalysis) -> None:
    """Write the page about ``model``, called ``name``, and its ``analysis`` to ``path``."""
    indices = choose(data, analysis.index, analysis.sample)
    content: dict[str, Any] = {
        "model": name,
        "tests": len(data.test),
        "classes": data.classes,
        "mean": data.mean.tolist(),
        "std": data.std.tolist(),
        "lut": {key: _lookup(key) for key in ("viridis", "RdBu_r")},
        "inputs": _png(_row(data.test.images[indices].numpy())),
        "images": [{"index": index, "label": int(data.test.labels[index])} for index in indices],
        "network": layers(model),
        "layers": [
            {
                "name": layer.name,
                "field": layer.field.size,
                "stride": layer.field.stride,
                "start": layer.field.start,
                "active": [round(float(share), 5) for share in layer.survey.active],
                "mean": [round(float(mean), 5) for mean in layer.survey.mean],
                "maximum": [round(float(maximum), 4) for maximum in layer.survey.maximum],
                # a row of patches for each channel
                "patches": _png(np.concatenate([_row(row) for row in layer.patches.numpy()])),
                "patch": layer.patches.shape[2],
                "values": [[round(float(value), 3) for value in row] for row in layer.survey.values.T],
                "tops": layer.survey.images.T.tolist(),
            }
            for layer in analysis.layers
        ],
    }
    text = json.dumps(content, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    page = PARTS["page"].replace("{{network}}", PARTS["network"]).replace("{{script}}", PARTS["script"])
    write_bytes(path, page.replace("{{data}}", text).encode())


def layers(model: CNN) -> list[dict[str, Any]]:
    """The layers of ``model`` in evaluation mode, as `network.js` takes them.

    There batch norm is a scale and a shift for each channel, and dropout nothing.

    Raises:
        TypeError: a layer that `network.js` does not have.
    """
    found: list[dict[str, Any]] = []
    side, channels = IMAGE_SIZE, 3
    for name, module in model.named_children():
        layer: dict[str, Any] = {"name": name, "input": side}
        match module:
            case nn.Conv2d():
                kernel = module.kernel_size[0]
                pad = (kernel - 1) // 2 if module.padding == "same" else 0
                side = side if module.padding == "same" else side - kernel + 1
                layer |= {
                    "kind": "conv",
                    "inputs": channels,
                    "outputs": module.out_channels,
                    "kernel": kernel,
                }
                layer |= {"pad": pad, "weight": _floats(module.weight)}
                layer |= {} if module.bias is None else {"bias": _floats(module.bias)}
                channels = module.out_channels
            case nn.BatchNorm2d():
                assert module.running_mean is not None
                assert module.running_var is not None
                scale = module.weight.double() / (module.running_var.double() + module.eps).sqrt()
                shift = module.bias.double() - module.running_mean.double() * scale
                layer |= {"kind": "norm", "scale": _floats(scale), "shift": _floats(shift)}
            case nn.ReLU():
                layer |= {"kind": "relu"}
            case nn.MaxPool2d():
                side //= 2
                layer |= {"kind": "pool", "channels": channels}
            case nn.Linear():
                layer |= {"kind": "dense", "weight": _floats(module.weight), "bias": _floats(module.bias)}
            case nn.Flatten() | nn.Dropout():
                continue
            case _:
                raise TypeError(f"{name}: network.js has no {type(module).__name__}")
        found.append(layer | {"side": side})
    return found


def _row(tiles: np.ndarray) -> np.ndarray:
    """``tiles`` (M, H, W, ...) side by side, (H, M W, ...)."""
    return np.concatenate(list(tiles), axis=1)


def _png(picture: np.ndarray) -> str:
    """``picture`` (H, W) or (H, W, 3) uint8 as PNG in base64."""
    content = io.BytesIO()
    Image.fromarray(picture).save(content, "png", optimize=True)
    return base64.b64encode(content.getvalue()).decode()


def _floats(values: Tensor) -> str:
    """``values`` as little-endian float32 in base64."""
    return base64.b64encode(values.detach().numpy().astype("<f4").tobytes()).decode()


def _lookup(name: str) -> str:
    """Matplotlib's colour map ``name`` as 256 RGB triples in base64."""
    return base64.b64encode(colormaps[name](np.arange(256), bytes=True)[:, :3].tobytes()).decode()
