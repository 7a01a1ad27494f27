"""What a run computes on: device, precision, threads, memory, and what of them is recorded."""

import ctypes
import os
import platform
import sys
from dataclasses import dataclass
from importlib.metadata import version

import torch

from stages.common.errors import UserError
from stages.training.params import Train


@dataclass(frozen=True)
class Runtime:
    """Device and precision that were resolved, and why."""

    device: torch.device
    precision: str
    reason: str

    def autocast(self) -> torch.autocast:
        """The context of every forward pass."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16")

    def describe(self) -> dict[str, str | int]:
        """Everything about machine and libraries on which the last bits of a result depend."""
        if self.device.type == "cuda":
            device_name = torch.cuda.get_device_name(self.device)
        else:
            cpu_name = torch.cpu.get_capabilities().get("cpu_name", platform.machine())
            device_name = f"{cpu_name}, {torch.backends.cpu.get_cpu_capability()}"
        return {
            "device": str(self.device),
            "device_name": device_name,
            "precision": self.precision,
            "threads": torch.get_num_threads(),
            "python": platform.python_version(),
            "torch": torch.__version__,  # with the build, as in 2.14.1+cpu
            **{name: version(name) for name in ("numpy", "safetensors", "torchvision")},
        }


def prepare(train: Train) -> Runtime:
    """Choose device and precision, keep memory, seed the generators: call it before any tensor is made.

    Raises:
        UserError: ``train`` asks for a device or precision that this machine does not have.
    """
    keep_freed_memory()
    device = _device(train.device)
    if device.type == "cuda":
        # cuBLAS repeats its results bit for bit only with a fixed workspace
        os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
        torch.backends.cudnn.conv.fp32_precision = "ieee"  # type: ignore[attr-defined]  # no TF32
    precision, reason = _precision(train.precision, device)
    torch.manual_seed(train.seed)
    print(f"{device}, {precision}: {reason}", file=sys.stderr)
    return Runtime(device, precision, reason)


def keep_freed_memory() -> None:
    """Let glibc reuse the memory of the last batch's activations.

    By default it returns blocks of this size to the system, which maps and zeroes them again for
    every batch: a fifth of the training step. Elsewhere than on glibc nothing happens.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    libc = ctypes.CDLL(None)
    trim_threshold, top_pad, mmap_threshold = -1, -2, -3  # names and numbers of malloc.h
    libc.mallopt(trim_threshold, 2**31 - 1)
    libc.mallopt(top_pad, 64 * 2**20)
    libc.mallopt(mmap_threshold, 32 * 2**20)


def _device(requested: str) -> torch.device:
    if requested == "cuda" and not torch.cuda.is_available():
        raise UserError("train.device is cuda, but torch finds no GPU here: use auto or cpu")
    if requested == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    if problem := _gpu_problem():
        raise UserError(f"the GPU does not work with this torch ({problem}): set train.device to cpu")
    return torch.device("cuda")


def _gpu_problem() -> str | None:
    """Why nothing can be computed on the GPU: a build of torch need not have its kernels."""
    try:
        torch.ones(1, device="cuda").sum().item()
    except RuntimeError as error:
        return str(error).splitlines()[0]
    return None


def _precision(requested: str, device: torch.device) -> tuple[str, str]:
    """The precision to use and why."""
    if requested == "fp32":
        return "fp32", "train.precision says so"
    trains = _trains_in_bf16(device)
    if requested == "bf16":
        if not trains:
            raise UserError(
                f"train.precision is bf16, but torch cannot train with it on this {device.type}: "
                "use auto or fp32"
            )
        return "bf16", "train.precision says so"
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
        feature = "bf16 tensor cores"
    else:
        features = torch.cpu.get_capabilities()
        fast = bool(features.get("amx_bf16") or features.get("avx512_bf16"))
        feature = "bf16 instructions (AMX or AVX512-BF16)"
    if not fast:
        return "fp32", f"auto, and this {device.type} has no {feature}"
    if not trains:
        return "fp32", f"auto, and torch has no bf16 convolution backward on this {device.type}"
    return "bf16", f"auto, and this {device.type} has {feature}"


def _trains_in_bf16(device: torch.device) -> bool:
    """Whether a convolution runs forward and backward in bf16: some builds have only forward."""
    images = torch.ones(2, 3, 8, 8, device=device).to(memory_format=torch.channels_last)
    layer = torch.nn.Conv2d(3, 8, 3, device=device)
    try:
        with torch.autocast(device.type, torch.bfloat16):
            outputs = layer(images)
        outputs.float().sum().backward()
    except RuntimeError:
        return False
    return True
