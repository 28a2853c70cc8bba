"""Numbers as pictures: errors per lead, skill against every baseline, coverage of the intervals, the split's blocks.

`evaluation` is what `Evaluation.to_json` returns.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from pipelines.products.pictures import INK, MUTED, STYLE, save_figure
from pipelines.tiles import Tile

# Okabe & Ito (2008): told apart with any colour vision; the model is always the first
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#8c8c8c")
MARKERS = "osD^vPX"
OUTCOMES = {"beats": "#009E73", "equal": "#56B4E9", "not distinguishable": "#8c8c8c", "loses": "#D55E00"}
PARTS = {"train": "#56B4E9", "validation": "#E69F00", "test": "#D55E00"}


def draw_errors(evaluation: dict[str, Any], path: Path, metrics: tuple[str, ...] = ("mae", "rmse", "ssim")) -> None:
    """Writes a PNG: one panel per metric, one line per forecaster, leads along x."""
    model = evaluation["model"]
    names = [model, *[name for name in evaluation["metrics"] if name != model]]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(3.6 * len(metrics) + 0.4, 3.7), facecolor="white", layout="constrained")
        for axes, metric in zip(figure.subplots(1, len(metrics), squeeze=False)[0], metrics, strict=True):
            for number, name in enumerate(names):
                leads = evaluation["metrics"][name]["by_lead"]
                values = [np.nan if lead[metric] is None else lead[metric] for lead in leads]
                _line(axes, [lead["lead"] for lead in leads], values, name, number)
            better = "higher" if metric == "ssim" else "lower"
            axes.set_title(f"{metric.upper()} ({better} is better)", size=10, weight="bold", loc="left")
            _finish(axes, len(evaluation["metrics"][model]["by_lead"]))
        handles, labels = figure.axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=min(len(names), 6), frameon=False, fontsize=9)
        save_figure(figure, path)


def _line(axes: Axes, leads: list[int], values: list[float], name: str, number: int) -> None:
    colour, marker = COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)]
    width, order = (2.6, 5) if number == 0 else (1.4, 3)
    axes.plot(leads, values, marker=marker, ms=5.5 if number == 0 else 4, lw=width, color=colour, label=name, zorder=order)


def _finish(axes: Axes, leads: int) -> None:
    axes.set_xlabel("lead (steps ahead)", color=MUTED)
    axes.set_xticks(range(1, leads + 1, max(1, leads // 12)))
    axes.grid(axis="y", color="#e3e6e9", lw=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(length=2.5, width=0.6)


def draw_skill(evaluation: dict[str, Any], path: Path) -> None:
    """Writes a PNG: skill against each baseline with its interval, overall (bars) and per lead (lines)."""
    skill = evaluation["skill"]
    names = list(skill)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(11.2, 1.2 + max(1.9, 0.48 * len(names))), facecolor="white", layout="constrained")
        bars, lines = figure.subplots(1, 2, width_ratios=[1.15, 1])
        for y, name in enumerate(reversed(names)):
            _bar(bars, y, skill[name]["overall"])
        bars.set_yticks(range(len(names)), list(reversed(names)))
        bars.axvline(0, color=INK, lw=0.9)
        bars.xaxis.set_major_formatter(mpl.ticker.PercentFormatter(1, decimals=0))
        bars.set_title("Error saved against each baseline, all leads", size=10, weight="bold", loc="left")
        bars.grid(axis="x", color="#e3e6e9", lw=0.7)
        bars.set_axisbelow(True)
        bars.spines[["top", "right", "left"]].set_visible(False)
        key = [Patch(color=colour, label=outcome) for outcome, colour in OUTCOMES.items()]
        bars.legend(handles=key, frameon=False, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=len(OUTCOMES))
        for number, name in enumerate(names, start=1):
            leads = skill[name]["by_lead"]
            _line(lines, [lead["lead"] for lead in leads], [_number(lead["skill"]) for lead in leads], name, number)
        lines.axhline(0, color=INK, lw=0.9)
        lines.yaxis.set_major_formatter(mpl.ticker.PercentFormatter(1, decimals=0))
        lines.set_title("By lead", size=10, weight="bold", loc="left")
        _finish(lines, len(next(iter(skill.values()))["by_lead"]))
        lines.legend(frameon=False, fontsize=8, ncols=2)
        save_figure(figure, path)


def _number(value: float | None) -> float:
    return np.nan if value is None else value


def _bar(axes: Axes, y: float, overall: dict[str, Any]) -> None:
    value, low, high = (_number(overall[key]) for key in ("skill", "low", "high"))
    axes.barh(y, value, height=0.58, color=OUTCOMES.get(overall["outcome"], "#8c8c8c"), alpha=0.85)
    if np.isfinite(low) and np.isfinite(high):
        axes.plot([low, high], [y, y], color=INK, lw=1.3)
        axes.plot([low, high], [y, y], "|", color=INK, ms=7)


def draw_coverage(intervals: dict[str, Any], path: Path) -> None:
    """Writes a PNG: the share of truth inside the intervals per lead beside the nominal one, and the intervals' mean width."""
    leads = intervals["by_lead"]
    x = [lead["lead"] for lead in leads]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.4, 3.2), facecolor="white", layout="constrained")
        share, width = figure.subplots(1, 2)
        share.axhline(intervals["nominal"], color=INK, lw=1, ls=(0, (5, 3)), label=f"nominal {intervals['nominal']:.0%}")
        _line(share, x, [_number(lead["coverage"]) for lead in leads], "measured", 0)
        share.set_ylim(min(0.5, *(lead["coverage"] or 0 for lead in leads)) - 0.02, 1.02)
        share.yaxis.set_major_formatter(mpl.ticker.PercentFormatter(1, decimals=0))
        share.set_title("Truth inside the interval", size=10, weight="bold", loc="left")
        share.legend(frameon=False, fontsize=8, loc="lower right")
        _line(width, x, [_number(lead["mean_width"]) for lead in leads], "width", 0)
        width.set_ylim(0, 1.15 * max((lead["mean_width"] or 0 for lead in leads), default=1) or 1)
        width.set_title("Mean width", size=10, weight="bold", loc="left")
        for axes in (share, width):
            _finish(axes, len(leads))
        save_figure(figure, path)


def draw_blocks(tiles: Iterable[tuple[Tile, str]], shape_yx: tuple[int, int], path: Path) -> None:
    """Writes a PNG: which pixels train, validate and test. `tiles` are (tile, part); what no part uses is grey."""
    height, width = shape_yx
    with mpl.rc_context(STYLE):
        figure = Figure(
            figsize=(4.4, 0.75 + float(np.clip(4.0 * height / width, 1.2, 6))), facecolor="white", layout="constrained"
        )
        axes = figure.subplots()
        axes.set_facecolor("#e6e8ea")
        for tile, part in sorted(set(tiles)):
            rows, columns = tile.shape_yx
            axes.add_patch(Rectangle((tile.col0, tile.row0), columns, rows, fc=PARTS.get(part, "#8c8c8c"), ec="white", lw=0.8))
        axes.set(xlim=(0, width), ylim=(height, 0), aspect="equal", xlabel="column [px]", ylabel="row [px]")
        axes.tick_params(length=2, labelsize=8)
        figure.legend(handles=[Patch(color=colour, label=part) for part, colour in PARTS.items()], loc="outside upper center",
                      ncols=3, frameon=False, fontsize=9)  # fmt: skip
        save_figure(figure, path)
