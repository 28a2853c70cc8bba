"""Rain of the next half hour: this programme beside pysteps, on the test windows of configs/radar.yaml.

    driftline run configs/radar.yaml && python -m benchmarks.bench_nowcasting [--quick] [--run runs/radar]

pysteps (extra `nowcasting`, Pulkkinen et al. 2019, https://doi.org/10.5194/gmd-12-4185-2019) gets the context of the whole
raster, more than our windows see, and its dense Lucas-Kanade motion; where it does not know a pixel the last value is taken, as
ours do. All are scored on the same valid pixels of the test windows: MAE, and CSI at 0.5, 2 and 5 mm/h over pooled counts.
Of ensembles and distributions (the run's `evaluation.probabilities`) also the Brier score of reaching these, and the CRPS; of a
forecast without either the Brier score of its yes or no, and the MAE. A distribution once more as an ensemble of as many members
as STEPS has, since few members cost score. --quick leaves out LINDA and STEPS, which take minutes.
"""

from __future__ import annotations

import argparse
import json
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
from pipelines.learning.error_distribution import PROBABILITIES, ErrorDistribution
from pipelines.learning.interval_scores import crps
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
# (rain_THW mm/h, velocity_2HW, leads) -> (leads, H, W) or (members, leads, H, W) mm/h
Nowcast = Callable[[np.ndarray, np.ndarray, int], np.ndarray]


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
        forecasts |= {f"pysteps {name}": OfPysteps(one, *whole) for name, one in pysteps_methods(arguments.quick).items()}
    report(forecasts, windows, known_distributions(arguments.run))


def known_distributions(folder: Path) -> dict[str, ErrorDistribution]:
    """Those of the run's evaluation, by the names of this table; {} where it was made without `evaluation.probabilities`."""
    path = folder / "evaluation.json"
    content = json.loads(path.read_text()) if path.is_file() else {}
    kept = content.get("details", {}).get("error_distributions", {})
    known = {name: ErrorDistribution.from_json(one["distribution"]) for name, one in kept.items()}
    return {"network" if name == config.MODEL else name: one for name, one in known.items()}


def read_whole(dataset: xr.Dataset, variables: Any, margin_px: int) -> tuple[np.ndarray, np.ndarray, int]:
    """(rain_NHW in mm/h, valid_NHW, margin) of all dates of the whole raster."""
    from pipelines.samples.cache import decoded_blocks

    (block,) = decoded_blocks(dataset, [Box.whole([dataset.sizes[dim] for dim in space_dims(dataset)])], variables)
    return block.x_NCHW[:, 0] * PER_HOUR, block.valid_NHW, margin_px


class OfPysteps:
    """Cuts a window from the nowcast of the whole raster; each issue date is computed once."""

    def __init__(self, method: Nowcast, rain_NHW: np.ndarray, valid_NHW: np.ndarray, margin_px: int):
        self.method, self.rain_NHW, self.valid_NHW, self.margin_px = method, rain_NHW, valid_NHW, margin_px
        self._known: dict[int, np.ndarray] = {}

    def __call__(self, window: WindowArrays) -> np.ndarray:
        """The mean of the members, (K, 1, H, W) mm in 5 minutes."""
        return self.members(window).mean(axis=0)[:, None].astype(np.float32)

    def members(self, window: WindowArrays) -> np.ndarray:
        """(M, K, H, W) mm in 5 minutes; one member of a nowcast without an ensemble."""
        issue, leads = int(window.context_T[-1]), len(window.target_days_K)
        if issue not in self._known:
            rain_THW = np.where(self.valid_NHW, self.rain_NHW, 0.0)[window.context_T.numpy()].astype(np.float64)
            with redirect_stdout(StringIO()):
                found = self.method(rain_THW, velocity(rain_THW), leads)
            self._known[issue] = found.reshape(-1, *found.shape[-3:])
        box = window.tile.grown(self.margin_px, self.rain_NHW.shape[1:])
        y_MKHW = self._known[issue][:, :, *box.slices]
        last_HW = self.rain_NHW[issue][box.slices]
        y_MKHW = np.where(np.isfinite(y_MKHW), y_MKHW, last_HW)
        return y_MKHW / PER_HOUR


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

    def steps(rain_THW: np.ndarray, velocity_2HW: np.ndarray, leads: int) -> np.ndarray:
        settings = {"kmperpixel": 2.0, "timestep": 5, "n_ens_members": MEMBERS, "seed": 0, "num_workers": 1, **scales}
        found = nowcasts.get_method("steps")(decibel(rain_THW)[-3:], velocity_2HW, leads, **settings)
        return np.stack([rain(member) for member in found])

    quick: dict[str, Nowcast] = {"extrapolation": extrapolation, "S-PROG": sprog, "ANVIL": anvil}
    return quick if is_quick else {**quick, "LINDA": linda, f"STEPS, {MEMBERS} members": steps}


def report(forecasts: dict[str, Forecast], windows: list[WindowArrays], distributions: dict[str, ErrorDistribution]) -> None:
    events, absolute, seconds = ThresholdTally(THRESHOLDS), dict.fromkeys(forecasts, 0.0), dict.fromkeys(forecasts, 0.0)
    pixels, chances = 0, ChanceTally(distributions)
    for window in windows:
        valid_KHW, found = window.target_valid_KHW.numpy(), {}
        for name, forecast in forecasts.items():
            started = time.perf_counter()
            found[name] = forecast(window)
            seconds[name] += time.perf_counter() - started
            absolute[name] += float(np.abs(found[name][:, 0][valid_KHW] - window.target_KCHW[:, 0].numpy()[valid_KHW]).sum())
            chances.add(name, window, found[name], forecast.members(window) if isinstance(forecast, OfPysteps) else None)
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
    for line in chances.table(pixels):
        print(line)
    for line in compared(absolute, scores):
        print(line)


class ChanceTally:
    """Sums of CRPS (mm/h) and of the Brier scores by threshold, of each method by name."""

    def __init__(self, distributions: dict[str, ErrorDistribution]):
        self.distributions, self.sums = distributions, dict[str, np.ndarray]()
        self._rng = np.random.default_rng(0)

    def add(self, name: str, window: WindowArrays, y_KCHW: np.ndarray, members_MKHW: np.ndarray | None) -> None:
        for k, valid_HW in enumerate(window.target_valid_KHW.numpy()):
            truth_n, y_n = (values[k, 0][valid_HW].astype(np.float64) for values in (window.target_KCHW.numpy(), y_KCHW))
            members_Mn = y_n[None] if members_MKHW is None else members_MKHW[:, k][:, valid_HW]
            self._add(name, members_Mn, truth_n)
            if members_MKHW is None and name in self.distributions:
                known = self.distributions[name].at(window.target_days_K.numpy())
                drawn_Mn = np.stack([known.member(k, y_n, self._rng.random(len(y_n))) for _ in range(MEMBERS)])
                self._add(f"{name}, {MEMBERS} members", drawn_Mn, truth_n)
                said = [known.exceedance(k, y_n, value / PER_HOUR) for value in THRESHOLDS.values]
                crps_n = crps(known.quantiles(k, y_n)[:, None], truth_n[None], PROBABILITIES)[0]
                self._sum(f"{name}, distribution", crps_n, np.stack(said), truth_n)

    def _add(self, name: str, members_Mn: np.ndarray, truth_n: np.ndarray) -> None:
        """CRPS of members as they are (Hersbach 2000): mean |x - truth| - mean |x - x'| / 2."""
        apart_n = np.mean([np.abs(members_Mn - member_n).mean(axis=0) for member_n in members_Mn], axis=0)
        crps_n = np.abs(members_Mn - truth_n).mean(axis=0) - apart_n / 2
        said_Gn = np.stack([(members_Mn >= value / PER_HOUR).mean(axis=0) for value in THRESHOLDS.values])
        self._sum(name, crps_n, said_Gn, truth_n)

    def _sum(self, name: str, crps_n: np.ndarray, said_Gn: np.ndarray, truth_n: np.ndarray) -> None:
        came_Gn = truth_n >= np.array(THRESHOLDS.values)[:, None] / PER_HOUR
        sums = np.array([crps_n.sum() * PER_HOUR, *((said_Gn - came_Gn) ** 2).sum(axis=1)])
        self.sums[name] = self.sums.get(name, np.zeros(1 + len(THRESHOLDS.values))) + sums

    def table(self, pixels: int) -> Iterator[str]:
        yield "| probabilities by | CRPS mm/h | " + " | ".join(f"Brier {t:g} mm/h" for t in THRESHOLDS.values) + " |"
        yield "|---|---|" + "---|" * len(THRESHOLDS.values)
        for name in sorted(self.sums, key=lambda name: float(self.sums[name][0])):
            crps_mm, *brier = (self.sums[name] / pixels).tolist()
            yield f"| {name} | {crps_mm:.3f} | {' | '.join(f'{one:.4f}' for one in brier)} |"


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
