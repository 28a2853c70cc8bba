"""How networks were trained, as a section of the report: loss and, where it was measured, a score after every epoch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from pipelines.products.canvas import INK, MUTED, drawing, tidy, title
from pipelines.products.charts import COLOURS, GREY
from pipelines.products.section import Picture, Section

LOSSES = ("training_loss", "validation_loss")
OTHERS = ("epoch", "learning_rate", "cpu_seconds")
TITLES = {"ap50": "mean AP50", "exact_match": "exact match", "mean_absolute_error": "mean absolute error"}


def training_section(members: Sequence[Mapping[str, Any]], drafts: Path) -> Section:
    """Of networks with a `curve` and a `best_epoch` each, as the record of a training holds them; drawn into `drafts`."""
    known = [one for one in members if one.get("curve")]
    if not known:
        return Section("training", "Training")
    score = next((name for name in known[0]["curve"][0] if name not in (*OTHERS, *LOSSES)), None)
    draw_curves(known, score, drafts / "training.png")
    caption = "Each line is a network, the dot the epoch that was kept: that with the smallest loss on the part that validates."
    kept = [row[score] for one in known for row in one["curve"] if score and row["epoch"] == one["best_epoch"]]
    if score and (measured := [value for value in kept if value is not None]):
        caption += f" There {TITLES.get(score, score)} is {np.mean(measured):.3g} on average; what validates is no test."
    return Section("training", "Training", pictures=[Picture(drafts / "training.png", "Training, epoch by epoch", caption)])


def draw_curves(members: Sequence[Mapping[str, Any]], score: str | None, path: Path) -> None:
    """Writes a PNG: losses of training (thin) and validation, and beside them the score of the validation part."""
    with drawing(path, (9.4 if score else 5.2, 3.1)) as figure:
        panels = figure.subplots(1, 2 if score else 1, squeeze=False)[0]
        title(panels[0], "Loss")
        for member in members:
            _draw_line(panels[0], member, "training_loss", GREY)
            _draw_line(panels[0], member, "validation_loss", COLOURS[0])
        for name, colour in (("training", GREY), ("validation", COLOURS[0])):
            panels[0].plot([], [], color=colour, label=name)
        panels[0].legend(frameon=False, fontsize=8.5)
        if score:
            title(panels[1], f"{TITLES.get(score, score)}, validation")
            for member in members:
                _draw_line(panels[1], member, score, COLOURS[0])
        for axes in panels:
            axes.set_xlabel("epoch (0: untrained)", color=MUTED)
            axes.xaxis.get_major_locator().set_params(integer=True)
            tidy(axes)


def _draw_line(axes: Axes, member: Mapping[str, Any], key: str, colour: str) -> None:
    rows = [row for row in member["curve"] if row.get(key) is not None]
    axes.plot([row["epoch"] for row in rows], [row[key] for row in rows], color=colour, lw=1.2, alpha=0.8)
    if key != "training_loss":
        best = [(row["epoch"], row[key]) for row in rows if row["epoch"] == member["best_epoch"]]
        axes.plot(*zip(*best, strict=True) if best else ((), ()), "o", color=INK, ms=3.5, zorder=4)
