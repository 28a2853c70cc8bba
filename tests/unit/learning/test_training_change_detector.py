"""The trainer of the forecaster trains a change detector as it is."""

import numpy as np
import pytest
import torch

from models.change_detector import ChangeDetector, build_network
from models.losses import change_loss
from pipelines.learning.training import TrainingSettings, train


class AppearingSquares:
    """Windows in which a square is there on the last date only; a window in three has no change and one has no label."""

    def __init__(self, count: int):
        generator = np.random.default_rng(0)
        still = generator.normal(size=(count, 1, 2, 16, 16)).repeat(2, axis=1)
        self.x = (still + 0.1 * generator.normal(size=still.shape)).astype(np.float32)
        self.target = np.zeros((count, 1, 16, 16), np.float32)
        for i in range(count):
            if i % 3:
                self.x[i, 1, :, 4:11, 5:12] += 3
                self.target[i, ..., 4:11, 5:12] = 1
        self.known = np.ones((count, 1, 16, 16), bool)
        self.known[0] = False

    shapes = property(lambda self: [(2, 16, 16)] * len(self.x))

    def __len__(self) -> int:
        return len(self.x)

    def set_epoch(self, epoch: int) -> None: ...

    def gather(self, indices: list[int]) -> dict[str, torch.Tensor]:
        count = len(indices)
        return {
            "x_TCHW": torch.from_numpy(self.x[indices]),
            "valid_THW": torch.ones(count, 2, 16, 16, dtype=torch.bool),
            "elapsed_T": torch.zeros(count, 2),
            "target": torch.from_numpy(self.target[indices]),
            "weight": torch.from_numpy(self.known[indices]),
        }


@pytest.mark.parametrize("loss", ["dice_focal", "lovasz"])
def test_every_member_learns(loss, tmp_path):
    networks = [build_network("siamese_dcrn", bands=2, widths=(6, 8), dropout=0.0, seed=seed) for seed in (0, 1)]
    detector, windows = ChangeDetector(networks), AppearingSquares(12)
    settings = TrainingSettings(epochs=10, batch=4, learning_rate=2e-2, accelerator="cpu")
    report = train(detector, windows, windows, change_loss(loss), settings, tmp_path)
    for member in report.members:
        assert member.best_validation_loss < 0.8 * (member.curve[0]["validation_loss"] or 0)
    assert not any(network.training for network in detector.members)
