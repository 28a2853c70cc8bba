"""What an object derived from a DICOM series repeats of it: which frames it has, where they lie, and whose study they are of."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipelines.errors import RequestError
from pipelines.grid import Grid
from pipelines.sources.dicom import DicomSource
from pipelines.sources.dicom_files import read_header, without_warnings

# Patient and General Study (PS3.3, C.7.1.1, C.7.2.1) as far as they tie objects of a study together, and how it was de-identified
STUDY = (
    "PatientID", "PatientName", "StudyInstanceUID", "StudyDate", "StudyTime", "PatientIdentityRemoved", "DeidentificationMethod",
    "DeidentificationMethodCodeSequence", "LongitudinalTemporalInformationModified",
)  # fmt: skip
UIDS = ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID")
# what holds for a derived image too: compression that has lost something (C.7.6.1.1.5), and how it lies to the patient
IMAGE = ("LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod", "PatientOrientation")


@dataclass(frozen=True)
class FrameReference:
    """A frame of a file. `frame`: its number (from 1) where the file can have several; `is_whole` False: a part, of a mosaic."""

    sop_class: str
    sop_instance: str
    frame: int | None = None
    is_whole: bool = True


@dataclass(frozen=True)
class ReferencedSeries:
    """A series on `grid`: `frames[t][k]` is slice k of time t (the only one of images in time), `times_T` datetime64[ns].

    `study` and `image`: elements of its files to repeat, by keyword. `frame_uid`: its Frame of Reference, "" where it has none.
    """

    grid: Grid
    times_T: np.ndarray
    frames: tuple[tuple[FrameReference, ...], ...]
    series_uid: str
    number: int
    frame_uid: str
    study: dict[str, object]
    image: dict[str, object]

    @property
    def is_deidentified(self) -> bool:
        """True if its files state that the identity of the patient was removed."""
        return self.study.get("PatientIdentityRemoved") == "YES"


def referenced_series(source: DicomSource) -> ReferencedSeries:
    """What the files of a source say of themselves, of the scenes that can be read.

    Raises RequestError: none can be read, or one lacks the UIDs by which others refer to it.
    """
    scenes = source.list_scenes().scenes
    if not scenes:
        raise RequestError(f"{source.path}: no volume or frame of the series can be read")
    known: dict[Path, tuple[str, str, bool]] = {}
    frames, first = [], None
    with without_warnings():
        for scene in scenes:
            of_time = []
            for slot in source.slots_of(scene):
                assert slot is not None  # scenes with missing slices are refused
                if slot.path not in known:
                    header = read_header(slot.path)[0]
                    first = header if first is None else first
                    lacking = [name for name in UIDS if not header.get(name)]
                    if lacking:
                        problem = f"file {slot.frame.file} (in order of name) has no {lacking[0]}"
                        raise RequestError(f"{problem}, so nothing can refer to it; export the series again")
                    known[slot.path] = str(header.SOPClassUID), str(header.SOPInstanceUID), "NumberOfFrames" in header
                sop_class, sop_instance, is_multiframe = known[slot.path]
                is_whole = slot.frame.tile is None
                number = slot.frame.index + 1 if is_multiframe and is_whole else None
                of_time.append(FrameReference(sop_class, sop_instance, number, is_whole))
            frames.append(tuple(of_time))
        assert first is not None
        return ReferencedSeries(
            grid=source.native_grid(),
            times_T=np.array([scene.observed_utc for scene in scenes], "datetime64[ns]"),
            frames=tuple(frames),
            series_uid=str(first.get("SeriesInstanceUID") or ""),
            number=int(first.get("SeriesNumber") or 0),
            frame_uid=str(first.get("FrameOfReferenceUID") or ""),
            study={name: first[name].value for name in STUDY if name in first},
            image={name: first[name].value for name in IMAGE if name in first},
        )
