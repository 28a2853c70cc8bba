"""How sure an F1 of the changed class is: a bootstrap over blocks of pixels, within each place.

Neighbouring pixels share their object, label error and haze, so blocks are drawn, not pixels. Blocks are drawn within places:
the interval says how sure the F1 on **these** places is, not what another place would give; for that look at the single places.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np

from pipelines.learning.change_metrics import CHANGED, Counts, usable_pixels

TRUE, FALSE, MISSED = 0, 1, 2  # columns of counts_B3
MOST_DRAWS_AT_ONCE = 2_000_000


@dataclass(frozen=True)
class Interval:
    """A number with its bootstrap interval. `low` and `high`, or all three, are None where undefined; `reason` says why."""

    value: float | None
    low: float | None
    high: float | None
    blocks: int
    reason: str = ""

    @property
    def outcome(self) -> str:
        """Of a difference: `better` | `worse` where the interval leaves 0 out, else `not distinguishable`."""
        if self.low is not None and self.low > 0:
            return "better"
        if self.high is not None and self.high < 0:
            return "worse"
        return "not distinguishable"

    def to_json(self) -> dict[str, float | int | str | None]:
        return asdict(self)


def block_counts(
    is_changed_HW: np.ndarray, label_HW: np.ndarray, usable_HW: np.ndarray | None = None, block_px: int = 32
) -> np.ndarray:
    """[true changed, false changed, missed] pixels of each block, (B, 3) int64, blocks in row-major order; all blocks are kept.

    Two maps of one place have the same blocks, so they can be compared in pairs. Blocks at the far edges may be smaller.
    """
    known = usable_pixels(label_HW, usable_HW, is_changed_HW.shape)
    truth = (label_HW == CHANGED) & known
    mapped = is_changed_HW & known
    rows, columns = (np.arange(0, n, block_px) for n in is_changed_HW.shape)
    sums = [
        np.add.reduceat(np.add.reduceat(mask.astype(np.int64), rows, axis=0), columns, axis=1).ravel()
        for mask in (mapped & truth, mapped & ~truth, truth & ~mapped)
    ]
    return np.stack(sums, axis=1)


def f1_interval(blocks: Mapping[str, np.ndarray], *, resamples: int = 2000, confidence: float = 0.95, seed: int = 0) -> Interval:
    """Pooled F1 of the places' `block_counts` with its percentile interval, the same for the same seed."""
    f1 = pooled_f1(blocks)
    count = _count(blocks)
    if f1 is None:
        return Interval(None, None, None, count, "no usable pixel is labelled changed")
    return _interval(f1, _f1(_resampled_sums(blocks, resamples, seed)), blocks, confidence)


def f1_difference(
    ours: Mapping[str, np.ndarray],
    theirs: Mapping[str, np.ndarray],
    *,
    resamples: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Pooled F1 of `ours` minus that of `theirs`; drawn from the same blocks. Raises ValueError: other places or blocks."""
    if {name: len(counts) for name, counts in ours.items()} != {name: len(counts) for name, counts in theirs.items()}:
        raise ValueError("the two methods were not counted on the same places and blocks; count both with one block_px")
    mine, other = pooled_f1(ours), pooled_f1(theirs)
    if mine is None or other is None:
        return Interval(None, None, None, _count(ours), "no usable pixel is labelled changed")
    both = {name: np.hstack([counts, theirs[name]]) for name, counts in ours.items()}
    sums_R6 = _resampled_sums(both, resamples, seed)
    return _interval(mine - other, _f1(sums_R6[:, :3]) - _f1(sums_R6[:, 3:]), ours, confidence)


def pooled_f1(blocks: Mapping[str, np.ndarray]) -> float | None:
    true, false, missed = sum((counts.sum(axis=0) for counts in blocks.values()), np.zeros(3, np.int64))
    return Counts(int(true), int(false), int(missed)).f1


def _count(blocks: Mapping[str, np.ndarray]) -> int:
    return sum(len(counts) for counts in blocks.values())


def _interval(value: float, drawn_R: np.ndarray, blocks: Mapping[str, np.ndarray], confidence: float) -> Interval:
    count = _count(blocks)
    with_change = sum(int(np.count_nonzero(counts[:, TRUE] + counts[:, MISSED])) for counts in blocks.values())
    if with_change < 2:
        return Interval(value, None, None, count, "fewer than two blocks hold change, so there is nothing to draw from")
    defined = drawn_R[np.isfinite(drawn_R)]
    low, high = np.quantile(defined, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(value, float(low), float(high), count)


def _f1(sums_R3: np.ndarray) -> np.ndarray:
    """F1 of each draw, (R,); NaN where a draw holds no change."""
    true, false, missed = sums_R3[:, TRUE], sums_R3[:, FALSE], sums_R3[:, MISSED]
    with np.errstate(invalid="ignore"):
        return np.where(true + missed > 0, 2 * true / (2 * true + false + missed), np.nan)


def _resampled_sums(blocks: Mapping[str, np.ndarray], resamples: int, seed: int) -> np.ndarray:
    """Sums over as many blocks of each place as it has, drawn with replacement, (R, columns) float64."""
    rng = np.random.default_rng(seed)
    columns = next(iter(blocks.values())).shape[1]
    sums = np.zeros((resamples, columns))
    for name in sorted(blocks):
        counts = blocks[name].astype(np.float64)
        # a block without any count adds nothing however often it is drawn: one weight stands for all of these
        told = counts[counts.any(axis=1)]
        silent = len(counts) - len(told)
        share = np.append(np.full(len(told), 1 / len(counts)), silent / len(counts))
        at_once = max(1, MOST_DRAWS_AT_ONCE // len(share))
        for start in range(0, resamples, at_once):
            stop = min(start + at_once, resamples)
            times = rng.multinomial(len(counts), share / share.sum(), size=stop - start)
            sums[start:stop] += times[:, :-1] @ told
    return sums
