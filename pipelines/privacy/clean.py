"""A data set built anew from what is known to be safe: by the table of the profile, then by closed lists; no rest."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import TYPE_CHECKING

from pipelines.privacy import tables, values
from pipelines.privacy.csa import csa_elements
from pipelines.privacy.private import private_value
from pipelines.privacy.settings import PrivacyRefusal, PrivacySettings

if TYPE_CHECKING:
    from pydicom.dataelem import DataElement
    from pydicom.dataset import Dataset
    from pydicom.tag import BaseTag

DATES = ("DA", "DT", "TM")
KNOWN_VRS = {
    *values.DUMMIES,
    "AT",
    "FL",
    "FD",
    "OB",
    "OD",
    "OF",
    "OL",
    "OV",
    "OW",
    "SL",
    "SQ",
    "SS",
    "SV",
    "UI",
    "UL",
    "US",
    "UV",
}
BINARY_NUMBERS = ("US", "SS", "UL", "SL", "UV", "SV", "FL", "FD")
TEXT_NUMBERS = ("DS", "IS")
PATIENT_NAME, PATIENT_ID = 0x00100010, 0x00100020
CHARACTERISTICS = {"sex": 0x00100040, "age": 0x00101010, "size": 0x00101020, "weight": 0x00101030}
# groups whose numbers and sequences describe images: the image, acquisition, relations, samples, isotopes, segments, doses,
# functional groups; of group 0040 only the mapping to real-world values
IMAGING_GROUPS = (0x0008, 0x0018, 0x0020, 0x0022, 0x0028, 0x0048, 0x0054, 0x0062, 0x3004, 0x5200)
REAL_WORLD_VALUES = (0x004008EA, 0x00409096, 0x00409211, 0x00409212, 0x00409213, 0x00409214, 0x00409216, 0x00409224, 0x00409225)
# type 1 in IODs of images, and free text; in none of them does the value matter for the image
FIXED_TEXT = {
    0x00081090: "UNKNOWN",  # Manufacturer's Model Name
    0x00181020: "UNKNOWN",  # Software Versions
    0x00189004: "RESEARCH",  # Content Qualification
    0x00409210: "UNKNOWN",  # LUT Label
    0x00620005: "SEGMENT",  # Segment Label
    0x00620009: "UNKNOWN",  # Segment Algorithm Name
}
MANUFACTURER, RESCALE_TYPE, STACK_ID, CODE_VALUE = 0x00080070, 0x00281054, 0x00209056, 0x00080100
MAKERS = (
    "SIEMENS", "GE MEDICAL SYSTEMS", "GE HEALTHCARE", "PHILIPS", "TOSHIBA", "CANON", "HITACHI", "FUJIFILM", "BRUKER", "HOLOGIC",
    "UNITED IMAGING", "SAMSUNG", "SONOSITE", "MINDRAY", "ESAOTE", "AGFA", "KODAK", "CARESTREAM", "ELSCINT", "MARCONI", "PICKER",
    "ACUSON",
)  # fmt: skip
PIXELS = (0x7FE00008, 0x7FE00009, 0x7FE00010, 0x7FE00001, 0x7FE00002)
LOOKUP_TABLES = {0x00281201: 0x00281101, 0x00281202: 0x00281102, 0x00281203: 0x00281103, 0x00283006: 0x00283002}  # -> descriptor
SHORT_CODE = re.compile(r"\d{0,2}|0[0-9A-F]{3}")  # e.g. of lossy compression, and the modes of ultrasound
SHORT_NUMBER = re.compile(r"\d{1,6}")


@dataclass
class Cleaning:
    """What is the same for all elements of a file, and the count of what was done."""

    settings: PrivacySettings
    file_id: str
    patient: str  # whatever identifies the patient: the patient ID, else the study
    is_enhanced: bool
    done: Counter[tuple[str, str, str]] = field(default_factory=Counter)  # (path of tags, VR, action)
    keeps_private: bool = False
    written: dict[int, bytes] = field(default_factory=dict)  # tag -> how an element of the new data set is written, if known

    @cached_property
    def days(self) -> int:
        return self.settings.key.shift_days(self.patient, self.settings.shift_days)

    @cached_property
    def pseudonym(self) -> str:
        return self.settings.key.pseudonym(self.patient)

    def refuse(self, reason: str, detail: str) -> PrivacyRefusal:
        return PrivacyRefusal(self.file_id, reason, detail)


def clean_dataset(source: Dataset, cleaning: Cleaning, path: str = "") -> Dataset:
    """A new data set, or item of a sequence, with the elements of `source` that may be kept, replaced where the profile says so.

    Counts what was done in `cleaning.done`. Raises PrivacyRefusal if a number that would be kept cannot be read. Pixel data are
    taken over as they are (see `pixels`).
    """
    from pydicom.dataset import Dataset

    cleaned = Dataset()
    for tag in sorted(source.keys(), key=int):
        clean_element(source, cleaned, tag, cleaning, path)
    return cleaned


def clean_element(source: Dataset, cleaned: Dataset, tag: BaseTag, cleaning: Cleaning, path: str) -> None:
    """Adds to `cleaned` what is kept of one element of `source`, and counts what was done."""
    place = path + _shown(tag)
    element = None
    if tag.is_private:
        action = _clean_private(source, cleaned, int(tag), cleaning)
    elif int(tag) & 0xFFFF == 0 or tag.group in (0x0000, 0x0002, 0x0004) or tables.is_repeating(tag):
        action = "removed"
    else:
        action, element = _clean_standard(source, int(tag), cleaning, place)
    if element is not None:
        cleaned.add(element)
    cleaning.done[place, declared_vr(source, int(tag)), action] += 1


def _shown(tag: BaseTag) -> str:
    """How a tag is recorded: those of private and of unknown elements are not, since a damaged file has text in their place."""
    return "private" if tag.is_private else f"{tag:08x}" if known_vr(int(tag)) or int(tag) in tables.profile() else "unknown"


def declared_vr(source: Dataset, tag: int) -> str:
    vr = str(source.get_item(tag).VR or "UN")
    return vr if vr in KNOWN_VRS else "UN"


def _clean_private(source: Dataset, cleaned: Dataset, tag: int, cleaning: Cleaning) -> str:
    """Adds what is kept of a private element to `cleaned`, in the same block; the action."""
    kept = private_value(source, tag)
    group = tag >> 16
    if kept is not None:
        creator, vr, value = kept
        cleaned.private_block(group, creator, create=True).add_new(tag & 0xFF, vr, value)
    numbers = {} if kept is not None else csa_elements(source, tag)
    for place, value in numbers.items():
        cleaned.private_block(0x0029, "DRIFTLINE CSA", create=True).add_new(place, "FD", value)
    cleaning.keeps_private |= kept is not None or bool(numbers)
    return "numbers kept" if numbers else "kept" if kept is not None else "removed"


def _clean_standard(source: Dataset, tag: int, cleaning: Cleaning, place: str) -> tuple[str, DataElement | None]:
    """(action, the element of the new data set or None) for one standard element."""
    from pydicom.dataelem import DataElement

    vr = known_vr(tag)
    row = tables.profile().get(tag)
    declared = declared_vr(source, tag)
    if vr is not None and declared not in (*vr, "UN") and row is None:
        return "removed", None  # what says that it is something else is not what the dictionary describes
    if row is not None:
        action, value, of_vr = _by_profile(source, row, tag, vr[0] if vr else declared, cleaning, place)
    elif vr is None:
        return "removed", None
    else:
        action, value, of_vr = _by_lists(source, tag, vr, cleaning, place)
    return action, None if value is None else DataElement(tag, of_vr, value)


@cache
def known_vr(tag: int) -> tuple[str, ...] | None:
    """The VRs that the data dictionary has for a tag; None for an unknown one."""
    from pydicom.datadict import dictionary_VR

    try:
        return tuple(dictionary_VR(tag).split(" or "))
    except KeyError:
        return None


def read(source: Dataset, tag: int, cleaning: Cleaning) -> DataElement:
    """The element, decoded. Raises PrivacyRefusal if it cannot be; pydicom's own message would quote the value."""
    try:
        return source[tag]
    except Exception:
        raise cleaning.refuse("unreadable", f"element ({tag >> 16:04x},{tag & 0xFFFF:04x}) is damaged") from None


def texts(element: DataElement) -> list[str]:
    """The values of an element of text, as they are written in the file."""
    value = element.value
    several = value if isinstance(value, (list, tuple)) or type(value).__name__ == "MultiValue" else [value]
    return [str(getattr(one, "original_string", one)) for one in several if one is not None]


# ---------------------------------------------------------------- the table of the profile


def _by_profile(
    source: Dataset, row: tables.Row, tag: int, vr: str, cleaning: Cleaning, place: str
) -> tuple[str, object | None, str]:
    """(action, new value or None, its VR) of an element that is in table E.1-1."""
    if tag in (PATIENT_ID, PATIENT_NAME):
        return "pseudonym", cleaning.pseudonym, vr
    if tag in (CHARACTERISTICS[name] for name in cleaning.settings.keep):
        value = _characteristic(read(source, tag, cleaning))
        return ("removed", None, vr) if value is None else ("kept", value, vr)
    if row.shifts_dates and vr in DATES:
        moved = [values.shift(vr, text, cleaning.days) for text in texts(read(source, tag, cleaning))]
        if moved and all(moved):
            return ("kept" if vr == "TM" else "shifted"), moved, vr
    if row.basic == "X/Z/U*":
        return _by_sequence(source, tag, cleaning, place)
    if row.basic == "U":
        return _by_uid(source, tag, cleaning) if vr == "UI" else ("removed", None, vr)
    is_empty = not source.get_item(tag).value if vr != "SQ" else True
    match row.basic:
        case "Z" | "X/Z":
            return "emptied", [] if vr == "SQ" else "", vr
        case "D" | "X/D" | "Z/D" if vr in values.DUMMIES:
            return ("emptied", "", vr) if is_empty else ("dummy", values.DUMMIES[vr], vr)
        case "X/Z/D" if vr in values.DUMMIES and cleaning.is_enhanced and not is_empty:
            return "dummy", values.DUMMIES[vr], vr
        case "X/Z/D" | "Z/D" | "D" if vr in (*values.DUMMIES, "SQ"):
            return "emptied", [] if vr == "SQ" else "", vr
    return "removed", None, vr


def _characteristic(element: DataElement) -> object | None:
    """Sex, age, size or weight of the patient, in the form of its VR; None if it has another."""
    (text,) = texts(element)[:1] or [""]
    if element.VR == "CS":
        return text if text in ("M", "F", "O") else None
    if element.VR == "AS":
        return values.capped_age(text)
    return text if values.is_number(text) else None


# ---------------------------------------------------------------- what the table does not name


def _by_lists(source: Dataset, tag: int, vrs: tuple[str, ...], cleaning: Cleaning, place: str) -> tuple[str, object | None, str]:
    """(action, new value or None, its VR) of a standard element that is not in table E.1-1. What no list names is removed."""
    vr = vrs[0]
    removed = ("removed", None, vr)
    is_imaging = tag >> 16 in IMAGING_GROUPS or tag in REAL_WORLD_VALUES
    if tag in FIXED_TEXT:
        return "dummy", FIXED_TEXT[tag], vr
    if tag in PIXELS and "/" in place:  # of an icon or a reference; what is kept of pixels are those of the image
        return removed
    if tag in PIXELS:
        element = read(source, tag, cleaning)
        return "kept", element.value, element.VR
    if vr == "UI":
        return _by_uid(source, tag, cleaning)
    if (vr in BINARY_NUMBERS or tag in LOOKUP_TABLES) and values.is_text(source.get_item(tag).value):
        return removed
    if tag in LOOKUP_TABLES:
        return _by_lookup_table(source, tag, cleaning)
    if vr == "SQ" and is_imaging:
        return _by_sequence(source, tag, cleaning, place)
    if tag in (MANUFACTURER, RESCALE_TYPE, STACK_ID):
        value = _short_text(tag, " ".join(texts(read(source, tag, cleaning))))
        return ("kept" if value else "dummy", value or values.DUMMIES[vr], vr)
    if vr == "CS":
        return _by_terms(source, tag, cleaning)
    if not is_imaging:
        return removed
    if vr in TEXT_NUMBERS:
        return _by_numbers(source, tag, vr, values.is_number, cleaning)
    if vr in BINARY_NUMBERS:
        element = read(source, tag, cleaning)
        is_whole = element.VR in BINARY_NUMBERS and _has_known_count(tag, element.VM)
        return ("kept", element.value, element.VR) if is_whole else removed
    if vr == "AT":
        element = read(source, tag, cleaning)
        pointers = element.value if element.VM > 1 else [element.value]
        return ("kept", element.value, vr) if element.VM and all(known_vr(int(p)) for p in pointers) else removed
    return removed


def _by_numbers(
    source: Dataset, tag: int, vr: str, is_valid: Callable[[str], bool], cleaning: Cleaning
) -> tuple[str, object | None, str]:
    found = texts(read(source, tag, cleaning))
    if not all(map(is_valid, filter(None, found))):
        raise cleaning.refuse("unreadable", f"element ({tag >> 16:04x},{tag & 0xFFFF:04x}) holds no number")
    return ("kept", found or "", vr) if _has_known_count(tag, len(found)) else ("removed", None, vr)


def _has_known_count(tag: int, count: int) -> bool:
    """Whether an element has no more values than the dictionary allows: text could be written as a row of numbers."""
    from pydicom.datadict import dictionary_VM

    last = dictionary_VM(tag).split("-")[-1]
    return count <= int(last) if last.isdigit() else True


def _by_terms(source: Dataset, tag: int, cleaning: Cleaning) -> tuple[str, object | None, str]:
    """Code strings: known terms and short codes of digits stay; others of several values become keyed terms, single ones go.

    A keyed term (`T` and 8 hexadecimal digits) still tells images of different kinds apart.
    """
    found = texts(read(source, tag, cleaning))
    kept = [text if text in tables.terms() or SHORT_CODE.fullmatch(text) else None for text in map(str.strip, found)]
    if all(one is None for one in kept):
        return "removed", None, "CS"
    new = [one if one is not None else cleaning.settings.key.term(text) for one, text in zip(kept, found, strict=True)]
    return ("kept" if None not in kept else "terms kept"), new, "CS"


def _short_text(tag: int, text: str) -> str | None:
    """Maker, unit of rescaled values and number of a stack, if they are in their lists."""
    if tag == MANUFACTURER:
        return next((maker for maker in MAKERS if maker in text.upper().replace("G.E.", "GE")), None)
    if tag == RESCALE_TYPE:
        return text if text in tables.terms() else None
    return text if SHORT_NUMBER.fullmatch(text) else None


def _by_uid(source: Dataset, tag: int, cleaning: Cleaning) -> tuple[str, object | None, str]:
    """UIDs of the standard itself stay; all others are replaced by keyed ones."""
    from pydicom._uid_dict import UID_dictionary

    found = texts(read(source, tag, cleaning))
    new = [uid if uid in UID_dictionary else cleaning.settings.key.uid(uid) for uid in found if uid]
    return ("kept" if new == found else "new UID"), new or "", "UI"


def _by_lookup_table(source: Dataset, tag: int, cleaning: Cleaning) -> tuple[str, object | None, str]:
    """The entries of a lookup table, as many as its descriptor says; what follows them is cut."""
    element = read(source, tag, cleaning)
    descriptor = source.get(LOOKUP_TABLES[tag])
    if descriptor is None or descriptor.VM != 3:
        return "removed", None, element.VR
    entries = int(descriptor.value[0]) or 2**16
    if isinstance(element.value, bytes):
        return "kept", element.value[: 2 * entries], element.VR
    several: Iterable[int] = [element.value] if isinstance(element.value, int) else element.value
    return "kept", list(several)[:entries], element.VR


def _by_sequence(source: Dataset, tag: int, cleaning: Cleaning, place: str) -> tuple[str, object | None, str]:
    """The items of a sequence, cleaned; items that are codes stay if the code is in the list, and are written from it."""
    items = read(source, tag, cleaning).value or []
    kept: list[Dataset] = []
    for item in items:
        code = _known_code(item) if CODE_VALUE in item else None
        if CODE_VALUE in item and code is None:
            cleaning.done[f"{place}/", "SQ", "code removed"] += 1
            continue
        kept.append(code if code is not None else clean_dataset(item, cleaning, f"{place}/"))
    return "items cleaned", kept, "SQ"


def _known_code(item: Dataset) -> Dataset | None:
    value, scheme = str(item.get("CodeValue", "")), str(item.get("CodingSchemeDesignator", ""))
    meaning = tables.codes().get((value, scheme))
    return None if meaning is None else code_item(value, scheme, meaning)


def code_item(value: str, scheme: str, meaning: str) -> Dataset:
    """An item of a code sequence (PS3.3 8.8)."""
    from pydicom.dataset import Dataset

    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item
