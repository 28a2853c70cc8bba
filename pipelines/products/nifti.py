"""Volumes as NIfTI-1 (https://nifti.nimh.nih.gov/nifti-1): the grid's affine, in RAS, and the units of length and time.

Arrays of driftline are (z, y, x) with x fastest, which is the order of NIfTI's voxels (x, y, z): slabs are copied as they are.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.calendar import elapsed_seconds, is_elapsed
from pipelines.errors import RequestError
from pipelines.files import replacing
from pipelines.grid import Grid, PatientFrame
from pipelines.sources.volumes import LPS_TO_RAS

ALIGNED = 2  # NIFTI_XFORM_ALIGNED_ANAT: the coordinates of the input, whichever those were
SHEAR = 1e-4  # of directions: text and float32 round them
LEVEL = 4  # of gzip: close to the size of 9, at a third of the time


def write_nifti(
    path: Path,
    slabs: Iterable[np.ndarray],
    grid: Grid,
    times_T: Sequence[np.datetime64],
    step_s: float | None,
    about: str = "",
    dtype: str = "<f4",
) -> None:
    """Writes volumes (t, z, y, x), or images (t, y, x), as one .nii.gz of (x, y, z, t); of no `times_T` one volume of (x, y, z).

    `dtype`: `<f4`, or `|u1` for codes.

    `slabs` (some slices, y, x), or (some rows, x), come in order of t and of the first axis. sform and qform are the affine of
    `grid`, none where no file states a position; xyzt units are mm and s, `pixdim[4]` is `step_s`, seconds between two times
    (None: not known, then it is 0 of an unknown unit, and `times_T` may be NaT), and `toffset` the first time where times count
    from the first frame. The bytes depend on the arguments alone.

    Raises StorageFull.
    """
    header = _header(grid, times_T, step_s, about, dtype)
    with (
        replacing(path) as draft,
        draft.open("wb") as raw,
        gzip.GzipFile("", "wb", LEVEL, raw, mtime=0) as packed,
    ):
        packed.write(header)
        for slab_ZYX in slabs:
            packed.write(np.ascontiguousarray(slab_ZYX, dtype).data)


def affine_ras(grid: Grid) -> np.ndarray:
    """(4, 4) float64: RAS, mm, of an index (x, y, z) of voxel centres."""
    return np.vstack([LPS_TO_RAS @ grid.matrix_of_centres, [0, 0, 0, 1]])


def _header(grid: Grid, times_T: Sequence[np.datetime64], step_s: float | None, about: str, dtype: str) -> bytes:
    """The header and the empty list of extensions, 352 bytes."""
    try:
        from nibabel.nifti1 import Nifti1Header
    except ImportError as e:
        raise RequestError("products of volumes are NIfTI files, which need nibabel: pip install 'driftline[medical]'") from e
    header: Any = Nifti1Header(endianness="<")
    header.set_data_dtype(np.dtype(dtype))
    sizes, spacing = grid.shape[::-1], grid.spacing[::-1]
    header.set_data_shape((*sizes, *[1] * (3 - len(sizes)), *([len(times_T)] if len(times_T) else [])))
    header.set_xyzt_units("mm" if grid.unit == "mm" else "unknown", "unknown" if step_s is None else "sec")
    if isinstance(grid.frame, PatientFrame):
        affine = affine_ras(grid)
        header.set_sform(affine, code=ALIGNED)
        directions = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
        if np.abs(directions.T @ directions - np.eye(3)).max() < SHEAR:  # a quaternion has no shear
            header.set_qform(affine, code=ALIGNED, strip_shears=True)
    spacing = (*spacing, *[1.0] * (3 - len(spacing)))
    header["pixdim"][1:5] = [*spacing, float(f"{step_s or 0:.5g}")]  # days as float64 are exact to a microsecond
    header["toffset"] = _offset(times_T[0]) if len(times_T) else 0.0
    header["scl_slope"], header["scl_inter"] = 1, 0
    header["descrip"] = about.encode("ascii", "replace")[:79]
    header["vox_offset"] = 352
    return bytes(header.binaryblock) + bytes(4)


def _offset(first: np.datetime64) -> float:
    return round(elapsed_seconds(first), 5) if is_elapsed(first) else 0.0
