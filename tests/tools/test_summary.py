"""The model summary against torchinfo and against gradients."""

import copy

import numpy as np
import pytest
import torch
import torchinfo
from torch import nn

from stages.networks.models import CNN, MLP
from tools import summary
from tools.models import networks

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


def test_a_pooling_of_another_kind_and_stride_widens_the_field_too() -> None:
    network = nn.Sequential(nn.Conv2d(3, 2, 5, stride=2), nn.AvgPool2d(2), nn.GELU(), nn.Conv2d(2, 2, (3, 3)))
    # 5 pixels; a neighbour 2 further on; then two more steps of 4
    assert [row.field for row in summary.rows(network)] == [5, 7, 7, 15]


def test_table_as_printed(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert summary.table("cnn", MODELS["CNN"]) == CNN_TABLE
    monkeypatch.setattr("sys.argv", ["summary"])
    summary.main()
    printed = capsys.readouterr().out
    for name, network in networks().items():
        assert f"\n\n{summary.table(name, network)}\n" in printed


@pytest.mark.parametrize(("arguments", "status"), [(["--help"], 0), (["--modle"], 2), (["cnn"], 2)])
def test_arguments_are_checked(arguments: list[str], status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["summary", *arguments])
    with pytest.raises(SystemExit) as stopped:
        summary.main()
    assert stopped.value.code == status
