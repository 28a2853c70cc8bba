"""How well change was found: counts of the changed class, thresholds, calibration; all of it adds up over tiles and sites.

Labels are uint8: 0 unchanged, 1 changed, 255 unknown. A pixel counts where its label is known and `usable` says that it was
seen. Scores and probabilities are float32 >= 0; NaN: not seen. A pixel is mapped changed where `score >= threshold`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, astuple, dataclass
from typing import Any

import numpy as np

UNCHANGED, CHANGED, UNKNOWN = 0, 1, 255

# Floats >= 0 sort like their bits (IEEE 754): the sign, 8 bits of exponent and 11 of fraction name a bin, so bins are 1/2048
# of their value wide whatever the range of the scores, and every edge is itself a float32.
DROPPED_BITS = 23 - 11
BINS = (0x7F800000 >> DROPPED_BITS) + 1


@dataclass(frozen=True)
class Counts:
    """Pixels by map and label; changed is the positive class. Counts add up. `undefined` says why a score is None."""

    true_changed: int = 0
    false_changed: int = 0
    missed: int = 0
    true_unchanged: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(*(mine + theirs for mine, theirs in zip(astuple(self), astuple(other), strict=True)))

    @property
    def labelled_changed(self) -> int:
        return self.true_changed + self.missed

    @property
    def mapped_changed(self) -> int:
        return self.true_changed + self.false_changed

    @property
    def pixels(self) -> int:
        return self.mapped_changed + self.missed + self.true_unchanged

    @property
    def precision(self) -> float | None:
        """Share of what is mapped changed that did change."""
        return self.true_changed / self.mapped_changed if self.mapped_changed else None

    @property
    def recall(self) -> float | None:
        """Share of what changed that is mapped so."""
        return self.true_changed / self.labelled_changed if self.labelled_changed else None

    @property
    def f1(self) -> float | None:
        """2 TP / (2 TP + FP + FN): the harmonic mean of precision and recall; 0 where change was missed altogether."""
        found = 2 * self.true_changed
        return found / (found + self.false_changed + self.missed) if self.labelled_changed else None

    @property
    def iou(self) -> float | None:
        """TP / (TP + FP + FN): intersection over union of the changed class."""
        return self.true_changed / (self.mapped_changed + self.missed) if self.labelled_changed else None

    @property
    def undefined(self) -> dict[str, str]:
        """The scores that are None, with the reason."""
        nothing = "no usable pixel is {} changed" if self.pixels else "no pixel is both seen and labelled"
        reasons = {} if self.mapped_changed else {"precision": nothing.format("mapped")}
        return reasons if self.labelled_changed else reasons | dict.fromkeys(("recall", "f1", "iou"), nothing.format("labelled"))

    def to_json(self) -> dict[str, Any]:
        names = ("precision", "recall", "f1", "iou", "pixels", "labelled_changed")
        content = {name: getattr(self, name) for name in names} | asdict(self)
        return content | ({"undefined": self.undefined} if self.undefined else {})


def count_changes(is_changed: np.ndarray, label: np.ndarray, usable: np.ndarray | None = None) -> Counts:
    """Counts of a mapped change mask (bool) against its label (uint8), any shape, over the usable pixels.

    Raises ValueError where the shapes differ or the label holds other codes than 0, 1 and 255.

    >>> count_changes(np.array([True, True, False]), np.array([1, 0, 255], np.uint8)).precision
    0.5
    """
    if is_changed.dtype != bool:
        raise ValueError(f"the mapped change is {is_changed.dtype}, not bool; compare the score with a threshold first")
    known = usable_pixels(label, usable, is_changed.shape)
    code = 2 * (label[known] == CHANGED) + is_changed[known]
    unchanged, false, missed, true = (int(n) for n in np.bincount(code, minlength=4))
    return Counts(true, false, missed, unchanged)


def usable_pixels(label: np.ndarray, usable: np.ndarray | None, shape: tuple[int, ...]) -> np.ndarray:
    """True where a pixel is seen and its label known; bool, of the label's shape. Raises ValueError (shapes, codes)."""
    if label.shape != shape or (usable is not None and usable.shape != shape):
        raise ValueError(f"the map has shape {shape}, the label {label.shape}, usable {getattr(usable, 'shape', None)}")
    known: np.ndarray = label != UNKNOWN
    if (wrong := np.setdiff1d(label[known], (UNCHANGED, CHANGED))).size:
        raise ValueError(f"the label holds the codes {wrong[:5].tolist()}; 0 is unchanged, 1 changed, 255 unknown")
    return known if usable is None else known & usable


def score_sites(counts: Mapping[str, Counts]) -> dict[str, Any]:
    """Scores pooled over all pixels, per site, and the mean over the sites where F1 is defined, for JSON."""
    defined = [one.f1 for one in counts.values() if one.f1 is not None]
    return {
        "pooled": sum(counts.values(), Counts()).to_json(),
        "mean_f1_of_sites": float(np.mean(defined)) if defined else None,
        "sites_with_change": len(defined),
        "sites": {name: one.to_json() for name, one in counts.items()},
    }


@dataclass(frozen=True)
class Threshold:
    """A threshold and what it gives on the pixels that it was chosen on; never evaluate on those pixels."""

    value: float
    counts: Counts


class ScoreHistogram:
    """Scores of unchanged and of changed pixels, added piece by piece in 8 MB; thresholds and areas are read off it."""

    def __init__(self) -> None:
        self.pixels_2S = np.zeros((2, BINS), np.int64)  # [unchanged, changed], scores ascending

    def add(self, score: np.ndarray, label: np.ndarray, usable: np.ndarray | None = None) -> None:
        """One piece, any shape. Scores that are NaN count as not seen. Raises ValueError: negative scores, shapes, codes."""
        known = usable_pixels(label, usable, score.shape) & ~np.isnan(score)
        index, is_changed = bin_of(score[known]), label[known] == CHANGED
        for row, chosen in enumerate((index[~is_changed], index[is_changed])):
            np.add.at(self.pixels_2S[row], chosen, 1)

    def _curve(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(bins with pixels, unchanged, changed pixels at or above each), scores descending; empty where nothing changed."""
        bins = np.flatnonzero(self.pixels_2S.any(axis=0) & self.pixels_2S[1].any())[::-1]
        unchanged, changed = np.cumsum(self.pixels_2S[:, bins], axis=1)
        return bins, unchanged, changed

    def best_threshold(self) -> Threshold | None:
        """The threshold with the largest F1 among all bins' lower edges; of equal ones the highest. None: nothing changed.

        >>> histogram = ScoreHistogram()
        >>> histogram.add(np.array([0.25, 0.5, 0.75]), np.array([0, 1, 1], np.uint8))
        >>> histogram.best_threshold().value
        0.5
        """
        bins, false, true = self._curve()
        if not bins.size:
            return None
        best = int(np.argmax(2 * true / (true + false + true[-1])))
        found, wrong, changed, unchanged = (int(n) for n in (true[best], false[best], true[-1], false[-1]))
        return Threshold(float(lower_edge(bins[best])), Counts(found, wrong, changed - found, unchanged - wrong))

    def average_precision(self) -> float | None:
        """Area under the precision-recall curve as a sum of steps, as in scikit-learn; None where nothing changed."""
        bins, false, true = self._curve()
        return float(np.sum(np.diff(true, prepend=0) / true[-1] * (true / (true + false)))) if bins.size else None


def bin_of(score: np.ndarray) -> np.ndarray:
    """The bin of each score, int64, growing with the score. Raises ValueError for negative scores and NaN."""
    score = np.asarray(score, np.float32)
    if not (score >= 0).all():
        raise ValueError(f"scores must be 0 or larger, the smallest is {np.min(score)}; use the magnitude of the change")
    number: np.ndarray = np.abs(score).view(np.int32).astype(np.int64) >> DROPPED_BITS  # abs: -0.0 has a sign bit
    return number


def lower_edge(index: np.ndarray) -> np.ndarray:
    """The smallest score in a bin, float32."""
    return (np.asarray(index, np.int64) << DROPPED_BITS).astype(np.int32).view(np.float32)


class Reliability:
    """What a probability says against what happened, in bins of equal width from 0 to 1, added piece by piece."""

    def __init__(self, bins: int = 10) -> None:
        self.pixels, self.changed, self.claimed = np.zeros(bins, np.int64), np.zeros(bins, np.int64), np.zeros(bins)

    def add(self, probability: np.ndarray, label: np.ndarray, usable: np.ndarray | None = None) -> None:
        """One piece, any shape; NaN: not seen. Raises ValueError for probabilities outside 0..1, shapes and codes."""
        known = usable_pixels(label, usable, probability.shape) & ~np.isnan(probability)
        p, bins = probability[known].astype(np.float64), len(self.pixels)
        if p.size and not (p.min() >= 0 and p.max() <= 1):
            raise ValueError(f"probabilities lie between 0 and 1, not {p.min():g} and {p.max():g}")
        index = np.minimum((p * bins).astype(np.int64), bins - 1)
        self.pixels += np.bincount(index, minlength=bins)
        self.changed += np.bincount(index[label[known] == CHANGED], minlength=bins)
        self.claimed += np.bincount(index, weights=p, minlength=bins)

    def expected_error(self) -> float | None:
        """Expected calibration error (Naeini et al. 2015): mean |claimed - happened| over bins, by their pixels.

        Where change is rare the lowest bin decides it; see the table too.
        """
        total = self.pixels.sum()
        return float(np.abs(self.claimed - self.changed).sum() / total) if total else None

    def table(self) -> list[dict[str, float | int | None]]:
        """One row a bin: from, to, pixels, mean probability (`claimed`) and share that changed (`happened`)."""
        edges, rows = np.linspace(0, 1, len(self.pixels) + 1), []
        for low, high, n, claimed, changed in zip(edges, edges[1:], self.pixels, self.claimed, self.changed, strict=False):
            means = {"claimed": float(claimed / n) if n else None, "happened": float(changed / n) if n else None}
            rows.append({"from": float(low), "to": float(high), "pixels": int(n), **means})
        return rows
