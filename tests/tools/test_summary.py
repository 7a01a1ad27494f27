"""The model summary against torchinfo, against gradients and against the training stages."""

import copy
import importlib
from typing import Any

import numpy as np
import pytest
import torch
import torchinfo
from torch import nn

from stages.networks.models import CNN, MLP
from stages.common.params import load
from tools import summary

MODELS: dict[str, MLP | CNN] = {
    "MLP": MLP([512, 512]),
    "narrow MLP": MLP([3]),
    "CNN": CNN([[32, 32], [64, 64]]),
    "CNN with batch norm and dropout": CNN([[32, 32], [64, 64]], batch_norm=True, dropout=0.1),
    "CNN with a floor before the dense layer": CNN([[4], [6]]),
    "CNN with large kernels": CNN([[2, 3], [4]], kernel_size=5),
}
CNN_TABLE = """\
cnn
  layer     output          parameters  receptive field
  conv1     32x30x30               896  3x3
  relu1     32x30x30                 0  3x3
  conv2     32x28x28             9,248  5x5
  relu2     32x28x28                 0  5x5
  pool1     32x14x14                 0  6x6
  conv3     64x12x12            18,496  10x10
  relu3     64x12x12                 0  10x10
  conv4     64x10x10            36,928  14x14
  relu4     64x10x10                 0  14x14
  pool2     64x5x5                   0  16x16
  flatten   1600                     0  16x16
  dense     10                  16,010  32x32
  total                         81,578"""


def field_by_gradient(layers: list[nn.Module]) -> tuple[int, int]:
    """Height and width of the pixels that move one unit: weights of 1, averages in place of maxima."""
    image = torch.ones(1, 3, 32, 32, dtype=torch.float64, requires_grad=True)
    units = image
    for layer in layers:
        units = nn.functional.avg_pool2d(units, 2) if isinstance(layer, nn.MaxPool2d) else layer(units)
    (gradient,) = torch.autograd.grad(units.flatten()[units.numel() // 2], image)
    rows, columns = np.nonzero(gradient.abs().sum((0, 1)).numpy())
    return int(np.ptp(rows)) + 1, int(np.ptp(columns)) + 1


@pytest.mark.parametrize("name", MODELS)
def test_shapes_and_parameters_are_those_of_torchinfo(name: str) -> None:
    truth = torchinfo.summary(MODELS[name], (1, 3, 32, 32), verbose=0, device="cpu")
    layers = [info for info in truth.summary_list if info.depth == 1]
    expected = [(info.var_name, tuple(info.output_size[1:]), info.num_params) for info in layers]
    assert [(row.layer, row.shape, row.parameters) for row in summary.rows(MODELS[name])] == expected
    assert summary.table("", MODELS[name]).endswith(f" {truth.total_params:,}")


@pytest.mark.parametrize("name", MODELS)
def test_receptive_fields_are_what_moves_a_unit(name: str) -> None:
    model = copy.deepcopy(MODELS[name]).double().eval()
    for parameter in model.parameters():
        nn.init.ones_(parameter)
    layers = list(model)
    for number, row in enumerate(summary.rows(MODELS[name]), start=1):
        assert field_by_gradient(layers[:number]) == (row.field, row.field), row.layer


def test_models_are_those_of_the_training_stages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each stage's own main runs up to the training, which is caught."""
    built = summary.build(load())
    assert list(built) == ["baseline", "cnn", "augmented", "regularized"]
    for name, model in built.items():
        stage = importlib.import_module(f"stages.train_{name}")
        caught: list[Any] = []
        for replaced in {"prepare", "load_data", "picture"} & set(vars(stage)):
            monkeypatch.setattr(stage, replaced, lambda *_: type("Stub", (), {"train": None}))
        monkeypatch.setattr(stage, "train_and_write", lambda *arguments: caught.extend(arguments))  # noqa: B023
        stage.main()
        assert caught[0] == name
        assert type(caught[1]) is type(model)
        assert caught[1].config == model.config


def test_table_as_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert summary.table("cnn", MODELS["CNN"]) == CNN_TABLE
    summary.main()
    printed = capsys.readouterr().out
    for name, model in summary.build(load()).items():
        assert f"\n\n{summary.table(name, model)}\n" in printed
