"""Probabilities of binary images, and images drawn pixel by pixel, by networks of `models.blocks.pixels`.

Shapes: B images, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from pipelines.compute import HERE, Compute, carry_out
from pipelines.progress import Progress, ignore_progress

BATCH = 256  # images at once


class PixelModel(Protocol):
    """See `models.pixel_model`."""

    def nats(self, x_BHW: torch.Tensor) -> torch.Tensor: ...
    def start(self, x_BHW: torch.Tensor) -> tuple[torch.Tensor, ...]: ...
    def logit_at(
        self, x_BHW: torch.Tensor, y: int, x: int, state: tuple[torch.Tensor, ...]
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]: ...


@dataclass(frozen=True)
class ScoreWork:
    """The probability of images as work for `compute`, `BATCH` of them a piece; model and images travel once to each worker."""

    model: PixelModel
    x_NHW: np.ndarray
    on_gpu: bool = False

    @property
    def key(self) -> str:
        return f"images {len(self.x_NHW)}"

    def open(self) -> Callable[[int], tuple[int, np.ndarray]]:
        return self.score

    def score(self, start: int) -> tuple[int, np.ndarray]:
        batch_BHW = self.x_NHW[start : start + BATCH].astype(np.float32)
        return start, self.model.nats(torch.from_numpy(batch_BHW)).numpy()

    def limit(self, threads: int) -> None:
        torch.set_num_threads(threads)


def score_images(
    model: PixelModel, x_NHW: np.ndarray, progress: Progress = ignore_progress, compute: Compute = HERE
) -> np.ndarray:
    """nats_N float64: minus the natural logarithm of the probability of each image (0 and 1)."""
    nats_N, done = np.zeros(len(x_NHW)), 0
    starts = range(0, len(x_NHW), BATCH)
    for start, nats_B in carry_out(ScoreWork(model, x_NHW), starts, compute) if starts else ():
        nats_N[start : start + BATCH] = nats_B
        done += len(nats_B)
        progress(done, len(x_NHW))
    return nats_N


def draw_images(
    model: PixelModel, known_BHW: np.ndarray, given_rows: int, seed: int, progress: Progress = ignore_progress
) -> tuple[np.ndarray, np.ndarray]:
    """(x_BHW uint8, nats_B float64 of the drawn pixels given those that are kept).

    The first `given_rows` rows are those of `known_BHW`, whose other rows are not read; 0 draws new images. All images are drawn
    side by side, so a seed gives the same ones for the same number of images.

    Ancestral: each pixel is drawn from p(x_i | those before), so the whole is an exact draw of what the model says.
    """
    images, height, width = known_BHW.shape
    if images == 0:
        return known_BHW.copy(), np.zeros(0)
    chance = torch.Generator().manual_seed(seed)
    x_BHW = torch.zeros(known_BHW.shape)
    x_BHW[:, :given_rows] = torch.from_numpy(known_BHW[:, :given_rows].astype(np.float32))
    nats_B, state = torch.zeros(images, dtype=torch.float64), model.start(x_BHW)
    for y in range(height):
        for x in range(width):
            logit_B, state = model.logit_at(x_BHW, y, x, state)
            if y < given_rows:
                continue
            drawn_B = (torch.rand(images, generator=chance) < torch.sigmoid(logit_B)).float()
            x_BHW[:, y, x] = drawn_B
            sign_B = 2 * drawn_B.double() - 1
            nats_B += torch.nn.functional.softplus(-sign_B * logit_B.double())
        progress(y + 1, height)
    return x_BHW.numpy().astype(np.uint8), nats_B.numpy()


def nearest_images(x_BHW: np.ndarray, among_NHW: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(number of the image of `among_NHW` that differs in the fewest pixels, how many those are), each (B,)."""
    x_BP = x_BHW.reshape(len(x_BHW), -1).astype(np.float32)
    best_B, least_B = np.zeros(len(x_BP), np.int64), np.full(len(x_BP), np.inf)
    for start in range(0, len(among_NHW), 8192):
        other_NP = among_NHW[start : start + 8192].reshape(-1, x_BP.shape[1]).astype(np.float32)
        differing_BN = x_BP.sum(axis=1)[:, None] + other_NP.sum(axis=1) - 2 * x_BP @ other_NP.T
        nearest_B = differing_BN.argmin(axis=1)
        least = differing_BN[np.arange(len(x_BP)), nearest_B]
        best_B = np.where(least < least_B, nearest_B + start, best_B)
        least_B = np.minimum(least, least_B)
    return best_B, least_B.astype(np.int64)
