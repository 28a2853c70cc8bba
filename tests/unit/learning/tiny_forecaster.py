"""A forecaster small enough to train in a blink: what training and evaluation know of a model, and nothing else."""

import numpy as np
import torch
from torch import nn

from pipelines.learning.batches import Batch


def mean_absolute_error(y_BKCHW: torch.Tensor, target_BKCHW: torch.Tensor, valid_BKHW: torch.Tensor) -> torch.Tensor:
    weight = valid_BKHW[:, :, None].to(y_BKCHW.dtype)
    return ((y_BKCHW - target_BKCHW).abs() * weight).sum() / (weight.sum() * y_BKCHW.shape[2]).clamp(min=1)


class TinyForecaster:
    """Maps a context of 3 frames to 2 by a convolution with dropout; `members` start from seeds of their own."""

    def __init__(self, members: int = 2, dropout: float = 0.2):
        self.members = nn.ModuleList()
        for i in range(members):
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(i)
                self.members.append(
                    nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Dropout(dropout), nn.Conv2d(4, 2, 3, padding=1))
                )

    def compute_member(self, i: int, batch: Batch) -> torch.Tensor:
        return self.members[i](batch["x_THW"])[:, :, None]


class TinyWindows:
    """`count` windows of 3 frames and 2 targets, 6x6 or (every third one) 5x4: the targets are sums of the frames."""

    def __init__(self, count: int, seed: int = 0):
        self._rng_seed, self._count = seed, count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        rng = np.random.default_rng([self._rng_seed, index])
        x_THW = torch.from_numpy(rng.normal(size=(3, *((5, 4) if index % 3 == 2 else (6, 6)))).astype(np.float32))
        target_KCHW = torch.stack([x_THW.sum(0), x_THW[0] - x_THW[2]])[:, None]
        return {
            "x_THW": x_THW,
            "target_KCHW": target_KCHW,
            "target_valid_KHW": torch.from_numpy(rng.random(target_KCHW[:, 0].shape) > 0.2),
        }
