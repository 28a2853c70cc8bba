"""What objects derived from a DICOM series have in common: whose they are, of when, and UIDs that are digests of content.

No clock is read and nothing is random: the bytes depend on the arguments and on versions alone.
"""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from pipelines.calendar import is_elapsed
from pipelines.cube.store import release
from pipelines.sources.dicom_references import FrameReference, ReferencedSeries
from pipelines.tracking.seg_files import NO_DATE

if TYPE_CHECKING:
    from pydicom import Dataset

PATIENT_AND_STUDY = (
    "PatientID", "PatientName", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID", "AccessionNumber",
    "ReferringPhysicianName",
)  # fmt: skip
MakerKind = Literal["AUTOMATIC", "SEMIAUTOMATIC", "MANUAL"]


@dataclass(frozen=True)
class Code:
    """A coded concept: value, scheme (SCT: SNOMED CT) and meaning."""

    value: str
    scheme: str
    meaning: str


@dataclass(frozen=True)
class Maker:
    """What made the masks: a program with its version, or a person (`MANUAL`)."""

    name: str
    version: str
    kind: MakerKind = "AUTOMATIC"


def coded(code: Code) -> Any:
    """The concept as highdicom takes it."""
    from highdicom.sr import CodedConcept

    return CodedConcept(code.value, code.scheme, code.meaning)


def reference_to(frame: FrameReference) -> Dataset:
    """An item that names the file of a frame."""
    from pydicom import Dataset

    made = Dataset()
    made.ReferencedSOPClassUID, made.ReferencedSOPInstanceUID = frame.sop_class, frame.sop_instance
    return made


def repeat_study(made: Dataset, source: ReferencedSeries) -> None:
    """Puts in whose object it is and what made it; of the source only what `ReferencedSeries.study` holds."""
    for name in PATIENT_AND_STUDY:
        setattr(made, name, "")  # present, and empty unless the study has it
    for name, value in source.study.items():
        setattr(made, name, str(value) if name == "PatientName" else value)
    made.SpecificCharacterSet = "ISO_IR 192"
    made.Manufacturer, made.ManufacturerModelName, made.DeviceSerialNumber = "driftline", "driftline", "none"
    made.SoftwareVersions = release()


def set_moment(made: Dataset, source: ReferencedSeries, t: int) -> None:
    """Takes date and time of the content from those of the source at time t, in place of the clock."""
    moment = source.times_T[t]
    made.ContentDate, made.ContentTime = str(made.StudyDate or NO_DATE), str(made.StudyTime or "000000")
    if not is_elapsed(moment):
        date, time = np.datetime_as_string(moment, unit="us").split("T")
        made.ContentDate, made.ContentTime = date.replace("-", ""), time.replace(":", "")
    for name in ("InstanceCreationDate", "InstanceCreationTime", "ContributingEquipmentSequence"):
        if name in made:  # which highdicom puts in
            delattr(made, name)


def finished(made: Dataset) -> bytes:
    """The file, whose SOP Instance UID is a digest of everything else in it."""
    return _packed(made, uid_of(_packed(made, "2.25.0")))


def _packed(made: Dataset, uid: str) -> bytes:
    from pydicom.uid import UID

    made.SOPInstanceUID = made.file_meta.MediaStorageSOPInstanceUID = UID(uid)
    made.file_meta.MediaStorageSOPClassUID = made.SOPClassUID
    packed = io.BytesIO()
    made.save_as(packed, enforce_file_format=True)
    return packed.getvalue()


def digest_of(*parts: bytes | memoryview) -> bytes:
    """16 bytes."""
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        digest.update(part)
    return digest.digest()


def uid_of(*parts: bytes | memoryview) -> str:
    """The UID of a digest (PS3.5, B.2).

    >>> uid_of(b"a") == uid_of(b"a")
    True
    """
    return f"2.25.{int.from_bytes(digest_of(*parts), 'big')}"
