"""Any transformation of torchvision.transforms.v2, by name."""

import datetime
from typing import Any

import pytest
import torch
from torchvision.transforms import v2

from stages.augmentation.extra import EachImage, build
from stages.augmentation.transforms import Aug, augmentation
from stages.common.errors import UserError
from stages.common.params import check, read

IMAGES = torch.randint(256, (5, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
JITTER = {"ColorJitter": {"brightness": 0.4, "hue": 0.1}}


@pytest.mark.parametrize(
    ("extra", "transform"),
    [
        ([{"RandomErasing": {"p": 0.5}}], v2.RandomErasing(p=0.5)),
        ([{"RandomRotation": {"degrees": 20}}], v2.RandomRotation(20)),
        (
            [{"RandomRotation": {"degrees": 20, "interpolation": "bilinear"}}],
            v2.RandomRotation(20, interpolation=v2.InterpolationMode.BILINEAR),
        ),
        ([{"AutoAugment": {"policy": "cifar10"}}], v2.AutoAugment(v2.AutoAugmentPolicy.CIFAR10)),
        ([{"TrivialAugmentWide": {}}], v2.TrivialAugmentWide()),
        ([{"TrivialAugmentWide": None}], v2.TrivialAugmentWide()),
        (
            [{"RandomApply": {"transforms": [JITTER], "p": 0.5}}],
            v2.RandomApply([v2.ColorJitter(brightness=0.4, hue=0.1)], p=0.5),
        ),
        (
            [{"RandomGrayscale": {"p": 0.5}}, JITTER],
            v2.Compose([v2.RandomGrayscale(0.5), v2.ColorJitter(brightness=0.4, hue=0.1)]),
        ),
    ],
)
def test_each_image_is_transformed_as_torchvision_does_it_alone(extra: Any, transform: v2.Transform) -> None:
    torch.manual_seed(2)
    result = EachImage(extra)(IMAGES)
    torch.manual_seed(2)
    assert torch.equal(result, torch.stack([transform(image) for image in IMAGES]))
    assert not torch.equal(result, IMAGES)


def refusal(extra: Any) -> str:
    section = read()["aug"] | {"extra": extra}
    with pytest.raises(UserError) as refused:
        check(Aug, section, "params.yaml", ("aug",))
    message = str(refused.value)
    assert message.isprintable()
    assert message.startswith("params.yaml: aug.extra")
    return message


@pytest.mark.parametrize(
    ("extra", "parts"),
    [
        ([{"RandomErase": {}}], ["has no 'RandomErase' (did you mean RandomErasing?)"]),
        ([{"os": {}}], ["has no 'os'"]),
        ([{"functional": {}}], ["has no 'functional'"]),
        ([{"RandomErasing": {"q": 0.5}}], ["RandomErasing", "unexpected keyword argument", "q"]),
        ([{"RandomErasing": {"p": 7}}], ["RandomErasing", "[0.0, 1.0]"]),
        ([{"RandomErasing": 0.5}], ["arguments by name"]),
        ([{"RandomRotation": {}}], ["RandomRotation", "degrees"]),
        ([{"RandomRotation": {"degrees": 5, "interpolation": "best"}}], ["RandomRotation", "best"]),
        ([{"Resize": {"size": 40}}], ["Resize", "uint8 (3, 40, 40) of uint8 (3, 32, 32)"]),
        ([{"RandomZoomOut": {"p": 0.2}}], ["RandomZoomOut", "keep its shape and type"]),
        ([{"ToDtype": {"dtype": "float32"}}], ["ToDtype", "dtype"]),
        ([{"CutMix": {"num_classes": 10}}], ["CutMix", "one image"]),
        ([{"RandomApply": {"transforms": [{"Nothing": {}}]}}], ["RandomApply", "has no 'Nothing'"]),
        ([{}], ["one name each"]),
        ([{"RandomErasing": {}, "RandomInvert": {}}], ["one name each"]),
        (["RandomErasing"], ["must be a list of at most 10 transformations"]),
        ({"RandomErasing": {}}, ["must be a list of at most 10 transformations"]),
        ([{"ColorJitter": {"hue": float("nan")}}], ["finite numbers"]),
        ([{"RandomErasing": {"value": datetime.date(2026, 1, 1)}}], ["finite numbers"]),
        ([{"RandomInvert": {}}] * 11, ["must be a list of at most 10 transformations"]),
    ],
)
def test_what_is_refused_before_any_work(extra: Any, parts: list[str]) -> None:
    message = refusal(extra)
    assert all(part in message for part in parts), message


def test_trying_leaves_the_global_generator() -> None:
    torch.manual_seed(0)
    expected = torch.rand(2)
    torch.manual_seed(0)
    build([{"RandomErasing": {}}])
    assert torch.equal(torch.rand(2), expected)


def test_extra_comes_last_and_leaves_the_draws_of_the_others() -> None:
    plain, more = augmentation(4, 0.5, 0.3), augmentation(4, 0.5, 0.3, [{"RandomInvert": {"p": 1.0}}])
    torch.manual_seed(0)
    expected = 255 - plain(IMAGES)
    torch.manual_seed(0)
    assert torch.equal(more(IMAGES), expected)
