"""Where on an image a prediction comes from, by occlusion, and whether that is so."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

WINDOW, STEP, BATCH = 8, 4, 256
HIDDEN_SHARE = 0.2


@dataclass(frozen=True)
class Faithfulness:
    """By how much hiding pixels lowers the logit of the predicted class, (N,) float32 each.

    ``top``: the pixels with the highest evidence; ``moved``: a set of the same shape, moved at random
    (around the border); ``scattered``: as many single pixels at random.
    """

    top: Tensor
    moved: Tensor
    scattered: Tensor


@torch.inference_mode()
def occlusion(model: nn.Module, images: Tensor) -> Tensor:
    """Evidence (N, H, W) float32 for the predicted class of normalized ``images`` (N, 3, H, W).

    A window of 8x8 pixels moves over the image in steps of 4, also half outside, so that each pixel
    is hidden four times; hidden pixels are 0, the training mean. A pixel's evidence is the mean drop
    of the predicted class's logit over the windows that hide it (Zeiler and Fergus 2014, "Visualizing
    and Understanding Convolutional Networks", section 4.2, there for the class's probability).
    """
    return torch.cat([_occlusion(model, batch) for batch in torch.split(images, BATCH)])


def _occlusion(model: nn.Module, images: Tensor) -> Tensor:
    height, width = images.shape[2:]
    evidence = torch.zeros(len(images), height, width)
    times = torch.zeros(height, width)
    logits, predicted = model(images).max(dim=1)
    for top in range(STEP - WINDOW, height, STEP):
        for left in range(STEP - WINDOW, width, STEP):
            window = torch.zeros(height, width)
            window[max(top, 0) : top + WINDOW, max(left, 0) : left + WINDOW] = 1
            evidence += _drop(model, images, logits, predicted, window)[:, None, None] * window
            times += window
    return evidence / times


@torch.inference_mode()
def faithfulness(
    model: nn.Module, images: Tensor, evidence: Tensor, generator: torch.Generator
) -> Faithfulness:
    """Hide a fifth of the pixels of ``images`` (N, 3, H, W): chosen by ``evidence`` (N, H, W) or at random.

    Hidden pixels are 0, the training mean.
    """
    count, height, width = evidence.shape
    logits, predicted = model(images).max(dim=1)
    hidden = round(HIDDEN_SHARE * height * width)

    def highest(scores: Tensor) -> Tensor:
        order = scores.flatten(1).argsort(dim=1, descending=True, stable=True)
        mask = torch.zeros(count, height * width).scatter(1, order[:, :hidden], 1.0)
        return mask.view(count, height, width)

    top = highest(evidence)
    shifts = torch.stack(
        [torch.randint(size, (count,), generator=generator) for size in (height, width)], dim=1
    )
    moved = torch.stack([mask.roll(shift, (0, 1)) for mask, shift in zip(top, shifts.tolist(), strict=True)])
    scattered = highest(torch.rand(count, height, width, generator=generator))
    return Faithfulness(*(_drop(model, images, logits, predicted, mask) for mask in (top, moved, scattered)))


def _drop(model: nn.Module, images: Tensor, logits: Tensor, predicted: Tensor, hidden: Tensor) -> Tensor:
    """Drop (N,) of the ``predicted`` logit while pixels with 1 in ``hidden``, (H, W) or (N, H, W), are 0."""
    visible = (1 - hidden).expand(len(images), -1, -1).unsqueeze(1)
    remaining: Tensor = model(images * visible).gather(1, predicted[:, None])[:, 0]
    return logits - remaining
