"""Pictures of a patient's follow-up: single lesions before and after, with outlines, and the volumes of all visits."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pipelines.follow_up.analysis import FollowedPatient
from pipelines.follow_up.decisions import DecidedLesion
from pipelines.follow_up.measures import axial_axis
from pipelines.products.canvas import INK, MUTED, drawing, tidy

COLOURS = {  # of events, in pictures and on the page; told apart also by people who do not see red and green (Okabe and Ito)
    "new": "#d55e00",
    "enlarging": "#e69f00",
    "merging": "#cc79a7",
    "splitting": "#9470dc",
    "shrinking": "#56b4e9",
    "disappearing": "#0072b2",
    "stable": "#009e73",
    "rejected": "#8a939c",
}
HALF_MM, LEAST_HALF_PX = 28.0, 12  # of the part of a slice that a picture shows
WINDOW = 1.0, 99.7  # percentiles of the brain that are black and white


def draw_lesions(found: FollowedPatient, shown: Sequence[DecidedLesion], path: Path, title: str = "") -> None:
    """Writes a PNG with a row for each of `shown`: before, after, and the score of change in the axial slice with most of it.

    The outlines are those of the visit; the patient's left is on the right, as radiologists look at slices.
    """
    with drawing(path, (6.6, 2.3 * len(shown) + (0.35 if title else 0.05))) as figure:
        panels = figure.subplots(len(shown), 3, squeeze=False)
        for one, row in zip(shown, panels, strict=True):
            _draw_row(found, one, row)
        if title:
            figure.suptitle(title, x=0.01, ha="left", size=10, color=INK)


def _draw_row(found: FollowedPatient, one: DecidedLesion, row: np.ndarray) -> None:
    change, patient = one.change, found.patient
    axis = axial_axis(patient.grid)
    masks = [np.moveaxis(mask, axis, 0) for mask in found.followed.masks(change)]
    joined = masks[0] | masks[1]
    index = int(joined.sum(axis=(1, 2)).argmax())
    spacing = [step for n, step in enumerate(patient.grid.spacing) if n != axis]
    part, flips = _window(joined[index], spacing), _flips(found, axis)
    aspect = spacing[1] / spacing[0] if flips[0] else spacing[0] / spacing[1]  # height of a pixel over its width, as shown
    images = patient.images_TZYX[change.interval : change.interval + 2]
    colour = COLOURS["rejected" if not one.counts else change.event]
    for n, visit in enumerate(found.intervals[change.interval]):
        low, high = _levels(images[n], found)
        picture = np.moveaxis(images[n], axis, 0)[index][part]
        row[n].imshow(_turned(picture, flips), cmap="gray", vmin=low, vmax=high, aspect=aspect)
        if masks[n][index].any():
            row[n].contour(_turned(masks[n][index][part].astype(float), flips), [0.5], colors=colour, linewidths=1.3)
        row[n].set_title(f"visit {visit}", size=7.5, color=MUTED, pad=2)
    score = np.moveaxis(found.score_IZYX[change.interval], axis, 0)[index][part]
    row[2].imshow(_turned(score, flips), cmap="RdBu_r", vmin=-6, vmax=6, aspect=aspect)
    row[2].set_title("change (red: brighter)", size=7.5, color=MUTED, pad=2)
    for axes in row:
        axes.set(xticks=[], yticks=[])
    row[0].set_ylabel(f"lesion {change.number}: {change.event}", size=8, color=INK)


def _window(mask_YX: np.ndarray, spacing: Sequence[float]) -> tuple[slice, slice]:
    """The part of a slice around a lesion."""
    parts = []
    for n, step in enumerate(spacing):
        inside = np.flatnonzero(mask_YX.any(axis=1 - n))
        half = max(round(HALF_MM / step), LEAST_HALF_PX, (int(np.ptp(inside)) * 3) // 4)
        centre, size = int(inside.mean()), mask_YX.shape[n]
        first = min(max(centre - half, 0), max(size - 2 * half, 0))
        parts.append(slice(first, min(first + 2 * half, size)))
    return parts[0], parts[1]


def _levels(image_ZYX: np.ndarray, found: FollowedPatient) -> tuple[float, float]:
    """The values that are black and white, of the part that the brain fills."""
    brain = found.patient.brain_ZYX
    inside = image_ZYX[np.isfinite(image_ZYX) & (brain.astype(bool) if brain is not None else True)]
    low, high = np.percentile(inside[:: max(len(inside) // 200_000, 1)], WINDOW)
    return float(low), float(max(high, low + 1e-6))


def _flips(found: FollowedPatient, axis: int) -> tuple[bool, bool, bool]:
    """(transpose, flip rows, flip columns) that bring the patient's front up and the right side to the left."""
    columns = [n for n in range(3) if n != axis]  # array axes (z, y, x); the matrix has them in the order x, y, z
    steps = found.patient.grid.matrix[:2, :3][:, [2 - n for n in columns]]  # (x, y of the world) by (rows, columns)
    is_turned = abs(steps[0, 0]) > abs(steps[0, 1])  # rows run along the patient's left
    if is_turned:
        steps = steps[:, ::-1]
    return bool(is_turned), bool(steps[1, 0] < 0), bool(steps[0, 1] < 0)


def _turned(picture_YX: np.ndarray, flips: tuple[bool, bool, bool]) -> np.ndarray:
    turned = picture_YX.T if flips[0] else picture_YX
    turned = turned[::-1] if flips[1] else turned
    return turned[:, ::-1] if flips[2] else turned


def draw_volumes(found: FollowedPatient, path: Path) -> None:
    """Writes a PNG: the volume of all lesions at each visit, and thin lines for the largest single ones."""
    visits = list(range(len(found.patient.visits)))
    with drawing(path, (6.6, 2.6)) as figure:
        axes = figure.subplots()
        for one in largest_changes(found, 10):
            sizes = [0.0 if size is None else size.volume_ml for size in (one.change.before, one.change.after)]
            axes.plot([one.change.interval, one.change.interval + 1], sizes, color=COLOURS[one.change.event], lw=1.1, alpha=0.8)
        axes.plot(visits, found.volumes_ml, color=INK, lw=2.2, marker="o", ms=5)
        axes.set_xticks(visits, [f"visit {visit}" for visit in found.patient.visits])
        axes.set_ylabel("volume [ml]")
        axes.set_ylim(bottom=0)
        axes.set_title("All lesions (thick) and those that change most (thin, colour of the event)", size=8.5, loc="left")
        tidy(axes)


def largest_changes(found: FollowedPatient, most: int) -> list[DecidedLesion]:
    """Rows that count and are not stable, those with the largest change of volume first."""
    own = [one for one in found.counting if one.change.event != "stable"]
    return sorted(own, key=lambda one: -changed_ml(one))[:most]


def changed_ml(one: DecidedLesion) -> float:
    """The change of volume of a row, without its sign."""
    before, after = (0.0 if size is None else size.volume_ml for size in (one.change.before, one.change.after))
    return abs(after - before)
