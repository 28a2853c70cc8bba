"""From a cube to samples: the settings of a run in one value, the windows that they plan, what is read to fit and train."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import xarray as xr

from pipelines.calendar import median_step_days
from pipelines.progress import Progress
from pipelines.samples.cache import Prepare, SampleCache, WindowArrays, build_samples
from pipelines.samples.plan import Sampling, Split, WindowPlan
from pipelines.samples.reading import every_nth, read_windows
from pipelines.samples.splits import plan_windows
from pipelines.samples.variables import Variable


@dataclass(frozen=True)
class SampleSettings:
    """What samples are made of: `context` steps in, `horizon` steps out, one window every `stride` steps.

    min_valid_fraction: windows with a smaller share of usable targets are left out.
    """

    variables: tuple[Variable, ...]
    split: Split
    steps: Sampling
    context: int
    horizon: int
    stride: int = 1
    min_valid_fraction: float = 0.1


def plan_cube(dataset: xr.Dataset, settings: SampleSettings) -> WindowPlan:
    """Every window of the cube. Raises RequestError if blocks or dates do not suffice."""
    shape_yx = dataset.sizes["y"], dataset.sizes["x"]
    times, steps = dataset["time"].values, settings.steps
    return plan_windows(times, shape_yx, settings.split, steps, settings.context, settings.horizon, settings.stride)


def windows_to_fit(
    dataset: xr.Dataset, plan: WindowPlan, settings: SampleSettings, progress: Progress | None = None
) -> Iterator[WindowArrays]:
    """Some training windows, evenly spread, straight from the cube: enough for the few numbers of a baseline."""
    windows = read_windows(dataset, plan, settings.variables, "train")
    return every_nth(windows, len(plan.of_part("train")), progress)


def cut_samples(
    dataset: xr.Dataset,
    snapshot: str,
    plan: WindowPlan,
    settings: SampleSettings,
    prepare: Prepare,
    folder: Path,
    progress: Progress | None = None,
    *,
    prepare_key: str,
) -> SampleCache:
    """The sample cache in `folder`, opened if it is there; see `build_samples`. `prepare_key`: what `prepare` depends on."""
    return build_samples(
        dataset,
        snapshot,
        folder,
        plan,
        settings.variables,
        prepare,
        progress,
        prepare_key=prepare_key,
        min_valid_fraction=settings.min_valid_fraction,
    )


def step_days(dataset: xr.Dataset, settings: SampleSettings) -> float:
    """Days from one step to the next: as set, else the median distance of the dates."""
    return settings.steps.every_days or median_step_days(dataset["time"].values)
