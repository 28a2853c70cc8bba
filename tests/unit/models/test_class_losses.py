import pytest
import torch

from models.class_losses import class_loss

KINDS = ("cross_entropy", "focal", "dice")
TARGET = torch.tensor([[[[0, 1], [2, 0]]]])


def perfect(scale=20.0):
    return scale * torch.nn.functional.one_hot(TARGET[:, 0], 3).movedim(-1, 1).float()


@pytest.mark.parametrize("kind", KINDS)
def test_right_answers_cost_nothing_and_wrong_ones_more_than_undecided_ones(kind):
    loss, weight = class_loss(kind), torch.ones(1, 1, 2, 2)
    right, undecided, wrong = (loss(scale * perfect(1.0), TARGET, weight) for scale in (30.0, 0.0, -30.0))
    assert right < 1e-3 < undecided < wrong


@pytest.mark.parametrize("kind", KINDS)
def test_pixels_without_a_label_change_nothing_and_a_batch_without_any_has_no_gradient(kind):
    loss = class_loss(kind)
    weight, logit = torch.tensor([[[[1.0, 1.0], [0.0, 0.0]]]]), torch.randn(1, 3, 2, 2, requires_grad=True)
    other = torch.where(weight > 0, logit, 9.0)
    assert torch.equal(loss(logit, TARGET, weight), loss(other, TARGET, weight))
    nothing = loss(logit, TARGET, torch.zeros_like(weight))
    nothing.backward()
    assert torch.isfinite(nothing)
    assert logit.grad.abs().max() == 0


def test_cross_entropy_is_the_usual_one():
    logit = torch.randn(2, 3, 4, 5)
    target = torch.randint(3, (2, 1, 4, 5))
    expected = torch.nn.functional.cross_entropy(logit, target[:, 0])
    assert class_loss("cross_entropy")(logit, target, torch.ones(2, 1, 4, 5)).item() == pytest.approx(expected.item(), rel=1e-6)


def test_an_unknown_loss_is_refused():
    with pytest.raises(ValueError, match="expected one of cross_entropy, focal, dice, dice_focal, lovasz, got the loss 'hinge'"):
        class_loss("hinge")
