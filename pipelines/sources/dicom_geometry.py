"""The volume that the frames of a DICOM series make: which slice each frame is, the grid, or by name why there is none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from pipelines.errors import RequestError
from pipelines.grid import Grid, PatientFrame
from pipelines.sources.dicom_frames import Frame

PARALLEL = 1e-3  # largest difference of direction cosines that counts as none
APART_PX = 0.01  # slices whose positions differ by less, in pixels, are one
EVEN = 0.01  # how far a step between slices may be from the mean step, a share of it
SHIFT = 5e-3  # how far the step may lean from the normal, a share of it
FEWEST = 3  # slices of one time


@dataclass(frozen=True)
class Slices:
    """`grid`, and for each frame of the series the index of its slice along z."""

    grid: Grid
    of_frame: np.ndarray


def place_slices(frames: Sequence[Frame], frame_uid: str) -> Slices:
    """The slices of a series, ordered along their normal (PS3.3, C.7.6.2.1.1), and their grid in LPS.

    Raises RequestError for a localizer, mixed sizes, mixed orientation, not a volume, gantry tilt, uneven increments.
    """
    _check_alike(frames)
    spacing, orientation = frames[0].spacing_yx, np.array(frames[0].orientation, float)
    assert spacing is not None
    along_row, along_column = orientation[:3], orientation[3:]
    normal = np.cross(along_row, along_column)
    positions = np.array([frame.position for frame in frames])
    depth = positions @ normal
    of_frame = _clusters(depth, APART_PX * min(spacing))
    count = int(of_frame.max()) + 1
    centres = np.array([positions[of_frame == k].mean(axis=0) for k in range(count)])
    drift = max(float(np.ptp(positions[of_frame == k], axis=0).max()) for k in range(count))
    if drift > 0.1 * min(spacing):
        raise RequestError(f"moving frames: images of one slice lie up to {drift:.3g} mm apart, so they have no common grid")
    if count == 1:
        thickness = frames[0].thickness
        if len(frames) == 1 or not thickness:
            images = f"all {len(frames)} images lie" if len(frames) > 1 else "the one image lies"
            raise RequestError(
                f"not a volume: {images} at one slice position{'' if thickness else ', and no thickness is stated'}"
            )
        step = normal * thickness
    else:
        step = _step(centres, normal, frames, of_frame)
    matrix = np.column_stack([along_row * spacing[1], along_column * spacing[0], step, centres[0]])
    return Slices(Grid.from_centres(PatientFrame(frame_uid), matrix, (count, *frames[0].shape_yx)), of_frame)


def _check_alike(frames: Sequence[Frame]) -> None:
    localizers = sum("LOCALIZER" in frame.image_type for frame in frames)
    if localizers:
        raise RequestError(
            f"localizer: {localizers} of {len(frames)} images are scouts to plan a scan on, no volume; choose another"
        )
    _only_one(frames, lambda frame: frame.shape_yx, "mixed sizes", "rows x columns", "{0[0]} x {0[1]}")
    unplaced = sum(frame.position is None or frame.orientation is None for frame in frames)
    if unplaced:
        raise RequestError(f"not a volume: {unplaced} of {len(frames)} images state no position and orientation in the patient")
    unsized = sum(frame.spacing_yx is None or min(frame.spacing_yx) <= 0 for frame in frames)
    if unsized:
        raise RequestError(f"no pixel spacing: {unsized} of {len(frames)} images do not state the size of a pixel")
    orientations = np.array([frame.orientation for frame in frames], float)
    first = orientations[0]
    directions = len(np.unique(np.round(orientations, 2), axis=0))
    if np.abs(orientations - first).max() > PARALLEL:
        raise RequestError(
            f"mixed orientation: the images lie in {max(directions, 2)} directions; export each stack as a series of its own, or "
            "choose one by its number (source.series) where their numbers differ"
        )
    rows = first.reshape(2, 3)
    if np.abs(rows @ rows.T - np.eye(2)).max() > PARALLEL:
        raise RequestError("wrong orientation: the directions of rows and columns are not two unit vectors at a right angle")
    _only_one(frames, lambda frame: frame.spacing_yx, "mixed pixel spacing", "mm", "{0[0]:g} x {0[1]:g}")
    _only_one(frames, lambda frame: frame.values.dtype, "mixed pixel types", "bits", "{0}")


def _only_one(frames: Sequence[Frame], key: Callable[[Frame], object], fault: str, unit: str, form: str) -> None:
    """Raises RequestError if the frames differ in `key`."""
    found = Counter(map(key, frames))
    if len(found) > 1:
        listed = ", ".join(f"{form.format(value)} ({count} images)" for value, count in found.most_common(3))
        raise RequestError(f"{fault}: {listed} ({unit}); export them as series of their own")


def _clusters(depth: np.ndarray, apart: float) -> np.ndarray:
    """For each of `depth` the number of its slice, in rising order; those closer than `apart` to their neighbour are one."""
    order = np.argsort(depth, kind="stable")
    numbers = np.concatenate([[0], np.cumsum(np.diff(depth[order]) > apart)])
    of_frame = np.empty(len(depth), np.int64)
    of_frame[order] = numbers
    return of_frame


def _step(centres: np.ndarray, normal: np.ndarray, frames: Sequence[Frame], of_frame: np.ndarray) -> np.ndarray:
    """The vector from a slice to the next. Raises RequestError for steps that lean or differ."""
    count, steps = len(centres), np.diff(centres, axis=0)
    along = steps @ normal
    mean: np.ndarray = (centres[-1] - centres[0]) / (count - 1)
    leaning = float(np.linalg.norm(mean - (mean @ normal) * normal) / np.linalg.norm(mean))
    if leaning > SHIFT:
        angle = np.degrees(np.arcsin(min(leaning, 1.0)))
        raise RequestError(
            f"gantry tilt: the slices are shifted against each other, their axis leans by {angle:.1f} degrees from the normal of "
            "the slices; resample the series to a straight grid first"
        )
    least = float(along.min())
    uneven = np.abs(along - along.mean()) > EVEN * along.mean()
    if not uneven.any():
        return mean
    at, widest = int(along.argmax()), float(along.max())
    holes = round(widest / least) - 1
    is_whole = holes >= 1 and np.abs(along / least - np.round(along / least)).max() < 0.05
    if is_whole and _has_gap(frames, of_frame, at):
        lacking = int(np.round(along / least - 1).sum())
        raise RequestError(
            f"missing slices: {lacking} of {count + lacking} are not there; the widest gap follows slice {at + 1}, where the "
            "numbers of the images have a gap too; export all slices"
        )
    guess = f", as if {holes} slice{'s' * (holes > 1)} were left out" if is_whole else ""
    raise RequestError(
        f"uneven increments: the slices lie {least:.4g} to {widest:.4g} mm apart, widest between slices {at + 1} and {at + 2} of "
        f"{count}{guess}; export all slices, or resample the series to even ones first"
    )


def _has_gap(frames: Sequence[Frame], of_frame: np.ndarray, after: int) -> bool:
    """True if the numbers of the images jump from slice `after` to the next by more than they do elsewhere."""
    numbers = [min((f.clues.instance for f, k in zip(frames, of_frame, strict=True) if k == one and f.clues.instance is not None),
                   default=None) for one in range(int(of_frame.max()) + 1)]  # fmt: skip
    if any(one is None for one in numbers):
        return False
    jumps = np.abs(np.diff(np.array(numbers, float)))
    return bool(jumps[after] > np.median(jumps))
