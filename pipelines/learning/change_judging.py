"""Scores of places nobody has seen -> calibration, threshold, and the table in which all methods stand.

Every number is collected piece by piece, so a place may be larger than memory: `Piece`s are views of memory maps.
Labels are uint8: 0 unchanged, 1 changed, 255 unknown. NaN in a score: not seen.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pipelines.errors import RequestError
from pipelines.learning.change_intervals import block_counts, f1_difference, f1_interval
from pipelines.learning.change_metrics import (
    CHANGED,
    Counts,
    ScoreHistogram,
    Threshold,
    count_changes,
    judge_places,
    usable_pixels,
)
from pipelines.samples.change_windows import Region

LIMIT = 40.0  # logits and scores beyond it are as good as it
BINS = 8000
STRIP_PX = 1 << 22
BLOCK_PX = 32


@dataclass(frozen=True)
class Piece:
    """Some pixels of a place: score (any float), label, and what was seen; one shape."""

    score_HW: np.ndarray
    label_HW: np.ndarray
    seen_HW: np.ndarray


@dataclass(frozen=True)
class Calibration:
    """Score -> probability = sigmoid(slope x score + intercept) (Platt 1999). The slope is never negative."""

    slope: float
    intercept: float

    def logit(self, score: np.ndarray) -> np.ndarray:
        return (self.slope * np.asarray(score, np.float32) + self.intercept).astype(np.float32)

    def probability(self, score: np.ndarray) -> np.ndarray:
        """float32; NaN stays NaN."""
        return (1 / (1 + np.exp(-np.clip(self.logit(score), -LIMIT, LIMIT)))).astype(np.float32)


class CalibrationTally:
    """Scores of unchanged and changed pixels, added piece by piece, from which a calibration is fitted."""

    def __init__(self) -> None:
        self.pixels_2S = np.zeros((2, BINS), np.int64)

    def add(self, piece: Piece) -> None:
        known = usable_pixels(piece.label_HW, piece.seen_HW, piece.score_HW.shape) & ~np.isnan(piece.score_HW)
        score, is_changed = np.clip(piece.score_HW[known], -LIMIT, LIMIT), piece.label_HW[known] == CHANGED
        index = np.minimum(((score + LIMIT) * (BINS / (2 * LIMIT))).astype(np.int64), BINS - 1)
        for row, chosen in enumerate((index[~is_changed], index[is_changed])):
            self.pixels_2S[row] += np.bincount(chosen, minlength=BINS)

    def fit(self) -> Calibration:
        """Maximum likelihood by Newton's method, with Platt's smoothed targets. Raises RequestError with one class only."""
        unchanged, changed = (int(n) for n in self.pixels_2S.sum(axis=1))
        if not unchanged or not changed:
            raise RequestError(
                f"a left-out group has {changed} changed and {unchanged} unchanged pixels that were seen; calibration needs "
                "both: add places, or put places together in evaluation.groups"
            )
        used = self.pixels_2S.any(axis=0)
        score = ((np.arange(BINS) + 0.5) * (2 * LIMIT / BINS) - LIMIT)[used]
        weight_2S = self.pixels_2S[:, used].astype(np.float64)
        target_2 = np.array([1 / (unchanged + 2), (changed + 1) / (changed + 2)])  # Platt 1999, section 2.2
        return _maximise(score, weight_2S, target_2)


def _maximise(score_S: np.ndarray, weight_2S: np.ndarray, target_2: np.ndarray) -> Calibration:
    """Newton steps, halved while they make the likelihood smaller; the intercept alone where the slope would be negative."""
    total_S, wanted_S = weight_2S.sum(axis=0), target_2 @ weight_2S
    rate = wanted_S.sum() / total_S.sum()
    flat = np.array([0.0, math.log(rate / (1 - rate))])
    design = np.stack([score_S, np.ones_like(score_S)])

    def loss(parameters: np.ndarray) -> float:
        logit = parameters @ design
        return float(np.sum(total_S * np.logaddexp(0, logit) - wanted_S * logit))

    parameters, value = flat, loss(flat)
    for _ in range(100):
        p = 1 / (1 + np.exp(-(parameters @ design)))
        gradient = design @ (total_S * p - wanted_S)
        hessian = (design * (total_S * p * (1 - p))) @ design.T + 1e-9 * np.eye(2)
        step, size = np.linalg.solve(hessian, gradient), 1.0
        while (tried := loss(parameters - size * step)) > value and size > 1e-6:
            size /= 2
        if tried >= value - 1e-10 * abs(value):
            break
        parameters, value = parameters - size * step, tried
    slope, intercept = (float(v) for v in parameters)
    return Calibration(slope, intercept) if slope > 0 else Calibration(0.0, float(flat[1]))


def fit_calibration(pieces: Iterable[Piece]) -> Calibration:
    tally = CalibrationTally()
    for piece in pieces:
        tally.add(piece)
    return tally.fit()


def choose_threshold(pieces: Iterable[Piece]) -> Threshold:
    """The threshold of the largest pooled F1 on these pieces (scores >= 0). Raises RequestError where nothing changed."""
    histogram = ScoreHistogram()
    for piece in pieces:
        histogram.add(piece.score_HW, piece.label_HW, piece.seen_HW)
    threshold = histogram.best_threshold()
    if threshold is None:
        raise RequestError(
            "no pixel of the calibration places is labelled changed, so no threshold can be chosen; check labels.changed"
        )
    return threshold


def strips(shape_yx: tuple[int, int]) -> Iterator[slice]:
    """Rows of a raster in strips of about 4 million pixels."""
    rows = max(1, STRIP_PX // max(shape_yx[1], 1))
    for row in range(0, shape_yx[0], rows):
        yield slice(row, min(row + rows, shape_yx[0]))


def pieces_of(region: Region, score_HW: np.ndarray, label_HW: np.ndarray, seen_HW: np.ndarray) -> Iterator[Piece]:
    """The pieces of a region of a place, from arrays over the whole place."""
    tile = region.tile
    inside = score_HW[tile.rows, tile.columns], label_HW[tile.rows, tile.columns], seen_HW[tile.rows, tile.columns]
    for rows in strips(tile.shape_yx):
        yield Piece(*(np.asarray(array[rows]) for array in inside))


# ---------------------------------------------------------------- judging


@dataclass
class Judged:
    """One method over all left-out groups. `blocks_B3` per place are what intervals are drawn from."""

    counts: dict[str, Counts] = field(default_factory=dict)
    blocks_B3: dict[str, np.ndarray] = field(default_factory=dict)
    thresholds: dict[str, float] = field(default_factory=dict)
    histogram: ScoreHistogram = field(default_factory=ScoreHistogram)
    histograms: dict[str, ScoreHistogram] = field(default_factory=dict)

    def add(self, region: Region, score_HW: np.ndarray, threshold: float, label_HW: np.ndarray, seen_HW: np.ndarray) -> None:
        """One left-out region; `score_HW`, `label_HW`, `seen_HW` cover the whole place, scores are >= 0."""
        own = self.histograms.setdefault(region.place, ScoreHistogram())
        for piece in pieces_of(region, score_HW, label_HW, seen_HW):
            usable = piece.seen_HW & ~np.isnan(piece.score_HW)
            with np.errstate(invalid="ignore"):
                is_changed = piece.score_HW >= threshold
            self.counts[region.place] = self.counts.get(region.place, Counts()) + count_changes(
                is_changed, piece.label_HW, usable
            )
            blocks = block_counts(is_changed, piece.label_HW, usable, BLOCK_PX)
            before = self.blocks_B3.get(region.place)
            self.blocks_B3[region.place] = blocks if before is None else np.vstack([before, blocks])
            for histogram in (self.histogram, own):
                histogram.add(piece.score_HW, piece.label_HW, usable)

    def to_json(self, confidence: float, seed: int = 0) -> dict[str, Any]:
        """Pooled and per place: precision, recall, F1, IoU, average precision; the pooled F1 with its interval over blocks."""
        content = judge_places(self.counts)
        content["pooled"]["average_precision"] = self.histogram.average_precision()
        for name, histogram in self.histograms.items():
            content["places"][name]["average_precision"] = histogram.average_precision()
        interval = f1_interval(self.blocks_B3, confidence=confidence, seed=seed)
        return {**content, "f1_interval": interval.to_json(), "thresholds": self.thresholds}


def judge_left_out(
    groups: Sequence[Sequence[Region]],
    names: Sequence[str],
    score_of: Callable[[int, Region], np.ndarray],
    threshold_of: Callable[[int], float],
    truth_of: Callable[[str], tuple[np.ndarray, np.ndarray]],
) -> Judged:
    """What a method gives on every group, left out: `score_of(g, region)` covers the region's whole place.

    `threshold_of(g)` was chosen without group g; `truth_of(place)` is (label_HW, seen_HW).
    """
    judged = Judged()
    for g, group in enumerate(groups):
        threshold = threshold_of(g)
        judged.thresholds[names[g]] = threshold
        for region in group:
            judged.add(region, score_of(g, region), threshold, *truth_of(region.place))
    return judged


def compare(ours: Judged, theirs: Mapping[str, Judged], confidence: float, seed: int = 0) -> dict[str, Any]:
    """Pooled F1 of ours minus that of each other method, with intervals over the same blocks."""
    return {
        name: {**difference.to_json(), "outcome": difference.outcome}
        for name, other in theirs.items()
        for difference in [f1_difference(ours.blocks_B3, other.blocks_B3, confidence=confidence, seed=seed)]
    }


def spread_of(f1s: Sequence[float]) -> dict[str, float | int]:
    """Mean, standard deviation (of a sample), least and most of the seeds' pooled F1."""
    values = np.array(f1s, np.float64)
    deviation = float(values.std(ddof=1)) if len(values) > 1 else 0.0
    return {
        "seeds": len(values),
        "mean": float(values.mean()),
        "std": deviation,
        "min": float(values.min()),
        "max": float(values.max()),
    }
