"""DICOM SEG files as masks: volumes of one time each (highdicom reads them), or one file of images in time (2D+t)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipelines.calendar import UNKNOWN_ORIGIN, is_elapsed
from pipelines.errors import RequestError
from pipelines.grid import Grid, ImagePlane, PatientFrame
from pipelines.sources.dicom_files import is_dicom, keyed_uid, require_pydicom, without_warnings
from pipelines.sources.dicom_frames import parse_moment
from pipelines.sources.nifti_header import SUFFIXES as NIFTI
from pipelines.tracking.label_series import LabelSeries
from pipelines.tracking.mask_files import SUFFIXES

if TYPE_CHECKING:
    from pydicom import Dataset

SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.4"
NO_DATE = "19000101"  # of content whose source states none: the element may not be empty


@dataclass(frozen=True)
class _Part:
    """The masks of a file, uint8 (time, [z,] y, x), and the seconds at which they are since the first of their series."""

    labels: np.ndarray
    seconds: tuple[float, ...]
    grid: Grid
    names: dict[int, str]
    start: np.datetime64 | None


def find_seg(paths: Sequence[Path]) -> list[Path]:
    """The DICOM files that are named, or that lie in the one folder that is; [] if there are none, or rasters beside them."""
    files = sorted(paths[0].iterdir()) if len(paths) == 1 and paths[0].is_dir() else list(paths)
    has_others = any(one.suffix.lower() in (*SUFFIXES, *NIFTI) for one in files)
    return [] if has_others else [one for one in files if is_dicom(one)]


def read_seg(paths: Sequence[Path]) -> LabelSeries:
    """The masks of SEG files of one series, in order of time; codes are the numbers of segments.

    Raises RequestError: other files, segments that overlap, several grids, no times.
    """
    require_pydicom()
    parts = []
    for number, path in enumerate(paths, start=1):
        label = f"DICOM file {number} of {len(paths)} (in order of name)"
        try:
            with without_warnings():
                parts.append(_read(path, label, has_others=len(paths) > 1))
        except RequestError:
            raise
        except Exception as e:  # pydicom and highdicom raise many kinds, whose texts may repeat values of the header
            raise RequestError(f"{label} cannot be read as a segmentation ({type(e).__name__}); copy it again") from None
    parts.sort(key=lambda part: part.seconds)
    first, seconds = parts[0], [second for part in parts for second in part.seconds]
    if any(part.names != first.names or not part.grid.is_aligned(first.grid) for part in parts):
        raise RequestError("the segmentations have several grids or several lists of segments; name those of one series")
    if len(set(seconds)) < len(seconds):
        raise RequestError(
            f"{len(seconds) - len(set(seconds))} segmentations are of a time that another one has; keep one of each"
        )
    start = UNKNOWN_ORIGIN if first.start is None or is_elapsed(first.start) else first.start
    times = [start + np.timedelta64(round((one - seconds[0]) * 1e9), "ns") for one in seconds]
    return LabelSeries(np.concatenate([part.labels for part in parts]), first.grid, times, first.names)


def _read(path: Path, label: str, has_others: bool) -> _Part:
    import pydicom

    content = pydicom.dcmread(path)
    if content.get("SOPClassUID") != SEGMENTATION or content.get("SegmentationType") != "BINARY":
        raise RequestError(f"{label} is no binary segmentation (DICOM SEG); masks are expected, not images")
    frames = content.PerFrameFunctionalGroupsSequence
    offsets = [_offset(item) for item in frames]
    is_volume = any("PlanePositionSequence" in item for item in (*frames, *content.SharedFunctionalGroupsSequence))
    if (has_others or not is_volume) and any(offset is None for offset in offsets):
        raise RequestError(f"{label} does not state which time it is of (TemporalPositionTimeOffset), so it is no series in time")
    names = {int(item.SegmentNumber): str(item.SegmentLabel) for item in content.SegmentSequence}
    labels, grid = _volume(content) if is_volume else _images(content)
    seconds = tuple(sorted({offset or 0.0 for offset in offsets}))
    if len(seconds) != len(labels):
        raise RequestError(f"{label} has frames of {len(seconds)} times where {len(labels)} are expected")
    date = content.get("ContentDate")
    start = None if date == NO_DATE else parse_moment(date, content.get("ContentTime"))
    return _Part(labels, seconds, grid, names, start)


def _offset(item: Dataset) -> float | None:
    found = item.get("TemporalPositionSequence")
    return float(found[0].TemporalPositionTimeOffset) if found else None


def _volume(content: Dataset) -> tuple[np.ndarray, Grid]:
    """((1, z, y, x), its grid). Slices without anything may be left out in the file."""
    from highdicom.seg import Segmentation

    frame_uid = str(content.get("FrameOfReferenceUID") or "")
    if not frame_uid:
        content.FrameOfReferenceUID = "2.25.1"  # highdicom reads positions in a frame with a name only
    volume = Segmentation.from_dataset(content, copy=False).get_volume(combine_segments=True).flip_spatial(0)
    matrix = volume.affine[:3][:, [2, 1, 0, 3]]  # of columns, rows, slices
    grid = Grid.from_centres(PatientFrame(keyed_uid(frame_uid)), matrix, volume.spatial_shape)
    return np.asarray(volume.array, np.uint8)[None], grid


def _images(content: Dataset) -> tuple[np.ndarray, Grid]:
    """((t, y, x), its grid), in order of TemporalPositionIndex."""
    shape_yx = int(content.Rows), int(content.Columns)
    frames = content.pixel_array.reshape(-1, *shape_yx)
    at = [int(item.FrameContentSequence[0].TemporalPositionIndex) for item in content.PerFrameFunctionalGroupsSequence]
    order = {index: t for t, index in enumerate(sorted(set(at)))}
    labels = np.zeros((len(order), *shape_yx), np.uint8)
    for index, item, pixels in zip(at, content.PerFrameFunctionalGroupsSequence, frames, strict=True):
        here = labels[order[index]]
        if (here[pixels != 0] != 0).any():
            raise RequestError("segments overlap, and a mask has one code for each pixel; export them one by one")
        here[pixels != 0] = item.SegmentIdentificationSequence[0].ReferencedSegmentNumber
    measures = content.SharedFunctionalGroupsSequence[0].get("PixelMeasuresSequence")
    height, width = (float(one) for one in measures[0].PixelSpacing) if measures else (1.0, 1.0)
    return labels, Grid(ImagePlane("mm" if measures else "px"), (width, 0.0, 0.0, 0.0, height, 0.0), shape_yx)
