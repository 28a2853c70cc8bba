"""Numbers as pictures: errors, skill, intervals and split of a forecast; F1, reliability, growth and single pixels of change.

What comes from an evaluation is JSON, as `Evaluation.to_json` gives it; None leaves a gap.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle

from pipelines.calendar import iso_date
from pipelines.products.canvas import FAINT, INK, MUTED, drawing, label, tidy, title
from pipelines.products.json_values import Json
from pipelines.tiles import Box

if TYPE_CHECKING:
    from pipelines.monitoring.areas import Course

# Okabe & Ito (2008): told apart with any colour vision; the model is always the first
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#8c8c8c")
GREY = COLOURS[-1]
# of many classes: those of Okabe & Ito without black and grey, then the light ones of Tol (2021)
PALETTE = (
    "#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7", "#77AADD", "#EE8866", "#BBCC33", "#AAAA00",
    "#99DDFF", "#FFAABB", "#44BB99", "#882255", "#332288",
)  # fmt: skip
MARKERS = "osD^vPX"
OUTCOMES = {"beats": "#009E73", "equal": "#56B4E9", "not distinguishable": GREY, "loses": "#D55E00"}
PARTS = {"train": "#56B4E9", "validation": "#E69F00", "test": "#D55E00"}
METRICS = ("mae", "rmse", "ssim")
HISTORY, MONITORED, EXPECTED, CHANGE, ALARM = "#8f99a3", INK, "#0072b2", "#e69f00", "#d55e00"
DEVIATIONS = 2  # of the band on either side of what is expected


def draw_errors(metrics: Mapping[str, Json], model: str, path: Path) -> None:
    """Writes a PNG: one panel per metric, one line per forecaster, leads along x. `metrics[name]`: {by_lead}."""
    names = [model, *[name for name in metrics if name != model]]
    with drawing(path, (3.6 * len(METRICS) + 0.4, 3.7)) as figure:
        for axes, metric in zip(figure.subplots(1, len(METRICS), squeeze=False)[0], METRICS, strict=True):
            for number, name in enumerate(names):
                _line(axes, metrics[name]["by_lead"], metric, name, number)
            title(axes, f"{metric.upper()} ({'higher' if metric == 'ssim' else 'lower'} is better)")
            _finish(axes, len(metrics[model]["by_lead"]))
        handles, labels = figure.axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=min(len(names), 6), frameon=False, fontsize=9)


def _line(axes: Axes, leads: Sequence[Json], key: str, name: str, number: int) -> None:
    """A value by lead; the first line (`number` 0) is the one that stands out."""
    width, size, order = (2.6, 5.5, 5) if number == 0 else (1.4, 4, 3)
    x, y = [lead["lead"] for lead in leads], np.array([lead[key] for lead in leads], np.float64)
    colour, marker = COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)]
    axes.plot(x, y, marker=marker, ms=size, lw=width, color=colour, label=name, zorder=order)


def _finish(axes: Axes, leads: int) -> None:
    axes.set_xlabel("lead (steps ahead)", color=MUTED)
    axes.set_xticks(range(1, leads + 1, max(1, leads // 12)))
    tidy(axes)
    axes.tick_params(length=2.5, width=0.6)


def draw_events(scores: Json, model: str, path: Path) -> None:
    """Writes a PNG: CSI by lead, one panel per threshold. `scores`: see `pipelines.learning.threshold_scores`."""
    names = [model, *[name for name in scores["methods"] if name != model]]
    with drawing(path, (3.6 * len(scores["thresholds"]) + 0.4, 3.7)) as figure:
        for number, axes in enumerate(figure.subplots(1, len(scores["thresholds"]), squeeze=False)[0]):
            for line, name in enumerate(names):
                _line(axes, scores["methods"][name][number]["by_lead"], "csi", name, line)
            title(axes, f"CSI, at least {scores['thresholds'][number]:g} {scores['unit']} (higher is better)".replace("  ", " "))
            axes.set_ylim(bottom=0)
            _finish(axes, len(scores["methods"][model][number]["by_lead"]))
        handles, labels = figure.axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=min(len(names), 6), frameon=False, fontsize=9)


def draw_skill(skill: Mapping[str, Json], ours: str, path: Path) -> None:
    """Writes a PNG: skill of `ours` against each other method with its interval, overall (bars) and per lead (lines)."""
    names = list(skill)
    with drawing(path, (11.2, 1.2 + max(1.9, 0.48 * len(names)))) as figure:
        bars, lines = figure.subplots(1, 2, width_ratios=[1.15, 1])
        for y, name in enumerate(reversed(names)):
            overall = skill[name]["overall"]
            value, low, high = np.array([overall[key] for key in ("skill", "low", "high")], np.float64)
            bars.barh(y, value, height=0.58, color=OUTCOMES.get(overall["outcome"], GREY), alpha=0.85)
            if np.isfinite(low) and np.isfinite(high):
                bars.plot([low, high], [y, y], color=INK, lw=1.3)
                bars.plot([low, high], [y, y], "|", color=INK, ms=7)
        bars.set_yticks(range(len(names)), list(reversed(names)))
        bars.axvline(0, color=INK, lw=0.9)
        bars.xaxis.set_major_formatter(mpl.ticker.PercentFormatter(1, decimals=0, symbol=" %"))
        title(bars, f"Error reduction by the {ours} relative to each, all leads")
        tidy(bars, "x", ("top", "right", "left"))
        key = [Patch(color=colour, label=outcome) for outcome, colour in OUTCOMES.items()]
        bars.legend(handles=key, frameon=False, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=len(OUTCOMES))
        for number, name in enumerate(names, start=1):
            _line(lines, skill[name]["by_lead"], "skill", name, number)
        lines.axhline(0, color=INK, lw=0.9)
        lines.yaxis.set_major_formatter(mpl.ticker.PercentFormatter(1, decimals=0, symbol=" %"))
        title(lines, "By lead")
        _finish(lines, len(skill[names[0]]["by_lead"]))
        lines.legend(frameon=False, fontsize=8, ncols=2)


def draw_coverage(intervals: Json, path: Path) -> None:
    """Writes a PNG: the share of observations inside the intervals per lead beside the nominal one, and their mean width."""
    leads = intervals["by_lead"]
    with drawing(path, (7.4, 3.2)) as figure:
        share, width = figure.subplots(1, 2)
        share.axhline(intervals["nominal"], color=INK, lw=1, ls=(0, (5, 3)), label=f"nominal {100 * intervals['nominal']:g} %")
        _line(share, leads, "coverage", "measured", 0)
        share.set_ylim(min(0.5, *(lead["coverage"] or 0 for lead in leads)) - 0.02, 1.02)
        share.yaxis.set_major_formatter(mpl.ticker.PercentFormatter(1, decimals=0, symbol=" %"))
        title(share, "Observed inside the interval")
        share.legend(frameon=False, fontsize=8, loc="lower right")
        _line(width, leads, "mean_width", "width", 0)
        width.set_ylim(0, 1.15 * max((lead["mean_width"] or 0 for lead in leads), default=1) or 1)
        title(width, "Mean width")
        for axes in (share, width):
            _finish(axes, len(leads))


def draw_interval_reliability(reliability: Mapping[str, Sequence[Json]], shipped: str, path: Path) -> None:
    """Writes a PNG: the share of observations inside the intervals of every method against the nominal one.

    `reliability[name]`: {nominal, measured, is_bounded} by level; a hollow marker: the largest error stands in for the quantile.
    """
    with drawing(path, (5.6, 5.2)) as figure:
        axes = figure.subplots()
        axes.plot([0, 1], [0, 1], color=MUTED, lw=1, ls=(0, (4, 3)), label="as promised")
        for number, name in enumerate([shipped, *[name for name in reliability if name != shipped]]):
            width, size, order = (2.6, 5.5, 5) if number == 0 else (1.2, 3.5, 3)
            colour, marker = COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)]
            x, y = ([level[key] for level in reliability[name]] for key in ("nominal", "measured"))
            style = "-" if number < len(COLOURS) else "--"  # colours repeat
            axes.plot(x, y, ls=style, lw=width, color=colour, marker=marker, ms=size, label=name, zorder=order)
            hollow = [(level["nominal"], level["measured"]) for level in reliability[name] if not level["is_bounded"]]
            if hollow:
                axes.plot(*zip(*hollow, strict=True), ls="", marker=marker, ms=size, mec=colour, mfc="white", zorder=order + 1)
        axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="nominal coverage", ylabel="observed inside the interval")
        axes.legend(frameon=False, fontsize=8.5, loc="upper left")
        title(axes, "Reliability of the intervals")
        tidy(axes)
        axes.tick_params(length=2.5, width=0.6)


def draw_blocks(tiles: Iterable[tuple[Box, str]], shape: tuple[int, ...], path: Path) -> None:
    """Writes a PNG: which pixels train, validate and test. `tiles` are (tile, part); what no part uses is grey.

    Of volumes the view along the slices.
    """
    height, width = shape[-2:]
    with drawing(path, (4.4, 0.75 + float(np.clip(4.0 * height / width, 1.2, 6)))) as figure:
        axes = figure.subplots()
        axes.set_facecolor("#e6e8ea")
        for tile, part in sorted(set(tiles)):
            corner, (rows, columns) = (tile.columns.start, tile.rows.start), tile.shape[-2:]
            axes.add_patch(Rectangle(corner, columns, rows, fc=PARTS.get(part, GREY), ec="white", lw=0.8))
        axes.set(xlim=(0, width), ylim=(height, 0), aspect="equal", xlabel="column [px]", ylabel="row [px]")
        axes.tick_params(length=2, labelsize=8)
        key = [Patch(color=colour, label=part) for part, colour in PARTS.items()]
        figure.legend(handles=key, loc="outside upper center", ncols=3, frameon=False, fontsize=9)


# ---------------------------------------------------------------- change


def draw_f1(methods: Mapping[str, Json], shipped: str, path: Path) -> None:
    """Writes a PNG: one row per method that has a pooled F1, the shipped one at the top.

    `methods[name]`: `pooled` {f1}, `sites` {name: {f1}} and, if known, `f1_interval` {low, high}.
    """
    scored = {name: method for name, method in methods.items() if method["pooled"].get("f1") is not None}
    names = sorted(scored, key=lambda name: name != shipped)
    sites = sorted({site for one in scored.values() for site, found in one["sites"].items() if found.get("f1") is not None})
    with drawing(path, (9.2, 1.35 + 0.42 * len(names))) as figure:
        axes = figure.subplots()
        for y, name in enumerate(reversed(names)):
            pooled, interval = scored[name]["pooled"]["f1"], scored[name].get("f1_interval") or {}
            axes.barh(y, pooled, height=0.55, color=COLOURS[0] if name == shipped else GREY, alpha=0.9, zorder=2)
            if interval.get("low") is not None and interval.get("high") is not None:
                axes.plot([interval["low"], interval["high"]], [y, y], "|-", color=INK, lw=1.3, ms=7, zorder=3)
            axes.text(1.01, y, f"{pooled:.3f}", transform=axes.get_yaxis_transform(), va="center", weight="bold")
            for number, site in enumerate(sites):
                f1 = scored[name]["sites"].get(site, {}).get("f1")
                if f1 is not None and np.isfinite(f1):
                    axes.plot(f1, y, MARKERS[number % len(MARKERS)], ms=5, mfc="white", mew=1.3,
                              mec=COLOURS[(number + 1) % len(COLOURS)], zorder=5, label=site if y == 0 else None)  # fmt: skip
        axes.set_yticks(range(len(names)), list(reversed(names)))
        axes.set_xlim(left=0)
        axes.set_xlabel("F1 of the changed class: bar pooled, signs single sites, line its interval", color=MUTED)
        tidy(axes, "x", ("top", "right", "left"))
        handles, labels = axes.get_legend_handles_labels()
        if handles:
            figure.legend(handles, labels, loc="outside upper center", ncols=min(len(labels), 7), frameon=False, fontsize=8.5)


def draw_reliability(
    bins: Sequence[Json], path: Path, happened: str = "share really changed", of: str = "change", unit: str = "pixels"
) -> None:
    """Writes a PNG: how often pixels really changed (`happened`) against the probability they were given (`claimed`), per bin,
    and how many `pixels` there were of each. `happened`, `of` and `unit` name what, in the axes' labels."""
    with drawing(path, (5.2, 4.9)) as figure:
        axes, counts = figure.subplots(2, 1, height_ratios=[3.2, 1], sharex=True)
        axes.plot([0, 1], [0, 1], color=MUTED, lw=1, ls=(0, (4, 3)), label="perfectly calibrated")
        shown = [(one["claimed"], one["happened"]) for one in bins if one["pixels"] and np.isfinite(one["happened"])]
        if shown:
            axes.plot(*zip(*shown, strict=True), "o-", color=COLOURS[0], lw=1.8, ms=5, label="measured")
        axes.set(xlim=(0, 1), ylim=(0, 1), ylabel=happened)
        axes.legend(frameon=False, fontsize=8.5, loc="upper left")
        title(axes, "Reliability")
        filled = sorted((one["claimed"], one["pixels"]) for one in bins if one["pixels"])
        centres, heights = zip(*filled, strict=True) if filled else ((), ())
        width = 0.8 * float(np.diff(centres).min()) if len(centres) > 1 else 0.08
        counts.bar(centres, np.maximum(heights, 0.5), width=min(width, 0.08), color=COLOURS[0], alpha=0.75)
        counts.set(yscale="log", ylabel=unit, xlabel=f"probability of {of}", ylim=(0.5, None))
        for panel in (axes, counts):
            tidy(panel, None)
            panel.tick_params(length=2.5, width=0.6)


def draw_growth(
    change_days: np.ndarray, detected_days: np.ndarray, area_m2: np.ndarray, path: Path, start_day: float, end_day: float
) -> None:
    """Writes a PNG: changed area over time, by date of change and by date of alarm.

    One entry per pixel: a patch grows over many dates, and none of them is that of all of it. NaN is left out.
    """
    lines = ((change_days, COLOURS[1], "by date of change"), (detected_days, COLOURS[4], "by date of alarm"))
    with drawing(path, (9.2, 2.9)) as figure:
        axes = figure.subplots()
        for days, colour, text in lines:
            is_dated = np.isfinite(days)
            order = np.argsort(days[is_dated], kind="stable")
            x = np.concatenate([[start_day], days[is_dated][order], [end_day]])
            total = np.concatenate([[0], np.cumsum(area_m2[is_dated][order])]) / 1e4
            axes.step(x, np.concatenate([total, total[-1:]]), where="post", color=colour, lw=1.8, label=text)
        axes.set(xlim=(start_day, max(end_day, start_day + 1)), ylabel="changed area [ha]")
        axes.set_title("Pixels of the patches, each from its own date on", size=8.5, color=MUTED, loc="right", pad=4)
        axes.set_ylim(bottom=0)
        label_dates(axes)
        tidy(axes)
        axes.legend(frameon=False, fontsize=8.5, loc="upper left")


def label_dates(axes: Axes) -> None:
    """Few dates, short, along x."""
    locator = AutoDateLocator(minticks=4, maxticks=10)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator, show_offset=False))


@dataclass(frozen=True)
class Series:
    """One pixel: its observations beside what was expected. Days since 1970-01-01 are NaN where nothing was found."""

    title: str
    course: Course
    change_day: float = float("nan")
    detected_day: float = float("nan")
    recovered_day: float = float("nan")


def draw_change_series(series: Sequence[Series], path: Path, heading: str, variable: str, unit: str, start_day: float) -> None:
    """Writes a PNG, one panel per pixel on a common time axis; `start_day` is where history ends and monitoring begins."""
    size_x, size_y = 11.0, 0.95 + 1.75 * max(len(series), 1)
    with drawing(path, (size_x, size_y), layout=None) as figure:
        panels = list(figure.subplots(max(len(series), 1), 1, sharex=True, squeeze=False)[:, 0])
        sides = {"left": 0.72 / size_x, "right": 1 - 0.25 / size_x, "top": 1 - 0.88 / size_y, "bottom": 0.42 / size_y}
        figure.subplots_adjust(**sides, hspace=0.36)
        figure.text(0.2 / size_x, 1 - 0.26 / size_y, heading, size=13, weight="bold", va="center")
        if not series:
            panels[0].set_axis_off()
            panels[0].text(0.5, 0.5, "no patch to show", ha="center", color=MUTED, transform=panels[0].transAxes)
            return
        for axes, one in zip(panels, series, strict=True):
            _draw_pixel(axes, one, start_day)
            axes.set_ylabel(label(variable, unit), color=MUTED)
        _share_limits(panels, series)
        label_dates(panels[-1])
        _legend(figure)


def _draw_pixel(axes: Axes, one: Series, start_day: float) -> None:
    course, band = one.course, DEVIATIONS * one.course.spread
    low, high = course.expected - band, course.expected + band
    axes.fill_between(course.curve_days, low, high, color=EXPECTED, alpha=0.16, lw=0, zorder=1)
    axes.plot(course.curve_days, course.expected, color=EXPECTED, lw=1.2, zorder=2)
    is_history = course.days < start_day
    axes.plot(course.days[is_history], course.values[is_history], "o", ms=2.8, color=HISTORY, zorder=3)
    axes.plot(course.days[~is_history], course.values[~is_history], "o", ms=3.4, color=MONITORED, zorder=4)
    axes.axvline(start_day, color=MUTED, lw=0.8, ls=(0, (2, 2)), zorder=0)
    text = []
    if np.isfinite(one.change_day):
        axes.axvline(one.change_day, color=CHANGE, lw=1.6, zorder=2.5)
        text.append(f"change {iso_date(one.change_day)}")
    if np.isfinite(one.detected_day):
        axes.axvline(one.detected_day, color=ALARM, lw=1.6, ls=(0, (4, 2)), zorder=2.5)
        days = one.detected_day - one.change_day
        text.append(f"alarm {iso_date(one.detected_day)}" + (f", {days:.0f} days later" if days > 0 else ""))
    if np.isfinite(one.recovered_day):
        text.append(f"as expected again since {iso_date(one.recovered_day)}")
    axes.set_title(one.title, size=9.5, weight="bold", loc="left", pad=4)
    axes.set_title("; ".join(text) or "nothing found", size=8.5, loc="right", pad=4, color=INK if text else MUTED)
    tidy(axes)
    axes.grid(axis="y", color=FAINT, lw=0.6)
    axes.tick_params(labelsize=8, length=2.5, width=0.6)


def _share_limits(panels: Sequence[Axes], series: Sequence[Series]) -> None:
    """One range of values for all, so that the panels can be compared; one outlier does not flatten the rest."""
    values = np.concatenate([part for one in series for part in (one.course.values, one.course.expected)])
    values = values[np.isfinite(values)]
    low, high = np.percentile(values, [0.3, 99.7]) if values.size else (0.0, 1.0)
    pad = 0.14 * (high - low or 1.0)
    days = np.concatenate([part for one in series for part in (one.course.days, one.course.curve_days)])
    for axes in panels:
        axes.set_ylim(low - pad, high + pad)
        if days.size:
            axes.set_xlim(days.min() - 10, days.max() + 10)


def _legend(figure: Figure) -> None:
    size_x, size_y = figure.get_size_inches()
    handles = [
        Line2D([], [], marker="o", ls="", ms=4, color=HISTORY, label="history"),
        Line2D([], [], marker="o", ls="", ms=4, color=MONITORED, label="monitored"),
        Line2D([], [], color=EXPECTED, lw=1.4, label="expected"),
        Patch(color=EXPECTED, alpha=0.16, label=f"± {DEVIATIONS} deviations"),
        Line2D([], [], color=CHANGE, lw=1.8, label="change"),
        Line2D([], [], color=ALARM, lw=1.8, ls=(0, (3, 1.5)), label="alarm"),
        Line2D([], [], color=MUTED, lw=0.9, ls=(0, (2, 2)), label="monitoring begins"),
    ]
    figure.legend(
        handles=handles, loc="center left", bbox_to_anchor=(0.12 / size_x, 1 - 0.52 / size_y), ncols=len(handles), frameon=False,
        fontsize=8.5, handlelength=1.5, columnspacing=1.4,
    )  # fmt: skip
