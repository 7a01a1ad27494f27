"""Any transformation of ``torchvision.transforms.v2``, by name with its arguments."""

import difflib
import inspect
import json
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.transforms import v2

from stages.common.params import short

NAMES = [
    name for name, value in vars(v2).items() if inspect.isclass(value) and issubclass(value, v2.Transform)
]
TRIALS = 64  # of one that acts with probability 0.1 all but one in a thousand act at least once


class EachImage(nn.Module):
    """Applies ``extra``, a list of transformations as in `build`, to each image of a batch (N, C, H, W).

    Each image has draws of its own, from torch's global generator.

    Raises:
        ValueError: as `build`; or, when applied, an image's shape or type has changed.
    """

    def __init__(self, extra: Sequence[Mapping[str, Any]]) -> None:
        super().__init__()
        self.extra = json.dumps(extra)
        self.transform = v2.Compose(build(extra))

    def forward(self, images: Tensor) -> Tensor:
        """The images, transformed."""
        return torch.stack([_kept(self.transform, image) for image in images])

    def extra_repr(self) -> str:
        """All arguments: torchvision's transforms show only some of theirs."""
        return self.extra


def build(extra: Sequence[Mapping[str, Any]]) -> list[v2.Transform]:
    """The transformations ``[{name: {argument: value}}]``, such as ``[{RandomErasing: {p: 0.25}}]``.

    An argument may be such a list itself (``RandomApply``), or the value of an enumeration
    (``interpolation: bilinear``). Each is tried on an image.

    Raises:
        ValueError: an unknown name or a wrong argument, or what changes an image's shape or type.
    """
    try:
        json.dumps(extra, allow_nan=False)  # by which two lists are told apart; NaN is no equal of itself
    except (TypeError, ValueError):
        raise ValueError(
            "transformations whose arguments are finite numbers, text, lists, mappings"
        ) from None
    transforms = [_build_one(entry) for entry in extra]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        image = torch.randint(256, (3, 32, 32), dtype=torch.uint8)
        for entry, transform in zip(extra, transforms, strict=True):
            try:
                for _ in range(TRIALS):
                    _kept(transform, image)
            except Exception as error:  # whatever a transformation raises that cannot take an image
                kept = "transformations of one image that keep its shape and type"
                raise ValueError(f"{kept}: {_name(entry)}: {_line(error)}") from error
    return transforms


def _build_one(entry: Mapping[str, Any]) -> v2.Transform:
    name, arguments = _name(entry), next(iter(entry.values())) or {}
    if name not in NAMES:
        near = difflib.get_close_matches(name, NAMES, n=1)
        guess = f" (did you mean {near[0]}?)" if near else ""
        raise ValueError(f"transformations of torchvision.transforms.v2, which has no {short(name)}{guess}")
    kind = getattr(v2, name)
    if not isinstance(arguments, Mapping):
        raise ValueError(f"transformations with arguments by name, such as {{{name}: {{p: 0.25}}}}")
    parameters = inspect.signature(kind).parameters
    try:
        return kind(**{key: _argument(value, parameters.get(key)) for key, value in arguments.items()})
    except Exception as error:  # whatever a transformation raises for a wrong argument
        raise ValueError(f"transformations with arguments that they take: {name}: {_line(error)}") from error


def _argument(value: Any, parameter: inspect.Parameter | None) -> Any:
    """``value`` as ``parameter`` of a transformation takes it."""
    if isinstance(value, list) and value and all(isinstance(item, Mapping) for item in value):
        return [_build_one(item) for item in value]
    default = parameter.default if parameter else None
    return type(default)(value) if isinstance(default, Enum) and isinstance(value, str) else value


def _name(entry: Mapping[str, Any]) -> str:
    if len(entry) != 1:
        raise ValueError("transformations of one name each, such as {RandomErasing: {p: 0.25}}")
    return str(next(iter(entry)))


def _kept(transform: nn.Module, image: Tensor) -> Tensor:
    """``image`` (C, H, W), transformed.

    Raises:
        ValueError: its shape or type has changed.
    """
    result: Tensor = transform(image)
    before, after = ((tuple(x.shape), str(x.dtype).removeprefix("torch.")) for x in (image, result))
    if before != after:
        raise ValueError(f"it makes {after[1]} {after[0]} of {before[1]} {before[0]}")
    return result


def _line(error: Exception) -> str:
    return ascii(" ".join(str(error).split())[:200])[1:-1] or type(error).__name__
