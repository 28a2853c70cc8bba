"""Intervals of the F1 of the changed class, whose unit is the site wherever at least three are independent.

Pixels of one object, and all objects of one site, share labels, haze and what the land is like, and sites differ far more than
parts of one site do. What a detector does on sites that it has not seen can therefore be learnt from other sites only: each is
left out in turn (jackknife), and the interval is Student's t with sites - 1 degrees of freedom. In simulations with 3 to 14
very unequal sites a win of two equal methods is claimed in 2 to 5 % of all cases (2.5 % in theory), where drawing sites at
random (percentile bootstrap) claims it in 4 to 15 %.

With one or two sites there is nothing to leave out. Then blocks of pixels are drawn at random within each site, and the
interval holds for **these** sites only.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from pipelines.change.metrics import CHANGED, usable_pixels
from pipelines.learning.intervals import Interval, Statistic, jackknife, within

TRUE, FALSE, MISSED = 0, 1, 2  # columns of counts_B3
LEAST_SITES = 3  # Student's t of two sites is 12.7 standard errors wide on either side
RESAMPLES = 2000
MOST_DRAWS_AT_ONCE = 2_000_000
NO_CHANGE = "no usable pixel is labelled changed"

Blocks = Mapping[str, np.ndarray]  # site -> its counts_B3
Groups = Sequence[Sequence[str]]  # sites that touch or share a scene count as one


def block_counts(
    is_changed_HW: np.ndarray, label_HW: np.ndarray, usable_HW: np.ndarray | None = None, block_px: int = 32
) -> np.ndarray:
    """[true changed, false changed, missed] pixels of each block, (B, 3) int64, blocks in row-major order; all blocks are kept.

    Two maps of one site have the same blocks, so they can be compared in pairs. Blocks at the far edges may be smaller.
    """
    known = usable_pixels(label_HW, usable_HW, is_changed_HW.shape)
    truth, mapped = (label_HW == CHANGED) & known, is_changed_HW & known
    rows, columns = (np.arange(0, n, block_px) for n in is_changed_HW.shape)
    sums = [
        np.add.reduceat(np.add.reduceat(mask.astype(np.int64), rows, axis=0), columns, axis=1).ravel()
        for mask in (mapped & truth, mapped & ~truth, truth & ~mapped)
    ]
    return np.stack(sums, axis=1)


def f1_interval(blocks: Blocks, groups: Groups = (), confidence: float = 0.95) -> Interval:
    """Pooled F1 of the sites' `block_counts` with its interval."""
    return _interval(blocks, groups, _f1, (0.0, 1.0), confidence)


def f1_difference(ours: Blocks, theirs: Blocks, groups: Groups = (), confidence: float = 0.95) -> Interval:
    """Pooled F1 of `ours` minus that of `theirs`, in pairs. Raises ValueError: other sites or blocks."""
    if {name: len(counts) for name, counts in ours.items()} != {name: len(counts) for name, counts in theirs.items()}:
        raise ValueError("the two methods were not counted on the same sites and blocks; count both with one block_px")

    def difference(sums_R6: np.ndarray) -> np.ndarray:
        gain_R: np.ndarray = _f1(sums_R6[:, :3]) - _f1(sums_R6[:, 3:])
        return gain_R

    both = {name: np.hstack([counts, theirs[name]]) for name, counts in ours.items()}
    return _interval(both, groups, difference, (-1.0, 1.0), confidence)


def _interval(blocks: Blocks, groups: Groups, statistic: Statistic, limits: tuple[float, float], confidence: float) -> Interval:
    """`limits`: what the statistic cannot leave."""
    group_of = {name: g for g, group in enumerate(groups) for name in group}
    sums: dict[int | str, np.ndarray] = {}  # one row per group of sites, and per site that is in no group
    for name in sorted(blocks):
        key = group_of.get(name, name)
        sums[key] = sums.get(key, 0) + blocks[name].sum(axis=0, dtype=np.float64)
    sums_GX = np.stack(list(sums.values()))
    value = float(statistic(sums_GX.sum(axis=0, keepdims=True))[0])
    if len(sums_GX) >= LEAST_SITES:
        return jackknife(sums_GX, statistic, confidence, "sites", limits, (NO_CHANGE, "only one site holds change"))
    return within(_draw_blocks(value, blocks, statistic, confidence), limits)


def _draw_blocks(value: float, blocks: Blocks, statistic: Statistic, confidence: float) -> Interval:
    """Percentile bootstrap over blocks within each site."""
    count, sites = sum(len(counts) for counts in blocks.values()), len(blocks)
    if math.isnan(value):
        return Interval(None, None, None, "blocks", count, sites=sites, reason=NO_CHANGE)
    with_change = sum(int(np.count_nonzero(counts[:, TRUE] + counts[:, MISSED])) for counts in blocks.values())
    if with_change < 2:
        return Interval(value, None, None, "blocks", count, sites=sites, reason="fewer than two blocks hold change")
    drawn_R = statistic(_resampled_sums(blocks))
    low, high = np.nanquantile(drawn_R, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(value, float(low), float(high), "blocks", count, sites=sites)


def _f1(sums_R3: np.ndarray) -> np.ndarray:
    """F1 of each draw, (R,); NaN where a draw holds no change."""
    true, false, missed = sums_R3[:, TRUE], sums_R3[:, FALSE], sums_R3[:, MISSED]
    with np.errstate(invalid="ignore"):
        return np.where(true + missed > 0, 2 * true / (2 * true + false + missed), np.nan)


def _resampled_sums(blocks: Blocks) -> np.ndarray:
    """Sums over as many blocks of each site as it has, drawn with replacement, (RESAMPLES, columns) float64; always the same."""
    rng, sums = np.random.default_rng(0), np.zeros((RESAMPLES, next(iter(blocks.values())).shape[1]))
    for name in sorted(blocks):
        counts = blocks[name].astype(np.float64)
        # a block without any count adds nothing however often it is drawn: one weight stands for all of these
        informative = counts[counts.any(axis=1)]
        share = np.append(np.full(len(informative), 1 / len(counts)), (len(counts) - len(informative)) / len(counts))
        at_once = max(1, MOST_DRAWS_AT_ONCE // len(share))
        for start in range(0, RESAMPLES, at_once):
            stop = min(start + at_once, RESAMPLES)
            times = rng.multinomial(len(counts), share / share.sum(), size=stop - start)
            sums[start:stop] += times[:, :-1] @ informative
    return sums
