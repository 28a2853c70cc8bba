"""Masks as DICOM SEG (PS3.3, A.51): a file per time for volumes, one file of all frames for images in time (2D+t).

Volumes are made with highdicom. It refuses cines (no Frame of Reference, planes at one position), so theirs is made here: frames
are told apart by segment and TemporalPositionIndex, and lie where the frame that they reference lies; no position is invented.
The bytes depend on the arguments and on versions alone: UIDs are digests, dates are those of the source.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines.errors import RequestError
from pipelines.files import write_bytes
from pipelines.products.dicom_objects import (
    PATIENT_AND_STUDY,
    Code,
    Maker,
    coded,
    digest_of,
    finished,
    reference_to,
    repeat_study,
    set_moment,
    uid_of,
)
from pipelines.sources.dicom_files import require_pydicom, without_warnings
from pipelines.sources.dicom_references import ReferencedSeries
from pipelines.tracking.label_series import values_in

if TYPE_CHECKING:
    from highdicom.seg import SegmentDescription
    from pydicom import Dataset

SERIES_OFFSET = {False: 1000, True: 2000}  # added to the number of the source series; True: of objects
TISSUE = Code("85756007", "SCT", "Tissue")
DERIVED = Code("113076", "DCM", "Segmentation")
SOURCE = Code("121322", "DCM", "Source image for image processing operation")


@dataclass(frozen=True)
class SegmentClass:
    """What a value of the masks means: a name, and category and type of the property (CID 7150 and 7151 of PS3.16).

    `tracking_uid`: of a single object that is followed through time (Tracking UID; its Tracking ID is the name).
    """

    value: int
    name: str
    category: Code = TISSUE
    kind: Code = TISSUE
    tracking_uid: str = ""


def write_segmentations(
    labels: np.ndarray, classes: Sequence[SegmentClass], source: ReferencedSeries, folder: Path, maker: Maker
) -> list[Path]:
    """The files written to `folder`: `seg-0001.dcm` ... per time of volumes, `seg.dcm` of images in time.

    `labels`: uint8 (time, [z,] y, x) on the grid and at the times of `source`, 0: nothing; every other value has a class, and is
    a segment of its own (BINARY), numbered from 1 in order of value. Frames without anything are written too, unless all
    classes are tracked objects (`tracking_uid`): then only frames with an object are, and no file of a volume without any.
    Raises RequestError (shape, classes, other files in `folder`, pydicom or highdicom not installed), StorageFull.
    """
    require_pydicom()
    classes = _checked(labels, sorted(classes, key=lambda one: one.value), source)
    are_objects = all(one.tracking_uid for one in classes)
    about = repr((labels.shape, classes, source, maker)).encode()
    content = digest_of(np.ascontiguousarray(labels).data, source.times_T.tobytes(), about)
    times = [t for t in range(len(labels)) if not are_objects or labels[t].any()] if source.grid.is_volume else [0]
    paths = [folder / (f"seg-{t + 1:04d}.dcm" if source.grid.is_volume else "seg.dcm") for t in times]
    stale = sorted({one.name for one in folder.glob("seg*.dcm")} - {path.name for path in paths})
    if stale:
        raise RequestError(f"{folder} holds segmentations of another series ({stale[0]}): remove them, or name another folder")
    folder.mkdir(parents=True, exist_ok=True)
    values = [one.value for one in classes]
    with without_warnings():
        described = _described(classes, maker)
        for t, path in zip(times, paths, strict=True):
            if source.grid.is_volume:
                made = _volume(_numbered(labels[t], values), source, t, described, are_objects)
            else:
                made = _cine(labels, values, source, described, are_objects)
            _complete(made, source, content, t, are_objects)
            write_bytes(path, finished(made))
    return paths


def _checked(labels: np.ndarray, classes: Sequence[SegmentClass], source: ReferencedSeries) -> Sequence[SegmentClass]:
    expected = (len(source.frames), *source.grid.shape)
    if labels.shape != expected or labels.dtype != np.uint8:
        have = f"{labels.dtype} {' x '.join(map(str, labels.shape))}"
        raise RequestError(f"the masks are {have}, the series is {' x '.join(map(str, expected))} (time first; uint8)")
    values = [one.value for one in classes]
    if not values or len(set(values)) < len(values) or min(values) < 1 or max(values) > 255:
        raise RequestError(f"the classes have the values {values}: expected different ones from 1 to 255")
    if any(not 0 < len(one.name) <= 64 or "\\" in one.name for one in classes):
        raise RequestError("a class has a name of 1 to 64 characters without a backslash (LO of PS3.5, 6.2)")
    unknown = [value for value in values_in(labels) if value not in values]
    if unknown:
        raise RequestError(f"the masks hold {unknown[:5]}, which no class names (classes: {values}); name a class for each value")
    return classes


def _numbered(labels_ZYX: np.ndarray, values: list[int]) -> np.ndarray:
    """uint8 numbers of segments in place of values."""
    numbers = np.zeros(256, np.uint8)
    numbers[values] = np.arange(1, len(values) + 1)
    return np.asarray(numbers[labels_ZYX])


# ---------------------------------------------------------------- volumes


def _volume(
    segments_ZYX: np.ndarray, source: ReferencedSeries, t: int, described: list[SegmentDescription], is_sparse: bool
) -> Dataset:
    """The object of one time. `segments_ZYX`: uint8 numbers of segments. `is_sparse`: without frames that hold nothing."""
    from highdicom.seg import Segmentation

    stand_ins = _stand_ins(source)
    made = Segmentation(
        stand_ins, segments_ZYX, "BINARY", described, "2.25.1", 1, "2.25.1", 1, "driftline", "driftline", "0", "0",
        omit_empty_frames=is_sparse, content_label="SEGMENTATION",
    )  # fmt: skip
    for item in made.PerFrameFunctionalGroupsSequence:
        place = item.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
        _refer(item, source, t, int(place.removeprefix("2.25.")) - 1)
    if not source.frame_uid:  # positions then hold in the frame of the referenced images, which has no name
        del made.FrameOfReferenceUID, made.PositionReferenceIndicator
    return made


def _stand_ins(source: ReferencedSeries) -> list[Dataset]:
    """For each slice a data set with its position and nothing else, whose UID is its number: highdicom takes classic files only,
    whatever they hold, and tells them apart by UID; the references are put in afterwards."""
    from pydicom import Dataset
    from pydicom.uid import MRImageStorage
    from pydicom.valuerep import DS

    def decimals(values: Sequence[float] | np.ndarray) -> list[Any]:
        return [DS(float(value), auto_format=True) for value in values]

    matrix, spacing_zyx = source.grid.matrix_of_centres, source.grid.spacing
    directions = matrix[:, :2] / np.linalg.norm(matrix[:, :2], axis=0)
    stand_ins = []
    for k in range(source.grid.shape[0]):
        made = Dataset()
        made.SOPClassUID, made.SOPInstanceUID = MRImageStorage, f"2.25.{k + 1}"
        made.StudyInstanceUID, made.SeriesInstanceUID = source.study["StudyInstanceUID"], source.series_uid
        made.FrameOfReferenceUID, made.Modality = source.frame_uid or "2.25.1", "MR"
        made.Rows, made.Columns = source.grid.shape_yx
        made.ImagePositionPatient = decimals(matrix[:, 3] + k * matrix[:, 2])
        made.ImageOrientationPatient = decimals(directions.T.ravel())
        made.PixelSpacing = decimals(spacing_zyx[1:])
        made.SliceThickness, made.SpacingBetweenSlices = decimals([spacing_zyx[0]] * 2)
        for name in PATIENT_AND_STUDY:
            setattr(made, name, None)
        stand_ins.append(made)
    return stand_ins


# ---------------------------------------------------------------- images in time


def _cine(
    labels: np.ndarray, values: list[int], source: ReferencedSeries, described: list[SegmentDescription], is_sparse: bool
) -> Dataset:
    """The object of all times, its frames in order of segment and time (PS3.3, A.51, C.8.20.2, C.7.6.17)."""
    from pydicom import Dataset
    from pydicom.dataset import FileMetaDataset
    from pydicom.pixels.utils import pack_bits
    from pydicom.uid import ExplicitVRLittleEndian, SegmentationStorage

    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.SOPClassUID, made.Modality, made.SegmentationType = SegmentationStorage, "SEG", "BINARY"
    made.ImageType, made.ContentLabel, made.ContentDescription, made.ContentCreatorName = (
        ["DERIVED", "PRIMARY"],
        "SEGMENTATION",
        "",
        "",
    )
    made.PatientOrientation = source.image.get("PatientOrientation") or ""
    made.SegmentsOverlap, made.SegmentSequence = "NO", described
    made.Rows, made.Columns = source.grid.shape_yx
    made.SamplesPerPixel, made.PhotometricInterpretation, made.PixelRepresentation = 1, "MONOCHROME2", 0
    made.BitsAllocated, made.BitsStored, made.HighBit, made.LossyImageCompression = 1, 1, 0, "00"
    masks = [(number, t, labels[t] == value) for number, value in enumerate(values, start=1) for t in range(len(labels))]
    masks = [one for one in masks if not is_sparse or one[2].any()]
    made.NumberOfFrames = len(masks)
    shared = Dataset()
    if source.grid.unit == "mm":
        from highdicom import PixelMeasuresSequence

        shared.PixelMeasuresSequence = PixelMeasuresSequence(source.grid.spacing, None)
    made.SharedFunctionalGroupsSequence = [shared]
    made.DimensionOrganizationSequence = [Dataset()]
    made.DimensionIndexSequence = [
        _dimension("ReferencedSegmentNumber", "SegmentIdentificationSequence"),
        _dimension("TemporalPositionIndex", "FrameContentSequence"),
    ]
    frames = []
    for number, t, _ in masks:
        item, segment, place = Dataset(), Dataset(), Dataset()
        segment.ReferencedSegmentNumber, place.DimensionIndexValues = number, [number, t + 1]
        item.SegmentIdentificationSequence, item.FrameContentSequence = [segment], [place]
        _refer(item, source, t, 0)
        frames.append(item)
    made.PerFrameFunctionalGroupsSequence = frames
    made.PixelData = pack_bits(np.concatenate([mask_YX for _, _, mask_YX in masks]).ravel().astype(np.uint8))
    return made


def _dimension(pointer: str, group: str) -> Dataset:
    from pydicom import Dataset
    from pydicom.datadict import tag_for_keyword

    item = Dataset()
    item.DimensionIndexPointer, item.FunctionalGroupPointer = tag_for_keyword(pointer), tag_for_keyword(group)
    item.DimensionDescriptionLabel = pointer
    return item


# ---------------------------------------------------------------- what both have


def _described(classes: Sequence[SegmentClass], maker: Maker) -> list[SegmentDescription]:
    try:
        from highdicom.seg import SegmentDescription
    except ImportError as e:
        raise RequestError("DICOM SEG needs highdicom: pip install 'driftline[medical]'") from e
    described = []
    for number, one in enumerate(classes, start=1):
        item = SegmentDescription(number, one.name, coded(one.category), coded(one.kind), "MANUAL")
        if one.tracking_uid:
            item.TrackingID, item.TrackingUID = one.name, one.tracking_uid
        if maker.kind != "MANUAL":  # highdicom would also ask for the family of the algorithm, which nobody states
            item.SegmentAlgorithmType, item.SegmentAlgorithmName = maker.kind, f"{maker.name} {maker.version}".strip()
        described.append(item)
    return described


def _refer(item: Dataset, source: ReferencedSeries, t: int, k: int) -> None:
    """Puts the time, and the frame of the source from which it was made, into the functional groups of a frame."""
    from pydicom import Dataset

    frame, derivation, offset = source.frames[t][k], Dataset(), Dataset()
    referred = reference_to(frame)
    referred.PurposeOfReferenceCodeSequence = [coded(SOURCE)]
    referred.SpatialLocationsPreserved = "YES" if frame.is_whole else "NO"
    if frame.frame is not None:
        referred.ReferencedFrameNumber = frame.frame
    derivation.DerivationCodeSequence, derivation.SourceImageSequence = [coded(DERIVED)], [referred]
    item.DerivationImageSequence = [derivation]
    item.FrameContentSequence[0].TemporalPositionIndex = t + 1
    offset.TemporalPositionTimeOffset = float((source.times_T[t] - source.times_T[0]) / np.timedelta64(1, "s"))
    item.TemporalPositionSequence = [offset]


def _complete(made: Dataset, source: ReferencedSeries, content: bytes, t: int, are_objects: bool) -> None:
    """Puts in whose object it is, of which series, made from what and when; of the source only what `ReferencedSeries` holds."""
    from pydicom import Dataset

    repeat_study(made, source)
    set_moment(made, source, t)
    for name in ("LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod"):
        if name in source.image:
            setattr(made, name, source.image[name])
    made.SeriesInstanceUID, made.SeriesNumber = uid_of(content, b"series"), SERIES_OFFSET[are_objects] + source.number
    what = "tracked objects" if are_objects else "segmentation"
    made.SeriesDescription, made.InstanceNumber = f"{what} of series {source.number}", t + 1
    if "SourceImageSequence" in made:  # the stand-ins
        del made.SourceImageSequence
    for item in (*made.DimensionOrganizationSequence, *made.DimensionIndexSequence):
        item.DimensionOrganizationUID = uid_of(content, b"dimensions")
    used = [source.frames[t]] if source.grid.is_volume else source.frames
    series = Dataset()
    series.SeriesInstanceUID = source.series_uid
    series.ReferencedInstanceSequence = [reference_to(one) for one in {f.sop_instance: f for of in used for f in of}.values()]
    made.ReferencedSeriesSequence = [series]
