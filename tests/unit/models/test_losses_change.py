import math

import pytest
import torch
import torch.nn.functional as F  # noqa: N812

from models.losses import change_loss, dice, dice_focal, focal, jaccard_steps, lovasz_hinge, weighted_cross_entropy

KINDS = ["dice", "focal", "lovasz", "cross_entropy", "dice_focal"]


def batch(*, changed: float = 0.2, known: float = 0.7, seed: int = 0):
    """(logit, target, weight) of shape B 1 H W."""
    generator = torch.Generator().manual_seed(seed)
    shape = (3, 1, 5, 6)
    logit = torch.randn(shape, generator=generator).requires_grad_()
    target = (torch.rand(shape, generator=generator) < changed).float()
    return logit, target, torch.rand(shape, generator=generator) < known


def logit_of(*probabilities: float) -> torch.Tensor:
    return torch.logit(torch.tensor(probabilities, dtype=torch.float32))


def test_dice_on_written_out_numbers():
    p, target = logit_of(0.8, 0.5, 0.1, 0.9), torch.tensor([1.0, 0.0, 0.0, 1.0])
    weight = torch.tensor([1, 1, 1, 0])  # the last is unknown
    want = 1 - (2 * 0.8 + 1) / (0.64 + 0.25 + 0.01 + 1 + 1)
    assert float(dice(p, target, weight)) == pytest.approx(want, abs=1e-6)


def test_dice_of_a_perfect_and_of_a_wrong_map():
    target = torch.tensor([1.0] * 50 + [0.0] * 50)
    assert float(dice(100 * (2 * target - 1), target, torch.ones(100))) == pytest.approx(0, abs=1e-6)
    assert float(dice(-100 * (2 * target - 1), target, torch.ones(100))) == pytest.approx(1 - 1 / 101, abs=1e-6)


def test_focal_on_written_out_numbers():
    p, target = logit_of(0.8, 0.3, 0.5), torch.tensor([1.0, 0.0, 1.0])
    want = (0.75 * 0.2**2 * -math.log(0.8) + 0.25 * 0.3**2 * -math.log(0.7)) / 2
    assert float(focal(p, target, torch.tensor([1.0, 1.0, 0.0]))) == pytest.approx(want, abs=1e-7)


def test_focal_keeps_its_precision_for_confident_logits():
    logit = torch.tensor([40.0, -40.0], requires_grad=True)
    value = focal(logit, torch.tensor([1.0, 1.0]), torch.ones(2))
    value.backward()
    assert value.item() == pytest.approx(0.75 * 40 / 2)
    assert torch.isfinite(logit.grad).all()


def test_weighted_cross_entropy_on_written_out_numbers():
    p, target = logit_of(0.8, 0.3), torch.tensor([1.0, 0.0])
    want = (10 * -math.log(0.8) + -math.log(0.7)) / 11
    assert float(weighted_cross_entropy(p, target, torch.ones(2))) == pytest.approx(want, abs=1e-6)


def test_lovasz_on_written_out_numbers():
    # hinge errors: 1 - 2 = -1, 1 - (-0.5) = 1.5, 1 + 0.5 = 1.5 -> order 1.5 (changed), 1.5 (not), then -1
    logit, target = torch.tensor([2.0, -0.5, 0.5]), torch.tensor([1.0, 1.0, 0.0])
    # Jaccard losses of {1}, {1, 2}: 1 - 1/2, 1 - 1/3
    want = 1.5 * 1 / 2 + 1.5 * (2 / 3 - 1 / 2)
    assert float(lovasz_hinge(logit, target, torch.ones(3))) == pytest.approx(want, abs=1e-6)


def jaccard_loss(wrong: set[int], changed: set[int]) -> float:
    """1 - IoU if the pixels `wrong` are misclassified (Berman et al. 2018, eq. 6)."""
    either = len(changed | wrong)
    return len(wrong) / either if either else 0.0


@pytest.mark.parametrize("seed", range(5))
def test_lovasz_equals_the_definition(seed):
    """Sum over thresholds: the increase of the set function along the sorted errors (Berman et al. 2018, def. 1)."""
    generator = torch.Generator().manual_seed(seed)
    logit = torch.randn(12, generator=generator)
    target = (torch.rand(12, generator=generator) < 0.4).float()
    changed = {i for i in range(12) if target[i]}
    errors = [max(0.0, 1 - float(logit[i]) * (1 if target[i] else -1)) for i in range(12)]
    order = sorted(range(12), key=lambda i: -errors[i])
    want = sum(
        errors[i] * (jaccard_loss({*order[: n + 1]}, changed) - jaccard_loss({*order[:n]}, changed)) for n, i in enumerate(order)
    )
    assert float(lovasz_hinge(logit, target, torch.ones(12))) == pytest.approx(want, abs=1e-6)


def test_lovasz_at_the_corners_is_the_jaccard_loss():
    """The extension equals the set function where every error is 0 or 1."""
    target = torch.tensor([1.0, 1.0, 1.0, 0.0, 0.0])
    wrong = torch.tensor([True, False, False, True, False])
    logit = torch.where(wrong, 0.0, 1.0) * (2 * target - 1)
    assert float(lovasz_hinge(logit, target, torch.ones(5))) == pytest.approx(jaccard_loss({0, 3}, {0, 1, 2}))


def test_jaccard_steps_sum_to_one():
    assert jaccard_steps(torch.tensor([True, False, True, False])).tolist() == pytest.approx([1 / 2, 1 / 6, 1 / 3, 0.0])
    assert jaccard_steps(torch.tensor([False, False])).tolist() == [1.0, 0.0]


def test_dice_focal_is_the_sum():
    logit, target, weight = batch()
    assert float(dice_focal(logit, target, weight).detach()) == pytest.approx(
        float(dice(logit, target, weight).detach()) + 20 * float(focal(logit, target, weight).detach())
    )


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_without_change_lowers_the_logits(kind):
    logit, _, weight = batch()
    value = change_loss(kind)(logit, torch.zeros_like(logit), weight)
    value.backward()
    assert value > 0
    assert torch.isfinite(logit.grad).all()
    assert (logit.grad >= 0).all()
    assert logit.grad.abs().sum() > 0


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_of_change_alone_raises_the_logits(kind):
    logit, _, weight = batch()
    value = change_loss(kind)(logit, torch.ones_like(logit), weight)
    value.backward()
    assert torch.isfinite(value)
    assert (logit.grad <= 1e-7).all()
    assert logit.grad.abs().sum() > 0


@pytest.mark.parametrize("kind", KINDS)
def test_unknown_labels_give_zero_and_a_zero_gradient(kind):
    logit, target, weight = batch()
    value = change_loss(kind)(logit, torch.full_like(target, float("nan")), torch.zeros_like(weight))
    value.backward()
    assert value == 0
    assert torch.equal(logit.grad, torch.zeros_like(logit))


@pytest.mark.parametrize("kind", KINDS)
def test_values_of_unknown_pixels_are_ignored(kind):
    logit, target, weight = batch()
    clean = change_loss(kind)(logit, target, weight)
    dirty_logit = torch.where(weight, logit.detach(), float("nan")).requires_grad_()
    dirty = change_loss(kind)(dirty_logit, torch.where(weight, target, float("nan")), weight)
    dirty.backward()
    assert torch.equal(clean, dirty)
    assert torch.isfinite(dirty_logit.grad).all()
    assert torch.equal(dirty_logit.grad[~weight], torch.zeros(int((~weight).sum())))


@pytest.mark.parametrize("kind", KINDS)
def test_weights_may_be_bool_or_float(kind):
    logit, target, weight = batch()
    assert torch.equal(change_loss(kind)(logit, target, weight), change_loss(kind)(logit, target, weight.float()))


@pytest.mark.parametrize("kind", KINDS)
def test_gradient_descent_finds_the_target(kind):
    _, target, weight = batch()
    logit = torch.zeros_like(target).requires_grad_()
    optimizer = torch.optim.Adam([logit], lr=0.1)
    for _ in range(100):
        optimizer.zero_grad()
        change_loss(kind)(logit, target, weight).backward()
        optimizer.step()
    assert torch.equal((logit > 0)[weight], (target > 0)[weight])
    assert torch.equal(logit[~weight], torch.zeros(int((~weight).sum())))


@pytest.mark.parametrize("kind", KINDS)
def test_losses_of_half_precision_logits_are_float32(kind):
    logit, target, weight = batch()
    value = change_loss(kind)(logit.to(torch.bfloat16), target, weight)
    assert value.dtype == torch.float32


def test_focal_with_no_focus_would_be_cross_entropy(monkeypatch):
    monkeypatch.setattr("models.losses.FOCUS", 0.0)
    monkeypatch.setattr("models.losses.CHANGED_SHARE", 0.5)
    logit, target, weight = batch()
    want = F.binary_cross_entropy_with_logits(logit[weight], target[weight]) / 2
    torch.testing.assert_close(focal(logit, target, weight), want)


def test_an_unknown_loss_is_reported():
    with pytest.raises(
        ValueError, match="expected 'dice', 'focal', 'lovasz', 'cross_entropy' or 'dice_focal', got the loss 'mse'"
    ):
        change_loss("mse")
