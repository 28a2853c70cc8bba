"""Which pixels did not change, and which did and when, as far as the images show it. For evaluation; never for detection.

One level per year is compared: the median of the three consecutive months in which the variable is typically highest
(where a canopy, a crop, a water index has most to lose; typically lowest where only rises are sought). It sees all of the
series, so "seen in the images" is what it says, not truth on the ground.
"""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

MONTHS = 3
LEAST_ACQUISITIONS = 2  # within the season, to make a level


@dataclass(frozen=True)
class YearLevels:
    """`level_KYX` float32: the season's median of each year in `years_K`, NaN with less than two acquisitions; months from 1."""

    years_K: np.ndarray
    level_KYX: np.ndarray
    months: tuple[int, ...]


def year_levels(x_NYX: np.ndarray, valid_NYX: np.ndarray, days_N: np.ndarray, highest: bool = True) -> YearLevels:
    """The level of each calendar year's best season; see the module. Days float64 since 1970-01-01."""
    dates_N = np.floor(days_N).astype("datetime64[D]")
    years_N = dates_N.astype("datetime64[Y]").astype(int) + 1970
    months_N = dates_N.astype("datetime64[M]").astype(int) % 12
    of_date_N = np.array([np.median(x[v]) if v.any() else np.nan for x, v in zip(x_NYX, valid_NYX, strict=True)])
    first = _best_quarter(of_date_N, months_N, highest)
    months = tuple((first + offset) % 12 for offset in range(MONTHS))
    # A season that crosses New Year belongs to the year in which it begins.
    season_year_N = np.where((months_N < first) & np.isin(months_N, months), years_N - 1, years_N)
    years_K = np.unique(years_N)
    level_KYX = np.full((len(years_K), *x_NYX.shape[1:]), np.nan, np.float32)
    for k, year in enumerate(years_K):
        pick = np.isin(months_N, months) & (season_year_N == year)
        if pick.any():
            level_KYX[k] = _median_where(x_NYX[pick], valid_NYX[pick])
    return YearLevels(years_K, level_KYX, tuple(month + 1 for month in months))


def stable_pixels(levels: YearLevels, limit: float, direction: str = "both", away_px: int = 2) -> np.ndarray:
    """(Y, X) bool: no later year lies beyond an earlier one by more than `limit`, here and `away_px` pixels around.

    `direction` is the sense in which a later year may not lie: down, up or both. A pixel with fewer than two levels is
    not stable.
    """
    least = largest = np.full(levels.level_KYX.shape[1:], np.nan, np.float32)
    fell = rose = np.zeros(least.shape, bool)
    for level in levels.level_KYX:
        with np.errstate(invalid="ignore"):
            fell = fell | (largest - level > limit)
            rose = rose | (level - least > limit)
        least, largest = np.fmin(least, level), np.fmax(largest, level)
    moved = {"down": fell, "up": rose, "both": fell | rose}[direction]
    moved |= np.isfinite(levels.level_KYX).sum(axis=0) < 2
    return ~moved if not moved.any() or away_px == 0 else ndimage.distance_transform_edt(~moved) > away_px


def first_change_year(levels: YearLevels, limit: float, direction: str = "down") -> np.ndarray:
    """(Y, X) int64: the first year whose level lies more than `limit` beyond the median of all years before it; 0: none."""
    year_YX = np.zeros(levels.level_KYX.shape[1:], int)
    for k in range(1, len(levels.years_K)):
        before = _median_where(levels.level_KYX[:k], np.isfinite(levels.level_KYX[:k]), least=1)
        step = levels.level_KYX[k] - before
        with np.errstate(invalid="ignore"):
            is_beyond = {"down": step < -limit, "up": step > limit, "both": np.abs(step) > limit}[direction]
        year_YX[is_beyond & (year_YX == 0)] = levels.years_K[k]
    return year_YX


def _best_quarter(of_date_N: np.ndarray, months_N: np.ndarray, highest: bool) -> int:
    """First month (0-11) of the three whose months' medians have the highest (lowest) mean; empty months do not count."""
    seen_N = np.isfinite(of_date_N)
    of_month = {m: float(np.median(of_date_N[seen_N & (months_N == m)])) for m in range(12) if (seen_N & (months_N == m)).any()}
    best, at = -np.inf, 0
    for first in range(12):
        values = [of_month[m] for m in ((first + offset) % 12 for offset in range(MONTHS)) if m in of_month]
        if len(values) >= min(2, len(of_month)):
            value = sum(values) / len(values) * (1 if highest else -1) if values else -np.inf
            if value > best:
                best, at = value, first
    return at


def _median_where(x_NYX: np.ndarray, valid_NYX: np.ndarray, least: int = LEAST_ACQUISITIONS) -> np.ndarray:
    """Median over N of the valid values, float32, NaN with fewer than `least`."""
    ordered = np.sort(np.where(valid_NYX, x_NYX, np.inf), axis=0)
    count = valid_NYX.sum(axis=0)
    low, high = np.maximum((count - 1) // 2, 0)[None], np.minimum(count // 2, len(x_NYX) - 1)[None]
    with np.errstate(invalid="ignore"):
        middle = (np.take_along_axis(ordered, low, 0)[0] + np.take_along_axis(ordered, high, 0)[0]) / 2
    return np.where(count >= least, middle, np.nan).astype(np.float32)
