"""Scores of sites nobody has seen -> calibration, threshold, and the table in which all methods stand.

Every number is collected piece by piece: `Part`s are views of memory maps; what is fused or standardised is a whole site.
Labels are uint8: 0 unchanged, 1 changed, 255 unknown. NaN in a score: not seen.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from pipelines.change.area_estimates import allocate_sample, estimate_areas
from pipelines.change.groups import Grouping
from pipelines.change.intervals import Groups, block_counts, f1_difference, f1_interval
from pipelines.change.metrics import (
    Counts,
    Reliability,
    ScoreHistogram,
    Threshold,
    count_changes,
    score_sites,
    usable_pixels,
)
from pipelines.change.windows import Region
from pipelines.errors import RequestError
from pipelines.learning.intervals import Interval

STRIP_PX = 1 << 22
BLOCK_PX = 32


@dataclass(frozen=True)
class Truth:
    """What is known of a site: its label, and where enough dates saw it. Arrays over the whole site."""

    label_HW: np.ndarray
    seen_HW: np.ndarray

    def known_HW(self) -> np.ndarray:
        return usable_pixels(self.label_HW, self.seen_HW, self.label_HW.shape)


@dataclass(frozen=True)
class Comparison:
    """What is asked of the first method: a pooled F1 larger by `margin` than that of all in `must_beat`.

    `groups`: sites that count as one where intervals are drawn; `confidence` of these.
    """

    must_beat: tuple[str, ...]
    margin: float
    confidence: float
    groups: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Part:
    """Scores of some rows of a region, with their truth; all of one shape."""

    score_HW: np.ndarray
    label_HW: np.ndarray
    seen_HW: np.ndarray


def parts_of(region: Region, score_HW: np.ndarray, truth: Truth) -> Iterator[Part]:
    """The region in strips of rows, from arrays over its whole site (memory maps: a strip is in memory at a time)."""
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


# ---------------------------------------------------------------- scores of a method


@dataclass
class MethodScores:
    """One method over all left-out groups. `blocks_B3` per site are what intervals are drawn from."""

    counts: dict[str, Counts] = field(default_factory=dict)
    blocks_B3: dict[str, np.ndarray] = field(default_factory=dict)
    thresholds: dict[str, float] = field(default_factory=dict)
    histogram: ScoreHistogram = field(default_factory=ScoreHistogram)
    histograms: dict[str, ScoreHistogram] = field(default_factory=dict)
    reliability: Reliability | None = None  # of scores that are probabilities

    def add(self, region: Region, score_HW: np.ndarray, threshold: float, truth: Truth) -> None:
        """One left-out region; `score_HW` (>= 0) covers the whole site."""
        own = self.histograms.setdefault(region.site, ScoreHistogram())
        for part in parts_of(region, score_HW, truth):
            usable = part.seen_HW & ~np.isnan(part.score_HW)
            is_changed = np.where(usable, part.score_HW, -1) >= threshold
            counts = count_changes(is_changed, part.label_HW, usable)
            self.counts[region.site] = self.counts.get(region.site, Counts()) + counts
            blocks = block_counts(is_changed, part.label_HW, usable, BLOCK_PX)
            before = self.blocks_B3.get(region.site)
            self.blocks_B3[region.site] = blocks if before is None else np.vstack([before, blocks])
            for histogram in (self.histogram, own):
                histogram.add(part.score_HW, part.label_HW, usable)
            if self.reliability is not None:
                self.reliability.add(part.score_HW, part.label_HW, usable)

    def to_json(self, confidence: float, groups: Groups = (), seed: int = 0) -> dict[str, Any]:
        """Pooled and per site: precision, recall, F1, IoU, average precision; the pooled F1 with its interval."""
        content = score_sites(self.counts)
        content["pooled"]["average_precision"] = self.histogram.average_precision()
        for name, histogram in self.histograms.items():
            content["sites"][name]["average_precision"] = histogram.average_precision()
        interval = f1_interval(self.blocks_B3, groups, confidence=confidence, seed=seed)
        if self.reliability is not None:
            content["reliability"] = {"expected_error": self.reliability.expected_error(), "bins": self.reliability.table()}
        return {**content, "f1_interval": interval.to_json(), "thresholds": self.thresholds}


def evaluate_index(grouping: Grouping, scores: Mapping[str, np.ndarray], truths: Mapping[str, Truth]) -> MethodScores:
    """What an index gives on every group, with one threshold for it that was chosen on all other groups together.

    `scores` (>= 0, comparable between sites) cover whole sites.
    """
    scores_of_method = MethodScores()
    for g, group in enumerate(grouping.groups):
        parts = (part for r in grouping.outside([g]) for part in parts_of(r, scores[r.site], truths[r.site]))
        threshold = choose_threshold(parts).value
        scores_of_method.thresholds[grouping.names[g]] = threshold
        for region in group:
            scores_of_method.add(region, scores[region.site], threshold, truths[region.site])
    return scores_of_method


def describe_method(seeds: Sequence[MethodScores], confidence: float, groups: Groups = ()) -> dict[str, Any]:
    """The first seed's figures and, where there are several, the spread of the pooled F1 over all of them."""
    f1s = [f1 for f1 in (sum(one.counts.values(), Counts()).f1 for one in seeds) if f1 is not None]
    spread = spread_of(f1s) if len(f1s) > 1 else None
    return {**seeds[0].to_json(confidence, groups), "f1_of_seeds": f1s, "spread": spread}


def compare(
    ours: MethodScores, theirs: Mapping[str, MethodScores], confidence: float, groups: Groups = ()
) -> dict[str, Interval]:
    """Pooled F1 of ours minus that of each other method, in pairs. Sites of one of the `groups` count as one site."""
    return {name: f1_difference(ours.blocks_B3, other.blocks_B3, groups, confidence=confidence) for name, other in theirs.items()}


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


# ---------------------------------------------------------------- areas and tables


def estimate_area(counts: Counts, pixel_m2: float, total: int, confidence: float, seed: int = 0) -> dict[str, Any]:
    """The changed area in m2: mapped, labelled, and what a stratified sample of `total` labelled pixels would have given.

    The sample (Olofsson et al. 2014, section 5.1) is drawn from the counts: which pixel it is does not matter.
    """
    table_SK = np.array([[counts.true_unchanged, counts.missed], [counts.false_changed, counts.true_changed]])
    pixels_S = table_SK.sum(axis=1)
    known = {"mapped_m2": counts.mapped_changed * pixel_m2, "labelled_m2": counts.labelled_changed * pixel_m2}
    if not pixels_S.sum() or ((pixels_S > 0).any() and pixels_S[pixels_S > 0].min() < 2):
        return {**known, "estimate": None}
    sizes = allocate_sample(min(total, int(pixels_S.sum())), [int(n) for n in pixels_S], least=min(50, total // 2))
    rng = np.random.default_rng(seed)
    sample_SK = np.array([rng.multivariate_hypergeometric(row, size) for row, size in zip(table_SK, sizes, strict=True)])
    estimates = estimate_areas(sample_SK, pixels_S * pixel_m2, ("unchanged", "changed"), confidence)
    return {**known, "sampled": estimates.sampled, "estimate": asdict(estimates.of("changed").area_m2)}


def markdown_table(methods: Mapping[str, Mapping[str, Any]], shipped: str) -> list[str]:
    """The lines of a table of methods (`describe_method`), one a line: pooled figures, then F1 per site."""
    scores_of_method = methods[shipped]
    sites = list(scores_of_method["sites"])
    head = ["method", "F1", f"interval ({scores_of_method['f1_interval']['basis']})", "seeds", "P", "R", "IoU", "AP", *sites]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for name, method in methods.items():
        pooled, interval, spread = method["pooled"], method["f1_interval"], method["spread"]
        cells = [
            f"**{name}**" if name == shipped else name,
            _figure(pooled["f1"]),
            "" if interval["low"] is None else f"{interval['low']:.3f} to {interval['high']:.3f}",
            "" if not spread else f"{spread['mean']:.3f} ± {spread['std']:.3f}",
            *(_figure(pooled[key]) for key in ("precision", "recall", "iou", "average_precision")),
            *(_figure(method["sites"][site]["f1"]) for site in sites),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def _figure(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.3f}"
