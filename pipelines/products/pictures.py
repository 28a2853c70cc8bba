"""A forecast in pictures: maps beside each other (`quicklook.png`) and in motion (`animation.gif`)."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Literal

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec
from matplotlib.image import AxesImage
from matplotlib.patheffects import withStroke
from PIL import Image

from pipelines.calendar import is_elapsed
from pipelines.grid import Grid
from pipelines.products.canvas import INK, MUTED, STYLE, day, draw_scale, drawing, heading, label, save_animation, write_on
from pipelines.products.frames import Frame, Shades, extent_of, frame_labels, image_extent, north_text, shades_for
from pipelines.products.layers import GREY
from pipelines.products.report import shown
from pipelines.products.slices import SliceView

MOST_COLUMNS = 6
MINUTE = np.timedelta64(60, "s")
NOT_SEEN = "#1f7a4d"  # in images of a patient: no scale here has green (values: grey, errors: red and blue, intervals: to yellow)
NOT_SEEN_NOTE = "Green: not observed."


@dataclass(frozen=True)
class Maps:
    """What a quicklook shows of one variable. `truth` and `width` are aligned with `forecast`; truth is None where unknown.

    `context` are the clear ones among the `context_dates` that the forecast used.
    """

    variable: str
    unit: str
    grid: Grid
    context: tuple[Frame, ...]
    forecast: tuple[Frame, ...]
    truth: tuple[Frame | None, ...]
    width: tuple[Frame, ...] = ()
    interval: float | None = None
    context_dates: int = 0
    note: str = ""  # which slice of a volume is shown


@dataclass(frozen=True)
class _Row:
    title: str
    frames: Sequence[Frame | None]
    shades: Shades
    notes: Sequence[str]
    offset: int = 0  # columns that stay free on the left
    extend: Literal["both", "neither"] = "neither"  # arrows at the ends of the bar, where values are cut off


def draw_quicklook(maps: Maps, path: Path, title: str, subtitle: str = "") -> None:
    """Writes a PNG: rows for context, forecast, truth, error and interval width; one column per date."""
    rows = _rows(maps)
    columns = max(len(row.frames) for row in rows)
    left, right, bottom, top = extent_of(maps.grid)
    crs, unit = frame_labels(maps.grid).values()
    cell_in = 2.05
    height_in = float(np.clip(cell_in * abs(top - bottom) / abs(right - left), 1.1, 3.4))
    size_x, size_y = 1.75 + cell_in * columns + 1.0, 1.15 + (height_in + 0.34) * len(rows) + 0.35
    with drawing(path, (size_x, size_y), layout=None) as figure:
        grid = GridSpec(
            len(rows), columns + 1, figure, width_ratios=[*[1.0] * columns, 0.06], hspace=0.34 / height_in, wspace=0.06,
            left=1.75 / size_x, right=1 - 0.85 / size_x, top=1 - 1.12 / size_y, bottom=0.42 / size_y,
        )  # fmt: skip
        heading(figure, 0.22, (0.32, 0.62), title, subtitle)
        for number, row in enumerate(rows):
            _draw_row(figure, grid, number, row, maps)
        draw_scale(figure.axes[0], extent_of(maps.grid), unit)
        missing = "Grey: not observed." if maps.grid.is_on_earth else NOT_SEEN_NOTE
        north = "" if maps.grid.is_straight else f", {north_text(maps.grid)}"
        frame = f"{crs}, ticks in {unit}{north}" if maps.grid.is_on_earth else ""
        notes = [missing, flat_widths(maps), frame]
        figure.text(0.22 / size_x, 1 - 0.86 / size_y, maps.note, size=8, color=MUTED, va="center")
        figure.text(0.22 / size_x, 0.16 / size_y, "   ".join(note for note in notes if note), size=8, color=MUTED, va="center")


def _rows(maps: Maps) -> list[_Row]:
    known = [frame for frame in maps.truth if frame is not None]
    shades = shades_of(maps, known)
    columns = min(max(len(maps.forecast), 1), MOST_COLUMNS)
    picked = sorted({round(i) for i in np.linspace(0, len(maps.forecast) - 1, columns)})
    forecast, truth = [maps.forecast[i] for i in picked], [maps.truth[i] for i in picked]
    context = maps.context[-columns:]
    noun = "frames" if is_elapsed(maps.forecast[0].date) else "dates"
    part = f"\n({len(context)} of {maps.context_dates} {noun})" if maps.context_dates > len(context) else ""
    offset = max(len(picked), len(context)) - len(context)
    rows = [_Row(f"Context{part}", context, shades, _days(maps, context), offset)] if context else []
    rows.append(_Row("Forecast", forecast, shades, _days(maps, forecast)))
    if known:
        errors = [error_frame(one, other) for one, other in zip(forecast, truth, strict=True)]
        notes = ["" if error is None else f"MAE {shown(np.nanmean(np.abs(error.values_YX)), 'number')}" for error in errors]
        rows.append(_Row("Observed", truth, shades, _days(maps, truth)))
        seen = [np.abs(error.values_YX[np.isfinite(error.values_YX)]) for error in errors if error]
        largest = float(np.percentile(np.concatenate(seen), 98)) if seen else 1.0
        shades_of_errors = Shades("RdBu_r", -(largest or 1.0), largest or 1.0)
        rows.append(_Row("Error:\nforecast\nminus\nobserved", errors, shades_of_errors, notes, extend="both"))
    if maps.width and not flat_widths(maps):
        width = [maps.width[i] for i in picked]
        text = f"Width of\nthe {f'{100 * maps.interval:g} %' if maps.interval else ''}\ninterval"
        rows.append(_Row(text, width, replace(shades_for("", width), colours="cividis"), _days(maps, width), extend="both"))
    return rows


def shades_of(maps: Maps, known: Sequence[Frame] = ()) -> Shades:
    """The colours of a variable; images of a patient are grey."""
    shades = shades_for(maps.variable, [*maps.context, *maps.forecast, *known])
    return shades if maps.grid.is_on_earth else replace(shades, colours="gray")


def _days(maps: Maps, frames: Sequence[Frame | None]) -> list[str]:
    """The dates; with seconds where frames lie less than a minute apart."""
    dates = [frame.date for frame in (*maps.context, *maps.forecast)]
    is_fast = any(later - earlier < MINUTE for earlier, later in pairwise(dates))
    return [day(frame.date, exact=is_fast) if frame else "" for frame in frames]


def flat_widths(maps: Maps) -> str:
    """The interval in words where nearly every pixel of a date has the same one, but for the few at the end of what the variable
    can be, where it is cut: maps of it would say nothing. Else '', as where it is wider in any part, however small."""
    halves, alike = [], 1.0
    for frame in maps.width:
        seen = frame.values_YX[np.isfinite(frame.values_YX)]
        low, high = np.percentile(seen, [10, 100]) if seen.size else (0, 1)
        least = high - 0.02 * max(float(high), 1e-9)
        if low < least:
            return ""
        alike = min(alike, float(np.mean(seen >= least)))
        halves.append(shown(float(high) / 2, "number"))
    nominal = f"{100 * maps.interval:g} % interval" if maps.interval else "Interval"
    where = "all pixels shown" if alike == 1 else f"{int(100 * alike)} % of the pixels shown, narrower in the others"
    return f"{nominal}, alike in {where}, half width by date: {', '.join(halves)}." if halves else ""


def error_frame(forecast: Frame, truth: Frame | None) -> Frame | None:
    """Forecast minus truth, NaN where either is; None if nothing can be compared."""
    if truth is None:
        return None
    difference = forecast.values_YX - truth.values_YX
    return Frame(forecast.date, difference) if np.isfinite(difference).any() else None


def _draw_row(figure: Figure, grid: GridSpec, number: int, row: _Row, maps: Maps) -> None:
    image = None
    for column, (frame, note) in enumerate(zip(row.frames, row.notes, strict=True)):
        axes = figure.add_subplot(grid[number, column + row.offset])
        image = draw_map(axes, frame, row.shades, maps.grid, ticks=number == grid.nrows - 1 and column == 0) or image
        axes.set_title(note, size=9, pad=3, color=INK)
    box, size_x = grid[number, 0].get_position(figure), figure.get_size_inches()[0]
    figure.text(0.22 / size_x, box.y0 + box.height / 2, row.title, size=10, weight="bold", va="center", linespacing=1.4)
    if image is not None:
        bar = figure.colorbar(image, cax=figure.add_subplot(grid[number, grid.ncols - 1]), extend=row.extend)
        bar.outline.set_linewidth(0.4)
        bar.ax.tick_params(labelsize=8, length=2, width=0.5)
        bar.set_label(label(maps.variable, maps.unit), size=8.5)


def draw_map(axes: Axes, frame: Frame | None, shades: Shades, grid: Grid, *, ticks: bool = False) -> AxesImage | None:
    """One map on `axes`, north up; returns the image, or None where there is nothing to show."""
    extent = extent_of(grid)
    axes.set_facecolor(GREY if grid.is_on_earth else NOT_SEEN)
    axes.set(xlim=extent[:2], ylim=extent[2:], aspect="equal")
    if ticks:
        axes.locator_params(nbins=2)
        axes.ticklabel_format(style="plain", useOffset=False)
        axes.tick_params(labelsize=6.5, length=2, width=0.5, colors=MUTED)
    else:
        axes.set(xticks=[], yticks=[])
    if frame is None or not np.isfinite(frame.values_YX).any():
        write_on(axes, "not known" if frame is None else "nothing observed")
        return None
    image = axes.imshow(
        np.ma.masked_invalid(frame.values_YX), cmap=shades.colours, vmin=shades.low, vmax=shades.high,
        extent=image_extent(grid), interpolation="nearest", aspect="equal",
    )  # fmt: skip
    axes.set(xlim=extent[:2], ylim=extent[2:])
    return image


def draw_three_planes(
    planes: Sequence[tuple[SliceView, np.ndarray]], variable: str, unit: str, path: Path, title: str, subtitle: str
) -> None:
    """Writes a PNG: planes of one volume beside each other, to one scale in mm, with the sides of the patient."""
    shades = replace(shades_for(variable, [Frame(np.datetime64("NaT"), values_YX) for _, values_YX in planes]), colours="gray")
    extents = [extent_of(view.grid) for view, _ in planes]
    ratios = [right - left for left, right, _, _ in extents]
    height_in = 9.0 * max(top - bottom for *_, bottom, top in extents) / sum(ratios)
    size_x, size_y = 10.6, float(np.clip(height_in, 1.5, 6.0)) + 1.7
    with drawing(path, (size_x, size_y), layout=None) as figure:
        heading(figure, 0.22, (0.32, 0.62), title, subtitle)
        grid = GridSpec(1, 4, figure, width_ratios=[*ratios, 0.03 * sum(ratios)], wspace=0.08,
                        left=0.02, right=0.92, top=1 - 1.1 / size_y, bottom=0.45 / size_y)  # fmt: skip
        image = None
        for column, (view, values_YX) in enumerate(planes):
            axes = figure.add_subplot(grid[0, column])
            image = draw_map(axes, Frame(np.datetime64("NaT"), values_YX), shades, view.grid) or image
            axes.set_title(f"{view.sides[2]}   (slice {view.index + 1} along {view.dim})", size=9, pad=3, color=INK)
            for x, text in ((0.02, view.sides[0]), (0.98, view.sides[1])):
                axes.text(x, 0.5, text, transform=axes.transAxes, ha="left" if x < 0.5 else "right", va="center", weight="bold",
                          color="white", path_effects=[withStroke(linewidth=2, foreground=INK)])  # fmt: skip
        draw_scale(figure.axes[0], extents[0], "mm")
        if image is not None:
            bar = figure.colorbar(image, cax=figure.add_subplot(grid[0, 3]))
            bar.outline.set_linewidth(0.4)
            bar.ax.tick_params(labelsize=8, length=2, width=0.5)
            bar.set_label(label(variable, unit), size=8.5)
        note = f"Letters: right, left, anterior, posterior, head, feet of the patient. {NOT_SEEN_NOTE}"
        figure.text(0.22 / size_x, 0.16 / size_y, note, size=8, color=MUTED, va="center")


def draw_animation(maps: Maps, path: Path, title: str) -> None:
    """Writes a GIF: the context's dates, then the forecast's, then a pause; date and kind stand in every frame."""
    shades = shades_of(maps)
    steps = [(frame, "observed", MUTED) for frame in maps.context] + [(frame, "forecast", "#b3400e") for frame in maps.forecast]
    pictures = [_animation_frame(maps, frame, kind, colour, shades, title) for frame, kind, colour in steps]
    save_animation(pictures, path, milliseconds=700, pause=3)


def _animation_frame(maps: Maps, frame: Frame, kind: str, colour: str, shades: Shades, title: str) -> Image.Image:
    left, right, bottom, top = extent_of(maps.grid)
    height_in = 4.2 * float(np.clip(abs(top - bottom) / abs(right - left), 0.4, 1.6))
    size_x, size_y = 5.2, 0.75 + height_in + 0.25
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(size_x, size_y), dpi=110, facecolor="white")
        axes = figure.add_axes((0.2 / size_x, 0.2 / size_y, 4.1 / size_x, height_in / size_y))
        image = draw_map(axes, frame, shades, maps.grid)
        for spine in axes.spines.values():
            spine.set(color=colour, linewidth=2.5)
        draw_scale(axes, extent_of(maps.grid), frame_labels(maps.grid)["crs_unit"])
        figure.text(0.2 / size_x, 1 - 0.22 / size_y, title, size=9, color=MUTED, va="center")
        figure.text(0.2 / size_x, 1 - 0.5 / size_y, day(frame.date), size=14, weight="bold", va="center")
        figure.text(4.3 / size_x, 1 - 0.5 / size_y, kind, size=12, weight="bold", color=colour, va="center", ha="right")
        if image is not None:
            bar = figure.colorbar(image, cax=figure.add_axes((4.42 / size_x, 0.2 / size_y, 0.13 / size_x, height_in / size_y)))
            bar.ax.tick_params(labelsize=8, length=2)
            bar.ax.set_title(label(maps.variable, maps.unit), size=8, pad=5)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=110)
    return Image.open(buffer).convert("P", palette=Image.Palette.ADAPTIVE, colors=128)
