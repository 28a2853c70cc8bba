"""How good probabilities of reaching thresholds are: Brier score and skill, reliability, CRPS, spread and rank histogram.

    Brier score = mean (p - o)^2, o = 1 where the threshold was reached, else 0                     (Brier 1950)
    Brier skill = 1 - Brier score / that of a reference
    CRPS        = 2 x integral of the pinball loss over all probabilities; of a single value its absolute error
    spread / error = root of the mean variance of the distribution / RMSE of its mean; 1 is right   (Fortin et al. 2014)
    rank histogram: how often the truth lies in each tenth of its distribution; even is right. Where a value has a probability of
                    its own, such as no rain, a random place in its span.

of distributions (infinitely many members: no error of sampling) on the valid target pixels of the test windows, at most
`PIXELS_PER_FRAME` random ones of each frame, the same for all. Beside each method with its distribution stand its forecast taken
as certain (0 or 1), the frequency among the pixel's own past values, in the season where there are seasons, and the neighbourhood
of the field that moves. Axes: D dates, K leads, G thresholds, n pixels, Q quantiles.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from pipelines.learning.error_distribution import PROBABILITIES, ErrorDistribution
from pipelines.learning.interval_scores import climatological_frequency, crps
from pipelines.learning.neighbourhood import Neighbourhood
from pipelines.learning.past_errors import sample_pixels, values_at
from pipelines.learning.threshold_scores import DRAWS, LEAST_DATES, Thresholds
from pipelines.learning.window_work import WindowTally
from pipelines.samples.sampling import WindowArrays

FREQUENCY, NEIGHBOURHOOD = "climatological frequency", "neighbourhood"
PIXELS_PER_FRAME = 500
BINS = 10
SUMS = ("pixels", "crps", "absolute", "variance", "squared")
PIXELS, CRPS, ABSOLUTE, VARIANCE, SQUARED = range(len(SUMS))


def as_certain(name: str) -> str:
    """The method's name in the table where its forecast is taken as certain."""
    return f"{name}, yes or no"


class FrameChances(NamedTuple):
    """Of the frame of a lead, of `leads`: pixels and events (1 + G,); of every table its squared errors (G,) and bins
    (G, BINS, 3); of every distribution its sums (S,) and ranks (BINS,)."""

    k: int
    leads: int
    seconds: float
    count_X: np.ndarray
    said: dict[str, tuple[np.ndarray, np.ndarray]]
    drawn: dict[str, tuple[np.ndarray, np.ndarray]]


class ProbabilityTally(WindowTally):
    """Scores the distributions of several forecasters and their references, window by window."""

    rng: np.random.Generator

    def __init__(
        self, distributions: Mapping[str, ErrorDistribution], thresholds: Thresholds, neighbourhood: Neighbourhood | None = None
    ):
        self.distributions, self.thresholds, self.neighbourhood = distributions, thresholds, neighbourhood
        self.limits_G = np.array(thresholds.values) / thresholds.scale
        self.rng = np.random.default_rng(0)
        self._brier: dict[str, dict[float, np.ndarray]] = {}  # name: date: (K, G) squared errors
        self._count: dict[float, np.ndarray] = {}  # date: (K, 1 + G) pixels, events
        self._bins: dict[str, np.ndarray] = {}  # name: (G, BINS, 3) pixels, sum of probabilities, events
        self._sums: dict[str, np.ndarray] = {}  # name: (K, SUMS)
        self._ranks: dict[str, np.ndarray] = {}  # name: (BINS,)

    def draw(self, window: WindowArrays, names: Sequence[str]) -> None:
        for _, _, place_n, _ in sample_pixels(window, PIXELS_PER_FRAME, self.rng):
            for name in names:
                if name in self.distributions:
                    self.rng.random(len(place_n))

    def measure(
        self, window: WindowArrays, forecasts: Mapping[str, np.ndarray], rng: np.random.Generator | None
    ) -> list[FrameChances]:
        measured, days_K, target_KCHW = [], window.target_days_K.numpy(), window.target_KCHW.numpy()
        at = {name: one.at(days_K) for name, one in self.distributions.items() if name in forecasts}
        around_KGHW = self.neighbourhood.exceedance(window, forecasts) if self.neighbourhood else None
        for k, seconds, place_n, valid in sample_pixels(window, PIXELS_PER_FRAME, rng):
            truth_n, weight = values_at(target_KCHW[k], place_n)[0].astype(np.float64), valid / len(place_n)
            came_Gn, drawn = truth_n >= self.limits_G[:, None], {}
            said = {FREQUENCY: climatological_frequency(window, place_n, k, self.limits_G)}
            if around_KGHW is not None:
                said[NEIGHBOURHOOD] = values_at(around_KGHW[k], place_n)
            for name, y_KCHW in forecasts.items():
                y_n = values_at(y_KCHW[k], place_n)[0].astype(np.float64)
                said[as_certain(name)] = (y_n >= self.limits_G[:, None]).astype(np.float64)
                if name in at:
                    assert rng is not None, "a tally that draws has a generator"
                    said[name] = np.stack([at[name].exceedance(k, y_n, limit) for limit in self.limits_G])
                    drawn[name] = _of_distribution(at[name], k, y_n, truth_n, weight, rng)
            of_table = {name: _of_probabilities(p_Gn, came_Gn, weight) for name, p_Gn in said.items()}
            counts = weight * np.array([len(place_n), *came_Gn.sum(axis=1)])
            measured.append(FrameChances(k, len(days_K), seconds, counts, of_table, drawn))
        return measured

    def include(self, measured: list[FrameChances]) -> None:
        for k, leads, seconds, count_X, said, drawn in measured:
            self._count.setdefault(seconds, np.zeros((leads, len(count_X))))[k] += count_X
            for name, (sums_S, ranks) in drawn.items():
                self._sums.setdefault(name, np.zeros((leads, len(SUMS))))[k] += sums_S
                self._ranks[name] = self._ranks.get(name, np.zeros(BINS)) + ranks
            for name, (squared_G, bins) in said.items():
                self._brier.setdefault(name, {}).setdefault(seconds, np.zeros((leads, len(squared_G))))[k] += squared_G
                self._bins[name] = self._bins.get(name, np.zeros(bins.shape)) + bins

    def to_json(self, shipped: str, confidence: float) -> dict[str, Any]:
        """`methods[name]`: by threshold {threshold, overall, by_lead} of Brier score and skill over the climatological frequency.

        `distributions`: the other figures of those that have one. As certain only persistence and the shipped method are shown.
        """
        dates_S = sorted(self._count)
        count_DKX = np.stack([self._count[second] for second in dates_S])
        rng = np.random.default_rng(0)
        drawn_RD = rng.integers(len(dates_S), size=(DRAWS, len(dates_S))) if len(dates_S) >= LEAST_DATES else None
        certain = {as_certain(name) for name in (shipped, "persistence")}
        shown = [name for name in self._brier if name in (FREQUENCY, NEIGHBOURHOOD, *self.distributions) or name in certain]
        score = {name: np.stack([self._brier[name][second] for second in dates_S]) for name in shown}
        methods = {
            name: [
                {"threshold": value, **_brier(score[name][..., g], score[FREQUENCY][..., g], count_DKX, g, drawn_RD, confidence)}
                for g, value in enumerate(self.thresholds.values)
            ]
            for name in shown
        }
        about = {"unit": self.thresholds.unit, "scale": self.thresholds.scale, "thresholds": list(self.thresholds.values)}
        return {
            **about,
            "dates": len(dates_S),
            "references": {"frequency": FREQUENCY, "neighbourhood": NEIGHBOURHOOD},
            "neighbourhood_px": list(self.neighbourhood.width_K) if self.neighbourhood else [],
            "methods": methods,
            "reliability": {name: [_reliability(bins) for bins in self._bins[name]] for name in shown},
            "distributions": {name: _figures(sums_KS) for name, sums_KS in self._sums.items()},
            "ranks": {name: (ranks / ranks.sum()).tolist() for name, ranks in self._ranks.items()},
        }


def _of_probabilities(p_Gn: np.ndarray, came_Gn: np.ndarray, weight: float) -> tuple[np.ndarray, np.ndarray]:
    bins = np.zeros((len(p_Gn), BINS, 3))
    for g, (p_n, came_n) in enumerate(zip(p_Gn, came_Gn, strict=True)):
        bin_n = np.minimum((p_n * BINS).astype(int), BINS - 1)
        for number, part_n in enumerate((np.ones_like(p_n), p_n, came_n)):
            bins[g, :, number] = weight * np.bincount(bin_n, part_n, BINS)
    return weight * ((p_Gn - came_Gn) ** 2).sum(axis=1), bins


def _of_distribution(
    known: ErrorDistribution, k: int, y_n: np.ndarray, truth_n: np.ndarray, weight: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    quantile_Qn = known.quantiles(k, y_n)
    share_Q = np.diff(np.concatenate([[0.0], (PROBABILITIES[1:] + PROBABILITIES[:-1]) / 2, [1.0]]))
    mean_n = share_Q @ quantile_Qn
    variance_n = share_Q @ (quantile_Qn - mean_n) ** 2
    crps_n = crps(quantile_Qn[:, None], truth_n[None], PROBABILITIES)[0]
    parts = np.ones_like(y_n), crps_n, np.abs(y_n - truth_n), variance_n, (mean_n - truth_n) ** 2
    low_n, high_n = known.below(k, y_n, truth_n)
    place_n = low_n + rng.random(len(y_n)) * (high_n - low_n)
    ranks = np.bincount(np.minimum((place_n * BINS).astype(int), BINS - 1), minlength=BINS)
    return weight * np.array([part.sum() for part in parts]), weight * ranks


def _brier(
    ours_DK: np.ndarray, usual_DK: np.ndarray, count_DKX: np.ndarray, g: int, drawn_RD: np.ndarray | None, confidence: float
) -> dict[str, Any]:
    pixels_DK, events_DK = count_DKX[..., 0], count_DKX[..., 1 + g]

    def figures(part: Any) -> dict[str, Any]:
        pixels, usual = pixels_DK[part].sum(), usual_DK[part].sum()
        return {
            "brier": float(ours_DK[part].sum() / pixels) if pixels > 0 else None,
            "skill": float(1 - ours_DK[part].sum() / usual) if usual > 0 else None,
            "events": round(events_DK[part].sum()),
        }

    low, high = None, None
    if drawn_RD is not None:
        ours_R, usual_R = (score_DK.sum(axis=1)[drawn_RD].sum(axis=1) for score_DK in (ours_DK, usual_DK))
        if (usual_R > 0).any():
            skill_R = 1 - ours_R[usual_R > 0] / usual_R[usual_R > 0]
            low, high = np.quantile(skill_R, [(1 - confidence) / 2, (1 + confidence) / 2]).tolist()
    by_lead = [{"lead": k + 1, **figures((slice(None), k))} for k in range(ours_DK.shape[1])]
    return {"overall": {**figures(slice(None)), "skill_low": low, "skill_high": high}, "by_lead": by_lead}


def _reliability(bins: np.ndarray) -> list[dict[str, float]]:
    """Of the bins of probability that hold a pixel: how many, what was said on average, and how often it came."""
    return [{"pixels": n, "said": p / n, "came": o / n} for n, p, o in bins.tolist() if n > 0]


def _figures(sums_KS: np.ndarray) -> dict[str, Any]:
    def figures(total_S: np.ndarray) -> dict[str, float | None]:
        share_S = total_S / max(total_S[PIXELS], 1)
        spread = float(np.sqrt(share_S[VARIANCE] / share_S[SQUARED])) if share_S[SQUARED] > 0 else None
        return {"crps": float(share_S[CRPS]), "mae": float(share_S[ABSOLUTE]), "spread_over_error": spread}

    by_lead = [{"lead": k + 1, **figures(sums_S)} for k, sums_S in enumerate(sums_KS)]
    return {"overall": figures(sums_KS.sum(axis=0)), "by_lead": by_lead}
