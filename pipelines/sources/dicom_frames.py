"""What a DICOM header says of each of its frames: where it lies, when it was taken, how its values are stored. Numbers only.

Classic files have one frame, enhanced ones functional groups for each (PS3.3, C.7.6.16), a Siemens mosaic all slices of a volume
as tiles of one image, which become frames too.
"""

from __future__ import annotations

import importlib.util
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines.privacy.csa import PLACES, csa_elements, csa_numbers
from pipelines.privacy.kinds import kinds_of
from pipelines.sources.dicom_files import NOT_READ, Header, Stored, frames_in, stored_in
from pipelines.sources.dicom_private import b_value, kind_of_image

if TYPE_CHECKING:
    from pydicom import Dataset

MILLISECOND = 1e-3
TIMES = 0x00209128  # Temporal Position Index
NO_DAY = "18000101"  # of a time whose date was removed: `calendar.UNKNOWN_ORIGIN`


@dataclass(frozen=True)
class Values:
    """How stored values become physical ones: stored * slope + intercept, `unit`; `padding` (first, last) is not measured."""

    dtype: str
    slope: float = 1.0
    intercept: float = 0.0
    unit: str = ""
    padding: tuple[int, int] | None = None
    is_palette: bool = False  # stored values are numbers of colours, and `dtype` is that of the colours


@dataclass(frozen=True)
class Clues:
    """What may tell apart frames at one position, each None where it is not stated; seconds, and moments as datetime64[us]."""

    temporal: int | None = None
    trigger_s: float | None = None
    reference_s: float | None = None
    acquired: np.datetime64 | None = None
    acquisition: int | None = None
    content: np.datetime64 | None = None
    instance: int | None = None
    is_day_stated: bool = True  # the day of `acquired` is that of the image, not that of its series or study
    repetition_s: float | None = None  # of a 2-D acquisition of MR: the time between two volumes


@dataclass(frozen=True)
class Frame:
    """One slice at one time. `position` is the centre of the first pixel and `orientation` the directions of a row and of a
    column, LPS, mm; `spacing_yx` mm. `index` is the frame in the file (zero-based), `tile` (row, column) of a mosaic, pixels.
    `contrast`: what makes an image of another kind at the same position.
    """

    file: int
    index: int
    shape_yx: tuple[int, int]
    values: Values
    clues: Clues
    position: tuple[float, float, float] | None = None
    orientation: tuple[float, ...] | None = None
    spacing_yx: tuple[float, float] | None = None
    tile: tuple[int, int] | None = None
    thickness: float | None = None
    image_type: tuple[str, ...] = ()
    contrast: tuple[tuple[str, object], ...] = field(default=(), hash=False)
    fault: str = ""
    stored: Stored | None = None  # None: it must be decoded


class UnreadableHeader(Exception):
    """Why the frames of a header cannot be known, in words without values of the header."""


def frames_of(header: Header) -> list[Frame]:
    """The frames of a file, in its order. Raises UnreadableHeader."""
    if header.fault in NOT_READ:
        raise UnreadableHeader(header.fault)
    try:
        if header.get("PerFrameFunctionalGroupsSequence"):
            return list(_enhanced(header))
        if "MOSAIC" in _image_type(header.content):
            return list(_mosaic(header))
        frame = replace(_plain(header.content, header.content), file=header.number, fault=header.fault)
        return [replace(frame, index=k, stored=stored_in(header, k)) for k in range(frames_in(header.content))]
    except UnreadableHeader:
        raise
    except Exception as e:  # pydicom converts on access and raises many kinds, whose texts may repeat values of the header
        raise UnreadableHeader(f"an element of geometry, time or pixels has no valid value ({type(e).__name__})") from None


# ---------------------------------------------------------------- elements


def number(of: Dataset, keyword: str) -> float | None:
    value = of.get(keyword)
    return None if value is None or value == "" else float(value)


def whole(of: Dataset, keyword: str) -> int | None:
    value = number(of, keyword)
    return None if value is None else int(value)


def numbers(of: Dataset, keyword: str, count: int) -> tuple[float, ...] | None:
    """`count` finite numbers, None where the element is absent or empty. Raises ValueError for anything else."""
    value = of.get(keyword)
    if value is None or value == "" or (isinstance(value, Sequence) and not len(value)):
        return None
    found = tuple(float(one) for one in value)
    if len(found) != count or not all(map(math.isfinite, found)):
        raise ValueError("expected other numbers")
    return found


def parse_moment(date: object, time: object) -> np.datetime64 | None:
    """A DA and a TM (PS3.5, 6.2), or a DT and None, as datetime64[us]; None where either is missing.

    >>> parse_moment("20160309", "143043.5")
    np.datetime64('2016-03-09T14:30:43.500000')
    """
    if not date or (time is not None and not time):
        return None
    text = re.split(r"[+-]", str(date))[0] if time is None else f"{date}{time}".replace(":", "")
    digits, _, fraction = text.strip().partition(".")
    if len(digits) < 10 or not digits.isdigit():
        return None
    digits = digits[:14].ljust(14, "0")
    leap = digits[12:] == "60"
    parsed = datetime.strptime(digits[:12] + ("59" if leap else digits[12:]), "%Y%m%d%H%M%S") + timedelta(seconds=int(leap))
    micro = int((fraction or "0")[:6].ljust(6, "0")) if (fraction or "0").isdigit() else 0
    return np.datetime64(parsed + timedelta(microseconds=micro), "us")


def _image_type(of: Dataset) -> tuple[str, ...]:
    value = of.get("ImageType") or of.get("FrameType") or ()
    return (value,) if isinstance(value, str) else tuple(str(one) for one in value)


def _values(of: Dataset, scaling: Dataset) -> Values:
    signed, bits = int(of.get("PixelRepresentation") or 0), int(of.BitsAllocated)
    if bits not in (1, 8, 16, 32):
        raise ValueError("bits")
    if of.get("ModalityLUTSequence"):
        raise UnreadableHeader("its values pass a modality LUT, which is no scale and offset")
    stored, high = int(of.get("BitsStored") or bits), of.get("HighBit")
    if high is not None and int(high) != stored - 1:  # PS3.5, 8.1.1; decoders take the lowest bits all the same
        raise UnreadableHeader(f"its {stored} stored bits end at bit {int(high)}, not at {stored - 1} (HighBit): write it anew")
    slope, intercept = number(scaling, "RescaleSlope"), number(scaling, "RescaleIntercept")
    if slope == 0:
        raise UnreadableHeader("its rescale slope is 0, which makes all values one: write the right one, or take it out")
    kind = str(scaling.get("RescaleType") or "").strip()
    unit = {"BQML": "Bq/ml"}.get(str(of.get("Units") or ""), str(of.get("Units") or ""))
    if not unit:
        unit = kind if kind.upper() not in ("US", "NORMALIZED", "") else "HU" if of.get("Modality") == "CT" and not kind else ""
    padding = None
    first = of.get("PixelPaddingValue")
    if isinstance(first, int):
        last = of.get("PixelPaddingRangeLimit")
        padding = (min(first, last), max(first, last)) if isinstance(last, int) else (first, first)
    dtype = f"{'int' if signed else 'uint'}{max(bits, 16 if signed else 8)}"
    is_palette = str(of.get("PhotometricInterpretation") or "") == "PALETTE COLOR"
    if is_palette:
        if "RedPaletteColorLookupTableDescriptor" not in of:
            raise UnreadableHeader(
                "its values are numbers of colours, and it has no palette that states these (or a segmented one)"
            )
        dtype = f"uint{8 if int(of.RedPaletteColorLookupTableDescriptor[2]) <= 8 else 16}"
    return Values(
        dtype, 1.0 if slope is None else slope, intercept or 0.0, _short(unit), None if is_palette else padding, is_palette
    )


def _short(unit: str) -> str:
    """A unit, which is free text in the header: kept only if it looks like one."""
    return unit if len(unit) <= 12 and all(c.isalnum() or c in "/%^*.-" for c in unit) else ""


def _plain(of: Dataset, scaling: Dataset) -> Frame:
    """What the elements of one dataset say; of enhanced files those that do not depend on the frame."""
    clues = Clues(
        temporal=whole(of, "TemporalPositionIdentifier"),
        trigger_s=_scaled(number(of, "TriggerTime")),
        reference_s=_scaled(number(of, "FrameReferenceTime")),
        acquired=_acquired(of),
        acquisition=whole(of, "AcquisitionNumber"),
        content=parse_moment(of.get("ContentDate") or NO_DAY, of.get("ContentTime") or ""),
        instance=whole(of, "InstanceNumber"),
        is_day_stated=bool(of.get("AcquisitionDateTime") or of.get("AcquisitionDate")),
        repetition_s=_repetition(of, of),
    )
    spacing = numbers(of, "PixelSpacing", 2)
    return Frame(
        file=0,
        index=0,
        shape_yx=(int(of.Rows), int(of.Columns)),
        values=_values(of, scaling),
        clues=clues,
        position=_three(numbers(of, "ImagePositionPatient", 3)),
        orientation=numbers(of, "ImageOrientationPatient", 6),
        spacing_yx=None if spacing is None else (spacing[0], spacing[1]),
        thickness=number(of, "SliceThickness"),
        image_type=_image_type(of),
        contrast=(
            ("echo time", number(of, "EchoTime")),
            ("inversion time", number(of, "InversionTime")),
            ("flip angle", number(of, "FlipAngle")),
            ("tube voltage", number(of, "KVP")),
            ("b-value", b_value(of)),
            ("diffusion direction", _direction(of)),
            ("image type", (*_image_type(of)[2:], str(of.get("ComplexImageComponent") or ""), kind_of_image(of))),
            *kinds_of(of),
        ),
    )


def _three(found: tuple[float, ...] | None) -> tuple[float, float, float] | None:
    return None if found is None else (found[0], found[1], found[2])


def _direction(of: Dataset) -> tuple[float, ...] | None:
    try:
        return numbers(of, "DiffusionGradientOrientation", 3)
    except ValueError:
        return None


def _scaled(milliseconds: float | None) -> float | None:
    return None if milliseconds is None else milliseconds * MILLISECOND


def _acquired(of: Dataset) -> np.datetime64 | None:
    if of.get("AcquisitionDateTime"):
        return parse_moment(of.get("AcquisitionDateTime"), None)
    date = of.get("AcquisitionDate") or of.get("SeriesDate") or of.get("StudyDate")
    return parse_moment(date or NO_DAY, of.get("AcquisitionTime") or "")


def _repetition(of: Dataset, timing: Dataset) -> float | None:
    """Seconds between two volumes of a 2-D acquisition; unknown in 3-D, where one repetition is one line of k-space."""
    return None if str(of.get("MRAcquisitionType") or "2D") != "2D" else _scaled(number(timing, "RepetitionTime"))


# ---------------------------------------------------------------- enhanced files


def _enhanced(header: Header) -> Iterator[Frame]:
    """The frames of a file with functional groups (PS3.3, C.7.6.16.2)."""
    content = header.content
    shared = content.get("SharedFunctionalGroupsSequence")
    groups = content.PerFrameFunctionalGroupsSequence
    if len(groups) != frames_in(content):
        raise UnreadableHeader(f"it has functional groups of {len(groups)} frames and {frames_in(content)} frames")
    common = replace(_plain(content, content), file=header.number, fault=header.fault)
    for index, own in enumerate(groups):

        def group(name: str, own: Dataset = own) -> Any:
            from pydicom import Dataset

            for where in (own, shared[0] if shared else None):
                found = where.get(name) if where is not None else None
                if found:
                    return found[0]
            return Dataset()

        yield replace(_enhanced_frame(content, common, group, index), stored=stored_in(header, index))


def _enhanced_frame(content: Dataset, common: Frame, group: Any, index: int) -> Frame:
    measures, at, kind = group("PixelMeasuresSequence"), group("FrameContentSequence"), group("MRImageFrameTypeSequence")
    kind = kind if "FrameType" in kind else group("CTImageFrameTypeSequence")
    spacing, diffusion = numbers(measures, "PixelSpacing", 2), group("MRDiffusionSequence")
    timing = group("MRTimingAndRelatedParametersSequence")
    offset, delay = (
        group("TemporalPositionSequence"),
        group("CardiacSynchronizationSequence"),
    )
    moments = [parse_moment(at.get(name), None) for name in ("FrameAcquisitionDateTime", "FrameReferenceDateTime")]
    clues = replace(
        common.clues,
        temporal=whole(at, "TemporalPositionIndex") or _temporal_dimension(content, at) or common.clues.temporal,
        trigger_s=_scaled(number(delay, "NominalCardiacTriggerDelayTime")),
        reference_s=number(offset, "TemporalPositionTimeOffset"),
        acquired=moments[0] or moments[1] or common.clues.acquired,
        is_day_stated=any(moments) or common.clues.is_day_stated,
        acquisition=whole(at, "FrameAcquisitionNumber"),
        instance=index,
        repetition_s=_repetition(content, timing) or common.clues.repetition_s,
    )
    direction = diffusion.get("DiffusionGradientDirectionSequence")
    contrast = (
        ("echo time", number(group("MREchoSequence"), "EffectiveEchoTime")),
        ("flip angle", number(timing, "FlipAngle")),
        ("b-value", number(diffusion, "DiffusionBValue")),
        ("diffusion direction", _direction(direction[0]) if direction else None),
        ("image type", (*_image_type(kind)[2:], str(kind.get("ComplexImageComponent") or ""))),
        *kinds_of(group("CTReconstructionSequence")),
    )
    scaling = group("PixelValueTransformationSequence")
    return replace(
        common,
        index=index,
        values=_values(content, scaling if "RescaleSlope" in scaling else content),
        clues=clues,
        position=_three(numbers(group("PlanePositionSequence"), "ImagePositionPatient", 3)),
        orientation=numbers(group("PlaneOrientationSequence"), "ImageOrientationPatient", 6),
        spacing_yx=common.spacing_yx if spacing is None else (spacing[0], spacing[1]),
        thickness=number(measures, "SliceThickness") or common.thickness,
        image_type=common.image_type + _image_type(kind),
        contrast=contrast,
    )


def _temporal_dimension(content: Dataset, at: Dataset) -> int | None:
    """The index of a frame along the dimension of time, if the file has one (PS3.3, C.7.6.17)."""
    pointers = [int(one.get("DimensionIndexPointer") or 0) for one in content.get("DimensionIndexSequence") or ()]
    indices = at.get("DimensionIndexValues")
    indices = [indices] if isinstance(indices, int) else list(indices or ())
    return int(indices[pointers.index(TIMES)]) if TIMES in pointers and len(indices) == len(pointers) else None


# ---------------------------------------------------------------- Siemens mosaic


def _mosaic(header: Header) -> Iterator[Frame]:
    """The tiles of a Siemens mosaic as frames: slice k is the k-th tile, row by row.

    The position in the header is that of the corner of the whole mosaic as if it were one slice, so the first slice lies half of
    what it is larger further in (https://nipy.org/nibabel/dicom/dicom_mosaic.html). Slices follow each other along the normal of
    the CSA header, whose sign no other element states.
    """
    whole_image = replace(
        _plain(header.content, header.content), file=header.number, fault=header.fault, stored=stored_in(header, 0)
    )
    count, normal = _csa(header.content)
    step = number(header.content, "SpacingBetweenSlices")
    position, orientation, spacing = whole_image.position, whole_image.orientation, whole_image.spacing_yx
    if position is None or orientation is None or spacing is None or step is None:
        raise UnreadableHeader("it is a mosaic that does not state position, orientation, pixel spacing and spacing of slices")
    across = math.ceil(math.sqrt(count))
    rows, columns = (size // across for size in whole_image.shape_yx)
    if (rows * across, columns * across) != whole_image.shape_yx:
        raise UnreadableHeader(f"it is a mosaic of {count} slices, into which its rows and columns cannot be divided")
    along_row, along_column = np.array(orientation[:3]), np.array(orientation[3:])
    excess_yx = (whole_image.shape_yx[0] - rows) / 2, (whole_image.shape_yx[1] - columns) / 2
    first = np.array(position) + along_row * spacing[1] * excess_yx[1] + along_column * spacing[0] * excess_yx[0]
    for k in range(count):
        at = first + k * step * normal
        tile = (k // across * rows, k % across * columns)
        yield replace(whole_image, shape_yx=(rows, columns), position=(float(at[0]), float(at[1]), float(at[2])), tile=tile)


def _csa(content: Dataset) -> tuple[int, np.ndarray]:
    """(number of tiles, unit normal of the slices, LPS): of a de-identified file what was kept, else of its CSA header."""
    known = csa_numbers(content)
    if not known:
        if importlib.util.find_spec("nibabel") is None:
            raise UnreadableHeader("it is a Siemens mosaic, which needs nibabel: pip install 'driftline[medical]'")
        known = _numbers_of_header(content)
    count, normal = known.get("NumberOfImagesInMosaic", (0.0,)), known.get("SliceNormalVector", ())
    if count[0] < 1 or len(normal) != 3 or not np.any(normal):
        raise UnreadableHeader("it is a Siemens mosaic without its CSA header (number of slices and slice normal)")
    return int(count[0]), np.array(normal, float) / np.linalg.norm(normal)


def _numbers_of_header(content: Dataset) -> dict[str, tuple[float, ...]]:
    found: dict[str, tuple[float, ...]] = {}
    for element in range(0x10, 0x100):  # blocks of private creators
        tag = (0x0029 << 16) | (element << 8) | 0x10
        if tag in content:
            elements = csa_elements(content, tag)
            found |= {PLACES[place][0]: tuple(values) for place, values in elements.items()}
    return found
