"""Skill over time: the report's section on archived forecasts whose truth has arrived, and its picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np

from pipelines.calendar import parse_utc
from pipelines.learning.result import COMBINATION
from pipelines.learning.verification import is_ours
from pipelines.products.canvas import INK, MUTED, drawing, tidy, title
from pipelines.products.charts import COLOURS, GREY, label_dates
from pipelines.products.json_values import Json
from pipelines.products.section import Column, Picture, Section, Table

COLUMNS = (
    Column("issued_utc", "issued", "date"), Column("scored", "dates scored", "whole"), Column("awaited", "to come", "whole"),
    Column("unseen", "not seen", "whole"), Column("published", "published", "text"), Column("mae", "error"),
    Column("rival_mae", "error of its rival"), Column("against", "rival", "text"), Column("bias", "bias"),
    Column("coverage", "inside the interval", "share"),
)  # fmt: skip
NOTE = (
    "Mean absolute error and bias of the first variable, over pixels that are usable on the target date and that both methods "
    "forecast; all blocks of the raster, unlike in the evaluation."
)
MOST_ROWS = 50


def verification_section(content: Json, drafts: Path) -> Section:
    """`content`: as in verification.json; an empty section where nothing is scored."""
    name, heading, scored = "verification", "Verification", content.get("by_date", [])
    if not content.get("by_issue"):
        return Section(name, heading)
    rows = [
        {**row, "published": _method(row["method"]), "against": _method(row["rival"] or "")}
        for row in content["by_issue"][-MOST_ROWS:]
    ]
    pictures = []
    if scored:
        draw_verification(scored, content["interval"], drafts / "verification.png")
        caption = "Target dates of archived forecasts, each with the mean over all forecasts for it."
        pictures = [Picture(drafts / "verification.png", "Error and coverage as the truth arrived", caption)]
    table = Table("Archived forecasts", COLUMNS, rows, NOTE)
    return Section(name, heading, [content["sentence"], *content["not_scored"]], pictures=pictures, tables=[table])


def _method(name: str) -> str:
    return "network" if name == "model" else name


def draw_verification(rows: Sequence[Json], nominal: float, path: Path) -> None:
    """Writes a PNG, by target date: mean absolute error of network (or combination) and baseline, how much smaller the network's
    is, and the share of pixels inside the interval. A ring marks what was published.
    """
    dates = np.array([parse_utc(row["date"]) for row in rows]).astype("datetime64[ms]")
    columns = {key: np.array([row[key] for row in rows], np.float64) for key in ("network", "baseline", "coverage")}
    ours, rival = columns["network"], columns["baseline"]
    is_combined = any(row["published"].startswith(COMBINATION) for row in rows)
    names = {"network": COMBINATION if is_combined else "network"}
    skill = 1 - np.divide(ours, rival, out=np.full_like(ours, np.nan), where=rival > 0)
    with drawing(path, (9.2, 6.0)) as figure:
        errors, gain, inside = figure.subplots(3, 1, sharex=True, height_ratios=[1.7, 1, 1])
        for key, colour, marker in (("network", COLOURS[0], "o"), ("baseline", COLOURS[1], "s")):
            errors.plot(dates, columns[key], marker=marker, ms=4.5, lw=1.6, color=colour, label=names.get(key, key))
        published = np.where([is_ours(row["published"], "model") for row in rows], ours, rival)
        errors.plot(dates, published, "o", ms=9, mfc="none", mec=INK, mew=0.9, label="published")
        errors.set_ylim(bottom=0)
        title(errors, "Mean absolute error by target date")
        gain.vlines(dates, 0, skill, color=GREY, lw=1)
        for is_better, colour in ((skill >= 0, COLOURS[0]), (skill < 0, COLOURS[1])):
            gain.plot(dates[is_better], skill[is_better], "o", ms=5, color=colour)
        gain.axhline(0, color=INK, lw=0.9)
        title(gain, f"Error reduction by the {names['network']} relative to the baseline")
        inside.axhline(nominal, color=INK, lw=1, ls=(0, (5, 3)), label=f"nominal {100 * nominal:g} %")
        inside.plot(dates, columns["coverage"], marker="^", ms=4.5, lw=1.4, color=COLOURS[2], label="measured")
        inside.set_ylim(min(0.5, float(np.nanmin([1.0, *columns["coverage"]]))) - 0.02, 1.02)
        title(inside, "Observed inside the interval of what was published")
        for axes in (errors, gain, inside):
            tidy(axes)
            axes.tick_params(length=2.5, width=0.6, colors=MUTED)
        for axes in (gain, inside):
            axes.yaxis.set_major_formatter(mpl.ticker.PercentFormatter(1, decimals=0, symbol=" %"))
        for axes in (errors, inside):
            axes.legend(frameon=False, fontsize=8.5, ncols=3, loc="lower right", bbox_to_anchor=(1, 0.98))
        label_dates(inside)
