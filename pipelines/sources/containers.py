"""Whether a video file is whole, by the structure of its container: libav reads truncated files and only ends early.

AVI: RIFF sizes (Microsoft's RIFF, OpenDML). MP4, MOV: boxes (ISO 14496-12, 4.2). Matroska, WebM: the size of the segment
(RFC 9559). GIF: blocks up to the trailer (GIF89a). A file of which nothing says how long it is, such as a recorded stream, is not
accepted: nobody could tell that its end is missing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from pipelines.errors import MissingInput, RequestError

SUFFIXES = (".avi", ".mp4", ".m4v", ".mov", ".mkv", ".webm", ".gif")
SEGMENT, CLUSTER, BLOCK_GROUP, SIMPLE_BLOCK, BLOCK = 0x18538067, 0x1F43B675, 0xA0, 0xA3, 0xA1
MATROSKA_IDS = frozenset({  # of a segment, of clusters and of groups of blocks (RFC 9559, 5.1)
    CLUSTER, BLOCK_GROUP, SIMPLE_BLOCK, BLOCK, 0x114D9B74, 0x1549A966, 0x1654AE6B, 0x1C53BB6B, 0x1941A469, 0x1043A770, 0x1254C367,
    0xEC, 0xBF, 0xE7, 0xA7, 0xAB, 0xAF, 0x5854, 0xA2, 0x75A1, 0x9B, 0xFA, 0xFB, 0xFD, 0xA4, 0x75A2, 0x8E, 0xC8,
})  # fmt: skip
ENDINGS = {"avi": (".avi",), "mov": (".mp4", ".m4v", ".mov"), "matroska": (".mkv", ".webm"), "gif": (".gif",)}  # first: usual
REMUX = "write it anew with `ffmpeg -i FILE -c copy NEW.mp4`"


@dataclass(frozen=True)
class Container:
    """`demuxer`: libav's name of it. `frames`: how many each track holds, in no order; (): the structure does not say.

    `is_untimed`: it does not say how long each frame is shown, where libav would make that up.
    """

    demuxer: str
    frames: tuple[int, ...] = ()
    is_untimed: bool = False


def suffix_of(path: Path) -> str:
    """The ending that fits the container: that of the name, unless the first bytes are those of another one."""
    suffix = path.suffix.lower()
    with path.open("rb") as file:
        fitting = ENDINGS.get(_kind_of(file.read(12)), (suffix,))
    return suffix if suffix in fitting else fitting[0]


def _kind_of(head: bytes) -> str:
    """libav's name of the container that begins with these bytes; "" of others."""
    if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        return "avi"
    if head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"):
        return "mov"
    if head[:4] == b"\x1a\x45\xdf\xa3":
        return "matroska"
    return "gif" if head[:6] in (b"GIF87a", b"GIF89a") else ""


def examine_container(path: Path) -> Container:
    """The container of a whole file. Raises MissingInput, RequestError (another format, truncated, of unknown length)."""
    if not path.is_file():
        raise MissingInput(f"no such file: {path}")
    size = path.stat().st_size
    with path.open("rb") as file:
        kind = _kind_of(file.read(12))
        file.seek(0)
        if kind == "avi":
            problem, found = _avi(file, size), Container("avi")
        elif kind == "mov":
            problem, found = _mp4(file, size), Container("mov")
        elif kind == "matroska":
            problem, counts = _matroska(file, size)
            found = Container("matroska", tuple(counts.values()))
        elif kind == "gif":
            problem, delays = _gif(file)
            found = Container("gif", (len(delays),), 0 in delays[:-1])
        else:
            raise RequestError(
                f"{path.name} is none of AVI, MP4, MOV, MKV, WebM and GIF, whatever its name says; convert it with ffmpeg"
            )
    if problem:
        raise RequestError(f"{path.name} is {problem}")
    return found


def _ends_outside(what: str, end: int, size: int) -> str:
    return f"truncated: {what} ends at byte {end}, the file has {size}; copy it again"


def _avi(file: BinaryIO, size: int) -> str:
    position = 0
    while position + 12 <= size:
        file.seek(position)
        head = file.read(12)
        length = int.from_bytes(head[4:8], "little")
        if head[:4] != b"RIFF":
            break  # what some recorders append
        if length in (0, 0xFFFFFFFF):
            return f"unfinished: its header does not say how long it is; {REMUX}"
        end = position + 8 + length
        if end > size:
            return _ends_outside("its RIFF chunk", end, size)
        position = end + end % 2
    return ""


def _mp4(file: BinaryIO, size: int) -> str:
    position, kinds = 0, set()
    while position < size:
        file.seek(position)
        head = file.read(16)
        length, kind = int.from_bytes(head[:4], "big"), head[4:8]
        if length == 1:
            length = int.from_bytes(head[8:16], "big")
        if length == 0:  # to the end of the file
            return f"of unknown length: its box {kind.decode('latin-1')!a} states no size; {REMUX}"
        if len(head) < 8 or length < 8 or position + length > size:
            return _ends_outside(f"its box {kind.decode('latin-1')!a}", position + max(length, 8), size)
        kinds.add(kind)
        position += length
    if b"moov" not in kinds:
        return "truncated: it has no index (box moov), which is written last; copy it again"
    if b"moof" in kinds and b"mfra" not in kinds:
        return f"of unknown length: it consists of fragments, and nothing says how many; {REMUX}"
    return ""


def _matroska(file: BinaryIO, size: int) -> tuple[str, Counter[int]]:
    """(problem or "", number of blocks of each track)."""
    counts: Counter[int] = Counter()
    for kind, end in _elements(file, size):
        if end is None:
            return f"of unknown length, as recorded streams are; {REMUX}", counts
        if end > size:
            return _ends_outside("its segment" if kind == SEGMENT else "an element", end, size), counts
        if kind == SEGMENT:
            return _count_blocks(file, end, counts), counts
    return "truncated: it holds no segment; copy it again", counts


def _count_blocks(file: BinaryIO, stop: int, counts: Counter[int]) -> str:
    """Counts the blocks of each track up to `stop`; the problem if the elements do not fill the file up to there."""
    for kind, end in _elements(file, stop):
        if kind not in MATROSKA_IDS or end is None or end > stop:
            return f"damaged: nothing that Matroska knows begins before byte {file.tell()}; copy it again"
        if kind in (CLUSTER, BLOCK_GROUP):
            if problem := _count_blocks(file, end, counts):
                return problem
        elif kind in (SIMPLE_BLOCK, BLOCK) and (track := _vint(file)) is not None:
            counts[track] += 1
    return "" if file.tell() == stop else "damaged: its elements do not fill it; copy it again"


def _elements(file: BinaryIO, stop: int) -> Iterator[tuple[int, int | None]]:
    """(id, where it ends; None: not stated) of the elements that follow each other up to `stop`; what is inside may be read."""
    while (start := file.tell()) < stop:
        first = file.read(1)
        width = 9 - first[0].bit_length() if first and first[0] else 0
        kind = int.from_bytes(first + file.read(width - 1), "big") if 0 < width <= 4 else 0
        length = _vint(file)
        end = None if length is None else file.tell() + length
        yield kind, end
        if end is None or end <= start:
            return
        file.seek(end)


def _vint(file: BinaryIO) -> int | None:
    """The variable-length number that begins here (RFC 8794, 4); None: unknown, or none."""
    first = file.read(1)
    if not first or not first[0]:
        return None
    width = 9 - first[0].bit_length()
    value = int.from_bytes(bytes([first[0] & ((1 << (8 - width)) - 1)]) + file.read(width - 1), "big")
    return None if value == (1 << (7 * width)) - 1 else value


def _gif(file: BinaryIO) -> tuple[str, list[int]]:
    """(problem or "", hundredths of a second that each image is shown; 0: not stated)."""
    file.seek(10)
    flags = file.read(3)[:1]
    if flags and flags[0] & 0x80:
        file.seek(3 << ((flags[0] & 7) + 1), 1)
    delays, delay = list[int](), 0
    while (mark := file.read(1)) != b"\x3b":
        if mark == b"\x2c":
            descriptor = file.read(9)
            if len(descriptor) == 9 and descriptor[8] & 0x80:
                file.seek(3 << ((descriptor[8] & 7) + 1), 1)
            delays.append(delay)
            delay = 0
        kind = file.read(1)  # of an image the size of its codes, of an extension its label
        length = file.read(1)
        if mark == b"\x21" and kind == b"\xf9" and length == b"\4":  # graphic control
            delay = int.from_bytes(file.read(4)[1:3], "little")
            length = file.read(1)
        while length and length != b"\0":
            file.seek(length[0], 1)
            length = file.read(1)
        if mark not in (b"\x2c", b"\x21") or not length:
            return "truncated or damaged: it has no trailer; copy it again", delays
    return "", delays
