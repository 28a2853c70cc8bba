"""Change in pictures: before and after with the change outlined, when, how much, confidence; for pairs the mistakes too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap

from pipelines.change.metrics import Counts, count_changes
from pipelines.grid import Grid
from pipelines.products.canvas import (
    OUTLINE,
    colour_limits,
    draw_bar,
    draw_blank,
    draw_changed,
    draw_foot,
    draw_image,
    draw_legend,
    draw_metres,
    draw_values,
    label_dates,
    outline,
    panels,
    stretch_colours,
)
from pipelines.products.frames import Frame, Shades, shades_for, step_for
from pipelines.products.layer_cog import Rows
from pipelines.products.layers import CHANGED, DIRECTION_CLASSES, GREY, NOT_MONITORED, NOT_SEEN, PALE
from pipelines.products.pictures import INK, MUTED, STYLE, day, label, save_figure

# Okabe & Ito (2008): told apart with any colour vision
HIT, FALSE_ALARM, MISS = "#009e73", "#e69f00", "#cc79a7"
DECREASE_RECOVERED, INCREASE_RECOVERED = "#f6d999", "#99c7e0"  # the colours of change, lighter: values are as expected again
NEAR_EDGE = 0.12  # share of a map's side within which a mark's number would leave it


@dataclass(frozen=True)
class Observation:
    """A site at one date: `values` (rows, columns) of the variable or (rows, columns, 3) of colours, float32, NaN = not seen.

    `variable` and `unit` are of the former; `text` say what the colours are, for instance "true colour". `when` stands in the
    place of the date where several acquisitions were taken together: "Jun-Aug 2018, median of 6 dates".
    """

    date: np.datetime64
    values: np.ndarray
    variable: str = ""
    unit: str = ""
    text: str = ""
    when: str = ""


@dataclass(frozen=True)
class Marker:
    """A place that the map points at: pixel `row`, `column` of the grid and a short text such as its number."""

    row: int
    column: int
    text: str


@dataclass(frozen=True)
class ChangeMaps:
    """What a quicklook of monitoring shows. `layers` as the detector gives them, thinned like the observations (`thin_rows`).

    Needed: change_day, magnitude, confidence, status, direction; recovered_day if known. `variable` and `unit` are of the
    magnitude. `kept`: the changed pixels that became patches; default all.
    """

    before: Observation
    after: Observation
    layers: Mapping[str, np.ndarray]
    grid: Grid
    variable: str
    unit: str
    kept: np.ndarray | None = None
    markers: Sequence[Marker] = ()


@dataclass(frozen=True)
class PairMaps:
    """What a quicklook of a labelled pair shows: `probability` NaN = not seen; `mask` and `truth` uint8 0, 1, 255 = not known."""

    before: Observation
    after: Observation
    probability: np.ndarray
    mask: np.ndarray
    grid: Grid
    truth: np.ndarray | None = None
    threshold: float | None = None
    counts: Counts | None = None  # of the whole place, where there is a truth: the arrays here may be thinned


def thin_rows(array: Rows, step: int | None = None) -> np.ndarray:
    """Every n-th pixel of a large raster, row by row; default: as many as a picture can show."""
    step = step_for((array.shape[0], array.shape[1])) if step is None else step
    rows = [np.asarray(array[row : row + 1])[:, ::step] for row in range(0, array.shape[0], step)]
    return np.concatenate(rows)


def draw_change_quicklook(maps: ChangeMaps, path: Path, title: str, subtitle: str = "") -> None:
    """Writes a PNG: before, after, kind of change; date, magnitude, confidence. Also where nothing was found."""
    changed = maps.layers["status"] == CHANGED
    kept = changed if maps.kept is None else maps.kept & changed
    with mpl.rc_context(STYLE):
        figure, axes = panels(maps.grid, 2, 3, title, subtitle, 3.3)
        before, after, kind, when, size, sure = axes
        draw_observations((before, after), (maps.before, maps.after), maps.grid, kept)
        _mark(after, maps)
        _draw_kind(kind, maps)
        _draw_when(when, maps, changed)
        _draw_size(size, maps, changed)
        _draw_confidence(sure, maps, changed)
        for panel in (kind, when, size, sure):
            outline(panel, kept, maps.grid, INK, 0.4)
        draw_metres(before, maps.grid)
        draw_foot(
            figure,
            maps.grid,
            f"Red outline: changed {'pixels' if maps.kept is None else 'patches'}. Grey: not seen, or too few dates to judge.",
        )
        save_figure(figure, path)


def draw_pair_quicklook(maps: PairMaps, path: Path, title: str, subtitle: str = "") -> None:
    """Writes a PNG: before, after, probability, and the mask against the label (hits, misses, false alarms) or alone."""
    changed = maps.mask == 1
    with mpl.rc_context(STYLE):
        figure, axes = panels(maps.grid, 2, 2, title, subtitle, 4.6)
        before, after, probability, scores = axes
        draw_observations((before, after), (maps.before, maps.after), maps.grid, changed)
        _draw_probability(probability, maps)
        if maps.truth is None:
            _draw_mask(scores, maps)
        else:
            _draw_scored(scores, maps, maps.truth)
        draw_metres(before, maps.grid)
        draw_foot(
            figure,
            maps.grid,
            "Red outline: pixels called changed; red line in the bar: the threshold"
            f"{' (that of the figures above)' if maps.truth is not None else ''}. Grey: not seen on one of the dates.",
        )
        save_figure(figure, path)


def draw_observations(panels: Sequence[Axes], observations: Sequence[Observation], grid: Grid, changed: np.ndarray) -> None:
    """Before and after, coloured alike, the changed pixels outlined."""
    frames = [Frame(observation.date, observation.values) for observation in observations if observation.values.ndim == 2]
    shades = shades_for(observations[0].variable, frames)
    stretch = colour_limits([observation.values for observation in observations if observation.values.ndim == 3])
    for axes, observation, name in zip(panels, observations, ("Before", "After"), strict=True):
        text = observation.text or label(observation.variable, observation.unit)
        if observation.values.ndim == 3:
            draw_blank(axes, grid)
            draw_image(axes, stretch_colours(observation.values, stretch), grid)
        else:
            draw_values(axes, observation.values, shades, grid, text)
        size = 9 if observation.when else 10  # as wide as the map
        axes.set_title(f"{name}: {observation.when or day(observation.date)}", size=size, weight="bold", loc="left", pad=5)
        axes.set_title(text if observation.values.ndim == 3 else "", size=8.5, color=MUTED, loc="right", pad=5)
        outline(axes, changed, grid, OUTLINE, 0.9)


def _mark(axes: Axes, maps: ChangeMaps) -> None:
    for marker, towards in zip(maps.markers, cycle(((14, 14), (-14, 14), (14, -14), (-14, -14))), strict=False):
        offset = _inwards(marker, maps.grid.shape_yx, towards)
        x, y = maps.grid.affine @ (marker.column + 0.5, marker.row + 0.5)
        box = {"boxstyle": "circle,pad=0.22", "fc": "white", "ec": INK, "lw": 0.8}
        axes.annotate(
            marker.text, (x, y), offset, textcoords="offset points", size=8, weight="bold", ha="center", va="center", bbox=box,
            arrowprops={"arrowstyle": "-", "color": INK, "lw": 0.8, "shrinkB": 0},
        )  # fmt: skip
        axes.plot(x, y, "o", ms=3.2, mfc="white", mec=INK, mew=0.8)


def _inwards(marker: Marker, shape_yx: tuple[int, int], towards: tuple[int, int]) -> tuple[int, int]:
    """Where the number of a mark stands, (right, up) in points: augmented away from an edge that is near."""
    down, across = ((at + 0.5) / size for at, size in zip((marker.row, marker.column), shape_yx, strict=True))
    right, up = towards
    right = -abs(right) if across > 1 - NEAR_EDGE else abs(right) if across < NEAR_EDGE else right
    up = abs(up) if down > 1 - NEAR_EDGE else -abs(up) if down < NEAR_EDGE else up
    return right, up


def _draw_kind(axes: Axes, maps: ChangeMaps) -> None:
    status, direction = maps.layers["status"], maps.layers["direction"]
    recovered = np.isfinite(maps.layers["recovered_day"]) if "recovered_day" in maps.layers else np.zeros(status.shape, bool)
    kinds = [
        (status == NOT_MONITORED, DIRECTION_CLASSES[3].colour, "not monitored"),
        ((direction < 0) & recovered, DECREASE_RECOVERED, "decrease, recovered"),
        ((direction > 0) & recovered, INCREASE_RECOVERED, "increase, recovered"),
        (direction < 0, DIRECTION_CLASSES[1].colour, "decrease"),
        (direction > 0, DIRECTION_CLASSES[2].colour, "increase"),
        (status == CHANGED, MUTED, "changed"),
    ]
    colours = [DIRECTION_CLASSES[0].colour, *(colour for _, colour, _ in kinds)]
    text = ["nothing found", *(word for _, _, word in kinds)]
    shown = np.select([mask for mask, _, _ in kinds], range(1, len(colours)), 0)
    draw_blank(axes, maps.grid)
    draw_image(axes, shown, maps.grid, ListedColormap(colours), 0, len(colours) - 1)
    counts = np.bincount(shown.ravel(), minlength=len(colours))
    order = (0, 4, 2, 5, 3, 1, 6)
    draw_legend(axes, [(colours[k], f"{text[k]} {_share(counts[k] / shown.size)}") for k in order if counts[k]])
    axes.set_title("What changed", size=10, weight="bold", loc="left", pad=5)


def _share(part: float) -> str:
    return f"{part:.1%}" if part >= 0.001 else "<0.1%"


def _draw_when(axes: Axes, maps: ChangeMaps, changed: np.ndarray) -> None:
    days = maps.layers["change_day"]
    dated = days[changed & np.isfinite(days)]
    low, high = (float(dated.min()), float(dated.max())) if dated.size else (0.0, 1.0)
    shades = Shades("viridis", low, high if high > low else low + 1)
    image = draw_changed(axes, days, changed, shades, maps.grid, maps.layers["status"] != NOT_MONITORED)
    axes.set_title("When", size=10, weight="bold", loc="left", pad=5)
    if image is not None:
        label_dates(draw_bar(axes, image, ""), low, high)


def _draw_size(axes: Axes, maps: ChangeMaps, changed: np.ndarray) -> None:
    values = maps.layers["magnitude"]
    seen = np.abs(values[changed & np.isfinite(values)])
    largest = (float(np.percentile(seen, 98)) if seen.size else 1.0) or 1.0
    image = draw_changed(
        axes, values, changed, Shades("BrBG", -largest, largest), maps.grid, maps.layers["status"] != NOT_MONITORED
    )
    axes.set_title("How much: observed minus expected", size=10, weight="bold", loc="left", pad=5)
    if image is not None:
        draw_bar(axes, image, label(maps.variable, maps.unit))


def _draw_confidence(axes: Axes, maps: ChangeMaps, changed: np.ndarray) -> None:
    """Only of changed pixels, and near 1: a stable pixel of .8 is no fourth of five signs of change."""
    values = maps.layers["confidence"]
    seen = values[changed & np.isfinite(values)]
    low = min(float(np.floor(np.percentile(seen, 2) * 100) / 100), 0.99) if seen.size else 0.0
    image = draw_changed(axes, values, changed, Shades("cividis", low, 1), maps.grid, maps.layers["status"] != NOT_MONITORED)
    axes.set_title("Confidence", size=10, weight="bold", loc="left", pad=5)
    if image is not None:
        draw_bar(axes, image, "share of stable pixels\nthat look less like change")


def _draw_probability(axes: Axes, maps: PairMaps) -> None:
    """Where change is rare probabilities are small: the colours end where few pixels are left; the threshold is in the bar."""
    seen = maps.probability[np.isfinite(maps.probability)]
    high = max(float(np.percentile(seen, 99.5)) if seen.size else 1.0, 2 * (maps.threshold or 0.0), 0.01)
    shades = Shades("viridis", 0, min(high, 1.0))
    bar = draw_values(axes, maps.probability, shades, maps.grid, "probability", "Probability of change")
    if bar is not None and maps.threshold is not None:
        bar.ax.axhline(maps.threshold, color=OUTLINE, lw=1.8)


def _draw_mask(axes: Axes, maps: PairMaps) -> None:
    draw_changed(axes, maps.mask, maps.mask == 1, Shades("autumn", 0, 4), maps.grid, maps.mask != NOT_SEEN)
    text = "" if maps.threshold is None else f" (probability above {maps.threshold:.2g})"
    axes.set_title(f"Called changed{text}", size=10, weight="bold", loc="left", pad=5)


def _draw_scored(axes: Axes, maps: PairMaps, truth: np.ndarray) -> None:
    known = (truth != NOT_SEEN) & (maps.mask != NOT_SEEN)
    called, true = maps.mask == 1, truth == 1
    parts = [known & called & true, known & called & ~true, known & ~called & true]
    shown = np.select([~known, *parts], [4, 1, 2, 3], 0)
    colours = [PALE, HIT, FALSE_ALARM, MISS, GREY]
    draw_blank(axes, maps.grid)
    draw_image(axes, shown, maps.grid, ListedColormap(colours), 0, 4)
    counts = maps.counts or count_changes(called, np.where(known, truth, NOT_SEEN).astype(np.uint8), known)
    found = {"found": counts.true_changed, "false alarm": counts.false_changed, "missed": counts.missed}
    draw_legend(axes, [(colour, f"{name}: {n} px") for colour, (name, n) in zip(colours[1:4], found.items(), strict=True)])
    scores = {"F1": counts.f1, "precision": counts.precision, "recall": counts.recall}
    axes.set_title("Against the label", size=10, weight="bold", loc="left", pad=5)
    numbers = "   ".join(f"{name} –" if value is None else f"{name} {value:.2f}" for name, value in scores.items())
    axes.set_title(numbers, size=9, color=INK, loc="right", pad=5)
