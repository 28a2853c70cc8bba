"""Whether the files of a DICOM series belong together: one patient, study and frame of reference, and values of one meaning."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipelines.errors import RequestError
from pipelines.privacy.objects import kind_of_object
from pipelines.sources.dicom_files import Header, read_header
from pipelines.wording import counted

if TYPE_CHECKING:
    from pydicom import Dataset

APART = "the same series UID stands for several series: put the files of each into a folder of its own"
ONE_OF_EACH = (  # PS3.3, A.1.2 and C.7.4.1: a series is of one study, a study of one patient, positions of one frame of reference
    ("PatientID", "mixed patients", "patient IDs", APART),
    ("StudyInstanceUID", "mixed studies", "studies", APART),
    ("FrameOfReferenceUID", "mixed frames of reference", "of them, whose positions cannot be compared", "register them first"),
)
AXES = {  # vectors that FrameIncrementPointer may name (PS3.3, C.7.6.6, C.8.4.8, C.8.8.3): frames that are no times
    0x00182001: "pages", 0x00182005: "slice locations", 0x3004000C: "planes of a dose grid", 0x00540010: "energy windows",
    0x00540020: "detectors", 0x00540080: "slices", 0x00540090: "angles of view",
}  # fmt: skip
INVERTED = "MONOCHROME1: low values are bright on a monitor; values are kept as stored, so pictures show them inverted"
UNMAPPED = "its real-world values (RealWorldValueMappingSequence) are not applied: values are those of the rescale"


def require_images(headers: Sequence[Header]) -> None:
    """Raises RequestError for objects that have pixels and are no images in time."""
    for header in headers:
        if (found := kind_of_object(str(header.get("SOPClassUID", "")))) is not None:
            raise RequestError(f"not a series of images: it is {found[0]}; {found[1]}")


def kinds_without_pixels(paths: Sequence[Path]) -> str:
    """What files are that hold no image, as the end of a message; "" for nothing known."""
    found = Counter(kind_of_object(str(read_header(path)[0].get("SOPClassUID", ""))) for path in paths)
    return "".join(f"; {counted(n, 'file')}: {kind[0]}: {kind[1]}" for kind, n in found.items() if kind)


def without_copies(headers: Sequence[Header]) -> tuple[list[Header], list[str]]:
    """The headers, of files that are there twice the first, and a note. Raises RequestError for other content under one UID."""
    files: dict[str, list[Header]] = defaultdict(list)
    for header in headers:
        files[str(header.get("SOPInstanceUID", "")) or str(header.number)].append(header)
    kept = []
    for first, *others in files.values():
        kept.append(first)
        if others and len({hashlib.sha256(one.path.read_bytes()).digest() for one in (first, *others)}) > 1:
            numbers = ", ".join(str(one.number) for one in (first, *others))
            raise RequestError(
                f"duplicate UIDs: files {numbers} (in order of name) have one SOP Instance UID and are not the same; keep the "
                "right one, and move the others elsewhere"
            )
    left = len(headers) - len(kept)
    return kept, [f"{counted(left, 'further copy', 'further copies')} of a file not read"] if left else []


def check_alike(headers: Sequence[Header]) -> list[str]:
    """Notes about what the values of a series mean. Raises RequestError for files that cannot be of one series."""
    for keyword, fault, things, remedy in ONE_OF_EACH:
        found = {str(header.get(keyword, "")) for header in headers} - {""}
        if len(found) > 1:
            raise RequestError(f"{fault}: the {len(headers)} files of the series name {len(found)} {things}; {remedy}")
    for header in headers:
        _check_axis(header)
    kinds = Counter(_meaning(header) for header in headers)
    if len(kinds) > 1:
        listed = ", ".join(f"{kind} ({count} files)" for kind, count in kinds.most_common())
        raise RequestError(f"mixed meanings of values: {listed}; export them as series of their own")
    inverted = [INVERTED] if "MONOCHROME1" in kinds else []
    return inverted + ([UNMAPPED] if any(_is_mapped_otherwise(header.content) for header in headers) else [])


def _check_axis(header: Header) -> None:
    """Raises RequestError if the frames of a file are told apart by something else than time."""
    content, pointer = header.content, header.get("FrameIncrementPointer", [])
    for tag in [pointer] if isinstance(pointer, int) else pointer:
        if tag in AXES and tag in content and np.unique(content[tag].value).size > 1:
            raise RequestError(f"not frames in time: they are {AXES[tag]} (FrameIncrementPointer); choose another series")


def _meaning(header: Header) -> str:
    kind = str(header.get("PhotometricInterpretation", ""))
    return (
        kind
        if kind in ("MONOCHROME1", "MONOCHROME2", "PALETTE COLOR") or int(header.get("SamplesPerPixel", 1)) < 2
        else "colours"
    )


def _is_mapped_otherwise(content: Dataset) -> bool:
    """True if the real-world values of a file, or of all or the first of its frames, differ from those of its rescale."""
    groups = [content.get(name) for name in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")]
    places = [content, *(group[0] for group in groups if group)]
    maps = [place.RealWorldValueMappingSequence[0] for place in places if place.get("RealWorldValueMappingSequence")]
    transforms = [place.PixelValueTransformationSequence[0] for place in places if place.get("PixelValueTransformationSequence")]
    rescale = _line((transforms or [content])[0], "RescaleSlope", "RescaleIntercept")
    return any(_line(one, "RealWorldValueSlope", "RealWorldValueIntercept") != rescale for one in maps)


def _line(of: Dataset, slope: str, intercept: str) -> tuple[float, float]:
    first, second = of.get(slope), of.get(intercept)
    return 1.0 if first in (None, "") else float(first), 0.0 if second in (None, "") else float(second)
