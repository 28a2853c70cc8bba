"""DICOM files: which there are, their headers, and whether their pixel data are whole.

`read_header` is the only function that opens a header, and `keyed_uid` the only way of a UID out of one: de-identification takes
its place there. Errors name a file by its number in the list of files, since names of files may name a patient.
"""

from __future__ import annotations

import hashlib
import logging
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.errors import RequestError, SceneRefused
from pipelines.privacy.pixels import is_more_image
from pipelines.sources.file_names import natural_key

if TYPE_CHECKING:
    from pydicom import Dataset

DICOMDIR_CLASS = "1.2.840.10008.1.3.10"  # Media Storage Directory Storage
STANDARD = "1.2.840.10008."  # begins every UID of the standard
DEFLATED = "1.2.840.10008.1.2.1.99"
BIG_ENDIAN = "1.2.840.10008.1.2.2"
PIXEL_DATA = (0x7FE0, 0x0010)
LONG_VRS = (b"OB", b"OW", b"OF", b"OD", b"OL", b"OV", b"UN", b"SQ", b"UT", b"UC", b"UR")
UNDEFINED = 0xFFFFFFFF
ITEM, DELIMITER = (0xFFFE, 0xE000), (0xFFFE, 0xE0DD)
NOT_READ = (  # what may be wrong with pixel data that are whole
    "its data set is deflated, which is read from a de-identified copy only: write it anew (`dcmconv +te IN OUT`)",
    "its pixel data are not integers in one element: store them so, with a rescale",
)
IMAGE_NEEDS = ("Rows", "Columns", "BitsAllocated")


@dataclass(frozen=True)
class Header:
    """A file of a list: its number (from 1), its header without pixels, and what is wrong with its pixel data ("": nothing).

    pixels_at: the byte at which its pixels begin, if they are neither compressed nor in colour nor big endian.
    """

    number: int
    path: Path
    content: Dataset
    fault: str = ""
    pixels_at: int | None = None

    def get(self, keyword: str, default: Any = None) -> Any:
        """The value of an element; the default where it is absent, empty or not valid."""
        try:
            value = self.content.get(keyword)
        except Exception:  # pydicom converts on access and raises many kinds
            return default
        return default if value is None or value == "" else value


@dataclass(frozen=True)
class Stored:
    """Where the values of an image lie in its file, which needs no decoder: from which byte, as which numbers, rows, columns.

    unused_bits: how many of the highest bits are not of the values, whatever is in them.
    """

    at: int
    dtype: str
    shape_yx: tuple[int, int]
    unused_bits: int = 0


def require_pydicom() -> None:
    """Raises RequestError, which names the extra, where pydicom is not installed. Turns off its log, which repeats values."""
    try:
        import pydicom  # noqa: F401
    except ImportError as e:
        raise RequestError("DICOM files need pydicom: pip install 'driftline[medical]'") from e
    logging.getLogger("pydicom").setLevel(logging.CRITICAL + 1)


@contextmanager
def without_warnings() -> Iterator[None]:
    """Inside, warnings are dropped: those of pydicom repeat values of the header."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def read_header(path: Path) -> tuple[Dataset, str, int | None]:
    """(header without pixel data, what is wrong with the pixel data or "", `Header.pixels_at`).

    Raises ValueError for what is no DICOM file.

    The pixel data must be as long as rows, columns, frames and bits say, and end inside the file (PS3.5, 8.1.1, A.4): pydicom
    reads truncated files without an error.
    """
    import pydicom

    try:
        with without_warnings(), path.open("rb") as file:
            content = pydicom.dcmread(file, stop_before_pixels=True)
            fault, pixels_at = "", None
            if all(content.get(keyword) is not None for keyword in IMAGE_NEEDS):
                fault, pixels_at = _check_pixels(file, content, path.stat().st_size)
    except Exception as e:  # pydicom raises many kinds; their texts may repeat values of the header
        raise ValueError(type(e).__name__) from None
    return content, fault, pixels_at


def keyed_uid(uid: str) -> str:
    """The UID that stands for `uid` outside of the source; equal ones stay equal. "" stays "".

    De-identification replaces the digest by one with the project's key.
    """
    digest = hashlib.blake2b(str(uid).encode(), digest_size=16).digest()
    return f"2.25.{int.from_bytes(digest, 'big')}" if uid else ""  # PS3.5, B.2


# ---------------------------------------------------------------- which files there are


def list_dicom_files(path: Path) -> list[Path]:
    """DICOM files in natural order of their names: those below a folder, or those that a DICOMDIR lists; a file is itself.

    A file is DICOM if it has the preamble (PS3.10, 7.1). Raises RequestError where there is none, or a listed one is missing.
    """
    require_pydicom()
    if not path.exists():
        raise RequestError(f"no such folder or file: {path}")
    if path.is_dir():
        paths = sorted((one for one in path.rglob("*") if is_dicom(one)), key=lambda one: natural_key(str(one.relative_to(path))))
        paths = [one for one in paths if one.name.upper() != "DICOMDIR" and _is_inside(path, one)]
    else:
        paths = [path] if is_dicom(path) else []
        paths = _listed(path) if paths else []
    if not paths:
        raise RequestError(f"{path} holds no DICOM file (none has the DICOM preamble)")
    return paths


def is_dicom(path: Path) -> bool:
    """True for a file with `DICM` after its preamble of 128 bytes."""
    try:
        if not path.is_file():
            return False
        with path.open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


def _is_inside(folder: Path, path: Path) -> bool:
    return not path.is_symlink() or path.resolve().is_relative_to(folder.resolve())


def _listed(directory: Path) -> list[Path]:
    """The files that the records of a DICOMDIR reference (PS3.3, F.3.2.2); another file is itself."""
    try:
        content = read_header(directory)[0]
    except ValueError:
        return [directory]  # `read_headers` says what is wrong with it
    if str(content.file_meta.get("MediaStorageSOPClassUID", "")) != DICOMDIR_CLASS:
        return [directory]
    paths, missing = [], 0
    for record in content.get("DirectoryRecordSequence") or ():
        parts = record.get("ReferencedFileID")
        if parts is None:
            continue
        path = directory.parent.joinpath(*([parts] if isinstance(parts, str) else [str(part) for part in parts]))
        if is_dicom(path) and path.resolve().is_relative_to(directory.parent.resolve()):
            paths.append(path)
        else:
            missing += 1
    if missing:
        raise RequestError(
            f"the DICOMDIR lists {missing} files that are not there or no DICOM, and {len(paths)} that are: copy the whole "
            "medium, or name the folder of the images in place of the DICOMDIR"
        )
    return paths


def read_headers(paths: list[Path]) -> tuple[list[Header], list[SceneRefused]]:
    """(the headers of all files that hold images, the files that cannot be read)."""
    headers, refused = [], []
    for number, path in enumerate(paths, start=1):
        try:
            found = read_header(path)
        except ValueError as e:
            detail = f"file {number} of {len(paths)} (in order of name) begins as DICOM and cannot be read ({e}): copy it again"
            refused.append(SceneRefused(f"file-{number:04d}", "unreadable", detail))
            continue
        header = Header(number, path, *found)
        if all(header.get(keyword) is not None for keyword in IMAGE_NEEDS):
            headers.append(header)
        elif _should_be_image(header):
            detail = f"file {number} of {len(paths)} (in order of name) ends inside its header: copy it again"
            refused.append(SceneRefused(f"file-{number:04d}", "truncated", detail))
    return headers, refused


def _should_be_image(header: Header) -> bool:
    """True for a header that ends before its image: of a class of images, of none, or of a standard one that is not whole."""
    from pydicom.uid import UID

    kind = UID(str(header.get("SOPClassUID") or header.content.file_meta.get("MediaStorageSOPClassUID") or ""))
    is_cut = kind.name == kind and (kind.startswith(STANDARD) or STANDARD.startswith(kind))
    return is_cut or "Image Storage" in kind.name


# ---------------------------------------------------------------- pixel data


def frames_in(content: Dataset) -> int:
    return max(1, int(content.get("NumberOfFrames") or 1))


def expected_bytes(content: Dataset) -> int:
    """Bytes of uncompressed pixel data (PS3.5, 8.1.1), without the padding to an even number."""
    samples = int(content.get("SamplesPerPixel") or 1)
    pixels = int(content.Rows) * int(content.Columns) * frames_in(content)
    if str(content.get("PhotometricInterpretation", "")) == "YBR_FULL_422":
        return pixels * 2 * int(content.BitsAllocated) // 8
    return (pixels * samples * int(content.BitsAllocated) + 7) // 8


def _check_pixels(file: Any, content: Dataset, size: int) -> tuple[str, int | None]:
    """(what is wrong with the pixel data or "", `Header.pixels_at`); `file` stands at their tag."""
    syntax = content.file_meta.get("TransferSyntaxUID")
    if syntax is None:
        return "the file does not state its transfer syntax", None
    if str(syntax) == DEFLATED:  # the position is that in the inflated data, and single frames cannot be decoded
        return NOT_READ[0], None
    order = ">" if str(syntax) == BIG_ENDIAN else "<"
    start = file.read(8)
    if len(start) < 8 or struct.unpack(order + "HH", start[:4]) != PIXEL_DATA:
        return "it has no pixel data" if len(start) < 8 else NOT_READ[1], None
    if syntax.is_implicit_VR:
        (length,) = struct.unpack(order + "I", start[4:])
    elif start[4:6] in LONG_VRS:
        rest = file.read(4)
        if len(rest) < 4:
            return "it ends where the pixel data begin", None
        (length,) = struct.unpack(order + "I", rest)
    else:
        return "its pixel data have a wrong value representation", None
    if syntax.is_encapsulated:
        not_in_fragments = "its compressed pixel data are not in fragments"
        return _fault_of_fragments(file, content, size) if length == UNDEFINED else not_in_fragments, None
    pixels_at = file.tell()
    expected, there = expected_bytes(content), size - pixels_at
    if length < expected or (length > expected and is_more_image(content, _rest(file, expected, length))):
        return f"it has {length} bytes of pixel data, rows, columns and frames make {expected}", None
    if there < length:
        return f"its pixel data are truncated: {there} of {length} bytes are there", None
    return "", pixels_at if order == "<" and _is_plain(content) else None


def _is_plain(content: Dataset) -> bool:
    """Whether pixels are one number each, in one, two or four bytes."""
    bits, stored = int(content.BitsAllocated), int(content.get("BitsStored") or 0)
    is_grey = content.get("PhotometricInterpretation") in ("MONOCHROME1", "MONOCHROME2")
    return bits in (8, 16, 32) and 0 < stored <= bits and is_grey and content.get("SamplesPerPixel") == 1


def stored_in(header: Header, index: int) -> Stored | None:
    """Where the image with this index is; None if it must be decoded."""
    if header.pixels_at is None:
        return None
    of = header.content
    rows, columns, bits = int(of.Rows), int(of.Columns), int(of.BitsAllocated)
    dtype = f"<{'i' if of.get('PixelRepresentation') else 'u'}{bits // 8}"
    return Stored(header.pixels_at + index * rows * columns * bits // 8, dtype, (rows, columns), bits - int(of.BitsStored))


def _rest(file: Any, expected: int, length: int) -> bytes:
    """What stands behind the expected bytes of an element at whose value `file` stands, and stands again after it."""
    start = file.tell()
    file.seek(start + expected)
    rest: bytes = file.read(length - expected)
    file.seek(start)
    return rest


def _fault_of_fragments(file: Any, content: Dataset, size: int) -> str:
    """What is wrong with encapsulated pixel data (PS3.5, A.4): every fragment and the delimiter must lie inside the file."""
    fragments = -1  # the first item is the offset table
    while True:
        head = file.read(8)
        if len(head) < 8:
            return "its compressed pixel data are truncated: they have no end"
        group, element, length = struct.unpack("<HHI", head)
        if (group, element) == DELIMITER:
            break
        if (group, element) != ITEM or file.tell() + length > size:
            return "its compressed pixel data are truncated: a fragment ends outside the file"
        file.seek(length, 1)
        fragments += 1
    if fragments < frames_in(content):
        return f"its compressed pixel data have {fragments} fragments for {frames_in(content)} frames"
    return ""
