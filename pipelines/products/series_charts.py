"""Pictures of windows of a cube as series: the bands of the centre pixel over time, and what the network looked at.

Shapes: T frames, C bands.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipelines.products.canvas import INK, MUTED, drawing, tidy
from pipelines.products.charts import COLOURS
from pipelines.products.label_charts import WRONG
from pipelines.wording import harmless

MOST_SERIES = 12
FOR, AGAINST = "#E69F00", "#7B3294"  # as in the pictures of `label_products`


@dataclass(frozen=True)
class Series:
    """A sample: `x_TC` physical values, NaN where a frame is not valid, and what each frame speaks for (`weight_T`)."""

    name: str
    text: str
    days_T: np.ndarray
    x_TC: np.ndarray
    is_wrong: bool = False
    weight_T: np.ndarray | None = None


def draw_series(shown: Sequence[Series], bands: Sequence[str], path: Path, heading: str) -> None:
    """Writes a PNG: a panel for each of at most MOST_SERIES samples, with bars for what frames speak for or against."""
    shown = shown[:MOST_SERIES]
    columns = min(3, len(shown))
    rows = -(-len(shown) // columns)
    with drawing(path, (3.4 * columns + 0.3, 2.1 * rows + 0.9)) as figure:
        panels = figure.subplots(rows, columns, squeeze=False).ravel()
        for one, axes in zip(shown, panels, strict=False):
            seen_T = np.isfinite(one.x_TC).all(axis=1)
            for c in range(len(bands)):
                axes.plot(one.days_T[seen_T], one.x_TC[seen_T, c], ".-", lw=1, ms=4, color=COLOURS[c % len(COLOURS)])
            axes.set_title(harmless(one.name), fontsize=7.5, color=MUTED, loc="left")
            axes.set_xlabel(harmless(one.text), fontsize=8.5, color=WRONG if one.is_wrong else INK)
            axes.tick_params(labelsize=7)
            tidy(axes)
            if one.weight_T is not None:
                bars, width = axes.twinx(), 0.7 * float(np.median(np.diff(one.days_T))) if len(one.days_T) > 1 else 1.0
                colours = np.where(one.weight_T >= 0, FOR, AGAINST).tolist()
                bars.bar(one.days_T, np.where(seen_T, one.weight_T, 0), width, color=colours, alpha=0.45, lw=0)
                reach = float(np.abs(one.weight_T).max()) or 1.0
                bars.set(ylim=(-1.1 * reach, 1.1 * reach), yticks=[])
                tidy(bars, None, ("top", "right", "left", "bottom"))
        for axes in panels[len(shown) :]:
            axes.set_visible(False)
        figure.suptitle(heading, fontsize=10, color=INK, x=0.01, ha="left")
        names, columns = list(map(harmless, bands)), min(8, len(bands))
        figure.legend(list(panels[0].lines), names, loc="outside upper right", ncols=columns, fontsize=8, frameon=False)
        bars_mean = "Bars: orange speaks for the answer, purple against it (integrated gradients). "
        note = bars_mean if shown[0].weight_T is not None else ""
        figure.supxlabel(f"{note}Days from the first frame; values of the centre pixel.", fontsize=8, color=MUTED)
