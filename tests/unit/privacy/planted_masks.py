"""Masks of a run's images with canaries in headers, texts and names: NIfTI and NumPy files, PNG files of frames, DICOM SEG."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import xarray as xr

from pipelines.cube.store import grid_of
from pipelines.products.nifti import affine_ras
from tests.unit.privacy.planted import Canaries, any_values, as_bytes, plant_private


def masks_of(cube: xr.Dataset, root: Path, canaries: Canaries) -> Iterator[Path]:
    """Masks with one object of the value 1 at each time of a cube: of volumes one file, of frames a folder."""
    grid, count = grid_of(cube), cube.sizes["time"]
    labels = np.zeros((count, *grid.shape), np.uint8)
    labels[..., 1:4, 1:4] = 1
    if grid.is_volume:
        labels[:, -1] = 0
        yield nifti_masks(root, canaries, labels, affine_ras(grid))
    else:
        yield picture_masks(root, canaries, labels)
    folder = root / canaries.text()
    folder.mkdir()
    np.save(folder / f"{canaries.text()}.npy", labels)
    yield next(folder.iterdir())


def nifti_masks(root: Path, canaries: Canaries, labels_TZYX: np.ndarray, affine: np.ndarray) -> Path:
    return planted_nifti(root / canaries.text() / f"{canaries.text()}.nii", labels_TZYX, affine, canaries)


def planted_nifti(path: Path, values_TZYX: np.ndarray, affine: np.ndarray, canaries: Canaries) -> Path:
    """A NIfTI file ([t,] z, y, x) with text in its header, in an extension, behind its voxels, and in the header of gzip."""
    import nibabel

    image = nibabel.Nifti1Image(np.ascontiguousarray(values_TZYX.T), affine)
    for field in ("descrip", "aux_file", "intent_name", "db_name"):
        image.header[field] = canaries.text().encode()
    image.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", canaries.text().encode()))
    data = image.to_bytes() + canaries.text().encode()
    if path.suffix == ".gz":
        packed = gzip.compress(data, 1)
        data = packed[:3] + b"\x08" + packed[4:10] + canaries.text().encode() + b"\0" + packed[10:]  # FNAME (RFC 1952)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def picture_masks(root: Path, canaries: Canaries, labels_TYX: np.ndarray) -> Path:
    from PIL import Image, PngImagePlugin

    folder, stem = root / canaries.text(), canaries.text()
    folder.mkdir(parents=True)
    for t, mask_YX in enumerate(labels_TYX):
        texts = PngImagePlugin.PngInfo()
        texts.add_text(canaries.text(), canaries.text())
        Image.fromarray(mask_YX).save(folder / f"{stem}_{t}.png", pnginfo=texts)
    return folder


def seg_masks(written: Path, root: Path, canaries: Canaries) -> Path:
    """The SEG files in `written` as another program might have made them: with names, dates, UIDs and texts of its own."""
    import pydicom

    folder = root / canaries.text()
    folder.mkdir(parents=True)
    day, study, series = canaries.value("DA"), canaries.value("UI"), canaries.value("UI")
    for path in sorted(written.glob("*.dcm")):
        made = pydicom.dcmread(path)
        with any_values():
            for name in ("PatientName", "PatientID", "PatientComments", "InstitutionName", "OperatorsName", "ContentCreatorName",
                         "ContentDescription", "SeriesDescription", "Manufacturer", "AccessionNumber"):  # fmt: skip
                setattr(made, name, canaries.text())
            made.StudyInstanceUID, made.SeriesInstanceUID, made.SOPInstanceUID = study, series, canaries.value("UI")
            made.file_meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID
            made.file_meta.SourceApplicationEntityTitle = canaries.text()
            made.StudyDate = made.ContentDate = made.PatientBirthDate = day
            for segment in made.SegmentSequence:
                segment.SegmentDescription, segment.SegmentLabel = canaries.text(), "lesion"
                segment.TrackingID, segment.TrackingUID = canaries.text(), canaries.value("UI")
            plant_private(made, 0x0019, canaries.text(), canaries, places=20)
        (folder / f"{canaries.text()} {path.name}").write_bytes(as_bytes(made))
    return folder
