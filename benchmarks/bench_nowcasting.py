"""Rain of the next half hour: this programme beside pysteps, on the test windows of configs/radar.yaml.

    driftline run configs/radar.yaml && python -m benchmarks.bench_nowcasting [--quick] [--run runs/radar]

pysteps (extra `nowcasting`, Pulkkinen et al. 2019, https://doi.org/10.5194/gmd-12-4185-2019) gets the context of the whole
raster, more than our windows see, and its dense Lucas-Kanade motion; where it does not know a pixel the last value is taken, as
ours do. All are scored on the same valid pixels of the test windows: MAE, and CSI at 0.5, 2 and 5 mm/h over pooled counts.
--quick leaves out LINDA and STEPS, which take minutes.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from functools import partial
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import xarray as xr

from benchmarks.criteria import verdict
from configs.load import load_run
from configs.tasks import forecast as config
from configs.tasks.forecast import ForecastRun
from configs.tasks.forecast_baselines import fitted_baselines
from models.checkpoint import FORECASTER
from pipelines.cube.store import head_snapshot, open_cube, space_dims
from pipelines.learning.conformal import forecast_window
from pipelines.learning.threshold_scores import Thresholds, ThresholdTally
from pipelines.predictors import Forecaster
from pipelines.samples.prepare import plan_cube, read_windows
from pipelines.samples.refit import valid_share
from pipelines.samples.sampling import WindowArrays
from pipelines.tiles import Box

PER_HOUR = 12  # mm in 5 minutes -> mm/h
THRESHOLDS = Thresholds((0.5, 2.0, 5.0), PER_HOUR, "mm/h")
DRY = 0.1  # mm/h, pysteps' usual threshold of rain
OURS = ("persistence", "translation", "optical_flow", "moving_field")
MEMBERS = 12  # of the ensemble of STEPS
Forecast = Callable[[WindowArrays], np.ndarray]  # window -> y_KCHW, mm in 5 minutes
Nowcast = Callable[[np.ndarray, np.ndarray, int], np.ndarray]  # (rain_THW mm/h, velocity_2HW, leads) -> (leads, H, W) mm/h


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--run", type=Path, default=Path("runs/radar"))
    arguments = parser.parse_args()
    if not (arguments.run / "config.yaml").is_file():
        print(f"no run in {arguments.run}: `driftline run configs/radar.yaml` first; nothing is compared")
        return
    run = cast("ForecastRun", load_run(arguments.run / "config.yaml", inputs_must_exist=False))
    settings, uri = config.build_samples(run), str(arguments.run / "cube")
    dataset = open_cube(uri, head_snapshot(uri))
    plan = plan_cube(dataset, settings)
    found = read_windows(dataset, plan, settings.variables, "test")
    windows = [window for window in found if valid_share(window) >= settings.min_valid_fraction]
    names = [*OURS]
    methods: dict[str, Forecaster] = dict(fitted_baselines(names, dataset, settings, plan.split.validation_until))  # type: ignore[arg-type]
    if (arguments.run / "model").is_dir():
        methods["network"] = cast("Forecaster", FORECASTER.load(arguments.run / "model")[0])
    forecasts: dict[str, Forecast] = {name: partial(forecast_window, method) for name, method in methods.items()}
    if find_spec("pysteps") is None:
        print("pysteps is not installed (pip install driftline[nowcasting]): ours alone")
    else:
        whole = read_whole(dataset, settings.variables, run.split.margin_px)
        forecasts |= {f"pysteps {name}": of_pysteps(one, *whole) for name, one in pysteps_methods(arguments.quick).items()}
    report(forecasts, windows)


def read_whole(dataset: xr.Dataset, variables: Any, margin_px: int) -> tuple[np.ndarray, np.ndarray, int]:
    """(rain_NHW in mm/h, valid_NHW, margin) of all dates of the whole raster."""
    from pipelines.samples.cache import decoded_blocks

    (block,) = decoded_blocks(dataset, [Box.whole([dataset.sizes[dim] for dim in space_dims(dataset)])], variables)
    return block.x_NCHW[:, 0] * PER_HOUR, block.valid_NHW, margin_px


def of_pysteps(
    method: Nowcast, rain_NHW: np.ndarray, valid_NHW: np.ndarray, margin_px: int
) -> Callable[[WindowArrays], np.ndarray]:
    """A function that cuts a window from the nowcast of the whole raster; each issue date is computed once."""
    known: dict[int, np.ndarray] = {}

    def forecast(window: WindowArrays) -> np.ndarray:
        issue, leads = int(window.context_T[-1]), len(window.target_days_K)
        if issue not in known:
            rain_THW = np.where(valid_NHW, rain_NHW, 0.0)[window.context_T.numpy()].astype(np.float64)
            with redirect_stdout(StringIO()):
                known[issue] = method(rain_THW, velocity(rain_THW), leads)
        box = window.tile.grown(margin_px, rain_NHW.shape[1:])
        y_KHW = known[issue][:, *box.slices]
        last_HW = rain_NHW[issue][box.slices]
        return (np.where(np.isfinite(y_KHW), y_KHW, last_HW)[:, None] / PER_HOUR).astype(np.float32)

    return forecast


def decibel(rain_THW: np.ndarray) -> np.ndarray:
    from pysteps.utils import transformation

    transformed: np.ndarray = transformation.dB_transform(rain_THW, threshold=DRY, zerovalue=-15.0)[0]
    return transformed


def velocity(rain_THW: np.ndarray) -> np.ndarray:
    from pysteps import motion

    found: np.ndarray = motion.get_method("LK")(decibel(rain_THW), verbose=False)
    return found


def pysteps_methods(is_quick: bool) -> dict[str, Nowcast]:
    from pysteps import nowcasts
    from pysteps.utils import transformation

    scales = {"n_cascade_levels": 6, "precip_thr": -10.0}

    def rain(decibel_KHW: np.ndarray) -> np.ndarray:
        back: np.ndarray = transformation.dB_transform(decibel_KHW, threshold=-10.0, inverse=True)[0]
        return back

    def extrapolation(rain_THW: np.ndarray, velocity_2HW: np.ndarray, leads: int) -> np.ndarray:
        return np.asarray(nowcasts.get_method("extrapolation")(rain_THW[-1], velocity_2HW, leads))

    def sprog(rain_THW: np.ndarray, velocity_2HW: np.ndarray, leads: int) -> np.ndarray:
        return rain(nowcasts.get_method("sprog")(decibel(rain_THW)[-3:], velocity_2HW, leads, **scales))

    def anvil(rain_THW: np.ndarray, velocity_2HW: np.ndarray, leads: int) -> np.ndarray:
        return np.asarray(nowcasts.get_method("anvil")(rain_THW[-4:], velocity_2HW, leads, n_cascade_levels=6))

    def linda(rain_THW: np.ndarray, velocity_2HW: np.ndarray, leads: int) -> np.ndarray:
        settings = {"kmperpixel": 2.0, "timestep": 5, "add_perturbations": False, "measure_time": False}
        return np.asarray(nowcasts.get_method("linda")(rain_THW[-3:], velocity_2HW, leads, **settings))

    def steps_mean(rain_THW: np.ndarray, velocity_2HW: np.ndarray, leads: int) -> np.ndarray:
        settings = {"kmperpixel": 2.0, "timestep": 5, "n_ens_members": MEMBERS, "seed": 0, "num_workers": 1, **scales}
        found = nowcasts.get_method("steps")(decibel(rain_THW)[-3:], velocity_2HW, leads, **settings)
        return np.stack([rain(member) for member in found]).mean(axis=0)

    quick: dict[str, Nowcast] = {"extrapolation": extrapolation, "S-PROG": sprog, "ANVIL": anvil}
    return quick if is_quick else {**quick, "LINDA": linda, f"STEPS, mean of {MEMBERS}": steps_mean}


def report(forecasts: dict[str, Forecast], windows: list[WindowArrays]) -> None:
    events, absolute, seconds = ThresholdTally(THRESHOLDS), dict.fromkeys(forecasts, 0.0), dict.fromkeys(forecasts, 0.0)
    pixels = 0
    for window in windows:
        valid_KHW, found = window.target_valid_KHW.numpy(), {}
        for name, forecast in forecasts.items():
            started = time.perf_counter()
            found[name] = forecast(window)
            seconds[name] += time.perf_counter() - started
            absolute[name] += float(np.abs(found[name][:, 0][valid_KHW] - window.target_KCHW[:, 0].numpy()[valid_KHW]).sum())
        pixels += int(valid_KHW.sum())
        events.add(window, found)
    scores = events.to_json(0.9)["methods"]
    usual = absolute["persistence"] / pixels * PER_HOUR
    print(f"{len(windows)} test windows, {pixels} pixels; MAE over that of persistence, {usual:.3f} mm/h")
    print(f"| method | MAE | {' | '.join(f'CSI {t:g} mm/h' for t in THRESHOLDS.values)} | ms a window |\n|---|{'---|' * 5}")
    for name in sorted(forecasts, key=lambda name: absolute[name]):
        csi = " | ".join(f"{row['overall']['csi'] or 0:.3f}" for row in scores[name])
        ratio = absolute[name] / absolute["persistence"]
        print(f"| {name} | {ratio:.3f} | {csi} | {1000 * seconds[name] / len(windows):.0f} |")
    for line in compared(absolute, scores):
        print(line)


def compared(absolute: dict[str, float], scores: dict[str, Any]) -> Iterator[str]:
    """Ours against the best of pysteps, score by score."""
    theirs = [name for name in absolute if name.startswith("pysteps")]
    ours = "network" if "network" in absolute else "moving_field"
    if not theirs:
        return
    yield verdict(f"MAE of {ours} over the best of pysteps", absolute[ours] / min(absolute[name] for name in theirs), at_most=1.0)
    for number, threshold in enumerate(THRESHOLDS.values):
        csi = {name: scores[name][number]["overall"]["csi"] or 0.0 for name in absolute}
        best = max(csi[name] for name in theirs)
        yield verdict(f"CSI {threshold:g} mm/h of {ours} over the best of pysteps", csi[ours] / best, at_least=1.0)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
