"""Elements that files of a series have in common are cleaned once: the same tag, VR and bytes become the same again.

That holds within a `Form`: the rules, the patient, and what else of a file decides what becomes of an element. Elements that
depend on others of their file (pixels, lookup tables, ambiguous VRs, private ones that may be kept) are cleaned in every file.
What repeats is passed on as bytes, as pydicom encodes it, so that it is not encoded again either.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING

from pipelines.privacy.clean import LOOKUP_TABLES, PIXELS, Cleaning, clean_dataset, clean_element, known_vr
from pipelines.privacy.csa import is_image_header
from pipelines.privacy.private import creator_of, row_of
from pipelines.privacy.settings import PrivacySettings

if TYPE_CHECKING:
    from pydicom.dataelem import DataElement, RawDataElement
    from pydicom.dataset import Dataset
    from pydicom.tag import BaseTag

MOST_BYTES, MOST_ELEMENTS, MOST_FORMS = 4096, 20_000, 8  # of a value, of a form, at once
PRIVATE = 0x00010001  # stands for all private elements that are never kept
APART = frozenset((*PIXELS, *LOOKUP_TABLES, 0x00080005))
Key = tuple[int, str | None, bytes | None]
Done = tuple[tuple[tuple[str, str, str], int], ...]


@dataclass(frozen=True)
class Form:
    """What an element becomes depends on its tag, VR and bytes, and on this."""

    settings: PrivacySettings
    patient: str
    is_enhanced: bool
    is_implicit: bool
    charset: str
    signed: str  # (0028,0103), which decides the VR of numbers in implicit files


@dataclass(frozen=True)
class Outcome:
    """What was done with an element, and what is written in its place; None if it is removed."""

    done: Done
    written: Written | None
    keeps_private: bool


@dataclass(frozen=True)
class Written:
    """An element as pydicom encodes it, little endian: its value as of a file that was read, and all of its bytes."""

    element: RawDataElement
    content: bytes


@lru_cache(maxsize=MOST_FORMS)
def outcomes_of(form: Form) -> dict[Key, Outcome]:
    """The elements of a form that were cleaned so far, by this process."""
    return {}


def clean_file(source: Dataset, cleaning: Cleaning) -> Dataset:
    """As `clean_dataset`, of a whole file. What repeats is written as it is, unless the transfer syntax changes."""
    from pydicom.charset import convert_encodings, default_encoding
    from pydicom.dataset import Dataset

    is_implicit, is_little_endian = source.original_encoding
    if not is_little_endian:
        return clean_dataset(source, cleaning)
    facts = str(source.original_character_set), str(source.get("PixelRepresentation"))
    form = Form(cleaning.settings, cleaning.patient, cleaning.is_enhanced, bool(is_implicit), *facts)
    outcomes, others = outcomes_of(form), []
    kept: dict[BaseTag, DataElement | RawDataElement] = {}
    blocks: dict[int, str] = {}
    for tag, item in source.items():
        key = _key(source, int(tag), item, blocks)
        if key is None:
            others.append(tag)
            continue
        outcome = outcomes.get(key)
        if outcome is None:
            if len(outcomes) >= MOST_ELEMENTS:
                outcomes.clear()
            outcome = outcomes[key] = _clean_once(source, tag, cleaning, bool(is_implicit))
        for what, count in outcome.done:
            cleaning.done[what] += count
        cleaning.keeps_private |= outcome.keeps_private
        if outcome.written is not None:
            kept[tag], cleaning.written[int(tag)] = outcome.written.element, outcome.written.content
    cleaned = Dataset(kept)
    for tag in sorted(others, key=int):
        clean_element(source, cleaned, tag, cleaning, "")
    charset = cleaned.get("SpecificCharacterSet")
    cleaned.set_original_encoding(is_implicit, True, convert_encodings(charset) if charset else default_encoding)
    return cleaned


def _key(source: Dataset, tag: int, item: DataElement | RawDataElement, blocks: dict[int, str]) -> Key | None:
    """What decides what becomes of an element, within a form; None if other elements of its file do, too.

    `blocks`: block of private elements -> its creator, of those that were looked up in this file.
    """
    from pydicom.dataelem import RawDataElement

    if not isinstance(item, RawDataElement):
        return None
    if tag & 0x10000:
        block = tag >> 8
        if block not in blocks:
            blocks[block] = creator_of(source, tag)
        is_kept = row_of(blocks[block], tag) or is_image_header(blocks[block], tag)
        return None if is_kept else (PRIVATE, item.VR, None)
    is_apart = tag in APART or item.length > MOST_BYTES or len(known_vr(tag) or "1") > 1
    return None if is_apart else (tag, item.VR, item.value)


def _clean_once(source: Dataset, tag: BaseTag, cleaning: Cleaning, is_implicit: bool) -> Outcome:
    from pydicom.dataset import Dataset

    alone, cleaned = replace(cleaning, done=Counter(), keeps_private=False), Dataset()
    clean_element(source, cleaned, tag, alone, "")
    elements = [encode(element, is_implicit) for element in cleaned]
    return Outcome(tuple(alone.done.items()), elements[0] if elements else None, alone.keeps_private)


def encode(element: DataElement, is_implicit: bool) -> Written:
    """An element as it is written. Its text must be ASCII."""
    from pydicom.dataelem import RawDataElement
    from pydicom.filebase import DicomBytesIO
    from pydicom.filewriter import write_data_element
    from pydicom.valuerep import EXPLICIT_VR_LENGTH_32

    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, is_implicit
    write_data_element(buffer, element)
    content = buffer.getvalue()
    value = content[12 if not is_implicit and element.VR in EXPLICIT_VR_LENGTH_32 else 8 :]
    return Written(RawDataElement(element.tag, element.VR, len(value), value, 0, is_implicit, True), content)
