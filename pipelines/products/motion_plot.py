"""Motion of tracked regions as a picture: size and displacement over time, and the cycle."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from pipelines.products.canvas import MUTED, drawing, tidy, title
from pipelines.products.track_plot import OTHER, Colours, size_scale
from pipelines.tracking.motion import Motion
from pipelines.tracking.objects import Space
from pipelines.tracking.table import size_columns

if TYPE_CHECKING:
    from matplotlib.typing import HashableList


def draw_motion(motion: Motion, space: Space, colour_of: Colours, path: Path, heading: str) -> None:
    """Writes a PNG: size (triangles: largest and smallest) and displacement of the centre of each region at every frame, and,
    where a period was found, sizes over one cycle that begins where the region is largest. The colours are those of tracks.png.
    """
    size, unit = size_columns(space)[0], motion.time.unit.name
    column = unit if unit in motion.frames else motion.time.unit.column
    moved = f"displaced_{space.unit}"
    has_cycle = bool(motion.frames["phase"].notna().any())
    factor, size_unit = size_scale(float(motion.frames[size].max()), space.unit, "²" if space.axes == 2 else "³")
    with drawing(path, (12.4, 5.6)) as figure:
        figure.suptitle(heading, size=13, weight="bold", x=0.01, ha="left")
        panels: list[HashableList[str]] = [["size", "cycle"], ["moved", "cycle"]] if has_cycle else [["size"], ["moved"]]
        places = figure.subplot_mosaic(panels, width_ratios=[1.6, 1][: len(panels[0])])
        for track_id, own in motion.frames.groupby("track_id"):
            colour = colour_of.get(int(str(track_id)), OTHER)
            x, y = own[column].to_numpy(), own[size].to_numpy() * factor
            _draw_curve(places["size"], x, y, colour, f"track {track_id}" if int(str(track_id)) in colour_of else "")
            places["moved"].plot(x, own[moved].to_numpy(), ".-", color=colour, ms=4, lw=1.2)
            if has_cycle:
                _draw_cycle(places["cycle"], own, 100, colour)
        places["size"].set_ylim(bottom=0)
        places["size"].set_ylabel(f"{size.split('_')[0]} [{size_unit}]")
        title(places["size"], "Size")
        places["size"].legend(frameon=False, fontsize=8, loc="lower right", ncols=4)
        places["moved"].set_ylim(bottom=0)
        places["moved"].set_ylabel(f"displacement [{space.unit}]")
        places["moved"].set_xlabel({"seconds": "seconds since the first frame"}.get(unit, column))
        title(places["moved"], "Centre, from where the region is largest")
        if has_cycle:
            title(places["cycle"], "One cycle")
            places["cycle"].set(xlim=(0, 1), ylim=(0, 105), xlabel="part of the cycle", ylabel="size [% of the largest]")
        else:
            notes = motion.cycles["period_note"]
            note = f"Period not found: {notes.iloc[0]}." if notes.nunique() == 1 else "No period found."
            figure.supxlabel(note, size=8, color=MUTED, x=0.01, ha="left")
        for axes in places.values():
            tidy(axes, "both")


def _draw_curve(axes: Axes, x: np.ndarray, y: np.ndarray, colour: str, label: str) -> None:
    axes.plot(x, y, ".-", color=colour, ms=4, lw=1.5, label=label or None)
    for place, mark in ((y.argmax(), "^"), (y.argmin(), "v")):
        axes.plot(x[place], y[place], mark, color=colour, ms=8, mec="white", mew=0.8, zorder=4)


def _draw_cycle(axes: Axes, own: pd.DataFrame, factor: float, colour: str) -> None:
    folded = own[own["phase"].notna()].sort_values("phase")
    axes.plot(folded["phase"].to_numpy(), folded["share_of_largest"].to_numpy() * factor, ".", color=colour, ms=5)
