"""How large the change is, with its standard error: the stratified estimators of Olofsson et al. 2014.

P. Olofsson et al., "Good practices for estimating area and assessing accuracy of land change", Remote Sensing of Environment
148 (2014) 42-57; equation numbers below are theirs. A map's own pixel count is biased by its errors: the estimate corrects it
with what a random sample of pixels, drawn in each map class, shows to be true.

What the interval means. It is the error of having seen a sample only: it is right where somebody interprets the sampled
pixels. Where a wall-to-wall label is the reference, the labelled area is known without any sampling error; then the estimate
shows what so many interpreted pixels would have given, and nothing of errors in the label itself.

Axes: S map classes (strata), K reference classes, in the same order. Areas are in m2; `to_json` gives hectares too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.stats import norm

from pipelines.errors import RequestError

M2_PER_HECTARE = 10_000.0


@dataclass(frozen=True)
class Estimate:
    """A number with its standard error and normal interval (cut at 0, and at 1 for shares); all None where undefined."""

    value: float | None
    standard_error: float | None
    low: float | None
    high: float | None


UNDEFINED = Estimate(None, None, None, None)


@dataclass(frozen=True)
class ClassEstimate:
    """One class: mapped and error-adjusted area in m2, user's accuracy (1 - commission), producer's accuracy (1 - omission)."""

    name: str
    mapped_m2: float
    area_m2: Estimate
    users: Estimate
    producers: Estimate

    def to_json(self) -> dict[str, Any]:
        hectares = {key: None if v is None else v / M2_PER_HECTARE for key, v in asdict(self.area_m2).items()}
        return {**asdict(self), "mapped_ha": self.mapped_m2 / M2_PER_HECTARE, "area_ha": hectares}


@dataclass(frozen=True)
class AreaEstimates:
    """All classes, and the overall accuracy (share of the area that is mapped rightly)."""

    classes: tuple[ClassEstimate, ...]
    overall: Estimate
    sampled: int
    confidence: float

    def of(self, name: str) -> ClassEstimate:
        return next(one for one in self.classes if one.name == name)

    def to_json(self) -> dict[str, Any]:
        classes = [one.to_json() for one in self.classes]
        return {"classes": classes, "overall": asdict(self.overall), "sampled": self.sampled, "confidence": self.confidence}


def estimate_areas(
    counts_SK: np.ndarray, mapped_m2_S: Sequence[float] | np.ndarray, names: Sequence[str], confidence: float = 0.95
) -> AreaEstimates:
    """Error-adjusted areas and accuracies from sample counts (map class by reference class) and the mapped areas.

    A class that is not mapped anywhere has area 0 and needs no samples. Raises RequestError for a mapped class with fewer than
    two samples, ValueError for shapes that do not fit.
    """
    n_SK, area_S = np.asarray(counts_SK, np.float64), np.asarray(mapped_m2_S, np.float64)
    if n_SK.shape != (len(names), len(names)) or area_S.shape != (len(names),):
        raise ValueError(f"{len(names)} classes, but counts of shape {n_SK.shape} and {area_S.size} mapped areas")
    n_S = n_SK.sum(axis=1)
    for s, name in enumerate(names):
        if area_S[s] > 0 and n_S[s] < 2:
            raise RequestError(f"the map class {name!r} has {n_S[s]:g} samples; draw at least 2, better 50 or more")
    if not area_S.sum() > 0:
        raise RequestError("no class is mapped anywhere (all mapped areas are 0); there is nothing to estimate")
    z = float(norm.ppf((1 + confidence) / 2))
    share_SK = np.divide(n_SK, n_S[:, None], out=np.zeros_like(n_SK), where=n_S[:, None] > 0)
    spread_SK = share_SK * (1 - share_SK) / np.maximum(n_S - 1, 1)[:, None]  # variance of each share
    classes = tuple(_class_estimate(k, name, share_SK, spread_SK, area_S, n_S[k] > 0, z) for k, name in enumerate(names))
    weight_S = area_S / area_S.sum()
    right, variance = weight_S @ share_SK.diagonal(), weight_S**2 @ spread_SK.diagonal()  # equations 1 and 5
    return AreaEstimates(classes, _estimate(right, variance, z, 1.0), int(n_S.sum()), confidence)


def _class_estimate(
    k: int, name: str, share_SK: np.ndarray, spread_SK: np.ndarray, area_S: np.ndarray, is_sampled: bool, z: float
) -> ClassEstimate:
    area = area_S @ share_SK[:, k]  # equations 9 to 11
    area_variance = area_S**2 @ spread_SK[:, k]
    users = _estimate(share_SK[k, k], spread_SK[k, k], z, 1.0) if is_sampled else UNDEFINED  # equations 2 and 6
    if area <= 0:
        return ClassEstimate(name, float(area_S[k]), _estimate(area, area_variance, z), users, UNDEFINED)
    producers = area_S[k] * share_SK[k, k] / area  # equation 3
    others = area_S**2 * spread_SK[:, k]
    mine, others[k] = others[k], 0.0
    variance = ((1 - producers) ** 2 * mine + producers**2 * others.sum()) / area**2  # equation 7
    return ClassEstimate(name, float(area_S[k]), _estimate(area, area_variance, z), users, _estimate(producers, variance, z, 1.0))


def _estimate(value: float, variance: float, z: float, most: float = np.inf) -> Estimate:
    error = float(np.sqrt(variance))
    return Estimate(float(value), error, max(0.0, float(value) - z * error), min(most, float(value) + z * error))


def allocate_sample(total: int, pixels_S: Sequence[int], least: int = 50) -> list[int]:
    """Samples per map class: `least` in every class that is mapped (rare ones need them), the rest by area; section 5.1.2.

    They sum to `total`, or to all pixels where there are fewer: no class gets more samples than it has pixels. Raises
    RequestError where `total` is too small for `least`.
    """
    pixels = np.asarray(pixels_S, np.int64)
    sizes = np.minimum(least, pixels)
    if sizes.sum() > total:
        raise RequestError(f"{total} samples are too few for {least} in each of {np.count_nonzero(pixels)} map classes")
    by_area = np.floor((total - sizes.sum()) * pixels / max(pixels.sum(), 1)).astype(np.int64)
    sizes = np.minimum(sizes + by_area, pixels)
    for s in np.argsort(-pixels, kind="stable"):  # what was rounded off, or did not fit a small class
        sizes[s] += min(pixels[s] - sizes[s], total - sizes.sum())
    return [int(n) for n in sizes]
