"""The stage as a whole on a small network, and its refusals."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from ruamel.yaml import YAML

from stages import visualize_filters
from stages.common import errors
from stages.common.dataset import Data, Split, save_data
from stages.common.errors import UserError
from stages.networks.models import CNN, MLP, save_model
from tests.project import ROOT
from tests.tiny import largest_file


@pytest.fixture
def workplace(workplace: Path) -> Path:
    """A directory with parameters, 12 test images, and a network with one layer of 7 channels."""
    params = YAML(typ="safe", pure=True).load(ROOT / "params.yaml")
    params["viz"]["model"] = "cnn"
    with open("params.yaml", "w") as file:
        YAML(typ="safe", pure=True).dump(params, file)
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (12, 32, 32, 3), generator=generator, dtype=torch.uint8)
    train, test = (Split(images.clone(), torch.arange(12) % 10) for _ in range(2))
    save_data(Data(train, None, test, torch.full((3,), 0.5), torch.full((3,), 0.25), tuple("abcdefghij")))
    torch.manual_seed(0)
    model = CNN([[7]], 5, "same")
    with torch.no_grad():
        model.get_parameter("conv1.bias")[3] = -1000
    save_model(model, Path("models/cnn.safetensors"))
    return workplace


def outputs(root: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(root)): path.read_bytes()
        for directory in ("plots", "metrics", "explorer")
        for path in (root / directory).rglob("*")
        if path.is_file()
    }


def test_the_stage_draws_and_counts_the_same_each_time(workplace: Path) -> None:
    visualize_filters.main()
    first = outputs(workplace)
    assert set(first) == {
        "metrics/filters.json",
        "explorer/filters.html",
        *(
            f"plots/filters/{name}.png"
            for name in (
                "input",
                "activations_conv1",
                "activations_conv1_own_scale",
                "kernels_conv1",
                "top_patches_conv1",
                "receptive_fields",
                "evidence",
            )
        ),
    }
    for name, content in first.items():
        if name.endswith("png"):
            assert np.asarray(Image.open(io.BytesIO(content)).convert("RGB")).std() > 10, name
        assert str(workplace).encode() not in content
    metrics = json.loads(first["metrics/filters.json"])
    assert metrics["dead_channels"] == 1
    (layer,) = metrics["layers"]
    assert layer["receptive_field"] == 5
    assert len(layer["active"]) == len(layer["mean"]) == len(layer["maximum"]) == 7
    assert layer["active"][3] == layer["mean"][3] == layer["maximum"][3] == 0
    (examined,) = metrics["examined"]
    assert examined["label"] == "abcdefghij"[examined["image"] % 10]
    assert metrics["top_five"][0]["class"] == examined["prediction"]
    assert examined["evidence_images"] == 12
    for path in first:
        Path(path).unlink()
    visualize_filters.main()
    assert outputs(workplace) == first


def test_an_image_is_drawn_with_the_seed_or_given() -> None:
    test = Split(torch.zeros(50, 32, 32, 3, dtype=torch.uint8), torch.zeros(50, dtype=torch.int64))
    drawn = [visualize_filters.chosen_image(test, None, seed) for seed in range(20)]
    assert drawn == [visualize_filters.chosen_image(test, None, seed) for seed in range(20)]
    assert len(set(drawn)) > 5
    assert visualize_filters.chosen_image(test, 49, 0) == 49
    with pytest.raises(UserError, match=r"viz\.image is 50, .* 0 to 49: .*50 images \(data\.test_size\)"):
        visualize_filters.chosen_image(test, 50, 0)


def test_a_model_file_that_holds_no_cnn_is_refused(workplace: Path) -> None:
    save_model(MLP([8]), Path("models/cnn.safetensors"))
    with pytest.raises(UserError, match=r"models/cnn\.safetensors holds no CNN but MLP.*dvc repro train_cnn"):
        visualize_filters.main()
    assert not Path("plots").exists()


def test_a_disk_that_is_full_for_a_picture(workplace: Path) -> None:
    with largest_file(15_000), pytest.raises(SystemExit, match=r"^error: .*File too large") as end:
        errors.run(visualize_filters.main)
    assert str(end.value.code).startswith("error: the system refused 'plots/filters/")
    assert not [name for name in outputs(workplace) if name.endswith(".partial")]
    visualize_filters.main()
    assert "metrics/filters.json" in outputs(workplace)


@pytest.mark.parametrize("folder", ["plots", "plots/filters", "metrics", "explorer"])
def test_a_file_where_a_directory_belongs(workplace: Path, folder: str) -> None:
    Path(folder).parent.mkdir(exist_ok=True)
    Path(folder).write_text("in the way")
    with pytest.raises(SystemExit, match=rf"^error: the system refused '{folder}") as end:
        errors.run(visualize_filters.main)
    assert "\n" not in str(end.value.code)
    Path(folder).unlink()
    visualize_filters.main()
    assert "metrics/filters.json" in outputs(workplace)


def test_a_truncated_model_file_ends_the_stage_with_one_line(workplace: Path) -> None:
    path = Path("models/cnn.safetensors")
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    with pytest.raises(SystemExit, match=r"^error: models/cnn\.safetensors .*dvc repro train_cnn'$"):
        errors.run(visualize_filters.main)
    path.write_bytes(whole)
    visualize_filters.main()
