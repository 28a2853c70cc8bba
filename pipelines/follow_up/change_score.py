"""Change between two visits: simple differencing, and a proposal that knows how large, how bright and where lesions are.

Simple differencing compares voxel by voxel. Most of what it finds lies at edges, where a fraction of a voxel of misregistration
makes a difference. The proposal looks at the difference at the scale of lesions, divides it by the difference that is usual
nearby (large along edges, small within white matter), asks for a voxel that is bright on FLAIR at one of the visits, stays away
from the edge of the brain, and grows from sure voxels (hysteresis).

Arrays (Z, Y, X), spacing (z, y, x) in mm. Positive: brighter at the later visit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from pipelines.follow_up.intensity import box_of, centre_and_spread, smooth, standardise
from pipelines.follow_up.measures import axial_diameters
from pipelines.tracking.objects import label_objects

METHODS = ("proposal", "differencing")
SPHERE = np.pi / 6
HALF, LEAST_BRIGHT_MM = 0.5, 3.0
LEAST_SPREAD = 0.01  # of a difference, in robust deviations of the brain: less is rounding, in two copies of one image
CAPPED, QUIET = 3.0, 0.3  # of a difference in its own spread: what counts of it as usual nearby; the least that is


@dataclass(frozen=True)
class ChangeSettings:
    """How change is looked for.

    `smooth_mm`: standard deviation of the Gaussian at the scale of small lesions; `noise_mm`: of the neighbourhood in which a
    difference is usual; `edge_mm`: no change is proposed nearer to the edge of the brain; `bright`: a changed voxel is at least
    this many robust standard deviations above the brain's median, at one of the visits; `keep_share`: share of the threshold down
    to which a sure change grows; `least_mm`: smaller changes (longest axial diameter) are none.
    """

    smooth_mm: float = 0.8
    noise_mm: float = 5.0
    edge_mm: float = 4.0
    bright: float = 0.25
    keep_share: float = 0.6
    least_mm: float = 3.0


@dataclass(frozen=True)
class ChangeScores:
    """Scores of a pair of visits by method, in their own spread, in the part `box` of the grid; 0 where no change may be."""

    scores: dict[str, np.ndarray]
    box: tuple[slice, ...]
    shape: tuple[int, ...]
    spacing_mm: tuple[float, ...]

    def whole(self, part_ZYX: np.ndarray) -> np.ndarray:
        """An array on `box` as one on the whole grid, 0 around it."""
        full = np.zeros(self.shape, part_ZYX.dtype)
        full[self.box] = part_ZYX
        return full


def score_change(
    images_2ZYX: np.ndarray,
    brain_ZYX: np.ndarray,
    spacing_mm: tuple[float, ...],
    settings: ChangeSettings,
    visits: Sequence[str] = ("before", "after"),
) -> ChangeScores:
    """Scores of two images by both methods. Raises RequestError where an image has no contrast within the brain."""
    box = box_of(brain_ZYX)
    inside = brain_ZYX[box] & np.isfinite(images_2ZYX[0][box]) & np.isfinite(images_2ZYX[1][box])
    before, after = (standardise(image[box], inside, visit) for image, visit in zip(images_2ZYX, visits, strict=True))
    centre, spread = centre_and_spread((after - before)[inside])
    difference = np.where(inside, after - before - centre, 0).astype(np.float32)
    plain = difference / max(spread, LEAST_SPREAD)
    weight = inside.astype(np.float32)
    smoothed = smooth(difference, weight, settings.smooth_mm, spacing_mm)
    smoothed /= max(centre_and_spread(smoothed[inside])[1], LEAST_SPREAD)
    usual = smooth(np.clip(smoothed, -CAPPED, CAPPED) ** 2, weight, settings.noise_mm, spacing_mm)
    brightness = np.maximum(*(smooth(image, weight, settings.smooth_mm, spacing_mm) for image in (before, after)))
    depth_mm = ndimage.distance_transform_edt(inside, sampling=spacing_mm)
    may_change = inside & (depth_mm > settings.edge_mm) & (brightness > settings.bright)
    proposal = np.where(may_change, smoothed / np.sqrt(usual + QUIET), 0).astype(np.float32)
    return ChangeScores({"proposal": proposal, "differencing": plain}, box, brain_ZYX.shape, spacing_mm)


def changed(scores: ChangeScores, method: str, threshold: float, settings: ChangeSettings, axis: int = 0) -> np.ndarray:
    """int8 on the whole grid: 1 brighter, -1 darker, 0 no change. `axis`: that across axial slices."""
    score, spacing = scores.scores[method], np.array(scores.spacing_mm)
    found = np.zeros(score.shape, np.int8)
    least_voxels = SPHERE * settings.least_mm**3 / spacing.prod() / 2
    for sign in (1, -1):
        signed = sign * score
        sure = signed > threshold
        if method == "proposal":
            sure = drop_few(sure, least_voxels)
            sure = touching(signed > settings.keep_share * threshold, sure)
        found[drop_short(sure, spacing, settings.least_mm, axis)] = sign
    return scores.whole(found)


def in_plane(spacing_mm: Sequence[float]) -> np.ndarray:
    """A cross of three voxels in the two finest axes, (3, 3, 3) bool."""
    cross: np.ndarray = ndimage.generate_binary_structure(3, 1)
    axis = int(np.argmax(spacing_mm))
    cross[tuple(slice(None) if n != axis else [0, 2] for n in range(3))] = False
    return cross


def drop_few(mask_ZYX: np.ndarray, least: float) -> np.ndarray:
    """Without connected parts of fewer than `least` voxels."""
    labels = label_objects(mask_ZYX)
    is_kept = np.bincount(labels.ravel()) >= least
    is_kept[0] = False
    kept: np.ndarray = is_kept[labels]
    return kept


def touching(mask_ZYX: np.ndarray, seeds_ZYX: np.ndarray) -> np.ndarray:
    """The connected parts of the mask that hold a seed."""
    labels = label_objects(mask_ZYX)
    is_kept = np.zeros(int(labels.max()) + 1, bool)
    is_kept[labels[seeds_ZYX]] = True
    is_kept[0] = False
    kept: np.ndarray = is_kept[labels]
    return kept


def drop_short(mask_ZYX: np.ndarray, spacing_mm: np.ndarray, least_mm: float, axis: int = 0) -> np.ndarray:
    """Without connected parts whose longest axial diameter is below `least_mm`."""
    labels = label_objects(mask_ZYX)
    is_kept = np.zeros(int(labels.max()) + 1, bool)
    for number, part in enumerate(ndimage.find_objects(labels), start=1):
        size = [(one.stop - one.start) * step for one, step in zip(part, spacing_mm, strict=True)]
        del size[axis]
        if np.hypot(*size) >= least_mm:  # no diameter is longer than that of its box
            is_kept[number] = axial_diameters(np.argwhere(labels[part] == number), spacing_mm, axis)[0] >= least_mm
    kept: np.ndarray = is_kept[labels]
    return kept


@dataclass(frozen=True)
class BrightSettings:
    """Of `bright_lesions`: `bright` and `contrast` in robust standard deviations of the brain, above its median and above the
    mean around (Gaussian of `around_mm`); nothing nearer to the edge of the brain than `edge_mm`."""

    smooth_mm: float = 0.8
    around_mm: float = 8.0
    edge_mm: float = 9.0
    bright: float = 1.75
    contrast: float = 1.25


def bright_lesions(
    image_ZYX: np.ndarray, brain_ZYX: np.ndarray, spacing_mm: tuple[float, ...], settings: BrightSettings, visit: str = "visit"
) -> tuple[np.ndarray, np.ndarray]:
    """(voxels that are bright for the brain and for what surrounds them, those that are at least half as bright), bool.

    The first are a guess at lesions where nobody has marked any, the second at what may be left of one. Cortex at the edge of the
    mask is left out; choroid plexus and other bright tissue is not told apart from lesions.
    """
    box = box_of(brain_ZYX)
    inside = brain_ZYX[box] & np.isfinite(image_ZYX[box])
    weight = inside.astype(np.float32)
    image = smooth(standardise(image_ZYX[box], inside, visit), weight, settings.smooth_mm, spacing_mm)
    around = smooth(image, weight, settings.around_mm, spacing_mm)
    depth_mm = ndimage.distance_transform_edt(inside, sampling=spacing_mm)
    may_be = inside & (depth_mm > settings.edge_mm)
    found = may_be & (image > settings.bright) & (image - around > settings.contrast)
    left = may_be & (image > HALF * settings.bright) & (image - around > HALF * settings.contrast)
    whole = np.zeros((2, *brain_ZYX.shape), bool)
    whole[0][box] = drop_few(found, SPHERE * LEAST_BRIGHT_MM**3 / float(np.prod(spacing_mm)) / 2)
    whole[1][box] = ndimage.binary_opening(left, in_plane(spacing_mm))  # no thin rims
    return whole[0], whole[1]
