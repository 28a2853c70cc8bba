"""Volumes as NIfTI-1 (https://nifti.nimh.nih.gov/nifti-1): the grid's affine, in RAS, and the units of length and time.

Arrays of driftline are (z, y, x) with x fastest, which is the order of NIfTI's voxels (x, y, z), so that slabs are copied as they are.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import IO, Any, cast

import numpy as np

from pipelines.calendar import is_elapsed, iso_utc
from pipelines.errors import RequestError
from pipelines.files import replacing
from pipelines.grid import Grid

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0])
ALIGNED = 2  # NIFTI_XFORM_ALIGNED_ANAT: the coordinates of the input, whichever those were
LEVEL = 4  # of gzip: close to the size of 9, at a third of the time


def write_nifti(path: Path, slabs: Iterable[np.ndarray], grid: Grid, times_T: Sequence[np.datetime64], about: str = "") -> None:
    """Writes float32 volumes (t, z, y, x) as one .nii.gz of (x, y, z, t); `slabs` (some slices, y, x) come in order of t and z.

    sform and qform are the grid's affine; xyzt units are mm and s, `pixdim[4]` the median distance of the times and `toffset` the
    first one, where times count from the first frame. The bytes depend on the arguments alone. Raises StorageFull.
    """
    header = _header(grid, times_T, about)
    with replacing(path) as draft, draft.open("wb") as raw:
        with gzip.GzipFile("", "wb", LEVEL, raw, mtime=0) as packed:
            file = cast("IO[bytes]", packed)
            file.write(header)
            for slab_ZYX in slabs:
                file.write(np.ascontiguousarray(slab_ZYX, "<f4").data)


def affine_ras(grid: Grid) -> np.ndarray:
    """(4, 4) float64: RAS, mm, of an index (x, y, z) of voxel centres."""
    return np.vstack([LPS_TO_RAS @ grid.matrix_of_centres, [0, 0, 0, 1]])


def _header(grid: Grid, times_T: Sequence[np.datetime64], about: str) -> bytes:
    """The header and the empty list of extensions, 352 bytes."""
    try:
        from nibabel.nifti1 import Nifti1Header
    except ImportError as e:
        raise RequestError("products of volumes are NIfTI files, which need nibabel: pip install 'driftline[medical]'") from e
    header: Any = Nifti1Header(endianness="<")
    header.set_data_dtype(np.float32)
    header.set_data_shape((*grid.shape[::-1], len(times_T)))
    header.set_xyzt_units("mm", "sec")
    affine = affine_ras(grid)
    header.set_sform(affine, code=ALIGNED)
    try:
        header.set_qform(affine, code=ALIGNED, strip_shears=False)
    except ValueError:  # a quaternion has no shear
        header["qform_code"] = 0
    seconds = (np.array(times_T, "datetime64[ns]") - np.datetime64(times_T[0], "ns")).astype(np.int64) / 1e9
    step = float(np.median(np.diff(seconds))) if len(times_T) > 1 else 0.0
    header["pixdim"][1:5] = [*grid.spacing[::-1], step]
    header["toffset"] = _offset(times_T[0])
    header["scl_slope"], header["scl_inter"] = 1, 0
    header["descrip"] = about.encode("ascii", "replace")[:79]
    header["vox_offset"] = 352
    return bytes(header.binaryblock) + bytes(4)


def _offset(first: np.datetime64) -> float:
    from pipelines.calendar import elapsed_seconds

    return elapsed_seconds(first) if is_elapsed(first) else 0.0


def time_texts(times_T: Sequence[np.datetime64]) -> list[str]:
    return [iso_utc(moment) for moment in times_T]
