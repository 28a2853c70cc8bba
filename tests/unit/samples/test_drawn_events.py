"""Drawn floods and fires: where and when they are is the truth; what hides the ground hides them, and all else stays real."""

import numpy as np
import pytest
import xarray as xr

from pipelines.samples.drawn_events import BEGINS, CLASSES, FIRE, FLOOD, TARGETS, draw_events, strength_of

SIDE, CLOUD, BANDS = 40, 9, ("B2", "B3", "B4", "B8")


@pytest.fixture(scope="module")
def drawn() -> tuple[xr.Dataset, xr.Dataset, np.ndarray]:
    """The series before and after, and the truth; every fifth date is under cloud, one pixel is missing."""
    times = np.arange("2017-01-01", "2020-01-01", np.timedelta64(10, "D"), dtype="datetime64[D]").astype("datetime64[ns]")
    rng, shape = np.random.default_rng(0), (len(times), SIDE, SIDE)
    bands = {band: rng.normal(2000, 50, shape).astype(np.uint16) for band in BANDS}
    scene = np.full(shape, 4, np.uint16)
    scene[::5] = CLOUD
    for values in bands.values():
        values[:, 3, 3] = 0  # missing
    arrays = {name: (("time", "y", "x"), values) for name, values in {**bands, "SCL": scene}.items()}
    real = xr.Dataset(arrays, coords={"time": times})
    made = real.copy(deep=True)
    return real, made, draw_events(made, seed=1)


def test_only_events_that_have_begun_and_are_seen_differ(drawn: tuple[xr.Dataset, xr.Dataset, np.ndarray]) -> None:
    real, made, truth_YX = drawn
    days = real["time"].values.astype("datetime64[D]")
    for band in BANDS:
        differs_TYX = real[band].values != made[band].values
        assert not differs_TYX[:, truth_YX == 0].any()
        assert not differs_TYX[::5].any()
        assert not differs_TYX[:, 3, 3].any()
        for code, begin in BEGINS.items():
            assert not differs_TYX[days < np.datetime64(begin)][:, truth_YX == code].any()
    np.testing.assert_array_equal(real["SCL"], made["SCL"])


def test_an_event_comes_near_its_colour_and_keeps_what_a_date_differs_by(
    drawn: tuple[xr.Dataset, xr.Dataset, np.ndarray],
) -> None:
    real, made, truth_YX = drawn
    hazy, days = real.copy(deep=True), real["time"].values
    date_of = {code: next(t for t, day in enumerate(days) if t % 5 and day >= np.datetime64(BEGINS[code])) for code in BEGINS}
    for t in date_of.values():
        hazy["B8"].values[t] += 40
    draw_events(hazy, seed=1)
    for code, t in date_of.items():
        inside_YX = truth_YX == code
        inside_YX[3, 3] = False
        assert made["B8"].values[t][inside_YX].min() == pytest.approx(TARGETS[code]["B8"], abs=400)
        np.testing.assert_array_equal(hazy["B8"].values[t][inside_YX] - made["B8"].values[t][inside_YX], 40)
    assert set(np.unique(truth_YX)) == set(CLASSES)


def test_a_flood_falls_dry_and_burnt_land_recovers_slowly() -> None:
    assert (strength_of(FLOOD, 0), strength_of(FIRE, 0), strength_of(FLOOD, 76)) == (1, 1, 0)
    assert 0.4 < strength_of(FIRE, 365) < strength_of(FIRE, 100) < 1
