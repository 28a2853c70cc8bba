"""Growth of tracked objects as a picture: sizes and the next visit, rates with intervals, and all objects together."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.dates import ConciseDateFormatter
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from pipelines.products.canvas import INK, MUTED, drawing, tidy, title
from pipelines.products.track_plot import OTHER, TIME_LABELS, Colours, size_scale
from pipelines.tracking.growth import outline_errors
from pipelines.tracking.growth_tables import Growth
from pipelines.tracking.objects import Space
from pipelines.tracking.table import size_columns

MOST_RATES = 24  # rows of the panel of rates: those of the largest objects
MOST_TICKS = 6


def draw_growth(growth: Growth, objects: pd.DataFrame, space: Space, colour_of: Colours, path: Path, heading: str) -> None:
    """Writes a PNG of three panels; the colours are those of tracks.png.

    Left: sizes with the error of their outlines, on a logarithmic axis, and the size at the next visit (diamond) with its
    interval; a dotted line is no change. Middle: rates. Right: change of the sum of all objects since the first visit.
    """
    size = size_columns(space)[0]
    with drawing(path, (14.4, 4.8)) as figure:
        figure.suptitle(heading, size=13, weight="bold", x=0.01, ha="left")
        left, middle, right = figure.subplots(1, 3, width_ratios=[1.3, 1, 1])
        _draw_sizes(left, growth, objects, space, colour_of)
        title(left, "Size, and the next visit (diamonds)")
        _draw_rates(middle, growth, size, colour_of)
        title(middle, "Growth rate")
        _draw_totals(right, growth)
        title(right, "All objects together")
        bars = f"Bars: {100 * growth.settings.level:.0f} % intervals, from {growth.basis}; at sizes 2 errors of the outline"
        text = f"{bars}. Dotted: no change."
        figure.supxlabel(text, size=8, color=MUTED, x=0.01, ha="left")


def _draw_sizes(axes: Axes, growth: Growth, objects: pd.DataFrame, space: Space, colour_of: Colours) -> None:
    size, column = size_columns(space)[0], growth.time.unit.column
    named = objects[objects["track_id"].isin(list(colour_of)) & (objects["event"] != "not seen")]
    factor, unit = size_scale(float(objects[size].max()), space.unit, "²" if space.axes == 2 else "³")
    next_rows = growth.growth.set_index("track_id")
    count = max(len(colour_of), 1)
    step = np.diff(growth.time.values_T).min() / 30
    for number, (track_id, own) in enumerate(named.groupby("track_id")):
        colour = colour_of[int(str(track_id))]
        x, y = own[column].to_numpy(), own[size].to_numpy() * factor
        error = outline_errors(own, space, growth.settings.edge_error_px)
        axes.errorbar(x, y, [y - y * np.exp(-2 * error), y * np.exp(2 * error) - y], fmt="o-", color=colour, ms=3.5, lw=1.5,
                      elinewidth=0.8)  # fmt: skip
        row = next_rows.loc[track_id]
        expected, low, high = (float(row[f"next_{size}{end}"]) * factor for end in ("", "_low", "_high"))
        if np.isnan(expected):
            continue
        at = row[f"next_{column}"]
        at = (np.datetime64(at) if column == "date" else at) + (number - count / 2) * step
        axes.plot([x[-1], at], [y[-1], y[-1]], color=colour, lw=0.9, ls=":")
        axes.errorbar([at], [expected], [[expected - low], [high - expected]], fmt="D", color=colour, mfc="white", ms=5,
                      elinewidth=1.2, capsize=2)  # fmt: skip
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_ylabel(f"{size.split('_')[0]} [{unit}]")
    _time_axis(axes, column)


def _draw_rates(axes: Axes, growth: Growth, size: str, colour_of: Colours) -> None:
    rows = growth.growth[growth.growth[growth.rate].notna()]
    rows = rows.nlargest(MOST_RATES, f"last_{size}").sort_values("track_id", ascending=False)
    axes.axvline(0, color=INK, lw=0.8, ls=":")
    values, low, high = (rows[f"{growth.rate}{end}"].to_numpy() for end in ("", "_low", "_high"))
    for place, track_id in enumerate(rows["track_id"]):
        colour = colour_of.get(int(track_id), OTHER)
        axes.plot([low[place], high[place]], [place, place], color=colour, lw=1.6, solid_capstyle="butt")
        axes.plot(values[place], place, "o", color=colour, ms=5)
    axes.set_yticks(range(len(rows)), [f"track {track_id}" for track_id in rows["track_id"]], size=8)
    if len(rows):
        reach = 1.6 * max(float(np.abs(values).max()), float(np.median(np.maximum(np.abs(low), np.abs(high)))))
        axes.set_xlim(max(min(low.min(), 0.0), -reach) - 0.05 * reach, min(max(high.max(), 0.0), reach) + 0.05 * reach)
    else:
        axes.text(0.5, 0.5, "no track has two visits", transform=axes.transAxes, ha="center", color=MUTED)
    axes.xaxis.set_major_locator(MaxNLocator(MOST_TICKS))
    axes.set_xlabel(f"% per {growth.time.unit.rate}")
    tidy(axes, "x")


def _draw_totals(axes: Axes, growth: Growth) -> None:
    totals, column = growth.totals, growth.time.unit.column
    x = totals[column].to_numpy()
    change, low, high = (totals[f"since_first_percent{end}"].to_numpy() for end in ("", "_low", "_high"))
    axes.axhline(0, color=INK, lw=0.8, ls=":")
    errors = np.nan_to_num([change - low, high - change])
    axes.errorbar(x, change, errors, fmt="o-", color=INK, ms=4, lw=1.5, elinewidth=1.0, capsize=2)
    axes.set_ylabel("change since the first visit [%]")
    _time_axis(axes, column)


def _time_axis(axes: Axes, column: str) -> None:
    axes.set_xlabel(TIME_LABELS.get(column, column))
    tidy(axes, "both")
    if column == "date":
        axes.xaxis.set_major_formatter(ConciseDateFormatter(axes.xaxis.get_major_locator()))
        axes.tick_params(axis="x", labelsize=8)
    elif column == "step":
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
