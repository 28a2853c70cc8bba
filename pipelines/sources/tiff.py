"""Checks a TIFF directory without GDAL: GDAL ignores tags whose values are truncated, and reads blank pixels."""

import struct
from pathlib import Path

TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}


def directory_outside_file(path: Path) -> str:
    """Message if the first image directory, or a value of its tags, extends past the end of the file; "" if not.

    TIFF 6.0, section 2; BigTIFF (magic 43) has 8-byte counts and offsets.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(16)
        order, is_big = ("<" if head[:2] == b"II" else ">"), head[2:4] in (b"+\0", b"\0+")
        count_format, offset_format, entry_bytes, inline = ("Q", "Q", 20, 8) if is_big else ("H", "I", 12, 4)
        count_bytes = struct.calcsize(count_format)
        if len(head) < (16 if is_big else 8):
            return "the header is truncated"
        (start,) = struct.unpack_from(order + offset_format, head, 8 if is_big else 4)
        file.seek(min(start, size))
        raw = file.read(count_bytes)
        if len(raw) < count_bytes:
            return f"the image directory begins at byte {start}, the file has {size}"
        (count,) = struct.unpack(order + count_format, raw)
        end = start + count_bytes + count * entry_bytes
        if end > size:
            return f"the image directory ends at byte {end}, the file has {size}"
        entries = file.read(count * entry_bytes)
    for at in range(0, len(entries), entry_bytes):
        tag, kind, values = struct.unpack_from(order + "HH" + offset_format, entries, at)
        length = values * TYPE_BYTES.get(kind, 1)
        (position,) = struct.unpack_from(order + offset_format, entries, at + entry_bytes - inline)
        if length > inline and position + length > size:
            return f"the values of tag {tag} end at byte {position + length}, the file has {size}"
    return ""
