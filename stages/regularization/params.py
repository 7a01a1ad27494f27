"""The section ``reg``."""

from stages.common.params import Section, key, number, switch, whole


class Reg(Section):
    """What the regularized model has beyond the augmented one: each key is a method, off at false, 0 or null.

    Four of them are no regularization: with ``batch_norm``, ``one_cycle_peak`` and ``muon`` the network
    learns more in as many epochs, and ``averaging`` takes noise out of its weights.
    """

    name = "reg"
    batch_norm: bool = switch("batch normalization after each convolution")
    dropout: float = number("share of the activations that dropout sets to zero; 0: off", 0, 0.95)
    weight_decay: float = number("decoupled weight decay (AdamW) of what Adam moves; 0: off", 0, 1)
    label_smoothing: float = number("share of the target spread evenly over the classes; 0: off", 0, 0.95)
    one_cycle_peak: float | None = key(
        "peak of a one-cycle learning rate schedule; null: constant `train.learning_rate`",
        "null, or a number above 0, at most 1",
        gt=0,
        le=1,
    )
    averaging: float = number("length of the weights' moving average as a share of the run; 0: off", 0, 1)
    stronger_crop: int = whole("pixels that the random crop has beyond `aug.crop_pad`; 0: off", 0, 15)
    muon: float = number(
        "learning rate of Muon, which moves the kernels in place of Adam: its peak in a one-cycle schedule; "
        "0: off",
        0,
        1,
    )
