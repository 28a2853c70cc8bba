"""Which dates a forecast is issued from and for, and what a person must know of the choice."""

from collections.abc import Callable
from datetime import datetime

import numpy as np
import pytest
import xarray as xr
from rasterio.crs import CRS

from pipelines.inference.job import choose_dates
from pipelines.samples.plan import Sampling, Split
from pipelines.samples.prepare import SampleSettings
from pipelines.samples.variables import Variable

VARIABLES = (Variable("red", "band", ("B4",)), Variable("ndvi", "normalized_difference", ("B8", "B4")))
SPLIT = Split(8, 0, np.datetime64("2020-01-20"), np.datetime64("2020-02-10"))
SETTINGS = SampleSettings(VARIABLES, SPLIT, Sampling(), context=3, horizon=2)


@pytest.fixture
def dated(cube: Callable[[int, int], xr.Dataset]) -> xr.Dataset:
    """Six dates, ten days apart from 2020-01-01 on."""
    dataset = cube(16, 16).assign_coords(scene_id=("time", [f"scene {i}" for i in range(6)]), spatial_ref=0)
    dataset["spatial_ref"].attrs |= {"crs_wkt": CRS.from_epsg(32635).to_wkt(), "affine": [10.0, 0.0, 0.0, 0.0, -10.0, 0.0]}
    return dataset


def test_by_default_the_next_steps_after_the_last_date(dated: xr.Dataset) -> None:
    request = choose_dates(dated, "S1", SETTINGS)
    assert request.issued_utc == "2020-02-20T00:00:00Z"
    assert request.targets_iso == ["2020-03-01T00:00:00Z", "2020-03-11T00:00:00Z"]
    assert request.scene_ids == ("scene 3", "scene 4", "scene 5")
    assert (request.units, request.notes) == ({"red": "1", "ndvi": ""}, ())


def test_an_issue_long_after_the_last_date_before_it_is_noted(dated: xr.Dataset) -> None:
    request = choose_dates(dated, "S1", SETTINGS, issue=datetime(2020, 1, 29), dates=[datetime(2020, 2, 1)])
    assert request.notes == ("issued from 2020-01-21T00:00:00Z, the last date up to 2020-01-29, which was asked for",)
    assert request.targets_iso == ["2020-02-01T00:00:00Z"]
    assert choose_dates(dated, "S1", SETTINGS, issue=datetime(2020, 1, 21, 12)).notes == ()


def test_a_context_that_the_dates_do_not_cover_is_noted(dated: xr.Dataset) -> None:
    request = choose_dates(dated.isel(time=slice(2)), "S1", SETTINGS)
    assert request.notes == ("the dates cover 2 of the 3 steps of context: scores and intervals are of forecasts from all of it",)
