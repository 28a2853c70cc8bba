"""Areas of classes from a map and a sample of what is true: the stratified estimators of Olofsson et al. 2014.

P. Olofsson et al., "Good practices for estimating area and assessing accuracy of land change", Remote Sensing of Environment
148 (2014) 42-57; equation numbers below are theirs. A map's own pixel count is biased by its errors: the estimate corrects it
with what a random sample of pixels, drawn in each map class, shows to be true.

Their normal interval is far too narrow for rare classes: a class of 0.3 % of the area lies in 28 to 70 % of its 95 % intervals
(samples of 500 to 2000), since a stratum without an error in the sample counts as free of errors. So each share of a stratum has
its Jeffreys interval (Brown, Cai & DasGupta 2001, https://doi.org/10.1214/ss/1009213286), and the strata are joined by MOVER (Zou
& Donner 2008, https://doi.org/10.1002/sim.3095): the squared distances of the bounds from the shares add up as variances do. In
the same simulations 93 to 97 % of the intervals hold the truth.

What the interval means. It is the error of having seen a sample only. Labels that were not drawn at random, as most points are,
say how the map errs where they lie; that it errs alike elsewhere is then an assumption.

Axes: S map classes (strata), K reference classes, in the same order.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Estimate:
    """A number with its standard error and its interval."""

    value: float
    standard_error: float
    low: float
    high: float


def estimate_areas(counts_SK: np.ndarray, mapped_S: np.ndarray, confidence: float = 0.95) -> list[Estimate]:
    """Error-adjusted area of each class, in the unit of the mapped areas, from sample counts (map class by reference class).

    A class that is not mapped anywhere needs no sample. A mapped class without one adds nothing to the values; to the upper
    bound of every class it adds all of its area.
    """
    n_SK, area_S = np.asarray(counts_SK, np.float64), np.asarray(mapped_S, np.float64)
    n_S = n_SK.sum(axis=1)
    share_SK = np.divide(n_SK, n_S[:, None], out=np.zeros_like(n_SK), where=n_S[:, None] > 0)
    spread_SK = share_SK * (1 - share_SK) / np.maximum(n_S - 1, 1)[:, None]  # variance of each share
    low_SK, high_SK = jeffreys(n_SK, np.broadcast_to(n_S[:, None], n_SK.shape), confidence)
    estimates = []
    for k in range(n_SK.shape[1]):
        value, error = float(area_S @ share_SK[:, k]), float(np.sqrt(area_S**2 @ spread_SK[:, k]))  # equations 9 to 11
        below = np.linalg.norm(area_S * (share_SK[:, k] - low_SK[:, k]))
        above = np.linalg.norm(area_S * (high_SK[:, k] - share_SK[:, k]))
        most = float(area_S.sum())
        estimates.append(Estimate(value, error, max(0.0, value - float(below)), min(most, value + float(above))))
    return estimates


def jeffreys(found: np.ndarray, of: np.ndarray, confidence: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
    """(low, high) of the share of which `found` of `of` were seen: quantiles of Beta(found + 1/2, of - found + 1/2).

    0 where none and 1 where all were found (Brown, Cai & DasGupta 2001, section 4.1.2); 0 and 1 where `of` is 0.

    >>> [round(float(bound), 3) for bound in jeffreys(np.array(0), np.array(50))]
    [0.0, 0.049]
    """
    from scipy.stats import beta  # half a second, which a verb that has nothing to do must not wait

    found, of = np.asarray(found, np.float64), np.asarray(of, np.float64)
    tail, a, b = (1 - confidence) / 2, found + 0.5, of - found + 0.5
    low = np.where(found > 0, beta.ppf(tail, a, b), 0.0)
    high = np.where(found < of, beta.ppf(1 - tail, a, b), 1.0)
    return low, high


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
