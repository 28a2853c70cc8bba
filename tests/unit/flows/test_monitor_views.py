"""Which dates a picture of a watched place shows."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from flows.stages import monitor_views
from flows.stages.monitor_views import changed_by_half, choose_dates


@pytest.fixture
def felled_whole(monkeypatch: pytest.MonkeyPatch) -> tuple[SimpleNamespace, xr.Dataset]:
    """A place of .8 that is .3 from 2019-08 on, all of it; watched since 2019, looked at every month."""
    times = np.arange("2018-01", "2020-02", dtype="datetime64[M]").astype("datetime64[ns]")
    dataset = xr.Dataset(coords={"time": times, "valid_fraction": ("time", np.ones(len(times)))})
    levels = np.where(times < np.datetime64("2019-08-01"), 0.8, 0.3)
    monkeypatch.setattr(monitor_views, "read_thinned", lambda invocation, dataset, index: np.full((2, 2), levels[index]))
    monitoring = SimpleNamespace(start=np.datetime64("2019-01-01"), test=SimpleNamespace(direction="down"))
    return SimpleNamespace(run=SimpleNamespace(monitoring=monitoring)), dataset


def test_after_is_not_a_date_before_the_change(felled_whole: tuple[SimpleNamespace, xr.Dataset]) -> None:
    invocation, dataset = felled_whole
    times = dataset["time"].values
    _, after = choose_dates(invocation, dataset)
    assert times[after] < np.datetime64("2019-08-01")  # the brightest date is one on which it stood
    before, after = choose_dates(invocation, dataset, np.datetime64("2019-08-01"))
    assert str(times[after])[:7] == "2019-08"
    assert str(times[before])[:7] == "2018-09"  # the last of the same season


def test_half_of_the_area_decides() -> None:
    dates = pd.to_datetime(["2019-05-01", "2019-08-01", "2020-02-01"], utc=True)
    frame = pd.DataFrame({"median_date": dates, "area_m2": [300.0, 500.0, 200.0]})
    assert changed_by_half(frame) == np.datetime64("2019-08-01")
    assert changed_by_half(frame[:0]) is None
