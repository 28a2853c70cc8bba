"""What happened at a few pixels: observed values, what was expected, and when the alarm came."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure

from pipelines.grid import Grid
from pipelines.products.layer_cog import Rows
from pipelines.products.pictures import INK, MUTED, STYLE, label, save_figure

HISTORY, MONITORED, EXPECTED, CHANGE, ALARM = "#8f99a3", INK, "#0072b2", "#e69f00", "#d55e00"


@dataclass(frozen=True)
class Series:
    """One pixel. Days are float64 since 1970-01-01; `seen` are the usable observations, (N,) of `values` at `days`.

    `expected_days`, `expected` and `spread` (one standard deviation) draw the curve and its band of `width` deviations on either
    side; `change_day` and `detected_day` are NaN where nothing was found.
    """

    title: str
    days: np.ndarray
    values: np.ndarray
    expected_days: np.ndarray
    expected: np.ndarray
    spread: np.ndarray
    change_day: float = float("nan")
    detected_day: float = float("nan")
    recovered_day: float = float("nan")
    number: str = ""


def draw_change_series(
    series: Sequence[Series], path: Path, variable: str, unit: str, start_day: float, *, title: str = "", width: float = 2.0
) -> None:
    """Writes a PNG, one panel per pixel on a common time axis; `start_day` is where history ends and monitoring begins."""
    with mpl.rc_context(STYLE):
        size = (11.0, 0.95 + 1.75 * max(len(series), 1))
        figure = Figure(figsize=size, facecolor="white")
        panels = list(figure.subplots(max(len(series), 1), 1, sharex=True, squeeze=False)[:, 0])
        figure.subplots_adjust(
            left=0.72 / size[0], right=1 - 0.25 / size[0], top=1 - 0.88 / size[1], bottom=0.42 / size[1], hspace=0.36
        )
        figure.text(0.2 / size[0], 1 - 0.26 / size[1], title, size=13, weight="bold", va="center")
        if not series:
            panels[0].set_axis_off()
            panels[0].text(0.5, 0.5, "no patch to show", ha="center", color=MUTED, transform=panels[0].transAxes)
        for axes, one in zip(panels, series, strict=False):
            _draw(axes, one, start_day, width)
            axes.set_ylabel(label(variable, unit), color=MUTED)
        if series:
            _share_limits(panels, series)
            _legend(figure, panels[0], width)
        save_figure(figure, path)


def _draw(axes: Axes, one: Series, start_day: float, width: float) -> None:
    band = width * one.spread
    axes.fill_between(one.expected_days, one.expected - band, one.expected + band, color=EXPECTED, alpha=0.16, lw=0, zorder=1)
    axes.plot(one.expected_days, one.expected, color=EXPECTED, lw=1.2, zorder=2)
    is_history = one.days < start_day
    axes.plot(one.days[is_history], one.values[is_history], "o", ms=2.8, color=HISTORY, zorder=3)
    axes.plot(one.days[~is_history], one.values[~is_history], "o", ms=3.4, color=MONITORED, zorder=4)
    axes.axvline(start_day, color=MUTED, lw=0.8, ls=(0, (2, 2)), zorder=0)
    text = []
    if np.isfinite(one.change_day):
        axes.axvline(one.change_day, color=CHANGE, lw=1.6, zorder=2.5)
        text.append(f"change {_date(one.change_day)}")
    if np.isfinite(one.detected_day):
        axes.axvline(one.detected_day, color=ALARM, lw=1.6, ls=(0, (4, 2)), zorder=2.5)
        days = one.detected_day - one.change_day
        text.append(f"alarm {_date(one.detected_day)}" + (f", {days:.0f} days later" if days > 0 else ""))
    if np.isfinite(one.recovered_day):
        text.append(f"as expected again since {_date(one.recovered_day)}")
    head = f"{one.number}  {one.title}" if one.number else one.title
    axes.set_title(head, size=9.5, weight="bold", loc="left", pad=4)
    axes.set_title("; ".join(text) or "nothing found", size=8.5, loc="right", pad=4, color=INK if text else MUTED)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#e3e6e9", lw=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=8, length=2.5, width=0.6)


def _share_limits(panels: Sequence[Axes], series: Sequence[Series]) -> None:
    """One range of values for all, so that the panels can be compared; one outlier does not flatten the rest."""
    values = np.concatenate([np.concatenate([one.values, one.expected]) for one in series])
    values = values[np.isfinite(values)]
    low, high = np.percentile(values, [0.3, 99.7]) if values.size else (0.0, 1.0)
    pad = 0.14 * (high - low or 1.0)
    days = np.concatenate([np.concatenate([one.days, one.expected_days]) for one in series])
    for axes in panels:
        axes.set_ylim(low - pad, high + pad)
        if days.size:
            axes.set_xlim(days.min() - 10, days.max() + 10)
    locator = AutoDateLocator(minticks=4, maxticks=10)
    panels[-1].xaxis.set_major_locator(locator)
    panels[-1].xaxis.set_major_formatter(ConciseDateFormatter(locator, show_offset=False))


def _legend(figure: Figure, axes: Axes, width: float) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    size_x, size_y = figure.get_size_inches()
    handles = [
        Line2D([], [], marker="o", ls="", ms=4, color=HISTORY, label="history"),
        Line2D([], [], marker="o", ls="", ms=4, color=MONITORED, label="monitored"),
        Line2D([], [], color=EXPECTED, lw=1.4, label="expected"),
        Patch(color=EXPECTED, alpha=0.16, label=f"± {width:g} deviations"),
        Line2D([], [], color=CHANGE, lw=1.8, label="change"),
        Line2D([], [], color=ALARM, lw=1.8, ls=(0, (3, 1.5)), label="alarm"),
        Line2D([], [], color=MUTED, lw=0.9, ls=(0, (2, 2)), label="monitoring begins"),
    ]
    figure.legend(
        handles=handles, loc="center left", bbox_to_anchor=(0.12 / size_x, 1 - 0.52 / size_y), ncols=len(handles), frameon=False,
        fontsize=8.5, handlelength=1.5, columnspacing=1.4,
    )  # fmt: skip


def strongest_pixel(outline: Any, grid: Grid, evidence: Rows) -> tuple[int, int]:
    """(row, column) of the pixel inside `outline` (in the grid's CRS) whose evidence (score, magnitude) is largest."""
    from rasterio.features import rasterize

    left, bottom, right, top = outline.bounds
    corners = np.array([~grid.affine @ corner for corner in ((left, top), (right, bottom), (left, bottom), (right, top))])
    (column0, row0), (column1, row1) = np.rint(corners.min(axis=0)).astype(int), np.rint(corners.max(axis=0)).astype(int)
    part = grid.window(slice(int(row0), int(row1)), slice(int(column0), int(column1)))
    inside = rasterize([outline], part.shape_yx, transform=part.affine) == 1
    values = np.abs(np.asarray(evidence[row0:row1])[:, column0:column1])
    row, column = np.unravel_index(np.argmax(np.where(inside & np.isfinite(values), values, -1)), values.shape)
    return int(row0 + row), int(column0 + column)


def _date(day: float) -> str:
    return str(np.datetime64(int(np.floor(day)), "D"))
