"""Stable pixels and change seen in the images, on levels written out by hand."""

import numpy as np
import pytest

from pipelines.monitoring.detector import Observations
from pipelines.monitoring.stable import YearLevels, first_change_year, stable_pixels, year_levels


def days(*iso):
    return np.array([np.datetime64(day, "D").astype(float) for day in iso])


def levels(*per_year):
    level_KYX = np.array(per_year, np.float32)[:, None, :]
    return YearLevels(np.arange(2016, 2016 + len(per_year)), level_KYX, (6, 7, 8))


def monthly(value_of_month, years=(2016, 2017)):
    """One date a month, twice a month from June to August."""
    dates = [f"{year}-{month:02d}-{day:02d}" for year in years for month in range(1, 13) for day in (5, 15, 25)]
    x = np.array([value_of_month[int(date[5:7]) - 1] for date in dates], np.float32)[:, None, None]
    return x, np.ones(x.shape, bool), days(*dates)


def test_the_season_is_the_highest_quarter_of_the_year():
    green_in_summer = [0.3, 0.3, 0.4, 0.5, 0.7, 0.9, 0.9, 0.9, 0.7, 0.5, 0.4, 0.3]
    x, valid, when = monthly(green_in_summer)
    found = year_levels(Observations(x, valid, when))
    assert found.months == (6, 7, 8)
    assert found.level_KYX[:, 0, 0].tolist() == pytest.approx([0.9, 0.9])
    assert year_levels(Observations(x, valid, when), highest=False).months == (12, 1, 2)


def test_a_season_across_new_year_belongs_to_the_year_it_begins_in():
    green_in_winter = [0.9, 0.9, 0.4, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3, 0.4, 0.5, 0.9]
    x, valid, when = monthly(green_in_winter, (2016, 2017))
    x[when >= days("2017-06-01")[0]] = 0.1
    found = year_levels(Observations(x, valid, when))
    assert found.months == (12, 1, 2)
    assert found.years_K.tolist() == [2016, 2017]
    assert found.level_KYX[:, 0, 0].tolist() == pytest.approx([0.9, 0.1])


def test_one_look_makes_no_level():
    x, valid, when = monthly([0.3] * 5 + [0.9] * 3 + [0.3] * 4)
    summer_2017 = (when >= days("2017-06-01")[0]) & (when < days("2017-09-01")[0])
    valid[np.flatnonzero(summer_2017)[1:]] = False
    assert np.isnan(year_levels(Observations(x, valid, when)).level_KYX[1, 0, 0])


def test_stable_is_what_never_falls_by_more_than_the_limit():
    found = levels([0.9, 0.9, 0.5, 0.9, np.nan], [0.85, 0.6, 0.9, np.nan, np.nan], [0.8, 0.9, 0.9, 0.8, 0.9])
    assert stable_pixels(found, 0.15, "down", away_px=0)[0].tolist() == [True, False, True, True, False]
    assert stable_pixels(found, 0.15, "up", away_px=0)[0].tolist() == [True, False, False, True, False]
    assert stable_pixels(found, 0.15, "both", away_px=0)[0].tolist() == [True, False, False, True, False]


def test_stable_pixels_keep_away_from_change():
    found = levels([0.9] * 6, [0.2] + [0.9] * 5)
    assert stable_pixels(found, 0.15, "down", away_px=2)[0].tolist() == [False, False, False, True, True, True]


def test_the_first_year_beyond_the_median_of_those_before():
    found = levels([0.9, 0.9, 0.5, np.nan], [0.7, 0.9, 0.9, 0.9], [0.2, 0.7, 0.9, 0.9])
    assert first_change_year(found, 0.15, "down")[0].tolist() == [2017, 2018, 0, 0]
    assert first_change_year(found, 0.15, "up")[0].tolist() == [0, 0, 2017, 0]
