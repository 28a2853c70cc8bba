"""Which acquisitions show a site before and after a change."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from pipelines.monitoring.seasons import (
    Acquisitions,
    before_and_after,
    changed_by_half,
    choose_dates,
    choose_seasons,
    last_season,
    median_of,
    season_name,
)

START = np.datetime64("2019-01-01")
FELLED = np.array([[True, False], [True, False]])


def test_after_is_not_a_date_before_the_change() -> None:
    """A site of .8 that is .3 from 2019-08 on, all of it; seen every month."""
    times = np.arange("2018-01", "2020-02", dtype="datetime64[M]").astype("datetime64[ns]")
    levels = np.where(times < np.datetime64("2019-08-01"), 0.8, 0.3)
    site = Acquisitions(times, np.ones(len(times)), START, "down", lambda index: np.full((2, 2), levels[index]))
    _, after = choose_dates(site)
    assert times[after] < np.datetime64("2019-08-01"), "the highest date is one before the change"
    before, after = choose_dates(site, np.datetime64("2019-08-01"))
    assert str(times[after])[:7] == "2019-08"
    assert str(times[before])[:7] == "2018-09"  # the last of the same season


def test_half_of_the_area_decides() -> None:
    dates = pd.to_datetime(["2019-05-01", "2019-08-01", "2020-02-01"], utc=True)
    frame = pd.DataFrame({"median_date": dates, "area_m2": [300.0, 500.0, 200.0]})
    assert changed_by_half(frame) == np.datetime64("2019-08-01")
    assert changed_by_half(frame[:0]) is None


def seen_until(end: str, felled: str, hazy: tuple[str, ...] = ()) -> tuple[Acquisitions, np.datetime64]:
    """Seen on the 5th, 15th and 25th of every month: high from June to August, the left half felled on one day."""
    months = np.arange("2017-01", end, dtype="datetime64[M]").astype("datetime64[D]")
    times = (months[:, None] + np.array([4, 14, 24])).ravel().astype("datetime64[ns]")

    def read(index: int) -> np.ndarray:
        month = int(times[index].astype("datetime64[M]").astype(int)) % 12
        image = np.full((2, 2), 0.8 if 5 <= month <= 7 else 0.6, np.float32)
        image[:, 0] -= 0.5 * (times[index] >= np.datetime64(felled))
        return image * 0.3 if str(times[index])[:10] in hazy else image

    return Acquisitions(times, np.ones(len(times)), START, "down", read), np.datetime64(felled)


def test_before_and_after_are_medians_of_the_same_season_and_haze_is_gone() -> None:
    before, after = before_and_after(*seen_until("2020-12", "2019-09-10", hazy=("2018-07-15", "2020-07-25")), FELLED)
    assert before.when == "Jun-Aug 2018, median of 9 dates"
    assert after.when == "Jun-Aug 2020, median of 9 dates"
    np.testing.assert_allclose(before.values, np.full((2, 2), 0.8), rtol=1e-6)
    np.testing.assert_allclose(after.values, [[0.3, 0.8]] * 2, rtol=1e-6)


def test_after_is_of_the_last_acquisitions_where_the_change_is_later_than_every_season() -> None:
    _, after = before_and_after(*seen_until("2020-08", "2020-07-10"), FELLED)
    assert after.when == "last dates to 2020-07-25, median of 2 dates"
    np.testing.assert_allclose(after.values, [[0.3, 0.8]] * 2, rtol=1e-6)


def test_a_season_begins_after_the_change_if_one_does() -> None:
    """Felled in July 2020, seen until November: the high season holds acquisitions of before, autumn does not."""
    before, after = before_and_after(*seen_until("2020-12", "2020-07-10"), FELLED)
    assert before.when.split()[0] == after.when.split()[0]
    assert after.when.startswith("Aug-Oct 2020")
    np.testing.assert_allclose(after.values[:, 0] + 0.5, after.values[:, 1], rtol=1e-6)


def test_without_a_season_in_both_years_single_dates_are_shown() -> None:
    site, half = seen_until("2019-02", "2019-01-10")
    assert choose_seasons(site, None) is None
    assert [shown.when for shown in before_and_after(site, half, FELLED)] == ["", ""]


@pytest.mark.parametrize(
    ("end", "month", "name"),
    [("2019-01-01", 5, "Jun-Aug 2018"), ("2019-01-01", 9, "Oct-Dec 2018"), ("2019-01-01", 11, "Dec 2017-Feb 2018"),
     ("2019-08-31", 5, "Jun-Aug 2018"), ("2019-09-01", 5, "Jun-Aug 2019")],
)  # fmt: skip
def test_the_last_season_is_over_by_the_date(end: str, month: int, name: str) -> None:
    assert season_name(last_season(np.datetime64(end), month)) == name


def test_patches_too_small_for_the_picture_and_sites_never_seen_are_no_fault() -> None:
    """Thinned, a patch can be gone; then after is of the season after all. Nothing at all seen is drawn as nothing seen."""
    site, half = seen_until("2020-08", "2020-07-10")
    _, after = before_and_after(site, half, np.zeros((2, 2), bool))
    assert not after.when.startswith("last dates")
    unseen = replace(site, read=lambda index: np.full((2, 2), np.nan, np.float32))
    assert all(np.isnan(shown.values).all() for shown in before_and_after(unseen, half, FELLED))


def test_a_median_is_of_what_was_seen() -> None:
    images = [np.array([[value, np.nan]], np.float32) for value in (1.0, 3.0, np.nan)]
    np.testing.assert_array_equal(median_of(images), np.array([[2.0, np.nan]], np.float32))
