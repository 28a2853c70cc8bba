"""Change in pictures: before and after with the change outlined, when, how much, confidence; as it became known; of pairs the
mistakes too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colorbar import Colorbar
from matplotlib.colors import ListedColormap
from PIL import Image

from pipelines.calendar import from_days
from pipelines.change.metrics import Counts, count_changes
from pipelines.grid import Grid
from pipelines.products import canvas
from pipelines.products.canvas import INK, MUTED, OUTLINE, STYLE, day, label, outline, panels
from pipelines.products.frames import Frame, Shades, extent_of, place_on_map, shades_for
from pipelines.products.layers import CHANGED, DIRECTION_CLASSES, GREY, NOT_MONITORED, NOT_SEEN, WHITE

# Okabe & Ito (2008): told apart with any colour vision
HIT, FALSE_ALARM, MISS = "#009e73", "#e69f00", "#cc79a7"
DECREASE_RECOVERED, INCREASE_RECOVERED = "#f6d999", "#99c7e0"  # the colours of change, lighter: values are as expected again
NEAR_EDGE = 0.12  # share of a map's side within which a mark's number would leave it
MOST_FRAMES = 18


@dataclass(frozen=True)
class Observation:
    """A site at one date: `values` (rows, columns) of the variable or (rows, columns, 3) in true colour, float32, NaN = not seen.

    `when` stands in the place of the date where several acquisitions were taken together: "Jun-Aug 2018, median of 6 dates".
    """

    date: np.datetime64
    values: np.ndarray
    variable: str = ""
    unit: str = ""
    when: str = ""


@dataclass(frozen=True)
class ChangeMaps:
    """What a quicklook of monitoring shows. `layers` as the detector gives them, thinned like the observations (`thin_rows`).

    Needed: change_day, magnitude, confidence, status, direction; recovered_day if known; for the animation detected_day.
    `marked` are (row, column) of the grid's pixels that get a number.
    """

    before: Observation
    after: Observation
    layers: Mapping[str, np.ndarray]
    grid: Grid
    marked: Sequence[tuple[int, int]] = ()

    @property
    def is_changed(self) -> np.ndarray:
        is_changed: np.ndarray = self.layers["status"] == CHANGED
        return is_changed


@dataclass(frozen=True)
class PairMaps:
    """What a quicklook of a labelled pair shows: `probability` NaN = not seen; `mask` and `truth` uint8 0, 1, 255 = not known."""

    before: Observation
    after: Observation
    probability: np.ndarray
    mask: np.ndarray
    grid: Grid
    threshold: float | None = None
    truth: np.ndarray | None = None
    counts: Counts | None = None  # of the whole place, where there is a truth: the arrays here may be thinned
    is_score: bool = False  # `probability` holds a change score, in standard deviations of the site


def draw_change_quicklook(maps: ChangeMaps, path: Path, title: str, subtitle: str = "") -> None:
    """Writes a PNG: before, after, kind of change; date, magnitude, confidence. Also where nothing was found."""
    with mpl.rc_context(STYLE):
        figure, (before, after, *others) = panels(maps.grid, 2, 3, title, subtitle, 3.3)
        draw_observations((before, after), (maps.before, maps.after), maps.grid, maps.is_changed)
        _mark(after, maps)
        for axes, draw in zip(others, (_draw_kind, _draw_when, _draw_size, _draw_confidence), strict=True):
            draw(axes, maps)
            outline(axes, maps.is_changed, maps.grid, INK, 0.4)
        canvas.draw_metres(before, maps.grid)
        note = "Red outline: changed pixels. White: nothing found. Grey: not observed, or too few dates to judge."
        canvas.draw_foot(figure, maps.grid, note)
        canvas.save_figure(figure, path)


def draw_pair_quicklook(maps: PairMaps, path: Path, title: str, subtitle: str = "") -> None:
    """Writes a PNG: before, after, probability, and the mask against the label (hits, misses, false alarms) or alone."""
    with mpl.rc_context(STYLE):
        figure, (before, after, probability, scores) = panels(maps.grid, 2, 2, title, subtitle, 4.6)
        draw_observations((before, after), (maps.before, maps.after), maps.grid, maps.mask == 1)
        _draw_probability(probability, maps)
        if maps.truth is None:
            _draw_mask(scores, maps)
        else:
            _draw_scored(scores, maps, maps.truth)
        canvas.draw_metres(before, maps.grid)
        threshold = "the threshold" if maps.truth is None else "the threshold (that of the figures above)"
        note = f"Red outline: pixels mapped as changed; red line in the bar: {threshold}. White: unchanged. Grey: not observed."
        canvas.draw_foot(figure, maps.grid, note)
        canvas.save_figure(figure, path)


def draw_observations(panels: Sequence[Axes], observations: Sequence[Observation], grid: Grid, changed: np.ndarray) -> None:
    """Before and after, coloured alike, the changed pixels outlined."""
    frames = [Frame(observation.date, observation.values) for observation in observations if observation.values.ndim == 2]
    shades = shades_for(observations[0].variable, frames)
    stretch = canvas.colour_limits([observation.values for observation in observations if observation.values.ndim == 3])
    for axes, observation, name in zip(panels, observations, ("Before", "After"), strict=True):
        is_colour = observation.values.ndim == 3
        if is_colour:
            canvas.draw_blank(axes, grid)
            canvas.draw_image(axes, canvas.stretch_colours(observation.values, stretch), grid)
        else:
            canvas.draw_values(axes, observation.values, shades, grid, label(observation.variable, observation.unit))
        size = 9 if observation.when else 10  # as wide as the map
        axes.set_title(f"{name}: {observation.when or day(observation.date)}", size=size, weight="bold", loc="left", pad=5)
        axes.set_title("true colour" if is_colour else "", size=8.5, color=MUTED, loc="right", pad=5)
        outline(axes, changed, grid, OUTLINE, 0.9)


def _mark(axes: Axes, maps: ChangeMaps) -> None:
    for number, (row, column) in enumerate(maps.marked, start=1):
        x, y = place_on_map(maps.grid, row + 0.5, column + 0.5)
        left, right_edge, bottom, top = extent_of(maps.grid)
        right, up = _inwards((x - left) / (right_edge - left), (top - y) / (top - bottom), number)
        box = {"boxstyle": "circle,pad=0.22", "fc": "white", "ec": INK, "lw": 0.8}
        axes.annotate(
            f"{number}", (x, y), (right, up), textcoords="offset points", size=8, weight="bold", ha="center", va="center",
            bbox=box, arrowprops={"arrowstyle": "-", "color": INK, "lw": 0.8, "shrinkB": 0},
        )  # fmt: skip
        axes.plot(x, y, "o", ms=3.2, mfc="white", mec=INK, mew=0.8, zorder=3)


def _inwards(across: float, down: float, number: int) -> tuple[int, int]:
    """Where the number of a mark stands, (right, up) in points: each to another side, but away from an edge that is near.

    `across` and `down`: where the mark is, as shares of the map from its upper left corner.
    """
    right, up = ((14, 14), (-14, 14), (14, -14), (-14, -14))[(number - 1) % 4]
    right = -14 if across > 1 - NEAR_EDGE else 14 if across < NEAR_EDGE else right
    up = 14 if down > 1 - NEAR_EDGE else -14 if down < NEAR_EDGE else up
    return right, up


# ---------------------------------------------------------------- maps of monitoring


def _draw_kind(axes: Axes, maps: ChangeMaps) -> None:
    status, direction = maps.layers["status"], maps.layers["direction"]
    recovered = np.isfinite(maps.layers.get("recovered_day", np.full(status.shape, np.nan)))
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
    canvas.draw_blank(axes, maps.grid)
    canvas.draw_image(axes, shown, maps.grid, ListedColormap(colours), 0, len(colours) - 1)
    counts = np.bincount(shown.ravel(), minlength=len(colours))
    shares = [f"{100 * share:.1f} %" if share >= 0.001 else "< 0.1 %" for share in counts / shown.size]
    order = (0, 4, 2, 5, 3, 1, 6)
    canvas.draw_legend(axes, [(colours[k], f"{text[k]} {shares[k]}") for k in order if counts[k]])
    canvas.title(axes, "What changed", pad=5)


def _draw_when(axes: Axes, maps: ChangeMaps) -> None:
    days = maps.layers["change_day"]
    dated = days[maps.is_changed & np.isfinite(days)]
    low, high = (float(dated.min()), float(dated.max())) if dated.size else (0.0, 1.0)
    bar = _draw_layer(axes, maps, "change_day", Shades("viridis", low, high if high > low else low + 1), "When")
    if bar is not None:
        canvas.label_dates(bar, low, high)


def _draw_size(axes: Axes, maps: ChangeMaps) -> None:
    values = maps.layers["magnitude"]
    seen = values[maps.is_changed & np.isfinite(values)]
    largest = (float(np.percentile(np.abs(seen), 98)) if seen.size else 1.0) or 1.0
    shades, unit = Shades("BrBG", -largest, largest), label(maps.after.variable, maps.after.unit)
    if seen.size and (seen < 0).all() | (seen > 0).all():  # of one sign, all colours are for it
        shades = Shades("YlOrBr_r", -largest, 0) if seen[0] < 0 else Shades("YlGnBu", 0, largest)
    _draw_layer(axes, maps, "magnitude", shades, "How much: observed minus expected", unit)


def _draw_confidence(axes: Axes, maps: ChangeMaps) -> None:
    """Only of changed pixels, and near 1: a stable pixel of .8 is no fourth of five signs of change."""
    values = maps.layers["confidence"]
    seen = values[maps.is_changed & np.isfinite(values)]
    low = min(float(np.floor(np.percentile(seen, 2) * 100) / 100), 0.99) if seen.size else 0.0
    unit = "share of stable pixels\nthat look less like change"
    _draw_layer(axes, maps, "confidence", Shades("cividis", low, 1), "Confidence", unit)


def _draw_layer(axes: Axes, maps: ChangeMaps, name: str, shades: Shades, title: str, unit: str = "") -> Colorbar | None:
    """A layer of the changed pixels with its colour bar; None where none has changed."""
    is_monitored = maps.layers["status"] != NOT_MONITORED
    image = canvas.draw_changed(axes, maps.layers[name], maps.is_changed, shades, maps.grid, is_monitored)
    canvas.title(axes, title, pad=5)
    return None if image is None else canvas.draw_bar(axes, image, unit)


# ---------------------------------------------------------------- maps of a pair


def _draw_probability(axes: Axes, maps: PairMaps) -> None:
    """Where change is rare probabilities are small: the colours end where few pixels are left; the threshold is in the bar."""
    seen = maps.probability[np.isfinite(maps.probability)]
    high = max(float(np.percentile(seen, 99.5)) if seen.size else 1.0, 2 * (maps.threshold or 0.0), 0.01)
    title, unit = ("Change score", "standard\ndeviations") if maps.is_score else ("Probability of change", "probability")
    shades = Shades("viridis", 0, high if maps.is_score else min(high, 1.0))
    bar = canvas.draw_values(axes, maps.probability, shades, maps.grid, unit)
    canvas.title(axes, title, pad=5)
    if bar is not None and maps.threshold is not None:
        bar.ax.axhline(maps.threshold, color=OUTLINE, lw=1.8)


def _draw_mask(axes: Axes, maps: PairMaps) -> None:
    canvas.draw_changed(axes, maps.mask, maps.mask == 1, Shades("autumn", 0, 4), maps.grid, maps.mask != NOT_SEEN)
    score = "score" if maps.is_score else "probability"
    text = "" if maps.threshold is None else f" ({score} above {maps.threshold:.2g})"
    canvas.title(axes, f"Mapped as changed{text}", pad=5)


def _draw_scored(axes: Axes, maps: PairMaps, truth: np.ndarray) -> None:
    known = (truth != NOT_SEEN) & (maps.mask != NOT_SEEN)
    called, true = maps.mask == 1, truth == 1
    parts = [known & called & true, known & called & ~true, known & ~called & true]
    shown = np.select([~known, *parts], [4, 1, 2, 3], 0)
    canvas.draw_blank(axes, maps.grid)
    canvas.draw_image(axes, shown, maps.grid, ListedColormap([WHITE, HIT, FALSE_ALARM, MISS, GREY]), 0, 4)
    counts = maps.counts or count_changes(called, np.where(known, truth, NOT_SEEN).astype(np.uint8), known)
    found = {"found": counts.true_changed, "false alarm": counts.false_changed, "missed": counts.missed}
    text = [f"{name}: {count} px" for name, count in found.items()]
    grounds = [
        (colour, name) for code, colour, name in ((0, WHITE, "unchanged"), (4, GREY, "not observed")) if (shown == code).any()
    ]
    canvas.draw_legend(axes, [*zip((HIT, FALSE_ALARM, MISS), text, strict=True), *grounds])
    scores = {"F1": counts.f1, "precision": counts.precision, "recall": counts.recall}
    canvas.title(axes, "Against the label", pad=5)
    numbers = "   ".join(f"{name} –" if value is None else f"{name} {value:.2f}" for name, value in scores.items())
    axes.set_title(numbers, size=9, color=INK, loc="right", pad=5)


# ---------------------------------------------------------------- in motion


def draw_change_animation(maps: ChangeMaps, path: Path, title: str, start_day: float, end_day: float) -> None:
    """Writes a GIF: the site as it was before, in grey, and on top what was known to have changed by each date of alarm.

    `start_day` and `end_day` are the first and last frame: dates observed.
    """
    change_day, detected_day = maps.layers["change_day"], maps.layers["detected_day"]
    detected = np.where(np.isfinite(detected_day), detected_day, np.inf)
    known = change_day[np.isfinite(detected)]
    low, high = (float(known.min()), float(known.max())) if known.size else (start_day, end_day)
    shades = Shades("viridis", low, max(high, low + 1))  # as the quicklook's "When"
    pictures, palette = [], _palette(shades)
    with mpl.rc_context(STYLE):
        figure, (axes,) = panels(maps.grid, 1, 1, title, "", 4.6)
        figure.set_dpi(100)
        agg = FigureCanvasAgg(figure)
        canvas.draw_blank(axes, maps.grid)
        canvas.draw_image(axes, _grey(maps.before.values), maps.grid, "gray", 0, 1)
        image = canvas.draw_image(axes, np.full(detected.shape, np.nan), maps.grid, shades.colours, shades.low, shades.high)
        canvas.label_dates(canvas.draw_bar(axes, image, ""), low, high if known.size else shades.high, "changed")
        canvas.draw_metres(axes, maps.grid)
        canvas.draw_foot(figure, maps.grid, "")
        for now in frame_days(detected_day, start_day, end_day):  # only what changes is drawn anew
            is_known = detected <= now
            image.set_data(np.where(is_known, change_day, np.nan))
            date = day(from_days(np.array([np.floor(now)]))[0])
            axes.set_title(
                f"Known on {date}: {100 * is_known.mean():.1f} % changed", size=11, weight="bold", loc="left", color=INK
            )
            agg.draw()
            picture = Image.fromarray(np.asarray(agg.buffer_rgba())).convert("RGB")
            pictures.append(picture.quantize(palette=palette, dither=Image.Dither.NONE))
    canvas.save_animation(pictures, path, milliseconds=350, pause=6)


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
        rgba = canvas.stretch_colours(values, canvas.colour_limits([values]))
        return np.where(rgba[..., 3] > 0, 0.25 + 0.7 * rgba[..., :3].mean(axis=-1), np.nan)
    seen = values[np.isfinite(values)]
    low, high = np.percentile(seen, [2, 98]) if seen.size else (0.0, 1.0)
    return 0.25 + 0.7 * np.clip((values - low) / (high - low or 1.0), 0, 1)
