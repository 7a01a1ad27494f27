"""The section ``viz``."""

from typing import Literal

from pydantic import Field

from stages.common.params import Section


class Viz(Section):
    """What ``visualize_filters`` looks at."""

    name = "viz"
    model: Literal["cnn", "augmented", "regularized"] = Field(
        description="cnn, augmented or regularized (the baseline has no filters)"
    )
    image: int | None = Field(ge=0, le=9999, description="null, or the index of a test image, at most 9999")
