"""Times of CF coordinates: what CF-1.11 allows, against dates worked out by hand."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from pipelines.errors import SceneRefused
from pipelines.sources.cf_times import CfTimes, cf_times


def read(tmp_path: Path, values: list[float], units: str, calendar: str = "", dtype: str = "f8", **attributes: object) -> CfTimes:
    with h5py.File(tmp_path / "t.nc", "w") as file:
        data = file.create_dataset("time", data=np.array(values, dtype))
        data.attrs.update({"units": units, **({"calendar": calendar} if calendar else {}), **attributes})
        return cf_times(data, "t.nc")


@pytest.mark.parametrize(
    ("units", "calendar", "values", "dates", "note"),
    [
        ("days since 2018-01-01", "", [0, 59.5], ["2018-01-01T00:00:00", "2018-03-01T12:00:00"], ""),
        ("days since 2020-01-01", "proleptic_gregorian", [59], ["2020-02-29T00:00:00"], ""),
        ("days since 2020-01-01", "noleap", [58, 59], ["2020-02-28T00:00:00", "2020-03-01T00:00:00"], "taken as they are"),
        ("days since 2020-01-01", "365_day", [365], ["2021-01-01T00:00:00"], "calendar 365_day"),
        ("hours since 2020-01-01", "360_day", [24 * 30 + 6], ["2020-02-01T06:00:00"], "calendar 360_day"),
        ("days since 2020-01-01", "all_leap", [60], ["2020-03-01T00:00:00"], "calendar all_leap"),
        ("days since 2019-12-19", "julian", [0], ["2020-01-01T00:00:00"], "were converted"),
        ("days since 0001-01-01", "proleptic_gregorian", [737424 + 1 / 24], ["2020-01-01T01:00:00"], ""),
        ("days since 0001-01-01", "standard", [737426 + 1 / 24], ["2020-01-01T01:00:00"], "Julian before 1582"),
        ("months since 2000-01-15", "", [0, 13], ["2000-01-15T00:00:00", "2001-02-15T00:00:00"], "counted in months"),
        ("years since 2000-02-01", "", [20], ["2020-02-01T00:00:00"], "counted in years"),
    ],
)  # fmt: skip
def test_times_of_every_calendar_become_dates(tmp_path, units, calendar, values, dates, note):
    found = read(tmp_path, values, units, calendar)
    assert found.values.tolist() == [int(np.datetime64(date, "ns").astype(int)) for date in dates]
    assert found.problems == {}
    assert (note in " ".join(found.notes)) if note else not found.notes


@pytest.mark.parametrize(
    ("units", "calendar", "problem"),
    [
        ("days since 2019-02-29", "360_day", "2019-02-29 of the calendar 360_day is no date of the standard calendar"),
        ("days since 2019-02-29", "all_leap", "2019-02-29 of the calendar all_leap is no date"),
        ("days since 1500-01-01", "noleap", "1500-01-01 of the calendar noleap is outside of 1678 to 2261"),
        ("months since 2019-01-31", "", "1 months since 2019-01-31 is no date of the calendar standard"),
    ],
)
def test_dates_that_do_not_exist_are_named(tmp_path, units, calendar, problem):
    steps = [1] if units.startswith("months") else [0]
    found = read(tmp_path, steps, units, calendar)
    assert np.isnat(found.values).all()
    assert problem in found.problems[0]


def test_parts_of_months_are_refused_one_by_one(tmp_path):
    found = read(tmp_path, [1, 1.5, -1], "months since 2019-01-01", _FillValue=-1.0)
    assert np.isnat(found.values).tolist() == [False, True, True]
    assert list(found.problems) == [1]
    assert "no whole number" in found.problems[1]


def test_times_outside_the_valid_range_are_missing(tmp_path):
    found = read(tmp_path, [0, 10, 20], "hours since 2018-01-01 00:00:00 +02:00", valid_max=15.0)
    assert np.datetime_as_string(found.values, "h").tolist() == ["2017-12-31T22", "2018-01-01T08", "NaT"]


def test_packed_times_of_another_calendar(tmp_path):
    found = read(tmp_path, [0, 118], "days since 2020-01-01", "noleap", "i2", scale_factor=0.5, add_offset=1.0)
    assert np.datetime_as_string(found.values, "D").tolist() == ["2020-01-02", "2020-03-02"]


@pytest.mark.parametrize(
    ("units", "calendar"),
    [("days", ""), ("days since 2020-01-01", "none"), ("moons since 2020-01-01", "noleap"), (f"days since {'2' * 5000}", "")],
)
def test_units_and_calendars_that_nothing_is_known_of_are_refused(tmp_path, units, calendar):
    with pytest.raises(SceneRefused, match=r"no-date.*expected"):
        read(tmp_path, [1], units, calendar)


@pytest.mark.parametrize(("zone", "hour"), [("", 0), (" UTC", 0), (" GMT", 0), (" +02:00", -2), ("Z", 0)])
def test_offsets_from_utc_are_taken_off(tmp_path, zone, hour):
    found = read(tmp_path, [24], f"hours since 2020-01-01 00:00:00{zone}")
    assert found.values[0] == np.datetime64("2020-01-02T00") + np.timedelta64(hour, "h")


@pytest.mark.parametrize("calendar", ["", "noleap"])
def test_names_of_time_zones_are_refused(tmp_path, calendar):
    with pytest.raises(SceneRefused, match=r"no-date.*the offset of CET is not clear: write it as \+hh:mm"):
        read(tmp_path, [24], "hours since 2020-01-01 00:00:00 CET", calendar)
