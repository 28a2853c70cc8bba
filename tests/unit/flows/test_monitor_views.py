"""What a picture of a watched place shows before and after."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from flows.stages import monitor_views
from flows.stages.monitor_views import (
    changed_by_half,
    choose_dates,
    choose_seasons,
    last_season,
    median_of,
    observations,
    season_name,
)


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


@pytest.fixture
def looked_at(monkeypatch: pytest.MonkeyPatch):
    """A place looked at on the 5th, 15th and 25th of every month: high from June to August, half of it felled on one day."""

    def folder(end: str, felled: str, hazy: tuple[str, ...] = ()) -> tuple[SimpleNamespace, xr.Dataset, pd.DataFrame]:
        months = np.arange("2017-01", end, dtype="datetime64[M]").astype("datetime64[D]")
        times = (months[:, None] + np.array([4, 14, 24])).ravel().astype("datetime64[ns]")
        dataset = xr.Dataset(coords={"time": times, "valid_fraction": ("time", np.ones(len(times)))})

        def read(invocation, dataset, index):
            month = int(times[index].astype("datetime64[M]").astype(int)) % 12
            image = np.full((2, 2), 0.8 if 5 <= month <= 7 else 0.6, np.float32)
            image[:, 0] -= 0.5 * (times[index] >= np.datetime64(felled))
            return image * 0.3 if str(times[index])[:10] in hazy else image

        monkeypatch.setattr(monitor_views, "read_thinned", read)
        monkeypatch.setattr(monitor_views, "unit_of", lambda *_: "")
        monitoring = SimpleNamespace(start=np.datetime64("2019-01-01"), test=SimpleNamespace(direction="down"))
        run = SimpleNamespace(monitoring=monitoring, variable=SimpleNamespace(name="ndvi"))
        frame = pd.DataFrame({"median_date": pd.to_datetime([felled], utc=True), "area_m2": [1.0]})
        return SimpleNamespace(run=run), dataset, frame

    return folder


FELLED = np.array([[True, False], [True, False]])


def test_before_and_after_are_medians_of_the_same_season_and_haze_is_gone(looked_at):
    before, after = observations(*looked_at("2020-12", "2019-09-10", hazy=("2018-07-15", "2020-07-25")), FELLED)
    assert before.when == "Jun-Aug 2018, median of 9 looks"
    assert after.when == "Jun-Aug 2020, median of 9 looks"
    np.testing.assert_allclose(before.values, np.full((2, 2), 0.8), rtol=1e-6)
    np.testing.assert_allclose(after.values, [[0.3, 0.8]] * 2, rtol=1e-6)


def test_after_is_of_the_last_looks_where_the_change_is_later_than_every_season(looked_at):
    _, after = observations(*looked_at("2020-08", "2020-07-10"), FELLED)
    assert after.when == "last looks to 2020-07-25, median of 2 looks"
    np.testing.assert_allclose(after.values, [[0.3, 0.8]] * 2, rtol=1e-6)


def test_a_season_begins_after_the_change_if_one_does(looked_at):
    """Felled in July 2020, seen until November: the high season holds looks of before, autumn does not."""
    before, after = observations(*looked_at("2020-12", "2020-07-10"), FELLED)
    assert before.when.split(",")[0].split()[0] == after.when.split(",")[0].split()[0]
    assert after.when.startswith("Aug-Oct 2020")
    np.testing.assert_allclose(after.values[:, 0] + 0.5, after.values[:, 1], rtol=1e-6)


def test_without_a_season_in_both_years_single_dates_are_shown(looked_at):
    invocation, dataset, frame = looked_at("2019-02", "2019-01-10")
    assert choose_seasons(invocation, dataset, None) is None
    before, after = observations(invocation, dataset, frame, FELLED)
    assert (before.when, after.when) == ("", "")


@pytest.mark.parametrize(
    ("end", "month", "name"),
    [("2019-01-01", 5, "Jun-Aug 2018"), ("2019-01-01", 9, "Oct-Dec 2018"), ("2019-01-01", 11, "Dec 2017-Feb 2018"),
     ("2019-08-31", 5, "Jun-Aug 2018"), ("2019-09-01", 5, "Jun-Aug 2019")],
)  # fmt: skip
def test_the_last_season_is_over_by_the_date(end, month, name):
    assert season_name(last_season(np.datetime64(end), month)) == name


def test_patches_too_small_for_the_picture_and_places_never_seen_are_no_fault(looked_at, monkeypatch):
    """Thinned, a patch can be gone; then after is of the season after all. Nothing at all seen is drawn as nothing seen."""
    folder = looked_at("2020-08", "2020-07-10")
    _, after = observations(*folder, np.zeros((2, 2), bool))
    assert not after.when.startswith("last looks")
    monkeypatch.setattr(monitor_views, "read_thinned", lambda *_: np.full((2, 2), np.nan, np.float32))
    before, after = observations(*folder, FELLED)
    assert np.isnan(before.values).all()
    assert np.isnan(after.values).all()


def test_a_median_is_of_what_was_seen():
    images = [
        np.array([[1.0, np.nan]], np.float32),
        np.array([[3.0, np.nan]], np.float32),
        np.array([[np.nan, np.nan]], np.float32),
    ]
    np.testing.assert_array_equal(median_of(images), np.array([[2.0, np.nan]], np.float32))
