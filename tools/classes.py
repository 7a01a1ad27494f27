"""What the models answer, class by class and image by image, from ``metrics/predictions``."""

import math
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

import pandas as pd

Predictions = Mapping[str, Mapping[str, Sequence[Any]]]  # of each model: actual, predicted, confidence
PAIRS = 8
BINS = 15


def _frame(answers: Mapping[str, Sequence[Any]]) -> pd.DataFrame:
    """A row for each image: what stands in the file, and whether the answer is ``right``."""
    frame = pd.DataFrame(dict(answers))
    return frame.assign(right=frame["actual"] == frame["predicted"])


def class_table(predictions: Predictions) -> str:
    """The share of each class's images that each model gets right, the last model's hardest class first."""
    return str(class_accuracies(predictions).to_markdown(floatfmt=".1%"))


def class_accuracies(predictions: Predictions) -> pd.DataFrame:
    """Accuracy of each class (rows) and model (columns), sorted by the last model."""
    table = pd.DataFrame(
        {model: _frame(answers).groupby("actual")["right"].mean() for model, answers in predictions.items()}
    )
    return table.sort_values(table.columns[-1], kind="stable").rename_axis("class")


def pair_table(predictions: Predictions) -> str:
    """The pairs that the last model confuses most: images of one class taken for the other, of each model."""
    counts = {}
    for model, answers in predictions.items():
        frame = _frame(answers)
        wrong = frame[~frame["right"]]
        counts[model] = (wrong["actual"] + " taken for " + wrong["predicted"]).value_counts()
    table = pd.DataFrame(counts).fillna(0).astype(int)
    last = table.columns[-1]
    # by name too, so that equal counts have an order
    table = table.rename_axis("images").reset_index().sort_values([last, "images"], ascending=[False, True])
    return str(table.head(PAIRS).to_markdown(index=False))


def change_table(predictions: Predictions, before: str, after: Sequence[str]) -> str:
    """How many images turn right and wrong from model ``before`` to each of ``after``, and by what chance.

    Where nothing but chance made an image turn, it would turn either way as often: ``p`` is the two-sided
    probability of a difference at least as large (the sign test, of paired answers McNemar's).
    """
    right = {model: _frame(answers)["right"] for model, answers in predictions.items()}
    rows = []
    for model in after:
        better, worse = (right[model] & ~right[before]).sum(), (~right[model] & right[before]).sum()
        p = sign_test(int(better), int(worse))
        rows.append(
            {
                "from, to": f"{before}, {model}",
                "right in both": (right[model] & right[before]).sum(),
                "turned right": better,
                "turned wrong": worse,
                "wrong in both": (~right[model] & ~right[before]).sum(),
                "p": f"{p:.1g}",
            }
        )
    return str(pd.DataFrame(rows).to_markdown(index=False, intfmt=",", disable_numparse=[0, 5]))


def turned(predictions: Predictions, before: str, after: str, count: int) -> tuple[list[int], list[int]]:
    """The ``count`` images that turned right, and wrong, of which both models were surest: their indices."""
    first, second = (_frame(predictions[model]) for model in (before, after))
    sure = pd.concat([first["confidence"], second["confidence"]], axis=1).min(axis=1)
    was, is_now = first["right"], second["right"]
    better, worse = (
        sure[turn].sort_values(ascending=False, kind="stable") for turn in (~was & is_now, was & ~is_now)
    )
    return list(better.index[:count]), list(worse.index[:count])


def sign_test(first: int, second: int) -> float:
    """Two-sided probability that a fair coin's ``first + second`` throws fall at least as far apart."""
    throws = first + second
    tail = sum(math.comb(throws, count) for count in range(min(first, second) + 1))
    return min(1.0, float(Fraction(2 * tail, 2**throws)))


def reliability(answers: Mapping[str, Sequence[Any]]) -> pd.DataFrame:
    """The answers in `BINS` equal bins of confidence: ``images``, mean ``confidence``, and ``accuracy``."""
    frame = _frame(answers)
    groups = frame.groupby((frame["confidence"] * BINS).astype(int).clip(upper=BINS - 1))
    return groups.agg(images=("right", "size"), confidence=("confidence", "mean"), accuracy=("right", "mean"))


def calibration_table(predictions: Predictions) -> str:
    """How far confidence and accuracy lie apart, on average (signed) and bin by bin.

    The latter is the expected calibration error (Guo et al. 2017): the mean distance, weighted by images.
    """
    rows = []
    for model, answers in predictions.items():
        bins = reliability(answers)
        weights = bins["images"] / bins["images"].sum()
        confidence, accuracy = ((weights * bins[name]).sum() for name in ("confidence", "accuracy"))
        error = (weights * (bins["confidence"] - bins["accuracy"]).abs()).sum()
        rows.append(
            {
                "model": model,
                "mean confidence": confidence,
                "accuracy": accuracy,
                "too sure by": confidence - accuracy,
                "expected calibration error": error,
            }
        )
    return str(pd.DataFrame(rows).to_markdown(index=False, floatfmt=("", ".1%", ".1%", "+.1%", ".1%")))
