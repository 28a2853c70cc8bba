import pytest
import torch

from models.losses import centred_target, masked_huber, masked_mae, masked_mse

LOSSES = [masked_mae, masked_mse, masked_huber]


def test_losses_on_written_out_numbers():
    y, target = torch.tensor([1.0, 5.0, 2.0]), torch.tensor([2.0, 100.0, -1.0])
    weight = torch.tensor([1.0, 0.0, 1.0])
    assert masked_mae(y, target, weight) == 2.0
    assert masked_mse(y, target, weight) == 5.0
    assert masked_huber(y, target, weight) == (0.5 + 2.5) / 2


def test_losses_are_weighted():
    y, target = torch.tensor([1.0, 1.0]), torch.tensor([0.0, 3.0])
    assert masked_mae(y, target, torch.tensor([3.0, 1.0])) == (3 * 1 + 1 * 2) / 4


@pytest.mark.parametrize("loss", LOSSES)
def test_no_valid_pixel_gives_zero_and_a_zero_gradient(loss):
    y = torch.randn(2, 3, 1, 4, 4, requires_grad=True)
    value = loss(y, torch.full_like(y, float("nan")), torch.zeros(2, 3, 1, 4, 4))
    value.backward()
    assert value == 0
    assert torch.equal(y.grad, torch.zeros_like(y))


@pytest.mark.parametrize("loss", LOSSES)
def test_values_of_invalid_targets_are_ignored(loss):
    y = torch.randn(1, 2, 2, 4, 4, requires_grad=True)
    target, weight = torch.randn(1, 2, 2, 4, 4), (torch.rand(1, 2, 1, 4, 4) > 0.5)
    clean = loss(y, target, weight)
    dirty = loss(y, torch.where(weight, target, float("nan")), weight)
    assert clean == dirty
    dirty.backward()
    assert torch.isfinite(y.grad).all()


@pytest.mark.parametrize("rest", [(), (5,), (3, 4), (2, 3, 4)], ids=["labels", "tokens", "frames", "volumes"])
@pytest.mark.parametrize("loss", LOSSES)
def test_losses_take_any_trailing_axes(loss, rest):
    """The same numbers in another shape are the same loss."""
    y, target = torch.randn(2, 3, 2, *rest), torch.randn(2, 3, 2, *rest)
    weight = torch.rand(2, 3, 1, *rest)
    flat = loss(y.flatten(), target.flatten(), weight.expand_as(y).flatten())
    torch.testing.assert_close(loss(y, target, weight), flat)


@pytest.mark.parametrize("rest", [(6,), (2, 3), (1, 2, 3)])
def test_a_target_of_any_axes_is_centred(rest):
    target = torch.arange(6.0).reshape(1, 1, 1, *rest)
    batch = {"target_KCHW": target, "baseline_KCHW": torch.zeros_like(target)}
    centred = centred_target(batch | {"target_valid_KHW": torch.ones(1, 1, *rest, dtype=torch.bool)})
    assert centred.flatten().tolist() == [-2, -1, 0, 1, 2, 3]
    assert centred.shape == target.shape


def test_a_centred_target_has_no_shared_deviation():
    baseline = torch.zeros(1, 2, 1, 2, 2)
    target = torch.tensor([[[[1.0, 2.0], [3.0, 99.0]]], [[[5.0, 5.0], [5.0, 5.0]]]])[None]
    valid = torch.tensor([[[True, True], [True, False]], [[False, False], [False, False]]])[None]
    centred = centred_target({"target_KCHW": target, "target_valid_KHW": valid, "baseline_KCHW": baseline})
    assert centred[0, 0, 0].tolist() == [[-1.0, 0.0], [1.0, 97.0]]  # the median of 1, 2, 3 is subtracted
    assert torch.equal(centred[0, 1], target[0, 1])  # no valid pixel: nothing to subtract
