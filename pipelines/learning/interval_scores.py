"""How good intervals are: coverage, width, interval score, CRPS and reliability, beside intervals that anybody could give.

A forecast with intervals at L levels states 2 L + 1 quantiles of the truth: the ends of its intervals and, as the median, the
forecast itself. From these:

    interval score = width + 2 / (1 - level) x how far the truth lies outside     (Gneiting & Raftery 2007, eq. 43)
    CRPS = 2 x integral of the pinball loss over all probabilities                (Gneiting & Raftery 2007; Laio & Tamea 2007)

both in physical units, smaller is better. The integral is taken by the midpoint rule over the stated quantiles, each of which
stands for the probabilities nearest to it (2.5 % and 97.5 % for what lies beyond). A CRPS without intervals would be the MAE.

Beside them: `climatological`, quantiles of the pixel's own past values in the season, and `constant`, quantiles of the model's
errors on validation (neither corrected for few dates). All are scored on the same pixels. Axes: as in `conformal`; n pixels,
Q quantiles, N dates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from pipelines.calendar import TROPICAL_YEAR_DAYS, from_days, iso_utc
from pipelines.learning.conformal import Intervals
from pipelines.learning.forecast_intervals import SEASON_WIDTH_DAYS, Calibrated
from pipelines.learning.past_errors import sample_pixels, values_at
from pipelines.learning.window_work import WindowTally
from pipelines.samples.sampling import WindowArrays

CLIMATOLOGICAL, CONSTANT = "climatological", "constant"
SUMS = ("pixels", "inside", "above", "width", "score", "crps")  # then the pixels inside at every level
PIXELS, INSIDE, ABOVE, WIDTH, SCORE, CRPS = range(len(SUMS))
PIXELS_PER_FRAME = 500
MOST_DATES = (0.1, 0.9)  # quantiles of the dates between which their coverage is shown


class FrameScores(NamedTuple):
    """The sums (C, S) of every kind of interval on the frame of a lead, of `leads`."""

    k: int
    leads: int
    seconds: float
    of_method: dict[str, np.ndarray]


class IntervalTally(WindowTally):
    """Scores the intervals of several forecasters, window by window; sums per target date, lead and variable.

    Of larger frames `pixels_per_frame` random valid pixels are scored, which stand for all of them.
    """

    def __init__(self, calibrated: Mapping[str, Calibrated], model: str, *, pixels_per_frame: int = PIXELS_PER_FRAME):
        self.intervals = {name: one.intervals for name, one in calibrated.items()}
        self.model, self.pixels_per_frame = model, pixels_per_frame
        self.constant, self.rng = calibrated[model].constant, np.random.default_rng(0)
        self._of_date: dict[str, dict[float, np.ndarray]] = {name: {} for name in (*self.intervals, CLIMATOLOGICAL, CONSTANT)}

    @property
    def levels_L(self) -> tuple[float, ...]:
        known = self.intervals[self.model]
        return known.levels_L or (known.coverage,)

    def draw(self, window: WindowArrays, names: Sequence[str]) -> None:
        sample_pixels(window, self.pixels_per_frame, self.rng)

    def measure(
        self, window: WindowArrays, forecasts: Mapping[str, np.ndarray], rng: np.random.Generator | None
    ) -> list[FrameScores]:
        """Of every forecaster whose intervals are known; others are passed over."""
        measured, days_K, target_KCHW = [], window.target_days_K.numpy(), window.target_KCHW.numpy()
        at = {name: intervals.at(days_K) for name, intervals in self.intervals.items()}
        probability_Q, nominal = probabilities(self.levels_L), self.intervals[self.model].coverage
        for k, seconds, place_n, count in sample_pixels(window, self.pixels_per_frame, rng):
            y_Cn = {name: values_at(forecasts[name][k], place_n) for name in at}
            found = {name: intervals.quantiles(k, y_Cn[name]) for name, intervals in at.items()}
            if self.constant is not None:
                found[CONSTANT] = self.constant.quantiles(k, y_Cn[self.model])
            found[CLIMATOLOGICAL] = climatological_quantiles(window, place_n, k, probability_Q)
            truth_Cn = values_at(target_KCHW[k], place_n).astype(np.float64)
            of_method = {
                name: quantile_sums(quantile_QCn, truth_Cn, self.levels_L, nominal) * (count / len(place_n))
                for name, quantile_QCn in found.items()
                if np.isfinite(quantile_QCn).all()
            }
            measured.append(FrameScores(k, len(days_K), seconds, of_method))
        return measured

    def include(self, measured: list[FrameScores]) -> None:
        for k, leads, seconds, of_method in measured:
            for name, sums_CS in of_method.items():
                self._of_date[name].setdefault(seconds, np.zeros((leads, *sums_CS.shape)))[k] += sums_CS

    def to_json(self, shipped: str) -> dict[str, Any]:
        """Figures in physical units: of the shipped intervals overall, by lead and date; of all overall, and reliability."""
        known = self.intervals[shipped]
        table = {name: np.stack([found[key] for key in sorted(found)]) for name, found in self._of_date.items() if found}
        ours_DKCS = table[shipped]
        dates = [iso_utc(date).removesuffix("Z") for date in from_days(np.array(sorted(self._of_date[shipped])) / 86_400)]
        return {
            "nominal": known.coverage,
            "calibration_dates": known.dates,
            "is_bounded": known.is_bounded,
            "overall": _figures(ours_DKCS),
            "by_lead": [{"lead": k + 1, **_figures(ours_DKCS[:, k : k + 1])} for k in range(ours_DKCS.shape[1])],
            "by_date": [{"date": date, **_figures(of_date[None])} for date, of_date in zip(dates, ours_DKCS, strict=True)],
            "methods": {name: _figures(sums_DKCS) for name, sums_DKCS in table.items()},
            "reliability": {name: self._reliability(sums_DKCS, self.intervals.get(name)) for name, sums_DKCS in table.items()},
        }

    def _reliability(self, sums_DKCS: np.ndarray, known: Intervals | None) -> list[dict[str, Any]]:
        total_S = sums_DKCS.sum(axis=(0, 1, 2))
        measured_L = total_S[len(SUMS) :] / total_S[PIXELS]
        bounded_L = (known.bounded_L or (known.is_bounded,)) if known else (True,) * len(self.levels_L)
        rows = zip(self.levels_L, measured_L.tolist(), bounded_L, strict=True)
        return [{"nominal": level, "measured": share, "is_bounded": is_bounded} for level, share, is_bounded in rows]


def probabilities(levels_L: tuple[float, ...]) -> np.ndarray:
    """The probabilities of the 2 L + 1 quantiles, (Q,), rising."""
    half_L = np.array(levels_L) / 2
    return np.concatenate([0.5 - half_L[::-1], [0.5], 0.5 + half_L])


def quantile_sums(quantile_QCn: np.ndarray, truth_Cn: np.ndarray, levels_L: tuple[float, ...], nominal: float) -> np.ndarray:
    """Sums over the pixels of each variable, (C, S): `SUMS`, then the pixels inside at every level."""
    levels, at = len(levels_L), levels_L.index(nominal)
    low_LCn, high_LCn = quantile_QCn[:levels][::-1], quantile_QCn[levels + 1 :]
    truth_32, low_32, high_32 = (values.astype(np.float32) for values in (truth_Cn, low_LCn, high_LCn))
    inside_LCn = (low_32 <= truth_32) & (truth_32 <= high_32)  # as staged: both ends belong to it
    low_Cn, high_Cn = low_LCn[at], high_LCn[at]
    outside_Cn = np.maximum(low_Cn - truth_Cn, 0) + np.maximum(truth_Cn - high_Cn, 0)
    score_Cn = high_Cn - low_Cn + 2 / (1 - nominal) * outside_Cn
    of_pixel = [np.ones_like(truth_Cn), inside_LCn[at], truth_32 > high_32[at], high_Cn - low_Cn, score_Cn]
    of_pixel += [crps(quantile_QCn, truth_Cn, probabilities(levels_L)), *inside_LCn]
    return np.stack([values.sum(axis=1, dtype=np.float64) for values in of_pixel], axis=1)


def crps(quantile_QCn: np.ndarray, truth_Cn: np.ndarray, probability_Q: np.ndarray) -> np.ndarray:
    """Continuous ranked probability score like `truth_Cn`, by the midpoint rule over the quantiles.

    >>> crps(np.full((3, 1, 1), 2.0), np.array([[5.0]]), np.array([0.25, 0.5, 0.75]))  # one value: the absolute error
    array([[3.]])
    """
    edges = np.concatenate([[0.0], (probability_Q[1:] + probability_Q[:-1]) / 2, [1.0]])
    weight_Q, error_QCn = np.diff(edges), truth_Cn - quantile_QCn
    pinball_QCn = np.where(error_QCn >= 0, probability_Q[:, None, None], probability_Q[:, None, None] - 1) * error_QCn
    score_Cn: np.ndarray = 2 * np.tensordot(weight_Q, pinball_QCn, axes=1)
    return score_Cn


def climatological_quantiles(window: WindowArrays, place_n: np.ndarray, k: int, probability_Q: np.ndarray) -> np.ndarray:
    """(Q, C, n): quantiles of the usable values of each pixel, weighted by their distance in the year from the target date.

    A pixel without a usable value has the mean of the others' quantiles; NaN where there is none. Without a year of dates all
    weigh alike.
    """
    x_UCn, valid_U1n, near_U = _past_of(window, place_n, k)
    order_UCn = np.argsort(np.where(valid_U1n, x_UCn, np.inf), axis=0)
    weight_UCn = np.take_along_axis(np.broadcast_to(near_U[:, None, None] * valid_U1n, x_UCn.shape), order_UCn, axis=0)
    reached_UCn, x_UCn = np.cumsum(weight_UCn, axis=0), np.take_along_axis(x_UCn, order_UCn, axis=0)
    reached_UCn = reached_UCn / np.where(reached_UCn[-1] > 0, reached_UCn[-1], np.nan)
    number_QCn = np.stack([(reached_UCn < probability - 1e-12).sum(axis=0) for probability in probability_Q])
    quantile_QCn = np.take_along_axis(x_UCn, np.minimum(number_QCn, len(near_U) - 1), axis=0).astype(np.float64)
    is_seen_Cn = np.isfinite(reached_UCn[-1])
    if not is_seen_Cn.any():
        return np.full_like(quantile_QCn, np.nan)
    mean_QC1 = np.stack([value_Cn.mean(axis=1, where=is_seen_Cn, keepdims=True) for value_Cn in quantile_QCn])
    return np.where(is_seen_Cn, quantile_QCn, mean_QC1)


def climatological_frequency(window: WindowArrays, place_n: np.ndarray, k: int, limits_G: np.ndarray) -> np.ndarray:
    """(G, n): how often the usable values of each pixel's first variable reached the limits, weighted as its quantiles are.

    A pixel without a usable value has the mean of the others, 0 where there is none.
    """
    x_UCn, valid_U1n, near_U = _past_of(window, place_n, k)
    weight_Un = near_U[:, None] * valid_U1n[:, 0]
    total_n = weight_Un.sum(axis=0)
    reached_Gn = np.stack([(weight_Un * (x_UCn[:, 0] >= limit)).sum(axis=0) for limit in limits_G])
    mean_G1 = reached_Gn.sum(axis=1, keepdims=True) / max(total_n.sum(), 1e-12)
    found_Gn: np.ndarray = np.where(total_n > 0, reached_Gn / np.where(total_n > 0, total_n, 1), mean_G1)
    return found_Gn


def _past_of(window: WindowArrays, place_n: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(values (U, C, n), valid (U, 1, n), weights of the distance in the year (U,)) of the window's usable dates."""
    usable_N = window.usable_N.numpy()
    days_U = window.days_N.numpy()[usable_N]
    x_UCn = window.x_NCHW.numpy()[usable_N].reshape(len(days_U), window.x_NCHW.shape[1], -1)[..., place_n]
    valid_U1n = window.valid_NHW.numpy()[usable_N].reshape(len(days_U), 1, -1)[..., place_n]
    apart_U = np.abs(days_U - float(window.target_days_K[k])) % TROPICAL_YEAR_DAYS
    near_U = np.exp(-((np.minimum(apart_U, TROPICAL_YEAR_DAYS - apart_U) / SEASON_WIDTH_DAYS) ** 2) / 2) + 1e-6
    if np.ptp(days_U) < TROPICAL_YEAR_DAYS:
        near_U = np.ones_like(near_U)
    return x_UCn, valid_U1n, near_U


def _figures(sums_DKCS: np.ndarray) -> dict[str, Any]:
    total_S = sums_DKCS.sum(axis=(0, 1, 2))[: len(SUMS)]
    names = ("coverage", "coverage_mean_of_dates", "missed_above", "mean_width", "interval_score", "crps")
    if total_S[PIXELS] == 0:
        return {**dict.fromkeys((*names, "coverage_of_dates")), "pixels": 0}
    of_date = sums_DKCS.sum(axis=(1, 2))
    seen = of_date[:, PIXELS] > 0
    share = total_S / total_S[PIXELS]
    inside_D = of_date[seen, INSIDE] / of_date[seen, PIXELS]
    figures = (share[INSIDE], inside_D.mean(), share[ABOVE], share[WIDTH], share[SCORE], share[CRPS])
    most_dates = {"coverage_of_dates": np.quantile(inside_D, MOST_DATES).tolist()}
    plain = {name: float(value) for name, value in zip(names, figures, strict=True)}
    return {**plain, **most_dates, "pixels": round(total_S[PIXELS])}
