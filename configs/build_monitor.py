"""MonitorRun -> what it watches with: variable, expectation, test, detector, alert rule."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from configs.tasks import monitor as config
from configs.tasks.monitor import MonitorRun
from pipelines.errors import ArtefactDamaged, MissingInput, RequestError
from pipelines.grid import Grid
from pipelines.progress import Progress

AREA_PX, MOST_PX = 256, 512 * 512  # of a large raster so much is looked at for a threshold and for judging
GAP_PX = 8  # more than any halo, so that squares side by side do not know of each other


@dataclass(frozen=True)
class Expected:
    """What foretells. `name` is the folder of its state; `fallback` says why it is not what the config asks for."""

    name: str
    value_model: Any
    fallback: str = ""


def build_variable(run: MonitorRun) -> Any:
    from pipelines.samples.variables import Variable

    v = run.variable
    return Variable(v.name, v.formula, tuple(v.bands), v.transform, v.valid_range)


def build_expected_values(run: MonitorRun, dataset: Any, state: Path, progress: Progress | None = None) -> Expected:
    """The expectation of the config; the harmonic curve, and why, where a network or the forecaster's run is missing or damaged.

    `state` is the folder of the run's states; a network that is trained lies below it. Raises RequestError for an expectation
    that does not fit what is watched, or has too little history to learn from.
    """
    from configs.build_expected_values import build_expected_values as build_wanted

    requested = run.monitoring.model
    try:
        return Expected(requested.kind, build_wanted(run, dataset, state / requested.kind / "networks", progress))
    except (MissingInput, ArtefactDamaged) as e:  # of a run that was there when the watch began, perhaps
        return Expected("harmonic", build_wanted(_monitored_with_curve(run), dataset, state), str(e))


def _monitored_with_curve(run: MonitorRun) -> MonitorRun:
    curve = config.HarmonicModel()
    return run.model_copy(update={"monitoring": run.monitoring.model_copy(update={"model": curve})})


def build_test(run: MonitorRun) -> Any:
    from pipelines.monitoring.sequential_test import Cusum, Ewma, Mosum

    test = run.monitoring.test
    match test.kind:
        case "cusum":
            return Cusum(test.drift, test.cap)
        case "mosum":
            return Mosum(cap=test.cap)
        case "ewma":
            return Ewma(cap=test.cap)


def read_calibration(run: MonitorRun, known: dict[str, Any] | None) -> Any:
    """What was calibrated when the watch began (`known`, JSON); None: that is still to be done."""
    from pipelines.monitoring.detector import Calibration

    if known is None:
        return None
    return Calibration(float(known["threshold"]), known["false_alarms"], tuple(known["maxima"]))


def calibrate(run: MonitorRun, value_model: Any, dataset: Any) -> tuple[Any, dict[str, Any]]:
    """(calibration, what it rests on): the threshold that gives the wanted false alarms on the history of the cube.

    Raises RequestError where the history is too short for that and no threshold is given.
    """
    from pipelines.monitoring.calibration import calibrate as calibrate_on
    from pipelines.monitoring.detector import Calibration

    test, start_day = run.monitoring.test, start_ns(run) / 86_400e9
    detector = build_detector(run, value_model, Calibration(test.threshold or np.inf))
    x_NYX, valid_NYX, days_N = read_areas(run, dataset, until_ns=start_ns(run))
    try:
        detector, report = calibrate_on(
            detector, x_NYX, valid_NYX, days_N, false_alarms=test.false_alarms, start_day=start_day, threshold=test.threshold
        )
    except RequestError:
        if test.threshold is None:
            raise
        return Calibration(test.threshold), {}  # without confidence by degrees: there are no years to learn it from
    return detector.calibration, report.to_json()


def read_areas(run: MonitorRun, dataset: Any, until_ns: int | None = None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(x_NYX float32, valid_NYX, days_N) of the dates before `until_ns` (default: all), of the whole raster where it is small.

    Of a large one some squares, drawn by a fixed seed, side by side with a gap that is not valid.
    """
    from pipelines.monitoring.blocks import Block, BlockReader
    from pipelines.monitoring.updates import dates_of
    from pipelines.tiles import tile_raster

    variable = build_variable(run)
    dates = [date for date in dates_of(dataset) if until_ns is None or date.time_ns < until_ns]
    shape_yx = dataset.sizes["y"], dataset.sizes["x"]
    side = AREA_PX if shape_yx[0] * shape_yx[1] > MOST_PX else max(shape_yx)
    tiles = tile_raster(shape_yx, side)
    chosen = sorted(np.random.default_rng(0).permutation(len(tiles))[: max(MOST_PX // side**2, 1)].tolist())
    height = max(tiles[i].shape_yx[0] for i in chosen)
    width = sum(tiles[i].shape_yx[1] + GAP_PX for i in chosen) - GAP_PX
    x_NYX, valid_NYX = np.zeros((len(dates), height, width), np.float32), np.zeros((len(dates), height, width), bool)
    column = 0
    for i in chosen:
        reader, (rows, columns) = BlockReader(dataset, variable, Block(tiles[i], (tiles[i],)), 0), tiles[i].shape_yx
        for n, date in enumerate(dates):
            x_NYX[n, :rows, column : column + columns], valid_NYX[n, :rows, column : column + columns] = reader.read(date)
        column += columns + GAP_PX
    return x_NYX, valid_NYX, np.array([date.day for date in dates])


def build_references(run: MonitorRun) -> dict[str, Any]:
    """The methods that the monitor is compared with; their thresholds are still to be calibrated."""
    from pipelines.monitoring.references import build_references as build

    monitoring = run.monitoring
    return build(
        run.evaluation.references, monitoring.test.direction, monitoring.min_history, monitoring.test.drift, monitoring.test.cap
    )


def build_evaluation_settings(run: MonitorRun) -> Any:
    from pipelines.monitoring.evaluation import EvaluationSettings

    chosen, test = run.evaluation, run.monitoring.test
    return EvaluationSettings(
        tuple(chosen.drops), chosen.pixels, chosen.confidence, chosen.seed, test.direction, test.false_alarms
    )


def build_detector(run: MonitorRun, value_model: Any, calibration: Any) -> Any:
    from pipelines.monitoring.detector import Detector

    monitoring = run.monitoring
    return Detector(value_model, build_test(run), calibration, monitoring.test.direction, monitoring.min_history)


def build_identity(run: MonitorRun, detector_key: str, grid: Grid) -> Any:
    """What a state of this run is made for."""
    from pipelines.monitoring.state import Identity

    folder = json.dumps([grid.wkt, grid.transform, grid.shape_yx])
    return Identity(
        detector_key,
        json.dumps(run.variable.model_dump(mode="json"), sort_keys=True),
        run.monitoring.start.isoformat(),
        f"{grid.shape_yx[0]} x {grid.shape_yx[1]} px, {hashlib.sha256(folder.encode()).hexdigest()[:16]}",
        run.monitoring.tile_px,
    )


def start_ns(run: MonitorRun) -> int:
    """`monitoring.start` in nanoseconds since 1970-01-01 UTC."""
    return int(np.datetime64(run.monitoring.start, "ns").astype(np.int64))


def build_alert_settings(run: MonitorRun) -> Any:
    from pipelines.monitoring.alerts import AlertSettings

    return AlertSettings(run.alerts.min_area_m2, run.alerts.min_confidence, tuple(run.alerts.notify))
