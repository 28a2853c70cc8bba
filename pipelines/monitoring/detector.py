"""A detector: what is expected, how far off the new date is, and when that is too much. Arrays in, arrays out.

    fitted = detector.fit(x_NYX, valid_NYX, days_N)                       history only
    state = detector.begin(fitted)
    state = detector.advance(fitted, state, x_YX, valid_YX, day)          once per new date, any number of times
    layers = detector.layers(fitted, state)

`advance` is pure and works date by date, so that what daily runs computed equals a replay bit for bit. A pixel that was not
seen keeps its state. The first change of a pixel is kept; whether it came back to what was expected is said beside it.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Literal, NamedTuple, Protocol

import numpy as np

from pipelines.monitoring.sequential_test import Arrays, SequentialTest, hold

Direction = Literal["down", "up", "both"]
SIGNS: Mapping[Direction, tuple[int, ...]] = {"down": (-1,), "up": (1,), "both": (-1, 1)}
NOT_MONITORED, NOTHING_FOUND, CHANGED = 0, 1, 2
CALM_SIGMA, CALM_DATES = 2.0, 6  # a changed pixel has recovered after so many dates in a row so near to what is expected


class Observations(NamedTuple):
    """A variable on N dates: `x_NYX` float32 physical values, anything where not `valid_NYX`; `days_N` float64 since 1970-01-01,
    ascending.

    >>> series = Observations(np.zeros((2, 1, 1)), np.ones((2, 1, 1), bool), np.array([17000.0, 17016.0]))
    >>> series.before(17010).days_N.tolist()
    [17000.0]
    """

    x_NYX: np.ndarray
    valid_NYX: np.ndarray
    days_N: np.ndarray

    def on(self, dates: np.ndarray | slice) -> "Observations":
        """Those of some dates only."""
        return Observations(self.x_NYX[dates], self.valid_NYX[dates], self.days_N[dates])

    def before(self, day: float) -> "Observations":
        """Views."""
        return self.on(slice(None, int(np.searchsorted(self.days_N, day))))

    def since(self, day: float) -> "Observations":
        """From `day` on, that day included; views."""
        return self.on(slice(int(np.searchsorted(self.days_N, day)), None))


class ValueModel(Protocol):
    """What a detector asks of anything that predicts values: a harmonic curve, a network, a forecaster."""

    @property
    def halo_px(self) -> int:
        """Pixels around a tile that `fit` and `advance` depend on."""

    def fit(self, x_NYX: np.ndarray, valid_NYX: np.ndarray, days_N: np.ndarray) -> Arrays:
        """Arrays (..., Y, X), among them `count` (Y, X) of usable history dates."""

    def begin(self, fitted: Arrays) -> Arrays:
        """The model's own state before the first monitored date, arrays (..., Y, X)."""

    def predict(self, fitted: Arrays, state: Arrays, day: float) -> tuple[np.ndarray, np.ndarray]:
        """(expected_YX, spread_YX) float32, before the date is seen."""

    def advance(self, fitted: Arrays, state: Arrays, x_YX: np.ndarray, valid_YX: np.ndarray, day: float) -> Arrays:
        """Its state after the date was seen; held where it was not."""


class Constant:
    """The state of a model that does not learn while it monitors: none."""

    def begin(self, fitted: Arrays) -> Arrays:
        return {}

    def advance(self, fitted: Arrays, state: Arrays, x_YX: np.ndarray, valid_YX: np.ndarray, day: float) -> Arrays:
        return state


# Dense towards 1, where alarms are; the shares of stable pixels that `Calibration.maxima` belongs to.
CONFIDENCE_LEVELS = (0.0, 0.25, 0.5, 0.75, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999, 1.0)


@dataclass(frozen=True)
class Calibration:
    """How large the test's statistic gets where nothing changes.

    `threshold` was set for `false_alarms` per 1000 pixels and year (None: set in the config). `maxima` are the quantiles, at
    `CONFIDENCE_LEVELS`, of the largest statistic that a stable pixel reaches within a year; empty: not known.
    """

    threshold: float
    false_alarms: float | None = None
    maxima: tuple[float, ...] = ()

    def confidence(self, score_YX: np.ndarray) -> np.ndarray:
        """Float32 share [0, 1] of stable pixels whose largest statistic within a year is below `score_YX`. Without maxima it is
        0 below the threshold and 1 from it on."""
        if not self.maxima:
            return (score_YX >= self.threshold).astype(np.float32)
        confidence_YX: np.ndarray = np.interp(score_YX, self.maxima, CONFIDENCE_LEVELS).astype(np.float32)
        return confidence_YX


LAYER_DTYPES: dict[str, np.dtype] = {  # of what a map shows, see `Detector.layers`
    **{name: np.dtype(np.float64) for name in ("change_day", "detected_day", "recovered_day")},
    **{name: np.dtype(np.float32) for name in ("magnitude", "score", "confidence")},
    "direction": np.dtype(np.int8),
    "status": np.dtype(np.uint8),
}

# what the models were called when the first states were keyed; a key must stay what it is
KEY_NAMES = {f"{kind}Model": f"{kind}Expectation" for kind in ("Harmonic", "Recurrent", "Forecaster")}


@dataclass(frozen=True)
class Detector:
    """A model of expected values, a test, and the calibration that turns the statistic into an alarm and a confidence."""

    value_model: ValueModel
    test: SequentialTest
    calibration: Calibration
    direction: Direction = "both"
    min_history: int = 12

    @property
    def halo_px(self) -> int:
        """Pixels around a tile that `fit` and `advance` depend on."""
        return self.value_model.halo_px

    @property
    def key(self) -> str:
        """Digest of every setting; a state of another key is not this detector's."""
        name = type(self.value_model).__name__
        model = getattr(self.value_model, "key", None) or asdict(self.value_model)  # type: ignore[call-overload]
        settings = {
            "expectation": [KEY_NAMES.get(name, name), model],
            "test": [type(self.test).__name__, asdict(self.test)],
            "calibration": asdict(self.calibration),
            "direction": self.direction,
            "min_history": self.min_history,
            "contract": 2,
        }
        return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]

    def fit(self, x_NYX: np.ndarray, valid_NYX: np.ndarray, days_N: np.ndarray) -> Arrays:
        """What the history says, arrays (..., Y, X); see the model."""
        return self.value_model.fit(x_NYX, valid_NYX, days_N)

    def begin(self, fitted: Arrays) -> Arrays:
        """The state before the first monitored date, arrays (..., Y, X)."""
        shape_yx = fitted["count"].shape
        found = {name: np.full(shape_yx, np.nan) for name in ("detected_day", "change_day", "recovered_day")}
        found |= {
            "magnitude": np.zeros(shape_yx, np.float32),
            "direction": np.zeros(shape_yx, np.int8),
            "peak": np.zeros(shape_yx, np.float32),
            "calm": np.zeros(shape_yx, np.int32),
        }
        test = self.test.begin(len(SIGNS[self.direction]), shape_yx)
        return found | prefixed("test", test) | prefixed("expectation", self.value_model.begin(fitted))

    def monitored(self, fitted: Arrays) -> np.ndarray:
        """(Y, X) bool: pixels with enough history to expect anything."""
        return fitted["count"] >= self.min_history

    def residual(self, fitted: Arrays, state: Arrays, x_YX: np.ndarray, day: float) -> tuple[np.ndarray, np.ndarray]:
        """(residual_YX, z_YX) float32: seen minus expected, and that over its spread (0 where the spread is 0 and so is it)."""
        expected_YX, spread_YX = self.value_model.predict(fitted, part_of(state, "expectation"), day)
        residual_YX = x_YX.astype(np.float32, copy=False) - expected_YX
        return residual_YX, residual_YX / np.maximum(spread_YX, np.float32(1e-6))

    def advance(self, fitted: Arrays, state: Arrays, x_YX: np.ndarray, valid_YX: np.ndarray, day: float) -> Arrays:
        """The state after one date (float64 days since 1970); a new mapping, nothing in `state` is written to."""
        residual_YX, z_YX = self.residual(fitted, state, x_YX, day)
        seen_YX = valid_YX & self.monitored(fitted)
        z_DYX = np.array(SIGNS[self.direction], np.float32)[:, None, None] * z_YX
        test = self.test.advance(part_of(state, "test"), z_DYX, residual_YX, seen_YX, day)
        model = self.value_model.advance(fitted, part_of(state, "expectation"), x_YX, valid_YX, day)
        return self._note(state, test, z_YX, seen_YX, day) | prefixed("test", test) | prefixed("expectation", model)

    def _note(self, state: Arrays, test: Arrays, z_YX: np.ndarray, seen_YX: np.ndarray, day: float) -> Arrays:
        """What is known of each pixel's change after this date."""
        strongest_YX = np.argmax(test["statistic"], axis=0)[None]
        statistic_YX, onset_YX, sum_YX, length_YX = (
            test[name][0] if len(test[name]) == 1 else np.take_along_axis(test[name], strongest_YX, axis=0)[0]
            for name in ("statistic", "onset_day", "run_sum", "run_length")
        )
        was_found_YX = ~np.isnan(state["detected_day"])
        is_new_YX = seen_YX & ~was_found_YX & (statistic_YX >= np.float32(self.calibration.threshold))
        mean_YX = sum_YX / np.maximum(length_YX, 1).astype(np.float32)
        sign_YX = np.array(SIGNS[self.direction], np.int8)[strongest_YX[0]]
        is_calm_YX = np.abs(z_YX) < CALM_SIGMA
        calm_YX = hold(np.where(was_found_YX & is_calm_YX, state["calm"] + 1, 0), state["calm"], seen_YX)
        recovers_YX = np.isnan(state["recovered_day"]) & (calm_YX >= CALM_DATES)
        return {
            "detected_day": np.where(is_new_YX, day, state["detected_day"]),
            "change_day": np.where(is_new_YX, onset_YX, state["change_day"]),
            "recovered_day": np.where(recovers_YX, day, state["recovered_day"]),
            "magnitude": np.where(is_new_YX, mean_YX, state["magnitude"]).astype(np.float32, copy=False),
            "direction": np.where(is_new_YX, sign_YX, state["direction"]).astype(np.int8, copy=False),
            "peak": hold(np.maximum(statistic_YX, state["peak"]), state["peak"], seen_YX),
            "calm": calm_YX,
        }

    def layers(self, fitted: Arrays, state: Arrays) -> Arrays:
        """What a map shows, each (Y, X).

        `change_day` (first date of the run of evidence), `detected_day` (the alarm) and `recovered_day`: float64 days since
        1970, NaN none. `magnitude`: float32 mean residual from change to alarm, units of the variable, 0 none.
        `direction`: int8 -1, 0, 1. `score`: float32, the largest statistic so far. `confidence`: float32, share of stable
        pixels whose statistic stays below that for a year. `status`: uint8, 0 not monitored, 1 nothing found, 2 changed.
        """
        is_changed_YX = ~np.isnan(state["detected_day"])
        status_YX = np.where(is_changed_YX, CHANGED, np.where(self.monitored(fitted), NOTHING_FOUND, NOT_MONITORED))
        known = {name: state[name].copy() for name in ("change_day", "detected_day", "recovered_day", "magnitude", "direction")}
        return known | {
            "score": state["peak"].copy(),
            "confidence": self.calibration.confidence(state["peak"]),
            "status": status_YX.astype(np.uint8),
        }


def monitoring(detector: Detector, fitted: Arrays, x_NYX: np.ndarray, valid_NYX: np.ndarray, days_N: np.ndarray) -> Arrays:
    """The state after all of these dates, in order, from the beginning."""
    state = detector.begin(fitted)
    for x_YX, valid_YX, day in zip(x_NYX, valid_NYX, days_N, strict=True):
        state = detector.advance(fitted, state, x_YX, valid_YX, float(day))
    return state


def prefixed(prefix: str, arrays: Arrays) -> Arrays:
    """The arrays as parts of a larger state, `PREFIX.NAME`; `part_of` takes them out again."""
    return {f"{prefix}.{name}": value for name, value in arrays.items()}


def part_of(arrays: Arrays, prefix: str) -> Arrays:
    return {name.removeprefix(f"{prefix}."): value for name, value in arrays.items() if name.startswith(f"{prefix}.")}
