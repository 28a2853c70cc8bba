"""How well a visit lies on the reference visit: the figures that decide whether it is used."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np

from pipelines.errors import RequestError
from pipelines.grid import Grid
from pipelines.registration.resampling import resample
from pipelines.registration.rigid import CHECK, Level, register_rigid
from pipelines.registration.volumes import Volume, coarser, surface_points

BINS = 64
EDGE_SHARE = 0.15  # of the voxels within the brain that count as edges
EDGE_MM = 1.0  # scale of the gradient
MIRROR = Level(3.0, 2.0, 0.02)  # registration of the mirror image
MIRROR_SHOWN = 0.5  # of what the visit shows, at least, must its mirror image show: information of few voxels is large by chance
LOST = (999.0, 999.0, 180.0)  # mm, mm, degrees: of what no registration finds
INNER_MM = 3.0  # the boundary of the brain itself is left out: other tissue beside it moves


@dataclass(frozen=True)
class Fit:
    """How a visit fits the reference visit.

    information: normalised mutual information within the brain, 1 (none) to 2. mirrored: the same of the visit's mirror image,
    registered; settled: of the visit itself after a second registration. edge_overlap: Dice of the strongest edges within the
    brain. residual_mm: the largest shift at the brain's boundary that the second registration finds; shift_mm at its centre,
    rotation_deg in degrees. field: share of the brain that the visit shows. turned_round: information with the inverse of given
    transforms; None where none are given.
    """

    information: float
    mirrored: float
    settled: float
    edge_overlap: float
    residual_mm: float
    shift_mm: float
    rotation_deg: float
    field: float
    turned_round: float | None = None

    def to_json(self) -> dict[str, float]:
        return {name: round(float(value), 4) for name, value in asdict(self).items() if value is not None}

    @property
    def words(self) -> str:
        """The figures for a person."""
        return (
            f"mutual information {self.information:.3f} (mirror image {self.mirrored:.3f}), edge overlap "
            f"{self.edge_overlap:.2f}, left over {self.residual_mm:.1f} mm ({self.rotation_deg:.1f} degrees), "
            f"{self.field:.0%} of the brain in view"
        )


def measure_fit(reference: Volume, visit_ZYX: np.ndarray, brain_ZYX: np.ndarray) -> Fit:
    """The figures of a visit on the grid of the reference visit. brain_ZYX: the part that counts."""
    grid = reference.grid
    there_ZYX = np.isfinite(visit_ZYX)
    field = float(there_ZYX[brain_ZYX].mean()) if brain_ZYX.any() else 0.0
    seen_ZYX = brain_ZYX & there_ZYX & np.isfinite(reference.values_ZYX)
    if np.count_nonzero(seen_ZYX) < 1000:
        return Fit(1.0, 1.0, 1.0, 0.0, *LOST, field)
    edges = edge_overlap(reference.values_ZYX, visit_ZYX, seen_ZYX, grid)
    left = np.eye(4)
    try:
        left = register_rigid(reference, Volume(visit_ZYX, grid), seen_ZYX, levels=[CHECK], starts=["positions"])
        residual, shift, rotation = motion_of(left, surface_points(brain_ZYX, grid))
    except RequestError:  # nothing in common
        residual, shift, rotation = LOST
    figures = compared_information(reference, visit_ZYX, seen_ZYX, left)
    return Fit(*figures, edges, residual, shift, rotation, field)


def normalised_information(one_ZYX: np.ndarray, other_ZYX: np.ndarray, where_ZYX: np.ndarray) -> float:
    """(H(A) + H(B)) / H(A, B) of the values in a mask, in 64 bins between their percentiles 0.5 and 99.5.

    Studholme, Hill, Hawkes 1999 (doi:10.1016/S0031-3203(98)00091-0): 1 for what has nothing in common, 2 for equal images.
    """
    one, other = one_ZYX[where_ZYX], other_ZYX[where_ZYX]
    kept = np.isfinite(one) & np.isfinite(other)
    codes = [_binned(values[kept]) for values in (one, other)]
    joint = np.bincount(codes[0] * BINS + codes[1], minlength=BINS**2).reshape(BINS, BINS) / max(kept.sum(), 1)
    both = _entropy(joint)
    return float((_entropy(joint.sum(0)) + _entropy(joint.sum(1))) / both) if both > 0 else 1.0


def _binned(values: np.ndarray) -> np.ndarray:
    low, high = np.percentile(values, [0.5, 99.5]) if len(values) else (0.0, 1.0)
    return np.asarray(np.clip((values - low) / max(high - low, 1e-12) * BINS, 0, BINS - 1), np.int64)


def _entropy(shares: np.ndarray) -> float:
    shares = shares[shares > 0]
    return float(-(shares * np.log(shares)).sum())


def edge_overlap(one_ZYX: np.ndarray, other_ZYX: np.ndarray, where_ZYX: np.ndarray, grid: Grid) -> float:
    """Dice of the voxels with the steepest gradients (EDGE_SHARE of each image) in a mask, away from its boundary."""
    from scipy import ndimage

    away = [max(1, round(INNER_MM / step)) for step in grid.spacing]
    inner_ZYX = ndimage.minimum_filter(where_ZYX.astype(np.uint8), [2 * one + 1 for one in away]).astype(bool)
    if not inner_ZYX.any():
        inner_ZYX = where_ZYX
    edges = []
    for values_ZYX in (one_ZYX, other_ZYX):
        filled_ZYX = np.where(np.isfinite(values_ZYX), values_ZYX, 0).astype(np.float32)
        steep = ndimage.gaussian_gradient_magnitude(filled_ZYX, [EDGE_MM / step for step in grid.spacing])[inner_ZYX]
        edges.append(steep >= np.quantile(steep, 1 - EDGE_SHARE))
    return float(2 * np.count_nonzero(edges[0] & edges[1]) / max(1, sum(map(np.count_nonzero, edges))))


def motion_of(matrix: np.ndarray, points: np.ndarray) -> tuple[float, float, float]:
    """(largest shift of the points, shift of their centre, both in mm; rotation in degrees) of a rigid matrix (4, 4)."""
    moved = points @ matrix[:3, :3].T + matrix[:3, 3] - points
    centre = points.mean(axis=0)
    shift = matrix[:3, :3] @ centre + matrix[:3, 3] - centre
    cosine = (np.trace(matrix[:3, :3]) - 1) / 2
    return (
        float(np.linalg.norm(moved, axis=1).max()),
        float(np.linalg.norm(shift)),
        float(np.degrees(np.arccos(np.clip(cosine, -1, 1)))),
    )


def compared_information(
    reference: Volume, visit_ZYX: np.ndarray, brain_ZYX: np.ndarray, left: np.ndarray
) -> tuple[float, float, float]:
    """Normalised mutual information of the reference with the visit, with its mirror image after registration, and with the visit
    where a second registration would put it. left (4, 4): what that found.

    The mirror is the sagittal plane through the centre of the brain, as the positions say where left is. All at the same spacing,
    since smooth images share more.
    """
    mirror = np.diag([-1.0, 1.0, 1.0, 1.0])
    mirror[0, 3] = 2 * surface_points(brain_ZYX, reference.grid)[:, 0].mean()
    volumes = reference, Volume(visit_ZYX, reference.grid), Volume(brain_ZYX.astype(np.float32), reference.grid)
    small, visit, of_brain = (coarser(one, CHECK.spacing_mm) for one in volumes)
    brain = of_brain.values_ZYX >= 0.5
    mirrored_ZYX = resample(visit.values_ZYX, visit.grid, mirror, small.grid, "linear")
    found = register_rigid(small, Volume(mirrored_ZYX, small.grid), brain, levels=[MIRROR], starts=["positions"])
    fitted_ZYX = resample(visit.values_ZYX, visit.grid, mirror @ found, small.grid, "linear")
    shown, of_mirror = (np.count_nonzero(brain & np.isfinite(values)) for values in (visit.values_ZYX, fitted_ZYX))
    return (
        normalised_information(small.values_ZYX, visit.values_ZYX, brain),
        normalised_information(small.values_ZYX, fitted_ZYX, brain) if of_mirror >= MIRROR_SHOWN * shown else 1.0,
        normalised_information(small.values_ZYX, resample(visit.values_ZYX, visit.grid, left, small.grid, "linear"), brain),
    )


def plain_information(reference: Volume, visit_ZYX: np.ndarray, brain_ZYX: np.ndarray) -> float:
    """The first figure of `compared_information`."""
    volumes = reference, Volume(visit_ZYX, reference.grid), Volume(brain_ZYX.astype(np.float32), reference.grid)
    small, visit, of_brain = (coarser(one, CHECK.spacing_mm) for one in volumes)
    return normalised_information(small.values_ZYX, visit.values_ZYX, of_brain.values_ZYX >= 0.5)
