"""The picture of a class map of volumes: classes, and below them their probability, in the three planes through the middle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.colors import ListedColormap
from matplotlib.gridspec import GridSpec
from matplotlib.patheffects import withStroke

from pipelines.grid import Grid
from pipelines.inference.class_map import ClassMap
from pipelines.products.canvas import INK, MUTED, draw_legend, draw_scale, drawing, heading
from pipelines.products.frames import Frame, Shades, extent_of, image_extent
from pipelines.products.layers import GREY, Class
from pipelines.products.pictures import draw_map
from pipelines.products.slices import SliceView, middle_slice

UNDATED = np.datetime64("NaT", "ns")


def draw_class_planes(
    found: ClassMap, classes: Sequence[Class], grid: Grid, path: Path, name: str, rows: Sequence[Mapping[str, Any]]
) -> None:
    """Writes a PNG. `classes[0]`: not observed; `rows`: as of `class_areas`, for the shares in the legend."""
    views = [middle_slice(grid, dim) for dim in "zyx"]
    extents = [extent_of(view.grid) for view in views]
    ratios = [right - left for left, right, _, _ in extents]
    height_in = 9.0 * max(top - bottom for *_, bottom, top in extents) / sum(ratios)
    size_x, plane_in = 10.6, float(np.clip(height_in, 1.2, 4.5))
    size_y = 2 * plane_in + 2.3
    subtitle = f"{found.dates} times, {found.span.text}"
    with drawing(path, (size_x, size_y), layout=None) as figure:
        heading(figure, 0.22, (0.32, 0.62), f"{name}: class of each voxel", subtitle)
        lattice = GridSpec(2, 4, figure, width_ratios=[*ratios, 0.03 * sum(ratios)], wspace=0.08, hspace=0.5 / plane_in,
                           left=0.02, right=0.92, top=1 - 1.1 / size_y, bottom=0.5 / size_y)  # fmt: skip
        shares = {row["class"]: row["voxels"] / max(sum(one["voxels"] for one in rows), 1) for row in rows}
        low = min(0.5, float(np.nanmin([np.nanmin(plane_of(found.confidence_HW, view), initial=1.0) for view in views])))
        image = None
        for column, view in enumerate(views):
            upper, lower = (figure.add_subplot(lattice[row, column]) for row in range(2))
            extent = extents[column]
            upper.imshow(
                plane_of(found.class_HW, view), cmap=ListedColormap([one.colour for one in classes]), vmin=-0.5,
                vmax=len(classes) - 0.5, extent=image_extent(view.grid), interpolation="nearest", aspect="equal",
            )  # fmt: skip
            upper.set(xlim=extent[:2], ylim=extent[2:], xticks=[], yticks=[])
            upper.set_title(f"{view.sides[2]}   (slice {view.index + 1} along {view.dim})", size=9, pad=3, color=INK)
            confidence = Frame(UNDATED, plane_of(found.confidence_HW, view))
            image = draw_map(lower, confidence, Shades("viridis", low, 1.0), view.grid) or image
            lower.set_facecolor(GREY)
            for axes in (upper, lower):
                for x, text in ((0.02, view.sides[0]), (0.98, view.sides[1])):
                    axes.text(x, 0.5, text, transform=axes.transAxes, ha="left" if x < 0.5 else "right", va="center",
                              weight="bold", color="white", path_effects=[withStroke(linewidth=2, foreground=INK)])  # fmt: skip
        draw_scale(figure.axes[0], extents[0], "mm")
        entries = [
            (one.colour, f"{one.name} {shares[one.name]:{'.0%' if shares[one.name] >= 0.01 else '.1%'}}") for one in classes[1:]
        ]
        draw_legend(figure.axes[0], [*entries, *([(classes[0].colour, "not observed")] if not found.class_HW.all() else [])])
        if image is not None:
            bar = figure.colorbar(image, cax=figure.add_subplot(lattice[1, 3]))
            bar.outline.set_linewidth(0.4)
            bar.ax.tick_params(labelsize=8, length=2, width=0.5)
            bar.set_label("calibrated probability of the class", size=8.5)
        note = "Letters: right, left, anterior, posterior, head, feet of the patient. Grey: not observed."
        figure.text(0.22 / size_x, 0.16 / size_y, note, size=8, color=MUTED, va="center")


def plane_of(values_ZYX: np.ndarray, view: SliceView) -> np.ndarray:
    """The plane as it is drawn; only that is read of a memory map."""
    match view.dim:
        case "z":
            return view.drawn(np.asarray(values_ZYX[view.index]))
        case "y":
            return view.drawn(np.asarray(values_ZYX[:, view.index]))
    return view.drawn(np.asarray(values_ZYX[..., view.index]))
