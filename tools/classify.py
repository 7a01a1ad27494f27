"""Say what each trained model takes a picture for. Of the picture, the square in the middle counts."""

import argparse
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from stages.common.dataset import Data, Split, load_data
from stages.common.errors import UserError, run
from stages.common.geometry import IMAGE_SIZE
from stages.networks.images import Images
from stages.networks.models import CNN, MLP, load_model
from tools.models import MODELS

SHOWN = 3  # classes, the likeliest first


def main() -> None:
    parser = argparse.ArgumentParser(allow_abbrev=False, description=__doc__)
    parser.add_argument("pictures", nargs="+", type=Path, help="files of any size that Pillow can read")
    paths = parser.parse_args().pictures
    pictures = torch.stack([read_picture(path) for path in paths])
    data, models = load_data(), trained()
    answers = {name: probabilities(model, pictures, data) for name, model in models.items()}
    width = max(map(len, models))
    for number, path in enumerate(paths):
        print(path)
        for name, answer in answers.items():
            best = answer[number].topk(SHOWN)
            shares = zip(best.indices.tolist(), best.values.tolist(), strict=True)
            print(f"  {name:{width}}  {', '.join(f'{data.classes[c]} {p:.1%}' for c, p in shares)}")


def read_picture(path: Path) -> Tensor:
    """The square in the middle of the picture, upright, (32, 32, 3) uint8; what is transparent becomes white.

    Raises:
        UserError: there is no picture at ``path``.
    """
    try:
        with Image.open(path) as picture:
            upright = ImageOps.exif_transpose(picture).convert("RGBA")
    except FileNotFoundError:
        raise UserError(f"{path} is missing: name the file of a picture") from None
    except (Image.DecompressionBombError, OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as a picture: {' '.join(str(error).split())}") from None
    white = Image.new("RGBA", upright.size, "white")
    square = ImageOps.fit(Image.alpha_composite(white, upright).convert("RGB"), (IMAGE_SIZE, IMAGE_SIZE))
    return torch.from_numpy(np.array(square))


def trained() -> Mapping[str, MLP | CNN]:
    """The models that are here, by name.

    Raises:
        UserError: there is none, or one is damaged.
    """
    paths = {name: Path(f"models/{name}.safetensors") for name in MODELS}
    models = {name: load_model(path) for name, path in paths.items() if path.exists()}
    if not models:
        raise UserError("models/ has no trained model: run 'dvc repro' first")
    return models


@torch.inference_mode()
def probabilities(model: MLP | CNN, pictures: Tensor, data: Data) -> Tensor:
    """The probability of each class, (N, 10), for ``pictures`` (N, 32, 32, 3) uint8."""
    images = Images(Split(pictures, torch.zeros(len(pictures), dtype=torch.long)), data)
    logits: Tensor = model(images[list(range(len(pictures)))][0])
    return logits.softmax(dim=1)


if __name__ == "__main__":
    run(main)
