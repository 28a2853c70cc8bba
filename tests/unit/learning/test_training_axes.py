"""The trainer and the metrics take targets of any axes after the batch: labels, tokens, frames, volumes."""

import numpy as np
import pytest
import torch
from torch import nn

from pipelines.learning.conformal import Intervals
from pipelines.learning.evaluation import ErrorTally, scores
from pipelines.learning.training import TrainingSettings, train

SHAPES = {"label": (), "labels": (3,), "tokens": (7, 4), "frames": (2, 1, 6, 5), "volumes": (2, 1, 3, 6, 5)}


class Doubled:
    """Windows whose target is twice the input; a fifth of the values has no weight and a target that is no number."""

    def __init__(self, count: int, rest: tuple[int, ...]):
        rng = np.random.default_rng(0)
        self.inputs = torch.from_numpy(rng.normal(size=(count, *rest)).astype(np.float32))
        self.weight = torch.from_numpy(rng.random((count, *rest)) > 0.2)
        self.target = torch.where(self.weight, 2 * self.inputs, torch.nan)

    @property
    def shapes(self) -> list[int]:
        return [0] * len(self.inputs)

    def __len__(self) -> int:
        return len(self.inputs)

    def set_epoch(self, epoch: int) -> None: ...

    def gather(self, indices: list[int]) -> dict[str, torch.Tensor]:
        return {name: getattr(self, name)[indices] for name in ("inputs", "target", "weight")}


class Scale(nn.Module):
    """One number, for inputs of any shape."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.ones(1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.factor[0, 0]


class Alone:
    def __init__(self) -> None:
        self.members = [Scale()]

    def compute_member(self, i: int, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return self.members[i](batch["inputs"])


def absolute(y: torch.Tensor, target: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    error = (y - torch.where(weight, target, 0)).abs() * weight
    return error.sum() / weight.sum().clamp(min=1)


@pytest.mark.parametrize("name", SHAPES)
def test_targets_of_any_axes_are_learnt(name, tmp_path):
    model, windows = Alone(), Doubled(16, SHAPES[name])
    settings = TrainingSettings(epochs=8, batch=4, learning_rate=0.2, weight_decay=0.0, accelerator="cpu")
    report = train(model, windows, windows, absolute, settings, tmp_path).members[0]
    untrained = report.curve[0]["validation_loss"]
    assert untrained == pytest.approx(float(windows.inputs[windows.weight].abs().mean()), rel=1e-5)  # per value, not per batch
    assert report.best_validation_loss < 0.3 * untrained


@pytest.mark.parametrize("rest", [(), (7,), (8, 9), (4, 8, 9)], ids=["labels", "tokens", "frames", "volumes"])
def test_errors_of_any_axes_are_summed(rest):
    rng = np.random.default_rng(1)
    y_KC, target_KC = rng.normal(size=(2, 3, *rest)), rng.normal(size=(2, 3, *rest))
    valid_K = rng.random((2, *rest)) > 0.2 if rest else np.array([True, False])
    tally = ErrorTally()
    tally.add(y_KC, target_KC, valid_K, np.array([0.0, 1.0]), np.full(3, 5.0))
    error = np.abs(y_KC - target_KC)[np.broadcast_to(valid_K[:, None], y_KC.shape)]
    found = scores(tally.table().sums_DKCS.sum(axis=(0, 1, 2)))
    assert found["mae"] == pytest.approx(error.mean())
    assert found["pixels"] == error.size
    assert (found["ssim"] is not None) == (len(rest) in (2, 3))


@pytest.mark.parametrize("rest", [(), (7,), (3, 2), (2, 3, 2)], ids=["labels", "tokens", "frames", "volumes"])
def test_intervals_lie_around_forecasts_of_any_axes(rest):
    intervals = Intervals(0.9, ((1.0, 2.0), (3.0, 4.0)), ((1.0, 2.0), (3.0, 4.0)), 9)
    lower, upper = intervals.bounds(np.zeros((2, 2, *rest)))
    assert lower.shape == upper.shape == (2, 2, *rest)
    assert upper.reshape(2, 2, -1)[..., 0].tolist() == [[1, 2], [3, 4]]
    assert np.array_equal(lower, -upper)
