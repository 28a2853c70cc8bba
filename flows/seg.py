"""Masks of a DICOM series as DICOM SEG: what `export-seg` and `track --run` share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import numpy as np

from flows import Json
from pipelines.errors import RequestError

if TYPE_CHECKING:
    from pipelines.products.dicom_objects import Maker
    from pipelines.products.dicom_seg import SegmentClass
    from pipelines.sources.dicom import DicomSource
    from pipelines.sources.dicom_references import ReferencedSeries
    from pipelines.tracking.label_series import LabelSeries

FORM = "--class 1=lesion, or with codes --class '1=lesion;SCT:49755003:Morphologically abnormal structure;SCT:52988006:Lesion'"
SAME_TIME = np.timedelta64(1, "ms")


@dataclass(frozen=True)
class Segments:
    """What is stated of the masks: their classes (none: they are numbered), and who made them."""

    classes: Sequence[SegmentClass]
    maker: Maker


def segments_of(classes: Sequence[str], made_by: str, algorithm: str | None = None) -> Segments:
    """From options of the command line: VALUE=NAME, AUTOMATIC and the like, NAME VERSION. Raises RequestError."""
    from pipelines.cube.store import release
    from pipelines.products.dicom_objects import Maker, MakerKind

    kind = next((one for one in get_args(MakerKind) if one == made_by.upper()), None)
    if kind is None:
        raise RequestError(f"--made-by {made_by}: expected one of {', '.join(get_args(MakerKind))}")
    maker = Maker(algorithm, "", kind) if algorithm else Maker("driftline", release(), kind)
    return Segments([parse_class(text) for text in classes], maker)


def write_seg(drawn: LabelSeries, images: DicomSource, out: Path, segments: Segments, *, identified: bool = False) -> Json:
    """Writes the files; which, their segments, and notes. Classes without a name are numbered.

    Raises RequestError (a series that cannot be read, or may name a patient; masks that are not of it), StorageFull.
    """
    return write_labels(drawn, series_to_name(images, out, len(drawn.times), identified=identified), out, segments)


def series_to_name(images: DicomSource, out: Path, times: int, *, identified: bool = False) -> ReferencedSeries:
    """The series that objects in `out`, of masks of so many times, refer to. Raises RequestError: see `write_seg`."""
    from pipelines.sources.dicom_references import referenced_series

    folder = images.path if images.path.is_dir() else images.path.parent
    if out.resolve().is_relative_to(folder.resolve()):
        raise RequestError(
            f"--out {out} lies in the folder of the series, where SEG files would be taken for images; name another"
        )
    referred, refused = referenced_series(images), images.list_scenes().refused
    if not (referred.is_deidentified or identified):
        problem = "the series does not state that it is de-identified (0012,0062), and SEG repeats its patient ID and name"
        raise RequestError(f"{problem}: name its de-identified copy, or state --identified where there is no patient to protect")
    if refused and times != len(referred.frames):
        problem = f"the masks have {times} times, of the series {len(referred.frames)} can be read"
        raise RequestError(f"{problem} and {len(refused)} not ({refused[0]}): leave out the masks of those")
    return referred


def write_labels(drawn: LabelSeries, referred: ReferencedSeries, out: Path, segments: Segments) -> Json:
    """As `write_seg`, of a series that is known."""
    from pipelines.products.dicom_seg import write_segmentations
    from pipelines.tracking.label_series import on_grid

    labels, notes = on_grid(drawn, len(referred.frames), referred.grid)
    if isinstance(drawn.times[0], np.datetime64):
        times_T = np.array(drawn.times, "datetime64[ns]")
        apart_T = (times_T - times_T[0]) - (referred.times_T - referred.times_T[0])
        if (np.abs(apart_T) > SAME_TIME).any():
            raise RequestError("the masks have other times than the series: name the series that they were drawn on")
    named = classes_of(drawn, segments)
    written = write_segmentations(labels, named, referred, out, segments.maker)
    return {"files": [str(path) for path in written], "segments": [one.name for one in named], "notes": notes}


def classes_of(drawn: LabelSeries, segments: Segments) -> Sequence[SegmentClass]:
    """The classes that are stated, else those that the masks name or number."""
    from pipelines.tracking.label_series import values_in

    return segments.classes or _unnamed(values_in(drawn.labels), drawn.names)


def _unnamed(values: list[int], names: dict[int, str]) -> list[SegmentClass]:
    from pipelines.products.dicom_seg import SegmentClass

    if not values:
        raise RequestError(f"the masks are empty; name their classes all the same: {FORM}")
    return [SegmentClass(one, names.get(one, f"class {one}" if len(values) > 1 else "object")) for one in values]


def parse_class(text: str) -> SegmentClass:
    """`1=lesion`, or `1=lesion;SCHEME:CODE:MEANING;SCHEME:CODE:MEANING` of category and type. Raises RequestError."""
    from pipelines.products.dicom_objects import Code
    from pipelines.products.dicom_seg import SegmentClass

    value, _, rest = text.partition("=")
    name, *codes = [part.strip() for part in rest.split(";")]
    parts = [code.split(":", 2) for code in codes]
    if not value.strip().isdigit() or not 0 < len(name) <= 64 or len(codes) not in (0, 2) or any(len(p) != 3 for p in parts):
        raise RequestError(f"--class {text}: expected {FORM}")
    if not parts:
        return SegmentClass(int(value), name)
    category, kind = (Code(code, scheme, meaning) for scheme, code, meaning in parts)
    return SegmentClass(int(value), name, category, kind)
