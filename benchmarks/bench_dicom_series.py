"""Ingest of a DICOM series of 512x512, 60 slices and 10 times against pydicom alone, and its forecast.

    python -m benchmarks.bench_dicom_series [--quick]

600 files of 0.5 MB, classic MR, uncompressed. The peer is a script: `dcmread` and `pixel_array` of every file, sorted by time and
position along the normal, stacked, written to a plain Zarr array of the cube's chunks and codec, values as stored (slope and
intercept become attributes, as in the cube). It checks, masks, hashes and de-identifies nothing. driftline runs as `driftline
ingest`, with and without the de-identified copy. Every run is a process of its own, with start-up; they take turns. The voxels of
all are compared.

The forecast is `driftline predict` with a network that was trained on a smaller series, in tiles and at once. Memory is that of
all processes together, pages that they share counted once.
"""

import argparse
import os
import platform
import statistics
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.criteria import verdict
from benchmarks.measuring import Costs, run_measured

if TYPE_CHECKING:
    from pydicom import Dataset

SHAPE, SMALL = (60, 512, 512), (24, 64, 64)  # z, y, x
TIMES, STEP_S = 10, 2.5
CHUNK = (1, 1, 40, 40, 40)
LEAST_SPEED, MEMORY_LIMIT_GB, MOST_DIFFERENCE = 0.5, 2.0, 1e-6
WHOLE_PX = 1024  # a tile that holds the volume
AT_ONCE = f"import pipelines.inference.job as job; job.VOLUME_TILE_PX = {WHOLE_PX}; from flows.cli import main; main()"
PEER, OURS, AS_IT_IS = "pydicom alone", "driftline", "deidentify: false"
CONFIG = """
name: {name}
task: forecast
runs: {folder}/runs
source: {{kind: dicom, path: {folder}/{scans}}}
samples: {{variables: [{{name: intensity, formula: band, bands: [intensity]}}], context: 3, horizon: 1}}
split: {{block_px: {block_px}, buffer_px: 1, validation_from: 12 s, test_from: 17 s}}
privacy: {privacy}
model: {{hidden: [4], baseline: persistence, members: 1}}
training: {{epochs: 2, loss: mae}}
evaluation: {{baselines: [persistence], publish: network}}
"""
TEXTS = ("StationName", "InstitutionName", "ReferringPhysicianName", "SeriesDescription", "StudyDescription", "ProtocolName",
         "PerformedProcedureStepDescription", "DeviceSerialNumber", "SoftwareVersions", "BodyPartExamined")  # fmt: skip
NUMBERS = ("RepetitionTime", "EchoTime", "NumberOfAverages", "ImagingFrequency", "MagneticFieldStrength", "SpacingBetweenSlices",
           "PercentSampling", "PercentPhaseFieldOfView", "PixelBandwidth", "FlipAngle", "SAR", "PatientWeight")  # fmt: skip


def make_series(folder: Path, shape: tuple[int, int, int]) -> None:
    """Classic MR files, int16: headers of about 100 elements, 40 of them private; names in another order than slices."""
    folder.mkdir()
    slices, rows, columns = shape
    y, x = np.meshgrid(np.linspace(-1, 1, rows), np.linspace(-1, 1, columns), indexing="ij")
    body = 600 * np.exp(-3 * (y**2 + x**2)) + 100 * np.sin(9 * y) * np.cos(7 * x)
    noise = np.random.default_rng(0).normal(0, 15, (7, rows, columns))
    for t in range(TIMES):
        for k in range(slices):
            number = t * slices + k
            pixels = body * (1 + 0.02 * t + 0.005 * k) + noise[number % 7] + 50
            made = _header(t, k, number, rows, columns)
            made.add_new(0x7FE00010, "OW", pixels.astype("<i2").tobytes())
            made.save_as(folder / f"IM{number * 7 % (TIMES * slices):04d}.dcm", enforce_file_format=True)


def _header(t: int, k: int, number: int, rows: int, columns: int) -> "Dataset":
    from pydicom import Dataset
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import UID, ExplicitVRLittleEndian, MRImageStorage

    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID, made.file_meta.MediaStorageSOPClassUID = ExplicitVRLittleEndian, MRImageStorage
    made.file_meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID = UID(f"1.2.3.4.5.{number}")
    made.SOPClassUID, made.Modality, made.Manufacturer = MRImageStorage, "MR", "SIEMENS"
    made.PatientName, made.PatientID, made.PatientBirthDate, made.PatientSex = "Doe^Jane", "ID-1", "19700101", "F"
    made.StudyInstanceUID, made.SeriesInstanceUID, made.FrameOfReferenceUID = "1.2.3.4.1", "1.2.3.4.2", "1.2.3.4.3"
    made.StudyDate = made.SeriesDate = made.AcquisitionDate = made.ContentDate = "20200301"
    made.StudyTime = made.SeriesTime = "101112"
    moment = datetime(2020, 3, 1, 10, 12) + timedelta(seconds=STEP_S * t)
    made.AcquisitionTime = made.ContentTime = f"{moment:%H%M%S.%f}"
    made.SeriesNumber, made.AcquisitionNumber, made.InstanceNumber = 5, t + 1, number + 1
    made.ImageType, made.ScanningSequence, made.SequenceVariant = ["ORIGINAL", "PRIMARY", "M", "ND"], ["GR"], ["SP", "OSP"]
    made.ImagePositionPatient, made.ImageOrientationPatient = [-200.0, -200.0, 3.0 * k], [1, 0, 0, 0, 1, 0]
    made.PixelSpacing, made.SliceThickness, made.SliceLocation = [0.78125, 0.78125], 3.0, 3.0 * k
    made.Rows, made.Columns = rows, columns
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


def call(*arguments: str, program: Sequence[str] = ("-m", "flows.cli")) -> Costs:
    """Costs of a command of driftline."""
    costs = run_measured([sys.executable, *program, *arguments, "--json"])
    if costs.returncode:
        raise SystemExit(f"driftline {' '.join(arguments)}: exit code {costs.returncode}\n{costs.stdout}")
    return costs


def write_config(folder: Path, name: str, scans: str = "scans", privacy: str = "{}") -> str:
    path = folder / f"{name}.yaml"
    path.write_text(
        CONFIG.format(name=name, folder=folder, scans=scans, privacy=privacy, block_px=16 if scans == "small" else 128)
    )
    return str(path)


def ingest(folder: Path, kind: str, turn: int) -> Costs:
    if kind == PEER:
        target = str(folder / f"plain-{turn}.zarr")
        costs = run_measured([sys.executable, "-m", "benchmarks.bench_dicom_series", "--peer", str(folder / "scans"), target])
        if costs.returncode:
            raise SystemExit(f"the peer: exit code {costs.returncode}")
        return costs
    key = f"key_file: {folder}/key"
    privacy = f"{{{key}}}" if kind == OURS else "{deidentify: false, reason: made}"
    return call("ingest", write_config(folder, f"{'ours' if kind == OURS else 'plain'}-{turn}", privacy=privacy))


def compare_voxels(folder: Path) -> None:
    import zarr

    from pipelines.cube.store import open_cube

    plain = np.asarray(zarr.open_array(folder / "plain-0.zarr", mode="r"))
    for name in ("ours-0", "plain-0"):
        image = open_cube(str(folder / "runs" / name / "cube"))["image"]
        assert image.encoding["chunks"] == CHUNK, image.encoding["chunks"]
        print(f"voxels of {name} that differ from the peer's: {np.mean(image.values != plain):.2%}")


def compare_ingest(folder: Path, rounds: int) -> None:
    kinds = (PEER, OURS, AS_IT_IS)
    turns = []
    for turn in range(rounds):
        order = kinds if turn % 2 == 0 else kinds[::-1]
        found = {kind: ingest(folder, kind, turn) for kind in order}
        turns.append(found)
    nothing_new = call("ingest", str(folder / "ours-0.yaml"))
    print(f"\n{'':20}{'wall s':>8}{'CPU s':>8}{'peak GB':>9}   medians of {rounds} turns")
    for kind in kinds:
        middle = (statistics.median(getattr(turn[kind], key) for turn in turns) for key in ("seconds", "cpu_seconds", "peak_gb"))
        print("{:20}{:8.2f}{:8.2f}{:9.2f}".format(kind, *middle))
    print(f"{'nothing new':20}{nothing_new.seconds:8.2f}{nothing_new.cpu_seconds:8.2f}{nothing_new.peak_gb:9.2f}")
    for kind in (OURS, AS_IT_IS):
        for key, clock in (("seconds", "wall clock"), ("cpu_seconds", "CPU")):
            ratios = [getattr(turn[PEER], key) / getattr(turn[kind], key) for turn in turns]
            what = f"speed against pydicom alone, {kind}, {clock}"
            print(f"{verdict(what, statistics.median(ratios), at_least=LEAST_SPEED)}  ({min(ratios):.2f} to {max(ratios):.2f})")


def predict(folder: Path) -> None:
    """The forecast of the large series by a network that learnt from a small one; in tiles, then at once."""
    import nibabel

    make_series(folder / "small", SMALL)
    key = f"{{key_file: {folder}/key}}"
    call("run", write_config(folder, "learnt", "small", key), "--even-if-worse")
    learnt, fields, costs = str(folder / "runs" / "learnt"), [], {}
    call("evaluate", str(folder / "ours-0.yaml"), "--model", learnt)
    for name, tile, program in (
        ("tiles", [], ("-m", "flows.cli")),
        ("at once", [f"prediction.tile_px={WHOLE_PX}"], ("-c", AT_ONCE)),
    ):
        chosen = [part for one in tile for part in ("--set", one)]
        costs[name] = call("predict", str(folder / "ours-0.yaml"), "--model", learnt, *chosen, program=program)
        (path,) = (folder / "runs" / "ours-0" / "products").glob("forecast_*.nii.gz")
        fields.append(np.asarray(nibabel.load(path).dataobj))  # type: ignore[attr-defined]
        print(
            f"forecast, {name:8} {costs[name].seconds:8.1f} s {costs[name].cpu_seconds:8.1f} CPU s {costs[name].peak_gb:6.2f} GB"
        )
    print(verdict("peak memory of the forecast, all processes", costs["tiles"].peak_gb, at_most=MEMORY_LIMIT_GB, unit=" GB"))
    difference = float(np.abs(fields[0] - fields[1]).max() / np.abs(fields[1]).max())
    print(verdict("tiles against the whole, relative to the largest value", difference, at_most=MOST_DIFFERENCE, unit=""))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one turn")
    parser.add_argument("--peer", nargs=2, metavar=("SCANS", "OUT"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.peer:
        run_peer(*map(Path, arguments.peer))
        return
    print(f"DICOM, {datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()}-core {platform.machine()}, load {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        make_series(folder / "scans", SHAPE)
        compare_ingest(folder, 1 if arguments.quick else 3)
        compare_voxels(folder)
        predict(folder)


if __name__ == "__main__":
    main()
