"""The page to explore: one HTML file with the pictures inside, which works from disk without a network."""

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib import colormaps
from PIL import Image
from torch import Tensor

from stages.common.dataset import Data
from stages.common.files import write_bytes
from stages.filters.activations import activations
from stages.filters.analysis import FilterAnalysis
from stages.networks.images import Images
from stages.networks.models import CNN

TEMPLATE = Path(__file__).with_name("explorer.html")
PER_CLASS = 4
BUDGET = 4_000_000  # bytes of activations before compression


def choose(model: CNN, data: Data, first: int, order: Tensor) -> list[int]:
    """Test images for the page: ``first``, then the first of each class in ``order`` (M,), class by class.

    ``PER_CLASS`` of each class, or fewer (at least one) if their activations would exceed ``BUDGET``.
    """
    with torch.inference_mode():
        layers, _ = activations(model, Images(data.test, data)[[first]][0])
    size = sum(layer.numel() for layer in layers)
    count = max(1, min(PER_CLASS, BUDGET // (size * len(data.classes))))
    labels = data.test.labels[order]
    chosen = [order[labels == label][:count].tolist() for label in range(len(data.classes))]
    return list(dict.fromkeys([first, *(index for indices in chosen for index in indices)]))


@torch.inference_mode()
def write(path: Path, name: str, model: CNN, data: Data, analysis: FilterAnalysis) -> None:
    """Write the page about ``model``, called ``name``, and its ``analysis`` to ``path``."""
    indices = choose(model, data, analysis.index, analysis.sample)
    layers, logits = activations(model, Images(data.test, data)[indices][0])
    probabilities, best = logits.softmax(dim=1), logits.topk(5).indices
    content: dict[str, Any] = {
        "model": name,
        "tests": len(data.test),
        "classes": data.classes,
        "lut": {key: _lookup(key) for key in ("viridis", "RdBu_r")},
        "inputs": _png(_row(data.test.images[indices].numpy())),
        "images": [
            {
                "index": index,
                "label": int(data.test.labels[index]),
                "probabilities": [round(float(p), 4) for p in probabilities[place]],
                # from the unrounded ones, as in the pictures
                "best": best[place].tolist(),
                "layers": [_scaled(layer[place].numpy()) for layer in layers],
            }
            for place, index in enumerate(indices)
        ],
        "layers": [
            {
                "name": layer.name,
                "field": layer.field.size,
                "side": layer.activation.shape[2],
                "active": [round(float(share), 5) for share in layer.survey.active],
                "mean": [round(float(mean), 5) for mean in layer.survey.mean],
                "maximum": [round(float(maximum), 4) for maximum in layer.survey.maximum],
                "kernel": _kernels(
                    model.get_parameter(f"{layer.name}.weight").numpy(), colours=layer.name == "conv1"
                ),
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
    page = TEMPLATE.read_text(encoding="utf-8").replace("{{data}}", text)
    write_bytes(path, page.encode())


def _row(tiles: np.ndarray) -> np.ndarray:
    """``tiles`` (M, H, W, ...) side by side, (H, M W, ...)."""
    return np.concatenate(list(tiles), axis=1)


def _png(picture: np.ndarray) -> str:
    """``picture`` (H, W) or (H, W, 3) uint8 as PNG in base64."""
    content = io.BytesIO()
    Image.fromarray(picture).save(content, "png", optimize=True)
    return base64.b64encode(content.getvalue()).decode()


def _scaled(activation: np.ndarray) -> dict[str, Any]:
    """``activation`` (C, H, W), from 0 up, as a row of 8-bit tiles, and the value that 255 stands for."""
    largest = float(activation.max())
    levels = np.rint(_row(activation) * (255 / largest if largest else 0)).astype(np.uint8)
    return {"png": _png(levels), "largest": round(largest, 4)}


def _kernels(weights: np.ndarray, colours: bool) -> dict[str, Any]:
    """``weights`` (C, inputs, k, k) in 8 bits, 128 is 0, 255 ``largest``: a row of tiles for each channel.

    With ``colours`` the three inputs are red, green and blue of one tile.
    """
    largest = float(np.abs(weights).max())
    levels = np.rint(128 + weights * (127 / largest if largest else 0)).astype(np.uint8)
    rows = [kernel.transpose(1, 2, 0) if colours else _row(kernel) for kernel in levels]
    return {
        "png": _png(np.concatenate(rows)),
        "largest": round(largest, 4),
        "inputs": weights.shape[1],
        "size": weights.shape[2],
    }


def _lookup(name: str) -> str:
    """Matplotlib's colour map ``name`` as 256 RGB triples in base64."""
    return base64.b64encode(colormaps[name](np.arange(256), bytes=True)[:, :3].tobytes()).decode()
