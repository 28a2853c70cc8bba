"""Labels of voxels: one NIfTI volume with a code per voxel, on the grid of the series or on one of its own.

Messages do not name the file: names of files may name patients.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from pipelines.errors import MissingInput, RequestError, SceneRefused
from pipelines.grid import Grid
from pipelines.samples.labels import NO_CODE, Given, Span
from pipelines.scene import Band
from pipelines.sources.nifti import NiftiSource

LABEL = Band("label")
STEP_S = 1.0  # of the one time of a label volume; it is not used
ALIGNED_PX = 0.01  # as of the volumes of a folder
MOVED = "the label volume lies on another grid: each voxel has the label nearest to its centre"


def read_label_volume(path: Path, codes: Mapping[int, str], grid: Grid, span: Span) -> Given:
    """Every voxel of `grid` whose code is listed in `codes` (code -> class); all others are unlabelled.

    The file's affine places it, whatever its axes; its frame is taken to be that of `grid`, since NIfTI states none. Where its
    voxels are others, each voxel has the label nearest to its centre, and the notes say so.

    Raises MissingInput, RequestError.
    """
    if not path.is_file():
        raise MissingInput("there is no label volume at labels.path; correct it")
    stored_ZYX, own = _read_codes(path)
    listed = list(codes)
    number_ZYX = np.full(stored_ZYX.shape, NO_CODE, np.uint8)
    for number, code in enumerate(listed):
        number_ZYX[stored_ZYX == code] = number
    own = replace(own, frame=grid.frame)
    is_moved = not own.is_aligned(grid, ALIGNED_PX)
    if is_moved:
        number_ZYX = _nearest(number_ZYX, own, grid)
    place = np.nonzero(number_ZYX != NO_CODE)
    if not place[0].size:
        found, asked = (", ".join(f"{code:g}" for code in some) for some in (np.unique(stored_ZYX)[:8], listed))
        raise RequestError(f"the label volume has none of the codes {asked} on the series, only {found}; correct labels.codes")
    names = [codes[listed[n]] for n in number_ZYX[place]]
    return Given(place[1], place[2], [span] * len(names), names, (MOVED,) * is_moved, slice_P=place[0])


def _read_codes(path: Path) -> tuple[np.ndarray, Grid]:
    """(codes (z, y, x) as the scale of the header gives them, their grid). Raises RequestError."""
    source = NiftiSource(path, LABEL, frame_time=STEP_S)
    scenes, grid, band = source.list_scenes().scenes, source.native_grid(), source.bands[0]
    if len(scenes) != 1:
        raise RequestError(f"labels.path holds {len(scenes)} volumes, expected one: labels are of a span, not of each time")
    try:
        stored_ZYX = source.read(scenes[0], grid, (LABEL.name,), "nearest")[0]
    except SceneRefused as e:
        raise RequestError(f"the label volume cannot be used: {e.detail}") from e
    values_ZYX = stored_ZYX * (1.0 if band.scale is None else band.scale) + (band.offset or 0.0)
    if not (np.isfinite(values_ZYX).all() and (values_ZYX == np.round(values_ZYX)).all()):
        raise RequestError("the label volume holds fractions, no codes: it is an image or a probability; threshold it first")
    return values_ZYX, grid


def _nearest(number_ZYX: np.ndarray, own: Grid, grid: Grid) -> np.ndarray:
    """The numbers on `grid`, slice by slice; NO_CODE beyond the label volume."""
    moved_ZYX = np.full(grid.shape, NO_CODE, np.uint8)
    rows, columns = np.indices(grid.shape_yx) + 0.5
    for z in range(grid.shape[0]):
        centres_YX3 = grid.to_world(np.stack([columns, rows, np.full_like(rows, z + 0.5)], axis=-1))
        index_YX3 = np.floor(own.to_index(centres_YX3) + 1e-6).astype(np.int64)[..., ::-1]  # slice, row, column
        inside_YX = ((index_YX3 >= 0) & (index_YX3 < own.shape)).all(axis=-1)
        moved_ZYX[z][inside_YX] = number_ZYX[tuple(index_YX3[inside_YX].T)]
    return moved_ZYX
