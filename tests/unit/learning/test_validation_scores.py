"""Scores of the part that validates: the figure over all batches, whatever their sizes, of what is known alone."""

import numpy as np
import pytest
import torch

from pipelines.learning.member import Score
from pipelines.learning.validation_scores import absolute_error, accuracy, box_precision

VALID_BT = torch.tensor([[True, True], [True, False]])


def over(score: Score, *batches: tuple[torch.Tensor, torch.Tensor]) -> float | None:
    parts = [score.of_batch(y, {"target": target, "valid_T": VALID_BT[: len(y)]}) for y, target in batches]
    return score.of_all(parts)


def test_accuracy_counts_known_samples_or_steps_alike() -> None:
    y_BK, one_hot = torch.tensor([[2.0, 1.0], [0.0, 1.0]]), torch.eye(2)
    assert over(accuracy(), (y_BK, one_hot), (y_BK[:1], one_hot[1:])) == pytest.approx(2 / 3)
    y_BTK = torch.tensor([[[0.0, 3.0], [1.0, 0.0]], [[1.0, 0.0], [0.0, 9.0]]])  # the last step is not valid
    assert over(accuracy(), (y_BTK, one_hot.flip(0))) == 1.0  # the sample's answer is the mean of its valid steps
    steps_BTK = torch.tensor([[[0.0, 1.0], [0.0, 0.0]], [[0.0, 1.0], [0.0, 0.0]]])  # a step without a class is not known
    assert over(accuracy(), (y_BTK, steps_BTK)) == 0.5
    assert over(accuracy(), (y_BTK, torch.zeros(2, 2, 2))) is None


def test_the_error_is_in_the_unit_of_the_number() -> None:
    y_BK, target_BK = torch.tensor([[1.0], [3.0]]), torch.tensor([[2.0], [1.0]])
    assert over(absolute_error(torch.tensor([10.0])), (y_BK, target_BK)) == pytest.approx(15.0)


def test_the_precision_of_boxes_is_that_over_all_samples() -> None:
    known = torch.tensor([[[0, 0, 0, 4, 4, 0], [0, 0, 0, 0, 0, -1]], [[0, 0, 0, 4, 4, 1], [1, 0, 0, 4, 4, 1]]]).float()

    def decode(y: torch.Tensor) -> torch.Tensor:
        """A right box in each sample, one of another class, and one in a frame that is not valid."""
        right = [[n, 0, 0, 0, 4, 4, n, 0.9] for n in range(len(y))]
        return torch.tensor([*right, [0, 1, 0, 0, 4, 4, 0, 0.95], *([[1, 1, 0, 0, 4, 4, 1, 0.8]] if len(y) > 1 else [])])

    score = box_precision(decode, 2)
    y = torch.zeros(2, 2, 6, 1, 1)
    assert over(score, (y, known)) == pytest.approx(np.mean([0.5, 0.5]))
    assert over(score, (y[:1], known[:1]), (y, known)) == pytest.approx(np.mean([0.5, 0.5]))
    assert over(score, (y, torch.full((2, 1, 6), -1.0))) is None
