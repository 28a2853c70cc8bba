"""Scores of sites nobody has seen -> thresholds, and what a method gives with them.

Every number is collected piece by piece: what is added are views of memory maps; what is standardised is a whole site.
Labels are uint8: 0 unchanged, 1 changed, 255 unknown. NaN in a score: not seen.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pipelines.change.intervals import Groups, block_counts, f1_interval
from pipelines.change.metrics import Counts, Reliability, ScoreHistogram, Threshold, count_changes, score_sites, usable_pixels
from pipelines.errors import RequestError
from pipelines.samples.decoded_sites import Region
from pipelines.samples.site_groups import Grouping
from pipelines.tiles import Box

STRIP_PX = 1 << 22
BLOCK_PX = 32


@dataclass(frozen=True)
class Truth:
    """What is known of a site, or of a part of it: its label, and where enough dates saw it."""

    label_HW: np.ndarray
    seen_HW: np.ndarray

    def known_HW(self) -> np.ndarray:
        return usable_pixels(self.label_HW, self.seen_HW, self.label_HW.shape)

    def cut(self, tile: Box) -> Truth:
        return Truth(self.label_HW[tile.rows, tile.columns], self.seen_HW[tile.rows, tile.columns])


Part = tuple[np.ndarray, Truth]  # score_HW of some pixels, with their truth


@dataclass(frozen=True)
class HeldOut:
    """A region of a site that a member has not seen: the member's logits, the index's scores (None: no index), the truth."""

    site: str
    logit_HW: np.ndarray
    index_HW: np.ndarray | None
    truth: Truth


def parts_of(region: Region, score_HW: np.ndarray, truth: Truth) -> Iterator[Part]:
    """The region in strips of rows, from arrays over its whole site (memory maps: a strip is in memory at a time)."""
    tile, width = region.tile, region.tile.shape[1]
    rows = max(BLOCK_PX, STRIP_PX // max(width, 1) // BLOCK_PX * BLOCK_PX)
    for row in range(tile.rows.start, tile.rows.stop, rows):
        strip = Box((row, tile.columns.start), (min(row + rows, tile.rows.stop), tile.columns.stop))
        yield np.asarray(score_HW[strip.rows, strip.columns]), truth.cut(strip)


def choose_threshold(parts: Iterable[Part]) -> Threshold:
    """The threshold of the largest pooled F1 on these scores (>= 0). Raises RequestError where nothing changed."""
    histogram = ScoreHistogram()
    for score_HW, truth in parts:
        histogram.add(score_HW, truth.label_HW, truth.seen_HW)
    if (threshold := histogram.best_threshold()) is None:
        raise RequestError(
            "no pixel of the sites that the threshold is chosen on is labelled changed; check labels.changed, or add sites"
        )
    return threshold


def standardised(score_HW: np.ndarray, seen_HW: np.ndarray) -> np.ndarray:
    """An index's scores in deviations from the site's own mean, moved by 10 so that they are >= 0; float32, NaN where not seen.

    The order within a site stays. Between sites it is what makes one threshold serve all of them: on OSCD it takes change
    vector analysis from 0.25 to 0.34.
    """
    usable = seen_HW & ~np.isnan(score_HW)
    values = score_HW[usable].astype(np.float64)
    if not values.size:
        return np.full(score_HW.shape, np.nan, np.float32)
    deviation = (score_HW - values.mean()) / (values.std() or 1.0)
    return np.where(usable, np.clip(deviation + 10, 0, None), np.nan).astype(np.float32)


@dataclass
class MethodScores:
    """One method over all left-out groups. `blocks_B3` per site are what intervals are drawn from.

    `said`: left-out region -> what was said (bool_P) of the `audited` pixels there ((P, 2) rows and columns in the site).
    """

    counts: dict[str, Counts] = field(default_factory=dict)
    blocks_B3: dict[str, np.ndarray] = field(default_factory=dict)
    thresholds: dict[str, float] = field(default_factory=dict)
    histogram: ScoreHistogram = field(default_factory=ScoreHistogram)
    histograms: dict[str, ScoreHistogram] = field(default_factory=dict)
    reliability: Reliability | None = None  # of scores that are probabilities
    audited: Mapping[Region, np.ndarray] = field(default_factory=dict)
    said: dict[Region, np.ndarray] = field(default_factory=dict)

    def add(self, region: Region, score_HW: np.ndarray, threshold: float, truth: Truth) -> None:
        """One left-out region; `score_HW` (>= 0) covers the whole site."""
        site, own = region.site, self.histograms.setdefault(region.site, ScoreHistogram())
        if (pixels_P2 := self.audited.get(region)) is not None:
            self.said[region] = np.asarray(score_HW[*pixels_P2.T] >= threshold)
        tallies = [one for one in (self.histogram, own, self.reliability) if one is not None]
        for part_HW, known in parts_of(region, score_HW, truth):
            usable = known.seen_HW & ~np.isnan(part_HW)
            is_changed = np.where(usable, part_HW, -1) >= threshold
            self.counts[site] = self.counts.get(site, Counts()) + count_changes(is_changed, known.label_HW, usable)
            blocks = block_counts(is_changed, known.label_HW, usable, BLOCK_PX)
            self.blocks_B3[site] = np.vstack([self.blocks_B3[site], blocks]) if site in self.blocks_B3 else blocks
            for tally in tallies:
                tally.add(part_HW, known.label_HW, usable)

    def to_json(self, confidence: float, groups: Groups = ()) -> dict[str, Any]:
        """Pooled and per site: precision, recall, F1, IoU, average precision; the pooled F1 with its interval."""
        content = score_sites(self.counts)
        content["pooled"]["average_precision"] = self.histogram.average_precision()
        for name, histogram in self.histograms.items():
            content["sites"][name]["average_precision"] = histogram.average_precision()
        if self.reliability is not None:
            content["reliability"] = {"expected_error": self.reliability.expected_error(), "bins": self.reliability.table()}
        interval = f1_interval(self.blocks_B3, groups, confidence)
        return {**content, "f1_interval": interval.to_json(), "thresholds": self.thresholds}


def evaluate_index(grouping: Grouping, scores: Mapping[str, np.ndarray], truths: Mapping[str, Truth]) -> MethodScores:
    """What an index (scores of whole sites, comparable between them) gives on every group, its threshold chosen on the others."""
    method = MethodScores()
    for g, group in enumerate(grouping.groups):
        parts = (part for r in grouping.outside([g]) for part in parts_of(r, scores[r.site], truths[r.site]))
        threshold = choose_threshold(parts).value
        method.thresholds[grouping.names[g]] = threshold
        for region in group:
            method.add(region, scores[region.site], threshold, truths[region.site])
    return method
