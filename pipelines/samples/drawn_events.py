"""Floods and fires drawn into a real Sentinel-2 series: made events whose place and time are known exactly.

On every date of an event a pixel gets `real + share (target - usual)`: `usual` is its own median on clear dates of the same time
of year before any event. What the date differs from usual (noise, haze, a dry year) so stays. Where a cloud, its shadow or
missing data hide the ground, nothing is drawn. The scene classes stay those of the real series: a real flood would often be
classed as water, which the demo's quality mask leaves out. Burnt land recovers, floods fall dry.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import xarray as xr
from scipy.ndimage import gaussian_filter

CLASSES = {0: "no event", 1: "flood", 2: "fire"}
FLOOD, FIRE = 1, 2
BEGINS = {FLOOD: "2019-06-14", FIRE: "2019-08-08"}
FLOOD_DAYS, RECOVERY_DAYS = 75.0, 500.0  # a flood is gone after; what is burnt is half-way (1 / e) back after
TARGETS = {  # reflectance x 10000: turbid water; charred ground and stems
    FLOOD: {"B2": 700, "B3": 850, "B4": 750, "B8": 450},
    FIRE: {"B2": 350, "B3": 400, "B4": 480, "B8": 950},
}
SEES_GROUND = (4, 5, 6, 7)  # scene classes
SEASON_DAYS = 45


@dataclass(frozen=True)
class Drawing:
    """`shares` of all pixels that are drawn; in many patches, or position alone would tell.

    `patch_px`: standard deviation of the field that patches are cut from.
    """

    shares: Mapping[int, float]
    patch_px: float


LARGE = Drawing({FLOOD: 0.12, FIRE: 0.12}, 3.5)
RARE = Drawing({FLOOD: 0.01, FIRE: 0.003}, 1.2)


def draw_events(dataset: xr.Dataset, seed: int = 0, drawing: Drawing = LARGE) -> np.ndarray:
    """truth_YX (uint8, codes of `CLASSES`); bands of `dataset` (time, y, x; uint16, 0 missing; and SCL) are changed in place."""
    rng, shape = np.random.default_rng(seed), (dataset.sizes["y"], dataset.sizes["x"])
    truth_YX, share_YX = np.zeros(shape, np.uint8), np.zeros(shape)
    for code, share in drawing.shares.items():
        field_YX = gaussian_filter(rng.normal(size=shape), drawing.patch_px, mode="wrap")
        field_YX = np.where(truth_YX > 0, -np.inf, field_YX)
        edge = np.quantile(field_YX, 1 - share)
        inside_YX = field_YX > edge
        truth_YX[inside_YX] = code
        depth_YX = np.where(inside_YX, field_YX - edge, 0)  # weak at the edge of a patch
        share_YX[inside_YX] = 0.35 + 0.6 * np.clip(depth_YX / np.quantile(depth_YX[inside_YX], 0.5), 0, 1)[inside_YX]
    scene_TYX, times = dataset["SCL"].values, dataset["time"].values.astype("datetime64[D]")
    ground_TYX = np.isin(scene_TYX, SEES_GROUND)
    for code, begin in BEGINS.items():
        inside_YX, first = truth_YX == code, np.datetime64(begin)
        for t in np.flatnonzero(times >= first):
            days = float((times[t] - first).astype(int))
            if (strength := strength_of(code, days)) <= 0:
                continue
            for band, target in TARGETS[code].items():
                usual_YX = usual_of(dataset[band].values, ground_TYX, times, times[t], np.datetime64(min(BEGINS.values())))
                real_YX = dataset[band].values[t]
                drawn_YX = real_YX + strength * share_YX * (target - usual_YX)
                is_drawn_YX = inside_YX & ground_TYX[t] & (real_YX > 0) & np.isfinite(usual_YX)
                dataset[band].values[t] = np.where(is_drawn_YX, np.clip(drawn_YX, 1, 10000), real_YX).astype(real_YX.dtype)
    return truth_YX


def strength_of(code: int, days: float) -> float:
    """Between 1, on the first day, and 0."""
    return max(0.0, 1 - (days / FLOOD_DAYS) ** 4) if code == FLOOD else float(np.exp(-days / RECOVERY_DAYS))


def usual_of(
    values_TYX: np.ndarray, ground_TYX: np.ndarray, times: np.ndarray, date: np.datetime64, before: np.datetime64
) -> np.ndarray:
    """usual_YX float64: the median of clear dates of the same season `before` that day; NaN where never clear."""
    of_year_T = (times - times.astype("datetime64[Y]")).astype(int)
    away_T = np.abs(of_year_T - int((date - date.astype("datetime64[Y]")).astype(int)))
    is_near_T = np.minimum(away_T, 365 - away_T) <= SEASON_DAYS
    usual_YX = np.full(values_TYX.shape[1:], np.nan)
    for chosen_T in ((times < before) & is_near_T, times < before):  # any season where this one never was clear
        seen_TYX = np.where(ground_TYX[chosen_T] & (values_TYX[chosen_T] > 0), values_TYX[chosen_T].astype(np.float64), np.nan)
        known_YX = np.isfinite(seen_TYX).any(axis=0) & np.isnan(usual_YX)
        usual_YX[known_YX] = np.nanmedian(seen_TYX[:, known_YX], axis=0)
    return usual_YX
