"""Ingest of a DICOM series of 512x512, 60 slices and 10 times (600 files) against pydicom alone; then its prediction.

    python -m benchmarks.bench_dicom_series [--quick]

The peer is a script: `dcmread` and `pixel_array` of every file, sorted by time and position along the normal, stacked, written to
a plain Zarr array of the cube's chunks and codec, values as stored (rescale slope and intercept become attributes, as in the
cube). It checks, masks, hashes and de-identifies nothing. driftline runs as `driftline ingest`, with and without the de-identified
copy. Every run is a process of its own, with start-up; the kinds take turns. The voxels of both are compared.

The prediction is `driftline train` and `predict` with a small network on the same cube; memory is that of all processes together,
pages that they share counted once. `--one whole` forecasts the whole volume at once, without tiles, for comparison.
"""

import argparse
import os
import platform
import statistics
import sys
import tempfile
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.criteria import verdict
from benchmarks.measuring import Costs, run_measured

if TYPE_CHECKING:
    from pydicom import Dataset

SIZE_PX, SLICES, TIMES = 512, 60, 10
LEAST_SPEED, MEMORY_LIMIT_GB, MOST_DIFFERENCE = 0.5, 2.0, 1e-6
CHUNK = (1, 1, 40, 40, 40)
STEP_S = 2.5
PEER, DEIDENTIFIED, AS_IT_IS = "pydicom alone", "driftline, de-identified copy (the default)", "driftline, deidentify: false"
AGAIN = "driftline, nothing new"
CONFIG = """
name: {name}
task: forecast
runs: {folder}/runs
source: {{kind: dicom, path: {folder}/scans}}
samples: {{context_steps: 2, target_steps: 2}}
split: {{block_px: 64, validation_from: 12 s, test_from: 17 s}}
privacy: {privacy}
"""
TEXTS = ("StationName", "InstitutionName", "ReferringPhysicianName", "SeriesDescription", "StudyDescription", "ProtocolName",
         "PerformedProcedureStepDescription", "DeviceSerialNumber", "SoftwareVersions", "BodyPartExamined")  # fmt: skip
NUMBERS = ("RepetitionTime", "EchoTime", "NumberOfAverages", "ImagingFrequency", "MagneticFieldStrength", "SpacingBetweenSlices",
           "PercentSampling", "PercentPhaseFieldOfView", "PixelBandwidth", "FlipAngle", "SAR", "PatientWeight")  # fmt: skip


def make_series(folder: Path, syntax: str | None = None) -> None:
    """Classic MR files, int16: headers of about 90 elements, 40 of them private; names in another order than slices."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[-1 : 1 : SIZE_PX * 1j, -1 : 1 : SIZE_PX * 1j]  # type: ignore[misc]
    body = 600 * np.exp(-3 * (rows**2 + columns**2)) + 100 * np.sin(9 * rows) * np.cos(7 * columns)
    noise = rng.normal(0, 15, (7, SIZE_PX, SIZE_PX))
    for t in range(TIMES):
        for k in range(SLICES):
            pixels = (body * (1 + 0.02 * t + 0.005 * k) + noise[(t * SLICES + k) % 7] + 50).astype("<i2")
            made = _header(t, k)
            made.PixelData = pixels.tobytes()
            made["PixelData"].VR = "OW"
            made.save_as(folder / f"IM{(t * SLICES + k) * 7 % (TIMES * SLICES):04d}.dcm", enforce_file_format=True)


def _header(t: int, k: int) -> "Dataset":
    from pydicom import Dataset
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage

    made, number = Dataset(), t * SLICES + k + 1
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID, made.file_meta.MediaStorageSOPClassUID = ExplicitVRLittleEndian, MRImageStorage
    made.file_meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID = f"1.2.3.4.5.{number}"
    made.SOPClassUID, made.Modality, made.Manufacturer = MRImageStorage, "MR", "SIEMENS"
    made.PatientName, made.PatientID, made.PatientBirthDate, made.PatientSex = "Doe^Jane", "ID-1", "19700101", "F"
    made.StudyInstanceUID, made.SeriesInstanceUID, made.FrameOfReferenceUID = "1.2.3.4.1", "1.2.3.4.2", "1.2.3.4.3"
    made.StudyDate = made.SeriesDate = made.AcquisitionDate = made.ContentDate = "20200301"
    made.StudyTime = made.SeriesTime = "101112"
    moment = datetime(2020, 3, 1, 10, 12) + timedelta(seconds=STEP_S * t)
    made.AcquisitionTime = made.ContentTime = f"{moment:%H%M%S.%f}"
    made.SeriesNumber, made.AcquisitionNumber, made.InstanceNumber = 5, t + 1, number
    made.ImageType, made.ScanningSequence, made.SequenceVariant = ["ORIGINAL", "PRIMARY", "M", "ND"], ["GR"], ["SP", "OSP"]
    made.ImagePositionPatient, made.ImageOrientationPatient = [-200.0, -200.0, 3.0 * k], [1, 0, 0, 0, 1, 0]
    made.PixelSpacing, made.SliceThickness, made.SliceLocation = [0.78125, 0.78125], 3.0, 3.0 * k
    made.Rows = made.Columns = SIZE_PX
    made.SamplesPerPixel, made.PhotometricInterpretation, made.PixelRepresentation = 1, "MONOCHROME2", 1
    made.BitsAllocated, made.BitsStored, made.HighBit = 16, 16, 15
    made.WindowCenter, made.WindowWidth = 400, 800
    for keyword in TEXTS:
        setattr(made, keyword, "TEXT")
    for index, keyword in enumerate(NUMBERS):
        setattr(made, keyword, 1.5 * (index + 1))
    for index in range(4):
        reference = Dataset()
        reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = MRImageStorage, f"1.2.3.4.6.{index}"
        made.ReferencedImageSequence = [*(made.get("ReferencedImageSequence") or ()), reference]
    block = made.private_block(0x0019, "SIEMENS MR HEADER", create=True)
    for place in range(40):
        block.add_new(0x08 + place, "LO", f"private {place}")
    return made


def run_peer(scans: Path, out: Path) -> None:
    """What one would write with pydicom, NumPy and zarr."""
    import zarr
    from pydicom import dcmread
    from zarr.codecs import BloscCodec

    slices = []
    for path in scans.iterdir():
        content = dcmread(path)
        along_row, along_column = np.array(content.ImageOrientationPatient, float).reshape(2, 3)
        depth = float(np.array(content.ImagePositionPatient, float) @ np.cross(along_row, along_column))
        scaling = float(content.get("RescaleSlope", 1)), float(content.get("RescaleIntercept", 0))
        slices.append((content.AcquisitionDate, content.AcquisitionTime, depth, scaling, content.pixel_array))
    slices.sort(key=lambda one: one[:3])
    count = len({one[:2] for one in slices})
    image = np.stack([one[-1] for one in slices]).reshape(count, 1, -1, *slices[0][-1].shape)
    stored = zarr.create_array(
        out,
        shape=image.shape,
        chunks=CHUNK,
        dtype=image.dtype,
        compressors=BloscCodec(cname="zstd", clevel=3, shuffle="bitshuffle", typesize=2),
    )
    stored[:] = image
    (slope, intercept), *others = {one[3] for one in slices}
    assert not others
    stored.attrs.update({"slope": slope, "intercept": intercept})
