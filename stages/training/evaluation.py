"""Evaluation of a classifier."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from stages.networks.images import Images
from stages.training.runtime import Runtime

BATCH = 500


@dataclass(frozen=True)
class Evaluation:
    """Mean cross entropy, share of correct predictions, and what was predicted of each of N images.

    ``predictions`` (N,) int64 are the classes, ``confidences`` (N,) float64 their probabilities.
    """

    loss: float
    accuracy: float
    predictions: Tensor
    confidences: Tensor


@torch.inference_mode()
def evaluate(model: nn.Module, images: Images, runtime: Runtime) -> Evaluation:
    """Evaluate ``model`` on ``images`` in evaluation mode, then put its mode back."""
    was_training = model.training
    model.eval()
    logits = []
    for batch in torch.arange(len(images), device=runtime.device).split(BATCH):
        with runtime.autocast():
            logits.append(model(images[batch][0]))
    model.train(was_training)
    outputs = torch.cat(logits).double()
    confidences, predictions = outputs.softmax(dim=1).cpu().max(dim=1)
    return Evaluation(
        loss=cross_entropy(outputs, images.labels).item(),
        accuracy=(predictions == images.labels.cpu()).double().mean().item(),
        predictions=predictions,
        confidences=confidences,
    )
