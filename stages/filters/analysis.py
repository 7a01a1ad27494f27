"""What the filters of one network answer to one test image, and to all of them."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stages.common.dataset import Data, Split, balanced_order
from stages.common.geometry import Field
from stages.filters.activations import (
    Survey,
    activations,
    convolutions,
    effective_fields,
    effective_width,
    fields,
    survey,
    top_patches,
)
from stages.filters.evidence import Faithfulness, faithfulness, occlusion
from stages.networks.images import Images
from stages.networks.models import CNN

SAMPLE = 500
PADDING = (255, 0, 160)  # no photograph has it


@dataclass(frozen=True)
class Layer:
    """One convolution, ``field`` its units' receptive field.

    ``activation`` (C, H, W): its answer to the chosen image after ReLU; ``survey`` and ``patches``
    (C, K, size, size, 3) uint8: its answers to the test set, and what activates it most; ``magnitude``
    (H, W): how much its central unit depends on each pixel, ``effective_width``: of how many pixels.
    """

    name: str
    field: Field
    activation: Tensor
    survey: Survey
    patches: Tensor
    magnitude: Tensor
    effective_width: float


@dataclass(frozen=True)
class FilterAnalysis:
    """The chosen test image ``index``, and the layers.

    ``image`` (H, W, 3) uint8, ``best``: its five most probable classes and their probabilities to
    four decimals, ``evidence`` (H, W): where the prediction comes from. ``sample`` (M,): the test
    images in which pixels were hidden, ``drops``: what that did.
    """

    index: int
    image: Tensor
    label: str
    predicted: str
    best: list[tuple[str, float]]
    evidence: Tensor
    layers: list[Layer]
    sample: Tensor
    drops: Faithfulness


def analyze(model: CNN, data: Data, index: int, seed: int) -> FilterAnalysis:
    """Look at ``model`` with the test images of ``data``, at image ``index`` closely.

    ``seed`` draws the sample and the pixels that are hidden at random.
    """
    images = Images(data.test, data)
    image = images[[index]][0]
    answers, logits = activations(model, image)
    sample = sample_of(data.test, seed)
    layers = [
        Layer(
            name,
            field,
            answer[0],
            result,
            top_patches(data.test.images, field, result, PADDING),
            magnitude,
            effective_width(magnitude),
        )
        for name, field, answer, result, magnitude in zip(
            convolutions(model),
            fields(model),
            answers,
            survey(model, images),
            effective_fields(model, images, sample),
            strict=True,
        )
    ]
    hidden = images[sample][0]
    generator = torch.Generator().manual_seed(seed)
    return FilterAnalysis(
        index=index,
        image=data.test.images[index],
        label=data.classes[data.test.labels[index]],
        predicted=data.classes[logits[0].argmax()],
        best=[
            (data.classes[place], round(float(logits[0].softmax(0)[place]), 4))
            for place in logits[0].topk(5).indices
        ],
        evidence=occlusion(model, image)[0],
        layers=layers,
        sample=sample,
        drops=faithfulness(model, hidden, occlusion(model, hidden), generator),
    )


def sample_of(test: Split, seed: int) -> Tensor:
    """Indices of `SAMPLE` test images with equal shares of the classes; of all where there are no more."""
    if len(test) <= SAMPLE:
        return torch.arange(len(test))
    order = balanced_order(test.labels.numpy(), np.random.default_rng(seed))
    return torch.from_numpy(np.sort(order[:SAMPLE]))


def metrics(model: str, analysis: FilterAnalysis) -> dict[str, Any]:
    """The content of ``metrics/filters.json``: the ``analysis`` of the network called ``model``."""
    drops = analysis.drops
    return {
        # DVC makes a column of every number and text that is not in a list
        "examined": [
            {
                "model": model,
                "image": analysis.index,
                "label": analysis.label,
                "prediction": analysis.predicted,
                "evidence_images": len(analysis.sample),
            }
        ],
        "top_five": [{"class": name, "probability": share} for name, share in analysis.best],
        "dead_channels": sum(layer.survey.dead for layer in analysis.layers),
        "evidence": {
            "drop_top_fifth": mean(drops.top),
            "drop_moved_fifth": mean(drops.moved),
            "drop_scattered_fifth": mean(drops.scattered),
            "share_top_above_moved": mean(drops.top > drops.moved),
            "share_top_above_scattered": mean(drops.top > drops.scattered),
        },
        "layers": [
            {
                "layer": layer.name,
                "receptive_field": layer.field.size,
                "effective_width": round(layer.effective_width, 2),
                "dead": layer.survey.dead,
                "active": _numbers(layer.survey.active),
                "mean": _numbers(layer.survey.mean),
                "maximum": _numbers(layer.survey.maximum),
            }
            for layer in analysis.layers
        ],
    }


def mean(values: Tensor) -> float:
    """The mean of ``values``, to four decimals."""
    return round(float(values.double().mean()), 4)


def _numbers(values: Tensor) -> list[float]:
    return [round(float(value), 5) for value in values]
