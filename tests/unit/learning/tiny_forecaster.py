"""A forecaster small enough to train in a blink: what training and evaluation know of a model, and nothing else."""

import numpy as np
import torch
from torch import nn

from pipelines.learning.epoch_batches import Batch
from pipelines.samples.sampling import WindowArrays
from pipelines.tiles import Box


def mean_absolute_error(y_BKCHW: torch.Tensor, target_BKCHW: torch.Tensor, valid_BK1HW: torch.Tensor) -> torch.Tensor:
    weight = valid_BK1HW.to(y_BKCHW.dtype).expand_as(y_BKCHW)
    return ((y_BKCHW - target_BKCHW).abs() * weight).sum() / weight.sum().clamp(min=1)


class TinyForecaster:
    """Maps a context of 3 frames to 2 by a convolution with dropout; `members` start from seeds of their own."""

    def __init__(self, members: int = 2, dropout: float = 0.2):
        self.members = nn.ModuleList()
        for i in range(members):
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(i)
                layers = nn.Conv2d(3, 4, 3, padding=1), nn.Dropout(dropout), nn.Conv2d(4, 2, 3, padding=1)
                self.members.append(nn.Sequential(*layers))

    def compute_member(self, i: int, batch: Batch) -> torch.Tensor:
        return self.members[i](batch["x_THW"])[:, :, None]


class TinyWindows:
    """`count` windows of 3 frames and 2 targets, 6x6 or (every third one) 5x4: the targets are sums of the frames."""

    def __init__(self, count: int, seed: int = 0):
        self._seed, self._count, self.epochs = seed, count, list[int]()

    @property
    def shapes(self) -> list[tuple[int, int]]:
        return [(5, 4) if i % 3 == 2 else (6, 6) for i in range(self._count)]

    def __len__(self) -> int:
        return self._count

    def set_epoch(self, epoch: int) -> None:
        self.epochs.append(epoch)

    def gather(self, indices: list[int]) -> Batch:
        windows = [self.window(i) for i in indices]
        return {name: torch.stack([window[name] for window in windows]) for name in windows[0]}

    def window(self, index: int) -> Batch:
        rng = np.random.default_rng([self._seed, index])
        x_THW = torch.from_numpy(rng.normal(size=(3, *self.shapes[index])).astype(np.float32))
        target_KCHW = torch.stack([x_THW.sum(0), x_THW[0] - x_THW[2]])[:, None]
        valid_KHW = torch.from_numpy(rng.random(target_KCHW[:, 0].shape) > 0.2)
        return {"x_THW": x_THW, "target": target_KCHW, "weight": valid_KHW[:, None]}


class Constant:
    """Forecasts the same value everywhere."""

    def __init__(self, value: float):
        self.value = value

    def forecast(self, x_NCHW, valid_NHW, days_N, context_T, usable_N, target_days_K) -> torch.Tensor:  # type: ignore[no-untyped-def]
        return torch.full((len(target_days_K), *x_NCHW.shape[1:]), self.value)


def truth_window(
    target_KCHW: np.ndarray, days_K: list[float], valid_KHW: np.ndarray | None = None, tile: int = 0
) -> WindowArrays:
    """A window whose context is one frame of zeros and ones, with these targets."""
    target = torch.as_tensor(np.asarray(target_KCHW, np.float32))
    K, C, H, W = target.shape
    x_NCHW = torch.zeros(2, C, H, W)
    x_NCHW[1] = 1
    valid = torch.ones(K, H, W, dtype=torch.bool) if valid_KHW is None else torch.as_tensor(valid_KHW)
    return WindowArrays(
        x_NCHW=x_NCHW,
        valid_NHW=torch.ones(2, H, W, dtype=torch.bool),
        days_N=torch.tensor([0.0, 1.0], dtype=torch.float64),
        context_T=torch.tensor([0, 1]),
        usable_N=torch.tensor([True, True]),
        target_days_K=torch.tensor(days_K, dtype=torch.float64),
        target_KCHW=target * valid[:, None],
        target_valid_KHW=valid,
        tile=Box((tile, 0), (tile + H, W)),
        part="test",
    )
