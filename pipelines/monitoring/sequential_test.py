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
from typing import Protocol

import numpy as np

State = dict[str, np.ndarray]


class SequentialTest(Protocol):
    """What a detector asks of a test. The state's arrays end in (Y, X) and contain at least those that `begin_evidence` makes."""

    def begin(self, directions: int, shape_yx: tuple[int, int]) -> State:
        """The state before the first date."""

    def advance(self, state: State, z_DYX: np.ndarray, residual_YX: np.ndarray, seen_YX: np.ndarray, day: float) -> State:
        """The state after one date. `z_DYX` and `residual_YX` (physical units) are float32; anything where not seen."""


def begin_evidence(directions: int, shape_yx: tuple[int, int]) -> State:
    """`statistic`, and of the run of dates it rests on: `onset_day` (NaN: none), `run_sum` of residuals, `run_length`."""
    shape = (directions, *shape_yx)
    return {
        "statistic": np.zeros(shape, np.float32),
        "onset_day": np.full(shape, np.nan),
        "run_sum": np.zeros(shape, np.float32),
        "run_length": np.zeros(shape, np.int32),
    }


def grow_evidence(state: State, statistic_DYX: np.ndarray, residual_YX: np.ndarray, seen_YX: np.ndarray, day: float) -> State:
    """The evidence after a date: where the statistic is positive the run goes on or begins on `day`, elsewhere it ends."""
    runs = statistic_DYX > 0
    begins = runs & ~(state["run_length"] > 0)
    onset = np.where(runs, np.where(begins, day, state["onset_day"]), np.nan)
    run_sum = np.where(runs, state["run_sum"] + residual_YX, np.float32(0))
    length = np.where(runs, state["run_length"] + 1, 0)
    new = {"statistic": statistic_DYX, "onset_day": onset, "run_sum": run_sum, "run_length": length}
    return {name: hold(new[name], state[name], seen_YX) for name in new}


def hold(new: np.ndarray, old: np.ndarray, seen_YX: np.ndarray) -> np.ndarray:
    """`new` where the pixel was seen, else `old`; dtype of `old`, a new array."""
    return np.where(seen_YX, new, old).astype(old.dtype, copy=False)


@dataclass(frozen=True)
class Cusum:
    """Page's cumulative sum: evidence beyond `drift` adds up, and the sum never falls below 0."""

    drift: float = 2.0
    cap: float = 4.0

    def begin(self, directions: int, shape_yx: tuple[int, int]) -> State:
        """Sums of 0."""
        return begin_evidence(directions, shape_yx)

    def advance(self, state: State, z_DYX: np.ndarray, residual_YX: np.ndarray, seen_YX: np.ndarray, day: float) -> State:
        """The state after one date."""
        z_DYX = np.clip(z_DYX, -self.cap, self.cap)
        statistic_DYX = np.maximum(state["statistic"] + (z_DYX - np.float32(self.drift)), np.float32(0))
        return grow_evidence(state, statistic_DYX, residual_YX, seen_YX, day)


@dataclass(frozen=True)
class Ewma:
    """Exponentially weighted mean of z, over the deviation that it has once it has forgotten its start."""

    weight: float = 0.3
    cap: float = 4.0

    def begin(self, directions: int, shape_yx: tuple[int, int]) -> State:
        """Means of 0."""
        return begin_evidence(directions, shape_yx)

    def advance(self, state: State, z_DYX: np.ndarray, residual_YX: np.ndarray, seen_YX: np.ndarray, day: float) -> State:
        """The state after one date."""
        z_DYX = np.clip(z_DYX, -self.cap, self.cap)
        deviation = math.sqrt(self.weight / (2 - self.weight))
        statistic_DYX = np.float32(1 - self.weight) * state["statistic"] + np.float32(self.weight / deviation) * z_DYX
        return grow_evidence(state, statistic_DYX, residual_YX, seen_YX, day)


@dataclass(frozen=True)
class Mosum:
    """Moving sum over the last `window` seen dates, over its deviation sqrt(window); dates before the first count as 0."""

    window: int = 6
    cap: float = 4.0

    def begin(self, directions: int, shape_yx: tuple[int, int]) -> State:
        """An empty window."""
        return begin_evidence(directions, shape_yx) | {"window": np.zeros((self.window, directions, *shape_yx), np.float32)}

    def advance(self, state: State, z_DYX: np.ndarray, residual_YX: np.ndarray, seen_YX: np.ndarray, day: float) -> State:
        """The state after one date."""
        z_DYX = np.clip(z_DYX, -self.cap, self.cap)
        window = np.concatenate([state["window"][1:], z_DYX[None]])
        statistic_DYX = window.sum(axis=0, dtype=np.float32) / np.float32(math.sqrt(self.window))
        evidence = grow_evidence(state, statistic_DYX, residual_YX, seen_YX, day)
        return evidence | {"window": hold(window, state["window"], seen_YX)}


@dataclass(frozen=True)
class Run:
    """The smallest of the last `length` z: all of them must exceed the threshold. Below `length` dates it is 0."""

    length: int = 3

    def begin(self, directions: int, shape_yx: tuple[int, int]) -> State:
        """An empty window."""
        return begin_evidence(directions, shape_yx) | {"window": np.zeros((self.length, directions, *shape_yx), np.float32)}

    def advance(self, state: State, z_DYX: np.ndarray, residual_YX: np.ndarray, seen_YX: np.ndarray, day: float) -> State:
        """The state after one date."""
        window = np.concatenate([state["window"][1:], z_DYX[None]])
        evidence = grow_evidence(state, np.maximum(window.min(axis=0), 0), residual_YX, seen_YX, day)
        return evidence | {"window": hold(window, state["window"], seen_YX)}
