"""Prediction intervals whose coverage is promised by held-out windows, not by the model: split conformal prediction.

Pixels of one date err together, so the unit that must be exchangeable is the target date, not the pixel. With D calibration
dates, each of weight 1 / (D + 1) shared by its pixels, and the missing weight at infinity, the quantile of the scores at the
nominal level covers a random pixel of a new date with at least that probability (HCP: Lee, Barber & Willett 2023,
arXiv:2306.06342, sec. 3; Dunn, Wasserman & Ramdas 2022). For one pixel per date this is the usual
ceil((D + 1)(1 - alpha)) / D quantile (Vovk et al. 2005).

A date weighs as much as it has valid pixels, so that the promise is about pixels of the map: cloudy dates, of which a few
contaminated pixels are left, would otherwise widen every interval. So the promise holds on average over many dates rather than
exactly for few; with equally clear dates both are the same.

Years differ (a drought is not exchangeable with a wet year), so the promise is not kept by construction on later time:
coverage is measured on the test windows and reported as it is. Own code instead of MAPIE (scikit-learn regressors, one row
per pixel, no groups): the mathematics is `grouped_quantile`.

Axes: K leads, C variables, H rows, W columns; what follows C may be anything else as well (volumes, labels, tokens).
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from operator import length_hint
from typing import Any

import numpy as np

from pipelines.calendar import seconds_of
from pipelines.errors import RequestError
from pipelines.predictors import Forecaster
from pipelines.progress import Progress
from pipelines.samples.sampling import WindowArrays


@dataclass(frozen=True)
class Intervals:
    """[y - below, y + above] per lead and variable, in physical units.

    `dates`: calibration dates of the lead that has the fewest. `is_bounded` is False where they were too few for the nominal
    coverage (`needed_dates`); then the largest error seen stands in and less may be covered.
    """

    coverage: float
    below_KC: tuple[tuple[float, ...], ...]
    above_KC: tuple[tuple[float, ...], ...]
    dates: int
    is_bounded: bool = True

    def bounds(self, y_KCHW: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(lower, upper) like `y_KCHW`, float32. Raises RequestError for more leads than were calibrated."""
        if y_KCHW.shape[0] > len(self.below_KC):
            raise RequestError(
                f"intervals are calibrated for {len(self.below_KC)} leads, {y_KCHW.shape[0]} are asked for: raise "
                "samples.horizon and train again, or ask for fewer prediction.dates"
            )
        shape = (len(y_KCHW), -1, *[1] * (y_KCHW.ndim - 2))
        below, above = (np.array(margin)[: len(y_KCHW)].reshape(shape) for margin in (self.below_KC, self.above_KC))
        return (y_KCHW - below).astype(np.float32), (y_KCHW + above).astype(np.float32)

    def of_leads(self, lead_K: np.ndarray) -> "Intervals":
        """The intervals of these leads, from 0, in that order."""
        below, above = (tuple(margins[lead] for lead in lead_K) for margins in (self.below_KC, self.above_KC))
        return replace(self, below_KC=below, above_KC=above)

    def to_json(self) -> dict[str, Any]:
        return {**vars(self), **{name: [list(row) for row in getattr(self, name)] for name in ("below_KC", "above_KC")}}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "Intervals":
        rows = {name: tuple(tuple(row) for row in content[name]) for name in ("below_KC", "above_KC")}
        return cls(**{**content, **rows})


def forecast_window(forecaster: Forecaster, window: WindowArrays) -> np.ndarray:
    """y_KCHW float32 on the CPU. Raises ValueError if the shape is not the target's."""
    y = forecaster.forecast(**window.arguments())
    y_KCHW = np.asarray(y.detach().cpu() if hasattr(y, "detach") else y, np.float32)
    if y_KCHW.shape != tuple(window.target_KCHW.shape):
        raise ValueError(f"{type(forecaster).__name__} forecast {y_KCHW.shape}; the target is {tuple(window.target_KCHW.shape)}")
    return y_KCHW


def calibrate(
    forecaster: Forecaster, windows: Iterable[WindowArrays], coverage: float = 0.9, progress: Progress | None = None, *,
    pixels_per_frame: int = 2000, seed: int = 0,
) -> Intervals:  # fmt: skip
    """Symmetric intervals from the errors on `windows` (the validation part: neither trained on nor tested on).

    Of larger frames `pixels_per_frame` random valid pixels are used. Raises RequestError where a lead has no valid pixel.
    """
    rng = np.random.default_rng(seed)
    errors: dict[tuple[int, float], list[np.ndarray]] = {}  # (lead, target date in seconds) -> [error (n, C)]
    pixels: dict[tuple[int, float], int] = {}
    leads = 0
    for done, window in enumerate(windows, start=1):
        y_KCHW, target, valid = forecast_window(forecaster, window), window.target_KCHW.numpy(), window.target_valid_KHW.numpy()
        leads = max(leads, len(y_KCHW))
        for k, day in enumerate(window.target_days_K.tolist()):
            error_nC, key = (target[k] - y_KCHW[k])[:, valid[k]].T, (k, float(seconds_of(day)))
            if len(error_nC):
                pixels[key] = pixels.get(key, 0) + len(error_nC)
                few = len(error_nC) <= pixels_per_frame
                errors.setdefault(key, []).append(error_nC if few else rng.choice(error_nC, pixels_per_frame, replace=False))
        if progress:
            progress(done, max(done, length_hint(windows)))
    keys = [[key for key in sorted(errors) if key[0] == k] for k in range(leads)]
    if not keys or not all(keys):
        raise RequestError("a lead has no valid pixel in the calibration windows; mend `split` or samples.min_valid_fraction")
    margins = []
    for of_lead in keys:
        dates = [np.abs(np.concatenate(errors[key])) for key in of_lead]
        weights = np.array([pixels[key] for key in of_lead], np.float64)
        variables = range(dates[0].shape[1])
        margins.append(tuple(grouped_quantile([date[:, c] for date in dates], coverage, weights) for c in variables))
    fewest = min(len(of_lead) for of_lead in keys)
    return Intervals(coverage, tuple(margins), tuple(margins), fewest, fewest >= needed_dates(coverage))


def needed_dates(coverage: float) -> int:
    """Calibration dates below which no finite interval has the nominal coverage: D / (D + 1) must reach the level."""
    miss = 1 - coverage
    return math.ceil((1 - miss) / miss - 1e-9)


def grouped_quantile(groups: list[np.ndarray], level: float, weights_G: np.ndarray | None = None) -> float:
    """The smallest score s with: sum over groups of weight x (share of the group's scores <= s) >= level x all weight.

    All weight is that of the G groups and, at infinity, that of one more, average group: the one to come. Where not even the
    largest score reaches the level (G / (G + 1) < level), the largest score. Default: equal weights.

    >>> grouped_quantile([np.array([float(i)]) for i in range(1, 20)], 0.9)  # ceil(20 * 0.9) = the 18th of 19
    18.0
    """
    weights_G = np.ones(len(groups)) if weights_G is None else weights_G
    values = np.concatenate(groups)
    of_score = np.concatenate([np.full(len(group), w / len(group)) for group, w in zip(groups, weights_G, strict=True)])
    order = np.argsort(values, kind="stable")
    reached = np.cumsum(of_score[order]) >= (level - 1e-12) * (weights_G.sum() + weights_G.mean())
    return float(values[order[reached.argmax()]] if reached.any() else values[order[-1]])


class CoverageTally:
    """Counts, window by window, how often the truth lies inside the intervals; sums per target date, lead and variable."""

    def __init__(self, intervals: Intervals):
        self.intervals = intervals
        self._of_date: dict[float, np.ndarray] = {}  # (K, C, 4): pixels, inside, above, width

    def add(self, window: WindowArrays, y_KCHW: np.ndarray) -> None:
        lower, upper = self.intervals.bounds(y_KCHW)
        target, valid_KHW = window.target_KCHW.numpy(), window.target_valid_KHW.numpy()
        for k, day in enumerate(window.target_days_K.tolist()):
            if valid_KHW[k].any():
                low, truth, high = (image[k][:, valid_KHW[k]] for image in (lower, target, upper))
                counts = [np.ones_like(truth), (low <= truth) & (truth <= high), truth > high, high - low]
                of_date = self._of_date.setdefault(float(seconds_of(day)), np.zeros((*y_KCHW.shape[:2], 4)))
                of_date[k] += np.stack([count.sum(axis=1, dtype=np.float64) for count in counts], axis=-1)

    def to_json(self) -> dict[str, Any]:
        """Measured coverage (share of pixels, and mean over dates), mean width in physical units; overall and by lead."""
        sums_DKC4 = np.stack(list(self._of_date.values()))
        by_lead = [{"lead": k + 1, **_coverage(sums_DKC4[:, k : k + 1])} for k in range(sums_DKC4.shape[1])]
        known = self.intervals
        facts = {"nominal": known.coverage, "calibration_dates": known.dates, "is_bounded": known.is_bounded}
        return {**facts, "overall": _coverage(sums_DKC4), "by_lead": by_lead}


def _coverage(sums_DKC4: np.ndarray) -> dict[str, Any]:
    pixels, inside, above, width = sums_DKC4.sum(axis=(0, 1, 2))
    if pixels == 0:
        return {"coverage": None, "coverage_mean_of_dates": None, "missed_above": None, "mean_width": None, "pixels": 0}
    of_date = sums_DKC4.sum(axis=(1, 2))
    seen = of_date[:, 0] > 0
    return {
        "coverage": float(inside / pixels),
        "coverage_mean_of_dates": float((of_date[seen, 1] / of_date[seen, 0]).mean()),
        "missed_above": float(above / pixels),
        "mean_width": float(width / pixels),
        "pixels": int(pixels),
    }
