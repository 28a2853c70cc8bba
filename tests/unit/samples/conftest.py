"""A small cube with the shape of the contract, and a plan for it."""

import json
from collections.abc import Callable

import numpy as np
import pytest
import xarray as xr

from pipelines.samples.plan import Sampling, Split, WindowPlan
from pipelines.samples.variables import Variable
from pipelines.samples.windows import plan_windows


def make_cube(shape_yx: tuple[int, int] = (31, 29), dates: int = 30, seed: int = 0) -> xr.Dataset:
    """Two bands of uint16 x 1e-4, monthly dates from 2015 on, 10 % of the pixels invalid."""
    rng = np.random.default_rng(seed)
    image = rng.integers(1, 10_000, (dates, 2, *shape_yx)).astype(np.uint16)
    valid = rng.random((dates, *shape_yx)) > 0.1
    image[~np.broadcast_to(valid[:, None], image.shape)] = 0
    times = (np.datetime64("2015-01") + np.arange(dates)).astype("datetime64[ns]")
    cube = xr.Dataset(
        {"image": (("time", "band", "y", "x"), image), "valid": (("time", "y", "x"), valid)},
        coords={"time": times, "band": ["red", "nir"]},
    )
    cube["image"].attrs["bands"] = json.dumps(
        [{"name": n, "scale": 1e-4, "offset": 0.0, "nodata": 0, "unit": ""} for n in ("red", "nir")]
    )
    return cube


@pytest.fixture
def cube() -> xr.Dataset:
    return make_cube()


@pytest.fixture
def new_cube() -> Callable[..., xr.Dataset]:
    return make_cube


@pytest.fixture
def split() -> Split:
    return Split(9, 1, np.datetime64("2016-06-01"), np.datetime64("2017-01-01"))


@pytest.fixture
def plan(cube: xr.Dataset, split: Split) -> WindowPlan:
    """Nine blocks of 9 to 13 pixels: several shapes."""
    return plan_windows(cube.time.values, (31, 29), split, Sampling(), context=3, horizon=2)


@pytest.fixture
def ndvi() -> tuple[Variable, ...]:
    return (Variable("ndvi", "normalized_difference", ("nir", "red"), valid_range=(-1, 1)),)
