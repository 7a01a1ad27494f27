"""Hooks, statistics, patches and fields against hand-run layers, brute force and autograd."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stages.common.dataset import Data, Split
from stages.common.geometry import Field
from stages.filters import activations as subject
from stages.filters.activations import (
    activations,
    convolutions,
    cut,
    effective_fields,
    effective_width,
    fields,
    recorded,
    survey,
    top_patches,
)
from stages.networks.images import Images
from stages.networks.models import CNN

PINK = (255, 0, 160)


def make_data(count: int, seed: int = 0) -> Data:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (count, 32, 32, 3), generator=generator, dtype=torch.uint8)
    split = Split(images, torch.arange(count) % 10)
    return Data(
        split, None, split, torch.tensor([0.5, 0.4, 0.3]), torch.tensor([0.2, 0.25, 0.3]), tuple("abcdefghij")
    )


def make_cnn(blocks: list[list[int]], padding: str = "valid", batch_norm: bool = False) -> CNN:
    torch.manual_seed(1)
    model = CNN(blocks, 3, padding, batch_norm)
    for module in model:
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean)  # type: ignore[arg-type]
            nn.init.uniform_(module.running_var, 0.5, 2)  # type: ignore[arg-type]
            nn.init.normal_(module.weight)
            nn.init.normal_(module.bias)
    return model.eval().requires_grad_(False)


def hooks(model: nn.Module) -> int:
    return sum(len(module._forward_hooks) for module in model.modules())


def test_hooks_are_gone_after_use_and_after_an_error() -> None:
    model = make_cnn([[4], [3]])
    with recorded([model.get_submodule("relu1"), model.get_submodule("relu2")]) as outputs:
        assert hooks(model) == 2
        model(torch.zeros(1, 3, 32, 32))
        assert [len(output[0]) for output in outputs] == [4, 3]
    assert hooks(model) == 0
    with pytest.raises(RuntimeError, match="expected input"):
        activations(model, torch.zeros(1, 5, 32, 32))
    assert hooks(model) == 0
    with pytest.raises(AttributeError), recorded([model.get_submodule("relu1"), "no module"]):  # type: ignore[list-item]
        pass
    assert hooks(model) == 0


@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize("batch_norm", [False, True])
def test_activations_are_those_of_the_layers_run_by_hand(padding: str, batch_norm: bool) -> None:
    model = make_cnn([[4, 5], [6]], padding, batch_norm)
    images = Images(make_data(3).test, make_data(3))[[0, 1, 2]][0]
    layers, logits = activations(model, images)
    x: Tensor = images
    expected = []
    for number, pooled in ((1, False), (2, True), (3, True)):
        convolution = model.get_submodule(f"conv{number}")
        x = F.conv2d(x, convolution.weight, convolution.bias, padding=1 if padding == "same" else 0)  # type: ignore[arg-type]
        if batch_norm:
            norm = model.get_submodule(f"norm{number}")
            x = F.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias)  # type: ignore[arg-type]
        x = F.relu(x)
        expected.append(x)
        x = F.max_pool2d(x, 2) if pooled else x
    assert len(layers) == 3
    for layer, truth in zip(layers, expected, strict=True):
        torch.testing.assert_close(layer, truth)
    torch.testing.assert_close(
        logits, F.linear(x.flatten(1), model.get_parameter("dense.weight"), model.get_parameter("dense.bias"))
    )


def test_a_relu_on_the_logits_is_no_convolutions_activation() -> None:
    model = CNN([[4], [3]], relu_logits=True).eval()
    layers, logits = activations(model, torch.zeros(2, 3, 32, 32))
    assert [layer.shape[1] for layer in layers] == [4, 3]
    assert logits.shape == (2, 10)


def test_training_mode_is_refused() -> None:
    with pytest.raises(ValueError, match="evaluation mode"):
        activations(make_cnn([[4]]).train(), torch.zeros(2, 3, 32, 32))


def test_survey_is_that_of_a_brute_force_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    data = make_data(20)
    data.test.images[13] = data.test.images[4]  # a tie between images, across batches
    data.test.images[7] = 90  # ties between positions
    model = make_cnn([[6], [5]])
    with torch.no_grad():
        model.get_parameter("conv1.bias")[2] = -1000
    images = Images(data.test, data)
    monkeypatch.setattr(subject, "BATCH", 6)
    results = survey(model, images, best=9)
    layers, _ = activations(model, images[list(range(20))][0])
    assert results[0].dead == 1
    for result, layer in zip(results, layers, strict=True):
        values = layer.numpy()
        np.testing.assert_allclose(result.active, (values > 0).mean(axis=(0, 2, 3)))
        np.testing.assert_allclose(result.mean, values.mean(axis=(0, 2, 3), dtype=np.float64), rtol=1e-6)
        for channel in range(values.shape[1]):
            per_image = []
            for index, one in enumerate(values[:, channel]):
                row, column = np.unravel_index(one.argmax(), one.shape)
                per_image.append((-one[row, column], index, row, column))
            best = sorted(per_image)[:9]
            best_values = zip(
                (-result.values[:, channel]).tolist(),
                result.images[:, channel].tolist(),
                result.rows[:, channel].tolist(),
                result.columns[:, channel].tolist(),
                strict=True,
            )
            for (value, *place), (true_value, *true_place) in zip(best_values, best, strict=True):
                assert value == pytest.approx(true_value, abs=1e-5)
                assert place == true_place
            assert len(set(result.images[:, channel].tolist())) == 9
            assert float(result.maximum[channel]) == pytest.approx(values[:, channel].max(), abs=1e-5)


@pytest.mark.parametrize("padding", ["valid", "same"])
def test_a_patch_is_what_its_unit_sees(padding: str) -> None:
    """Changing all pixels outside the patch leaves the unit as it is; changing one inside moves it."""
    model = make_cnn([[3, 3], [3, 3]], padding).double()
    for name in convolutions(model):
        # all weights positive: no ReLU is off, so that every pixel inside counts
        nn.init.uniform_(model.get_parameter(f"{name}.weight"), 0.1, 1)
    generator = torch.Generator().manual_seed(2)
    image = torch.rand(1, 3, 32, 32, generator=generator, dtype=torch.float64)
    layers, _ = activations(model, image)
    for number, (field, layer) in enumerate(zip(fields(model), layers, strict=True)):
        for row, column in ((0, 0), (0, layer.shape[3] - 1), (layer.shape[2] // 2, 1)):
            top, bottom = field.span(row)
            left, right = field.span(column)
            inside = torch.zeros(32, 32, dtype=torch.bool)
            inside[max(top, 0) : bottom, max(left, 0) : right] = True
            before = layer[0, :, row, column]
            changed = torch.where(inside, image, torch.rand(image.shape, generator=generator).double())
            torch.testing.assert_close(activations(model, changed)[0][number][0, :, row, column], before)
            for y, x in ((max(top, 0), max(left, 0)), (min(bottom, 32) - 1, min(right, 32) - 1)):
                changed = image.clone()
                changed[0, :, y, x] += 100  # more than any other pixel of a pooling
                assert (activations(model, changed)[0][number][0, :, row, column] != before).all()


@pytest.mark.parametrize("field", [Field(3, 1, 0), Field(5, 1, -2), Field(14, 2, -6), Field(40, 4, -9)])
def test_patches_are_cut_from_the_padded_image(field: Field) -> None:
    images = make_data(6).test.images
    rows, columns = torch.tensor([0, 1, 2, 3, 4, 5]), torch.tensor([5, 0, 3, 1, 2, 4])
    patches = cut(images, field, rows, columns, PINK)
    for image, row, column, patch in zip(images, rows.tolist(), columns.tolist(), patches, strict=True):
        margin = 64
        padded = np.full((32 + 2 * margin, 32 + 2 * margin, 3), PINK, np.uint8)
        padded[margin : margin + 32, margin : margin + 32] = image
        top, bottom = field.span(row)
        left, right = field.span(column)
        np.testing.assert_array_equal(
            patch, padded[margin + top : margin + bottom, margin + left : margin + right]
        )


def test_top_patches_excite_as_recorded() -> None:
    """A unit run on its patch alone gives the recorded value; a dead channel has no patch."""
    data = make_data(12)
    model = make_cnn([[4, 5]])
    with torch.no_grad():
        model.get_parameter("conv2.bias")[1] = -1000
    result = survey(model, Images(data.test, data))[1]
    patches = top_patches(data.test.images, fields(model)[1], result, PINK)
    assert patches.shape == (5, 9, 5, 5, 3)
    assert (patches[1] == torch.tensor(PINK, dtype=torch.uint8)).all()
    normal = (patches.flatten(0, 1) / 255 - data.mean) / data.std
    x = normal.permute(0, 3, 1, 2)
    for name in ("conv1", "conv2"):
        x = F.relu(F.conv2d(x, model.get_parameter(f"{name}.weight"), model.get_parameter(f"{name}.bias")))
    answers = x.view(5, 9, 5).diagonal(dim1=0, dim2=2).T  # channel by patch: each channel on its own patches
    for channel in (0, 2, 3, 4):
        np.testing.assert_allclose(answers[channel], result.values[:, channel], rtol=1e-4, atol=1e-5)


def test_effective_fields_are_the_mean_gradients_and_stay_in_the_field(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(subject, "BATCH", 2)
    data = make_data(6)
    images = Images(data.test, data)
    model = make_cnn([[3, 4], [5]])
    chosen = torch.tensor([4, 0, 5])
    magnitudes = effective_fields(model, images, chosen)
    for number, (magnitude, field) in enumerate(zip(magnitudes, fields(model), strict=True)):
        expected = torch.zeros(32, 32)
        for index in chosen.tolist():

            def unit(image: Tensor, number: int = number) -> Tensor:
                layer = activations(model, image[None])[0][number][0]
                return layer[:, layer.shape[1] // 2, layer.shape[2] // 2].sum()

            jacobian = torch.func.jacrev(unit)(images[index][0])
            expected += jacobian.abs().mean(dim=0) / 3
        torch.testing.assert_close(magnitude.float(), expected)
        outside = magnitude.clone()
        first, end = field.span(activations(model, images[[0]][0])[0][number].shape[2] // 2)
        outside[first:end, first:end] = 0
        assert magnitude.max() > 0
        assert outside.max() == 0


def test_effective_width_counts_the_pixels_that_matter() -> None:
    magnitude = torch.zeros(32, 32)
    assert effective_width(magnitude) == 0
    magnitude[10:14, 3:7] = 0.1
    magnitude[11, 4] = 2
    magnitude[0, 0] = 0.09  # below 4.55 % of 2
    assert effective_width(magnitude) == 4
