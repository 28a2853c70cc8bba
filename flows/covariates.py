"""The covariates of a run, read for its cube.

Outside of flows.tasks, since keys of stages hold what was read (`Covariates.key`), as of scenes, and not the code that reads it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from configs.tasks.forecast import ForecastRun, build_samples
from configs.tasks.forecast_covariates import build_covariates

if TYPE_CHECKING:
    import xarray as xr

    from pipelines.samples.prepare import SampleSettings


def samples_of(run: ForecastRun, dataset: xr.Dataset) -> SampleSettings:
    """What samples of an opened cube are made of, with the covariates on its grid. Raises MissingInput, RequestError."""
    from pipelines.cube.store import grid_of

    return build_samples(run, build_covariates(run.covariates, grid_of(dataset)))
