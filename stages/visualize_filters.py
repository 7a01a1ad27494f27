"""Programming c: what the filters of one network answer to one test image, and to all of them."""

from pathlib import Path

import torch

from stages.common.dataset import Split, load_data
from stages.common.errors import UserError
from stages.common.files import write_json
from stages.common.params import TrainSeed, load
from stages.common.stage import run
from stages.filters import explorer, figures
from stages.filters.analysis import analyze, metrics
from stages.filters.params import Viz
from stages.networks.models import CNN, load_model


def main() -> None:
    viz, seed = load(Viz), load(TrainSeed).seed
    data = load_data()
    index = chosen_image(data.test, viz.image, seed)
    model = load_cnn(Path(f"models/{viz.model}.safetensors"))
    analysis = analyze(model, data, index, seed)
    figures.draw(model, analysis, Path("plots/filters"))
    write_json(Path("metrics/filters.json"), metrics(viz.model, analysis))
    explorer.write(Path("explorer/filters.html"), viz.model, model, data, analysis)


def chosen_image(test: Split, index: int | None, seed: int) -> int:
    """The test image ``index``, or one drawn with ``seed``.

    Raises:
        UserError: the test set has no such image.
    """
    if index is None:
        return int(torch.randint(len(test), (), generator=torch.Generator().manual_seed(seed)))
    if index >= len(test):
        raise UserError(
            f"viz.image is {index}, but must be null or an index from 0 to {len(test) - 1}: "
            f"the test set has {len(test)} images (data.test_size)"
        )
    return index


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


if __name__ == "__main__":
    run(main, Viz, "model")
