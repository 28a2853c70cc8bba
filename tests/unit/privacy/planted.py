"""DICOM files with a value of its own, a canary, in every place that can hold one."""

from __future__ import annotations

import io
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, timedelta
from itertools import count
from pathlib import Path

import numpy as np
from pydicom import config, dcmwrite
from pydicom.datadict import DicomDictionary
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import ExplicitVRLittleEndian, JPEGBaseline8Bit, MRImageStorage, SecondaryCaptureImageStorage

from pipelines.privacy import tables
from pipelines.privacy.clean import known_vr
from pipelines.privacy.pixels import is_more_image

TEXT = ("LO", "SH", "ST", "LT", "UT", "UC", "AE", "UR", "CS")
BYTES = ("OB", "OW", "UN", "OB or OW", "OF", "OD", "OL", "OV")
STRUCTURE = {  # what makes the file an image; not planted
    0x00080005, 0x00080016, 0x00080060, 0x00280002, 0x00280004, 0x00280008, 0x00280010, 0x00280011, 0x00280100, 0x00280101,
    0x00280102, 0x00280103, 0x00280301, 0x7FE00008, 0x7FE00009, 0x7FE00010, 0x7FE00001, 0x7FE00002, 0x00041220,
    0x00283010,
}  # fmt: skip


class Canaries:
    """Gives out values that are found nowhere else, and remembers them as the bytes to search for."""

    def __init__(self) -> None:
        self.numbers, self.days = count(10_000), count()
        self.planted: list[str] = []

    def text(self) -> str:
        return self.keep(f"CANARY{next(self.numbers)}")

    def keep(self, text: str) -> str:
        self.planted.append(text)
        return text

    def value(self, vr: str, most: int = 1) -> object | None:
        """A canary of the VR; None for VRs whose values are a few numbers."""
        if vr in TEXT:
            return self.text()
        if vr == "PN":
            return f"{self.text()}^{self.text()}"
        if vr == "UI":
            return self.keep(f"1.2.987.{next(self.numbers)}7531")
        if vr in ("DA", "DT"):  # ten days apart: unless the shift is a multiple of ten, none becomes another
            day = self.keep(f"{date(1801, 1, 1) + timedelta(10 * next(self.days)):%Y%m%d}")
            return day if vr == "DA" else f"{day}113059.{next(self.numbers)}+0100"
        if vr in ("DS", "IS"):
            return self.keep(f"{next(self.numbers)}97531")
        return self.text().encode() + b"\0" if vr in BYTES else None


def image(rows: int = 8, columns: int = 8, frames: int = 1, patient: str = "ID-1", instance: str = "1.2.3.9") -> Dataset:
    """A small MR image with a position, without anything planted."""
    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.SOPClassUID, made.SOPInstanceUID, made.Modality = MRImageStorage, instance, "MR"
    made.PatientID, made.PatientName, made.StudyInstanceUID, made.SeriesInstanceUID = patient, "Doe^Jane", "1.2.3.1", "1.2.3.2"
    made.StudyDate, made.StudyTime, made.AcquisitionDateTime = "20200301", "101112", "20200301101112.5+0100"
    made.ImagePositionPatient, made.ImageOrientationPatient = [0, 0, 1.5], [1, 0, 0, 0, 1, 0]
    made.PixelSpacing, made.SliceThickness, made.ImageType = [0.5, 0.5], 3, ["ORIGINAL", "PRIMARY", "M"]
    made.Rows, made.Columns, made.SamplesPerPixel, made.PhotometricInterpretation = rows, columns, 1, "MONOCHROME2"
    made.BitsAllocated, made.BitsStored, made.HighBit, made.PixelRepresentation = 16, 12, 11, 0
    if frames > 1:
        made.NumberOfFrames = frames
    pixels = np.random.default_rng(0).integers(0, 4096, (frames, rows, columns), np.uint16)
    made.add_new(0x7FE00010, "OW", pixels.tobytes())
    return made


@contextmanager
def any_values() -> Iterator[None]:
    """pydicom takes values that their VR does not allow."""
    mode, config.settings.writing_validation_mode = config.settings.writing_validation_mode, config.IGNORE
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        config.settings.writing_validation_mode = mode


def as_bytes(made: Dataset, preamble: bytes = bytes(128)) -> bytes:
    """The file, whatever its values are."""
    buffer = io.BytesIO()
    made.preamble = preamble
    with any_values():
        dcmwrite(buffer, made, enforce_file_format=True)
    return buffer.getvalue()


def plant_everywhere(made: Dataset, canaries: Canaries, without: tuple[str, ...] = ()) -> None:
    """Adds an element with a canary for every tag of table E.1-1 and of the data dictionary, nested and private ones too.

    without: VRs, of elements by which files belong together.
    """
    for tag in sorted(set(tables.profile()) | set(DicomDictionary)):
        if tag in STRUCTURE or tag >> 16 in (0x0000, 0x0002) or tag & 0xFFFF == 0:
            continue
        vr = (known_vr(tag) or ("LO",))[0]
        is_listed = tag in tables.profile()
        if vr in without:
            continue
        if tag in made and tag not in (0x00080018, 0x00100010, 0x00100020, 0x0020000D, 0x0020000E):
            continue
        if vr == "SQ":
            made.add(DataElement(tag, "SQ", [nested(canaries) if tag % 5 == 0 else small_item(canaries)]))
        elif (vr in ("DS", "IS", "AS", "TM") or vr not in (*TEXT, *BYTES, "PN", "UI", "DA", "DT")) and not is_listed:
            continue  # numbers that describe images are kept
        elif (value := canaries.value(vr)) is not None:
            made.add(DataElement(tag, vr.split(" or ")[0], value))
    inside = Dataset()
    inside.add(DataElement(0x7FE00010, "OB", canaries.text().encode() + b"\0"))
    inside.add(DataElement(0x00283006, "OW", canaries.text().encode() + b"\0"))
    inside.add(DataElement(0x00283002, "US", [64, 0, 16]))
    made.add(DataElement(0x00283010, "SQ", [inside]))
    made.add(DataElement(0x7FE00001, "OV", canaries.text().encode() + bytes(5)))
    for group, creator in enumerate(("", "ACME 1.1", "SIEMENS CSA HEADER", "Philips MR Imaging DD 001", "GEMS_PARM_01"), 0x0015):
        plant_private(made, 0x0009 + 2 * (group - 0x0015), creator, canaries)
    for group in (0x0019, 0x0021, 0x0029, 0x0043, 0x2001, 0x2005):
        for creator in {one for one, at, _ in tables.private_rows() if at == group and "DRIFTLINE" not in one}:
            plant_private(made, group, creator, canaries)
    for group in (0x5000, 0x6000, 0x6002):
        made.add(DataElement((group << 16) + 0x0022, "LO", canaries.text()))
        made.add(DataElement((group << 16) + 0x3000, "OB", canaries.text().encode() + b"\0"))


def small_item(canaries: Canaries) -> Dataset:
    item = Dataset()
    item.OperatorsName, item.ScanOptions = canaries.text(), [canaries.text(), canaries.text()]
    return item


def nested(canaries: Canaries) -> Dataset:
    """An item of a sequence with canaries, in it a code, another sequence and a private element."""
    item = Dataset()
    item.PatientComments, item.ReferencedSOPInstanceUID = canaries.text(), canaries.value("UI")
    item.CodeMeaning, item.SeriesDate, item.BodyPartExamined = canaries.text(), canaries.value("DA"), canaries.text()
    inner = Dataset()
    inner.CodeValue, inner.CodingSchemeDesignator, inner.CodeMeaning = canaries.text(), canaries.text(), canaries.text()
    item.DerivationCodeSequence, item.PixelMeasuresSequence = [inner], [small_item(canaries)]
    plant_private(item, 0x0019, canaries.text(), canaries, places=3)
    return item


def plant_private(made: Dataset, group: int, creator: str, canaries: Canaries, places: int = 0xC0) -> None:
    """A private block with canaries in all of its elements, as text, bytes and a sequence; without a creator if that is empty."""
    if creator:
        block = made.private_block(group, creator, create=True)
        base = (group << 16) + (block.block_start & 0xFF00)
    else:
        base = (group << 16) + 0x4100
    for place in range(1, places):
        vr = ("LO", "UN", "CS", "OB", "UT")[place % 5]
        value = canaries.value(vr)
        made.add(DataElement(base + place, vr, value))
    item = Dataset()
    item.PatientID = canaries.text()
    made.add(DataElement(base + 0xF0, "SQ", [item]))


def csa_header(tags: dict[str, list[str]]) -> bytes:
    """A Siemens CSA2 header: name, number of values, VR, and items of text."""
    parts = [b"SV10\4\3\2\1", struct.pack("<2I", len(tags), 77)]
    for name, items in tags.items():
        parts.append(
            struct.pack(
                "<64si4siii", name.encode(), len(items), b"LO\0\0" if "CANARY" in items[0] else b"FD\0\0", 4, len(items), 77
            )
        )
        for item in items:
            text = item.encode() + b"\0"
            parts.append(struct.pack("<4i", len(text), len(text), 77, len(text)) + text + bytes(-len(text) % 4))
    return b"".join(parts)


def secondary_capture(canaries: Canaries) -> Dataset:
    """A JPEG in colour with a comment, EXIF data and bytes behind its end, of a file that states that no text is burned in."""
    from PIL import Image

    picture = io.BytesIO()
    rng = np.random.default_rng(1)
    exif = Image.Exif()
    exif[0x010E] = canaries.text()
    Image.fromarray(rng.integers(0, 255, (16, 16, 3), np.uint8)).save(picture, "JPEG", comment=canaries.text(), exif=exif)
    made = image(16, 16, patient=canaries.text(), instance="1.2.3.77")
    made.SOPClassUID, made.Modality, made.BurnedInAnnotation = SecondaryCaptureImageStorage, "OT", "NO"
    made.SamplesPerPixel, made.PhotometricInterpretation, made.PlanarConfiguration = 3, "YBR_FULL_422", 0
    made.BitsAllocated, made.BitsStored, made.HighBit = 8, 8, 7
    made.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    made.PixelData = encapsulate([picture.getvalue() + canaries.text().encode()])
    made["PixelData"].VR, made["PixelData"].is_undefined_length = "OB", True
    return made


def plant_around(made: Dataset, canaries: Canaries) -> None:
    """Canaries in the file meta information, behind the pixels, in an icon and as an embedded document."""
    meta = made.file_meta
    meta.SourceApplicationEntityTitle = meta.SendingApplicationEntityTitle = canaries.text()
    meta.ImplementationVersionName, meta.ReceivingApplicationEntityTitle = canaries.text(), canaries.text()
    meta.PrivateInformationCreatorUID, meta.PrivateInformation = canaries.value("UI"), canaries.text().encode()
    behind = canaries.text().encode() + b"\0"
    while is_more_image(made, behind):  # of whole rows, it would be refused
        behind += b"\0"
    made["PixelData"].value += behind
    icon = Dataset()
    icon.Rows, icon.Columns, icon.PatientComments = 4, 3, canaries.text()
    icon.add(DataElement(0x7FE00010, "OB", canaries.text().encode() + b"\0"))
    made.add(DataElement(0x00880200, "SQ", [icon]))
    made.add(DataElement(0x00420011, "OB", b"%PDF-1.4 " + canaries.text().encode() + b"\0" * 2))


def others_beside(folder: Path, canaries: Canaries) -> None:
    """Files that are refused, or no images, with canaries in names and content: a DICOMDIR, a report, a PDF, damaged ones."""
    whole = as_bytes(image(patient=canaries.text(), instance="1.2.3.70"))
    (folder / f"cut {canaries.text()}.dcm").write_bytes(whole[:-40])
    for number, sop_class in enumerate(
        ("1.2.840.10008.5.1.4.1.1.88.11", "1.2.840.10008.5.1.4.1.1.104.1", "1.2.840.10008.1.3.10")
    ):
        other = image(patient=canaries.text(), instance=f"1.2.3.7{number + 1}")
        other.SOPClassUID = sop_class
        record = small_item(canaries)
        record.PatientName, record.ReferencedFileID = canaries.text(), [canaries.text(), canaries.text()]
        other.add(DataElement(0x00041220, "SQ", [record]))
        other.add(DataElement(0x00420011, "OB", canaries.text().encode() + b"\0"))
        name = "DICOMDIR" if sop_class.endswith(".1.3.10") else f"other {canaries.text()}.dcm"
        (folder / name).write_bytes(as_bytes(other))
    (folder / f"{canaries.text()}.txt").write_text(canaries.text())
