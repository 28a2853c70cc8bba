"""Scores of events: how well a forecast says where a value is at least a threshold, by lead and threshold.

    CSI  = hits / (hits + misses + false alarms)                                  (critical success index)
    bias = (hits + false alarms) / (hits + misses)                                (above 1: too large an area)
    FSS  = 1 - sum (f - o)^2 / sum (f^2 + o^2)                                    (Roberts & Lean 2008, eq. 6 and 7)

f and o are the shares of the valid pixels of a square around each pixel where the forecast and the truth reach the threshold.
Counts are pooled over pixels and dates, as is usual for precipitation, on the same valid target pixels for all methods; the
intervals of CSI come from target dates that are drawn again with replacement, so neighbouring dates count as independent ones.
Thresholds are of the first variable, in its unit times `scale`. Axes: D dates, K leads, G thresholds, S sums; H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from scipy import ndimage

from pipelines.calendar import seconds_of
from pipelines.learning.window_work import WindowTally
from pipelines.samples.sampling import WindowArrays

SUMS = ("hits", "misses", "false_alarms", "apart", "together")
HITS, MISSES, FALSE_ALARMS, APART, TOGETHER = range(len(SUMS))
DRAWS = 1000  # of the target dates
LEAST_DATES = 5


@dataclass(frozen=True)
class Thresholds:
    """What counts as an event: `values` in `unit`, which is that of the first variable times `scale`. near_px: FSS's square."""

    values: tuple[float, ...] = ()
    scale: float = 1.0
    unit: str = ""
    near_px: int = 5


class FrameEvents(NamedTuple):
    """The sums (G, S) of every method on the frame of a lead, of `leads`."""

    k: int
    leads: int
    seconds: float
    of_method: dict[str, np.ndarray]


class ThresholdTally(WindowTally):
    """Collects the counts of several methods, window by window, as sums per target date."""

    def __init__(self, thresholds: Thresholds):
        self.thresholds = thresholds
        self._of_date: dict[str, dict[float, np.ndarray]] = {}

    def measure(self, window: WindowArrays, forecasts: Mapping[str, np.ndarray], rng: object = None) -> list[FrameEvents]:
        found, truth_KHW, valid_KHW = [], window.target_KCHW.numpy()[:, 0], window.target_valid_KHW.numpy()
        limits_G = (np.array(self.thresholds.values) / self.thresholds.scale).tolist()
        for k, day in enumerate(window.target_days_K.tolist()):
            if not valid_KHW[k].any():
                continue
            shown = tuple(slice(axis.min(), axis.max() + 1) for axis in np.nonzero(valid_KHW[k]))
            valid_HW, truth_HW = valid_KHW[k][shown], truth_KHW[k][shown]
            of_method = {
                name: np.stack(
                    [event_sums(y_KCHW[k, 0][shown], truth_HW, valid_HW, limit, self.thresholds.near_px) for limit in limits_G]
                )
                for name, y_KCHW in forecasts.items()
            }
            found.append(FrameEvents(k, len(truth_KHW), float(seconds_of(day)), of_method))
        return found

    def include(self, measured: list[FrameEvents]) -> None:
        for k, leads, seconds, of_method in measured:
            for name, sums_GS in of_method.items():
                of_date = self._of_date.setdefault(name, {})
                of_date.setdefault(seconds, np.zeros((leads, *sums_GS.shape)))[k] += sums_GS

    def to_json(self, confidence: float) -> dict[str, Any]:
        """`methods[name]`: a list by threshold of {threshold, overall, by_lead}; None where an event never came."""
        dates_S = sorted({second for of_date in self._of_date.values() for second in of_date})
        rng = np.random.default_rng(0)
        drawn_RD = rng.integers(len(dates_S), size=(DRAWS, len(dates_S))) if len(dates_S) >= LEAST_DATES else None
        methods = {}
        for name, of_date in self._of_date.items():
            sums_DKGS = np.stack([of_date[second] for second in dates_S])
            methods[name] = [
                {
                    "threshold": value,
                    "overall": event_scores(sums_DKGS[:, :, g].sum(axis=(0, 1)))
                    | csi_interval(sums_DKGS[:, :, g].sum(axis=1), drawn_RD, confidence),
                    "by_lead": [
                        {"lead": k + 1, **event_scores(sums_DKGS[:, k, g].sum(axis=0))} for k in range(sums_DKGS.shape[1])
                    ],
                }
                for g, value in enumerate(self.thresholds.values)
            ]
        about = {"unit": self.thresholds.unit, "scale": self.thresholds.scale, "near_px": self.thresholds.near_px}
        return {**about, "thresholds": list(self.thresholds.values), "dates": len(dates_S), "methods": methods}


def event_sums(y_HW: np.ndarray, truth_HW: np.ndarray, valid_HW: np.ndarray, limit: float, near_px: int) -> np.ndarray:
    """(S,) of one frame over its valid pixels."""
    said_HW, came_HW = (y_HW >= limit) & valid_HW, (truth_HW >= limit) & valid_HW
    hits = np.count_nonzero(said_HW & came_HW)
    sums = [hits, np.count_nonzero(came_HW) - hits, np.count_nonzero(said_HW) - hits, 0.0, 0.0]
    if said_HW.any() or came_HW.any():
        near_HW, *shares = (
            ndimage.uniform_filter(one_HW.astype(np.float64), near_px, mode="constant") for one_HW in (valid_HW, said_HW, came_HW)
        )
        said_P, came_P = (share_HW[valid_HW] / near_HW[valid_HW] for share_HW in shares)
        sums[APART:] = float(((said_P - came_P) ** 2).sum()), float((said_P**2 + came_P**2).sum())
    return np.array(sums, np.float64)


def event_scores(sums_S: np.ndarray) -> dict[str, float | None]:
    hits, misses, false_alarms, apart, together = sums_S.tolist()

    def ratio(value: float, of: float) -> float | None:
        return value / of if of > 0 else None

    fss = ratio(apart, together)
    return {
        "csi": ratio(hits, hits + misses + false_alarms),
        "fss": None if fss is None else 1 - fss,
        "bias": ratio(hits + false_alarms, hits + misses),
        "events": int(hits + misses),
    }


def csi_interval(sums_DS: np.ndarray, drawn_RD: np.ndarray | None, confidence: float) -> dict[str, float | None]:
    """The interval of the pooled CSI over target dates drawn again; None with fewer than `LEAST_DATES` of them."""
    if drawn_RD is None:
        return {"csi_low": None, "csi_high": None}
    counts_RS = sums_DS[drawn_RD].sum(axis=1)
    of_R = counts_RS[:, [HITS, MISSES, FALSE_ALARMS]].sum(axis=1)
    csi_R = counts_RS[:, HITS][of_R > 0] / of_R[of_R > 0]
    if not len(csi_R):
        return {"csi_low": None, "csi_high": None}
    low, high = np.quantile(csi_R, [(1 - confidence) / 2, (1 + confidence) / 2])
    return {"csi_low": float(low), "csi_high": float(high)}
