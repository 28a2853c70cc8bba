"""What all pictures are drawn with: style, files, panels, maps, colour bars, outlines, a scale bar.

Figures are made through matplotlib's objects and drawn by Agg: no window system, no global state. In degrees a map of change is
drawn as wide as it is on the ground at its middle latitude.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colorbar import Colorbar
from matplotlib.colors import Colormap, ListedColormap
from matplotlib.dates import AutoDateLocator, DateFormatter
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Patch, Rectangle
from matplotlib.patheffects import withStroke
from PIL import Image

from pipelines.calendar import elapsed_text, is_elapsed, iso_utc
from pipelines.errors import RequestError
from pipelines.files import replacing
from pipelines.grid import Grid
from pipelines.products.frames import Shades, crs_labels, extent_of, image_extent, north_text, step_for
from pipelines.products.layers import GREY, WHITE
from pipelines.tracking.objects import Space

INK, MUTED, FAINT = "#1b1f24", "#5b6570", "#e3e6e9"
STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans", "font.size": 9.0, "text.color": INK, "axes.edgecolor": "#9aa3ad", "axes.linewidth": 0.6,
}  # fmt: skip
OUTLINE = "#ff3d00"
LEGEND_PT = (7.5, 7.0, 6.5, 6.0, 5.5)
GAP_IN = 0.74  # between columns: a colour bar and its dates
ROW_IN = 0.62  # between rows: a title and a legend


@contextmanager
def drawing(path: Path, size_in: tuple[float, float], layout: Literal["constrained"] | None = "constrained") -> Iterator[Figure]:
    """A white figure of (width, height) inches; written to `path` when the block ends."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=size_in, facecolor="white", layout=layout)
        yield figure
        save_figure(figure, path)


def save_figure(figure: Figure, path: Path) -> None:
    """Writes `figure` as PNG in one rename; no time stamp inside, so that the same figure gives the same bytes."""
    with replacing(path) as draft:
        figure.savefig(draft, format="png", dpi=130, metadata={"Software": "driftline"})


def save_animation(pictures: Sequence[Image.Image], path: Path, milliseconds: int, pause: int) -> None:
    """Writes a GIF that repeats; the last picture stands `pause` times as long as the others."""
    durations = [milliseconds] * (len(pictures) - 1) + [pause * milliseconds]
    with replacing(path) as draft:
        pictures[0].save(draft, "GIF", save_all=True, append_images=pictures[1:], duration=durations, loop=0)


def label(variable: str, unit: str) -> str:
    return f"{variable} [{unit}]" if unit and unit != "1" else variable


def day(date: np.datetime64, *, exact: bool = False) -> str:
    """`2020-06-15`, with the time of day where it is not midnight; `24.5 s` where only the time since the first frame is known.

    exact: with seconds, for frames that lie close to each other.
    """
    if is_elapsed(date):
        return elapsed_text(date)
    if exact:
        return iso_utc(date).rstrip("Z").replace("T", " ")
    text = str(date.astype("datetime64[m]")).replace("T", " ")
    return text.removesuffix(" 00:00")


def title(axes: Axes, text: str, pad: float | None = None) -> None:
    axes.set_title(text, size=10, weight="bold", loc="left", pad=pad)


def title_row(first: Axes, text: str) -> None:
    """The title of a row of panels above its first one; of a constrained layout a long one must not widen that panel."""
    title(first, " ")  # holds the line free
    found = first.text(0, 1.02, text, transform=first.transAxes, size=10, weight="bold", va="bottom", parse_math=False)
    found.set_in_layout(False)


def tidy(axes: Axes, grid: Literal["x", "y", "both"] | None = "y", hidden: Sequence[str] = ("top", "right")) -> None:
    """Faint lines along `grid` below all else, and no frame at the sides `hidden`."""
    if grid:
        axes.grid(axis=grid, color=FAINT, lw=0.7)
        axes.set_axisbelow(True)
    axes.spines[list(hidden)].set_visible(False)


def heading(figure: Figure, left_in: float, tops_in: tuple[float, float], text: str, subtitle: str) -> None:
    """Title and subtitle, `tops_in` inches below the upper edge."""
    size_x, size_y = figure.get_size_inches()
    figure.text(left_in / size_x, 1 - tops_in[0] / size_y, text, size=14, weight="bold", va="center")
    figure.text(left_in / size_x, 1 - tops_in[1] / size_y, subtitle, size=9.5, color=MUTED, va="center")


def panels(grid: Grid, rows: int, columns: int, text: str, subtitle: str, cell_in: float) -> tuple[Figure, list[Axes]]:
    """A figure with `rows` x `columns` maps of the grid's shape, `cell_in` inches wide, first row first."""
    height, width = grid.shape_yx
    metres_xy = metres_per_unit(grid)
    across, down = grid.spacing[-1] * width * metres_xy[0], grid.spacing[-2] * height * metres_xy[1]
    cell = float(np.clip(cell_in * down / across, 1.6, 1.6 * cell_in))
    size = ((cell_in + GAP_IN) * columns + 0.2, (cell + ROW_IN) * rows + 1.05)
    figure = Figure(figsize=size, facecolor="white")
    heading(figure, 0.2, (0.3, 0.58), text, subtitle)
    axes = []
    for row in range(rows):
        for column in range(columns):
            left = 0.2 + column * (cell_in + GAP_IN)
            bottom = 0.62 + (rows - 1 - row) * (cell + ROW_IN)
            axes.append(figure.add_axes((left / size[0], bottom / size[1], cell_in / size[0], cell / size[1])))
    return figure, axes


def draw_foot(figure: Figure, grid: Grid, note: str) -> None:
    crs, step = crs_labels(grid.crs)["crs"], step_for(grid.shape_yx)
    thinned = f"   One pixel in {step} along each axis is drawn." if step > 1 else ""
    text = f"{note}   {crs}, {north_text(grid)}.{thinned}"
    size_x, size_y = figure.get_size_inches()
    figure.text(0.2 / size_x, 0.17 / size_y, text, size=8, color=MUTED, va="center")


def metres_per_unit(grid: Grid) -> tuple[float, float]:
    """True metres of one unit of the CRS along x and y, at the middle of the grid; 1 where it is not of Earth."""
    try:
        space = Space.of_grid(grid)
    except RequestError:
        return 1.0, 1.0
    height_m, width_m = space.steps((np.array([grid.shape_yx]) - 1) / 2)[0]
    return float(width_m / space.spacing[1]), float(height_m / space.spacing[0])


def aspect_of(grid: Grid) -> float:
    """How much longer a unit of y is drawn than one of x."""
    across, down = metres_per_unit(grid)
    return down / across


def draw_scale(axes: Axes, extent: tuple[float, float, float, float], unit: str, per_unit: float = 1.0) -> None:
    """A bar of a round length, at most a third of the map wide, in the lower left; `per_unit`: its units in one of the axes'."""
    left, right, bottom, top = extent
    width, height = right - left, top - bottom
    number = round_length(per_unit * width / 3)
    length = number / per_unit
    x, y = left + 0.05 * width, bottom + 0.055 * height
    corner = (x - 0.03 * width, y - 0.03 * height)
    axes.add_patch(Rectangle(corner, length + 0.06 * width, 0.115 * height, fc="white", alpha=0.88, lw=0, zorder=3))
    axes.plot([x, x + length], [y, y], color=INK, lw=2, solid_capstyle="butt", zorder=4)
    text = f"{number / 1000:g} km" if unit in ("m", "metre") and number >= 1000 else f"{number:g} {unit}"
    axes.text(x + length / 2, y + 0.015 * height, text, ha="center", va="bottom", size=7.5, zorder=4)


def draw_metres(axes: Axes, grid: Grid) -> None:
    draw_scale(axes, extent_of(grid), "m", metres_per_unit(grid)[0])


def round_length(most: float) -> float:
    """The largest of 1, 2 or 5 times a power of ten that is at most `most`."""
    power = 10.0 ** math.floor(math.log10(most))
    return max(step * power for step in (1, 2, 5) if step * power <= most * (1 + 1e-9))


def draw_blank(axes: Axes, grid: Grid) -> None:
    """An empty map of the grid's place and proportions."""
    left, right, bottom, top = extent_of(grid)
    axes.set_facecolor(GREY)
    axes.set(xlim=(left, right), ylim=(bottom, top), xticks=[], yticks=[], aspect=aspect_of(grid))


def write_on(axes: Axes, text: str) -> None:
    """Words in the middle of a map that shows nothing."""
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", color=MUTED)


def draw_image(
    axes: Axes, values: np.ndarray, grid: Grid, colours: str | Colormap | None = None, low: float | None = None,
    high: float | None = None,
) -> AxesImage:  # fmt: skip
    """One map without smoothing, north up whatever the order of its rows."""
    left, right, bottom, top = extent_of(grid)
    image = axes.imshow(
        values, cmap=colours, vmin=low, vmax=high, extent=image_extent(grid), interpolation="nearest", aspect=aspect_of(grid)
    )
    axes.set(xlim=(left, right), ylim=(bottom, top))
    return image


def shown_frames(valid_T: np.ndarray, most: int) -> np.ndarray:
    """Numbers of at most so many of the valid frames, evenly over them, the first and the last among them.

    >>> shown_frames(np.array([True, False, True, True, True, True]), 3).tolist()
    [0, 3, 5]
    """
    frames = np.flatnonzero(valid_T)
    evenly = np.round(np.linspace(0, len(frames) - 1, min(len(frames), most))).astype(int)
    kept: np.ndarray = frames[np.unique(evenly)]
    return kept


def draw_series(row: Sequence[Axes], image_THW: np.ndarray) -> None:
    """Frames side by side in shades of grey that are the same for all of them; axes that are left over stay blank."""
    low, high = np.percentile(image_THW, (1, 99.5))
    for t, axes in enumerate(row):
        axes.set(xticks=[], yticks=[])
        axes.set_frame_on(False)
        if t < len(image_THW):
            axes.imshow(image_THW[t], cmap="gray", vmin=low, vmax=max(high, low + 1e-9))


def draw_values(axes: Axes, values: np.ndarray, shades: Shades, grid: Grid, unit: str) -> Colorbar | None:
    """A map of numbers (NaN = not seen); its colour bar, or None and the words that nothing was seen."""
    draw_blank(axes, grid)
    if not np.isfinite(values).any():
        write_on(axes, "nothing observed")
        return None
    return draw_bar(axes, draw_image(axes, np.ma.masked_invalid(values), grid, shades.colours, shades.low, shades.high), unit)


def draw_changed(
    axes: Axes, values: np.ndarray, changed: np.ndarray, shades: Shades, grid: Grid, is_seen: np.ndarray
) -> AxesImage | None:
    """The values of changed pixels on white ground (grey where nothing was watched), or the words that there are none."""
    draw_blank(axes, grid)
    draw_image(axes, is_seen.astype(np.uint8), grid, ListedColormap([GREY, WHITE]), 0, 1)
    if not changed.any():
        write_on(axes, "no change found" if is_seen.any() else "nothing can be said")
        return None
    shown = np.ma.masked_where(~changed | ~np.isfinite(values), values)
    return draw_image(axes, shown, grid, shades.colours, shades.low, shades.high)


def outline(axes: Axes, mask: np.ndarray, grid: Grid, colour: str, width: float) -> None:
    """The edges of the True pixels along the pixels' borders, on a white seam so that they show on any ground."""
    if not mask.any():
        return
    first_x, last_x, last_y, first_y = image_extent(grid)
    x = np.linspace(first_x, last_x, mask.shape[1] + 1)
    y = np.linspace(first_y, last_y, mask.shape[0] + 1)
    padded = np.pad(mask, 1)
    row, column = np.nonzero(padded[1:, 1:-1] != padded[:-1, 1:-1])
    across = np.stack([np.stack([x[column], y[row]], -1), np.stack([x[column + 1], y[row]], -1)], 1)
    row, column = np.nonzero(padded[1:-1, 1:] != padded[1:-1, :-1])
    along = np.stack([np.stack([x[column], y[row]], -1), np.stack([x[column], y[row + 1]], -1)], 1)
    lines = LineCollection(np.concatenate([across, along]), colors=colour, linewidths=width, capstyle="projecting")  # type: ignore[arg-type]
    if width >= 0.8:
        lines.set_path_effects([withStroke(linewidth=width + 0.9, foreground="white", alpha=0.55)])
    lines.set(zorder=2.6, clip_on=False)  # above the frame: else a change at the map's edge is outlined on one side only
    axes.add_collection(lines, autolim=False)


def colour_limits(images: Sequence[np.ndarray]) -> np.ndarray:
    """(3, 2) low and high of each channel, 2nd and 98th percentile over all images, so that they are coloured alike."""
    seen = [image[np.isfinite(image).all(axis=-1)] for image in images]
    if not any(values.size for values in seen):
        return np.tile([0.0, 1.0], (3, 1))
    low, high = np.percentile(np.concatenate(seen), [2, 98], axis=0)
    return np.stack([low, np.where(high > low, high, low + 1)], axis=1)


def stretch_colours(image: np.ndarray, limits: np.ndarray) -> np.ndarray:
    """(rows, columns, 4) RGBA in [0, 1]; clear where a channel is not seen."""
    is_seen = np.isfinite(image).all(axis=-1)
    scaled = (np.where(is_seen[..., None], image, 0) - limits[:, 0]) / (limits[:, 1] - limits[:, 0])
    return np.dstack([np.clip(scaled, 0, 1) ** 0.8, is_seen.astype(float)])


def draw_bar(axes: Axes, image: AxesImage, text: str) -> Colorbar:
    """A colour bar of the map's height close at its right."""
    figure, box = axes.figure, axes.get_position()
    bar = figure.colorbar(image, cax=figure.add_axes((box.x1 + 0.02 * box.width, box.y0, 0.028 * box.width, box.height)))
    bar.outline.set_linewidth(0.4)
    bar.ax.tick_params(labelsize=7.5, length=2, width=0.5)
    bar.ax.set_title(text, size=8, loc="right", pad=5, color=MUTED)
    return bar


def label_dates(bar: Colorbar, low: float, high: float, text: str = "") -> None:
    """Dates (days since 1970-01-01, `low` to `high`) at a colour bar; what they share stands above it: the room is narrow."""
    ends = [str(np.datetime64(math.floor(day), "D")) for day in (low, high)]
    form, shared = ("%Y-%m", 0) if high - low > 90 else ("%m-%d", 4) if high - low > 3 or high == low else ("%H:%M", 10)
    if high == low:
        bar.set_ticks([low])
    else:
        bar.ax.yaxis.set_major_locator(AutoDateLocator(minticks=3, maxticks=8))
    bar.ax.yaxis.set_major_formatter(DateFormatter(form))
    above = " to ".join(dict.fromkeys(end[:shared] for end in ends))
    bar.ax.set_title(f"{text} {above}".strip(), size=8, loc="right", pad=5, color=MUTED)


def draw_legend(axes: Axes, entries: Sequence[tuple[str, str]]) -> None:
    """Colours and words below the map, three in a row, in the largest letters with which they stay on the figure."""
    handles = [Patch(fc=colour, ec=MUTED, lw=0.4, label=text) for colour, text in entries]
    for size_pt in LEGEND_PT:
        legend = axes.legend(
            handles=handles, loc="upper left", bbox_to_anchor=(0, -0.01), ncols=3, frameon=False, fontsize=size_pt,
            handlelength=1.2, handleheight=1, columnspacing=1.0, labelspacing=0.3, borderaxespad=0.2, handletextpad=0.5,
        )  # fmt: skip
        box = legend.get_window_extent()
        if box.x1 + 0.06 * box.width <= axes.figure.bbox.x1:  # letters are a few per cent wider at the dots of the file
            break
