"""Windows to fit a baseline on all that is known before a date, whatever part of the split that time is in.

The blocks are those of training, so a test block stays unseen. The time before the test is the past of a forecast from there, so
a baseline that is compared with it, or published, may learn from all of it, and not from the training period alone.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import xarray as xr

from pipelines.calendar import DAY, iso_utc
from pipelines.cube.store import space_dims
from pipelines.errors import RequestError
from pipelines.samples.plan import Window, WindowPlan
from pipelines.samples.prepare import SampleSettings, read_windows
from pipelines.samples.sampling import WindowArrays
from pipelines.samples.windows import LOWER, assign_blocks, list_issues, part_of


@dataclass(frozen=True)
class KnownWindows:
    """The windows of `plan`, read from the cube each time it is gone through; without those with too few valid targets."""

    dataset: xr.Dataset
    plan: WindowPlan
    settings: SampleSettings

    def thinned(self, most: int) -> "KnownWindows":
        """At most `most` of the windows, evenly spread over blocks and dates; blocks without any are not read."""
        every = math.ceil(len(self.plan.windows) / most)
        return replace(self, plan=replace(self.plan, windows=self.plan.windows[::every]))

    def __iter__(self) -> Iterator[WindowArrays]:
        for window in read_windows(self.dataset, self.plan, self.settings.variables, "train", self.settings.covariates):
            if valid_share(window) >= self.settings.min_valid_fraction:
                yield window


def valid_share(window: WindowArrays) -> float:
    """The share of the target pixels of the tile that are valid; the margin around it has none."""
    return int(window.target_valid_KHW.sum()) / (len(window.target_valid_KHW) * math.prod(window.tile.shape))


def windows_before(dataset: xr.Dataset, settings: SampleSettings, before: np.datetime64) -> KnownWindows:
    """All windows in the training blocks whose targets lie before `before` (UTC).

    As in training, `usable_N` leaves out the time from a window's issue date to half a year after its last target. Raises
    RequestError where no window ends before that date, or the raster cannot be divided into blocks.
    """
    shape = tuple(dataset.sizes[dim] for dim in space_dims(dataset))
    times, steps = dataset["time"].values.astype("datetime64[ns]"), settings.steps
    split = replace(settings.split, validation_from=before, test_from=before + DAY, gap_days=0.0)
    plan = WindowPlan(times, shape, split, steps, settings.context, settings.horizon, settings.stride, ())
    issues = list_issues(times, steps, settings.context, settings.horizon) if len(times) > 1 else []
    known = [issue for issue in issues if part_of(issue, plan.days_N, split) == "train"][:: settings.stride]
    if not known:
        needed = f"{settings.context} + {settings.horizon} steps (samples.context + samples.horizon)"
        raise RequestError(f"no baseline can be fitted: no window of {needed} ends before {iso_utc(before)}: {LOWER}")
    windows = tuple(
        Window("train", tile, issue.context_T, issue.target_K, issue.target_days_K)
        for tile in assign_blocks(shape, split)["train"]
        for issue in known
    )
    return KnownWindows(dataset, replace(plan, windows=windows), settings)
