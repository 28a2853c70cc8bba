"""Multi-frame images without a position in the patient (ultrasound, angiography): images in time, in their own plane.

The size of a pixel is taken where the header states it for the image as it is stored; nothing is derived from anything else.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines.calendar import UNKNOWN_ORIGIN, is_elapsed
from pipelines.errors import RequestError
from pipelines.grid import Grid, ImagePlane
from pipelines.sources.dicom_files import Header
from pipelines.sources.dicom_frames import Frame, number

if TYPE_CHECKING:
    from pydicom import Dataset

CENTIMETRES, TISSUE = 3, 1  # Physical Units and Region Spatial Format of PS3.3, C.8.5.5
MOTIONS = {"PositionerMotion": "gantry moves", "TableMotion": "table moves"}
HOW = "state the seconds between two frames as source.frame_time"


def is_cine(frames: Sequence[Frame]) -> bool:
    """True for frames of files with several each, none of which states a position."""
    per_file = len(frames) / len({frame.file for frame in frames})
    return per_file > 1 and all(frame.position is None for frame in frames)


def place_image(header: Header, frames: Sequence[Frame]) -> tuple[Grid, list[str]]:
    """(the grid in the plane of the image, notes). Raises RequestError for several clips."""
    clips = len({frame.file for frame in frames})
    if clips > 1:
        raise RequestError(
            f"several clips: the series has {clips} files with frames of their own; name one of them as source.path"
        )
    rows, columns = frames[0].shape_yx
    size_yx, note = pixel_size(header.content, frames[0])
    unit = "px" if size_yx is None else "mm"
    height, width = size_yx or (1.0, 1.0)
    grid = Grid(ImagePlane(unit), (width, 0.0, 0.0, 0.0, height, 0.0), (rows, columns))
    return grid, [one for one in (note, _motion(header)) if one]


def _motion(header: Header) -> str:
    """What is to be known of a gantry or a table that moves while the frames are taken (PS3.3, C.8.7.2, C.8.7.4)."""
    moving = [text for keyword, text in MOTIONS.items() if header.get(keyword) == "DYNAMIC"]
    if not moving:
        return ""
    return f"the {' and the '.join(moving)} during the run: a pixel shows other places of the patient from frame to frame"


def pixel_size(content: Dataset, frame: Frame) -> tuple[tuple[float, float] | None, str]:
    """((height, width) of a pixel in mm or None, what must be known of it)."""
    if frame.spacing_yx is not None and min(frame.spacing_yx) > 0:
        return frame.spacing_yx, ""
    unknown = "the size of a pixel is unknown: lengths are in pixels"
    if content.get("ImagerPixelSpacing"):
        return None, f"{unknown} (the header states that of the detector, which is not that of the patient)"
    regions = [region for region in content.get("SequenceOfUltrasoundRegions") or () if _is_tissue(region)]
    if not regions:
        return None, unknown
    sizes = {_deltas(region) for region in regions}
    if len(sizes) > 1:
        return None, f"{unknown} (its {len(regions)} regions state {len(sizes)} different ones)"
    edges = [[int(region.get(name) or 0) for name in ("RegionLocationMaxX1", "RegionLocationMaxY1")] for region in regions]
    if any(x > frame.shape_yx[1] or y > frame.shape_yx[0] for x, y in edges):
        return None, f"{unknown} (that of the ultrasound region is of an image of another size: the region ends outside this one)"
    (size,) = sizes
    if min(size) <= 0:
        return None, unknown
    return size, "the size of a pixel is that of the ultrasound region; beside it, it means nothing"


def _is_tissue(region: Dataset) -> bool:
    units = [region.get(name) for name in ("PhysicalUnitsXDirection", "PhysicalUnitsYDirection")]
    return units == [CENTIMETRES, CENTIMETRES] and region.get("RegionSpatialFormat") == TISSUE


def _deltas(region: Dataset) -> tuple[float, float]:
    """(height, width) of a pixel in mm, of PhysicalDelta in cm."""
    height, width = (abs(number(region, name) or 0.0) * 10 for name in ("PhysicalDeltaY", "PhysicalDeltaX"))
    return height, width


def frame_times(header: Header, frames: Sequence[Frame], frame_time: float | None) -> tuple[np.ndarray, list[str]]:
    """(datetime64[ns] of each frame, notes): as the config says, or by FrameTime, FrameTimeVector (PS3.3, C.7.6.5).

    Raises RequestError where no element says it; the rates of playback do not.
    """
    count, content = len(frames), header.content
    start = (
        frames[0].clues.acquired
        if content.get("AcquisitionDateTime") or content.get("AcquisitionTime")
        else frames[0].clues.content
    )
    is_dated = start is not None and not is_elapsed(start)
    origin = start.astype("datetime64[ns]") if start is not None and is_dated else UNKNOWN_ORIGIN
    notes = [] if is_dated else ["no acquisition date is stated: times are seconds since the first frame"]
    if frame_time is not None:
        notes.append(f"times by source.frame_time: {frame_time:g} s apart")
        milliseconds = 1000 * frame_time * np.arange(count)
    elif (vector := _vector(content.get("FrameTimeVector"))) is not None:
        if len(vector) != count or vector[1:].min(initial=np.inf) <= 0:
            raise RequestError(f"no frame times: its vector of frame times does not fit its {count} frames; {HOW}")
        milliseconds = np.concatenate([[0.0], np.cumsum(vector[1:])])
    else:
        step = number(content, "FrameTime") or number(content, "ActualFrameDuration")
        if not step or step <= 0:
            raise RequestError(f"no frame times: no element says when the {count} frames were (rates of playback do not); {HOW}")
        milliseconds = step * np.arange(count)
    return origin + np.round(milliseconds * 1e6).astype("timedelta64[ns]"), notes


def _vector(value: Any) -> np.ndarray | None:
    return None if value is None or np.size(value) < 2 else np.array([float(one) for one in value])
