"""Made visits of patients: a head that is a formula, so that no voxel is interpolated and every position is known."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipelines.grid import Grid, PatientFrame
from pipelines.registration.transforms import LPS_RAS, format_transform
from pipelines.registration.volumes import Volume

SEMI_AXES = np.array([62.0, 78.0, 58.0])  # of the brain, x, y, z in mm
SHAPE = (22, 54, 46)
SPACING = (3.6, 3.6, 6.0)  # x, y, z


def rigid(shift_mm: Sequence[float] = (0, 0, 0), degrees_xyz: Sequence[float] = (0, 0, 0)) -> np.ndarray:
    """(4, 4): turned about x, then y, then z through the origin, then shifted."""
    from scipy.spatial.transform import Rotation

    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_euler("xyz", degrees_xyz, degrees=True).as_matrix()
    matrix[:3, 3] = shift_mm
    return matrix


@dataclass(frozen=True)
class Head:
    """Structures of a patient: Gaussians within an ellipsoid with a rim, not the same on the left and on the right."""

    seed: int = 0
    count: int = 70

    def at(self, points: np.ndarray) -> np.ndarray:
        """Values (n,) at points (n, 3) in mm, LPS, of the common space."""
        rng = np.random.default_rng(self.seed)
        directions = rng.normal(size=(self.count, 3))
        centres = directions / np.linalg.norm(directions, axis=1)[:, None] * rng.uniform(0.1, 0.9, (self.count, 1)) * SEMI_AXES
        heights, widths = rng.uniform(-60, 60, self.count), rng.uniform(6, 13, self.count)
        radius = np.linalg.norm(points / SEMI_AXES, axis=1)
        inside = 1 / (1 + np.exp((radius - 1) * 40))
        values = 200 * inside + 120 * np.exp(-(((radius - 1.12) / 0.04) ** 2))
        for centre, height, width in zip(centres, heights, widths, strict=True):
            values += inside * height * np.exp(-((points - centre) ** 2).sum(axis=1) / (2 * width**2))
        return values


def grid_of(shape: tuple[int, ...] = SHAPE, spacing: Sequence[float] = SPACING, turned: Sequence[float] = (0, 0, 0)) -> Grid:
    """A grid around the origin, its axes turned by degrees about x, y, z."""
    axes = rigid(degrees_xyz=turned)[:3, :3] * np.array(spacing)
    first = -axes @ ((np.array(shape[::-1]) - 1) / 2)
    return Grid.from_centres(PatientFrame(), np.column_stack([axes, first]), shape)


def points_of(grid: Grid) -> np.ndarray:
    """(voxels, 3): centres in mm, in C order of (z, y, x)."""
    index = np.stack(np.meshgrid(*map(np.arange, grid.shape), indexing="ij"), axis=-1).reshape(-1, 3)[:, ::-1]
    rows = grid.matrix_of_centres
    return index @ rows[:, :3].T + rows[:, 3]


def made_visit(head: Head, matrix: np.ndarray, grid: Grid, noise: float = 2.0, seed: int = 1) -> Volume:
    """The head on a visit's grid; matrix (4, 4): a point of the common space to the visit's."""
    back = np.linalg.inv(matrix)
    points = points_of(grid) @ back[:3, :3].T + back[:3, 3]
    values = head.at(points) + np.random.default_rng(seed).normal(0, noise, len(points))
    return Volume(np.clip(values, 0, None).reshape(grid.shape).astype(np.float32), grid)


def brain_on(grid: Grid) -> np.ndarray:
    """is_brain_ZYX in the common space."""
    return (np.linalg.norm(points_of(grid) / SEMI_AXES, axis=1) <= 1).reshape(grid.shape)


def write_nifti(path: Path, values_ZYX: np.ndarray, grid: Grid) -> Path:
    import nibabel

    affine = LPS_RAS @ np.vstack([grid.matrix_of_centres, [0, 0, 0, 1]])
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nibabel.Nifti1Image(np.ascontiguousarray(values_ZYX.transpose(2, 1, 0)), affine)
    image.set_qform(affine, 1)
    nibabel.save(image, path)
    return path


def write_patient(
    folder: Path, matrices: Sequence[np.ndarray], grids: Sequence[Grid], *, head: Head | None = None, transforms: bool = False
) -> Path:
    """`study1_FLAIR.nii.gz`, ... in a folder, int16; `brain.nii.gz` on the common grid; transforms: also those, in ITK's text."""
    for n, (matrix, grid) in enumerate(zip(matrices, grids, strict=True), 1):
        visit = made_visit(head or Head(), matrix, grid, seed=n)
        write_nifti(folder / f"study{n}_FLAIR.nii.gz", np.round(visit.values_ZYX).astype(np.int16), grid)
        if transforms:
            (folder / f"study{n}_to_common.txt").write_bytes(format_transform(matrix))
    write_nifti(folder / "brain.nii.gz", brain_on(grid_of()).astype(np.uint8), grid_of())
    return folder
