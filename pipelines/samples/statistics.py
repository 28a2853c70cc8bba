"""Mean and standard deviation of each channel over the training part: train tiles inside their buffer, training period."""

from dataclasses import dataclass

import numpy as np
import xarray as xr

from pipelines.errors import RequestError
from pipelines.progress import Progress
from pipelines.samples.blocks import check_fits, decoded_blocks
from pipelines.samples.plan import WindowPlan
from pipelines.samples.variables import Variable


@dataclass(frozen=True)
class ChannelStatistics:
    """Per channel `mean` and `std` (population) of the values after the variable's `transform`, as the network gets them.

    `count` is the number of pixel-dates they come from.
    """

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
        count = len(values_PC)
        if count == 0:
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
    """Statistics of the training part of `plan`, one tile in memory at a time. The std of a constant variable is 1.

    Raises RequestError if no pixel of the training part is valid.
    """
    check_fits(dataset, plan)
    training = dataset.isel(time=slice(0, int(plan.train_dates().sum())))  # times are sorted
    moments = Moments()
    for block in decoded_blocks(training, sorted({w.tile for w in plan.of_part("train")}), variables, progress):
        moments.add(transformed(np.moveaxis(block.x_NCHW, 1, -1)[block.valid_NHW].astype(np.float64), variables))
    if moments.count == 0:
        raise RequestError(
            "no pixel of the training part is valid on any of its "
            f"{training.sizes['time']} dates: check the quality mask, the bands' nodata and the variables' valid_range"
        )
    mean = np.asarray(moments.mean, np.float64)
    std = np.sqrt(np.asarray(moments.squares) / moments.count)
    std[std <= 1e-9 * np.abs(mean)] = 1.0  # a constant series: a std from rounding is not a spread; 1 changes nothing
    return ChannelStatistics(tuple(v.name for v in variables), tuple(mean.tolist()), tuple(std.tolist()), moments.count)


def transformed(values_PC: np.ndarray, variables: tuple[Variable, ...]) -> np.ndarray:
    """Values with each variable's transform applied, in place."""
    for channel, variable in enumerate(variables):
        if variable.transform == "log1p":
            values_PC[:, channel] = np.log1p(np.maximum(values_PC[:, channel], 0))
    return values_PC
