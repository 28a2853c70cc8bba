"""How large the change is, with its standard error: the stratified estimators of Olofsson et al. 2014.

P. Olofsson et al., "Good practices for estimating area and assessing accuracy of land change", Remote Sensing of Environment
148 (2014) 42-57; equation numbers below are theirs. A map's own pixel count is biased by its errors: the estimate corrects it
with what a random sample of pixels, drawn in each map class, shows to be true.

What the interval means. It is the error of having seen a sample only: it is right where somebody interprets the sampled
pixels. Where a wall-to-wall label is the reference, the labelled area is known without any sampling error; then the estimate
shows what so many interpreted pixels would have given, and nothing of errors in the label itself.

Axes: S map classes (strata), K reference classes, in the same order.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.stats import norm

from pipelines.change.metrics import Counts


@dataclass(frozen=True)
class Estimate:
    """A number with its standard error and normal interval, cut at 0."""

    value: float
    standard_error: float
    low: float
    high: float


def estimate_area(counts: Counts, pixel_m2: float, total: int, confidence: float, seed: int = 0) -> dict[str, Any]:
    """The changed area in m2: mapped, labelled, and what a stratified sample of `total` labelled pixels would have given.

    The sample (section 5.1) is drawn from the counts: which pixel it is does not matter.
    """
    table_SK = np.array([[counts.true_unchanged, counts.missed], [counts.false_changed, counts.true_changed]])
    pixels_S = table_SK.sum(axis=1)
    known = {"mapped_m2": counts.mapped_changed * pixel_m2, "labelled_m2": counts.labelled_changed * pixel_m2}
    if not pixels_S.any() or pixels_S[pixels_S > 0].min() < 2:
        return {**known, "estimate": None}
    sizes = allocate_sample(min(total, int(pixels_S.sum())), pixels_S, least=min(50, total // 2))
    rng = np.random.default_rng(seed)
    sample_SK = np.array([rng.multivariate_hypergeometric(row, size) for row, size in zip(table_SK, sizes, strict=True)])
    changed = estimate_areas(sample_SK, pixels_S * pixel_m2, confidence)[1]
    return {**known, "sampled": int(sample_SK.sum()), "estimate": asdict(changed)}


def estimate_areas(counts_SK: np.ndarray, mapped_S: np.ndarray, confidence: float = 0.95) -> list[Estimate]:
    """Error-adjusted area of each class, in the unit of the mapped areas, from sample counts (map class by reference class).

    A mapped class needs two samples or more; a class that is not mapped anywhere has area 0 and needs none.
    """
    n_SK, area_S = np.asarray(counts_SK, np.float64), np.asarray(mapped_S, np.float64)
    n_S, z = n_SK.sum(axis=1), float(norm.ppf((1 + confidence) / 2))
    share_SK = np.divide(n_SK, n_S[:, None], out=np.zeros_like(n_SK), where=n_S[:, None] > 0)
    spread_SK = share_SK * (1 - share_SK) / np.maximum(n_S - 1, 1)[:, None]  # variance of each share
    estimates = []
    for share_S, spread_S in zip(share_SK.T, spread_SK.T, strict=True):
        value, error = float(area_S @ share_S), float(np.sqrt(area_S**2 @ spread_S))  # equations 9 to 11
        estimates.append(Estimate(value, error, max(0.0, value - z * error), value + z * error))
    return estimates


def allocate_sample(total: int, pixels_S: Sequence[int] | np.ndarray, least: int = 50) -> list[int]:
    """Samples per map class: `least` in every class that is mapped (rare ones need them), the rest by area; section 5.1.2.

    They sum to `total`, or to all pixels where there are fewer: no class gets more samples than it has pixels.
    """
    pixels = np.asarray(pixels_S, np.int64)
    sizes = np.minimum(least, pixels)
    by_area = np.floor((total - sizes.sum()) * pixels / max(pixels.sum(), 1)).astype(np.int64)
    sizes = np.minimum(sizes + by_area, pixels)
    for s in np.argsort(-pixels, kind="stable"):  # what was rounded off, or did not fit a small class
        sizes[s] += min(pixels[s] - sizes[s], total - sizes.sum())
    return [int(n) for n in sizes]
