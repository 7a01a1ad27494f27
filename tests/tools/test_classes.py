"""What the models answer, class by class and image by image, counted by hand."""

from typing import Any

import pytest

from tests.tools.support import cells
from tools import classes

# twenty answers: cat, dog, ship; the second model turns two images right and one wrong
ACTUAL = ["cat"] * 4 + ["dog"] * 4 + ["ship"] * 2
FIRST = ["cat", "cat", "dog", "dog", "dog", "dog", "dog", "cat", "ship", "ship"]
SECOND = ["cat", "cat", "cat", "cat", "dog", "dog", "cat", "cat", "ship", "ship"]


def answers(predicted: list[str], confidence: float = 0.95) -> dict[str, list[Any]]:
    return {"actual": ACTUAL, "predicted": predicted, "confidence": [confidence] * len(ACTUAL)}


PREDICTIONS = {"first": answers(FIRST), "second": answers(SECOND)}


def test_accuracies_by_class_begin_with_the_hardest_of_the_last_model() -> None:
    head, _, *rows = cells(classes.class_table(PREDICTIONS))
    assert head == ["class", "first", "second"]
    assert rows == [
        ["dog", "75.0%", "50.0%"],
        ["cat", "50.0%", "100.0%"],
        ["ship", "100.0%", "100.0%"],
    ]


def test_confused_pairs_begin_with_the_last_models_most_frequent() -> None:
    head, _, *rows = cells(classes.pair_table(PREDICTIONS))
    assert head == ["images", "first", "second"]
    assert rows == [["dog taken for cat", "1", "2"], ["cat taken for dog", "2", "0"]]


def test_images_that_turn() -> None:
    head, _, row = cells(classes.change_table(PREDICTIONS, "first", ["second"]))
    assert head == ["from, to", "right in both", "turned right", "turned wrong", "wrong in both", "p"]
    assert row == ["first, second", "6", "2", "1", "1", "1"]


def test_the_images_that_turned_are_those_of_which_both_were_surest() -> None:
    first, second = answers(FIRST), answers(SECOND)
    first["confidence"] = [0.9, 0.9, 0.6, 0.8, 0.9, 0.9, 0.7, 0.9, 0.9, 0.9]
    second["confidence"] = [0.9, 0.9, 0.9, 0.7, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9]
    both = {"first": first, "second": second}
    assert classes.turned(both, "first", "second", 8) == ([3, 2], [6])
    assert classes.turned(both, "first", "second", 1) == ([3], [6])


@pytest.mark.parametrize(
    ("first", "second", "p"),
    [
        (0, 0, 1.0),
        (3, 3, 1.0),
        (0, 5, 2 / 32),
        (5, 0, 2 / 32),
        (1, 9, 2 * 11 / 1024),
        (400, 600, 2.7e-10),  # by the normal distribution: 6.3 deviations
    ],
)
def test_sign_test(first: int, second: int, p: float) -> None:
    assert classes.sign_test(first, second) == pytest.approx(p, rel=0.1)


def test_sign_test_of_many_images_is_a_number() -> None:
    assert 0 <= classes.sign_test(500, 5000) < 1e-300


def test_calibration_is_the_weighted_distance_of_the_bins() -> None:
    mixed = answers(FIRST)
    mixed["confidence"] = [0.5] * 4 + [1.0] * 6  # of the first four two are right, of the others five
    bins = classes.reliability(mixed)
    assert list(bins["images"]) == [4, 6]
    assert list(bins["confidence"]) == [0.5, 1.0]
    assert list(bins["accuracy"]) == pytest.approx([0.5, 5 / 6])
    (row,) = cells(classes.calibration_table({"model": mixed}))[2:]
    assert row == ["model", "80.0%", "70.0%", "+10.0%", "10.0%"]
    (row,) = cells(classes.calibration_table({"model": answers(SECOND, 0.6)}))[2:]
    assert row == ["model", "60.0%", "80.0%", "-20.0%", "20.0%"]


def test_bins_are_those_of_their_edges() -> None:
    low = answers(FIRST)
    low["confidence"] = [0.0, 1 / 15, 0.999, 1.0, *[0.5] * 6]
    assert list(classes.reliability(low).index) == [0, 1, 7, 14]
