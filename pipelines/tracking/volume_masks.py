"""Masks of volumes from NIfTI: one file of four dimensions, or a folder of files of three."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from pipelines.calendar import is_elapsed
from pipelines.errors import RequestError
from pipelines.scene import Band
from pipelines.sources.nifti import NiftiSource
from pipelines.sources.nifti_header import stated_frame_time
from pipelines.sources.nifti_names import is_nifti
from pipelines.tracking.mask_files import SUFFIXES, DatedMask

MASK = Band("mask")
STEP_S = 1.0  # puts volumes in order where nothing states their times; it is not shown


def find_volumes(paths: Sequence[Path], pattern: str | None = None) -> NiftiSource | None:
    """The series of NIfTI masks that one path names; None for anything else. Raises RequestError for several files."""
    named = [path for path in paths if is_nifti(path)]
    if len(paths) > 1:
        if named:
            raise RequestError(
                "masks of volumes are one NIfTI file of four dimensions, or one folder of files of three: name that"
            )
        return None
    path = paths[0]
    has_rasters = path.is_dir() and any(file.suffix.lower() in SUFFIXES for file in path.rglob("*"))
    is_series = bool(named) or (path.is_dir() and not has_rasters and any(map(is_nifti, path.rglob("*"))))
    step_s = (stated_frame_time(path) if path.is_file() else None) or STEP_S
    return NiftiSource(path, MASK, pattern or "", step_s) if is_series else None


def times_of(source: NiftiSource) -> list[np.datetime64]:
    """The times of the masks, NaT where nothing states them: numbered files, a header without a time or its unit."""
    times = [scene.observed_utc for scene in source.list_scenes().scenes]
    is_stated = source.path.is_file() and stated_frame_time(source.path) is not None
    return times if is_stated or not any(map(is_elapsed, times)) else [np.datetime64("NaT", "ns")] * len(times)


def read_volume_masks(source: NiftiSource, code: int | None = None) -> Iterator[DatedMask]:
    """The masks in order, (z, y, x), as `read_masks` gives those of images; undated ones are numbered.

    Raises RequestError for fewer than two volumes that can be read, and for values that are no codes.
    """
    listing, grid = source.list_scenes(), source.native_grid()
    if listing.refused:
        raise RequestError(f"{len(listing.refused)} of the masks cannot be used; the first: {listing.refused[0].detail}")
    if len(listing.scenes) < 2:
        raise RequestError("one mask; objects are followed through two times or more")
    codes = {
        value for scene in listing.scenes for value in np.unique(_codes(source.read(scene, grid, ("mask",), "nearest")[0])[0])
    }
    has_objects = len(codes - {0}) > 1
    times = times_of(source)
    for number, scene in enumerate(listing.scenes):
        values, seen = _codes(source.read(scene, grid, ("mask",), "nearest")[0])
        mask = values == code if code is not None else values if has_objects else values != 0
        yield DatedMask(number if np.isnat(times[number]) else times[number], mask, None if seen.all() else seen, scene.id)


def _codes(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(int64 codes, 0 where not seen; seen)."""
    seen = np.isfinite(values)
    found = np.where(seen, values, 0)
    if not (found == np.round(found)).all():
        raise RequestError("the volumes hold fractions: these are images, not masks; compare them with a threshold first")
    return found.astype(np.int64), seen
