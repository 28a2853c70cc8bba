"""One DICOM file in, one de-identified file out, in memory. What is unexpected refuses the file; no message quotes a value."""

from __future__ import annotations

import io
import logging
import struct
import warnings
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from pipelines.errors import RequestError
from pipelines.privacy import pixels
from pipelines.privacy.clean import CHARACTERISTICS, Cleaning, code_item
from pipelines.privacy.kinds import state_kinds
from pipelines.privacy.objects import kind_of_object
from pipelines.privacy.repeated import Written, clean_file, encode
from pipelines.privacy.settings import PrivacyRefusal, PrivacySettings
from pipelines.privacy.tables import EDITION

if TYPE_CHECKING:
    from pydicom.dataset import Dataset, FileMetaDataset

PREAMBLE_BYTES = 128
PIXEL_DATA = 0x7FE00010
STORAGE = "1.2.840.10008.5.1.4.1.1."
IMAGES = {  # SOP classes of images, below STORAGE (PS3.4 B.5); slides are not among them: their label is photographed
    "1", "1.1", "1.1.1", "1.2", "1.2.1", "1.3", "1.3.1", "2", "2.1", "2.2", "3", "3.1", "4", "4.1", "4.3", "4.4", "5", "6",
    "6.1", "6.2", "7", "7.1", "7.2", "7.3", "7.4", "12.1", "12.1.1", "12.2", "12.2.1", "13.1.1", "13.1.2", "13.1.3", "13.1.4",
    "13.1.5", "14.1", "14.2", "20", "30", "66.4", "66.7", "77.1.1", "77.1.2", "77.1.4", "77.1.5.1", "77.1.5.2", "77.1.5.4",
    "128", "128.1", "130", "481.2",
}  # fmt: skip
DIRECTORY = "1.2.840.10008.1.3.10"
SYNTAX = "1.2.840.10008.1.2"
SYNTAXES = {  # below SYNTAX: uncompressed, deflated, RLE, JPEG, JPEG-LS, JPEG 2000 and HTJ2K; no MPEG, nothing private
    "", ".1", ".1.99", ".2", ".5", ".4.50", ".4.51", ".4.57", ".4.70", ".4.80", ".4.81", ".4.90", ".4.91", ".4.201", ".4.202",
    ".4.203",
}  # fmt: skip
METHODS = {
    "113100": "Basic Application Confidentiality Profile",
    "113101": "Clean Pixel Data Option",
    "113107": "Retain Longitudinal Temporal Information Modified Dates Option",
    "113108": "Retain Patient Characteristics Option",
    "113111": "Retain Safe Private Option",
}
EXPLICIT, DEFLATED = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.1.99"
META_BYTES, MOST_INFLATED_BYTES = 4096, 2 << 30
UNDEFINED_LENGTH, END_MARK_BYTES = 0xFFFFFFFF, 8
CUT_OFF = ("end of file", "eof", "unexpected end", "truncat")


@dataclass(frozen=True)
class CleanFile:
    """A de-identified file, its name below the target, and what was done: (path of tags, VR, action) -> count."""

    parts: tuple[bytes, ...]  # one after the other
    name: str  # PSEUDONYM/SERIES/INSTANCE.dcm
    done: Counter[tuple[str, str, str]]
    claimed: bool  # the original already said that the identity was removed

    @property
    def content(self) -> bytes:
        return b"".join(self.parts)


def require_pydicom() -> None:
    """Raises RequestError that names the extra, if pydicom is not installed."""
    try:
        import pydicom  # noqa: F401
    except ModuleNotFoundError as e:
        raise RequestError("DICOM needs pydicom: install the extra, `pip install 'driftline[medical]'`") from e


def is_dicom(head: bytes) -> bool:
    """Whether a file that begins with these bytes is a DICOM file (PS3.10 7.1)."""
    return head[PREAMBLE_BYTES : PREAMBLE_BYTES + 4] == b"DICM"


def is_without_preamble(head: bytes) -> bool:
    """Whether a file begins as a DICOM data set or as file meta information does: `DICM`, or the first group."""
    first = head[:2] in (b"\x02\x00", b"\x08\x00") and head[3:4] == b"\0"
    return head[:4] == b"DICM" or (first and (head[4:6] in (b"UI", b"UL", b"CS", b"DA") or head[6:8] == b"\0\0"))


def deidentify_bytes(data: bytes, file_id: str, settings: PrivacySettings) -> CleanFile:
    """The de-identified form of a DICOM file's bytes.

    Raises PrivacyRefusal with `file_id`, for files that are no images, that may show text, that are cut off, and for everything
    unexpected.
    """
    try:
        with quiet_pydicom():
            return _deidentify(data, file_id, settings)
    except PrivacyRefusal:
        raise
    except Exception as e:  # pydicom's messages quote values; the name of the class does not
        raise PrivacyRefusal(file_id, "unexpected", f"{type(e).__name__} while it was read; it is not passed on") from None


def _deidentify(data: bytes, file_id: str, settings: PrivacySettings) -> CleanFile:
    source = _read(data, file_id)
    sop_class, syntax = _require_image(source, file_id)
    patient = str(source.get("PatientID", "") or "").strip(" \0") or str(source.get("StudyInstanceUID", "") or "")
    if not patient or not source.get("SOPInstanceUID"):
        raise PrivacyRefusal(file_id, "unreadable", "patient ID and study, or the UID of the instance are missing")
    cleaning = Cleaning(settings, file_id, patient, is_enhanced="SharedFunctionalGroupsSequence" in source)
    masks = pixels.masks_of(source, settings)
    pixels.check_burned_in(source, masks, cleaning)
    cleaned = clean_file(source, cleaning)
    syntax = EXPLICIT if syntax == DEFLATED else syntax  # which no reader of single frames unpacks
    cleaned.file_meta = _new_meta(sop_class, str(cleaned.SOPInstanceUID), syntax)
    pixels.clean_pixels(source, cleaned, cleaning)
    if masks:
        pixels.apply_masks(cleaned, masks, cleaning)
    if settings.ocr:
        pixels.check_ocr(cleaned, cleaning)
    state_kinds(source, cleaned, settings.key)
    _state_methods(cleaned, cleaning, is_masked=bool(masks))
    key = settings.key
    series = key.name("series", str(source.get("SeriesInstanceUID", "") or ""))
    instance = key.name("instance", str(source.SOPInstanceUID))
    claimed = str(source.get("PatientIdentityRemoved", "") or "").upper() == "YES"
    return CleanFile(_encoded(cleaned, cleaning), f"{cleaning.pseudonym}/{series}/{instance}.dcm", cleaning.done, claimed)


def _read(data: bytes, file_id: str) -> Dataset:
    from pydicom import dcmread

    if DEFLATED.encode() in data[PREAMBLE_BYTES:][:META_BYTES] and _inflates_beyond(data):
        raise PrivacyRefusal(file_id, "too-large", f"it unpacks to more than {MOST_INFLATED_BYTES >> 30} GiB")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        source = dcmread(io.BytesIO(data))
    warned = any(sign in str(one.message).lower() for one in caught for sign in CUT_OFF)
    if warned or _ends_within_an_element(source, len(data)):
        raise PrivacyRefusal(file_id, "truncated", "the file ends within an element, or something else follows its end")
    return source


def _inflates_beyond(data: bytes) -> bool:
    """Whether a deflated data set unpacks to more than the memory should hold; its size is stated nowhere."""
    (length,) = struct.unpack_from("<I", data, PREAMBLE_BYTES + 12)  # of the file meta information, after its own element
    stream = zlib.decompressobj(-zlib.MAX_WBITS)
    stream.decompress(data[PREAMBLE_BYTES + 16 + length :], MOST_INFLATED_BYTES)
    return bool(stream.unconsumed_tail)


def _ends_within_an_element(source: Dataset, size: int) -> bool:
    """Whether the last element is longer than the file, which pydicom does not say; of compressed pixels the end mark counts."""
    from pydicom.dataelem import RawDataElement

    last = source.get_item(max(source.keys(), key=int)) if len(source) else None
    if not isinstance(last, RawDataElement) or source.file_meta.get("TransferSyntaxUID", "") == DEFLATED:
        return False  # a deflated stream that is cut off does not unpack
    if last.length == UNDEFINED_LENGTH:
        return last.value_tell + len(last.value or b"") + END_MARK_BYTES > size
    return last.value_tell + last.length > size


def _require_image(source: Dataset, file_id: str) -> tuple[str, str]:
    """(SOP class, transfer syntax) of an image of a known kind. Raises PrivacyRefusal for all others."""
    from pydicom._uid_dict import UID_dictionary

    sop_class = str(source.get("SOPClassUID", "") or source.file_meta.get("MediaStorageSOPClassUID", "") or "")
    if sop_class == DIRECTORY:
        raise PrivacyRefusal(file_id, "directory", "a DICOMDIR holds names; the files are read without it")
    if not sop_class.startswith(STORAGE) or sop_class.removeprefix(STORAGE) not in IMAGES:
        known = UID_dictionary.get(sop_class, ("a private or unknown SOP class",))[0]
        kind = kind_of_object(sop_class)
        remedy = f"; {kind[1]}" if kind else ""
        detail = f"{known}: only images are passed on, reports and documents hold free text{remedy}"
        raise PrivacyRefusal(file_id, "no-image", detail)
    syntax = str(source.file_meta.get("TransferSyntaxUID", "") or "")
    if not syntax.startswith(SYNTAX) or syntax.removeprefix(SYNTAX) not in SYNTAXES:
        known = UID_dictionary.get(syntax, ("a private or unknown transfer syntax",))[0]
        raise PrivacyRefusal(
            file_id, "no-image", f"{known}: text in such streams cannot be found; store it as JPEG or uncompressed"
        )
    return sop_class, syntax


def _new_meta(sop_class: str, instance: str, syntax: str) -> FileMetaDataset:
    """The file meta information, nothing of which comes from the original but class and syntax."""
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import UID

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = UID(sop_class), UID(instance)
    meta.TransferSyntaxUID = UID(syntax)
    return meta


def _state_methods(cleaned: Dataset, cleaning: Cleaning, *, is_masked: bool) -> None:
    """(0012,0062) to (0012,0064) and (0028,0303): that the identity is removed, by what, and that dates are modified."""
    settings = cleaning.settings
    used = ["113100", "113107"]
    used += ["113101"] if is_masked else []
    used += ["113108"] if any(CHARACTERISTICS[name] in cleaned for name in settings.keep) else []
    used += ["113111"] if cleaning.keeps_private else []
    is_clear = is_masked or settings.burned_in == "checked"
    for stated in _statements(cleaning.pseudonym, tuple(sorted(used)), is_clear, bool(cleaned.original_encoding[0])):
        tag = stated.element.tag
        cleaned[tag], cleaning.written[int(tag)] = stated.element, stated.content


@lru_cache(maxsize=64)
def _statements(pseudonym: str, used: tuple[str, ...], is_clear: bool, is_implicit: bool) -> tuple[Written, ...]:
    from pydicom.dataset import Dataset

    stated = Dataset()
    stated.PatientID = stated.PatientName = pseudonym  # also where there was none
    stated.PatientIdentityRemoved = "YES"
    stated.DeidentificationMethod = f"driftline: PS3.15 {EDITION} E.1-1, dates moved by days"
    stated.DeidentificationMethodCodeSequence = [code_item(code, "DCM", METHODS[code]) for code in used]
    stated.LongitudinalTemporalInformationModified = "MODIFIED"
    if is_clear:
        stated.BurnedInAnnotation = "NO"
    return tuple(encode(element, is_implicit) for element in stated)


def _encoded(cleaned: Dataset, cleaning: Cleaning) -> tuple[bytes, ...]:
    """The parts of the file, one after the other. Elements that are as `cleaning.written` has them are not encoded again."""
    from pydicom import dcmwrite
    from pydicom.filebase import DicomBytesIO
    from pydicom.filewriter import write_data_element

    syntax, buffer = cleaned.file_meta.TransferSyntaxUID, DicomBytesIO()
    if syntax.is_deflated or cleaned.original_encoding != (syntax.is_implicit_VR, True):
        dcmwrite(buffer, cleaned, enforce_file_format=True)
        return (buffer.getvalue(),)
    buffer.is_little_endian, buffer.is_implicit_VR = True, syntax.is_implicit_VR
    buffer.write(_head(cleaned.file_meta))
    if syntax.is_compressed:
        cleaned["PixelData"].is_undefined_length = True
    charset, pixel_data = cleaned.get("SpecificCharacterSet"), b""
    for tag, element in sorted((int(tag), element) for tag, element in cleaned.items()):
        if element.is_raw and tag in cleaning.written:
            buffer.write(cleaning.written[tag])
        elif tag == PIXEL_DATA and not syntax.is_compressed:  # written from where it lies
            pixel_data = bytes(element.value or b"")
            head = b"" if syntax.is_implicit_VR else str(element.VR).encode() + bytes(2)
            buffer.write(struct.pack("<HH", tag >> 16, tag & 0xFFFF) + head + struct.pack("<I", len(pixel_data)))
        else:
            write_data_element(buffer, element, charset)
    return buffer.getvalue(), pixel_data


def _head(meta: FileMetaDataset) -> bytes:
    """Preamble and file meta information."""
    instance = str(meta.MediaStorageSOPInstanceUID)
    before, after = _head_around(str(meta.MediaStorageSOPClassUID), str(meta.TransferSyntaxUID), len(instance))
    return before + instance.encode("ascii") + after


@lru_cache(maxsize=64)
def _head_around(sop_class: str, syntax: str, length: int) -> tuple[bytes, bytes]:
    """What stands before and after a UID of the instance that has this length."""
    from pydicom.dataset import validate_file_meta
    from pydicom.filebase import DicomBytesIO
    from pydicom.filewriter import write_file_meta_info

    buffer, instance = DicomBytesIO(), "9" * length
    meta = _new_meta(sop_class, instance, syntax)
    validate_file_meta(meta, enforce_standard=True)
    write_file_meta_info(buffer, meta, enforce_standard=True)
    before, after = buffer.getvalue().split(instance.encode())
    return bytes(PREAMBLE_BYTES) + b"DICM" + before, after


@contextmanager
def quiet_pydicom() -> Iterator[None]:
    """Nothing that pydicom warns or logs is shown: it quotes values. Values of a wrong form do not raise, we check them."""
    from pydicom import config

    log, settings = logging.getLogger("pydicom"), config.settings
    before = log.disabled, settings.reading_validation_mode, settings.writing_validation_mode
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        log.disabled, settings.reading_validation_mode, settings.writing_validation_mode = True, config.IGNORE, config.IGNORE
        try:
            yield
        finally:
            log.disabled, settings.reading_validation_mode, settings.writing_validation_mode = before
