"""MonitorRun -> what it watches with: variable, expectation, test, detector, alert rule."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

import numpy as np

from configs import monitor as config
from configs.monitor import MonitorRun
from pipelines.grid import Grid

MONITOR_THRESHOLD = 8.9  # of the one-sided CUSUM; only until one has been calibrated


@dataclass(frozen=True)
class Expected:
    """What foretells. `name` is the folder of its state; `fallback` says why it is not what the config asks for."""

    name: str
    expectation: Any
    fallback: str = ""


def build_variable(run: MonitorRun) -> Any:
    from pipelines.samples.variables import Variable

    v = run.variable
    return Variable(v.name, v.formula, tuple(v.bands), v.transform, v.valid_range)


def build_harmonic(harmonics: int = 2, trend: bool = False) -> Any:
    from pipelines.change.harmonic_expectation import HarmonicExpectation

    return HarmonicExpectation(harmonics, trend)


def build_expectation(run: MonitorRun) -> Expected:
    """The expectation of the config, or the harmonic curve and the reason where the forecaster's run is missing or damaged."""
    match run.monitoring.expectation:
        case config.HarmonicExpectation() as e:
            return Expected("harmonic", build_harmonic(e.harmonics, e.trend))
        case config.RecurrentExpectation() as e:
            return Expected("harmonic", build_harmonic(e.harmonics, e.trend), "the recurrent expectation is not there yet")
        case config.ForecasterExpectation():
            return Expected("harmonic", build_harmonic(), "the forecaster is not there yet")


def build_test(run: MonitorRun) -> Any:
    from pipelines.change.sequential_test import Cusum, Ewma, Mosum

    test = run.monitoring.test
    match test.kind:
        case "cusum":
            return Cusum(test.drift, test.cap)
        case "mosum":
            return Mosum(cap=test.cap)
        case "ewma":
            return Ewma(cap=test.cap)


def read_calibration(run: MonitorRun, known: dict[str, Any] | None) -> Any:
    """The threshold that the config says, or the one that was calibrated before (`known`); None: it is still to be calibrated."""
    from pipelines.change.detector import Calibration

    if run.monitoring.test.threshold is not None:
        return Calibration(run.monitoring.test.threshold)
    if known is None:
        return None
    return Calibration(float(known["threshold"]), known["false_alarms"], tuple(known["maxima"]))


def calibrate(run: MonitorRun, expectation: Any, dataset: Any, progress: Any) -> Any:
    """The threshold that gives the wanted false alarms on the history of the cube."""
    from pipelines.change.detector import Calibration

    return Calibration(MONITOR_THRESHOLD)


def build_detector(run: MonitorRun, expectation: Any, calibration: Any) -> Any:
    from pipelines.change.detector import Detector

    monitoring = run.monitoring
    return Detector(expectation, build_test(run), calibration, monitoring.test.direction, monitoring.min_history)


def build_identity(run: MonitorRun, detector_key: str, grid: Grid) -> Any:
    """What a state of this run is made for."""
    from pipelines.change.state import Identity

    place = json.dumps([grid.wkt, grid.transform, grid.shape_yx])
    return Identity(
        detector_key,
        json.dumps(run.variable.model_dump(mode="json"), sort_keys=True),
        run.monitoring.start.isoformat(),
        f"{grid.shape_yx[0]} x {grid.shape_yx[1]} px, {hashlib.sha256(place.encode()).hexdigest()[:16]}",
        run.monitoring.tile_px,
    )


def start_ns(run: MonitorRun) -> int:
    """`monitoring.start` in nanoseconds since 1970-01-01 UTC."""
    return int(np.datetime64(run.monitoring.start, "ns").astype(np.int64))


def build_alert_rule(run: MonitorRun) -> Any:
    from pipelines.change.alerts import AlertRule

    return AlertRule(run.alerts.min_area_m2, run.alerts.min_confidence, tuple(run.alerts.notify))
