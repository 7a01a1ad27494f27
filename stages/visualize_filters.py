"""Sheet c: what the filters of one network answer to one test image, and to all of them."""

from pathlib import Path

import torch

from stages.study import explorer, filter_figures
from stages.study.dataset import Split, load_data
from stages.study.errors import UserError, run
from stages.study.files import write_json
from stages.study.filter_study import metrics, study
from stages.study.models import CNN, load_model
from stages.study.params import load


def main() -> None:
    params = load()
    data = load_data()
    index = chosen_image(data.test, params.viz.image, params.train.seed)
    model = load_cnn(Path(f"models/{params.viz.model}.safetensors"))
    found = study(model, data, index, params.train.seed)
    filter_figures.draw(model, found, Path("plots/filters"))
    write_json(Path("metrics/filters.json"), metrics(params.viz.model, found))
    explorer.write(Path("explorer/filters.html"), params.viz.model, model, data, found)


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
    run(main)
