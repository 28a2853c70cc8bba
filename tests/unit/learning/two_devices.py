"""Trains on two CPU "devices" for test_training; prints the last progress, its total, and whether the validation loss fell."""

import sys
from pathlib import Path

from tiny_forecaster import TinyForecaster, TinyWindows, mean_absolute_error

from pipelines.learning.training import TrainingSettings, train

if __name__ == "__main__":
    settings = TrainingSettings(epochs=3, batch=8, learning_rate=1e-2, accelerator="cpu", devices=2)
    seen = [(0, 0)]
    windows = TinyWindows(24), TinyWindows(8, seed=1)
    report = train(TinyForecaster(1), *windows, mean_absolute_error, settings, Path(sys.argv[1]), lambda *step: seen.append(step))
    curve = report.members[0].curve
    print(*seen[-1], curve[-1]["validation_loss"] < curve[0]["validation_loss"])
