"""The run in pictures: maps beside each other (`quicklook.png`) and in motion (`animation.gif`).

Figures are made through matplotlib's objects and drawn by Agg: no window system, no global state.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle
from PIL import Image

from pipelines.files import replacing
from pipelines.products.frames import Frame, Shades, shades_for

INK, MUTED, NOT_SEEN = "#1b1f24", "#5b6570", "#d5d8dc"
STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9.0,
    "text.color": INK,
    "axes.edgecolor": "#9aa3ad",
    "axes.linewidth": 0.6,
}
MOST_COLUMNS = 6


@dataclass(frozen=True)
class Maps:
    """What a quicklook shows of one variable. `truth` and `width` are aligned with `forecast`; truth is None where unknown.

    `extent` is (left, right, bottom, top) in units of the CRS; `crs` and `crs_unit` name them.
    """

    variable: str
    unit: str
    context: tuple[Frame, ...]
    forecast: tuple[Frame, ...]
    truth: tuple[Frame | None, ...]
    width: tuple[Frame, ...] = ()
    extent: tuple[float, float, float, float] = (0, 1, 0, 1)
    crs: str = ""
    crs_unit: str = "m"
    interval: float | None = None


@dataclass(frozen=True)
class _Row:
    title: str
    frames: tuple[Frame | None, ...]
    shades: Shades
    unit: str
    notes: tuple[str, ...] = ()


def draw_quicklook(maps: Maps, path: Path, title: str, subtitle: str = "") -> None:
    """Writes a PNG: rows for context, forecast, truth, error and interval width; one column per date."""
    rows = _rows(maps)
    columns = max(len(row.frames) for row in rows)
    left, right, bottom, top = maps.extent
    cell_in = 2.05
    height_in = float(np.clip(cell_in * abs(top - bottom) / abs(right - left), 1.1, 3.4))
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(1.75 + cell_in * columns + 1.0, 1.15 + (height_in + 0.34) * len(rows) + 0.35), facecolor="white")
        size_x, size_y = figure.get_size_inches()
        grid = GridSpec(
            len(rows), columns + 1, figure, width_ratios=[*[1.0] * columns, 0.06], hspace=0.34 / height_in, wspace=0.06,
            left=1.75 / size_x, right=1 - 0.85 / size_x, top=1 - 1.12 / size_y, bottom=0.42 / size_y,
        )  # fmt: skip
        figure.text(0.22 / size_x, 1 - 0.32 / size_y, title, size=14, weight="bold", va="center")
        figure.text(0.22 / size_x, 1 - 0.62 / size_y, subtitle, size=9.5, color=MUTED, va="center")
        for number, row in enumerate(rows):
            _draw_row(figure, grid, number, row, maps, columns)
        folder = f"{maps.crs}, ticks in {maps.crs_unit}" if maps.crs else ""
        notes = ["Grey: not seen.", flat_widths(maps), folder]
        figure.text(0.22 / size_x, 0.16 / size_y, "   ".join(note for note in notes if note), size=8, color=MUTED, va="center")
        save_figure(figure, path)


def _rows(maps: Maps) -> list[_Row]:
    known = [frame for frame in maps.truth if frame is not None]
    shades = shades_for(maps.variable, [*maps.context, *maps.forecast, *known])
    columns = min(max(len(maps.forecast), 1), MOST_COLUMNS)
    picked = sorted({round(i) for i in np.linspace(0, len(maps.forecast) - 1, columns)})
    forecast, truth = [tuple(frames[i] for i in picked) for frames in (maps.forecast, maps.truth)]
    rows = [_Row("Context", maps.context[-columns:], shades, maps.unit)] if maps.context else []
    rows.append(_Row("Forecast", forecast, shades, maps.unit))
    if known:
        errors = [error_frame(one, other) for one, other in zip(forecast, truth, strict=True)]
        notes = tuple("" if e is None else f"MAE {np.nanmean(np.abs(e.values_YX)):.3g}" for e in errors)
        rows.append(_Row("Observed", truth, shades, maps.unit))
        rows.append(_Row("Error:\nforecast\nminus truth", tuple(errors), _error_shades(errors), maps.unit, notes))
    if maps.width and not flat_widths(maps):
        width = tuple(maps.width[i] for i in picked)
        shown = shades_for("", list(width))
        nominal = f"{maps.interval:.0%} " if maps.interval else ""
        rows.append(_Row(f"Width of the\n{nominal}interval", width, Shades("cividis", 0, shown.high), maps.unit))
    return rows


def flat_widths(maps: Maps) -> str:
    """The interval in words where nearly every pixel of a date has the same one, but for the few at the end of what the variable
    can be: maps of it would say nothing. Else ''."""
    halves = []
    for frame in maps.width:
        seen = frame.values_YX[np.isfinite(frame.values_YX)]
        low, high = np.percentile(seen, [10, 90]) if seen.size else (0, 1)
        if high - low > 0.02 * max(float(high), 1e-9):
            return ""
        halves.append(f"{np.median(seen) / 2:.2g}")
    nominal = f"{maps.interval:.0%} interval" if maps.interval else "Interval"
    return f"{nominal}, half width by date: {', '.join(halves)}." if halves else ""


def error_frame(forecast: Frame, truth: Frame | None) -> Frame | None:
    """Forecast minus truth, NaN where either is; None if nothing can be compared."""
    if truth is None:
        return None
    difference = forecast.values_YX - truth.values_YX
    return Frame(forecast.date, difference) if np.isfinite(difference).any() else None


def _error_shades(errors: Sequence[Frame | None]) -> Shades:
    values = np.concatenate([np.abs(frame.values_YX[np.isfinite(frame.values_YX)]) for frame in errors if frame] or [np.ones(1)])
    largest = float(np.percentile(values, 98)) or 1.0
    return Shades("RdBu_r", -largest, largest)


def _draw_row(figure: Figure, grid: GridSpec, number: int, row: _Row, maps: Maps, columns: int) -> None:
    offset = columns - len(row.frames) if number == 0 and maps.context else 0
    image = None
    first = None
    for column, frame in enumerate(row.frames):
        axes = figure.add_subplot(grid[number, column + offset])
        first = first or axes
        is_corner = number == grid.nrows - 1 and column == 0
        drawn = draw_map(axes, frame, row.shades, maps.extent, ticks=is_corner)
        image = drawn or image
        note = row.notes[column] if row.notes else (day(frame.date) if frame else "")
        axes.set_title(note, size=9, pad=3, color=INK)
        if number == 0 and column == 0:
            draw_scale(axes, maps.extent, maps.crs_unit)
    box, size_x = grid[number, 0].get_position(figure), figure.get_size_inches()[0]
    figure.text(0.22 / size_x, box.y0 + box.height / 2, row.title, size=10, weight="bold", va="center", linespacing=1.4)
    if image is not None:
        bar = figure.colorbar(image, cax=figure.add_subplot(grid[number, columns]))
        bar.outline.set_linewidth(0.4)
        bar.ax.tick_params(labelsize=8, length=2, width=0.5)
        bar.set_label(label(maps.variable, row.unit), size=8.5)


def draw_map(
    axes: Axes, frame: Frame | None, shades: Shades, extent: tuple[float, float, float, float], *, ticks: bool = False
) -> AxesImage | None:
    """One map on `axes`, north up; returns the image, or None where there is nothing to show."""
    axes.set_facecolor(NOT_SEEN)
    axes.set_xlim(extent[0], extent[1])
    axes.set_ylim(extent[2], extent[3])
    axes.set_aspect("equal")
    if ticks:
        axes.locator_params(nbins=2)
        axes.ticklabel_format(style="plain", useOffset=False)
        axes.tick_params(labelsize=6.5, length=2, width=0.5, colors=MUTED)
    else:
        axes.set_xticks([])
        axes.set_yticks([])
    if frame is None or not np.isfinite(frame.values_YX).any():
        axes.text(0.5, 0.5, "not known" if frame is None else "nothing seen", transform=axes.transAxes, ha="center", color=MUTED)
        return None
    return axes.imshow(
        np.ma.masked_invalid(frame.values_YX), cmap=shades.colours, vmin=shades.low, vmax=shades.high, extent=extent,
        interpolation="nearest", aspect="equal",
    )  # fmt: skip


def draw_scale(axes: Axes, extent: tuple[float, float, float, float], unit: str) -> None:
    """A bar of a round length, at most a third of the map wide, in the lower left."""
    width = extent[1] - extent[0]
    length = round_length(width / 3)
    height = extent[3] - extent[2]
    x, y = extent[0] + 0.05 * width, extent[2] + 0.06 * height
    panel = (x - 0.03 * width, y - 0.025 * height)
    axes.add_patch(Rectangle(panel, length + 0.06 * width, 0.12 * height, fc="white", alpha=0.85, lw=0))
    axes.plot([x, x + length], [y, y], color=INK, lw=2, solid_capstyle="butt")
    text = f"{length / 1000:g} km" if unit in ("m", "metre") and length >= 1000 else f"{length:g} {unit}"
    axes.text(x + length / 2, y + 0.02 * height, text, ha="center", va="bottom", size=7.5)


def round_length(most: float) -> float:
    """The largest of 1, 2 or 5 times a power of ten that is at most `most`."""
    power = 10.0 ** math.floor(math.log10(most))
    return max(step * power for step in (1, 2, 5) if step * power <= most * (1 + 1e-9))


def draw_animation(maps: Maps, path: Path, title: str, *, milliseconds: int = 700) -> None:
    """Writes a GIF: the context's dates, then the forecast's, then a pause; date and kind stand in every frame."""
    shades = shades_for(maps.variable, [*maps.context, *maps.forecast])
    steps = [(frame, "observed", MUTED) for frame in maps.context] + [(frame, "forecast", "#b3400e") for frame in maps.forecast]
    pictures = [_animation_frame(maps, frame, kind, colour, shades, title) for frame, kind, colour in steps]
    durations = [milliseconds] * (len(pictures) - 1) + [3 * milliseconds]
    with replacing(path) as draft:
        pictures[0].save(draft, "GIF", save_all=True, append_images=pictures[1:], duration=durations, loop=0)


def _animation_frame(maps: Maps, frame: Frame, kind: str, colour: str, shades: Shades, title: str) -> Image.Image:
    left, right, bottom, top = maps.extent
    ratio = float(np.clip(abs(top - bottom) / abs(right - left), 0.4, 1.6))
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(5.2, 0.75 + 4.2 * ratio + 0.25), dpi=110, facecolor="white")
        size_x, size_y = figure.get_size_inches()
        axes = figure.add_axes((0.2 / size_x, 0.2 / size_y, 4.1 / size_x, 4.2 * ratio / size_y))
        image = draw_map(axes, frame, shades, maps.extent)
        for spine in axes.spines.values():
            spine.set(color=colour, linewidth=2.5)
        draw_scale(axes, maps.extent, maps.crs_unit)
        figure.text(0.2 / size_x, 1 - 0.22 / size_y, title, size=9, color=MUTED, va="center")
        figure.text(0.2 / size_x, 1 - 0.5 / size_y, day(frame.date), size=14, weight="bold", va="center")
        figure.text(4.3 / size_x, 1 - 0.5 / size_y, kind, size=12, weight="bold", color=colour, va="center", ha="right")
        if image is not None:
            bar = figure.colorbar(image, cax=figure.add_axes((4.42 / size_x, 0.2 / size_y, 0.13 / size_x, 4.2 * ratio / size_y)))
            bar.ax.tick_params(labelsize=8, length=2)
            bar.ax.set_title(label(maps.variable, maps.unit), size=8, pad=5)
        buffer = io.BytesIO()
        FigureCanvasAgg(figure).print_png(buffer)
    return Image.open(buffer).convert("P", palette=Image.Palette.ADAPTIVE, colors=128)


def save_figure(figure: Figure, path: Path, dpi: int = 130) -> None:
    """Writes `figure` as PNG in one rename; no time stamp inside, so that the same figure gives the same bytes."""
    FigureCanvasAgg(figure)
    with replacing(path) as draft:
        figure.savefig(draft, format="png", dpi=dpi, metadata={"Software": "driftline"})


def label(variable: str, unit: str) -> str:
    return f"{variable} [{unit}]" if unit and unit != "1" else variable


def day(date: np.datetime64) -> str:
    """`2020-06-15`, with the time of day where it is not midnight."""
    text = str(date.astype("datetime64[m]")).replace("T", " ")
    return text.removesuffix(" 00:00")
