"""How a section of ``params.yaml`` is read and checked. Each room has the schema of its own section."""

import difflib
import math
import reprlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError
from ruamel.yaml import YAML

from stages.common.errors import UserError

PARAMS = Path("params.yaml")
LOADED: list[tuple[type["Section"], dict[str, Any]]] = []  # all that `load` has read, as it stood in the file


def key(meaning: str, allowed: str, **bounds: Any) -> Any:
    """A field with its ``bounds``, as pydantic has them, and in words its meaning and what is allowed."""
    return Field(title=meaning, description=allowed, **bounds)


def switch(meaning: str) -> Any:
    """A field that is true or false."""
    return key(meaning, "true or false")


def whole(meaning: str, low: int, high: int) -> Any:
    """A field that holds a whole number from ``low`` to ``high``."""
    return key(meaning, f"a whole number from {low} to {high}", ge=low, le=high)


def number(meaning: str, low: float, high: float) -> Any:
    """A field that holds a number from ``low`` to ``high``."""
    return key(meaning, f"a number from {low} to {high}", ge=low, le=high)


def seed(meaning: str) -> Any:
    """A field that holds a seed."""
    return whole(meaning, 0, 2**32 - 1)


class Schema(BaseModel):
    """No unknown keys, no NaN, no conversions (text is no number) but between what DVC takes for equal."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _as_dvc_has_it(cls, value: Any, info: ValidationInfo) -> Any:
        """3.0 is 3, and 1 is true: DVC runs nothing for such a change, so both must mean the same."""
        kind = cls.model_fields[str(info.field_name)].annotation
        if kind is bool:
            return bool(value) if isinstance(value, int | float) and value in (0, 1) else value
        return value if kind is str or get_origin(kind) is Literal else _whole_numbers(value)


def _whole_numbers(value: Any, depth: int = 2) -> Any:
    """``value`` with whole numbers as int, in lists of lists too; aliases can make deeper ones endless."""
    if isinstance(value, list) and depth:
        return [_whole_numbers(item, depth - 1) for item in value]
    whole = isinstance(value, bool) or (isinstance(value, float) and value.is_integer())
    return int(value) if whole else value


class Section(Schema):
    """A section of the file, the one called `name`."""

    name: ClassVar[str]

    @classmethod
    def own(cls, content: Any) -> dict[str, Any]:
        """What of the section's ``content`` this schema reads: all of it, unless it ignores other keys."""
        keys = content if isinstance(content, dict) else {}
        whole = cls.model_config.get("extra") == "forbid"
        return {key: value for key, value in keys.items() if whole or key in cls.model_fields}


S = TypeVar("S", bound=Section)


class TrainSeed(Section):
    """Of the section ``train`` the seed alone, for what depends on no other of its keys."""

    model_config = ConfigDict(extra="ignore")
    name = "train"
    seed: int = seed("what is drawn at random")


def load(section: type[S], path: Path = PARAMS) -> S:
    """Read and check one section of ``path``, and note it in `LOADED`, to be compared when the stage ends.

    Raises:
        UserError: naming the key, its value and what is allowed.
    """
    content = read(path)
    if not isinstance(content, dict) or section.name not in content:
        raise UserError(f"{path}: the section {section.name} is missing: {_mapping(section)}")
    result = check(section, content[section.name], str(path), (section.name,))
    LOADED.append((section, section.own(content[section.name])))
    return result


def read(path: Path = PARAMS) -> Any:
    """The content of ``path``, unchecked. YAML 1.2, the version DVC writes: there ``5e-05`` is a number.

    Raises:
        UserError: the file is missing or not valid YAML.
    """
    try:
        return YAML(typ="safe", pure=True).load(path)
    except FileNotFoundError:
        raise UserError(f"{path} is missing: run from the root of the repository") from None
    except OSError:
        raise
    except RecursionError:
        raise UserError(f"{path} is not valid YAML: nested too deeply") from None
    except Exception as error:  # ruamel raises KeyError, IndexError and others on a wrong explicit tag
        problem = " ".join(ascii(str(error))[1:-1].replace("\\n", " ").split())
        raise UserError(f"{path} is not valid YAML: {problem or type(error).__name__}") from None


T = TypeVar("T", bound=Schema)


def check(schema: type[T], content: Any, path: str, place: tuple[str, ...] = ()) -> T:
    """Check ``content``, which stands at the keys ``place`` of the file named ``path`` in messages.

    Raises:
        UserError: naming the key, its value and what is allowed.
    """
    try:
        return schema.model_validate(content)
    except ValidationError as invalid:
        raise UserError(f"{path}: {_explain(invalid, schema, place)}") from None


def refusal(key: str, value: Any, allowed: str) -> PydanticCustomError:
    """An error of a value that its field's type cannot express, told under ``key`` of the schema."""
    return PydanticCustomError(
        "combination", "{key}{value}{allowed}", {"key": key, "value": value, "allowed": allowed}
    )


def _explain(invalid: ValidationError, schema: type[Schema], place: tuple[str, ...]) -> str:
    """The error to mend first, in one line: key, value, what is allowed."""
    unknown = ("extra_forbidden", "invalid_key")
    # a misspelt key is also a missing one: what stands in the file says more
    error = min(invalid.errors(include_url=False), key=lambda error: error["type"] not in unknown)
    location = error["loc"]
    key = _key((*place, *location))
    if error["type"] == "combination":
        context = error["ctx"]
        key = f"{key}.{context['key']}".strip(".")
        return f"{key} is {short(context['value'])}, but must be {context['allowed']}"
    if error["type"] in unknown:
        names = list(_model(schema, location[:-1]).model_fields)
        near = difflib.get_close_matches(str(location[-1]), names, n=1)
        guess = f" (did you mean {near[0]}?)" if near else ""
        name = short(".".join(map(str, (*place, *location))))
        return f"unknown key {name}{guess}: allowed there are {', '.join(names)}"
    allowed = _allowed(schema, location)
    if error["type"] == "missing":
        return f"{key} is missing: it must be {allowed}"
    return f"{key or 'the file'} is {short(error['input'])}, but must be {allowed}"


def _key(location: Sequence[int | str]) -> str:
    """``cnn.blocks[1]`` for ``("cnn", "blocks", 1)``."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)[1:]


def _model(schema: type[Schema], location: Sequence[int | str]) -> type[Schema]:
    """The schema of what stands at ``location`` of ``schema``."""
    return schema.model_fields[str(location[0])].annotation if location else schema  # type: ignore[return-value]


def _allowed(schema: type[Schema], location: Sequence[int | str]) -> str:
    """What the key at ``location`` of ``schema`` may be."""
    for part in location:
        field = schema.model_fields[str(part)]
        if field.description:
            return field.description
        schema = field.annotation  # type: ignore[assignment]
    return _mapping(schema)


def _mapping(schema: type[Schema]) -> str:
    return f"a mapping with text keys: {', '.join(schema.model_fields)}"


def short(value: Any) -> str:
    """``value`` as YAML has it, in at most 60 printable characters."""
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
