"""Tracked objects as a picture: size over time, and where they were."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.dates import ConciseDateFormatter
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator

from pipelines.products.canvas import INK, MUTED, drawing, tidy, title
from pipelines.products.layers import GREY
from pipelines.tracking.objects import Space
from pipelines.tracking.table import size_columns, time_column

# Okabe & Ito (2008): told apart with any colour vision
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#7a5c1e", "#5b6570")
OTHER = "#b7bdc4"
# from a grey that stands out from paper (there on one date) on: what came late is there on few
THERE = LinearSegmentedColormap.from_list("there", ["#ccd2d8", "#929ca6"])
HALO = [withStroke(linewidth=2.2, foreground="white")]
TIME_LABELS = {"date": "date (UTC)", "seconds": "seconds since the first frame"}
MARKS = {"new": "^", "gone": "X", "merged": "D", "split": "s"}

Colours = Mapping[int, str]  # track -> colour, of those that have one


def draw_tracks(
    objects: pd.DataFrame, events: pd.DataFrame, space: Space, path: Path, heading: str, *, backdrop_YX: np.ndarray | None = None
) -> None:
    """Writes a PNG: on the left the size of every track over time, on the right the paths of their centroids.

    The largest tracks have a colour and a number, the others are grey. `backdrop_YX`: on how many dates each pixel was part of an
    object, drawn below the paths (for volumes: looked at along z). Hollow points: not seen on that date, size as last seen.
    """
    time = time_column(objects)
    size = size_columns(space)[0]
    factor, unit = size_scale(float(objects[size].max()), space.unit, "²" if space.axes == 2 else "³")
    colour_of = colours_of(objects, size)
    with drawing(path, (12.4, 5.4)) as figure:
        left, right = figure.subplots(1, 2, width_ratios=[1.25, 1])
        figure.suptitle(heading, size=13, weight="bold", x=0.01, ha="left")
        _draw_sizes(left, objects.assign(**{size: objects[size] * factor}), events, time, size, colour_of)
        left.set_ylabel(f"{size.split('_')[0]} [{unit}]")
        title(left, "Size over time")
        _draw_positions(right, objects, space, colour_of, backdrop_YX)
        title(right, "Where" + (" (darker: on more dates)" if backdrop_YX is not None else ""))
        key = _key(colour_of, objects.track_id.nunique())
        figure.legend(handles=key, loc="outside lower center", ncols=len(key), frameon=False, fontsize=8.5, handletextpad=0.3,
                      columnspacing=1.2)  # fmt: skip


def colours_of(objects: pd.DataFrame, size: str) -> Colours:
    """The colours of the largest tracks, by the column `size`."""
    largest = objects.groupby("track_id")[size].max().sort_values(ascending=False, kind="stable").index[: len(COLOURS)]
    return dict(zip(sorted(largest), COLOURS, strict=False))


def size_scale(largest: float, unit: str, power: str) -> tuple[float, str]:
    """(factor, unit in words) that keep the numbers of an axis short: m², ha or km²; mm², mm³ or ml."""
    if unit == "m" and power == "²" and largest >= 1e7:
        return 1e-6, "km²"
    if unit == "m" and power == "²" and largest >= 2e4:
        return 1e-4, "ha"
    if unit == "mm" and power == "³" and largest >= 1e4:
        return 1e-3, "ml"
    return 1.0, unit + power


def _draw_sizes(axes: Axes, objects: pd.DataFrame, events: pd.DataFrame, time: str, size: str, colour_of: Colours) -> None:
    for track_id, own in _grey_first(objects, colour_of):
        is_named, colour = track_id in colour_of, colour_of.get(track_id, OTHER)
        axes.plot(*_strung(own, time, size), color=colour, lw=1.7 if is_named else 0.8, zorder=3 if is_named else 2)
        seen = (own.event != "not seen").to_numpy()
        x, y = own[time].to_numpy(), own[size].to_numpy()
        axes.plot(x[seen], y[seen], "o", color=colour, ms=3.5 if is_named else 2, zorder=4)
        axes.plot(x[~seen], y[~seen], "o", mfc="white", mec=colour, mew=1, ms=4.5 if is_named else 3, zorder=4)
    _mark_events(axes, objects, events, time, size, colour_of)
    _number(axes, objects[objects.track_id.isin(list(colour_of))], time, size, colour_of)
    axes.set_ylim(bottom=0)
    axes.set_xlabel(TIME_LABELS.get(time, time))
    tidy(axes, "both")
    if time == "date":
        axes.xaxis.set_major_formatter(ConciseDateFormatter(axes.xaxis.get_major_locator()))
        axes.tick_params(axis="x", labelsize=8)
    elif time == "step":
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _mark_events(axes: Axes, objects: pd.DataFrame, events: pd.DataFrame, time: str, size: str, colour_of: Colours) -> None:
    """The sign of an event on its track, and dotted lines to where a track ends (gone, merged)."""
    lines: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    for event in events[events.event.isin(list(MARKS))].itertuples():
        others = [int(other) for other in event.others.split()]
        if not {event.track_id, *others} & colour_of.keys():
            continue
        for track_id in {event.track_id, *others} - lines.keys():
            own = objects[objects.track_id == track_id]
            lines[track_id] = own[time].to_numpy(), own[size].to_numpy()
        at = np.datetime64(event.date) if time == "date" else getattr(event, time)
        x, y = lines[event.track_id]
        here = y[x == at]
        height = float(here[0]) if here.size else 0.0
        ends = others if event.event == "merged" else [event.track_id] if event.event == "gone" else []
        for end in set(ends) & colour_of.keys():
            axes.plot([lines[end][0][-1], at], [lines[end][1][-1], height], color=colour_of[end], lw=1, ls=":", zorder=2)
        if event.track_id in colour_of:
            axes.plot(at, height, MARKS[event.event], color=colour_of[event.track_id], ms=8, mec="white", mew=0.8, zorder=5)


def _number(axes: Axes, objects: pd.DataFrame, time: str, size: str, colour_of: Colours) -> None:
    """Track numbers at the last point of each line, moved up where they would lie on each other."""
    gap = 0.035 * float(objects[size].max())
    lowest: dict[object, float] = {}
    last = objects.groupby("track_id").tail(1).sort_values([size, "track_id"], kind="stable")
    for track_id, x, y in zip(last["track_id"], last[time].to_numpy(), last[size], strict=True):
        height = max(float(y), lowest.get(x, 0.0))
        lowest[x] = height + gap
        axes.annotate(str(track_id), (x, height), xytext=(7, 0), textcoords="offset points", va="center",
                      color=colour_of[track_id], size=8.5, weight="bold", path_effects=HALO, zorder=6)  # fmt: skip


def _draw_positions(axes: Axes, objects: pd.DataFrame, space: Space, colour_of: Colours, backdrop_YX: np.ndarray | None) -> None:
    """In m (km, mm) from the upper left corner of the raster, row 0 above."""
    names = ["row", "column"] if space.axes == 2 else ["slice", "row", "column"]
    step_y, step_x = space.steps(objects[names].mean().to_numpy()[None])[0, -2:]
    most_y, most_x = (np.inf, np.inf) if backdrop_YX is None else backdrop_YX.shape
    factor, unit = (1e-3, "km") if space.unit == "m" and objects["row_to"].max() * step_y >= 2e4 else (1.0, space.unit)
    size_of = {"row": step_y * factor, "column": step_x * factor}
    parts = [(f"{axis}{end}", size) for axis, size in size_of.items() for end in ("", "_from", "_to")]
    objects = objects.assign(**{name: (objects[name] + 0.5) * size for name, size in parts})
    axes.set_facecolor("#fbfbfc")
    if backdrop_YX is not None:
        axes.imshow(np.ma.masked_equal(backdrop_YX, 0), cmap=THERE, vmin=0, vmax=float(backdrop_YX.max() or 1),
                    interpolation="nearest", extent=(0, most_x * size_of["column"], most_y * size_of["row"], 0))  # fmt: skip
    for track_id, own in _grey_first(objects, colour_of):
        colour, is_named = colour_of.get(track_id, OTHER), track_id in colour_of
        is_last = ~own.track_id.duplicated(keep="last")
        before, last = own[~is_last], own[is_last]
        axes.plot(*_strung(own, "column", "row"), "-", color=colour, lw=1.5 if is_named else 0.7, zorder=3)
        axes.plot(before["column"], before["row"], "o", color=colour, ms=2.5, zorder=3)
        # a white rim would look hollow, which means not seen
        axes.plot(last["column"], last["row"], "o", color=colour, mec=INK, mew=0.6, ms=6 if is_named else 3.5, zorder=4)
        if is_named:
            axes.annotate(str(track_id), (own["column"].iloc[-1], own["row"].iloc[-1]), xytext=(5, 4), textcoords="offset points",
                          color=colour, size=9, weight="bold", path_effects=HALO, zorder=5)  # fmt: skip
    axes.set_aspect("equal")
    axes.set(xlabel=f"{unit} from the left edge of the raster", ylabel=f"{unit} from the upper edge of the raster")
    # the whole raster, or no more than is needed: a few objects in a large one would be specks
    axes.set_xlim(_limits(objects, "column", size_of["column"], most_x))
    axes.set_ylim(_limits(objects, "row", size_of["row"], most_y)[::-1])
    axes.tick_params(labelsize=8, length=2)
    axes.spines[:].set_color(GREY)


def _limits(objects: pd.DataFrame, axis: str, pixel: float, most: float) -> tuple[float, float]:
    low, high = float(objects[f"{axis}_from"].min()), float(objects[f"{axis}_to"].max())
    margin = 0.06 * (high - low) + 2 * pixel
    if high - low + 2 * margin > most * pixel / 2:
        return 0.0, most * pixel
    return max(low - margin, 0.0), min(high + margin, most * pixel)


def _grey_first(objects: pd.DataFrame, colour_of: Colours) -> list[tuple[int, pd.DataFrame]]:
    """(track, its rows) of the named tracks; before them all others in one, 0: thousands of lines would take minutes."""
    grey = objects[~objects.track_id.isin(list(colour_of))].sort_values("track_id", kind="stable")
    return [(0, grey), *((track_id, objects[objects.track_id == track_id]) for track_id in sorted(colour_of))]


def _strung(rows: pd.DataFrame, x: str, y: str) -> tuple[np.ndarray, np.ndarray]:
    """(x, y) of one line through each track's rows, with a gap before the next track."""
    begin = np.flatnonzero(np.diff(rows.track_id.to_numpy())) + 1
    is_dated = rows[x].dtype.kind == "M"
    x_P, gap = rows[x].to_numpy() if is_dated else rows[x].to_numpy(float), np.datetime64("NaT") if is_dated else np.nan
    return np.insert(x_P, begin, gap), np.insert(rows[y].to_numpy(np.float64), begin, np.nan)


def _key(colour_of: Colours, count: int) -> Sequence[Line2D]:
    key = [Line2D([], [], color=colour, marker="o", ms=5, lw=1.7, label=str(track)) for track, colour in colour_of.items()]
    if count > len(colour_of):
        key.append(Line2D([], [], color=OTHER, marker="o", ms=3, lw=1, label=f"{count - len(colour_of)} smaller"))
    key += [Line2D([], [], color=INK, marker=marker, ms=6, lw=0, label=event) for event, marker in MARKS.items()]
    key.append(Line2D([], [], mfc="white", mec=MUTED, marker="o", ms=5, lw=0, label="not seen"))
    key.append(Line2D([], [], color=OTHER, mec=INK, mew=0.6, marker="o", ms=5, lw=0, label="last position"))
    return key
