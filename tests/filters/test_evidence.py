"""Occlusion and its faithfulness on models whose evidence is known."""

import pytest
import torch
from torch import Tensor, nn

from stages.filters import evidence
from stages.filters.evidence import faithfulness, occlusion


def linear(weights: Tensor) -> nn.Module:
    """Logit 0 is the sum of ``weights`` (3, 32, 32) times the image plus 1000, logit 1 is 0."""
    dense = nn.Linear(3 * 32 * 32, 2)
    with torch.no_grad():
        dense.weight.zero_()
        dense.weight[0] = weights.flatten()
        dense.bias.copy_(torch.tensor([1000.0, 0.0]))
    return nn.Sequential(nn.Flatten(), dense).double()


def test_occlusion_is_the_mean_drop_over_the_windows_that_hide_a_pixel() -> None:
    torch.manual_seed(0)
    weights, images = torch.randn(3, 32, 32).double(), torch.randn(2, 3, 32, 32).double()
    evidence_map = occlusion(linear(weights), images)
    share = (images * weights).sum(dim=1)  # what each pixel gives to the logit
    for y, x in ((0, 0), (3, 17), (16, 16), (31, 30)):
        windows = [
            (top, left)
            for top in range(-4, 32, 4)
            for left in range(-4, 32, 4)
            if top <= y < top + 8 and left <= x < left + 8
        ]
        assert len(windows) == 4
        drops = [
            share[:, max(top, 0) : top + 8, max(left, 0) : left + 8].sum(dim=(1, 2)) for top, left in windows
        ]
        torch.testing.assert_close(evidence_map[:, y, x].double(), sum(drops, torch.zeros(2).double()) / 4)


def test_batches_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model, images = linear(torch.randn(3, 32, 32)), torch.randn(5, 3, 32, 32).double()
    whole = occlusion(model, images)
    monkeypatch.setattr(evidence, "BATCH", 2)
    torch.testing.assert_close(occlusion(model, images), whole)


def test_faithfulness_hides_a_fifth() -> None:
    """Each pixel gives its evidence: the top fifth costs its sum, a random fifth what it covers."""
    weights = torch.zeros(3, 32, 32)
    weights[1, :, :8] = 1.0  # 256 pixels give 1 each, and 205 are hidden
    evidence_map = weights[1].expand(40, 32, 32)
    drops = faithfulness(
        linear(weights), torch.ones(40, 3, 32, 32).double(), evidence_map, torch.Generator().manual_seed(0)
    )
    assert (drops.top == 205).all()
    # of a fifth at a random place a quarter is expected to lie on the 256 pixels
    for random in (drops.moved, drops.scattered):
        assert random.min() >= 0
        assert 35 < random.mean() < 68
    assert drops.scattered.std() < 10 < drops.moved.std()


def test_hidden_pixels_and_generator_decide_everything() -> None:
    torch.manual_seed(0)
    model, images = linear(torch.randn(3, 32, 32)), torch.randn(5, 3, 32, 32).double()
    maps = occlusion(model, images)
    first, second = (faithfulness(model, images, maps, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first.moved, second.moved)
    assert torch.equal(first.scattered, second.scattered)
    other = faithfulness(model, images, maps, torch.Generator().manual_seed(4))
    assert torch.equal(first.top, other.top)
    assert not torch.equal(first.scattered, other.scattered)
