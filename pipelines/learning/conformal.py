"""Prediction intervals whose coverage is promised by dates that were left out, not by the model.

Pixels of one date err together, so the unit that must be exchangeable is the target date, not the pixel. Split conformal
prediction for such groups (HCP: Lee, Barber & Willett 2023, arXiv:2306.06342, sec. 3) takes the quantile of the scores of D dates
at the level x (1 + 1 / D), as if nothing were known of the date to come: right where a date is one value, but of pixels that
differ within each date it is the largest score of all at D = 9, much wider than need be. So the level is raised only as far as
it must be that every date, with the quantile of the other dates, is covered as requested on average (`left_out_quantiles`): the
same quantile where a date is one value, hardly a correction where dates are alike. Simulated, 6 to 50 exchangeable dates cover 88
to 93 % where 90 % are requested (HCP: 92 to 99 %).

A date weighs as much as it has valid pixels, so that the promise is about pixels of the map: cloudy dates, of which a few
contaminated pixels are left, would otherwise widen every interval. So the promise holds on average over many dates rather than
exactly for few. Years differ (a drought is not exchangeable with a wet year), so it is not kept by construction on later time:
coverage is measured on the test windows and reported as it is. Own code instead of MAPIE (scikit-learn regressors, one row per
pixel, no groups). `pipelines.learning.forecast_intervals` says which scores.

Axes: K leads, C variables, H rows, W columns; what follows C may be anything else as well (volumes, labels, tokens). L levels,
S points of the season, V points of the forecast's value, D dates, G thresholds, n pixels, Q quantiles.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pipelines.calendar import TROPICAL_YEAR_DAYS
from pipelines.errors import RequestError
from pipelines.predictors import Combination, Forecaster, given_to, mean_of
from pipelines.samples.sampling import WindowArrays
from pipelines.samples.variables import restored, transformed

THRESHOLDS = 2000


@dataclass(frozen=True)
class Intervals:
    """[y - below, y + above] per lead and variable, times the spread of the season of the target date and that of the value y.

    Margins are on the scale of the variable's transform (`transforms_C`, empty: none), and are undone with it, so those of rain
    grow with it. value_CV: forecasts on that scale, rising; below_CV, above_CV: the factors of the margins there, linear between
    them and constant beyond; empty: 1.

    dates: calibration dates of the lead that has the fewest. `is_bounded` is False where they were too few for the nominal
    coverage; then the largest error seen stands in and less may be covered. season_CS: the spread relative to its mean, at S
    points of equal distance over the year from 1970-01-01 on; empty without a season. limits_C: the valid range of each variable.
    factor_CL: the margins of other levels, `levels_L`, in those of `coverage`; bounded_L: as `is_bounded`.
    """

    coverage: float
    below_KC: tuple[tuple[float, ...], ...]
    above_KC: tuple[tuple[float, ...], ...]
    dates: int
    is_bounded: bool = True
    season_CS: tuple[tuple[float, ...], ...] = ()
    limits_C: tuple[tuple[float, float] | None, ...] = ()
    levels_L: tuple[float, ...] = ()
    factor_CL: tuple[tuple[float, ...], ...] = ()
    bounded_L: tuple[bool, ...] = ()
    transforms_C: tuple[str, ...] = ()
    value_CV: tuple[tuple[float, ...], ...] = ()
    below_CV: tuple[tuple[float, ...], ...] = ()
    above_CV: tuple[tuple[float, ...], ...] = ()

    def bounds(self, y_KCHW: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(lower, upper) like `y_KCHW`, float32, not clipped: whoever writes or scores them does that.

        Raises RequestError for more leads than were calibrated.
        """
        if self.season_CS:
            raise ValueError("these intervals depend on the season: ask for those of the target dates first (`at`)")
        if y_KCHW.shape[0] > len(self.below_KC):
            raise RequestError(
                f"intervals are calibrated for {len(self.below_KC)} leads, {y_KCHW.shape[0]} are asked for: raise "
                "samples.horizon and train again, or ask for fewer prediction.dates"
            )
        lower_KCHW, upper_KCHW = np.empty(y_KCHW.shape, np.float32), np.empty(y_KCHW.shape, np.float32)
        for k, c in np.ndindex(y_KCHW.shape[:2]):
            margins = np.array(self.below_KC[k][c]), np.array(self.above_KC[k][c])
            lower_KCHW[k, c], upper_KCHW[k, c] = self._ends(y_KCHW[k, c], c, *margins)
        return lower_KCHW, upper_KCHW

    def quantiles(self, k: int, y_Cn: np.ndarray) -> np.ndarray:
        """(2 L + 1, C, n) float64 of lead `k`, clipped: lower ends of all levels, the forecast, upper ends, rising."""
        quantile_QCn = np.empty((2 * max(len(self.levels_L), 1) + 1, *y_Cn.shape))
        for c, y_n in enumerate(y_Cn):
            factor_L1 = np.array(self.factor_CL[c] if self.levels_L else [1.0])[:, None]
            margins = (np.array(margin_KC[k][c]) * factor_L1 for margin_KC in (self.below_KC, self.above_KC))
            lower_Ln, upper_Ln = self._ends(y_n, c, *margins)
            quantile_QCn[:, c] = np.concatenate([lower_Ln[::-1], y_n[None], upper_Ln])
        return self.clip(quantile_QCn).astype(np.float64)

    def _ends(self, y: np.ndarray, c: int, below: np.ndarray, above: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(lower, upper) of variable `c` with these margins."""
        transform = self.transforms_C[c] if self.transforms_C else "none"
        u = transformed(y, transform)
        if self.value_CV and len(self.value_CV[c]) > 1:
            below, above = (
                margin * np.interp(u, self.value_CV[c], factor_CV[c])
                for margin, factor_CV in ((below, self.below_CV), (above, self.above_CV))
            )
        lower, upper = restored(u - below, transform), restored(u + above, transform)
        return np.minimum(lower, y), np.maximum(upper, y)

    def clip(self, y_KCHW: np.ndarray) -> np.ndarray:
        """Values within the valid range of their variable, float32; a copy."""
        clipped_KCHW = y_KCHW.astype(np.float32)
        for c, limits in enumerate(self.limits_C):
            if limits is not None:
                np.clip(clipped_KCHW[:, c], np.float32(limits[0]), np.float32(limits[1]), out=clipped_KCHW[:, c])
        return clipped_KCHW

    def of_leads(self, lead_K: np.ndarray) -> "Intervals":
        """The intervals of these leads, from 0, in that order."""
        below, above = (tuple(margins[lead] for lead in lead_K) for margins in (self.below_KC, self.above_KC))
        return replace(self, below_KC=below, above_KC=above)

    def at(self, target_days_K: np.ndarray) -> "Intervals":
        """The intervals on these dates (days since 1970-01-01), as many as leads or fewer: the season is in the margins."""
        if not self.season_CS:
            return self
        season_KC = np.stack([season_at(np.array(season_S), np.asarray(target_days_K)) for season_S in self.season_CS], axis=1)
        margins = (np.array(margin_KC)[: len(season_KC)] for margin_KC in (self.below_KC, self.above_KC))
        below, above = (_as_tuples((margin_KC * season_KC[: len(margin_KC)]).tolist()) for margin_KC in margins)
        return replace(self, below_KC=below, above_KC=above, season_CS=())

    def of_level(self, level: float) -> "Intervals":
        """The intervals of another of the levels `levels_L`."""
        number = self.levels_L.index(level)
        factor_C, is_bounded = np.array(self.factor_CL)[:, number], self.bounded_L[number]
        below, above = (_as_tuples((np.array(margin_KC) * factor_C).tolist()) for margin_KC in (self.below_KC, self.above_KC))
        one = replace(self, coverage=level, below_KC=below, above_KC=above, is_bounded=is_bounded)
        return replace(one, levels_L=(), factor_CL=(), bounded_L=())

    def to_json(self) -> dict[str, Any]:
        return vars(self) | {name: json_lists(getattr(self, name)) for name in vars(self)}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "Intervals":
        """What `to_json` wrote, of this or an earlier version, which knew no season, limits and levels."""
        return cls(**{name: _as_tuples(value) for name, value in content.items()})


def json_lists(value: Any) -> Any:
    return [json_lists(one) for one in value] if isinstance(value, tuple) else value


def _as_tuples(value: Any) -> Any:
    return tuple(_as_tuples(one) for one in value) if isinstance(value, list) else value


def season_at(season_S: np.ndarray, days_M: np.ndarray) -> np.ndarray:
    """The values of a closed curve over the year on these days, (M,): linear between its points."""
    position_M = np.asarray(days_M, np.float64) / TROPICAL_YEAR_DAYS % 1 * len(season_S)
    spread_M: np.ndarray = np.interp(position_M, np.arange(len(season_S) + 1), [*season_S, season_S[0]])
    return spread_M


def forecast_window(forecaster: Forecaster, window: WindowArrays) -> np.ndarray:
    """y_KCHW float32 on the CPU. Raises ValueError if the shape is not the target's."""
    y = forecaster.forecast(**window.arguments(), **given_to(forecaster, window.covariates))
    y_KCHW = np.asarray(y.detach().cpu() if hasattr(y, "detach") else y, np.float32)
    if y_KCHW.shape != tuple(window.target_KCHW.shape):
        raise ValueError(f"{type(forecaster).__name__} forecast {y_KCHW.shape}; the target is {tuple(window.target_KCHW.shape)}")
    return y_KCHW


def forecast_by_all(forecasters: Mapping[str, Forecaster], window: WindowArrays) -> dict[str, np.ndarray]:
    """y_KCHW of every forecaster by name, as `forecast_window`; each answers once: a combination of others is their mean."""
    found: dict[str, np.ndarray] = {}
    for name, forecaster in sorted(forecasters.items(), key=lambda one: isinstance(one[1], Combination)):
        members = forecaster.members if isinstance(forecaster, Combination) else {}
        is_known = bool(members) and all(forecasters.get(member) is one for member, one in members.items())
        found[name] = mean_of([found[member] for member in members]) if is_known else forecast_window(forecaster, window)
    return {name: found[name] for name in forecasters}


def left_out_quantiles(
    of_date: list[np.ndarray], levels_L: tuple[float, ...], weight_D: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """(quantiles of the scores at these levels, whether the dates suffice for each), (L,) both.

    Each date counts by its weight (default: all alike), whatever the number of its scores. The quantile is taken at the lowest
    probability at which the dates, each with that quantile of all others, are covered at the level or more. Where not even the
    largest score of the others covers enough of them, it is the largest score. Of many scores 2000 thresholds are tried.

    >>> left_out_quantiles([np.array([float(i)]) for i in range(1, 20)], (0.9,))  # as split conformal: the 18th of 19
    (array([18.]), array([ True]))
    """
    dates, values = len(of_date), np.concatenate(of_date)
    weight_D = np.ones(dates) if weight_D is None else weight_D
    if len(values) > THRESHOLDS:
        values = np.quantile(values, np.linspace(0, 1, THRESHOLDS), method="inverted_cdf")
    threshold_G = np.unique(values)
    covered_DG = np.stack([np.searchsorted(np.sort(scores), threshold_G, side="right") / len(scores) for scores in of_date])
    sum_DG, total = weight_D[:, None] * covered_DG, weight_D.sum()
    if dates < 2:
        return np.full(len(levels_L), threshold_G[-1]), np.zeros(len(levels_L), bool)
    others_DG = (sum_DG.sum(axis=0) - sum_DG) / (total - weight_D)[:, None]
    tried_P = np.linspace(0, 1, 2001)

    def chosen(reached_G: np.ndarray) -> np.ndarray:
        return np.minimum(np.searchsorted(reached_G, tried_P - 1e-9), len(threshold_G) - 1)

    rows = zip(covered_DG, others_DG, strict=True)
    left_out_P = weight_D @ np.stack([covered_G[chosen(reached_G)] for covered_G, reached_G in rows]) / total
    enough_L = left_out_P[-1] >= np.array(levels_L) - 1e-9
    probability_L = np.searchsorted(left_out_P, np.array(levels_L) - 1e-9)
    number_L = chosen(sum_DG.sum(axis=0) / total)[np.minimum(probability_L, len(tried_P) - 1)]
    return np.where(enough_L, threshold_G[number_L], threshold_G[-1]), enough_L
