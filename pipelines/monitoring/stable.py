"""Which pixels did not change, and which did and when, as far as the images show it. For evaluation; never for detection.

One level per year is compared: the median of the three consecutive months in which the variable is typically highest
(where a canopy, a crop, a water index has most to lose; typically lowest where only rises are sought). It sees all of the
series, so "seen in the images" is what it says, not truth on the ground.
"""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from pipelines.monitoring.detector import Observations
from pipelines.monitoring.harmonic_model import masked_median

MONTHS = 3
LEAST_ACQUISITIONS = 2  # within the season, to make a level
ENOUGH_STABLE = 1000  # pixels; with fewer, those near a change are taken as well


@dataclass(frozen=True)
class YearLevels:
    """`level_KYX` float32: the season's median of each year in `years_K`, NaN with less than two acquisitions; months from 1."""

    years_K: np.ndarray
    level_KYX: np.ndarray
    months: tuple[int, ...]

    @property
    def is_compared_YX(self) -> np.ndarray:
        """Pixels with the levels of two years."""
        is_compared_YX: np.ndarray = np.isfinite(self.level_KYX).sum(axis=0) >= 2
        return is_compared_YX


def year_levels(series: Observations, highest: bool = True) -> YearLevels:
    """The level of each calendar year's best season; see the module."""
    months_N, years_N = months_and_years(series.days_N)
    of_date_N = [np.median(x[v]) if v.any() else np.nan for x, v in zip(series.x_NYX, series.valid_NYX, strict=True)]
    first = _best_quarter(np.array(of_date_N), months_N, highest)
    months = tuple((first + offset - 1) % 12 + 1 for offset in range(MONTHS))
    years_K = np.unique(years_N)
    level_KYX = np.full((len(years_K), *series.x_NYX.shape[1:]), np.nan, np.float32)
    for k, year in enumerate(years_K):
        season = series.on(is_in_season(series.days_N, months, year))
        if len(season.days_N):
            level_KYX[k] = masked_median(season.x_NYX, season.valid_NYX, 0, LEAST_ACQUISITIONS, np.nan)
    return YearLevels(years_K, level_KYX, months)


def months_and_years(days_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Calendar months (from 1) and years of days since 1970-01-01."""
    months_N = np.floor(days_N).astype("datetime64[D]").astype("datetime64[M]").astype(int)
    return months_N % 12 + 1, months_N // 12 + 1970


def is_in_season(days_N: np.ndarray, months: tuple[int, ...], year: int) -> np.ndarray:
    """(N,) bool: in the season of `year`. One that crosses New Year belongs to the year in which it begins."""
    months_N, years_N = months_and_years(days_N)
    of_year_N: np.ndarray = np.where(months_N < months[0], years_N - 1, years_N) == year
    return of_year_N & np.isin(months_N, months)


def choose_stable(levels: YearLevels, limit: float, direction: str) -> np.ndarray:
    """(Y, X) bool: stable pixels, two pixels off any change where that leaves enough of them, else nearer to it. Where no pixel
    has levels of two years, all pixels."""
    if not levels.is_compared_YX.any():
        return np.ones(levels.level_KYX.shape[1:], bool)
    for away_px in (2, 1, 0):
        stable_YX = stable_pixels(levels, limit, direction, away_px)
        if stable_YX.sum() >= ENOUGH_STABLE:
            break
    return stable_YX


def stable_pixels(levels: YearLevels, limit: float, direction: str = "both", away_px: int = 2) -> np.ndarray:
    """(Y, X) bool: no later year lies beyond an earlier one by more than `limit`, here and `away_px` pixels around. `direction`
    is the sense in which a later year may not lie: down, up or both. A pixel with fewer than two levels is not stable."""
    least = largest = np.full(levels.level_KYX.shape[1:], np.nan, np.float32)
    fell = rose = np.zeros(least.shape, bool)
    for level in levels.level_KYX:
        with np.errstate(invalid="ignore"):
            fell = fell | (largest - level > limit)
            rose = rose | (level - least > limit)
        least, largest = np.fmin(least, level), np.fmax(largest, level)
    moved = {"down": fell, "up": rose, "both": fell | rose}[direction] | ~levels.is_compared_YX
    stable_YX: np.ndarray = ~moved
    if moved.any() and away_px:
        stable_YX = ndimage.distance_transform_edt(stable_YX) > away_px
    return stable_YX


def first_change_year(levels: YearLevels, limit: float, direction: str = "down") -> np.ndarray:
    """(Y, X) int64: the first year whose level lies more than `limit` beyond the median of all years before it; 0: none."""
    year_YX = np.zeros(levels.level_KYX.shape[1:], int)
    for k in range(1, len(levels.years_K)):
        earlier_KYX = levels.level_KYX[:k]
        step = levels.level_KYX[k] - masked_median(earlier_KYX, np.isfinite(earlier_KYX), axis=0, fill=np.nan)
        with np.errstate(invalid="ignore"):
            is_beyond = {"down": step < -limit, "up": step > limit, "both": np.abs(step) > limit}[direction]
        year_YX[is_beyond & (year_YX == 0)] = levels.years_K[k]
    return year_YX


def _best_quarter(of_date_N: np.ndarray, months_N: np.ndarray, highest: bool) -> int:
    """First month of the three whose months' medians have the highest (lowest) mean; empty months do not count."""
    seen_N = np.isfinite(of_date_N)
    of_month = {m: float(np.median(of_date_N[seen_N & (months_N == m)])) for m in set(months_N[seen_N].tolist())}
    best, at = -np.inf, 1
    for first in range(1, 13):
        values = [of_month[m] for m in ((first + offset - 1) % 12 + 1 for offset in range(MONTHS)) if m in of_month]
        if values and len(values) >= min(2, len(of_month)):
            value = sum(values) / len(values) * (1 if highest else -1)
            if value > best:
                best, at = value, first
    return at
