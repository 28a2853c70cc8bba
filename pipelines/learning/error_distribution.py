"""What the truth may be around a forecast: the forecast plus errors of the past, by lead and by what was forecast.

On the scale of the variable's transform

    truth = forecast + season (day) x ratio x error         error ~ errors of this lead where about this value was forecast

("dressed" forecasts: Roulston & Smith 2003, https://doi.org/10.1034/j.1600-0870.2003.201378.x), so that rain stays dry where none
is forecast and errors grow with it. Bins hold quantiles of past forecasts, more of the high ones; between their means quantiles
are linear. What is drawn is clipped to the valid range. The probability of reaching a threshold is that of infinitely many
members; it falls as the threshold rises, and depends on the pixel's forecast and lead alone, so tiles equal the whole.

Axes: K leads, V values, Q quantiles of errors, n pixels.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.special import expit

from pipelines.errors import RequestError
from pipelines.learning.conformal import season_at
from pipelines.learning.past_errors import Errors
from pipelines.samples.variables import restored, transformed

PROBABILITIES = expit(np.linspace(-7.6, 7.6, 61))  # of the quantiles, from 0.0005: dense where events are rare
EDGES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995)  # of the bins: quantiles of past forecasts
LEAST_ABOVE = 30  # errors above an edge
CHUNK = 2**16  # pixels at a time


@dataclass(frozen=True)
class ErrorDistribution:
    """Quantiles of the errors at `PROBABILITIES`, on the scale of `transform`, around forecasts of `value_KV` on that scale.

    limits: the variable's valid range. season_S: as in `conformal.Intervals`; () without one, or where it is in the errors.
    """

    value_KV: tuple[tuple[float, ...], ...]
    error_KVQ: tuple[tuple[tuple[float, ...], ...], ...]
    transform: str = "none"
    limits: tuple[float, float] | None = None
    season_S: tuple[float, ...] = ()

    def quantiles(self, k: int, y_n: np.ndarray) -> np.ndarray:
        """(Q, n) float64: quantiles of the truth around the forecasts `y_n`, physical, within the valid range, rising."""
        u_n = transformed(np.asarray(y_n, np.float64), self.transform)
        return self._physical(u_n + self._errors(k, u_n))

    def exceedance(self, k: int, y: np.ndarray, limit: float) -> np.ndarray:
        """The probability that the truth is at least `limit`, like `y`, float32; NaN where `y` is NaN.

        Raises RequestError for a lead that was not fitted.
        """
        flat = np.asarray(y, np.float64).reshape(-1)
        parts = [self._exceedance(k, flat[start : start + CHUNK], limit) for start in range(0, len(flat), CHUNK)]
        found: np.ndarray = np.concatenate(parts).astype(np.float32).reshape(np.shape(y)) if parts else np.empty(np.shape(y))
        return found

    def member(self, k: int, y: np.ndarray, probability: np.ndarray) -> np.ndarray:
        """The value that the truth stays below with these probabilities, like `y`, float32: one member of an ensemble."""
        flat, chance = np.asarray(y, np.float64).reshape(-1), np.clip(probability, *PROBABILITIES[[0, -1]]).reshape(-1)
        parts = [np.empty(0)]
        for start in range(0, len(flat), CHUNK):
            some = slice(start, start + CHUNK)
            u_n = transformed(flat[some], self.transform)
            parts.append(self._physical(u_n + at_probability(self._errors(k, u_n), chance[some])))
        return np.concatenate(parts).astype(np.float32).reshape(np.shape(y))

    def below(self, k: int, y_n: np.ndarray, truth_n: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The probability of less than the truth, and of at most the truth; both (n,), apart where values are frequent."""
        quantile_Qn, truth_32 = self.quantiles(k, y_n).astype(np.float32), np.asarray(truth_n, np.float32)
        counts = (quantile_Qn < truth_32).sum(axis=0), (quantile_Qn <= truth_32).sum(axis=0)
        low_n, high_n = (probability_at(quantile_Qn, truth_32, count_n) for count_n in counts)
        return low_n, high_n

    def _exceedance(self, k: int, y_n: np.ndarray, limit: float) -> np.ndarray:
        if limit <= (0.0 if self.transform == "log1p" else -np.inf) or (self.limits and limit <= self.limits[0]):
            return np.where(np.isnan(y_n), np.nan, 1.0)
        if self.limits and limit > self.limits[1]:
            return np.where(np.isnan(y_n), np.nan, 0.0)
        u_n = transformed(y_n, self.transform)
        missing_n, error_Qn = float(transformed(np.array(limit), self.transform)) - u_n, self._errors(k, u_n)
        reached_n = probability_at(error_Qn, missing_n, (error_Qn < missing_n).sum(axis=0))
        return np.where(np.isnan(y_n), np.nan, 1 - reached_n)

    def _errors(self, k: int, u_n: np.ndarray) -> np.ndarray:
        """(Q, n): quantiles of the errors where `u_n` is forecast."""
        if k >= len(self.value_KV):
            raise RequestError(f"probabilities are fitted for {len(self.value_KV)} leads: raise samples.horizon and train again")
        value_V, error_VQ = np.array(self.value_KV[k]), np.array(self.error_KVQ[k])
        if len(value_V) == 1:
            return np.repeat(error_VQ.T, len(u_n), axis=1)
        above_n = np.searchsorted(value_V, u_n).clip(1, len(value_V) - 1)
        share_n = np.clip((u_n - value_V[above_n - 1]) / (value_V[above_n] - value_V[above_n - 1]), 0, 1)
        mixed_nQ: np.ndarray = (1 - share_n)[:, None] * error_VQ[above_n - 1] + share_n[:, None] * error_VQ[above_n]
        return mixed_nQ.T

    def _physical(self, u: np.ndarray) -> np.ndarray:
        values = restored(u, self.transform)
        return values if self.limits is None else np.clip(values, *self.limits)

    def of_leads(self, lead_K: np.ndarray) -> ErrorDistribution:
        """Those of these leads, from 0, in that order."""
        value_KV, error_KVQ = (tuple(of_lead[lead] for lead in lead_K) for of_lead in (self.value_KV, self.error_KVQ))
        return replace(self, value_KV=value_KV, error_KVQ=error_KVQ)

    def at(self, target_days_K: np.ndarray) -> ErrorDistribution:
        """Those of these dates (days since 1970-01-01): the season is in the errors."""
        if not self.season_S:
            return self
        spread_K = season_at(np.array(self.season_S), np.asarray(target_days_K))
        scaled = tuple(_tuples(np.array(error_VQ) * spread) for error_VQ, spread in zip(self.error_KVQ, spread_K, strict=False))
        return replace(self, error_KVQ=scaled, season_S=())

    def to_json(self) -> dict[str, Any]:
        return vars(self) | {name: _lists(getattr(self, name)) for name in vars(self)}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> ErrorDistribution:
        plain: dict[str, Any] = {name: _tuples(one) if isinstance(one, list) else one for name, one in content.items()}
        return cls(**plain)


def probability_at(quantile_Qn: np.ndarray, value_n: np.ndarray, count_n: np.ndarray) -> np.ndarray:
    """(n,): the probability of each value between the quantiles at `PROBABILITIES`, `count_n` of which lie below it.

    0 below all of them, 1 above all.
    """
    before_n, after_n = np.maximum(count_n - 1, 0), np.minimum(count_n, len(PROBABILITIES) - 1)
    low_n, high_n = (np.take_along_axis(quantile_Qn, at_n[None], axis=0)[0] for at_n in (before_n, after_n))
    share_n = np.divide(value_n - low_n, high_n - low_n, out=np.zeros(len(value_n)), where=high_n > low_n)
    found_n = PROBABILITIES[before_n] + share_n * (PROBABILITIES[after_n] - PROBABILITIES[before_n])
    inside_n: np.ndarray = np.where(count_n == 0, 0.0, np.where(count_n == len(PROBABILITIES), 1.0, found_n))
    return inside_n


def at_probability(quantile_Qn: np.ndarray, probability_n: np.ndarray) -> np.ndarray:
    """(n,): each column of quantiles at `PROBABILITIES`, at its own probability, linear between them."""
    above_n = np.searchsorted(PROBABILITIES, probability_n).clip(1, len(PROBABILITIES) - 1)
    share_n = (probability_n - PROBABILITIES[above_n - 1]) / (PROBABILITIES[above_n] - PROBABILITIES[above_n - 1])
    low_n, high_n = (np.take_along_axis(quantile_Qn, at_n[None], axis=0)[0] for at_n in (above_n - 1, above_n))
    found_n: np.ndarray = low_n + share_n * (high_n - low_n)
    return found_n


def fit_distribution(
    errors: Errors, c: int = 0, *, ratio: float = 1.0, transform: str = "none", limits: tuple[float, float] | None = None,
    season_S: tuple[float, ...] = (),
) -> ErrorDistribution:  # fmt: skip
    """The distribution of variable `c`; `ratio`: mean absolute error of the forecaster over that of the one that `errors` are of.

    Frames count by their valid pixels, of which `errors` holds some.
    """
    value_KV, error_KVQ = [], []
    for k in range(errors.leads):
        keys = sorted(key for key in errors.pixels if key[0] == k)
        frames = [errors.frame(key)[:, c] for key in keys]
        days_F = np.array([seconds / 86_400 for _, seconds in keys])
        spread_F = season_at(np.array(season_S), days_F) if season_S else np.ones(len(keys))
        error_n = np.concatenate([frame[0] / spread for frame, spread in zip(frames, spread_F, strict=True)]) * ratio
        value_n = np.concatenate([frame[1] for frame in frames])
        weights = (np.full(frame.shape[1], errors.pixels[key] / frame.shape[1]) for key, frame in zip(keys, frames, strict=True))
        value_V, error_VQ = binned(value_n, error_n, np.concatenate(list(weights)))
        value_KV.append(tuple(value_V.tolist()))  # not rounded: bins of tiny values must stay apart
        error_KVQ.append(_tuples(error_VQ.round(6)))
    return ErrorDistribution(tuple(value_KV), tuple(error_KVQ), transform, limits, season_S)


def binned(value_n: np.ndarray, error_n: np.ndarray, weight_n: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(mean forecast of each bin (V,), rising; quantiles of its errors (V, Q)). A frequent forecast is a bin of its own."""
    edges = np.unique(np.quantile(value_n, [edge for edge in EDGES if len(value_n) * (1 - edge) >= LEAST_ABOVE]))
    bin_n = np.searchsorted(edges, value_n)
    value_V, error_VQ = [], []
    for number in np.unique(bin_n):
        error_b, value_b, weight_b = (values[bin_n == number] for values in (error_n, value_n, weight_n))
        order = np.argsort(error_b, kind="stable")
        reached_b = (np.cumsum(weight_b[order]) - weight_b[order] / 2) / weight_b.sum()
        value_V.append(np.average(value_b, weights=weight_b))
        error_VQ.append(np.interp(PROBABILITIES, reached_b, error_b[order]))
    return np.array(value_V), np.stack(error_VQ)


def _tuples(values: Iterable[Any]) -> tuple[Any, ...]:
    plain = values.tolist() if isinstance(values, np.ndarray) else values
    return tuple(_tuples(one) if isinstance(one, list) else one for one in plain)


def _lists(value: Any) -> Any:
    return [_lists(one) for one in value] if isinstance(value, tuple) else value
