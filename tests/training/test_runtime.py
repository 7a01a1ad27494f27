import ctypes
import platform

import pytest
import torch

from stages.common.errors import UserError
from stages.training import runtime
from stages.training.runtime import keep_freed_memory, prepare
from tests.tiny import tiny_train


def machine(
    monkeypatch: pytest.MonkeyPatch,
    *features: str,
    gpu: bool = False,
    gpu_bf16: bool = False,
    trains: bool = True,
) -> None:
    """Pretend a processor with ``features`` and a GPU; ``trains``: bf16 convolutions have a backward pass."""
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: dict.fromkeys(features, True))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: gpu_bf16)
    monkeypatch.setattr(runtime, "_gpu_problem", lambda: None)
    monkeypatch.setattr(runtime, "_trains_in_bf16", lambda device: trains)


@pytest.mark.parametrize(
    ("features", "trains", "precision", "reason"),
    [
        (["avx2", "avx512_f"], True, "fp32", "no bf16 instructions"),
        (["avx512_bf16"], True, "bf16", "has bf16 instructions"),
        (["amx_bf16"], True, "bf16", "has bf16 instructions"),
        (["amx_bf16"], False, "fp32", "no bf16 convolution backward"),
    ],
)
def test_auto_takes_bf16_where_the_processor_is_fast_with_it(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    features: list[str],
    trains: bool,
    precision: str,
    reason: str,
) -> None:
    machine(monkeypatch, *features, trains=trains)
    chosen = prepare(tiny_train(device="auto", precision="auto"))
    assert (chosen.device.type, chosen.precision) == ("cpu", precision)
    assert reason in chosen.reason
    assert capsys.readouterr().err == f"cpu, {precision}: {chosen.reason}\n"


@pytest.mark.parametrize(("fast", "precision"), [(True, "bf16"), (False, "fp32")])
def test_auto_asks_the_gpu_where_there_is_one(
    monkeypatch: pytest.MonkeyPatch, fast: bool, precision: str
) -> None:
    machine(monkeypatch, "amx_bf16", gpu=True, gpu_bf16=fast)
    assert runtime._device("auto").type == "cuda"
    assert runtime._precision("auto", torch.device("cuda"))[0] == precision


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_an_explicit_choice_holds_whatever_is_fast(monkeypatch: pytest.MonkeyPatch, precision: str) -> None:
    machine(monkeypatch, gpu=True)
    chosen = prepare(tiny_train(device="cpu", precision=precision))
    assert (chosen.device.type, chosen.precision) == ("cpu", precision)


def test_cuda_without_a_gpu_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch)
    with pytest.raises(UserError, match=r"train\.device is cuda, .*: use auto or cpu"):
        prepare(tiny_train(device="cuda"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="the GPU works")
def test_a_gpu_that_cannot_compute_is_refused_rather_than_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(UserError, match=r"the GPU does not work .*NVIDIA.*: set train\.device to cpu"):
        prepare(tiny_train(device="auto"))


def test_bf16_that_cannot_be_trained_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, "amx_bf16", trains=False)
    with pytest.raises(UserError, match=r"train\.precision is bf16, .*: use auto or fp32"):
        prepare(tiny_train(precision="bf16"))


def test_a_missing_backward_pass_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise RuntimeError("no bf16 convolution backward here")

    monkeypatch.setattr(torch.Tensor, "backward", refuse)
    assert not runtime._trains_in_bf16(torch.device("cpu"))


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_precision_is_that_of_a_convolution(precision: str, dtype: torch.dtype) -> None:
    chosen = prepare(tiny_train(precision=precision))
    with chosen.autocast():
        assert torch.nn.Conv2d(1, 1, 1)(torch.ones(1, 1, 1, 1)).dtype == dtype


def test_prepare_seeds_the_weights(capsys: pytest.CaptureFixture[str]) -> None:
    def weights(seed: int) -> torch.Tensor:
        prepare(tiny_train(seed=seed))
        return torch.nn.Linear(4, 4).weight

    assert torch.equal(weights(3), weights(3))
    assert not torch.equal(weights(3), weights(4))


def test_memory_is_tuned_on_glibc_only(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str | None] = []
    monkeypatch.setattr(ctypes, "CDLL", calls.append)
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    keep_freed_memory()
    assert calls == []
