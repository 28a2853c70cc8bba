"""Trains on two CPU "devices" for test_training; prints the last progress, its total, whether the validation loss fell, how
many windows the score of the last epoch is of, and whether the curve is that of one device."""

import sys
from dataclasses import replace
from pathlib import Path

import torch
from tiny_forecaster import TinyForecaster, TinyWindows, mean_absolute_error

from pipelines.learning.training import Score, TrainingSettings, train

LOSSES = ("training_loss", "validation_loss")


def forecaster() -> TinyForecaster:
    return TinyForecaster(1, dropout=0.0)


def loss_of_classes(y: torch.Tensor, target: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """No sum over samples: the means over rising and falling targets, one after the other."""
    return mean_absolute_error(y, target, weight * (target > 0)) + mean_absolute_error(y, target, weight * (target <= 0))


def count_batch(y: torch.Tensor, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    return torch.tensor(len(y))


def count_all(parts: list[torch.Tensor]) -> float:
    return float(sum(parts))


if __name__ == "__main__":
    settings = TrainingSettings(epochs=3, batch=7, learning_rate=1e-2, accelerator="cpu", devices=2)
    seen = [(0, 0)]
    windows = TinyWindows(24), TinyWindows(8, seed=1)
    score, folder = Score("windows", count_batch, count_all), Path(sys.argv[1])
    report = train(forecaster(), *windows, loss_of_classes, settings, folder, lambda *step: seen.append(step), score=score)
    curve = report.members[0].curve
    alone = train(forecaster(), *windows, loss_of_classes, replace(settings, devices=1), folder / "alone").members[0].curve
    pairs = [(a[name], b[name]) for a, b in zip(curve, alone, strict=True) for name in LOSSES if a[name] is not None]
    is_same = all(abs(one - other) < 1e-6 for one, other in pairs)
    print(*seen[-1], curve[-1]["validation_loss"] < curve[0]["validation_loss"], curve[-1]["windows"], is_same)
