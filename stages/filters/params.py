"""The section ``viz``."""

from typing import Literal

from stages.common.params import Section, key


class Viz(Section):
    """What ``visualize_filters`` looks at."""

    name = "viz"
    model: Literal["cnn", "augmented", "regularized"] = key(
        "the model whose filters are examined",
        "cnn, augmented or regularized (the baseline has no filters)",
    )
    image: int | None = key(
        "index of the test image; null: drawn with `train.seed`",
        "null, or the index of a test image, at most 9999",
        ge=0,
        le=9999,
    )
