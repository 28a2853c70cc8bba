"""How well change is known, as pictures: F1 of every method, reliability of the probabilities, changed area over time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure

from pipelines.products.curves import COLOURS, MARKERS
from pipelines.products.pictures import INK, MUTED, STYLE, save_figure


def draw_f1(scores: Mapping[str, Mapping[str, float]], shipped: str, path: Path, *, must_beat: float | None = None) -> None:
    """Writes a PNG: one row per method.

    `scores[method]`: `pooled`, optionally `low` and `high` (its interval or the seeds' spread), and an F1 per site by its name.
    """
    names = [shipped, *[name for name in scores if name != shipped]] if shipped in scores else list(scores)
    sites = sorted({site for row in scores.values() for site in row} - {"pooled", "low", "high"})
    with mpl.rc_context(STYLE):
        size = (9.2, 1.35 + 0.42 * len(names))
        figure = Figure(figsize=size, facecolor="white", layout="constrained")
        axes = figure.subplots()
        for y, name in enumerate(reversed(names)):
            row, colour = scores[name], COLOURS[0] if name == shipped else "#8c8c8c"
            axes.barh(y, row["pooled"], height=0.55, color=colour, alpha=0.9, zorder=2)
            if "low" in row and "high" in row:
                axes.plot([row["low"], row["high"]], [y, y], "|-", color=INK, lw=1.3, ms=7, zorder=3)
            axes.text(1.01, y, f"{row['pooled']:.3f}", transform=axes.get_yaxis_transform(), va="center", weight="bold")
            for number, site in enumerate(sites):
                if np.isfinite(row.get(site, np.nan)):
                    axes.plot(row[site], y, MARKERS[number % len(MARKERS)], ms=5, mfc="white", mew=1.3,
                              mec=COLOURS[(number + 1) % len(COLOURS)], zorder=5, label=site if y == 0 else None)  # fmt: skip
        if must_beat is not None:
            axes.axvline(must_beat, color=INK, lw=1, ls=(0, (5, 3)), zorder=1, label=f"wanted {must_beat:g}")
        axes.set_yticks(range(len(names)), list(reversed(names)))
        axes.set_xlim(left=0)
        axes.set_xlabel("F1 of the changed class: bar pooled, signs single sites, line its interval", color=MUTED)
        axes.grid(axis="x", color="#e3e6e9", lw=0.7)
        axes.set_axisbelow(True)
        axes.spines[["top", "right", "left"]].set_visible(False)
        handles, labels = axes.get_legend_handles_labels()
        if handles:
            figure.legend(handles, labels, loc="outside upper center", ncols=min(len(labels), 7), frameon=False, fontsize=8.5)
        save_figure(figure, path)


def scores_of(methods: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """What `draw_f1` takes, from the judged methods of an evaluation; one without a pooled F1 is left out.

    A method holds `pooled` {f1}, `f1_interval` {low, high} and `sites` {name: {f1}}.
    """
    scores: dict[str, dict[str, float]] = {}
    for name, method in methods.items():
        if method["pooled"].get("f1") is None:
            continue
        row = {site: figures["f1"] for site, figures in method["sites"].items() if figures.get("f1") is not None}
        interval = method.get("f1_interval") or {}
        if interval.get("low") is not None and interval.get("high") is not None:
            row |= {"low": interval["low"], "high": interval["high"]}
        scores[name] = row | {"pooled": method["pooled"]["f1"]}
    return scores


def draw_reliability(
    predicted: Sequence[float], observed: Sequence[float], pixels: Sequence[int], path: Path, *, title: str = ""
) -> None:
    """Writes a PNG: how often pixels really changed against the probability they were given, and how many there were of each."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(5.2, 4.9), facecolor="white", layout="constrained")
        axes, counts = figure.subplots(2, 1, height_ratios=[3.2, 1], sharex=True)
        axes.plot([0, 1], [0, 1], color=MUTED, lw=1, ls=(0, (4, 3)), label="perfectly calibrated")
        shown = [(p, o) for p, o, n in zip(predicted, observed, pixels, strict=True) if n and np.isfinite(o)]
        if shown:
            axes.plot(*zip(*shown, strict=True), "o-", color=COLOURS[0], lw=1.8, ms=5, label="measured")
        axes.set(xlim=(0, 1), ylim=(0, 1), ylabel="share really changed")
        axes.legend(frameon=False, fontsize=8.5, loc="upper left")
        axes.set_title(title or "Reliability", size=10, weight="bold", loc="left")
        width = 0.8 / max(len(predicted), 1)
        counts.bar(predicted, np.maximum(pixels, 0.5), width=width, color=COLOURS[0], alpha=0.75)
        counts.set(yscale="log", ylabel="pixels", xlabel="probability of change", ylim=(0.5, None))
        for panel in (axes, counts):
            panel.spines[["top", "right"]].set_visible(False)
            panel.tick_params(length=2.5, width=0.6)
        save_figure(figure, path)


def draw_growth(
    change_days: np.ndarray, detected_days: np.ndarray, area_m2: np.ndarray, path: Path, start_day: float, end_day: float
) -> None:
    """Writes a PNG: changed area over time, by date of change and by date of alarm.

    One entry per pixel: a patch grows over many dates, and none of them is that of all of it. NaN is left out.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9.2, 2.9), facecolor="white", layout="constrained")
        axes = figure.subplots()
        for days, colour, text in (
            (change_days, COLOURS[1], "by date of change"),
            (detected_days, COLOURS[4], "by date of alarm"),
        ):
            is_dated = np.isfinite(days)
            order = np.argsort(days[is_dated], kind="stable")
            x = np.concatenate([[start_day], days[is_dated][order], [end_day]])
            total = np.concatenate([[0], np.cumsum(area_m2[is_dated][order])]) / 1e4
            axes.step(x, np.concatenate([total, total[-1:]]), where="post", color=colour, lw=1.8, label=text)
        axes.set(xlim=(start_day, max(end_day, start_day + 1)), ylabel="changed area [ha]")
        axes.set_title("Pixels of the patches, each from its own date on", size=8.5, color=MUTED, loc="right", pad=4)
        axes.set_ylim(bottom=0)
        locator = AutoDateLocator(minticks=4, maxticks=10)
        axes.xaxis.set_major_locator(locator)
        axes.xaxis.set_major_formatter(ConciseDateFormatter(locator, show_offset=False))
        axes.grid(axis="y", color="#e3e6e9", lw=0.7)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=8.5, loc="upper left")
        save_figure(figure, path)
