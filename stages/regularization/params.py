"""The section ``reg``."""

from pydantic import Field

from stages.common.params import Section, number


class Reg(Section):
    """Regularization: each key switches one method, off at false, 0 or null."""

    name = "reg"
    batch_norm: bool = Field(description="true or false")
    dropout: float = number(0, 0.95)
    weight_decay: float = number(0, 1)
    label_smoothing: float = number(0, 0.95)
    one_cycle_peak: float | None = Field(gt=0, le=1, description="null, or a number above 0, at most 1")
    averaging: float = number(0, 1)
