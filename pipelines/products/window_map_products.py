"""What is published of a map of windows: the number, or class and confidence, of every pixel as COG; STAC and a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.colors import ListedColormap

from pipelines.grid import Grid
from pipelines.inference.class_map import NOT_OBSERVED
from pipelines.inference.window_maps import WindowMap
from pipelines.products.canvas import (
    STYLE,
    draw_foot,
    draw_image,
    draw_legend,
    draw_metres,
    draw_values,
    panels,
    save_figure,
    title,
)
from pipelines.products.class_products import class_layers, classes_of
from pipelines.products.cog import Lineage, write_layers
from pipelines.products.frames import Shades, thin_rows
from pipelines.products.layers import Layer, LayerBand, as_code, as_number
from pipelines.products.stac import change_item, write_collection
from pipelines.wording import harmless

PICTURE = "map.png"
ANSWERED_BY = Layer(
    "held_out", "Answered by", "held_out", "uint8", 255,
    (LayerBand("held_out", "1 networks that have not seen the block, 0 all networks, 255 not observed", "", as_code),),
)  # fmt: skip


@dataclass(frozen=True)
class MapSettings:
    """How a map is published. `known_HW`: what is known of the span (numbers, or codes of classes), NaN elsewhere."""

    run: str
    task: str
    outputs: tuple[str, ...]
    is_number: bool
    unit: str
    first_utc: str
    known_HW: np.ndarray
    metrics: Mapping[str, float]


def write_window_map(found: WindowMap, grid: Grid, settings: MapSettings, lineage: Lineage, folder: Path) -> dict[str, Any]:
    """Rasters, collection and picture into `folder`. Returns the share of the pixels that were answered, and the span."""
    names = tuple(map(harmless, settings.outputs))
    is_seen_HW = np.isfinite(found.answer_KHW[0])
    arrays: dict[str, np.ndarray] = {"held_out": np.where(is_seen_HW, found.held_out_HW, 255).astype(np.uint8)}
    if settings.is_number:
        band = LayerBand(names[0], f"answered {names[0]}", None, as_number)
        layers: Sequence[Layer] = (
            Layer("answer", f"Answered {names[0]}", "answer", "float32", float("nan"), (band,)),
            ANSWERED_BY,
        )
        arrays["answer"] = found.answer_KHW[0]
    else:
        layers = (*class_layers(names), ANSWERED_BY)
        best_HW = np.nan_to_num(found.answer_KHW, nan=-1.0).argmax(axis=0)
        arrays["class"] = np.where(is_seen_HW, best_HW + 1, NOT_OBSERVED).astype(np.uint8)
        arrays["confidence"] = np.take_along_axis(found.answer_KHW, best_HW[None], axis=0)[0]
    rasters = write_layers(arrays, layers, grid, settings.unit, lineage, folder)
    answered = float(is_seen_HW.mean())
    facts = {"observed": answered, "dates": found.dates, "held_out": float(found.held_out_HW.mean())}
    what = names[0] if settings.is_number else "Classes"
    item = change_item(
        "map", f"{what} from {found.span.text}", grid, settings.first_utc, layers, rasters, (), settings.unit, lineage, facts
    )
    draw_window_map(arrays, found, grid, settings, folder / PICTURE)
    text = f"driftline map of windows, {found.span.text}"
    pictures = {"Map": folder / PICTURE}
    write_collection(folder, settings.run, settings.task, text, [item], pictures=pictures, metrics=settings.metrics)
    return {"answered": answered, "span": found.span.text, "held_out": facts["held_out"]}


def draw_window_map(arrays: Mapping[str, np.ndarray], found: WindowMap, grid: Grid, settings: MapSettings, path: Path) -> None:
    """Writes a PNG: what is answered beside what is known, in the same colours."""
    known_HW = thin_rows(settings.known_HW)
    with mpl.rc_context(STYLE):
        name = settings.outputs[0] if settings.is_number else "classes"
        figure, (left, right) = panels(grid, 1, 2, f"{settings.run}: {name}", f"{found.dates} dates from {found.span.text}", 4.6)
        if settings.is_number:
            answer_HW = thin_rows(arrays["answer"])
            both = np.concatenate([answer_HW[np.isfinite(answer_HW)], known_HW[np.isfinite(known_HW)]])
            low, high = (float(one) for one in np.quantile(both, (0.01, 0.99))) if both.size else (0.0, 1.0)
            for axes, values in ((left, answer_HW), (right, known_HW)):
                draw_values(axes, values, Shades("viridis", low, high), grid, settings.unit)
        else:
            classes = classes_of(settings.outputs)
            colours = ListedColormap([one.colour for one in classes])
            for axes, values in ((left, thin_rows(arrays["class"])), (right, np.nan_to_num(known_HW))):
                draw_image(axes, values, grid, colours, -0.5, len(classes) - 0.5)
                axes.set(xticks=[], yticks=[])
        title(left, "Answered")
        title(right, "Known" if np.isfinite(known_HW).any() else "Nothing is known of this span")
        draw_metres(left, grid)
        draw_foot(figure, grid, "Blocks with a known pixel: answered by networks that have not seen them.")
        if not settings.is_number:
            draw_legend(left, [(one.colour, one.name) for one in classes[1:]])
        save_figure(figure, path)
