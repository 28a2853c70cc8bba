"""How far change that was found agrees with change that readers marked: voxels, lesions, volume, with intervals.

A lesion of the reference is detected as in MSSEG (Commowick et al. 2018, Scientific Reports 8:13650, "Evaluation metrics"; the
same rule in MSSEG-2, 2021): more than 10 % of it is covered, and of the found lesions that cover it, the largest shares first
until they make more than 65 % of what is covered, none lies outside of the reference with more than 70 % of its volume. A found
lesion is true by the same rule with the roles exchanged. Lesions of at most 3 mm³ are not counted. Voxels that touch by a face,
an edge or a corner are one lesion.

F1 = 2 S P / (S + P), with S the share of reference lesions that are detected and P the share of found lesions that are true.

What is counted as independent is a place of change: connected voxels of the reference and of what any method found. Intervals
come from drawing places with replacement within each patient (Efron and Tibshirani 1993, bootstrap percentiles). They say how far
the figures depend on which lesions these patients have, and nothing of other patients. A drawing in which a figure is not defined
(one without any lesion of the reference has no sensitivity) is left out of that figure's interval.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pipelines.follow_up.intensity import box_of
from pipelines.tracking.objects import label_objects
from pipelines.tracking.tracks import overlaps

COVERED, OUTSIDE, CONTRIBUTING = 0.10, 0.70, 0.65  # alpha, beta, gamma of Commowick et al. 2018
LEAST_MM3 = 3.0
COLUMNS = ("reference", "found", "both", "lesions", "detected", "proposed", "true")
Statistic = Callable[[np.ndarray], np.ndarray]  # sums (..., 7) in the order of COLUMNS -> (...)
RESAMPLES = 2000


@dataclass(frozen=True)
class Counts:
    """Per place of change (U of them) and method, the sums of `COLUMNS`: voxels of the reference, of what was found, of both;
    lesions of the reference, those detected; found lesions, those that are true. `voxel_ml`: volume of a voxel."""

    by_method: dict[str, np.ndarray]  # (U, 7) float64
    voxel_ml: float


def count_agreement(reference_ZYX: np.ndarray, found: Mapping[str, np.ndarray], voxel_ml: float) -> Counts:
    """The sums of every place, for masks on one grid (bool)."""
    joined = reference_ZYX.copy()
    for mask in found.values():
        joined |= mask
    box = box_of(joined, 1)
    reference_ZYX, found = reference_ZYX[box], {name: mask[box] for name, mask in found.items()}
    place_ZYX = label_objects(joined[box])
    count = int(place_ZYX.max())
    lesions = lesions_of(reference_ZYX, voxel_ml)
    return Counts(
        {name: _sums(place_ZYX, count, reference_ZYX, lesions, mask, voxel_ml) for name, mask in found.items()}, voxel_ml
    )


def lesions_of(mask_ZYX: np.ndarray, voxel_ml: float) -> np.ndarray:
    """Labels 1, 2, ... of the lesions that count, int32."""
    labels = label_objects(mask_ZYX)
    is_kept = np.bincount(labels.ravel()) * voxel_ml * 1000 > LEAST_MM3 * (1 + 1e-9)
    is_kept[0] = False
    number = np.where(is_kept, np.cumsum(is_kept), 0).astype(np.int32)
    kept: np.ndarray = number[labels]
    return kept


def has_lesions(mask_ZYX: np.ndarray, voxel_ml: float) -> bool:
    """Whether any lesion counts: without one in the reference, sensitivity and F1 are not defined."""
    return bool(lesions_of(mask_ZYX, voxel_ml).any())


def detected(lesions_ZYX: np.ndarray, others_ZYX: np.ndarray) -> np.ndarray:
    """Whether each of the lesions (labels 1..N) is detected by the others, (N,) bool; see the module."""
    sizes = np.bincount(lesions_ZYX.ravel())[1:]
    other_sizes = np.bincount(others_ZYX.ravel())[1:]
    pairs_K2, shared_K = overlaps(lesions_ZYX, others_ZYX)
    inside_M = np.zeros(len(other_sizes), np.int64)
    np.add.at(inside_M, pairs_K2[:, 1], shared_K)
    outside_M = 1 - inside_M / np.maximum(other_sizes, 1)
    is_found = np.zeros(len(sizes), bool)
    for n in range(len(sizes)):
        of_n = np.flatnonzero(pairs_K2[:, 0] == n)
        covered = int(shared_K[of_n].sum())
        if covered <= COVERED * sizes[n]:
            continue
        order = of_n[np.argsort(-shared_K[of_n], kind="stable")]
        reached = np.cumsum(shared_K[order]) / covered
        contributing = order[: int(np.searchsorted(reached, CONTRIBUTING, side="right")) + 1]
        is_found[n] = bool((outside_M[pairs_K2[contributing, 1]] <= OUTSIDE).all())
    return is_found


def _sums(
    place_ZYX: np.ndarray, count: int, reference_ZYX: np.ndarray, lesions_ZYX: np.ndarray, found_ZYX: np.ndarray, voxel_ml: float
) -> np.ndarray:
    """(U, 7): the sums of each place."""
    own = lesions_of(found_ZYX, voxel_ml)

    def voxels(mask: np.ndarray) -> np.ndarray:
        sums: np.ndarray = np.bincount(place_ZYX[mask], minlength=count + 1)[1:]
        return sums

    def per_place(label_ZYX: np.ndarray, values_N: np.ndarray) -> np.ndarray:
        number_N = np.arange(1, len(values_N) + 1)
        labels, first = np.unique(label_ZYX, return_index=True)
        place_N = place_ZYX.ravel()[first[np.searchsorted(labels, number_N)]]
        sums: np.ndarray = np.bincount(place_N, weights=values_N, minlength=count + 1)[1:]
        return sums

    hit, right = detected(lesions_ZYX, own), detected(own, lesions_ZYX)
    columns = (
        voxels(reference_ZYX),
        voxels(found_ZYX),
        voxels(reference_ZYX & found_ZYX),
        per_place(lesions_ZYX, np.ones(len(hit))),
        per_place(lesions_ZYX, hit),
        per_place(own, np.ones(len(right))),
        per_place(own, right),
    )
    return np.stack(columns, axis=1).astype(np.float64)


# ---------------------------------------------------------------- figures


def dice(sums: np.ndarray) -> np.ndarray:
    """2 |A and B| / (|A| + |B|) of voxels; NaN where both are empty."""
    return _ratio(2 * sums[..., 2], sums[..., 0] + sums[..., 1])


def sensitivity(sums: np.ndarray) -> np.ndarray:
    """Share of the reference's lesions that are detected."""
    return _ratio(sums[..., 4], sums[..., 3])


def precision(sums: np.ndarray) -> np.ndarray:
    """Share of the found lesions that are true; 0 where none is found and there are some."""
    return np.where((sums[..., 5] == 0) & (sums[..., 3] > 0), 0.0, _ratio(sums[..., 6], sums[..., 5]))


def lesion_f1(sums: np.ndarray) -> np.ndarray:
    """F1 of lesions; see the module."""
    s, p = sensitivity(sums), precision(sums)
    return np.where((s == 0) | (p == 0), 0.0, _ratio(2 * s * p, s + p))


def false_lesions(sums: np.ndarray) -> np.ndarray:
    """Found lesions that are not true."""
    false: np.ndarray = sums[..., 5] - sums[..., 6]
    return false


def _ratio(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    ratio: np.ndarray = np.divide(a, b, out=np.full(np.broadcast(a, b).shape, np.nan), where=b > 0)
    return ratio


STATISTICS: dict[str, Statistic] = {
    "dice": dice,
    "lesion_f1": lesion_f1,
    "sensitivity": sensitivity,
    "precision": precision,
    "false_lesions": false_lesions,
}


@dataclass(frozen=True)
class Estimate:
    """A figure with its interval; None where it is not defined."""

    value: float | None
    low: float | None
    high: float | None

    def to_json(self) -> dict[str, float | None]:
        return dict(vars(self))


def resample(units: int, resamples: int, seed: int) -> np.ndarray:
    """(R, U) how often each unit is drawn in each of R drawings of U units with replacement."""
    draw = np.random.default_rng(seed)
    return draw.multinomial(units, np.full(units, 1 / units), size=resamples) if units else np.zeros((resamples, 0), np.int64)


def estimate(values_R: np.ndarray, value: float, confidence: float) -> Estimate:
    """The value with the percentiles of its resamples; NaN is not defined."""
    if not np.isfinite(value):
        return Estimate(None, None, None)
    finite = values_R[np.isfinite(values_R)]
    if len(finite) < 2:
        return Estimate(float(value), None, None)
    low, high = np.quantile(finite, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Estimate(float(value), float(low), float(high))


def figures_of(counts: Counts, confidence: float, resamples: int = RESAMPLES) -> dict[str, dict[str, Estimate]]:
    """method -> figure -> estimate, of one patient; also `volume_difference_ml`, found minus reference."""
    drawn = resampled(counts, 0, resamples)
    figures: dict[str, dict[str, Estimate]] = {}
    for name, sums in counts.by_method.items():
        total, total_R = sums.sum(axis=0), drawn[name]
        own = {key: estimate(of(total_R), float(of(total)), confidence) for key, of in STATISTICS.items()}
        more_ml, more_R = (total[1] - total[0]) * counts.voxel_ml, (total_R[:, 1] - total_R[:, 0]) * counts.voxel_ml
        figures[name] = {**own, "volume_difference_ml": estimate(more_R, float(more_ml), confidence)}
    return figures


def resampled(counts: Counts, seed: int, resamples: int) -> dict[str, np.ndarray]:
    """method -> (R, 7) sums of R drawings, the same places for every method."""
    first = next(iter(counts.by_method.values()))
    times_RU = resample(len(first), resamples, seed)
    return {name: times_RU @ sums for name, sums in counts.by_method.items()}


def compare(
    patients: Sequence[Counts], figure: str, method: str, other: str, confidence: float, resamples: int = RESAMPLES
) -> tuple[Estimate, Estimate, Estimate]:
    """(mean of `figure` over the patients by `method`, by `other`, mean difference); places are drawn within each patient."""
    of = STATISTICS[figure]
    values = {name: np.array([float(of(one.by_method[name].sum(axis=0))) for one in patients]) for name in (method, other)}
    drawn = [resampled(one, seed, resamples) for seed, one in enumerate(patients)]
    drawn_R = {name: np.mean([of(one[name]) for one in drawn], axis=0) for name in (method, other)}
    first, second = (estimate(drawn_R[name], float(values[name].mean()), confidence) for name in (method, other))
    difference = float((values[method] - values[other]).mean())
    return first, second, estimate(drawn_R[method] - drawn_R[other], difference, confidence)
