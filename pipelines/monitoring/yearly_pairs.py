"""Two summers beside each other: what the rules for pairs of images find of the change that a series shows.

A rule for pairs has no date of alarm and no false alarms by chance of a night, but what it calls changed between the best seasons
of two years can be counted in stable pixels, and in those whose change the images show.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from pipelines.monitoring.stable import first_change_year, stable_pixels, year_levels

LEAST_CHANGED = 10
# (x_TCHW float32, valid_THW) of two dates -> (score_HW, threshold)
PairIndex = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, float]]


def evaluate_year_pairs(
    indices: Mapping[str, PairIndex],
    bands_NCYX: np.ndarray,
    x_NYX: np.ndarray,
    valid_NYX: np.ndarray,
    days_N: np.ndarray,
    start_day: float,
    limit: float,
    direction: str = "both",
) -> dict[str, dict[str, Any]]:
    """Per rule: `false_alarms` per 1000 stable pixels and year, and `found_YEAR` of the change that the images first show in it.

    `bands_NCYX` are physical values, `x_NYX` the watched variable; both on all dates. Each year from `start_day` on is compared
    with the year before it, by the medians of the season in which the variable is highest (lowest for `up`). What "the images
    show" is defined by the variable's own drop between seasons (`pipelines.monitoring.stable`), so a difference of that variable
    has the advantage.
    """
    levels = year_levels(x_NYX, valid_NYX, days_N, highest=direction != "up")
    stable_YX = stable_pixels(levels, limit, "down" if direction == "both" else direction)
    year_YX = first_change_year(levels, limit, direction)
    dates_N = np.floor(days_N).astype("datetime64[D]")
    first_year = int(str(np.datetime64(int(start_day), "D"))[:4])
    figures: dict[str, dict[str, Any]] = {name: {"thresholds": {}} for name in indices}
    alarms = {name: [0, 0] for name in indices}  # called changed, looked at: in stable pixels
    for year in range(first_year, int(str(dates_N[-1])[:4]) + 1):
        pair = [season_median(bands_NCYX, valid_NYX, dates_N, y, levels.months) for y in (year - 1, year)]
        x_TCYX, valid_TYX = np.stack([x for x, _ in pair]), np.stack([valid for _, valid in pair])
        seen_YX = valid_TYX.all(axis=0)
        if not seen_YX.any():
            continue
        for name, index in indices.items():
            score_YX, threshold = index(x_TCYX, valid_TYX)
            with np.errstate(invalid="ignore"):
                is_changed_YX = score_YX > threshold
            pick_YX = seen_YX & stable_YX
            alarms[name][0] += int(is_changed_YX[pick_YX].sum())
            alarms[name][1] += int(pick_YX.sum())
            figures[name]["thresholds"][str(year)] = float(threshold)
            felled_YX = seen_YX & (year_YX == year)
            if felled_YX.sum() >= LEAST_CHANGED:
                figures[name][f"found_{year}"] = round(float(is_changed_YX[felled_YX].mean()), 4)
    for name, (called, looked) in alarms.items():
        figures[name]["false_alarms"] = round(1000 * called / looked, 2) if looked else None
    return figures


def season_median(
    bands_NCYX: np.ndarray, valid_NYX: np.ndarray, dates_N: np.ndarray, year: int, months: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """(x_CYX float32, 0 where not seen; valid_YX) of one year's season; one usable look is enough. Months from 1."""
    first = months[0]
    month_N = dates_N.astype("datetime64[M]").astype(int) % 12 + 1
    year_N = dates_N.astype("datetime64[Y]").astype(int) + 1970
    of_season_N = np.isin(month_N, months) & (np.where(month_N < first, year_N - 1, year_N) == year)
    x_NCYX, valid = bands_NCYX[of_season_N], valid_NYX[of_season_N]
    seen_YX = valid.any(axis=0) if len(valid) else np.zeros(valid_NYX.shape[1:], bool)
    x_CYX = np.zeros(bands_NCYX.shape[1:], np.float32)
    if seen_YX.any():
        masked = np.where(valid[:, None], x_NCYX, np.nan)[:, :, seen_YX]
        x_CYX[:, seen_YX] = np.nanmedian(masked, axis=0)
    return x_CYX, seen_YX
