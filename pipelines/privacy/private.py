"""Private elements: kept if their creator and place are in the list and their value is a number or one of its terms."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from pipelines.privacy import tables, values

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

TINY, HUGE = 1e-12, 1e9  # letters, read as a floating-point number, are mostly outside
FORMATS = {"US": "H", "SS": "h", "UL": "I", "SL": "i", "FL": "f", "FD": "d"}


def creator_of(source: Dataset, tag: int) -> str:
    """The creator of the block that a private element is in, as the file writes it; "" if there is none."""
    element = tag & 0xFFFF
    if element < 0x1000:
        return ""
    reserved = source.get_item((tag >> 16, element >> 8))
    raw = getattr(reserved, "value", None)
    text = raw.decode("ascii", "replace") if isinstance(raw, bytes) else str(raw or "")
    return text.strip(" \0")


def row_of(creator: str, tag: int) -> tables.PrivateRow | None:
    """The row of the list for a private element of a creator; None if it is never kept."""
    return tables.private_rows().get((creator.upper(), tag >> 16, tag & 0xFF))


def private_value(source: Dataset, tag: int) -> tuple[str, str, object] | None:
    """(creator, VR, value) of a private element that may be kept; None for all others."""
    row = row_of(creator_of(source, tag), tag)
    if row is None:
        return None
    try:
        found = _read(source, tag, row.vr)
    except Exception:  # the value is not of this form; the message of the library would quote it
        return None
    if not found or len(found) > row.most or (row.terms and not set(map(str, found)) <= row.terms):
        return None
    return row.creator, row.vr, found


def _read(source: Dataset, tag: int, vr: str) -> list[object]:
    """The values in the form of the VR, whatever the file says that they are (UN after a passage through an archive)."""
    raw = source.get_item(tag)
    value = getattr(raw, "value", None)
    if getattr(raw, "VR", None) not in (None, "UN", vr) or (vr in FORMATS and values.is_text(value)):
        return []
    if not isinstance(value, bytes):
        value = [] if value is None else value if type(value).__name__ in ("MultiValue", "list") else [value]
        texts = [str(getattr(one, "original_string", one)) for one in value]
    elif vr in FORMATS:
        order = "<" if getattr(raw, "is_little_endian", True) else ">"
        count, rest = divmod(len(value), struct.calcsize(FORMATS[vr]))
        numbers = struct.unpack(f"{order}{count}{FORMATS[vr]}", value)
        return [] if rest or not all(number == 0 or TINY < abs(number) < HUGE for number in numbers) else list(numbers)
    else:
        texts = [text.strip(" \0") for text in value.decode("ascii").split("\\")]
    if vr == "CS":
        return list(texts)
    if not all(map(values.is_number, texts)):
        return []
    if vr in FORMATS:
        return [float(text) if vr in ("FL", "FD") else int(text) for text in texts]
    return list(texts)
