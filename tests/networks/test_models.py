import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save, save_file
from torch import Tensor, nn

from stages.common.errors import UserError
from stages.networks.models import CNN, MLP, count_parameters, load_model, save_model

SHEET = [[32, 32], [64, 64]]


def images(count: int = 4, seed: int = 0) -> Tensor:
    return torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(seed))


def test_the_sheets_network_counted_by_hand() -> None:
    convolutions = (3 * 9 + 1) * 32 + (32 * 9 + 1) * 32 + (32 * 9 + 1) * 64 + (64 * 9 + 1) * 64
    valid = 5 * 5  # 32 - 2 - 2 = 28, halved 14, - 2 - 2 = 10, halved 5
    assert count_parameters(CNN(SHEET)) == convolutions + (64 * valid + 1) * 10 == 81_578
    same = 8 * 8  # only halved
    assert count_parameters(CNN(SHEET, padding="same")) == convolutions + (64 * same + 1) * 10
    # batch norm: a scale and a shift for each channel, but no bias in the convolution before it
    assert count_parameters(CNN(SHEET, batch_norm=True)) == 81_578 + 32 + 32 + 64 + 64


def test_the_baseline_counted_by_hand() -> None:
    expected = 3072 * 512 + 2 * 512 + 512 * 512 + 2 * 512 + (512 + 1) * 10
    assert count_parameters(MLP([512, 512])) == expected == 1_842_186


def names(model: nn.Module) -> str:
    return " ".join(name for name, _ in model.named_children())


def test_the_layers_are_those_of_the_sheet_in_its_order() -> None:
    assert names(CNN(SHEET)) == "conv1 relu1 conv2 relu2 pool1 conv3 relu3 conv4 relu4 pool2 flatten dense"
    assert names(CNN([[2], [3]], batch_norm=True, dropout=0.1)) == (
        "conv1 norm1 relu1 pool1 dropout1 conv2 norm2 relu2 pool2 dropout2 flatten dense"
    )
    assert names(MLP([4, 5])) == "flatten linear1 norm1 relu1 linear2 norm2 relu2 dense"
    relus = [module for module in CNN(SHEET).modules() if isinstance(module, nn.ReLU)]
    assert len({id(relu) for relu in relus}) == 4


@pytest.mark.parametrize("model", [MLP([7, 5]), CNN([[2, 3], [4]]), CNN([[2]], 5, "same", True, 0.1)])
@pytest.mark.parametrize("training", [False, True])
def test_the_output_is_a_logit_for_each_class(model: MLP | CNN, training: bool) -> None:
    logits = model.train(training)(images(6))
    assert logits.shape == (6, 10)
    assert (logits < 0).any()  # no ReLU on the logits


def test_a_relu_on_the_logits_is_one_layer_more() -> None:
    plain, cut = CNN([[2], [3]]).eval(), CNN([[2], [3]], relu_logits=True).eval()
    assert names(cut) == f"{names(plain)} logits_relu"
    cut.load_state_dict(plain.state_dict())
    assert torch.equal(cut(images(6)), plain(images(6)).clamp(min=0))
    assert (cut(images(6)) == 0).any()


@settings(max_examples=30)
@given(
    blocks=st.lists(st.lists(st.integers(1, 2), min_size=1, max_size=3), min_size=1, max_size=5),
    kernel_size=st.integers(1, 9),
    padding=st.sampled_from(["valid", "same"]),
)
def test_the_dense_layer_fits_whatever_torch_makes_of_the_blocks(
    blocks: list[list[int]], kernel_size: int, padding: str
) -> None:
    if padding == "same":
        kernel_size |= 1
    layers: list[nn.Module] = []
    for block in blocks:
        layers += [nn.Conv2d(1, 1, kernel_size, padding=padding) for _ in block] + [nn.MaxPool2d(2)]
    try:
        side = nn.Sequential(*layers)(torch.zeros(1, 1, 32, 32)).shape[-1]
    except RuntimeError:
        with pytest.raises(ValueError, match="layer"):
            CNN(blocks, kernel_size, padding)
    else:
        model = CNN(blocks, kernel_size, padding)
        assert model.get_submodule("dense").in_features == side**2 * blocks[-1][-1]
        assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 10)


def run(layers: Callable[[Tensor], Tensor], model: CNN, dtype: torch.dtype) -> tuple[Tensor, list[Tensor]]:
    """Logits and the gradients of all weights, as in a training step."""
    model.zero_grad()
    torch.manual_seed(0)  # dropout
    # whole numbers, and kernels of few values: many values of a pooling window tie, at zero and elsewhere
    inputs = images().round().to(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        logits = layers(inputs)
    logits.float().square().sum().backward()
    return logits, [weight.grad for weight in model.parameters() if weight.grad is not None]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("batch_norm", "dropout"), [(False, 0.0), (True, 0.0), (True, 0.3)])
def test_pooling_before_relu_in_training_changes_no_bit(
    dtype: torch.dtype, batch_norm: bool, dropout: float
) -> None:
    torch.manual_seed(1)
    model = CNN([[6, 6], [8]], batch_norm=batch_norm, dropout=dropout).train()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() == 4:
                weight.copy_((8 * weight).round() / 8)
    order: list[str] = []
    for name, layer in model.named_children():
        layer.register_forward_hook(lambda *_, name=name: order.append(name))
    logits, gradients = run(model, model, dtype)
    assert order.index("pool1") < order.index("relu2")
    order.clear()
    plain_logits, plain_gradients = run(nn.Sequential(*model), model, dtype)
    assert order.index("relu2") < order.index("pool1")
    assert torch.equal(logits, plain_logits)
    assert len(gradients) == len(plain_gradients) == len(list(model.parameters()))
    for found, expected in zip(gradients, plain_gradients, strict=True):
        assert torch.equal(found, expected)
        assert found.any()


def test_hooks_see_every_activation_at_the_convolutions_resolution() -> None:
    model = CNN([[3, 4], [5]]).eval()
    seen: dict[str, Tensor] = {}
    for name, layer in model.named_children():
        layer.register_forward_hook(lambda _, __, output, name=name: seen.__setitem__(name, output))
    model(images())
    assert " ".join(seen) == names(model)
    for number, side in ((1, 30), (2, 28), (3, 12)):
        assert seen[f"relu{number}"].shape[2:] == (side, side)
        assert torch.equal(seen[f"relu{number}"], seen[f"conv{number}"].clamp(min=0))


def trained(model: MLP | CNN) -> MLP | CNN:
    """With batch norm's statistics no longer the initial ones."""
    model.train()(images(8, seed=5))
    return model.eval()


@pytest.mark.parametrize("model", [MLP([7, 5]), CNN([[2, 3], [4]], 5, "same", True, 0.1), CNN(SHEET)])
def test_a_model_comes_back_from_its_file_alone(tmp_path: Path, model: MLP | CNN) -> None:
    model = trained(model).to(memory_format=torch.channels_last)
    save_model(model, tmp_path / "model")
    loaded = load_model(tmp_path / "model").to(memory_format=torch.channels_last)
    assert not loaded.training
    assert loaded.config == model.config
    assert torch.equal(loaded(images()), model(images()))


def test_the_same_model_always_gives_the_same_bytes(tmp_path: Path) -> None:
    model = CNN([[2]])
    contents = set()
    for _ in range(30):
        save_model(model, tmp_path / "model")
        contents.add((tmp_path / "model").read_bytes())
    assert len(contents) == 1


def _metadata(path: Path) -> dict[str, str]:
    content = path.read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    metadata: dict[str, str] = header["__metadata__"]
    return metadata


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def _directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _weights_of_another_network(path: Path) -> None:
    metadata = _metadata(path)
    save_model(CNN([[2], [3]]), path)
    path.write_bytes(save(load_file(path), metadata))


def _another_kind_of_network(path: Path) -> None:
    metadata = {key: text.replace("CNN", "Transformer") for key, text in _metadata(path).items()}
    path.write_bytes(save(load_file(path), metadata))


DAMAGE: list[Callable[[Path], object]] = [
    _truncate,
    _directory,
    _weights_of_another_network,
    _another_kind_of_network,
    lambda path: path.write_bytes(b""),
    lambda path: path.write_text("no model"),
    lambda path: path.unlink(),
    lambda path: save_file(load_file(path), path),
]


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_is_refused_in_one_line(tmp_path: Path, damage: Callable[[Path], object]) -> None:
    path = tmp_path / "cnn.safetensors"
    save_model(CNN([[2]]), path)
    damage(path)
    with pytest.raises(UserError) as refusal:
        load_model(path)
    assert str(path) in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_missing_model_names_the_command_that_makes_it(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="dvc repro train_cnn"):
        load_model(tmp_path / "cnn.safetensors")
