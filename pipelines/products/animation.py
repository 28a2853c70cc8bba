"""Change in motion: the map as it was known on each date, coloured by the date of change."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from pipelines.calendar import from_days
from pipelines.files import replacing
from pipelines.products.before_after import ChangeMaps
from pipelines.products.canvas import (
    colour_limits,
    draw_bar,
    draw_blank,
    draw_foot,
    draw_image,
    draw_metres,
    label_dates,
    panels,
    stretch_colours,
)
from pipelines.products.frames import Shades
from pipelines.products.pictures import INK, STYLE, day

MOST_FRAMES = 18


def draw_change_animation(
    maps: ChangeMaps, path: Path, title: str, start_day: float, end_day: float, *, milliseconds: int = 350
) -> None:
    """Writes a GIF: the site as it was before, in grey, and on top what was known to have changed by each date of alarm.

    `layers` must hold change_day and detected_day; `start_day` and `end_day` are the first and last frame: dates observed.
    """
    detected = maps.layers["detected_day"]
    dated = maps.layers["change_day"][np.isfinite(detected)]
    low, high = (float(dated.min()), float(dated.max())) if dated.size else (start_day, end_day)
    shades = Shades("viridis", low, max(high, low + 1))  # as the quicklook's "When"
    pictures = _frames(maps, frame_days(detected, start_day, end_day), shades, title)
    durations = [milliseconds] * (len(pictures) - 1) + [6 * milliseconds]
    with replacing(path) as draft:
        pictures[0].save(draft, "GIF", save_all=True, append_images=pictures[1:], duration=durations, loop=0)


def frame_days(detected: np.ndarray, start_day: float, end_day: float) -> np.ndarray:
    """The days that are shown: beginning, every alarm, end. Of too many alarms at most `MOST_FRAMES`, about evenly in time.

    Each is the last alarm by one of equal steps, so that every frame is a date on which something was seen.
    """
    known = np.unique(detected[np.isfinite(detected)])
    if known.size + 2 > MOST_FRAMES:
        steps = np.linspace(start_day, end_day, MOST_FRAMES)[1:-1]
        at = np.searchsorted(known, steps, side="right") - 1
        known = known[np.unique(at[at >= 0])]
    return np.unique(np.concatenate([[start_day], known, [end_day]]))


def _frames(maps: ChangeMaps, days: np.ndarray, shades: Shades, title: str) -> list[Image.Image]:
    """One picture a day; the figure is made once and only what changes is redrawn."""
    detected = np.where(np.isfinite(maps.layers["detected_day"]), maps.layers["detected_day"], np.inf)
    with mpl.rc_context(STYLE):
        figure, (axes,) = panels(maps.grid, 1, 1, title, "", 4.6)
        figure.set_dpi(100)
        canvas = FigureCanvasAgg(figure)
        draw_blank(axes, maps.grid)
        draw_image(axes, _grey(maps.before.values), maps.grid, "gray", 0, 1)
        days_shown = draw_image(axes, np.full(detected.shape, np.nan), maps.grid, shades.colours, shades.low, shades.high)
        known = maps.layers["change_day"][np.isfinite(detected)]
        label_dates(draw_bar(axes, days_shown, ""), shades.low, float(known.max()) if known.size else shades.high, "changed")
        draw_metres(axes, maps.grid)
        draw_foot(figure, maps.grid, "")
        palette = _palette(shades)
        pictures = []
        for now in days:
            is_known = detected <= now
            days_shown.set_data(np.where(is_known, maps.layers["change_day"], np.nan))
            date = day(from_days(np.array([np.floor(now)]))[0])
            axes.set_title(f"Known on {date}: {is_known.mean():.1%} changed", size=11, weight="bold", loc="left", color=INK)
            canvas.draw()
            picture = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
            pictures.append(picture.quantize(palette=palette, dither=Image.Dither.NONE))
    return pictures


def _palette(shades: Shades) -> Image.Image:
    """Greys for the ground and the words, and the colours of the bar: a palette found by area would give the bar three steps."""
    greys = np.repeat(np.linspace(0, 255, 96)[:, None], 3, axis=1)
    colours = mpl.colormaps[shades.colours](np.linspace(0, 1, 160))[:, :3] * 255
    palette = Image.new("P", (1, 1))
    palette.putpalette(np.concatenate([greys, colours]).round().astype(np.uint8).tobytes())
    return palette


def _grey(values: np.ndarray) -> np.ndarray:
    """Brightness in [0.25, 0.95], NaN where not seen: colours of change stand out on it."""
    if values.ndim == 3:
        rgba = stretch_colours(values, colour_limits([values]))
        return np.where(rgba[..., 3] > 0, 0.25 + 0.7 * rgba[..., :3].mean(axis=-1), np.nan)
    seen = values[np.isfinite(values)]
    low, high = np.percentile(seen, [2, 98]) if seen.size else (0.0, 1.0)
    return 0.25 + 0.7 * np.clip((values - low) / (high - low or 1.0), 0, 1)
