"""The trials of a search as a table and as a picture."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from pipelines.files import replacing
from pipelines.learning.sweep_study import Domain, TrialRow, best_of
from pipelines.products.canvas import INK, MUTED, drawing, tidy, title

FINISHED, BEST, PRUNED, FAILED = "#3b78b5", "#d1495b", "#b8bfc6", "#e0a030"
MOST_SLICES, IN_A_ROW = 12, 4


def write_table(rows: Sequence[TrialRow], keys: Sequence[str], metric: str, path: Path) -> None:
    """Writes a CSV file, a line for each trial: number, state, the figure, what was tried by key, other figures, epochs (of all
    networks), seconds, message of a failure."""
    others = sorted({name for row in rows for name in row.figures} - {metric})
    with replacing(path) as draft, draft.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["trial", "state", metric, *keys, *others, "epochs", "seconds", "message"])
        for row in rows:
            tried = [_cell(row.values[key]) if key in row.values else "" for key in keys]
            figures = [_cell(row.figures[name]) if name in row.figures else "" for name in others]
            value = "" if row.value is None else _cell(row.value)
            writer.writerow([row.number, row.state, value, *tried, *figures, row.epochs, row.seconds, row.message])


def _cell(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)


def draw_trials(
    rows: Sequence[TrialRow], metric: str, path: Path, *, heading: str, domains: Sequence[Domain], shares: Mapping[str, float],
    is_larger_better: bool,
) -> None:  # fmt: skip
    """Writes a PNG. Above: the figure of every trial with the best so far, and the importance of every key (`shares`, may be
    empty). Below: the figure against each key, the most important ones first."""
    order = sorted(domains, key=lambda domain: -shares.get(domain.key, 0.0))[:MOST_SLICES]
    columns = min(IN_A_ROW, max(len(order), 2))
    lines = math.ceil(len(order) / columns)
    with drawing(path, (3.3 * columns, 3.4 + 2.8 * lines)) as figure:
        figure.suptitle(heading, size=13, weight="bold", x=0.01, ha="left")
        parts: Any = figure.subfigures(2, 1, height_ratios=[3.2, 2.8 * lines])
        above, below = parts
        course, bars = above.subplots(1, 2, width_ratios=[1.6, 1])
        _draw_course(course, rows, metric, is_larger_better=is_larger_better)
        _draw_shares(bars, [domain.key for domain in order], shares)
        _draw_slices(below.subplots(lines, columns, squeeze=False), rows, metric, order, is_larger_better=is_larger_better)


def _draw_course(axes: Axes, rows: Sequence[TrialRow], metric: str, *, is_larger_better: bool) -> None:
    title(axes, f"{metric} of the validation part")
    finished = [row for row in rows if row.value is not None]
    numbers, values = [row.number for row in finished], [row.value or 0.0 for row in finished]
    axes.plot(numbers, values, "o", ms=4.5, color=FINISHED, label="finished", clip_on=False)
    axes.step(
        numbers, list(accumulate(values, partial(_better, is_larger_better))), where="post", color=BEST, label="best so far"
    )
    for state, colour in (("pruned", PRUNED), ("failed", FAILED)):
        if ended := [row.number for row in rows if row.state == state]:
            along = axes.get_xaxis_transform()
            axes.plot(ended, [0.0] * len(ended), "|", ms=9, mew=1.6, color=colour, label=state, transform=along, clip_on=False)
    axes.set_xlabel("trial")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(frameon=False, fontsize=8, ncols=2)
    tidy(axes)


def _better(is_larger_better: bool, one: float, other: float) -> float:
    return max(one, other) if is_larger_better else min(one, other)


def _draw_shares(axes: Axes, keys: Sequence[str], shares: Mapping[str, float]) -> None:
    title(axes, "Importance (fANOVA)")
    if not shares:
        axes.text(
            0.5, 0.5, "too few trials have finished to say", ha="center", va="center", color=MUTED, transform=axes.transAxes
        )
        axes.set_axis_off()
        return
    places, widths = range(len(keys)), [shares.get(key, 0.0) for key in keys]
    axes.barh(places, widths, color=FINISHED, height=0.6)
    axes.set_yticks(places, keys)
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    for place, width in zip(places, widths, strict=True):
        axes.annotate(f"{width:.2f}", (width, place), xytext=(3, 0), textcoords="offset points", va="center", size=8, color=INK)
    axes.set_xlabel("share of the variance of finished trials")
    tidy(axes)


def _draw_slices(
    panels: Any, rows: Sequence[TrialRow], metric: str, domains: Sequence[Domain], *, is_larger_better: bool
) -> None:
    finished = [row for row in rows if row.value is not None]
    best = best_of(finished, is_larger_better)
    flat: list[Axes] = list(panels.flat)
    for axes, domain in zip(flat, domains, strict=False):
        title(axes, domain.key)
        texts = [_cell(choice) for choice in domain.choices]
        for row in finished:
            tried = row.values[domain.key]
            x = texts.index(_cell(tried)) if domain.choices else tried
            is_best = row is best
            colour, marker, size, order = (BEST, "*", 11.0, 3) if is_best else (FINISHED, "o", 4.5, 2)
            axes.plot(x, row.value or 0.0, marker, ms=size, color=colour, zorder=order, clip_on=False)
        if domain.choices:
            axes.set_xticks(range(len(texts)), texts)
            axes.set_xlim(-0.5, len(texts) - 0.5)
        elif domain.log:
            axes.set_xscale("log")
            axes.tick_params(axis="x", which="minor", labelsize=6)
        else:
            axes.xaxis.set_major_locator(MaxNLocator(5, integer=domain.is_whole))
        if axes.get_subplotspec().is_first_col():  # type: ignore[union-attr]
            axes.set_ylabel(metric)
        tidy(axes)
    for axes in flat[len(domains) :]:
        axes.set_axis_off()
