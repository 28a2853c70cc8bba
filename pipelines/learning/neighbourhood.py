"""Probabilities from the neighbourhood of a field that moves: how much of what lies around a pixel reaches a threshold.

The reference of probabilities (Germann & Zawadzki 2004, J. Appl. Meteor. 43, 74-89, "local Lagrangian"): the last frame carried
on along its motion, and around each pixel the share that reaches the threshold, with a neighbourhood that grows with the lead.
Theirs is a square, here a Gaussian; its width by lead is that of the smallest Brier score on validation, each threshold's over
that of its frequency. Axes: K leads, G thresholds, S widths; H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from scipy import ndimage

from pipelines.learning.window_work import WindowTally
from pipelines.samples.sampling import WindowArrays

WIDTHS_PX = (0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0)  # standard deviations
CARRIED = ("optical_flow", "translation", "persistence")  # the sharpest field that moves, of those that are forecast


class Neighbourhood(WindowTally):
    """Told of validation windows (`add`), then `exceedance` of others. limits_G: thresholds in the variable's own unit."""

    def __init__(self, limits_G: Sequence[float]):
        self.limits_G = tuple(limits_G)
        self._sums: np.ndarray | None = None  # (K, G, S) squared errors
        self._counts: np.ndarray | None = None  # (K, G, 2) events and pixels

    def measure(
        self, window: WindowArrays, forecasts: Mapping[str, np.ndarray], rng: object = None
    ) -> tuple[np.ndarray, np.ndarray] | None:
        """(squared errors (K, G, S), events and pixels (K, G, 2)); None where nothing is forecast that can be looked around."""
        field_KHW, valid_HW = carried(forecasts), known_at_issue(window)
        if field_KHW is None:
            return None
        truth_KHW, seen_KHW = window.target_KCHW.numpy()[:, 0], window.target_valid_KHW.numpy()
        shape = len(truth_KHW), len(self.limits_G)
        sums_KGS, counts_KGN = np.zeros((*shape, len(WIDTHS_PX))), np.zeros((*shape, 2))
        for s, width in enumerate(WIDTHS_PX):
            near_HW = smooth(valid_HW, width)
            for k, g in np.ndindex(shape):
                came_n = truth_KHW[k][seen_KHW[k]] >= self.limits_G[g]
                share_n = shares(field_KHW[k] >= self.limits_G[g], valid_HW, near_HW, width)[seen_KHW[k]]
                sums_KGS[k, g, s] = ((share_n - came_n) ** 2).sum()
                if s == 0:
                    counts_KGN[k, g] = came_n.sum(), came_n.size
        return sums_KGS, counts_KGN

    def include(self, measured: tuple[np.ndarray, np.ndarray] | None) -> None:
        if measured is not None:
            sums_KGS, counts_KGN = measured
            self._sums = sums_KGS if self._sums is None else self._sums + sums_KGS
            self._counts = counts_KGN if self._counts is None else self._counts + counts_KGN

    @property
    def width_K(self) -> tuple[float, ...]:
        """The width by lead, () where nothing was seen that moves."""
        if self._sums is None or self._counts is None:
            return ()
        frequency_KG = self._counts[..., 0] / np.maximum(self._counts[..., 1], 1)
        usual_KG = np.maximum(frequency_KG * (1 - frequency_KG), 1e-9) * np.maximum(self._counts[..., 1], 1)
        skill_KS = np.where(self._counts[..., :1] > 0, self._sums / usual_KG[..., None], 0).sum(axis=1)
        return tuple(WIDTHS_PX[int(best)] for best in skill_KS.argmin(axis=1))

    def exceedance(self, window: WindowArrays, forecasts: Mapping[str, np.ndarray]) -> np.ndarray | None:
        """The probability of reaching each threshold, (K, G, H, W); None where nothing is forecast that can be looked around."""
        field_KHW, valid_HW, width_K = carried(forecasts), known_at_issue(window), self.width_K
        if field_KHW is None or not width_K:
            return None
        leads = [(y_HW, width, smooth(valid_HW, width)) for y_HW, width in zip(field_KHW, width_K, strict=True)]
        return np.stack([[shares(y >= limit, valid_HW, near, width) for limit in self.limits_G] for y, width, near in leads])


def carried(forecasts: Mapping[str, np.ndarray]) -> np.ndarray | None:
    """(K, H, W) of the first variable; None of volumes, and where none of `CARRIED` is forecast."""
    name = next((name for name in CARRIED if name in forecasts), None)
    return forecasts[name][:, 0] if name is not None and forecasts[name].ndim == 4 else None


def known_at_issue(window: WindowArrays) -> np.ndarray:
    """Which pixels a frame of the context has shown."""
    context_T = window.context_T[window.context_T >= 0]
    seen_HW: np.ndarray = np.any(window.valid_NHW[context_T].numpy(), axis=0)
    return seen_HW


def shares(event_HW: np.ndarray, valid_HW: np.ndarray, near_HW: np.ndarray, width_px: float) -> np.ndarray:
    """The share of the valid pixels around each pixel that are an event, weighted by a Gaussian; 0 where none is valid.

    `near_HW` is `smooth(valid_HW, width_px)`.
    """
    sums_HW = smooth(event_HW & valid_HW, width_px)
    found: np.ndarray = np.divide(sums_HW, near_HW, out=np.zeros_like(sums_HW), where=near_HW > 1e-9).clip(max=1)
    return found


def smooth(is_HW: np.ndarray, width_px: float) -> np.ndarray:
    """A Gaussian of `width_px` over what is 0 or 1, float64; 0 beyond the edge."""
    smooth_HW: np.ndarray = ndimage.gaussian_filter(is_HW.astype(np.float64), width_px, mode="constant", truncate=3)
    return smooth_HW
