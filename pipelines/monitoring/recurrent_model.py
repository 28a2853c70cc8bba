"""The harmonic curve, corrected by a recurrent network that has followed the pixel's residuals from date to date.

    expected = curve + spread x share x mean        spread' = spread x exp(share' x log sigma)

The network sees the standardised residual of a date clipped to `CLIP` spreads, and the mean of those around (`radius`): a break
thereby weighs no more than an odd spring. Its memory lies in the state, per pixel, and is held bit for bit where a pixel is not
seen. It begins empty at `monitoring.start`.

Everything covers what it is given: with a radius, the tile grown by the halo, whose ring is only read. Pixels
pass through the networks in rows of one fixed number, so that a pixel's result does not depend on the tile's size (what is left
is the last digit, where a matrix library adds the last rows in another way).

Each network left a year of the history out. Where a fit does not get that year either (a calibration monitors it as if it were
new), only the networks that have not seen it are asked.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch

from pipelines.monitoring.harmonic_model import HarmonicModel
from pipelines.monitoring.sequential_test import Arrays

CLIP = 1.5  # spreads
ROWS = 4096  # pixels that go through a network at once; matrix libraries choose their sums by the shape


class ResidualNetwork(Protocol):
    """What is asked of a network; rows are pixels."""

    @property
    def hidden(self) -> int: ...

    def step(self, inputs_PF: torch.Tensor, elapsed_days_P: torch.Tensor, h_PD: torch.Tensor) -> torch.Tensor:
        """The memory after a date on which all of these pixels were seen."""

    def predict(self, h_PD: torch.Tensor, elapsed_days_P: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(mean_P, log_sigma_P) of the standardised residual on the next date."""


@dataclass(frozen=True)
class RecurrentModel:
    """`left_out`: (first, last) day, half-open, of the year that each network was not trained on. `shares` (of mean and log
    sigma) say how much of the answer is believed; `digest` stands for the networks' weights in the detector's key."""

    harmonic: HarmonicModel
    networks: tuple[ResidualNetwork, ...]
    left_out: tuple[tuple[float, float], ...]
    shares: tuple[float, float]
    digest: str
    radius: int = 0

    @property
    def halo_px(self) -> int:
        """Pixels around that a pixel's memory depends on, for any number of dates: the memory itself does not spread."""
        return self.radius

    @property
    def key(self) -> dict[str, Any]:
        """What the detector's key is made from."""
        return {"harmonic": [self.harmonic.harmonics, self.harmonic.trend], "networks": self.digest, "radius": self.radius}

    def fit(self, x_NYX: np.ndarray, valid_NYX: np.ndarray, days_N: np.ndarray) -> Arrays:
        """The curve's arrays (see HarmonicModel) and `asked` (Y, X) int32: the networks that are asked, as bits. Those are the
        networks that have seen no year which this history lacks."""
        missing = {years for years in self.left_out if not ((days_N >= years[0]) & (days_N < years[1])).any()}
        asked = sum(1 << i for i, years in enumerate(self.left_out) if missing <= {years})
        return self.harmonic.fit(x_NYX, valid_NYX, days_N) | {"asked": np.full(x_NYX.shape[1:], asked, np.int32)}

    def begin(self, fitted: Arrays) -> Arrays:
        """`memory` (networks x hidden, Y, X) float32, zeros, and `last_day` (Y, X) float64, NaN: nothing was seen yet."""
        shape_yx = fitted["count"].shape
        hidden = sum(network.hidden for network in self.networks)
        return {"memory": np.zeros((hidden, *shape_yx), np.float32), "last_day": np.full(shape_yx, np.nan)}

    def predict(self, fitted: Arrays, state: Arrays, day: float) -> tuple[np.ndarray, np.ndarray]:
        """(expected_YX, spread_YX) float32."""
        expected_YX, spread_YX = self.harmonic.predict(fitted, {}, day)
        mean_YX, log_sigma_YX = self.answer(fitted, state, day)
        return expected_YX + spread_YX * mean_YX, spread_YX * np.exp(log_sigma_YX)

    def answer(self, fitted: Arrays, state: Arrays, day: float) -> np.ndarray:
        """(2, Y, X) float32: mean and log sigma of the networks that are asked, times the shares; zeros where none is."""
        asked, elapsed_P = _asked(fitted), _elapsed(state["last_day"], day)
        total_2P = np.zeros((2, elapsed_P.size), np.float32)
        if asked and self.shares != (0.0, 0.0):
            for i in asked:
                predict, memory_PD = self.networks[i].predict, self._memory(state["memory"], i)
                total_2P += by_rows(lambda h, elapsed, f=predict: torch.stack(f(h, elapsed), dim=1), [memory_PD, elapsed_P]).T
            total_2P *= np.array(self.shares, np.float32)[:, None] / np.float32(len(asked))
        return total_2P.reshape(2, *fitted["count"].shape)

    def advance(self, fitted: Arrays, state: Arrays, x_YX: np.ndarray, valid_YX: np.ndarray, day: float) -> Arrays:
        """The memory after this date; where a pixel was not seen, or has no curve, it is held."""
        seen_YX = valid_YX & (fitted["count"] > 0)
        memory, rows_P = state["memory"].copy(), seen_YX.ravel()
        if rows_P.any():
            inputs_PF = self.inputs(fitted, x_YX, seen_YX, day).reshape(-1, rows_P.size).T[rows_P]
            elapsed_P = _elapsed(state["last_day"], day)[rows_P]
            for i in _asked(fitted):
                before_PD = self._memory(state["memory"], i)[rows_P]
                self._memory(memory, i)[rows_P] = by_rows(self.networks[i].step, [inputs_PF, elapsed_P, before_PD])
        return {"memory": memory, "last_day": np.where(seen_YX, day, state["last_day"])}

    def inputs(self, fitted: Arrays, x_YX: np.ndarray, seen_YX: np.ndarray, day: float) -> np.ndarray:
        """(F, Y, X) float32 of a date: the clipped residual in spreads, and with a radius its mean around and the share seen."""
        expected_YX, spread_YX = self.harmonic.predict(fitted, {}, day)
        return network_inputs(standardise(x_YX, seen_YX, expected_YX, spread_YX), seen_YX, self.radius)

    def _memory(self, memory: np.ndarray, i: int) -> np.ndarray:
        """The memory of network `i` as rows (P, D), a view."""
        start = sum(network.hidden for network in self.networks[:i])
        planes_DYX = memory[start : start + self.networks[i].hidden]
        return planes_DYX.reshape(len(planes_DYX), -1).T


def standardise(x_YX: np.ndarray, seen_YX: np.ndarray, expected_YX: np.ndarray, spread_YX: np.ndarray) -> np.ndarray:
    """(x - expected) / spread, float32; 0 where not seen."""
    z_YX = (x_YX.astype(np.float32, copy=False) - expected_YX) / np.maximum(spread_YX, np.float32(1e-6))
    return np.where(seen_YX, z_YX, np.float32(0))


def network_inputs(z_YX: np.ndarray, seen_YX: np.ndarray, radius: int) -> np.ndarray:
    """(F, Y, X) float32: own clipped residual and, with a radius, the mean around and the share of the window that was seen."""
    own_YX = np.where(seen_YX, np.clip(z_YX, -CLIP, CLIP), 0).astype(np.float32)
    if radius == 0:
        return own_YX[None]
    total_YX, count_YX = window_sum(own_YX, radius), window_sum(seen_YX.astype(np.float32), radius)
    share_YX = count_YX / np.float32((2 * radius + 1) ** 2)
    return np.stack([own_YX, total_YX / np.maximum(count_YX, np.float32(1)), share_YX])


def window_sum(value_YX: np.ndarray, radius: int) -> np.ndarray:
    """Sum over the square window around each pixel, 0 outside. One order of adding everywhere, so that tiles equal the whole."""
    for axis in (0, 1):
        pad = [(radius, radius) if a == axis else (0, 0) for a in (0, 1)]
        padded = np.pad(value_YX, pad)
        length = value_YX.shape[axis]
        parts = [padded.take(range(shift, shift + length), axis) for shift in range(2 * radius + 1)]
        total = parts[0].copy()
        for part in parts[1:]:
            total += part
        value_YX = total
    return value_YX


def by_rows(function: Callable[..., torch.Tensor], rows: Sequence[np.ndarray]) -> np.ndarray:
    """function(*rows) computed `ROWS` rows at a time, the last ones filled up with zeros; float32 (P, R)."""
    number, answers = len(rows[0]), []
    with torch.inference_mode():
        for start in range(0, number, ROWS):
            count = min(ROWS, number - start)
            parts = [np.zeros((ROWS, *row.shape[1:]), np.float32) for row in rows]
            for part, row in zip(parts, rows, strict=True):
                part[:count] = row[start : start + count]
            answers.append(function(*map(torch.from_numpy, parts))[:count].numpy())
    return np.concatenate(answers)


def _elapsed(last_day_YX: np.ndarray, day: float) -> np.ndarray:
    """(P,) float32 days since each pixel was seen, never negative, 0 where it never was."""
    return np.maximum(np.nan_to_num(day - last_day_YX, nan=0.0), 0).astype(np.float32).ravel()


def _asked(fitted: Arrays) -> list[int]:
    """The networks that are asked: the bits that are set; one pixel says it for all."""
    bits = int(fitted["asked"].flat[0]) if fitted["asked"].size else 0
    return [i for i in range(bits.bit_length()) if bits >> i & 1]
