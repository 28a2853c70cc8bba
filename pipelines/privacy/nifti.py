"""NIfTI files without what their headers say of people: copies whose voxels are the same, bit for bit, and their sidecars.

The format has no field for a name, and free text into which programs write names: descriptions, file names, comments, whole
DICOM headers as extensions. The header is made anew from its numbers.
"""

from __future__ import annotations

import gzip
import json
import math
import struct
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

import numpy as np

from pipelines.files import replacing
from pipelines.privacy.pixels import require_no_text
from pipelines.privacy.settings import Mask, PrivacyRefusal

BLOCK = 1 << 22
MOST_AFTER_BYTES = 1 << 28  # that are read behind the voxels of a packed file, to compare its checksum
MOST_SIDECAR_BYTES = 1 << 22
COLOURS = (128, 2304)  # datatypes RGB and RGBA
PIXELS = {  # datatypes in which text can be looked for
    2: "u1", 4: "=i2", 8: "=i4", 16: "=f4", 64: "=f8", 128: "u1", 256: "i1", 512: "=u2", 768: "=u4",
}  # fmt: skip


@dataclass(frozen=True)
class Layout:
    """Where the fields of a header are: offsets and formats of NIfTI-1 or NIfTI-2 (nifti1.h, nifti2.h)."""

    size: int
    dim: tuple[int, str]
    datatype: int
    bitpix: int
    pixdim: tuple[int, str]
    offset: tuple[int, str]
    intent: tuple[int, int]  # offset and bytes of intent_p1 to intent_p3
    intent_code: int
    code_bytes: int
    text: tuple[tuple[str, int, int], ...]  # name, offset, bytes; and what is not used


NIFTI_1 = Layout(
    348, (40, "8h"), 70, 72, (76, "8f"), (108, "f"), (56, 12), 68, 2,
    (("data_type", 4, 10), ("db_name", 14, 18), ("extents", 32, 4), ("session_error", 36, 2), ("regular", 38, 1),
     ("glmax_glmin", 140, 8), ("descrip", 148, 80), ("aux_file", 228, 24), ("intent_name", 328, 16)),
)  # fmt: skip
NIFTI_2 = Layout(
    540, (16, "8q"), 12, 14, (104, "8d"), (168, "q"), (80, 24), 504, 4,
    (("descrip", 240, 80), ("aux_file", 320, 24), ("intent_name", 508, 16), ("unused_str", 525, 15)),
)  # fmt: skip
EXTENSION_FLAG = 4
# of a sidecar (BIDS, dcm2niix): numbers that describe the acquisition, and terms; all else is removed
NUMBERS = frozenset({
    "RepetitionTime", "EchoTime", "EchoTime1", "EchoTime2", "InversionTime", "FlipAngle", "MagneticFieldStrength",
    "SliceThickness", "SpacingBetweenSlices", "SliceTiming", "EffectiveEchoSpacing", "TotalReadoutTime", "DwellTime",
    "PixelBandwidth", "FrameTimesStart", "FrameDuration", "EchoTrainLength", "ParallelReductionFactorInPlane",
    "MultibandAccelerationFactor", "PartialFourier", "NumberOfAverages", "LabelingDuration", "PostLabelingDelay",
})  # fmt: skip
TERMS = {
    "PhaseEncodingDirection": ("i", "j", "k", "i-", "j-", "k-"),
    "SliceEncodingDirection": ("i", "j", "k", "i-", "j-", "k-"),
    "MRAcquisitionType": ("2D", "3D"),
    "Modality": ("MR", "CT", "PT", "NM", "US"),
}
MOST_NUMBERS, LARGEST = 4096, 1e7
Count = Counter[tuple[str, str, str]]


def clean_nifti(
    source: Path, target: Path, masks: tuple[Mask, ...] = (), *, checks_text: bool = False, ocr: bool = False
) -> Count:
    """Writes `source` (.nii or .nii.gz) to `target` without free text and extensions: the fields of text are empty.

    Dimensions, affines, units, scale and voxels stay as they are, but for rectangles of rows (y) and columns (x) that `masks` set
    to 0. The copy is packed if `target` ends with .gz; then neither the original's name nor its time is in it. What was done is
    counted: (path, kind, action). checks_text: colours and single slices are refused unless a mask covers them. ocr: a file is
    refused if text is read in its first, middle or last slice.

    Raises PrivacyRefusal for what is no NIfTI file of one part, or cut off; it leaves no file.
    """
    done = Count()
    with replacing(target, flush=False, mark="partial") as draft, _writing(draft, is_packed=target.suffix == ".gz") as file:
        for block in _blocks(source, _Rules(masks, checks_text, ocr), done):
            file.write(block)
    return done


def _writing(path: Path, *, is_packed: bool) -> IO[bytes]:
    return cast("IO[bytes]", _Packed(path)) if is_packed else path.open("wb")


class _Packed(gzip.GzipFile):
    """A packed file that holds neither a name nor a time."""

    def __init__(self, path: Path):
        self._file = path.open("wb")
        super().__init__(filename="", mode="wb", compresslevel=1, fileobj=self._file, mtime=0)

    def close(self) -> None:
        try:
            super().close()
        finally:
            self._file.close()


@dataclass(frozen=True)
class _Rules:
    masks: tuple[Mask, ...]
    checks_text: bool
    ocr: bool


def _blocks(source: Path, rules: _Rules, done: Count) -> Iterator[bytes]:
    """The bytes of the copy. Errors of reading become PrivacyRefusal, without what they say of the file."""
    try:
        with source.open("rb") as raw:
            is_packed = raw.read(2) == b"\x1f\x8b"
        with gzip.open(source) if is_packed else source.open("rb") as file:
            yield from _clean(cast("IO[bytes]", file), rules, done, is_packed)
    except (OSError, EOFError, zlib.error, struct.error, ValueError, OverflowError) as e:
        raise _unreadable(f"{type(e).__name__}: no NIfTI file of one part, or cut off") from None


def _unreadable(detail: str) -> PrivacyRefusal:
    return PrivacyRefusal("NIfTI", "unreadable", detail)


def _clean(file: IO[bytes], rules: _Rules, done: Count, is_packed: bool) -> Iterator[bytes]:
    head = _exactly(file, NIFTI_1.size)
    is_second = head[4:7] == b"n+2"
    if not is_second and head[344:347] != b"n+1":
        raise ValueError("no NIfTI file")
    layout = NIFTI_2 if is_second else NIFTI_1
    head += _exactly(file, layout.size - len(head))
    order = "<" if struct.unpack_from("<i", head)[0] == layout.size else ">"
    count, *extent = struct.unpack_from(order + layout.dim[1], head, layout.dim[0])
    (bits,) = struct.unpack_from(f"{order}h", head, layout.bitpix)
    start = int(struct.unpack_from(order + layout.offset[1], head, layout.offset[0])[0])
    if not 1 <= count <= 7 or min(extent[:count]) < 1 or start < layout.size or bits < 1:
        raise ValueError("cut off")
    (datatype,) = struct.unpack_from(f"{order}h", head, layout.datatype)
    if rules.checks_text and not rules.masks:
        _check_text(extent[:count], datatype)
    first = -(-(layout.size + EXTENSION_FLAG) // 16) * 16
    yield _new_header(head, layout, order, count, first, done) + bytes(first - layout.size)
    between = _exactly(file, start - layout.size)
    if any(between):
        done["nifti/extensions", "bytes", "removed"] += 1
    if rules.masks or rules.ocr:
        yield from _planes(file, [*extent[:count], 1][: max(count, 2)], bits, rules, PIXELS.get(datatype, "").replace("=", order))
    else:
        yield from _copied(file, -(-math.prod(extent[:count]) * bits // 8))
    done["nifti/voxels", "numbers", "masked" if rules.masks else "kept"] += 1
    if _rest(file, is_packed):
        done["nifti/rest", "bytes", "removed"] += 1


def _exactly(file: IO[bytes], size: int) -> bytes:
    """So many bytes; extensions are not held as a whole in memory beyond the limit of an inflated file."""
    if size > MOST_AFTER_BYTES:
        raise ValueError("extensions of such a size")
    data = file.read(size)
    if len(data) < size:
        raise ValueError("cut off")
    return data


def _copied(file: IO[bytes], length: int) -> Iterator[bytes]:
    while length:
        block = file.read(min(BLOCK, length))
        if not block:
            raise ValueError("cut off")
        length -= len(block)
        yield block


def _rest(file: IO[bytes], is_packed: bool) -> bool:
    """Whether something stands behind the voxels; of a packed file all is read, since its checksum is at the end."""
    found, length = False, 0
    while block := file.read(BLOCK if is_packed else 1):
        found, length = True, length + len(block)
        if not is_packed:
            break
        if length > MOST_AFTER_BYTES:
            raise ValueError("more behind the voxels")
    return found


def _check_text(extent: list[int], datatype: int) -> None:
    """Raises PrivacyRefusal for pictures that may show text, by the rule for DICOM images that state nothing of it."""
    depth = extent[2] if len(extent) > 2 else 1
    what = "it is in colour" if datatype in COLOURS else "it has one slice, as pictures and cines have" if depth == 1 else ""
    if what:
        stated = "state that none shows any (privacy.burned_in: checked, --checked)"
        remedy = f"look at it; then name a rectangle (privacy.masks, --mask), or {stated}"
        raise PrivacyRefusal(
            "NIfTI", "burned-in", f"may show text: {what}, and NIfTI does not say whether text is in it; {remedy}"
        )


def _new_header(head: bytes, layout: Layout, order: str, count: int, first: int, done: Count) -> bytes:
    """The header with its numbers; fields of text, and numbers that describe nothing, are empty."""
    header = bytearray(head)
    for name, at, width in layout.text:
        action = "removed" if any(header[at : at + width]) else "empty"
        header[at : at + width] = bytes(width)
        done[f"nifti/{name}", "text", action] += 1
    for at, form in (layout.dim, layout.pixdim):
        values = list(struct.unpack_from(order + form, header, at))
        values[count + 1 :] = [1] * (7 - count) if at == layout.dim[0] else [0] * (7 - count)
        struct.pack_into(order + form, header, at, *values)
    if not any(header[layout.intent_code : layout.intent_code + layout.code_bytes]):
        header[layout.intent[0] : sum(layout.intent)] = bytes(layout.intent[1])
    struct.pack_into(order + layout.offset[1], header, layout.offset[0], first)
    done["nifti/numbers", "numbers", "kept"] += 1
    return bytes(header)


def _planes(file: IO[bytes], extent: list[int], bits: int, rules: _Rules, dtype: str) -> Iterator[bytes]:
    """The voxels slice by slice (rows are y, columns x), rectangles set to 0. In some slices text is looked for."""
    columns, rows, step, count = extent[0], extent[1], bits // 8, math.prod(extent[2:])
    if bits % 8 or any(mask.rows[1] > rows or mask.columns[1] > columns for mask in rules.masks):
        problem = f"a rectangle of privacy.masks is not within its {rows} rows and {columns} columns"
        raise PrivacyRefusal("NIfTI", "mask-outside", problem)
    if rules.ocr and not dtype:
        raise PrivacyRefusal("NIfTI", "no-ocr", "text cannot be looked for in values of its type")
    for number in range(count):
        plane = bytearray(b"".join(_copied(file, rows * columns * step)))
        for mask in rules.masks:
            width = (mask.columns[1] - mask.columns[0]) * step
            for row in range(*mask.rows):
                at = (row * columns + mask.columns[0]) * step
                plane[at : at + width] = bytes(width)
        if rules.ocr and number in (0, count // 2, count - 1):
            pixels = np.nan_to_num(np.frombuffer(plane, dtype).reshape(rows, columns, -1))
            pixels = pixels if pixels.shape[2] == 3 else pixels[:, :, 0]
            require_no_text([pixels, pixels[::-1]])  # rows may run upwards
        yield bytes(plane)


# ---------------------------------------------------------------- sidecars


def read_sidecar(path: Path) -> dict[str, object]:
    """The JSON file of a NIfTI file. Raises PrivacyRefusal for what is none: it would say whose image it is."""
    with suppress(OSError, ValueError, RecursionError):
        if path.stat().st_size <= MOST_SIDECAR_BYTES:
            content = json.loads(path.read_text(encoding="utf-8-sig"))
            if isinstance(content, dict):
                return content
    raise _unreadable("its sidecar (.json), which may say whose image it is, cannot be read; correct it, or take it away")


def clean_sidecar(content: dict[str, object], done: Count) -> bytes:
    """The JSON text of what describes the acquisition: numbers of known keys, and terms. Keys of DICOM are counted by name."""
    kept: dict[str, object] = {}
    for key, value in content.items():
        is_kept = (key in NUMBERS and _is_numbers(value)) or (isinstance(value, str) and value in TERMS.get(key, ()))
        if is_kept:
            kept[key] = value
        done[f"json/{_shown(key)}", "text", "kept" if is_kept else "removed"] += 1
    return (json.dumps(kept, indent=1, sort_keys=True) + "\n").encode()


def _is_numbers(value: object) -> bool:
    several = value if isinstance(value, list) else [value]
    return len(several) <= MOST_NUMBERS and all(
        isinstance(one, int | float) and not isinstance(one, bool) and abs(one) <= LARGEST for one in several
    )


def _shown(key: str) -> str:
    """A key as it is recorded: only those that are words of the standard, since a key may be text too."""
    from pydicom.datadict import tag_for_keyword

    return key if key in NUMBERS or key in TERMS or tag_for_keyword(key) is not None else "unknown"
