"""Masks of patients from NIfTI, DICOM SEG, NumPy or PNG files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pipelines.errors import MissingInput, RequestError, SceneRefused
from pipelines.scene import Band
from pipelines.sources.file_names import natural_key
from pipelines.sources.isolation import isolate
from pipelines.sources.nifti import NiftiSource
from pipelines.sources.nifti_names import is_nifti
from pipelines.sources.pictures import read_codes
from pipelines.tracking.label_series import LabelSeries
from pipelines.tracking.seg_files import find_seg, read_seg

LABEL = Band("label")


def read_labels(paths: Sequence[Path]) -> LabelSeries:
    """The masks in a NIfTI file or a folder of numbered ones, in DICOM SEG files, in one .npy file, or in PNG files, one of each
    frame, in natural order of their names.

    Raises MissingInput, RequestError (what it holds are no codes from 0 to 255).
    """
    missing = [path for path in paths if not path.exists()]
    if missing:
        raise MissingInput(f"no such file or folder: {missing[0]}")
    if segmentations := find_seg(paths):
        return read_seg(segmentations)
    path, *others = paths
    if not others and path.suffix == ".npy":
        return _of_array(path)
    if not others and (is_nifti(path) or (path.is_dir() and any(map(is_nifti, path.iterdir())))):
        return _of_nifti(path)
    files = list(path.iterdir()) if not others and path.is_dir() else paths
    pictures = [one for one in files if one.suffix.lower() == ".png"]
    if pictures and (path.is_dir() or len(pictures) == len(paths)):
        return _of_pictures(sorted(pictures, key=lambda one: natural_key(one.name)))
    raise RequestError(
        f"{path}: expected masks as one .nii or .nii.gz file, a folder of them, DICOM SEG files, one .npy file, or PNG files"
    )


def _of_array(path: Path) -> LabelSeries:
    try:
        values = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as e:
        raise RequestError(
            f"{path.name} cannot be read as a NumPy array ({type(e).__name__}); write it with numpy.save"
        ) from None
    if not isinstance(values, np.ndarray) or values.ndim not in (3, 4):
        raise RequestError(f"{path.name}: expected one array (time, y, x) or (time, z, y, x)")
    return LabelSeries(_codes(values, path.name), None, [float(t) for t in range(len(values))], {})


def _of_nifti(path: Path) -> LabelSeries:
    source = NiftiSource(path, LABEL, frame_time=1.0)  # its times are not used: software that draws masks often loses them
    listing, (band,), grid = source.list_scenes(), source.bands, source.native_grid()
    try:
        if listing.refused:
            raise listing.refused[0]
        stored = [source.read(scene, grid, (LABEL.name,), "nearest")[0] for scene in listing.scenes]
    except SceneRefused as e:
        raise RequestError(f"{path.name}: {e}") from e
    labels = [_codes(one * band.scale + band.offset, path.name) for one in stored]
    return LabelSeries(np.stack(labels), grid, [float(t) for t in range(len(labels))], {})


def _of_pictures(paths: Sequence[Path]) -> LabelSeries:
    labels = []
    for number, path in enumerate(paths, start=1):
        label = f"PNG file {number} of {len(paths)} (in natural order of names)"  # which may name a patient
        try:
            labels.append(_codes(_picture(path), label))
        except SceneRefused as e:
            raise RequestError(e.detail.replace(str(path), label).replace(path.name, label)) from None
    shapes = {one.shape for one in labels}
    if len(shapes) > 1:
        raise RequestError(f"the {len(paths)} PNG files have {len(shapes)} sizes; cut them alike first")
    return LabelSeries(np.stack(labels), None, [float(t) for t in range(len(labels))], {})


@isolate
def _picture(path: Path) -> np.ndarray:
    return read_codes(path)[0]


def _codes(values: np.ndarray, name: str) -> np.ndarray:
    """The same values as uint8. Raises RequestError: they are no whole numbers from 0 to 255."""
    codes = values.astype(np.uint8) if values.dtype.kind in "biuf" and np.isfinite(values).all() else None
    if codes is None or not np.array_equal(codes, values):
        raise RequestError(f"{name} holds other values than whole numbers from 0 to 255: that is an image, not a mask")
    return codes
