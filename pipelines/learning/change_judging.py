"""Scores of places nobody has seen -> calibration, threshold, and the table in which all methods stand.

Every number is collected piece by piece, so a place may be larger than memory: `Piece`s are views of memory maps.
Labels are uint8: 0 unchanged, 1 changed, 255 unknown. NaN in a score: not seen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pipelines.errors import RequestError
from pipelines.learning.change_intervals import block_counts, f1_difference, f1_interval
from pipelines.learning.change_metrics import (
    Counts,
    ScoreHistogram,
    Threshold,
    count_changes,
    judge_places,
    usable_pixels,
)
from pipelines.samples.change_windows import Region

STRIP_PX = 1 << 22
BLOCK_PX = 32


@dataclass(frozen=True)
class Truth:
    """What is known of a place: its label, and where enough dates saw it. Arrays over the whole place."""

    label_HW: np.ndarray
    seen_HW: np.ndarray

    def known_HW(self) -> np.ndarray:
        return usable_pixels(self.label_HW, self.seen_HW, self.label_HW.shape)


@dataclass(frozen=True)
class Part:
    """Scores of some rows of a region, with their truth; all of one shape."""

    score_HW: np.ndarray
    label_HW: np.ndarray
    seen_HW: np.ndarray


def parts_of(region: Region, score_HW: np.ndarray, truth: Truth) -> Iterator[Part]:
    """The region in strips of rows, from arrays over its whole place (memory maps: a strip is in memory at a time)."""
    tile = region.tile
    arrays = [array[tile.rows, tile.columns] for array in (score_HW, truth.label_HW, truth.seen_HW)]
    height, width = tile.shape_yx
    rows = max(BLOCK_PX, STRIP_PX // max(width, 1) // BLOCK_PX * BLOCK_PX)
    for row in range(0, height, rows):
        yield Part(*(np.asarray(array[row : row + rows]) for array in arrays))


def choose_threshold(parts: Iterable[Part]) -> Threshold:
    """The threshold of the largest pooled F1 on these scores (>= 0). Raises RequestError where nothing changed."""
    histogram = ScoreHistogram()
    for part in parts:
        histogram.add(part.score_HW, part.label_HW, part.seen_HW)
    threshold = histogram.best_threshold()
    if threshold is None:
        raise RequestError(
            "no pixel of the places that the threshold is chosen on is labelled changed; check labels.changed, or add places"
        )
    return threshold


def standardised(score_HW: np.ndarray, seen_HW: np.ndarray) -> np.ndarray:
    """A rule's scores in deviations from the place's own mean, moved by 10 so that they are >= 0; float32, NaN where not seen.

    The order within a place stays. Between places it is what makes one threshold serve all of them: on OSCD it takes change vector
    analysis from .25 to .34.
    """
    usable = seen_HW & ~np.isnan(score_HW)
    values = score_HW[usable].astype(np.float64)
    if not values.size:
        return np.full(score_HW.shape, np.nan, np.float32)
    deviation = (score_HW - values.mean()) / (values.std() or 1.0)
    return np.where(usable, np.clip(deviation + 10, 0, None), np.nan).astype(np.float32)


# ---------------------------------------------------------------- judging


@dataclass
class Judged:
    """One method over all left-out groups. `blocks_B3` per place are what intervals are drawn from."""

    counts: dict[str, Counts] = field(default_factory=dict)
    blocks_B3: dict[str, np.ndarray] = field(default_factory=dict)
    thresholds: dict[str, float] = field(default_factory=dict)
    histogram: ScoreHistogram = field(default_factory=ScoreHistogram)
    histograms: dict[str, ScoreHistogram] = field(default_factory=dict)

    def add(self, region: Region, score_HW: np.ndarray, threshold: float, truth: Truth) -> None:
        """One left-out region; `score_HW` (>= 0) covers the whole place."""
        own = self.histograms.setdefault(region.place, ScoreHistogram())
        for part in parts_of(region, score_HW, truth):
            usable = part.seen_HW & ~np.isnan(part.score_HW)
            is_changed = np.where(usable, part.score_HW, -1) >= threshold
            counts = count_changes(is_changed, part.label_HW, usable)
            self.counts[region.place] = self.counts.get(region.place, Counts()) + counts
            blocks = block_counts(is_changed, part.label_HW, usable, BLOCK_PX)
            before = self.blocks_B3.get(region.place)
            self.blocks_B3[region.place] = blocks if before is None else np.vstack([before, blocks])
            for histogram in (self.histogram, own):
                histogram.add(part.score_HW, part.label_HW, usable)

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
    truths: Mapping[str, Truth],
) -> Judged:
    """What a method gives on every group, left out: `score_of(g, region)` covers the region's whole place.

    `threshold_of(g)` was chosen without group g.
    """
    judged = Judged()
    for g, group in enumerate(groups):
        threshold = threshold_of(g)
        judged.thresholds[names[g]] = threshold
        for region in group:
            judged.add(region, score_of(g, region), threshold, truths[region.place])
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
