"""Pictures of a class map: the map with its legend beside its confidence, accuracy by dates seen, confusion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.colors import ListedColormap

from pipelines.grid import Grid
from pipelines.inference.class_map import ClassMap
from pipelines.products.canvas import (
    INK,
    MUTED,
    STYLE,
    draw_foot,
    draw_image,
    draw_legend,
    draw_metres,
    draw_values,
    drawing,
    panels,
    save_figure,
    tidy,
    title,
)
from pipelines.products.charts import COLOURS, MARKERS
from pipelines.products.frames import Shades, place_on_map, thin_rows
from pipelines.products.layers import Class

MOST_DOTS = 2000  # more labels would hide the map


def draw_class_map(
    found: ClassMap,
    classes: Sequence[Class],
    labels_P3: np.ndarray,
    grid: Grid,
    path: Path,
    name: str,
    areas: Sequence[Mapping[str, Any]],
) -> None:
    """Writes a PNG: classes with a legend, at most MOST_DOTS labels of the span (row, column, class), and the confidence.

    `classes[0]`: not observed.
    """
    class_HW, confidence_HW = thin_rows(found.class_HW), thin_rows(found.confidence_HW)
    has_dots = 0 < len(labels_P3) <= MOST_DOTS
    with mpl.rc_context(STYLE):
        subtitle = f"{found.dates} dates from {found.span.text}"
        figure, (left, right) = panels(grid, 1, 2, f"{name}: classes", subtitle, 4.6)
        draw_image(left, class_HW, grid, ListedColormap([one.colour for one in classes]), -0.5, len(classes) - 0.5)
        if has_dots:
            x, y = _centres(labels_P3[:, 0], labels_P3[:, 1], grid)
            colours = [classes[k + 1].colour for k in labels_P3[:, 2]]
            left.scatter(x, y, s=9, c=colours, edgecolors=INK, linewidths=0.5, zorder=3)
        shares = {row["class"]: row["pixels"] / max(sum(one["pixels"] for one in areas), 1) for row in areas}
        entries = [
            (one.colour, f"{one.name} {shares[one.name]:{'.0%' if shares[one.name] >= 0.01 else '.1%'}}") for one in classes[1:]
        ]
        missing = [(classes[0].colour, "not observed")] if not class_HW.all() else []
        left.set(xticks=[], yticks=[])
        title(left, "Class (dots: labels)" if has_dots else "Class")
        draw_metres(left, grid)
        draw_values(
            right, confidence_HW, Shades("viridis", min(0.5, float(np.nanmin(confidence_HW, initial=1.0))), 1.0), grid, "p"
        )
        title(right, "Confidence")
        draw_foot(figure, grid, "Confidence: calibrated probability of the class that is shown.")
        draw_legend(left, [*entries, *missing])
        save_figure(figure, path)


def _centres(row_P: np.ndarray, column_P: np.ndarray, grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    """Where the centres of pixels lie on a map."""
    return place_on_map(grid, row_P + 0.5, column_P + 0.5)


def draw_by_dates(rows: Sequence[Mapping[str, Any]], shipped: str, measure: str, path: Path) -> None:
    """Writes a PNG: the measure on held-out blocks against the number of first dates seen, a line per method."""
    names = [shipped, *(key for key in rows[0] if key not in ("dates", shipped))]
    with drawing(path, (7.2, 3.4)) as figure:
        axes = figure.subplots()
        for n, method in enumerate(names):
            points = [(row["dates"], row[method]) for row in rows]
            axes.plot(
                *zip(*points, strict=True), f"{MARKERS[n]}-", color=COLOURS[n], lw=2.2 if n == 0 else 1.4, ms=5, label=method
            )
        axes.set(ylabel=measure, xlabel="first dates seen", ylim=(None, 1.01))
        axes.legend(frameon=False, fontsize=8.5, loc="lower right")
        title(axes, "When can it be known?")
        tidy(axes)


def draw_confusion(confusion: Sequence[Sequence[int]], classes: Sequence[str], path: Path) -> None:
    """Writes a PNG: labels of each true class (rows) by the predicted class (columns), shaded by the share of the row."""
    counts_KK = np.asarray(confusion, np.float64)
    share_KK = counts_KK / np.maximum(counts_KK.sum(axis=1, keepdims=True), 1)
    side = 1.6 + 0.75 * len(classes)
    with drawing(path, (side + 1.2, side)) as figure:
        axes = figure.subplots()
        axes.imshow(share_KK, cmap="Blues", vmin=0, vmax=1)
        for (row, column), number in np.ndenumerate(counts_KK.astype(int)):
            axes.text(column, row, str(number), ha="center", va="center", color="white" if share_KK[row, column] > 0.55 else INK)
        axes.set_xticks(range(len(classes)), list(classes), rotation=35, ha="right")
        axes.set_yticks(range(len(classes)), list(classes))
        axes.set_xlabel("predicted", color=MUTED)
        axes.set_ylabel("true", color=MUTED)
        tidy(axes, None, ("top", "right", "left", "bottom"))
