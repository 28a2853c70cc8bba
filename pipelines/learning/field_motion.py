"""Whether a field moves or a season returns, decided from training windows.

A field moves where carrying the last frame on along its motion is better than leaving it where it is, and better than what is
usual there; the three are compared on the same pixels of the same windows, before any network is trained.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any

import numpy as np

from pipelines.learning.conformal import forecast_window
from pipelines.predictors import Forecaster
from pipelines.samples.sampling import WindowArrays

GAIN = 0.1  # a field moves if its motion saves this share of the smaller of the other errors
MOST_WINDOWS = 24


@dataclass(frozen=True)
class FieldMotion:
    """Mean absolute errors on training windows: of the last frame, of that frame moved on, and of the usual value."""

    persistence: float
    moving: float
    usual: float
    windows: int

    @property
    def moves(self) -> bool:
        """True if moving the last frame on is clearly better than both others."""
        return self.windows > 0 and self.moving < (1 - GAIN) * min(self.persistence, self.usual)

    @property
    def sentence(self) -> str:
        """`The field moves: carried on along its motion the last frame has 0.62 of the error of ...`."""
        if self.windows == 0 or min(self.persistence, self.usual) <= 0:
            return "Whether the field moves is not known: no training window shows a change."
        best = "the last frame where it is" if self.persistence <= self.usual else "the usual value of the season"
        share = f"{self.moving / min(self.persistence, self.usual):.2f} of the error of {best}, the better of the others"
        found = "The field moves" if self.moves else "The field does not move, or not as a whole"
        return f"{found}: carried on along its motion the last frame has {share} ({self.windows} training windows)."

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "moves": self.moves, "sentence": self.sentence}


def measure_motion(methods: Mapping[str, Forecaster], windows: Iterable[WindowArrays], count: int) -> FieldMotion:
    """`methods` are persistence, moving and usual; of `count` windows about `MOST_WINDOWS` are compared, evenly spread."""
    absolute, pixels, done = dict.fromkeys(methods, 0.0), 0, 0
    for window in islice(windows, 0, None, max(count // MOST_WINDOWS, 1)):
        valid_KHW, target_CKHW = window.target_valid_KHW.numpy(), np.moveaxis(window.target_KCHW.numpy(), 1, 0)
        for name, forecaster in methods.items():
            y_CKHW = np.moveaxis(forecast_window(forecaster, window), 1, 0)
            absolute[name] += float(np.abs(y_CKHW[:, valid_KHW] - target_CKHW[:, valid_KHW]).sum(dtype=np.float64))
        pixels += int(valid_KHW.sum()) * len(target_CKHW)
        done += 1
    errors = {name: total / max(pixels, 1) for name, total in absolute.items()}
    return FieldMotion(**errors, windows=done if pixels else 0)
