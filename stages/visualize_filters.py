"""Sheet c: what the filters of one network answer to one test image, and to all of them."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from stages.study import evidence, explorer, filter_figures
from stages.study.activations import (
    activations,
    convolutions,
    effective_fields,
    effective_size,
    fields,
    survey,
    top_patches,
)
from stages.study.dataset import Split, balanced_subset, load_data
from stages.study.errors import UserError, run
from stages.study.files import write_json
from stages.study.images import Images
from stages.study.models import CNN, load_model
from stages.study.params import load

PICTURES = Path("plots/filters")
SAMPLE = 500


def main() -> None:
    params = load()
    data = load_data()
    index = chosen_image(data.test, params.viz.image, params.train.seed)
    model = load_cnn(Path(f"models/{params.viz.model}.safetensors"))
    images = Images(data.test, data)
    generator = torch.Generator().manual_seed(params.train.seed)
    sample = sample_of(data.test, params.train.seed)

    layers, logits = activations(model, images[[index]][0])
    surveys = survey(model, images)
    patches = [
        top_patches(data.test.images, field, result, filter_figures.PADDING)
        for field, result in zip(fields(model), surveys, strict=True)
    ]
    magnitudes = effective_fields(model, images, sample)
    hidden = images[sample][0]
    drops = evidence.faithfulness(model, hidden, evidence.occlusion(model, hidden), generator)
    heat = evidence.occlusion(model, images[[index]][0])[0]

    image = data.test.images[index].numpy()
    label, predicted = data.classes[data.test.labels[index]], data.classes[logits[0].argmax()]
    best = [
        (data.classes[place], round(float(share), 4))
        for share, place in zip(*logits[0].softmax(0).topk(5), strict=True)
    ]
    caption = f"test image {index}\nlabel: {label}\nprediction: {predicted} ({best[0][1]:.0%})"
    largest = max(float(layer.max()) for layer in layers)
    filter_figures.input_image(image, index, label, best, PICTURES / "input.png")
    filter_figures.kernels(model.get_parameter("conv1.weight").numpy(), PICTURES / "kernels_conv1.png")
    filter_figures.receptive_fields(
        image,
        [
            (name, field.span(layer.shape[2] // 2), magnitude.numpy(), effective_size(magnitude))
            for name, field, layer, magnitude in zip(
                convolutions(model), fields(model), layers, magnitudes, strict=True
            )
        ],
        PICTURES / "receptive_fields.png",
    )
    filter_figures.evidence(
        image, heat.numpy(), predicted, _mean(drops.top), _mean(drops.moved), PICTURES / "evidence.png"
    )
    for name, layer, result, patch in zip(convolutions(model), layers, surveys, patches, strict=True):
        activation = layer[0].numpy()
        for suffix, top, scale in (
            ("", largest, "all layers on one scale"),
            ("_own_scale", float(layer.max()), f"scale of {name} alone"),
        ):
            filter_figures.activation_grid(
                f"{name} after ReLU, {scale}",
                activation,
                top,
                image,
                caption,
                PICTURES / f"activations_{name}{suffix}.png",
            )
        filter_figures.top_patches(
            name, patch.numpy(), result.maximum.numpy(), PICTURES / f"top_patches_{name}.png"
        )
    write_json(
        Path("metrics/filters.json"),
        {
            "model": params.viz.model,
            "image": index,
            "label": label,
            "prediction": predicted,
            "top_five": [{"class": name, "probability": share} for name, share in best],
            "dead_channels": sum(result.dead for result in surveys),
            "evidence": {
                "images": len(sample),
                "drop_top_fifth": _mean(drops.top),
                "drop_moved_fifth": _mean(drops.moved),
                "drop_scattered_fifth": _mean(drops.scattered),
                "share_top_above_moved": _mean(drops.top > drops.moved),
                "share_top_above_scattered": _mean(drops.top > drops.scattered),
            },
            "layers": [
                {
                    "layer": name,
                    "receptive_field": field.size,
                    "effective_field": round(effective_size(magnitude), 2),
                    "dead": result.dead,
                    "active": _numbers(result.active),
                    "mean": _numbers(result.mean),
                    "maximum": _numbers(result.maximum),
                }
                for name, field, magnitude, result in zip(
                    convolutions(model), fields(model), magnitudes, surveys, strict=True
                )
            ],
        },
    )
    explorer.write(
        Path("explorer/filters.html"),
        params.viz.model,
        model,
        data,
        surveys,
        patches,
        explorer.choose(model, data, index, sample),
    )


def chosen_image(test: Split, wanted: int | None, seed: int) -> int:
    """The test image ``wanted``, or one drawn with ``seed``.

    Raises:
        UserError: the test set has no such image.
    """
    if wanted is None:
        return int(torch.randint(len(test), (), generator=torch.Generator().manual_seed(seed)))
    if wanted >= len(test):
        raise UserError(
            f"viz.image is {wanted}, but must be null or an index from 0 to {len(test) - 1}: "
            f"the test set has {len(test)} images (data.test_size)"
        )
    return wanted


def sample_of(test: Split, seed: int) -> Tensor:
    """Indices of `SAMPLE` test images with equal shares of the classes; of all where there are no more."""
    if len(test) <= SAMPLE:
        return torch.arange(len(test))
    return torch.from_numpy(balanced_subset(test.labels.numpy(), SAMPLE, np.random.default_rng(seed)))


def load_cnn(path: Path) -> CNN:
    """The CNN in ``path``, in evaluation mode, its weights fixed.

    Raises:
        UserError: the file is missing, damaged, or holds no CNN.
    """
    model = load_model(path)
    if not isinstance(model, CNN):
        raise UserError(
            f"{path} holds no CNN but {type(model).__name__}: delete it, then 'dvc repro train_{path.stem}'"
        )
    return model.requires_grad_(False)


def _mean(values: Tensor) -> float:
    return round(float(values.double().mean()), 4)


def _numbers(values: Tensor) -> list[float]:
    return [round(float(value), 5) for value in values]


if __name__ == "__main__":
    run(main)
