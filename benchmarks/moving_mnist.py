"""Moving MNIST: sequences of two digits, in memory as windows of a forecaster, and the scores that are published for it.

Srivastava et al. 2015, arXiv:1502.04681, section 3.1, with the rules that are usual since: two digits of 28 x 28 in a square of
64 x 64 start anywhere, move 3.6 pixels a frame in any direction, and are reflected at the border; where they overlap the lighter
one shows. 20 frames, of which 10 are read and 10 forecast. Values from 0 to 1.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

    from models.residual_forecaster import ResidualForecaster

SIDE, DIGIT, DIGITS = 64, 28, 2
CONTEXT, HORIZON = 10, 10
SPEED = 0.1  # of the room that a digit has, per frame
HEADER = 16  # bytes of an IDX file of images
AT_ONCE = 50  # sequences, when forecasting
PARTS = {"train": "train-images-idx3-ubyte.gz", "test": "t10k-images-idx3-ubyte.gz"}


def digits_of(folder: Path, part: str) -> np.ndarray:
    """(N, 28, 28) uint8."""
    content = gzip.decompress((folder / PARTS[part]).read_bytes())
    return np.frombuffer(content, np.uint8, offset=HEADER).reshape(-1, DIGIT, DIGIT)


def draw_sequences(digits_NYX: np.ndarray, count: int, seed: int, *, stops: bool = False) -> np.ndarray:
    """(count, 20, 64, 64) uint8, drawn from `seed`. stops: a digit that would cross the border stops at it, and turns.

    >>> draw_sequences(np.ones((3, 28, 28), np.uint8), 2, seed=0).shape
    (2, 20, 64, 64)
    """
    rng = np.random.default_rng(seed)
    steps, room = CONTEXT + HORIZON, SIDE - DIGIT
    frames = np.zeros((count, steps, SIDE, SIDE), np.uint8)
    chosen = rng.integers(len(digits_NYX), size=(count, DIGITS))
    start, angle = rng.random((count, DIGITS, 2)), rng.uniform(0, 2 * np.pi, (count, DIGITS))
    step = SPEED * np.stack([np.sin(angle), np.cos(angle)], axis=-1)
    reached = stopping(start, step, steps) if stops else (start + t * step for t in range(steps))
    for t, path in enumerate(reached):
        corner = (room * (1 - np.abs(1 - np.mod(path, 2)))).astype(int)  # reflected at 0 and 1
        for n in range(count):
            for digit, (row, column) in zip(chosen[n], corner[n], strict=True):
                part = frames[n, t, row : row + DIGIT, column : column + DIGIT]
                np.maximum(part, digits_NYX[digit], out=part)
    return frames


def stopping(start: np.ndarray, step: np.ndarray, steps: int) -> Iterator[np.ndarray]:
    """Places from 0 to 1 after each step, as OpenSTL draws them: at a border for a frame, then back."""
    for _ in range(steps):
        start = np.clip(start + step, 0, 1)
        step = np.where((start == 0) | (start == 1), -step, step)
        yield start


class SequenceSet:
    """Sequences as a window set of `pipelines.learning.training`: drawn once, or with `anew` again for every epoch.

    draw: how, from (digits, number of sequences, seed).
    """

    def __init__(
        self, forecaster: ResidualForecaster, digits_NYX: np.ndarray, count: int, seed: int, *, anew: bool = False,
        draw: Callable[[np.ndarray, int, int], np.ndarray] = draw_sequences,
    ):  # fmt: skip
        import torch

        self.forecaster, self.digits_NYX, self.count, self.anew, self.draw = forecaster, digits_NYX, count, anew, draw
        self.frames_NTYX = draw(digits_NYX, count, seed)
        steps = CONTEXT + HORIZON
        days_N, first = torch.arange(steps).double(), as_images(self.frames_NTYX[0])
        known, unknown = torch.arange(CONTEXT), torch.ones(steps, dtype=torch.bool)
        self.alike = forecaster.prepare(first, torch.ones(steps, SIDE, SIDE) > 0, days_N, known, unknown, days_N[CONTEXT:])

    @property
    def shapes(self) -> list[tuple[int, int]]:
        return [(SIDE, SIDE)] * self.count

    def __len__(self) -> int:
        return self.count

    def set_epoch(self, epoch: int) -> None:
        if self.anew:
            self.frames_NTYX = self.draw(self.digits_NYX, self.count, epoch)

    def gather(self, indices: Sequence[int]) -> dict[str, Tensor]:
        """As `ResidualForecaster.prepare` with the baseline `none`, whose inputs differ in the frames only; and the targets."""
        import torch

        frames_BNCYX = as_images(self.frames_NTYX[list(indices)])
        batch = {name: one[None].expand(len(indices), *one.shape) for name, one in self.alike.items()}
        batch["x_TCHW"] = self.forecaster.normalise(frames_BNCYX[:, :CONTEXT])
        batch["target_KCHW"] = frames_BNCYX[:, CONTEXT:]
        batch["target_valid_KHW"] = torch.ones(len(indices), HORIZON, SIDE, SIDE)
        return batch


def as_images(frames_NTYX: np.ndarray) -> Tensor:
    """(..., T, 1, y, x) from 0 to 1."""
    import torch

    return torch.from_numpy(frames_NTYX)[..., None, :, :].float() / 255


def forecast_all(forecaster: ResidualForecaster, windows: SequenceSet) -> np.ndarray:
    """(N, 10, 64, 64) float32, computed on the GPU if there is one."""
    import torch

    device, parts = "cuda" if torch.cuda.is_available() else "cpu", []
    forecaster.to(device)
    with torch.no_grad():
        for first in range(0, len(windows), AT_ONCE):
            batch = windows.gather(range(first, min(first + AT_ONCE, len(windows))))
            parts.append(forecaster.compute({name: one.to(device) for name, one in batch.items()}).cpu())
    forecast: np.ndarray = torch.cat(parts)[:, :, 0].numpy()
    return forecast


def scores_of(forecast_NKYX: np.ndarray, frames_NTYX: np.ndarray, data_range: float = 1.0) -> dict[str, float]:
    """MSE and MAE: sums over the pixels of a frame, means over frames; SSIM: mean over frames of scikit-image's.

    The first two of the forecast as it is, SSIM of the forecast cut to 0 to 1, as in OpenSTL (arXiv:2306.11249), whose SSIM has a
    data range of 2: the default for float32 of scikit-image up to 0.19.3, which it asks for.
    """
    from skimage.metrics import structural_similarity

    truth_NKYX = frames_NTYX[:, CONTEXT:].astype(np.float32) / 255
    error, shown = forecast_NKYX - truth_NKYX, forecast_NKYX.clip(0, 1)
    pairs = zip(shown.reshape(-1, SIDE, SIDE), truth_NKYX.reshape(-1, SIDE, SIDE), strict=True)
    return {
        "mse": float(np.square(error).sum(axis=(-2, -1)).mean()),
        "mae": float(np.abs(error).sum(axis=(-2, -1)).mean()),
        "ssim": float(np.mean([structural_similarity(one, true, data_range=data_range) for one, true in pairs])),
    }
