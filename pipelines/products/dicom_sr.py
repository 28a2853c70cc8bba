"""Measurements of tracked objects as DICOM SR: TID 1500 Measurement Report, Comprehensive 3D SR (PS3.3, A.35.13), with highdicom.

A report per file of masks: one for each time of volumes, whose objects are segments (TID 1411); one of a cine, whose objects are
segments of a frame (TID 1410). A report so belongs to the images of its own time, and refers to one DICOM SEG. Nothing is
repeated of the source beyond what SEG repeats, and the same arguments give the same bytes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines.cube.store import release
from pipelines.errors import RequestError
from pipelines.files import write_bytes
from pipelines.products.dicom_objects import (
    PATIENT_AND_STUDY,
    Code,
    coded,
    digest_of,
    finished,
    repeat_study,
    set_moment,
    uid_of,
)
from pipelines.products.dicom_seg import SegmentClass
from pipelines.sources.dicom_files import require_pydicom, without_warnings
from pipelines.sources.dicom_references import FrameReference, ReferencedSeries
from pipelines.tracking.seg_files import SEGMENTATION

if TYPE_CHECKING:
    from highdicom.sr import MeasurementReport
    from pydicom import Dataset

SERIES_OFFSET = 3000  # added to the number of the source series
MOST_OBJECTS = 255  # segments of a file: masks are uint8
MM, MM2, MM3 = Code("mm", "UCUM", "mm"), Code("mm2", "UCUM", "square millimeter"), Code("mm3", "UCUM", "cubic millimeter")
PIXELS, PERCENT = Code("{pixels}", "UCUM", "pixels"), Code("%", "UCUM", "Percent")
VOLUME, AREA = Code("118565006", "SCT", "Volume"), Code("42798000", "SCT", "Area")
PERIMETER = Code("131191004", "SCT", "Perimeter")
MAJOR, MINOR = Code("131187009", "SCT", "Major Axis"), Code("131188004", "SCT", "Minor Axis")
# columns of objects.csv -> concept (CID 7469) and unit; a column that is not here is not reported
SIZES = {
    "volume_mm3": (VOLUME, MM3), "area_mm2": (AREA, MM2), "area_px2": (AREA, PIXELS),
    "perimeter_mm": (PERIMETER, MM), "perimeter_px": (PERIMETER, PIXELS),
    "major_mm": (MAJOR, MM), "major_px": (MAJOR, PIXELS), "minor_mm": (MINOR, MM), "minor_px": (MINOR, PIXELS),
}  # fmt: skip
CHANGE = Code("442714003", "SCT", "Difference in size")  # CID 6133
EVENT = Code("111049", "DCM", "Qualitative Difference")
# events of `pipelines.tracking.tracks` that a code says; merged, split, first seen have none that says just this
EVENTS = {
    "new": Code("7147002", "SCT", "New"),
    "grown": Code("15454001", "SCT", "Increase in size"),
    "shrunk": Code("19776001", "SCT", "Decrease in size"),
    "stable": Code("260388006", "SCT", "No change"),
    "gone": Code("272519000", "SCT", "Absent"),
}
PROCEDURE = Code("363679005", "SCT", "Imaging procedure")


@dataclass(frozen=True)
class Measured:
    """An object at time t: the number of its track, what happened to it, its sizes by column of objects.csv (`SIZES`).

    `change`: relative to the size that `event` compares with; None where there is none. `sizes` are empty of what is gone.
    """

    t: int
    track: int
    event: str
    sizes: Mapping[str, float] = field(default_factory=dict)
    change: float | None = None


@dataclass
class _Region:
    """Where an object lies: frames of a SEG file, and of which frames of which files of the source they were made."""

    segmentation: str
    places: list[int]
    sources: dict[tuple[str, str], list[int]]


def classes_of_tracks(
    tracks_T: Sequence[np.ndarray], labels: np.ndarray, classes: Sequence[SegmentClass], source: ReferencedSeries
) -> list[SegmentClass]:
    """A class for each track, whose value is its number: name and codes of the class that it has where it is first seen.

    `tracks_T`: the number of the track of each pixel at each time, 0: none; `labels`: the values of `classes` there. Its Tracking
    UID is a digest of series, time and pixels where it is first seen: later times, or other objects, do not change it.
    Raises RequestError: more tracks than a SEG has segments.
    """
    named, made = {one.value: one for one in classes}, dict[int, SegmentClass]()
    for t, (track_of_pixel, values) in enumerate(zip(tracks_T, labels, strict=True)):
        numbers, at = np.unique(track_of_pixel, return_index=True)
        for track, first in zip(numbers.tolist(), at.tolist(), strict=True):
            if track and track not in made:
                if track > MOST_OBJECTS:
                    problem = f"there are more than {MOST_OBJECTS} tracks, the most that a segmentation has"
                    raise RequestError(f"{problem}: leave out small objects with --min-size")
                where = np.packbits(track_of_pixel == track).data
                uid = uid_of(b"track", source.series_uid.encode(), str(source.times_T[t]).encode(), where)
                of = named[int(values.flat[first])]
                made[track] = SegmentClass(track, f"{of.name[:60]} {track}", of.category, of.kind, uid)
    return [made[track] for track in sorted(made)]


def write_measurements(
    objects: Iterable[Measured], classes: Sequence[SegmentClass], segmentations: Sequence[Path], source: ReferencedSeries,
    folder: Path,
) -> list[Path]:  # fmt: skip
    """The files written to `folder`: `sr-0001.dcm` ... per time of volumes that has objects, `sr.dcm` of images in time.

    `classes`: those of the tracks (`classes_of_tracks`), of which `segmentations` are the SEG files.
    Raises RequestError (highdicom is not installed), StorageFull.
    """
    require_pydicom()
    known = {one.value: one for one in classes}
    objects = sorted(objects, key=lambda one: (one.t, one.track))
    segments = {value: number for number, value in enumerate(sorted(known), start=1)}
    with without_warnings():
        files = _headers(segmentations)
        regions = _regions(files)
        content = digest_of(*(str(one.SOPInstanceUID).encode() for one in files), repr(objects).encode(), repr(classes).encode())
        groups: dict[int, list[Any]] = defaultdict(list)
        for one in objects:
            made = _group(one, known[one.track], regions.get((one.t, segments[one.track])), source.grid.is_volume, segments)
            groups[one.t if source.grid.is_volume else 0] += made
        written = []
        folder.mkdir(parents=True, exist_ok=True)
        for t in sorted(t for t, of_time in groups.items() if of_time):
            here = [one for one in files if not source.grid.is_volume or int(one.InstanceNumber) == t + 1]
            document = _document(_report(groups[t]), source, t, here)
            document.SeriesInstanceUID, document.InstanceNumber = uid_of(content, b"measurements"), t + 1
            written.append(folder / (f"sr-{t + 1:04d}.dcm" if source.grid.is_volume else "sr.dcm"))
            write_bytes(written[-1], finished(document))
    return written


def _headers(segmentations: Sequence[Path]) -> list[Dataset]:
    import pydicom

    return [pydicom.dcmread(path, stop_before_pixels=True) for path in segmentations]


def _regions(files: Sequence[Dataset]) -> dict[tuple[int, int], _Region]:
    """(time, number of the segment) -> where it lies."""
    regions: dict[tuple[int, int], _Region] = {}
    for content in files:
        (shared,) = content.SharedFunctionalGroupsSequence  # which names the segment where there is one alone
        for place, item in enumerate(content.PerFrameFunctionalGroupsSequence, start=1):
            t = int(item.FrameContentSequence[0].TemporalPositionIndex) - 1
            of = item if "SegmentIdentificationSequence" in item else shared
            number = int(of.SegmentIdentificationSequence[0].ReferencedSegmentNumber)
            made_of = item.DerivationImageSequence[0].SourceImageSequence[0]
            region = regions.setdefault((t, number), _Region(str(content.SOPInstanceUID), [], {}))
            region.places.append(place)
            file = str(made_of.ReferencedSOPClassUID), str(made_of.ReferencedSOPInstanceUID)
            frames = region.sources.setdefault(file, [])
            if "ReferencedFrameNumber" in made_of:
                frames.append(int(made_of.ReferencedFrameNumber))
    return regions


# ---------------------------------------------------------------- content


def _group(one: Measured, about: SegmentClass, region: _Region | None, is_volume: bool, segments: Mapping[int, int]) -> list[Any]:
    """The measurement group of an object (TID 1411, 1410; TID 1501 of what is gone), or none if nothing can be said of it."""
    from highdicom.sr import (
        MeasurementsAndQualitativeEvaluations,
        PlanarROIMeasurementsAndQualitativeEvaluations,
        QualitativeEvaluation,
        ReferencedSegment,
        ReferencedSegmentationFrame,
        SourceImageForSegmentation,
        TimePointContext,
        TrackingIdentifier,
        VolumetricROIMeasurementsAndQualitativeEvaluations,
    )

    event = [QualitativeEvaluation(coded(EVENT), coded(EVENTS[one.event]))] if one.event in EVENTS else []
    said: dict[str, Any] = {
        "tracking_identifier": TrackingIdentifier(uid=about.tracking_uid, identifier=about.name),
        "time_point_context": TimePointContext(str(one.t + 1)),  # its order would be read as a measurement
        "finding_category": coded(about.category),
        "finding_type": coded(about.kind),
        "qualitative_evaluations": event,
    }
    if region is None:
        return [MeasurementsAndQualitativeEvaluations(**said)] if event else []
    said["measurements"] = _measurements(one)
    number = segments[one.track]
    images = [SourceImageForSegmentation(*file, sorted(frames) or None) for file, frames in region.sources.items()]
    if is_volume:
        segment = ReferencedSegment(SEGMENTATION, region.segmentation, number, source_images=images)
        return [VolumetricROIMeasurementsAndQualitativeEvaluations(referenced_segment=segment, **said)]
    frame = ReferencedSegmentationFrame(SEGMENTATION, region.segmentation, region.places[0], number, images[0])
    del frame[0].ReferencedSOPSequence[0].ReferencedSegmentNumber  # not beside a number of a frame (PS3.3, C.18.4)
    return [PlanarROIMeasurementsAndQualitativeEvaluations(referenced_segment=frame, **said)]


def _measurements(one: Measured) -> list[Any]:
    from highdicom.sr import Measurement

    stated = [(*SIZES[column], value) for column, value in one.sizes.items() if column in SIZES]
    stated += [] if one.change is None else [(CHANGE, PERCENT, 100 * one.change)]
    return [Measurement(coded(name), float(f"{value:.10g}"), coded(unit)) for name, unit, value in stated]


def _report(groups: Sequence[Any]) -> MeasurementReport:
    from highdicom.sr import (
        DeviceObserverIdentifyingAttributes,
        MeasurementReport,
        ObservationContext,
        ObserverContext,
    )
    from pydicom.sr.codedict import codes

    uid, model = uid_of(b"device", release().encode()), f"driftline {release()}"
    device = DeviceObserverIdentifyingAttributes(uid, "driftline", manufacturer_name="driftline", model_name=model)
    observer = ObservationContext(observer_device_context=ObserverContext(codes.DCM.Device, device))
    return MeasurementReport(observer, coded(PROCEDURE), imaging_measurements=groups)


# ---------------------------------------------------------------- the document


def _document(report: MeasurementReport, source: ReferencedSeries, t: int, segmentations: Sequence[Dataset]) -> Dataset:
    """The object around the content, without identity."""
    from highdicom.sr import Comprehensive3DSR

    used = [source.frames[t]] if source.grid.is_volume else source.frames
    evidence = [_stand_in(source, one) for one in {f.sop_instance: f for of in used for f in of}.values()]
    evidence += [_stand_in(source, FrameReference(SEGMENTATION, str(one.SOPInstanceUID)), one) for one in segmentations]
    made = Comprehensive3DSR(evidence, report, "2.25.1", 1, "2.25.1", 1, manufacturer="driftline", is_complete=True)
    repeat_study(made, source)
    set_moment(made, source, t)
    made.SeriesNumber, made.SeriesDescription = SERIES_OFFSET + source.number, f"measurements of series {source.number}"
    return made


def _stand_in(source: ReferencedSeries, of: FrameReference, segmentation: Dataset | None = None) -> Dataset:
    """A data set with the identity of a file and nothing else: highdicom takes files, and copies the patient from the first."""
    from pydicom import Dataset

    made = Dataset()
    made.SOPClassUID, made.SOPInstanceUID = of.sop_class, of.sop_instance
    made.StudyInstanceUID = source.study["StudyInstanceUID"]
    made.SeriesInstanceUID = source.series_uid if segmentation is None else segmentation.SeriesInstanceUID
    for name in PATIENT_AND_STUDY:
        setattr(made, name, None)
    return made
