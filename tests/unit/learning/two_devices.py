"""Trains on two CPU "devices" for test_training; prints the last progress, its total, whether the validation loss fell, and how
many windows the score of the last epoch is of."""

import sys
from pathlib import Path

import torch
from tiny_forecaster import TinyForecaster, TinyWindows, mean_absolute_error

from pipelines.learning.training import Score, TrainingSettings, train


def count_batch(y: torch.Tensor, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    return torch.tensor(len(y))


def count_all(parts: list[torch.Tensor]) -> float:
    return float(sum(parts))


if __name__ == "__main__":
    settings = TrainingSettings(epochs=3, batch=8, learning_rate=1e-2, accelerator="cpu", devices=2)
    seen = [(0, 0)]
    windows = TinyWindows(24), TinyWindows(8, seed=1)
    score, folder = Score("windows", count_batch, count_all), Path(sys.argv[1])
    report = train(
        TinyForecaster(1), *windows, mean_absolute_error, settings, folder, lambda *step: seen.append(step), score=score
    )
    curve = report.members[0].curve
    print(*seen[-1], curve[-1]["validation_loss"] < curve[0]["validation_loss"], curve[-1]["windows"])
