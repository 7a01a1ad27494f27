"""The section ``aug``: its keys are arguments of `stages.augmentation.transforms.augmentation`."""

from typing import Any

from pydantic import Field, field_validator

from stages.common.params import Section, number, refusal, whole


class Aug(Section):
    """Data augmentation, drawn anew for every image of every batch."""

    name = "aug"
    crop_pad: int = whole(0, 16)
    flip: float = number(0, 1)
    brightness: float = number(0, 1)
    extra: list[dict[str, Any]] = Field(
        description="a list of transformations of torchvision.transforms.v2, such as "
        "[{RandomErasing: {p: 0.25}}]"
    )

    @field_validator("extra")
    @classmethod
    def _possible(cls, extra: list[dict[str, Any]]) -> list[dict[str, Any]]:
        if extra:
            from stages.augmentation.extra import build  # only where it is needed: torchvision takes a second

            try:
                build(extra)
            except ValueError as error:
                raise refusal("", extra, str(error)) from None
        return extra
