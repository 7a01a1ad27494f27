import copy
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torchvision.transforms.functional import normalize

from stages.augmentation.transforms import augmentation
from stages.common.dataset import Data
from stages.common.errors import UserError
from stages.networks.images import Images, Transform
from stages.networks.models import CNN, MLP
from stages.training import evaluation
from stages.training.checkpoint import Checkpoint
from stages.training.evaluation import evaluate
from stages.training.optimization import Recipe
from stages.training.run import train
from stages.training.trainer import PLAIN, Trainer
from tests.tiny import CPU, tiny_data, tiny_train

pytestmark = pytest.mark.usefixtures("workplace")

AUGMENTATION = augmentation(2, 0.5, 0.1)


def trainer(
    recipe: Recipe = PLAIN,
    transform: Transform | None = None,
    data: Data | None = None,
    network: dict[str, Any] | None = None,
    **changes: Any,
) -> Trainer:
    settings = tiny_train(**changes)
    torch.manual_seed(settings.seed)
    model = CNN([[4, 4], [6]], **(network or {}))
    return Trainer(model, data or tiny_data(), settings, CPU, transform, recipe)


def run(trainer: Trainer) -> Trainer:
    with Checkpoint.locked("test", trainer.identity) as checkpoint:
        train("test", trainer, checkpoint)
    return trainer


def weights(model: nn.Module) -> list[Tensor]:
    return [tensor.detach().clone() for tensor in model.state_dict().values()]


def equal(one: nn.Module, other: nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(weights(one), weights(other), strict=True))


def normalized(data: Data) -> Tensor:
    """The training images as the tutorial would prepare them."""
    images = data.train.images.permute(0, 3, 1, 2).float() / 255
    result: Tensor = normalize(images, data.mean.tolist(), data.std.tolist())
    return result


@pytest.mark.parametrize("recipe", [PLAIN, Recipe(label_smoothing=0.2, weight_decay=0.3)])
def test_training_equals_a_plain_loop_over_the_same_batches(recipe: Recipe) -> None:
    data = tiny_data()
    subject = trainer(recipe, data=data)
    model = nn.Sequential(*copy.deepcopy(subject.model))
    matrices = [weight for weight in model.parameters() if weight.dim() > 1]
    vectors = [weight for weight in model.parameters() if weight.dim() == 1]
    adam = torch.optim.AdamW(
        [
            {"params": matrices, "weight_decay": recipe.weight_decay},
            {"params": vectors, "weight_decay": 0},
        ],
        lr=0.01,
        betas=(0.9, 0.95),
        foreach=False,
    )
    images, losses = normalized(data), []
    for epoch in (1, 2):
        total, batches = 0.0, 0
        for batch in subject._batches(epoch):
            loss = cross_entropy(
                model(images[batch]), data.train.labels[batch], label_smoothing=recipe.label_smoothing
            )
            adam.zero_grad()
            loss.backward()
            adam.step()
            total, batches = total + loss.item(), batches + 1
        losses.append(total / batches)
    run(subject)
    assert [figures["train_loss"] for figures in subject.history] == pytest.approx(losses, rel=1e-4)
    for found, expected in zip(subject.model.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


def test_an_epoch_takes_whole_batches_of_distinct_images_in_an_order_of_its_own() -> None:
    subject = trainer()
    epochs = [torch.stack(list(subject._batches(epoch))) for epoch in (1, 2)]
    for batches in epochs:
        assert batches.shape == (104 // 16, 16)
        assert len(batches.unique()) == batches.numel()
        assert batches.min() >= 0
        assert batches.max() < 104
    assert not torch.equal(epochs[0], epochs[1])
    assert torch.equal(epochs[0], torch.stack(list(trainer()._batches(1))))
    assert not torch.equal(epochs[0], torch.stack(list(trainer(seed=1)._batches(1))))


def test_each_epoch_draws_its_own_augmentation() -> None:
    subject = trainer(transform=AUGMENTATION)
    index = torch.zeros(16, dtype=torch.int64)
    seen = []
    for epoch in (1, 2, 1):
        subject._batches(epoch)
        seen.append(subject.images[index][0])
    assert torch.equal(seen[0], seen[2])
    assert not torch.equal(seen[0], seen[1])


def test_the_same_seed_repeats_every_bit_and_another_does_not() -> None:
    recipe = Recipe(0.1, 0.1, 0.02, 0.3, 0.04)
    network = {"batch_norm": True, "dropout": 0.2}
    first, again, other = (run(trainer(recipe, AUGMENTATION, network=network, seed=s)) for s in (0, 0, 1))
    assert equal(first.result, again.result)
    assert first.history == again.history
    assert not equal(first.result, other.result)


def test_all_methods_off_is_plain_training() -> None:
    off = Recipe(label_smoothing=0.0, weight_decay=0.0, one_cycle_peak=None, averaging=0.0, muon=0.0)
    network = {"batch_norm": False, "dropout": 0.0}
    plain, switched_off = (
        run(trainer(transform=AUGMENTATION)),
        run(trainer(off, AUGMENTATION, network=network)),
    )
    assert equal(plain.result, switched_off.result)
    assert plain.history == switched_off.history


@pytest.mark.parametrize(
    "recipe",
    [
        Recipe(label_smoothing=0.1),
        Recipe(weight_decay=0.1),
        Recipe(one_cycle_peak=0.02),
        Recipe(averaging=0.5),
        Recipe(muon=0.04),
    ],
)
def test_each_method_alone_changes_the_result(recipe: Recipe) -> None:
    assert not equal(run(trainer()).result, run(trainer(recipe)).result)


def test_dropout_alone_changes_the_result() -> None:
    assert not equal(run(trainer()).result, run(trainer(network={"dropout": 0.1})).result)


def test_weight_decay_shrinks_matrices_by_its_share_and_nothing_else() -> None:
    network = {"batch_norm": True}
    plain, decayed = trainer(network=network), trainer(Recipe(weight_decay=0.5), network=network)
    before = weights(plain.model)
    batch = torch.arange(16)
    plain.step(batch)
    decayed.step(batch)
    names = plain.model.state_dict().keys()
    for name, start, one, other in zip(
        names, before, weights(plain.model), weights(decayed.model), strict=True
    ):
        if start.dim() > 1:
            torch.testing.assert_close(one - other, 0.01 * 0.5 * start, rtol=1e-3, atol=1e-6, msg=name)
        else:
            assert torch.equal(one, other), name


def test_muon_scales_each_kernel_and_moves_it_by_an_orthogonal_matrix_and_adam_has_the_rest() -> None:
    plain, subject = trainer(), trainer(Recipe(muon=0.04))
    momentum: dict[str, Tensor] = {}
    for step in range(3):
        before = {name: tensor.double().clone() for name, tensor in subject.model.named_parameters()}
        subject.step(torch.arange(16) + step)
        plain.step(torch.arange(16) + step)
        for (name, after), start in zip(subject.model.named_parameters(), before.values(), strict=True):
            if after.dim() != 4:
                continue
            assert after.grad is not None
            gradient = after.grad.double().flatten(1)
            momentum[name] = 0.6 * momentum.get(name, torch.zeros_like(gradient)) + gradient
            scaled = start.flatten(1) * math.sqrt(len(start)) / start.norm()
            update = (scaled - after.detach().double().flatten(1)) / 0.04
            u, sizes, v = torch.linalg.svd(gradient + 0.6 * momentum[name], full_matrices=False)
            stretch = (u.T @ update.detach() @ v.T).diagonal()
            # five steps of Newton and Schulz in bf16 end near the orthogonal matrix, not at it
            assert torch.all(stretch[sizes > 0.02 * sizes.norm()] > 0.5), (name, stretch)
            assert torch.all((stretch > -0.1) & (stretch < 1.3)), (name, stretch)
            rest = update - u @ torch.diag(stretch) @ v
            assert rest.norm() < 0.1 * update.norm(), name
        if step == 0:
            others = [
                (one, other)
                for one, other in zip(subject.model.parameters(), plain.model.parameters(), strict=True)
                if one.dim() != 4
            ]
            assert others
            assert all(torch.equal(one, other) for one, other in others)


def test_muon_keeps_its_kernels_where_the_model_has_them() -> None:
    subject = trainer(Recipe(muon=0.04))
    subject.step(torch.arange(16))
    subject.load_state_dict(copy.deepcopy(subject.state_dict()))
    subject.step(torch.arange(16))
    _, muon = subject.optimizers
    kernels = [weight for weight in subject.model.parameters() if weight.dim() == 4]
    assert [matrix.data_ptr() for matrix in muon.param_groups[0]["params"]] == [k.data_ptr() for k in kernels]


def test_the_kernels_of_muon_do_not_decay() -> None:
    plain, decayed = trainer(Recipe(muon=0.04)), trainer(Recipe(muon=0.04, weight_decay=0.5))
    for subject in (plain, decayed):
        subject.step(torch.arange(16))
    for one, other in zip(plain.model.parameters(), decayed.model.parameters(), strict=True):
        assert torch.equal(one, other) == (one.dim() != 2)


def test_averaged_weights_are_an_exponential_average_over_the_steps() -> None:
    subject = trainer(Recipe(averaging=0.25), network={"batch_norm": True}, epochs=2)
    decay = 1 - 1 / (0.25 * 2 * 6)  # a quarter of 2 epochs of 6 steps
    steps = []
    for step in range(12):
        subject.step(torch.arange(16) + step)
        steps.append({name: tensor.double() for name, tensor in subject.model.state_dict().items()})
        shares = torch.tensor([decay**age for age in reversed(range(len(steps)))], dtype=torch.float64)
        shares /= shares.sum()  # of the initial weights nothing is left
        for name, tensor in subject.result.state_dict().items():
            if not name.endswith("num_batches_tracked"):
                expected = sum(share * then[name] for share, then in zip(shares, steps, strict=True))
                torch.testing.assert_close(tensor.double(), expected, rtol=1e-4, atol=1e-6, msg=name)


def test_averaging_that_covers_less_than_a_step_is_the_last_weights() -> None:
    subject = run(trainer(Recipe(averaging=0.0001), network={"batch_norm": True}))
    averaged = dict(subject.result.named_parameters())
    assert all(torch.equal(averaged[name], weight) for name, weight in subject.model.named_parameters())


def test_the_averaged_weights_are_what_is_evaluated() -> None:
    subject = run(trainer(Recipe(averaging=0.5)))
    assert subject.history[-1]["test_loss"] == evaluate(subject.result, subject.test, CPU).loss
    assert subject.history[-1]["test_loss"] != evaluate(subject.model, subject.test, CPU).loss


def test_the_one_cycle_rises_falls_and_ends_with_the_run() -> None:
    subject = trainer(Recipe(one_cycle_peak=0.02, muon=0.04), epochs=5)
    rates = []
    for epoch in range(1, 6):
        for batch in subject._batches(epoch):
            adam, muon = subject.optimizers
            rates.append(adam.param_groups[0]["lr"])
            assert adam.param_groups[1]["lr"] == rates[-1]
            assert muon.param_groups[0]["lr"] == pytest.approx(2 * rates[-1])
            subject.step(batch)
    top, last = 0.3 * 30 - 1, 29
    for step, rate in enumerate(rates):
        rise, fall = step / top, (last - step) / (last - top)
        low, end = 0.02 / 25, 0.02 / 25_000
        expected = low + (0.02 - low) * rise if step <= top else end + (0.02 - end) * fall
        assert rate == pytest.approx(expected)
    assert len(rates) == 30
    assert rates[-1] < 1e-4 * max(rates)


@pytest.mark.parametrize("steps", [1, 2, 3, 4])
def test_a_run_of_a_few_steps_has_a_cycle_too(steps: int) -> None:
    subject = run(
        trainer(Recipe(one_cycle_peak=0.02, averaging=0.5), data=tiny_data(train=16 * steps), epochs=1)
    )
    assert math.isfinite(subject.history[-1]["train_loss"])


def test_a_loss_that_is_no_number_ends_the_run_and_leaves_the_last_good_epoch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    subject, steps = trainer(epochs=3), []
    step = subject.step

    def poisoned(batch: Tensor) -> Tensor:
        steps.append(batch)
        return step(batch) * (math.nan if len(steps) in (6 + 3, 6 + 5) else 1)

    monkeypatch.setattr(subject, "step", poisoned)
    with pytest.raises(UserError) as stop:
        run(subject)
    message = str(stop.value)
    assert "nan" in message
    assert "epoch 2, batch 3 of 6" in message
    assert "train.learning_rate from 0.01" in message
    assert len(steps) == 12  # looked at when the epoch was over
    with Checkpoint.locked("test", subject.identity) as checkpoint:
        state = checkpoint.resume()
    assert state is not None
    assert [figures["epoch"] for figures in state["history"]] == [1]


def test_infinite_inputs_end_the_run_in_the_first_batch() -> None:
    data = tiny_data()
    with pytest.raises(UserError, match=r"epoch 1, batch 1 of 6: lower reg\.one_cycle_peak.* from 0\.02"):
        run(trainer(Recipe(one_cycle_peak=0.02), data=replace(data, std=torch.zeros(3))))


def test_a_test_loss_that_is_no_number_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    subject = trainer()
    data = tiny_data()
    monkeypatch.setattr(subject, "test", Images(data.test, replace(data, std=torch.zeros(3))))
    with pytest.raises(UserError, match="after epoch 1"):
        run(subject)


def test_evaluation_equals_one_image_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation, "BATCH", 7)
    data = tiny_data()
    torch.manual_seed(3)
    model = CNN([[4, 4]], batch_norm=True, dropout=0.5)
    images = Images(data.test, data)
    model.train()(images[list(range(45))][0])
    result = evaluate(model, images, CPU)
    assert model.training
    model.eval()
    losses, predictions, confidences = [], [], []
    for image, label in (images[n] for n in range(45)):
        log_probabilities = model(image[None]).double().log_softmax(dim=1)[0]
        losses.append(-log_probabilities[label].item())
        predictions.append(int(log_probabilities.argmax()))
        confidences.append(log_probabilities.max().exp().item())
    assert result.loss == pytest.approx(sum(losses) / 45, rel=1e-5)
    assert result.predictions.tolist() == predictions
    assert result.confidences.tolist() == pytest.approx(confidences, rel=1e-5)
    hits = sum(a == b for a, b in zip(predictions, data.test.labels.tolist(), strict=True))
    assert result.accuracy == pytest.approx(hits / 45)
    assert evaluate(model, images, CPU).loss == result.loss
    assert not model.training


def test_every_split_is_recorded_after_every_epoch() -> None:
    data = tiny_data(validation=20)
    subject = run(trainer(data=data))
    assert [figures["epoch"] for figures in subject.history] == [1, 2]
    for figures in subject.history:
        assert figures.keys() == {
            "epoch", "train_loss", "test_loss", "test_accuracy", "validation_loss", "validation_accuracy"
        }  # fmt: skip
    assert data.validation is not None
    validation = evaluate(subject.result, Images(data.validation, data), CPU)
    assert subject.history[-1]["validation_loss"] == validation.loss
    assert subject.history[-1]["validation_accuracy"] == validation.accuracy


@pytest.mark.parametrize("model", [lambda: MLP([32]), lambda: CNN([[8], [8]])])
def test_training_learns(model: Callable[[], MLP | CNN]) -> None:
    torch.manual_seed(0)
    subject = run(Trainer(model(), tiny_data(train=400), tiny_train(epochs=6), CPU))
    assert subject.history[-1]["train_loss"] < 0.9 * subject.history[0]["train_loss"]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_losses_are_in_single_precision(precision: str) -> None:
    subject = trainer()
    subject.runtime = replace(CPU, precision=precision)
    assert subject.step(torch.arange(16)).dtype == torch.float32


class Looks(TorchDispatchMode):
    """Counts operations whose result depends on values that the host must wait for, backward included."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        masks = [index for index in tree_leaves(args[1:]) if getattr(index, "dtype", None) == torch.bool]
        if str(func) != "aten.index.Tensor" or masks:  # a choice by numbers is as long as its numbers
            tags = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}
            self.seen += [str(func)] if tags & set(func.tags) else []
        return func(*args, **(kwargs or {}))


def test_no_step_looks_at_a_value() -> None:
    subject = trainer(
        Recipe(0.1, 0.1, 0.02, 0.3, 0.04), AUGMENTATION, network={"batch_norm": True, "dropout": 0.1}
    )
    subject.model.train()
    with Looks() as looks:
        losses = [subject.step(torch.arange(16)) for _ in range(3)]
    assert looks.seen == []
    with looks:
        assert losses[0].item() > 0
        assert len(subject.images.labels[subject.images.labels == 3]) > 0
    assert looks.seen == ["aten._local_scalar_dense.default", "aten.index.Tensor"]


def test_a_batch_larger_than_the_training_set_is_refused() -> None:
    with pytest.raises(UserError, match=r"train\.batch_size is 200, .* training images, 104"):
        trainer(batch_size=200)
