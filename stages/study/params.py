"""The parameters of the study: one frozen class for each section of ``params.yaml``.

Every key, its type and its bounds stand here once. The whole file is checked before any work.
"""

import difflib
import math
import reprlib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError
from ruamel.yaml import YAML

from stages.study.errors import UserError
from stages.study.geometry import block_layers, output_size

PARAMS = Path("params.yaml")
IMAGE_SIZE = 32


def _whole(low: int, high: int) -> Any:
    return Field(ge=low, le=high, description=f"a whole number from {low} to {high}")


def _number(low: float, high: float) -> Any:
    return Field(ge=low, le=high, description=f"a number from {low} to {high}")


def _positive(high: float) -> Any:
    return Field(gt=0, le=high, description=f"a number above 0, at most {high}")


def _seed() -> Any:
    return _whole(0, 2**32 - 1)


class Section(BaseModel):
    """No unknown keys, no conversions (a bool is no number, text is no number), no NaN."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Data(Section):
    """Where the images come from and how many of them are used."""

    source: Literal["cifar10", "synthetic"] = Field(description="cifar10 or synthetic")
    url: str = Field(
        pattern=r"^https?://[!-~]+$", max_length=2000, description="an http:// or https:// address"
    )
    md5: str = Field(pattern=r"^[0-9a-f]{32}$", description="32 hexadecimal digits, letters in lower case")
    train_size: int = _whole(10, 50_000)
    validation_size: int = _whole(0, 49_990)
    test_size: int = _whole(10, 10_000)
    seed: int = _seed()


class Train(Section):
    """What all four trainings share."""

    epochs: int = _whole(1, 10_000)
    batch_size: int = _whole(2, 512)
    learning_rate: float = _positive(1)
    betas: list[Annotated[float, Field(ge=0, le=0.99999)]] = Field(
        min_length=2, max_length=2, description="two numbers from 0 to 0.99999"
    )
    seed: int = _seed()
    device: Literal["auto", "cpu", "cuda"] = Field(description="auto, cpu or cuda")
    precision: Literal["auto", "fp32", "bf16"] = Field(description="auto, fp32 or bf16")


class Baseline(Section):
    """The MLP."""

    hidden: list[Annotated[int, Field(ge=1, le=4096)]] = Field(
        min_length=1, max_length=6, description="a list of 1 to 6 layer widths from 1 to 4096"
    )


class Cnn(Section):
    """The CNN: blocks of convolutions, a 2x2 max pooling after each block."""

    blocks: list[Annotated[list[Annotated[int, Field(ge=1, le=128)]], Field(min_length=1, max_length=3)]] = (
        Field(
            min_length=1,
            max_length=5,
            description="a list of 1 to 5 blocks, each a list of 1 to 3 channel counts from 1 to 128",
        )
    )
    kernel_size: int = _whole(1, 11)
    padding: Literal["valid", "same"] = Field(description="valid or same")
    relu_logits: bool = Field(description="true or false")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.padding == "same" and self.kernel_size % 2 == 0:
            raise _refusal("kernel_size", self.kernel_size, "odd where cnn.padding is same")
        layers = block_layers(
            [[self.kernel_size] * len(block) for block in self.blocks],
            [2] * len(self.blocks),
            self.padding,
        )
        try:
            output_size(IMAGE_SIZE, layers)
        except ValueError as error:
            allowed = f"such that an image of {IMAGE_SIZE} pixels keeps at least one ({error})"
            raise _refusal("blocks", self.blocks, allowed) from error
        return self


class Aug(Section):
    """Data augmentation, drawn anew for every image of every batch."""

    crop_pad: int = _whole(0, 16)
    flip: float = _number(0, 1)
    brightness: float = _number(0, 1)


class Reg(Section):
    """Regularization: each key switches one method, off at false, 0 or null."""

    batch_norm: bool = Field(description="true or false")
    dropout: float = _number(0, 0.95)
    weight_decay: float = _number(0, 1)
    label_smoothing: float = _number(0, 0.95)
    one_cycle_peak: float | None = Field(gt=0, le=1, description="null, or a number above 0, at most 1")
    averaging: float = _number(0, 1)


class Viz(Section):
    """What ``visualize_filters`` looks at."""

    model: Literal["cnn", "augmented", "regularized"] = Field(
        description="cnn, augmented or regularized (the baseline has no filters)"
    )
    image: int | None = Field(ge=0, le=9999, description="null, or the index of a test image, at most 9999")


class Params(Section):
    """The whole of ``params.yaml``."""

    data: Data
    train: Train
    baseline: Baseline
    cnn: Cnn
    aug: Aug
    reg: Reg
    viz: Viz

    @model_validator(mode="after")
    def _enough_images(self) -> Self:
        left = self.data.train_size - self.data.validation_size
        if left < 10:
            allowed = "at least 10 less than data.train_size"
            raise _refusal("data.validation_size", self.data.validation_size, allowed)
        if self.train.batch_size > left:
            allowed = f"at most the number of training images, {left}"
            raise _refusal("train.batch_size", self.train.batch_size, allowed)
        if self.viz.image is not None and self.viz.image >= self.data.test_size:
            allowed = f"null, or below data.test_size, {self.data.test_size}"
            raise _refusal("viz.image", self.viz.image, allowed)
        return self


def load(path: Path = PARAMS) -> Params:
    """Read and check ``path``.

    YAML 1.2, the version DVC writes: there ``5e-05`` is a number.

    Raises:
        UserError: naming the key, its value and what is allowed.
    """
    try:
        content = YAML(typ="safe", pure=True).load(path)
    except FileNotFoundError:
        raise UserError(f"{path} is missing: run from the root of the repository") from None
    except OSError:
        raise
    except RecursionError:
        raise UserError(f"{path} is not valid YAML: nested too deeply") from None
    except Exception as error:  # ruamel raises KeyError, IndexError and others on a wrong explicit tag
        problem = " ".join(ascii(str(error))[1:-1].replace("\\n", " ").split())
        raise UserError(f"{path} is not valid YAML: {problem or type(error).__name__}") from None
    return check(content, str(path))


def check(content: Any, path: str = str(PARAMS)) -> Params:
    """Check the content of a parameter file, named ``path`` in messages.

    Raises:
        UserError: naming the key, its value and what is allowed.
    """
    try:
        return Params.model_validate(content)
    except ValidationError as invalid:
        raise UserError(f"{path}: {_explain(invalid)}") from None


def _refusal(key: str, value: Any, allowed: str) -> PydanticCustomError:
    """An error that concerns several keys at once, told under one of them."""
    return PydanticCustomError(
        "combination", "{key}{value}{allowed}", {"key": key, "value": value, "allowed": allowed}
    )


def _explain(invalid: ValidationError) -> str:
    """The error to mend first, in one line: key, value, what is allowed."""
    unknown = ("extra_forbidden", "invalid_key")
    # a misspelt key is also a missing one: what stands in the file says more
    error = min(invalid.errors(include_url=False), key=lambda error: error["type"] not in unknown)
    *section, last = location = error["loc"] or ("",)
    if error["type"] == "combination":
        context = error["ctx"]
        key = f"{_key(location)}.{context['key']}".lstrip(".")
        return f"{key} is {_short(context['value'])}, but must be {context['allowed']}"
    if error["type"] in unknown:
        names = list(_model(section).model_fields)
        near = difflib.get_close_matches(str(last), names, n=1)
        guess = f" (did you mean {near[0]}?)" if near else ""
        name = _short(".".join(map(str, location)))
        return f"unknown key {name}{guess}: allowed there are {', '.join(names)}"
    if error["type"] == "missing":
        return f"{_key(location)} is missing: it must be {_allowed(location)}"
    return f"{_key(location) or 'the file'} is {_short(error['input'])}, but must be {_allowed(location)}"


def _key(location: Sequence[int | str]) -> str:
    """``cnn.blocks[1]`` for ``("cnn", "blocks", 1)``."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)[1:]


def _model(section: Sequence[int | str]) -> type[BaseModel]:
    """The class of a section, or of the whole file."""
    return Params.model_fields[str(section[0])].annotation if section else Params  # type: ignore[return-value]


def _allowed(location: Sequence[int | str]) -> str:
    """What the key at ``location`` may be, from the description of its field."""
    section, key = [*map(str, location), "", ""][:2]
    model = _model([section] if section else [])
    if key:
        return str(model.model_fields[key].description)
    return f"a mapping with text keys: {', '.join(model.model_fields)}"


def _short(value: Any) -> str:
    text = _Brief().repr(value[:1000] if isinstance(value, str) else value)
    if not text.isprintable():
        text = ascii(text)[1:-1]
    return text if len(text) <= 60 else f"{text[:57]}..."


class _Brief(reprlib.Repr):
    """Values as YAML would have them, cut short without being walked: a few aliases make endless ones."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxstring, self.maxother = 3, 50, 50

    def repr_int(self, x: int, level: int) -> str:
        # Python refuses to print a number of more than 4300 digits
        if abs(x) < 10**50:
            return str(x)
        rounded = round(math.log10(abs(x)))
        return f"a number of {rounded + (abs(x) >= 10**rounded)} digits"

    def repr_bool(self, x: bool, level: int) -> str:
        return str(x).lower()

    def repr_NoneType(self, x: None, level: int) -> str:  # noqa: N802
        return "null"
