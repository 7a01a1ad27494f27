"""What the trained models take a picture for, on the command line."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from stages.common.dataset import Data
from stages.common.errors import UserError
from stages.networks.images import Images
from stages.networks.models import CNN, MLP, save_model
from tests.tiny import tiny_data, tiny_project
from tools import classify

DATA = tiny_data()


@pytest.fixture
def model(workplace: Path) -> CNN:
    """The only trained one but for a baseline."""
    tiny_project(workplace, DATA)
    torch.manual_seed(0)
    model = CNN([[4], [6]], batch_norm=True).eval()
    save_model(MLP([8]), Path("models/baseline.safetensors"))
    save_model(model, Path("models/cnn.safetensors"))
    return model


def answer(model: CNN, image: int, data: Data = DATA) -> list[tuple[str, str]]:
    """Classes and percentages by hand."""
    with torch.inference_mode():
        shares = model(Images(data.test, data)[[image]][0])[0].softmax(dim=0)
    best = shares.argsort(descending=True)[:3]
    return [(data.classes[c], f"{shares[c]:.1%}") for c in best]


def picture(name: str, image: int, factor: int = 1, left: int = 0) -> np.ndarray:
    """A test image as a file, enlarged, with ``left`` black pixels at the left and right."""
    pixels = DATA.test.images[image].numpy().repeat(factor, 0).repeat(factor, 1)
    pixels = np.pad(pixels, ((0, 0), (left, left), (0, 0)))
    Image.fromarray(pixels).save(name)
    return pixels


def test_a_test_image_gets_the_models_answer(
    model: CNN, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    picture("one.png", 3)
    picture("two.png", 4, left=9)
    monkeypatch.setattr("sys.argv", ["classify", "one.png", "two.png"])
    classify.main()
    first, baseline, cnn, second, _, other = capsys.readouterr().out.splitlines()
    assert (first, second) == ("one.png", "two.png")
    assert baseline.startswith("  baseline  ")
    for line, image in ((cnn, 3), (other, 4)):
        assert line == "  cnn       " + ", ".join(" ".join(share) for share in answer(model, image))


@pytest.mark.usefixtures("workplace")
def test_pictures_are_scaled_turned_and_laid_on_white() -> None:
    pixels = picture("large.png", 5, factor=8)
    large = classify.read_picture(Path("large.png")).numpy().astype(int)
    assert np.abs(large - DATA.test.images[5].numpy()).mean() < 12  # of 255: the picture is noise
    turned = Image.fromarray(np.rot90(pixels[::8, ::8]))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees, clockwise
    turned.save("turned.png", exif=exif)
    assert np.array_equal(classify.read_picture(Path("turned.png")), DATA.test.images[5].numpy())
    Image.new("RGBA", (40, 32), (0, 0, 0, 0)).save("clear.png")
    assert (classify.read_picture(Path("clear.png")) == 255).all()
    Image.new("L", (5, 5), 7).save("grey.png")
    assert (classify.read_picture(Path("grey.png")) == 7).all()


@pytest.mark.usefixtures("workplace")
def test_what_is_no_picture_is_named() -> None:
    Path("text.jpg").write_text("no picture")
    Path("folder").mkdir()
    whole = Path("whole.png")
    picture("whole.png", 1, factor=4)
    Path("half.png").write_bytes(whole.read_bytes()[:2000])
    for name, message in (
        ("none.jpg", "none.jpg is missing: name the file of a picture"),
        ("text.jpg", "text.jpg cannot be read as a picture: "),
        ("folder", "folder cannot be read as a picture: "),
        ("half.png", "half.png cannot be read as a picture: "),
    ):
        with pytest.raises(UserError) as error:
            classify.read_picture(Path(name))
        assert str(error.value).startswith(message)


def test_without_models_or_images(model: CNN, workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture("one.png", 3)
    monkeypatch.setattr("sys.argv", ["classify", "one.png"])
    for name in ("baseline", "cnn"):
        (workplace / f"models/{name}.safetensors").unlink()
    with pytest.raises(UserError, match=r"^models/ has no trained model: run 'dvc repro' first$"):
        classify.main()
    (workplace / "data/dataset.safetensors").unlink()
    with pytest.raises(UserError, match=r"^data/dataset.safetensors is missing"):
        classify.main()
