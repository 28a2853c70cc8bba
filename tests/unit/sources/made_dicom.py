"""Small DICOM files for tests, written with pydicom: classic slices, enhanced files, Siemens mosaics."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import EnhancedMRImageStorage, ExplicitVRLittleEndian, MRImageStorage, generate_uid

AXIAL = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0]
SERIES = generate_uid(entropy_srcs=["series"])


def dataset(pixels: np.ndarray, kind: str = MRImageStorage, **elements: Any) -> Dataset:
    """An image without geometry; `elements` are set, or left out where None."""
    frames = pixels.shape[0] if pixels.ndim == 3 else None
    values: dict[str, Any] = {
        "SOPClassUID": kind, "SOPInstanceUID": generate_uid(), "Modality": "MR", "SeriesInstanceUID": SERIES, "SeriesNumber": 5,
        "PatientName": "Canary^Patient", "PatientID": "CANARY-1", "StudyDate": "20200131", "Rows": pixels.shape[-2],
        "Columns": pixels.shape[-1], "SamplesPerPixel": 1, "PhotometricInterpretation": "MONOCHROME2",
        "BitsAllocated": 8 * pixels.dtype.itemsize, "BitsStored": 8 * pixels.dtype.itemsize,
        "HighBit": 8 * pixels.dtype.itemsize - 1, "PixelRepresentation": int(pixels.dtype.kind == "i"),
        "NumberOfFrames": frames,
    }  # fmt: skip
    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.file_meta.MediaStorageSOPClassUID, made.file_meta.MediaStorageSOPInstanceUID = kind, values["SOPInstanceUID"]
    for keyword, value in (values | elements).items():
        if value is not None:
            setattr(made, keyword, value)
    made.PixelData = pixels.tobytes()
    return made


def save(made: Dataset, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    made.save_as(path, enforce_file_format=True)
    return path


def classic(pixels: np.ndarray, z: float, instance: int, **elements: Any) -> Dataset:
    """One slice at (-10, -20, z) with pixels of 2 x 1.5 mm (rows x columns), unless `elements` say otherwise."""
    geometry = {
        "ImagePositionPatient": [-10.0, -20.0, z], "ImageOrientationPatient": AXIAL, "PixelSpacing": [2.0, 1.5],
        "InstanceNumber": instance, "FrameOfReferenceUID": "1.2.3.4.5678",
    }  # fmt: skip
    return dataset(pixels, **(geometry | elements))


def volumes(times: int = 3, depth: int = 4, shape: tuple[int, int] = (6, 5)) -> np.ndarray:
    """(t, z, y, x) int16, every value another one."""
    return np.arange(times * depth * shape[0] * shape[1], dtype=np.int16).reshape(times, depth, *shape)


def write_series(folder: Path, values: np.ndarray, **elements: Any) -> Path:
    """Classic files of (t, z, y, x), 3 mm apart, 2.5 s from time to time (AcquisitionTime)."""
    for t, volume in enumerate(values):
        for k, pixels in enumerate(volume):
            moment = {"AcquisitionDate": "20200131", "AcquisitionTime": f"1000{2.5 * t:09.6f}"}
            made = classic(pixels, 3.0 * k, t * len(volume) + k + 1, **(moment | elements))
            save(made, folder / f"{len(volume) - k}-{t}.dcm")  # names in another order than slices
    return folder


def group(**elements: Any) -> Sequence:
    """A sequence of one item."""
    item = Dataset()
    for keyword, value in elements.items():
        setattr(item, keyword, value)
    return Sequence([item])


def enhanced(values: np.ndarray, slopes: tuple[float, ...] = (2.0,)) -> Dataset:
    """An enhanced file of (t, z, y, x): frames slice by slice, the slope of slice k is `slopes[k % len(slopes)]`."""
    times, depth = values.shape[:2]
    made = dataset(np.concatenate([values[:, k] for k in range(depth)]), EnhancedMRImageStorage)
    made.SharedFunctionalGroupsSequence = group(
        PixelMeasuresSequence=group(PixelSpacing=[2.0, 1.5], SliceThickness=3.0),
        PlaneOrientationSequence=group(ImageOrientationPatient=AXIAL),
    )
    frames = []
    for k in range(depth):
        for t in range(times):
            frame = Dataset()
            content = {"TemporalPositionIndex": t + 1, "FrameAcquisitionDateTime": f"20200131100000.{2 * t}"}
            frame.FrameContentSequence = group(**content, DimensionIndexValues=[k + 1, t + 1])
            frame.PlanePositionSequence = group(ImagePositionPatient=[-10.0, -20.0, 3.0 * k])
            slope = slopes[k % len(slopes)]
            frame.PixelValueTransformationSequence = group(RescaleSlope=slope, RescaleIntercept=1.0, RescaleType="US")
            frames.append(frame)
    made.PerFrameFunctionalGroupsSequence = Sequence(frames)
    return made


def mosaic(volume: np.ndarray, z_normal: float, instance: int, **elements: Any) -> Dataset:
    """A Siemens mosaic made from a volume (z, y, x), with the two elements of a CSA header that tell its slices."""
    depth, rows, columns = volume.shape
    across = int(np.ceil(np.sqrt(depth)))
    pixels = np.zeros((across * rows, across * columns), volume.dtype)
    for k, plane in enumerate(volume):
        row, column = k // across * rows, k % across * columns
        pixels[row : row + rows, column : column + columns] = plane
    # the header's position is that of the whole mosaic as if it were one slice around the same centre
    corner = [-10.0 - 1.5 * (columns * across - columns) / 2, -20.0 - 2.0 * (rows * across - rows) / 2, 0.0]
    kind = {"ImageType": ["ORIGINAL", "PRIMARY", "M", "MOSAIC"], "SpacingBetweenSlices": 3.0}
    made = classic(pixels, 0.0, instance, **({"ImagePositionPatient": corner} | kind | elements))
    block = made.private_block(0x0029, "SIEMENS CSA HEADER", create=True)
    block.add_new(0x10, "OB", csa({"NumberOfImagesInMosaic": [str(depth)], "SliceNormalVector": ["0", "0", f"{z_normal}"]}))
    return made


def csa(tags: dict[str, list[str]]) -> bytes:
    """A CSA2 header (https://nipy.org/nibabel/dicom/siemens_csa.html)."""
    content = b"SV10\4\3\2\1" + struct.pack("<2I", len(tags), 77)
    for name, items in tags.items():
        content += struct.pack("<64si4s3i", name.encode(), len(items), b"FD\0\0", 4, len(items), 77)
        for item in items:
            text = item.encode() + b"\0"
            content += struct.pack("<4i", len(text), len(text), 77, len(text)) + text + bytes(-len(text) % 4)
    return content
