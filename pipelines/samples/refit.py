"""Windows to fit a forecaster on all that is known before a date, whatever part of the split that time is in.

The blocks are those of training, so a test block stays unseen. The time before the test is the past of a forecast from there, so
a baseline that is compared with it, or published, may learn from all of it, and not from the training period alone. So may a
network, once what is chosen of it has been chosen on earlier dates.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import xarray as xr

from pipelines.calendar import DAY, from_days, iso_utc
from pipelines.cube.store import space_dims
from pipelines.errors import RequestError
from pipelines.samples.plan import Window, WindowPlan
from pipelines.samples.prepare import SampleSettings, read_windows
from pipelines.samples.sampling import WindowArrays
from pipelines.samples.windows import LOWER, Issue, assign_blocks, list_issues, part_of

CHOOSING = 0.25  # share of the training windows' issue dates, the last ones, on which a training is chosen
LEAST_ISSUES = 4  # of them, on either side


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


def choosing_plan(plan: WindowPlan) -> WindowPlan | None:
    """The training period of `plan` divided once more: the earlier windows for training, later ones of held-out blocks.

    The latter (part "validation") are in the validation blocks, with all their targets in the last `CHOOSING` of the training
    windows' time. What is chosen there (epochs, residual scale) has seen nothing of the validation part, whose errors then are
    honest. None where there are fewer than `LEAST_ISSUES` issue dates on either side.
    """
    days_N, training, split = plan.days_N, plan.of_part("train"), plan.split
    of_issue = {window.issue: window for window in training}
    later = sorted(of_issue)[-max(round(CHOOSING * len(of_issue)), 1) :]
    begins_day = min(of_issue[later[0]].target_days_K)
    inner = replace(split, validation_from=from_days(np.array([begins_day]))[0], test_from=split.validation_from)
    issues = [Issue(window.context_T, window.target_K, window.target_days_K) for _, window in sorted(of_issue.items())]
    part_of_issue = {issue.context_T[-1]: part_of(issue, days_N, inner) for issue in issues}
    if min(sum(found == part for found in part_of_issue.values()) for part in ("train", "validation")) < LEAST_ISSUES:
        return None
    earlier = [window for window in training if part_of_issue[window.issue] == "train"]
    held_out = sorted({window.tile for window in plan.of_part("validation")})
    chosen_on = [issue for issue in issues if part_of_issue[issue.context_T[-1]] == "validation"]
    windows = [
        Window("validation", tile, one.context_T, one.target_K, one.target_days_K) for tile in held_out for one in chosen_on
    ]
    return replace(plan, split=inner, windows=(*earlier, *windows))
