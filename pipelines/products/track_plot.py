"""Tracked objects as a picture: size over time, and where they were."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.dates import ConciseDateFormatter
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator

from pipelines.products.pictures import INK, MUTED, NOT_SEEN, STYLE, save_figure
from pipelines.tracking.objects import Space
from pipelines.tracking.table import size_columns

if TYPE_CHECKING:
    import pandas as pd

# Okabe & Ito (2008): told apart with any colour vision
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#7a5c1e", "#5b6570")
OTHER = "#b7bdc4"
# from a grey that stands out from paper (there on one date) on: what came late is there on few
THERE = LinearSegmentedColormap.from_list("there", ["#ccd2d8", "#929ca6"])
HALO = [withStroke(linewidth=2.2, foreground="white")]
MARKS = {"new": "^", "gone": "X", "merged": "D", "split": "s"}


def draw_tracks(
    objects: pd.DataFrame, events: pd.DataFrame, space: Space, path: Path, title: str, *, backdrop_YX: np.ndarray | None = None
) -> None:
    """Writes a PNG: on the left the size of every track over time, on the right the paths of their centroids.

    The largest tracks have a colour and a number, the others are grey. `backdrop_YX`: on how many dates each pixel was part of an
    object, drawn below the paths (for volumes: looked at along z). Hollow points: not seen on that date, size as last seen.
    """
    time = "date" if "date" in objects else "step"
    size, unit = size_columns(space)[0], space.unit
    power = "²" if space.axes == 2 else "³"
    factor, unit_label = size_scale(float(objects[size].max()), unit, power)
    largest = objects.groupby("track_id")[size].max().sort_values(ascending=False, kind="stable").index[: len(COLOURS)]
    colour_of = dict(zip(sorted(largest), COLOURS, strict=False))
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(12.4, 5.4), facecolor="white", layout="constrained")
        left, right = figure.subplots(1, 2, width_ratios=[1.25, 1])
        figure.suptitle(title, size=13, weight="bold", x=0.01, ha="left")
        _draw_sizes(left, objects, events, time, size, factor, colour_of)
        left.set_ylabel(f"{size.split('_')[0]} [{unit_label}]")
        left.set_title("Size over time", size=10, weight="bold", loc="left")
        _draw_positions(right, objects, time, space, colour_of, backdrop_YX)
        text = "Where" + (" (darker: on more dates)" if backdrop_YX is not None else "")
        right.set_title(text, size=10, weight="bold", loc="left")
        key = _key(colour_of, objects.track_id.nunique())
        figure.legend(handles=key, loc="outside lower center", ncols=len(key), frameon=False, fontsize=8.5, handletextpad=0.3,
                      columnspacing=1.2)  # fmt: skip
        save_figure(figure, path)


def size_scale(largest: float, unit: str, power: str) -> tuple[float, str]:
    """(factor, unit in words) that keep the numbers of an axis short: m², ha or km²; mm², mm³ or ml."""
    if unit == "m" and power == "²" and largest >= 1e7:
        return 1e-6, "km²"
    if unit == "m" and power == "²" and largest >= 2e4:
        return 1e-4, "ha"
    if unit == "mm" and power == "³" and largest >= 1e4:
        return 1e-3, "ml"
    return 1.0, unit + power


def _draw_sizes(
    axes: Axes, objects: pd.DataFrame, events: pd.DataFrame, time: str, size: str, factor: float, colour_of: dict[int, str]
) -> None:
    shown = objects.assign(**{size: objects[size] * factor})
    for track_id, own in _grey_first(shown, colour_of):
        is_named, colour = track_id in colour_of, colour_of.get(track_id, OTHER)
        axes.plot(*_strung(own, time, size), color=colour, lw=1.7 if is_named else 0.8, zorder=3 if is_named else 2)
        seen = (own.event != "not seen").to_numpy()
        x, y = own[time].to_numpy(), own[size].to_numpy()
        axes.plot(x[seen], y[seen], "o", color=colour, ms=3.5 if is_named else 2, zorder=4)
        axes.plot(x[~seen], y[~seen], "o", mfc="white", mec=colour, mew=1, ms=4.5 if is_named else 3, zorder=4)
    lines: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    for event in events[events.event.isin(list(MARKS))].itertuples():
        others = [int(other) for other in event.others.split()]
        if not {event.track_id, *others} & colour_of.keys():
            continue
        for track_id in {event.track_id, *others} - lines.keys():
            own = shown[shown.track_id == track_id]
            lines[track_id] = own[time].to_numpy(), own[size].to_numpy()
        at = np.datetime64(getattr(event, time)) if time == "date" else getattr(event, time)
        _mark(axes, lines, colour_of, event.track_id, event.event, others, at)
    named = {track_id: shown[shown.track_id == track_id] for track_id in colour_of}
    _number(axes, {track_id: (own[time].to_numpy(), own[size].to_numpy()) for track_id, own in named.items()}, colour_of)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("date (UTC)" if time == "date" else "step")
    axes.grid(color="#e3e6e9", lw=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    if time == "date":
        axes.xaxis.set_major_formatter(ConciseDateFormatter(axes.xaxis.get_major_locator()))
        axes.tick_params(axis="x", labelsize=8)
    else:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _mark(
    axes: Axes, lines: dict[int, tuple[np.ndarray, np.ndarray]], colour_of: dict[int, str],
    track_id: int, kind: str, others: list[int], at: Any,
) -> None:  # fmt: skip
    """The sign of an event on its track, and dotted lines to where a track ends (gone, merged)."""
    x, y = lines[track_id]
    here = y[x == at]
    folder = float(here[0]) if here.size else 0.0
    ends = others if kind == "merged" else [track_id] if kind == "gone" else []
    for end in set(ends) & colour_of.keys():
        axes.plot([lines[end][0][-1], at], [lines[end][1][-1], folder], color=colour_of[end], lw=1, ls=":", zorder=2)
    if track_id in colour_of:
        axes.plot(at, folder, MARKS[kind], color=colour_of[track_id], ms=8, mec="white", mew=0.8, zorder=5)


def _number(axes: Axes, lines: dict[int, tuple[np.ndarray, np.ndarray]], colour_of: dict[int, str]) -> None:
    """Track numbers at the last point of each line, moved up where they would lie on each other."""
    gap = 0.035 * max((float(y.max()) for _, y in lines.values()), default=1.0)
    lowest: dict[object, float] = {}
    for track_id, (x, y) in sorted(lines.items(), key=lambda line: float(line[1][1][-1])):
        height = max(float(y[-1]), lowest.get(x[-1], 0.0))
        lowest[x[-1]] = height + gap
        axes.annotate(str(track_id), (x[-1], height), xytext=(7, 0), textcoords="offset points", va="center",
                      color=colour_of[track_id], size=8.5, weight="bold", path_effects=HALO, zorder=6)  # fmt: skip


def _draw_positions(
    axes: Axes, objects: pd.DataFrame, time: str, space: Space, colour_of: dict[int, str], backdrop_YX: np.ndarray | None
) -> None:
    """In m (km, mm) from the upper left corner of the raster, row 0 above."""
    centre = np.array([[float(objects[name].mean()) for name in _axes_of(space)]])
    step_y, step_x = space.steps(centre)[0, -2:]
    most_y, most_x = (np.inf, np.inf) if backdrop_YX is None else backdrop_YX.shape
    factor, unit = (1e-3, "km") if space.unit == "m" and objects["row_to"].max() * step_y >= 2e4 else (1.0, space.unit)
    y_size, x_size = step_y * factor, step_x * factor
    columns_of = {
        "column": x_size,
        "column_from": x_size,
        "column_to": x_size,
        "row": y_size,
        "row_from": y_size,
        "row_to": y_size,
    }
    objects = objects.assign(**{name: (objects[name] + 0.5) * pixel for name, pixel in columns_of.items()})
    axes.set_facecolor("#fbfbfc")
    if backdrop_YX is not None:
        rows, columns = backdrop_YX.shape
        there = np.ma.masked_equal(backdrop_YX, 0)
        axes.imshow(there, cmap=THERE, vmin=0, vmax=float(backdrop_YX.max() or 1), interpolation="nearest",
                    extent=(0, columns * x_size, rows * y_size, 0))  # fmt: skip
    for track_id, own in _grey_first(objects, colour_of):
        colour, is_named = colour_of.get(track_id, OTHER), track_id in colour_of
        is_last = ~own.track_id.duplicated(keep="last")
        before, last = own[~is_last], own[is_last]
        axes.plot(*_strung(own, "column", "row"), "-", color=colour, lw=1.5 if is_named else 0.7, zorder=3)
        axes.plot(before["column"], before["row"], "o", color=colour, ms=2.5, zorder=3)
        axes.plot(last["column"], last["row"], "o", color=colour, mec="white", ms=6 if is_named else 3.5, zorder=4)
        if is_named:
            axes.annotate(str(track_id), (own["column"].iloc[-1], own["row"].iloc[-1]), xytext=(5, 4), textcoords="offset points",
                          color=colour, size=9, weight="bold", path_effects=HALO, zorder=5)  # fmt: skip
    axes.set_aspect("equal")
    axes.set(xlabel=f"{unit} from the left edge of the raster", ylabel=f"{unit} from the upper edge of the raster")
    # no more than is needed: a few objects in a large raster would be specks
    axes.set_xlim(_limits(objects, "column", x_size, most_x))
    axes.set_ylim(_limits(objects, "row", y_size, most_y)[::-1])
    axes.tick_params(labelsize=8, length=2)
    for spine in axes.spines.values():
        spine.set_color(NOT_SEEN)


def _limits(objects: pd.DataFrame, axis: str, pixel: float, most: float) -> tuple[float, float]:
    low, high = float(objects[f"{axis}_from"].min()), float(objects[f"{axis}_to"].max())
    margin = 0.06 * (high - low) + 2 * pixel
    return max(low - margin, 0.0), min(high + margin, most * pixel)


def _axes_of(space: Space) -> tuple[str, ...]:
    return ("row", "column") if space.axes == 2 else ("slice", "row", "column")


def _grey_first(objects: pd.DataFrame, colour_of: dict[int, str]) -> list[tuple[int, pd.DataFrame]]:
    """(track, its rows) of the named tracks; before them all others in one, 0: thousands of lines would take minutes."""
    grey = objects[~objects.track_id.isin(list(colour_of))].sort_values("track_id", kind="stable")
    return [(0, grey), *((track_id, objects[objects.track_id == track_id]) for track_id in sorted(colour_of))]


def _strung(rows: pd.DataFrame, x: str, y: str) -> tuple[np.ndarray, np.ndarray]:
    """(x, y) of one line through each track's rows, with a gap before the next track."""
    folder = np.flatnonzero(np.diff(rows.track_id.to_numpy())) + 1
    x_P, gap = rows[x].to_numpy(), np.datetime64("NaT") if rows[x].dtype.kind == "M" else np.nan
    return np.insert(x_P, folder, gap), np.insert(rows[y].to_numpy(np.float64), folder, np.nan)


def _key(colour_of: dict[int, str], count: int) -> list[Line2D]:
    key = [Line2D([], [], color=colour, marker="o", ms=5, lw=1.7, label=str(track)) for track, colour in colour_of.items()]
    if count > len(colour_of):
        key.append(Line2D([], [], color=OTHER, marker="o", ms=3, lw=1, label=f"{count - len(colour_of)} smaller"))
    key += [Line2D([], [], color=INK, marker=marker, ms=6, lw=0, label=event) for event, marker in MARKS.items()]
    key.append(Line2D([], [], mfc="white", mec=MUTED, marker="o", ms=5, lw=0, label="not seen"))
    return key
