"""Sequential tests on standardised residuals: after each date, is this still what was expected?

Every test keeps a statistic per direction and pixel that grows with evidence of change; an alarm is raised where it exceeds a
threshold. A pixel that was not seen on a date keeps its numbers bit for bit. One date costs the same whatever lies before it.

| test | statistic | source |
|---|---|---|
| `Cusum` | s = max(0, s + z - drift) | Page 1954, https://doi.org/10.1093/biomet/41.1-2.100 |
| `Mosum` | sum of the last `window` z / sqrt(window) | Chu, Hornik and Kuan 1995, https://doi.org/10.1093/biomet/82.3.603 |
| `Ewma` | s = (1 - weight) s + weight z, over its own deviation | Roberts 1959, https://doi.org/10.1080/00401706.1959.10489860 |
| `Run` | smallest of the last `length` z | the rule of thumb "three low values in a row"; `length` 1 is image differencing |

z is the residual over its spread, signed so that it points in the direction tested, and counts at most `cap` (one bad date is no
alarm). Shapes: D directions, then (Y, X).
"""

import math
from dataclasses import dataclass

import numpy as np

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class SequentialTest:
    """What all tests share: the evidence that their statistic makes. A test says what its statistic becomes. Fields are
    settings: they make the key of a detector."""

    @property
    def kept_dates(self) -> int:
        """How many of the last z the state keeps."""
        return 0

    def begin(self, directions: int, shape_yx: tuple[int, int]) -> Arrays:
        """The state before the first date, arrays (..., Y, X): `statistic`, and of the run of dates that it rests on `onset_day`
        (NaN: none), `run_sum` of residuals and `run_length`; `window` of the last z where the test needs them."""
        shape = (directions, *shape_yx)
        evidence = {
            "statistic": np.zeros(shape, np.float32),
            "onset_day": np.full(shape, np.nan),
            "run_sum": np.zeros(shape, np.float32),
            "run_length": np.zeros(shape, np.int32),
        }
        return evidence | ({"window": np.zeros((self.kept_dates, *shape), np.float32)} if self.kept_dates else {})

    def advance(self, state: Arrays, z_DYX: np.ndarray, residual_YX: np.ndarray, seen_YX: np.ndarray, day: float) -> Arrays:
        """The state after one date. `z_DYX` and `residual_YX` (physical units) are float32; anything where not seen. Where the
        statistic is positive the run goes on or begins on `day`, elsewhere it ends."""
        statistic_DYX, window = self.grow(state, z_DYX)
        runs = statistic_DYX > 0
        begins = runs & ~(state["run_length"] > 0)
        new = {
            "statistic": statistic_DYX,
            "onset_day": np.where(runs, np.where(begins, day, state["onset_day"]), np.nan),
            "run_sum": np.where(runs, state["run_sum"] + residual_YX, np.float32(0)),
            "run_length": np.where(runs, state["run_length"] + 1, 0),
        } | ({} if window is None else {"window": window})
        return {name: hold(new[name], state[name], seen_YX) for name in new}

    def grow(self, state: Arrays, z_DYX: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """(the statistic after a date on which every pixel was seen, the window after it)."""
        raise NotImplementedError


def hold(new: np.ndarray, old: np.ndarray, seen_YX: np.ndarray) -> np.ndarray:
    """`new` where the pixel was seen, else `old`; dtype of `old`, a new array."""
    return np.where(seen_YX, new, old).astype(old.dtype, copy=False)


@dataclass(frozen=True)
class Cusum(SequentialTest):
    """Page's cumulative sum: evidence beyond `drift` adds up, and the sum never falls below 0."""

    drift: float = 2.0
    cap: float = 4.0

    def grow(self, state: Arrays, z_DYX: np.ndarray) -> tuple[np.ndarray, None]:
        z_DYX = np.clip(z_DYX, -self.cap, self.cap)
        return np.maximum(state["statistic"] + (z_DYX - np.float32(self.drift)), np.float32(0)), None


@dataclass(frozen=True)
class Ewma(SequentialTest):
    """Exponentially weighted mean of z, over the deviation that it has once it has forgotten its start."""

    weight: float = 0.3
    cap: float = 4.0

    def grow(self, state: Arrays, z_DYX: np.ndarray) -> tuple[np.ndarray, None]:
        z_DYX = np.clip(z_DYX, -self.cap, self.cap)
        deviation = math.sqrt(self.weight / (2 - self.weight))
        return np.float32(1 - self.weight) * state["statistic"] + np.float32(self.weight / deviation) * z_DYX, None


@dataclass(frozen=True)
class Mosum(SequentialTest):
    """Moving sum over the last `window` seen dates, over its deviation sqrt(window); dates before the first count as 0."""

    window: int = 6
    cap: float = 4.0

    @property
    def kept_dates(self) -> int:
        return self.window

    def grow(self, state: Arrays, z_DYX: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        window = np.concatenate([state["window"][1:], np.clip(z_DYX, -self.cap, self.cap)[None]])
        return window.sum(axis=0, dtype=np.float32) / np.float32(math.sqrt(self.window)), window


@dataclass(frozen=True)
class Run(SequentialTest):
    """The smallest of the last `length` z: all of them must exceed the threshold. Below `length` dates it is 0."""

    length: int = 3

    @property
    def kept_dates(self) -> int:
        return self.length

    def grow(self, state: Arrays, z_DYX: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        window = np.concatenate([state["window"][1:], z_DYX[None]])
        return np.maximum(window.min(axis=0), 0), window
