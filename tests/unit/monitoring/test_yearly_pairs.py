"""Pairs of seasons: a known felling is found, a year that was not seen is left out, a stable place gives no alarm."""

import numpy as np

from pipelines.monitoring.detector import Observations
from pipelines.monitoring.yearly_pairs import evaluate_year_pairs, season_median


def series(felled_from: str = "2019-06-01") -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Two bands and their difference, monthly for three years; rows 0-3 of 12 fall by .4 from a date on."""
    dates = np.arange("2017-01", "2020-01", dtype="datetime64[M]").astype("datetime64[D]")
    season = 0.5 + 0.3 * np.cos(2 * np.pi * (dates.astype("datetime64[M]").astype(int) % 12 - 6) / 12)
    x = np.repeat(season[:, None], 144, axis=1).reshape(-1, 12, 12).astype(np.float32)
    x[dates >= np.datetime64(felled_from), :4] -= 0.4
    return np.stack([x, -x], axis=1), x, np.ones(x.shape, bool), dates.astype(float)


def difference(x_TCYX: np.ndarray, valid_TYX: np.ndarray) -> tuple[np.ndarray, float]:
    return np.abs(x_TCYX[1, 0] - x_TCYX[0, 0]), 0.2


START = float(np.datetime64("2019-01-01", "D").astype(int))


def test_a_felling_is_found_in_its_year_and_nothing_else_is() -> None:
    bands, x, valid, days = series()
    found = evaluate_year_pairs({"difference": difference}, bands, Observations(x, valid, days), START, 0.15, "down")[
        "difference"
    ]
    assert found["found_2019"] == 1.0
    assert found["false_alarms"] == 0.0
    assert found["thresholds"] == {"2019": 0.2}


def test_alarms_in_stable_pixels_are_counted_per_thousand_and_year() -> None:
    bands, x, valid, days = series("2100-01-01")
    everything = evaluate_year_pairs(
        {"all": lambda x, v: (np.ones(x.shape[2:]), 0.5)}, bands, Observations(x, valid, days), START, 0.15, "down"
    )
    assert everything["all"]["false_alarms"] == 1000.0
    assert "found_2019" not in everything["all"]


def test_the_median_of_a_season_takes_usable_looks_only() -> None:
    bands, _, valid, days = series()
    dates = days.astype("datetime64[D]")
    valid[dates == np.datetime64("2018-07-01"), 0, 0] = False
    valid[:, 5, 5] = False
    x_CYX, seen = season_median(bands, valid, days, 2018, (6, 7, 8))
    assert not seen[5, 5]
    assert x_CYX[0, 5, 5] == 0
    june, july, august = (bands[dates == np.datetime64(f"2018-0{m}-01"), 0, 0, 1][0] for m in (6, 7, 8))
    assert x_CYX[0, 0, 1] == np.median([june, july, august]).astype(np.float32)
    assert x_CYX[0, 0, 0] == np.median([june, august]).astype(np.float32)


def test_a_season_across_new_year_belongs_to_the_year_it_begins_in() -> None:
    bands, _, valid, days = series()
    x_CYX, _ = season_median(bands, valid, days, 2017, (12, 1, 2))
    expected = [bands[i, 0, 0, 0] for i in (11, 12, 13)]
    assert x_CYX[0, 0, 0] == np.median(expected).astype(np.float32)
