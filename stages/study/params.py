"""The parameters of the study: one frozen class for each section of ``params.yaml``.

Every key, its type and its bounds stand here once. The whole file is checked before any work.
"""

import difflib
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

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
    url: str = Field(pattern=r"^https?://\S+$", max_length=2000, description="an http:// or https:// address")
    md5: str = Field(pattern=r"^[0-9a-f]{32}$", description="32 hexadecimal digits")
    train_size: int = _whole(10, 50_000)
    validation_size: int = _whole(0, 49_990)
    test_size: int = _whole(10, 10_000)
    seed: int = _seed()


class Train(Section):
    """What all four trainings share."""

    epochs: int = _whole(1, 10_000)
    batch_size: int = _whole(2, 1024)
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

    blocks: list[Annotated[list[Annotated[int, Field(ge=1, le=256)]], Field(min_length=1, max_length=4)]] = (
        Field(
            min_length=1,
            max_length=5,
            description="a list of 1 to 5 blocks, each a list of 1 to 4 channel counts from 1 to 256",
        )
    )
    kernel_size: int = _whole(1, 31)
    padding: Literal["valid", "same"] = Field(description="valid or same")

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
    except (YAMLError, UnicodeDecodeError, ValueError) as error:
        problem = " ".join(str(error).split())
        raise UserError(f"{path} is not valid YAML: {problem}") from None
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
    """The first error in one line: key, value, what is allowed."""
    error = invalid.errors(include_url=False)[0]
    location = error["loc"]
    key = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)[1:]
    if error["type"] == "combination":
        context = error["ctx"]
        key = f"{key}.{context['key']}".lstrip(".")
        return f"{key} is {_short(context['value'])}, but must be {context['allowed']}"
    if error["type"] == "extra_forbidden":
        section: Any = Params
        for part in location[:-1]:
            section = section.model_fields[part].annotation
        names = list(section.model_fields)
        near = difflib.get_close_matches(str(location[-1]), names, n=1)
        guess = f" (did you mean {near[0]}?)" if near else ""
        return f"unknown key {_short(key)}{guess}: allowed there are {', '.join(names)}"
    allowed = _allowed(location)
    if error["type"] == "missing":
        return f"{key} is missing: it must be {allowed}"
    return f"{key or 'the file'} is {_short(error['input'])}, but must be {allowed}"


def _allowed(location: tuple[int | str, ...]) -> str:
    """What the key at ``location`` may be, from the description of its field."""
    names = [part for part in location if isinstance(part, str)]
    if not names or names[0] not in Params.model_fields:
        return f"a mapping with text keys: {', '.join(Params.model_fields)}"
    section: Any = Params.model_fields[names[0]].annotation
    if len(names) == 1 or names[1] not in section.model_fields:
        return f"a mapping with text keys: {', '.join(section.model_fields)}"
    return str(section.model_fields[names[1]].description)


def _short(value: Any) -> str:
    text = value if isinstance(value, str) and value.isprintable() else ascii(value)
    text = " ".join(text.split())
    return repr(text[:57] + "...") if len(text) > 60 else (repr(text) if isinstance(value, str) else text)
