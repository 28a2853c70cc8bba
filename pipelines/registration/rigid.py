"""Rigid registration of two volumes of one patient by mutual information, with SimpleITK; the same on every run.

Mutual information of Mattes et al. (2003, doi:10.1109/TMI.2003.809072) with regular-step gradient descent over two resolutions,
in one thread, its samples drawn with a fixed seed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pipelines.errors import RequestError
from pipelines.registration.transforms import require_simpleitk
from pipelines.registration.volumes import Volume, coarser, foreground, mask_to_itk, to_itk

if TYPE_CHECKING:
    import SimpleITK

SEED = 20_240_601
BINS = 40
HALF = 0.5  # of a coarse voxel is within the mask


@dataclass(frozen=True)
class Level:
    """A resolution: voxels of up to `spacing_mm`, first and last step of the search in mm, most steps."""

    spacing_mm: float
    step_mm: float
    least_mm: float
    steps: int = 300


COARSE, FINE = Level(4.0, 4.0, 0.01), Level(1.5, 1.0, 0.002)
CHECK = Level(1.5, 1.0, 0.002)  # of the second registration, which starts where the first one ended
SAMPLES = 60_000  # points, where the mask has more voxels
RELAXATION = 0.9  # of the step where the gradient turns; 0.6 ended up to 4 mm away on made heads, 0.9 within 0.3 mm


def register_rigid(
    fixed: Volume,
    moving: Volume,
    mask_ZYX: np.ndarray | None = None,
    *,
    levels: Sequence[Level] = (COARSE, FINE),
    starts: Sequence[str] = ("positions", "centres"),
) -> np.ndarray:
    """matrix (4, 4) float64: a point of the fixed volume to the moving one, mm, LPS.

    mask_ZYX: the part of the fixed volume that counts (default: the head). starts: from the positions that the files state, and
    from the centres of what is bright; the one of more mutual information at the first level goes on.

    Raises RequestError where SimpleITK is not installed, or the volumes do not overlap from any start.
    """
    require_simpleitk()
    mask_ZYX = foreground(fixed) if mask_ZYX is None else mask_ZYX
    centre = _centre(Volume(mask_ZYX.astype(np.float32), fixed.grid))
    best: SimpleITK.Transform | None = None
    least = np.inf
    with _one_thread():
        for start in starts:
            begun = _start(start, fixed, moving, centre)
            found, value = _one_level(fixed, moving, mask_ZYX, begun, levels[0])
            if found is not None and value < least:
                best, least = found, value
        if best is None:
            raise RequestError("the two volumes show nothing in common, wherever the search starts")
        for level in levels[1:]:
            best = _one_level(fixed, moving, mask_ZYX, best, level)[0] or best
    return matrix_of(best)


@contextmanager
def _one_thread() -> Iterator[None]:
    """One thread for ITK, and as many as before afterwards. The method's own number is not enough: its parts take the default."""
    import SimpleITK as sitk  # noqa: N813  # as its documentation does

    before = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    try:
        yield
    finally:
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(before)


def matrix_of(transform: SimpleITK.Transform) -> np.ndarray:
    """(4, 4) of a linear transform, by where it takes the origin and the ends of the axes."""
    places = np.array([transform.TransformPoint(tuple(map(float, point))) for point in np.vstack([np.zeros(3), np.eye(3)])])
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = (places[1:] - places[0]).T, places[0]
    return matrix


def _one_level(
    fixed: Volume, moving: Volume, mask_ZYX: np.ndarray, start: SimpleITK.Transform, level: Level
) -> tuple[SimpleITK.Transform | None, float]:
    """(the transform, negative mutual information) after one level; None if the volumes do not overlap there."""
    import SimpleITK as sitk  # noqa: N813  # as its documentation does

    small, other = coarser(fixed, level.spacing_mm), coarser(moving, level.spacing_mm)
    mask = coarser(Volume(mask_ZYX.astype(np.float32), fixed.grid), level.spacing_mm)
    method = sitk.ImageRegistrationMethod()
    method.SetNumberOfThreads(1)
    method.SetMetricAsMattesMutualInformation(BINS)
    method.SetMetricFixedMask(mask_to_itk(mask.values_ZYX >= HALF, mask.grid))
    counted = max(1, int(np.count_nonzero(mask.values_ZYX >= HALF)))
    method.SetMetricSamplingStrategy(method.RANDOM)  # off the centres of voxels, where interpolation would favour whole voxels
    method.SetMetricSamplingPercentage(min(1.0, SAMPLES / counted), SEED)
    method.SetInterpolator(sitk.sitkLinear)
    method.SetOptimizerAsRegularStepGradientDescent(
        level.step_mm, level.least_mm, level.steps, relaxationFactor=RELAXATION, gradientMagnitudeTolerance=1e-8
    )
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetInitialTransform(sitk.Euler3DTransform(start), inPlace=False)
    try:
        found = method.Execute(to_itk(small), to_itk(other))
    except RuntimeError:  # "all samples map outside moving image buffer"
        return None, np.inf
    inner = found.GetNthTransform(0) if isinstance(found, sitk.CompositeTransform) else found
    return sitk.Euler3DTransform(inner), float(method.GetMetricValue())


def _start(name: str, fixed: Volume, moving: Volume, centre: np.ndarray) -> SimpleITK.Transform:
    import SimpleITK as sitk  # noqa: N813  # as its documentation does

    begun = sitk.Euler3DTransform()
    begun.SetCenter(tuple(map(float, centre)))
    if name == "centres":
        head = Volume(foreground(moving).astype(np.float32), moving.grid)
        of_fixed = _centre(Volume(foreground(fixed).astype(np.float32), fixed.grid))
        begun.SetTranslation(tuple((_centre(head) - of_fixed).tolist()))
    return begun


def _centre(volume: Volume) -> np.ndarray:
    """The centre of mass, x, y, z in mm."""
    weights = np.nan_to_num(volume.values_ZYX)
    total = weights.sum(dtype=float)
    if not total:
        index = (np.array(weights.shape) - 1) / 2
    else:
        axes = [np.arange(size, dtype=float) for size in weights.shape]
        others = [tuple(k for k in range(3) if k != axis) for axis in range(3)]
        index = np.array([(weights.sum(axis=others[k], dtype=float) * axes[k]).sum() / total for k in range(3)])
    rows = volume.grid.matrix_of_centres
    return np.asarray(rows[:, :3] @ index[::-1] + rows[:, 3])
