"""Text inside compressed frames: comments and application data of JPEG, JPEG-LS and JPEG 2000 are overwritten with zeros.

Lengths do not change, so that offset tables stay right, and no decoder reads these bytes: the pixels are bit-identical.
"""

from __future__ import annotations

import struct

SOI, EOI, SOS, COM = 0xD8, 0xD9, 0xDA, 0xFE
SOC_J2K, SOT_J2K, EOC_J2K, COM_J2K = 0x4F, 0x90, 0xD9, 0x64
# what decoders read of application data: JFIF's density, Adobe's and HP's colour transforms (marker, signature, length)
READ_BY_DECODERS = ((0xE0, b"JFIF\0", 16), (0xEE, b"Adobe", 14), (0xE8, b"mrfx", 8))
WITHOUT_LENGTH = {0x01, *range(0xD0, 0xD8)}
PLAIN_JFIF = b"\xff\xe0\x00\x10JFIF\0\x01\x01\x00\x00\x01\x00\x01\x00\x00"  # version 1.1, square pixels, no thumbnail
EXIF_ORIENTATION = b"\xff\xe1\x00\x22Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0"  # one entry, without its value
CODING = {*range(0xC0, 0xD0), SOS, 0xDB, 0xDC, 0xDD} - {0xC8}  # frames, tables of Huffman and quantisation, lines, restarts


def blank_text(frame: bytes) -> tuple[bytes, int]:
    """(the frame with its comments and application data set to zero, how many bytes that were).

    Raises ValueError for a frame that is neither a JPEG nor a JPEG 2000 codestream, or that is cut off.
    """
    if frame[:2] == bytes((0xFF, SOI)):
        return _blank_jpeg(frame)
    if frame[:2] == bytes((0xFF, SOC_J2K)):
        return _blank_jpeg_2000(frame)
    raise ValueError("not a codestream")


def _blank_jpeg(frame: bytes) -> tuple[bytes, int]:
    data, at, blanked = bytearray(frame), 2, 0
    while True:
        at = frame.index(b"\xff", at)  # between segments only fill bytes, after SOS the coded data
        marker = frame[at + 1]
        if marker == EOI:
            return _without_rest(data, at + 2, blanked)
        if marker in (0x00, 0xFF) or marker in WITHOUT_LENGTH or (marker < 0x80 and marker != 0x01):
            at += 1 if marker == 0xFF else 2  # a stuffed byte, a fill byte or a restart
            continue
        (length,) = struct.unpack_from(">H", frame, at + 2)
        if length < 2 or at + 2 + length > len(frame):
            raise ValueError("cut off")
        if marker == COM or 0xE0 <= marker <= 0xEF:
            blanked += _blank(data, at + 4 + _bytes_to_keep(frame, at, marker, length), at + 2 + length)
        at += 2 + length


def strip_jpeg(data: bytes, orientation: int = 1) -> bytes:
    """The JPEG file of the same coded pixels with nothing but what a decoder needs: no comment, EXIF, profile, thumbnail, rest.

    The header of JFIF is a constant one. orientation: what EXIF then states alone, if it is not 1 (upright).
    Raises ValueError for what is no JPEG file, is cut off, or has bytes between segments.
    """
    if data[:2] != bytes((0xFF, SOI)):
        raise ValueError("not a JPEG file")
    turned = EXIF_ORIENTATION + struct.pack("<I", orientation) + bytes(4)
    kept, at = [data[:2], turned if orientation != 1 else b""], 2
    while at + 1 < len(data):
        if data[at] != 0xFF:
            raise ValueError("bytes between segments")
        marker = data[at + 1]
        if marker == 0xFF:  # a fill byte
            at += 1
            continue
        if marker == EOI:
            return b"".join((*kept, data[at : at + 2]))
        (length,) = struct.unpack_from(">H", data, at + 2)
        end = at + 2 + length
        if length < 2 or end > len(data) or not (marker in CODING or marker == COM or 0xE0 <= marker <= 0xEF):
            raise ValueError("cut off, or of an unknown form")
        if marker == SOS:
            end = _end_of_scan(data, end)
        kept.append(data[at:end] if marker in CODING else _needed(data, at, marker, length))
        at = end
    raise ValueError("cut off")


def _end_of_scan(data: bytes, at: int) -> int:
    """Where the next marker is that is no restart."""
    while True:
        at = data.index(b"\xff", at)
        if data[at + 1] != 0 and not 0xD0 <= data[at + 1] <= 0xD7:
            return at
        at += 2


def _needed(data: bytes, at: int, marker: int, length: int) -> bytes:
    """Of a segment of application data what decoders read; b"" of others."""
    size = _bytes_to_keep(data, at, marker, length)
    if not size:
        return b""
    if marker == 0xE0:
        return PLAIN_JFIF
    return struct.pack(">BBH", 0xFF, marker, size + 2) + data[at + 4 : at + 4 + size]


def _bytes_to_keep(frame: bytes, at: int, marker: int, length: int) -> int:
    """How many bytes of a segment's content decoders read."""
    for known, signature, size in READ_BY_DECODERS:
        if marker == known and frame.startswith(signature, at + 4):
            return min(length, size) - 2
    return 0


def _blank_jpeg_2000(frame: bytes) -> tuple[bytes, int]:
    """The comments of the main header and of the headers of tiles."""
    data, at, blanked = bytearray(frame), 2, 0
    while True:
        code, marker, length = struct.unpack_from(">BBH", frame, at) if at + 4 <= len(frame) else (*frame[at : at + 2], 0)
        if code != 0xFF:
            raise ValueError("no marker")
        if marker == EOC_J2K:
            return _without_rest(data, at + 2, blanked)
        if marker == COM_J2K:
            blanked += _blank(data, at + 6, at + 2 + length)  # the two bytes before say whether it is text
        if marker != SOT_J2K:
            at += 2 + length
            continue
        (part,) = struct.unpack_from(">I", frame, at + 6)
        end = at + part if part else frame.rindex(bytes((0xFF, EOC_J2K)))
        blanked += _blank_tile_comments(data, at + 2 + length, end)
        at = end


def _blank_tile_comments(data: bytearray, at: int, end: int) -> int:
    """Blanks the comments of the header of a tile part, which ends with SOD (FF93)."""
    blanked = 0
    while at + 4 <= end and data[at] == 0xFF and data[at + 1] != 0x93:
        (length,) = struct.unpack_from(">H", data, at + 2)
        if data[at + 1] == COM_J2K:
            blanked += _blank(data, at + 6, at + 2 + length)
        at += 2 + length
    return blanked


def _blank(data: bytearray, start: int, stop: int) -> int:
    size = max(stop - start, 0)
    data[start : start + size] = bytes(size)
    return size


def _without_rest(data: bytearray, end: int, blanked: int) -> tuple[bytes, int]:
    """Blanks what stands after the end of the codestream, the padding byte included."""
    return bytes(data[:end]) + bytes(len(data) - end), blanked + sum(map(bool, data[end:]))
