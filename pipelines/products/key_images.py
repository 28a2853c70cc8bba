"""Key images of tracked objects: the frames where they are largest and smallest, with outlines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import xarray as xr
from matplotlib.gridspec import GridSpec

from pipelines.cube.store import bands_of, grid_of
from pipelines.grid import Grid
from pipelines.products.canvas import INK, MUTED, day, draw_scale, drawing, heading, outline
from pipelines.products.frames import Frame, extent_of, frame_labels, shades_for, step_for
from pipelines.products.pictures import NOT_SEEN_NOTE, draw_map
from pipelines.products.slices import SliceView, middle_slice
from pipelines.products.track_plot import OTHER, Colours, size_scale
from pipelines.tracking.objects import Space

KEY_IMAGES = "key_images.png"
Shown = tuple[Frame, np.ndarray, SliceView | None]  # values, tracks of the pixels, and the slice of a volume


def draw_key_images(
    cube: xr.Dataset, ids: Sequence[np.ndarray], space: Space, colour_of: Colours, path: Path, title: str
) -> None:
    """Writes a PNG of the times with most and with fewest tracked pixels (but some); of volumes the slice with most of them.

    `ids`: the track of each pixel ([z,] y, x) at each time of the cube, 0: none. Sizes are those of all objects, in `space`.
    """
    grid, counts_T = grid_of(cube), np.array([np.count_nonzero(one) for one in ids])
    pixel = float(np.prod(space.spacing))
    there = np.flatnonzero(counts_T)
    chosen = {"largest": int(there[counts_T[there].argmax()]), "smallest": int(there[counts_T[there].argmin()])}
    shown = {what: _shown(cube, grid, ids[t], t) for what, t in chosen.items()}
    shades = replace(shades_for("", [frame for frame, _, _ in shown.values()]), colours="gray")
    factor, unit = size_scale(counts_T.max() * pixel, space.unit, "²" if space.axes == 2 else "³")
    first = next(iter(shown.values()))[2]
    plane = grid if first is None else first.grid
    left, right, bottom, top = extent_of(plane)
    size_x, size_y = 9.4, 4.5 * float(np.clip(abs(top - bottom) / abs(right - left), 0.3, 1.6)) + 1.5
    with drawing(path, (size_x, size_y), layout=None) as figure:
        heading(figure, 0.22, (0.32, 0.62), title, "the outlines have the colours of tracks.png")
        places = GridSpec(1, 2, figure, wspace=0.04, left=0.02, right=0.98, top=1 - 1.05 / size_y, bottom=0.4 / size_y)
        for column, (what, (frame, ids_YX, view)) in enumerate(shown.items()):
            axes = figure.add_subplot(places[0, column])
            draw_map(axes, frame, shades, plane)
            for number in np.unique(ids_YX[ids_YX > 0]).tolist():
                outline(axes, ids_YX == number, plane, colour_of.get(number, OTHER), 1.4)
            size = counts_T[chosen[what]] * pixel * factor
            where = "" if view is None else f", slice {view.index + 1}"
            text = f"{what}: {size:.4g} {unit} at {day(frame.date, exact=True)}{where}"
            axes.set_title(text, size=9, pad=3, color=INK)
        draw_scale(figure.axes[0], extent_of(plane), frame_labels(plane)["crs_unit"])
        sides = "" if first is None else "Left {}, right {}, top {}, bottom {}.   ".format(*first.sides)
        is_missing = any(not np.isfinite(frame.values_YX).all() for frame, _, _ in shown.values())
        figure.text(
            0.22 / size_x, 0.16 / size_y, f"{sides}{NOT_SEEN_NOTE if is_missing else ''}", size=8, color=MUTED, va="center"
        )


def _shown(cube: xr.Dataset, grid: Grid, ids: np.ndarray, t: int) -> Shown:
    """What is drawn of time `t`, thinned."""
    taken, view = cube.isel(time=t, band=0), None
    if grid.is_volume:
        view = replace(middle_slice(grid), index=int((ids > 0).sum(axis=(1, 2)).argmax()))
        taken, ids = view.of_dataset(taken), ids[view.index]
    band, step = bands_of(cube)[0], step_for(ids.shape)
    valid_YX = cube["valid"].isel(time=t)
    valid_YX = valid_YX if view is None else valid_YX.isel(z=view.index)
    values_YX = np.where(valid_YX.values, taken["image"].values * band.scale + band.offset, np.nan).astype(np.float32)
    values_YX, ids_YX = values_YX[::step, ::step], ids[::step, ::step]
    if view is not None:
        values_YX, ids_YX = view.drawn(values_YX), view.drawn(ids_YX)
    return Frame(cube["time"].values[t], values_YX), ids_YX, view
