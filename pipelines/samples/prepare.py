"""From a cube to samples: the settings of a run, the windows that they plan, and what is read of them before a cache exists."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
import xarray as xr

from pipelines.calendar import median_step_days
from pipelines.cube.store import space_dims
from pipelines.errors import RequestError
from pipelines.progress import Progress
from pipelines.samples.cache import check_fits, decoded_blocks, windows_of_tiles
from pipelines.samples.covariates import Covariates
from pipelines.samples.plan import Sampling, Split, WindowPlan
from pipelines.samples.sampling import WindowArrays, window_arrays
from pipelines.samples.variables import Variable, transformed
from pipelines.samples.windows import plan_windows

ENOUGH_WINDOWS = 120  # to fit the few numbers of a baseline


@dataclass(frozen=True)
class SampleSettings:
    """What samples are made of: `context` steps in, `horizon` steps out, one window every `stride` steps.

    covariates: on the cube's grid; None: forecasters are given the images alone.
    """

    variables: tuple[Variable, ...]
    split: Split
    steps: Sampling
    context: int
    horizon: int
    stride: int = 1
    min_valid_fraction: float = 0.1  # windows with a smaller share of usable targets are left out
    covariates: Covariates | None = None


def plan_cube(dataset: xr.Dataset, settings: SampleSettings) -> WindowPlan:
    """Every window of the cube. Raises RequestError if blocks or dates do not suffice."""
    shape = tuple(dataset.sizes[dim] for dim in space_dims(dataset))
    times, steps = dataset["time"].values, settings.steps
    split = settings.split.from_first(times[0]) if len(times) else settings.split
    return plan_windows(times, shape, split, steps, settings.context, settings.horizon, settings.stride)


def step_days(dataset: xr.Dataset, settings: SampleSettings) -> float:
    """Days from one step to the next: as set, else the median distance of the dates."""
    return settings.steps.every_days or median_step_days(dataset["time"].values)


def windows_to_fit(
    dataset: xr.Dataset, plan: WindowPlan, settings: SampleSettings, progress: Progress | None = None
) -> Iterator[WindowArrays]:
    """Some training windows, evenly spread, straight from the cube: enough for the few numbers of a baseline."""
    windows = read_windows(dataset, plan, settings.variables, "train", settings.covariates)
    return every_nth(windows, len(plan.of_part("train")), progress)


def read_windows(
    dataset: xr.Dataset, plan: WindowPlan, variables: tuple[Variable, ...], part: str, covariates: Covariates | None = None
) -> Iterator[WindowArrays]:
    """The windows of `part` as of `SampleCache.windows`, one decoded tile in memory, without those without a valid target."""
    check_fits(dataset, plan)
    of_tile = {tile: members for tile, members in windows_of_tiles(plan).items() if members[0][1].part == part}
    for block in decoded_blocks(dataset, sorted(of_tile), variables, margin_px=plan.split.margin_px):
        windows = (window_arrays(plan, one, block.x_NCHW, block.valid_NHW, covariates) for _, one in of_tile[block.tile])
        yield from (window for window in windows if window.target_valid_KHW.any())


def every_nth(windows: Iterable[WindowArrays], count: int, progress: Progress | None = None) -> Iterator[WindowArrays]:
    """About `ENOUGH_WINDOWS` of `count` windows, evenly spread."""
    every = max(count // ENOUGH_WINDOWS, 1)
    for done, window in enumerate(islice(windows, 0, None, every), start=1):
        yield window
        if progress is not None:
            progress(done * every, max(count, done * every))


@dataclass(frozen=True)
class ChannelStatistics:
    """Per channel `mean` and `std` (population) of the transformed values that the network gets; `count`: of pixel-dates."""

    names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    count: int


@dataclass
class Moments:
    """Running count, mean and sum of squared deviations, float64, merged pairwise (Chan, Golub, LeVeque 1979, eq. 2.1)."""

    count: int = 0
    mean: float | np.ndarray = 0.0
    squares: float | np.ndarray = 0.0

    def add(self, values_PC: np.ndarray) -> None:
        """Adds `values_PC` (pixels, channels)."""
        if (count := len(values_PC)) == 0:
            return
        mean = values_PC.mean(axis=0, dtype=np.float64)
        squares = ((values_PC - mean) ** 2).sum(axis=0, dtype=np.float64)
        total, difference = self.count + count, mean - self.mean
        self.squares = self.squares + squares + difference**2 * (self.count * count / total)
        self.mean = self.mean + difference * (count / total)
        self.count = total


def channel_statistics(
    dataset: xr.Dataset, plan: WindowPlan, variables: tuple[Variable, ...], progress: Progress | None = None
) -> ChannelStatistics:
    """Statistics of the training part of `plan`: train tiles inside their buffer, training period, a tile in memory at a time.

    The std of a constant variable is 1. Raises RequestError if no pixel of the training part is valid.
    """
    check_fits(dataset, plan)
    training, moments = dataset.isel(time=slice(0, int(plan.train_dates().sum()))), Moments()  # times are sorted
    for block in decoded_blocks(training, sorted({w.tile for w in plan.of_part("train")}), variables, progress):
        values_PC = np.moveaxis(block.x_NCHW, 1, -1)[block.valid_NHW].astype(np.float64)
        for channel, variable in enumerate(variables):
            values_PC[:, channel] = transformed(values_PC[:, channel], variable.transform)
        moments.add(values_PC)
    if moments.count == 0:
        raise RequestError(
            "no pixel of the training part is valid on any of its "
            f"{training.sizes['time']} dates: check the quality mask, the bands' nodata and the variables' valid_range"
        )
    mean, std = np.asarray(moments.mean, np.float64), np.sqrt(np.asarray(moments.squares) / moments.count)
    std[std <= 1e-9 * np.abs(mean)] = 1.0  # a constant series: a std from rounding is not a spread; 1 changes nothing
    return ChannelStatistics(tuple(v.name for v in variables), tuple(mean.tolist()), tuple(std.tolist()), moments.count)
