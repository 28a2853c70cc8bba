"""The section of the report that shows which candidates of a forecast's network were compared, and what that cost."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipelines.learning.model_choice import text_of
from pipelines.products.canvas import FAINT, INK, drawing, tidy, title
from pipelines.products.charts import COLOURS
from pipelines.products.json_values import Json
from pipelines.products.section import Column, Picture, Section, Table

HOW = (
    "Each candidate was trained for a few epochs on dates before an origin inside the training part, and scored on the dates "
    "after it, in blocks that it had not seen. Nothing of validation or test was read. Of each round the simplest or cheapest "
    "candidate won that the best one did not beat beyond the spread of the origins."
)


def choice_section(choice: Json, drafts: Path) -> Section:
    """Candidates, their error at every origin and their cost; an empty section where nothing was chosen.

    `choice`: the content of chosen.json, {} for none.
    """
    title = "How the model was chosen"
    if not choice:
        return Section("choice", title)
    rows = [row_of(trial, choice["origins"]) for trial in choice["trials"]]
    text = [f"{choice['sentence'][0].upper()}{choice['sentence'][1:]}."]
    if not rows:
        return Section("choice", title, text)
    if choice["untried"]:
        text.append(f"Not tried, since `model.tries` was reached: {len(choice['untried'])}.")
    chosen = [row["name"] for row, trial in zip(rows, choice["trials"], strict=True) if trial["is_chosen"]]
    drawn = [(row["name"], row["errors"], row["name"] in chosen) for row in rows if row["errors"]]
    if drawn:
        draw_candidates(drawn, drafts / "candidates.png")
    columns = [
        Column("name", "candidate", "text"),
        Column("mean", "mean error", better="low"),
        *[Column(f"origin_{number}", f"origin {number}") for number in range(1, choice["origins"] + 1)],
        Column("learnt", "windows", "whole"),
        Column("cpu_seconds", "CPU seconds", "whole"),
        Column("remark", "", "text"),
    ]
    table = Table("Candidates in the order of the search, the newest origin first", columns, rows, strong=chosen)
    picture = Picture(drafts / "candidates.png", "Mean absolute error of every candidate at the origins")
    return Section("choice", title, [*text, HOW], pictures=[picture] if drawn else [], tables=[table])


def draw_candidates(candidates: Sequence[tuple[str, Sequence[float], bool]], path: Path) -> None:
    """Writes a PNG: one row for each candidate (name, errors at the origins, whether it was chosen), a dot for each origin."""
    with drawing(path, (9.2, 0.9 + 0.34 * len(candidates))) as figure:
        axes = figure.subplots()
        for y, (_, errors, is_chosen) in enumerate(reversed(candidates)):
            colour = COLOURS[0] if is_chosen else COLOURS[-1]
            axes.plot([min(errors), max(errors)], [y, y], color=FAINT, lw=2.2, zorder=1)
            axes.plot(errors, [y] * len(errors), "o", color=colour, ms=5, alpha=0.8, zorder=2)
            axes.plot(sum(errors) / len(errors), y, "|", color=INK, ms=13, mew=1.8, zorder=3)
        axes.set_yticks(range(len(candidates)), [name for name, _, _ in reversed(candidates)], fontsize=8)
        title(axes, "Mean absolute error: a dot for each origin, a bar for the mean; blue: chosen")
        tidy(axes, "x", ("top", "right", "left"))


def row_of(trial: Json, origins: int) -> dict[str, Any]:
    """One candidate. errors: at the origins at which it could be scored; the mean only where that is at all of them."""
    scores = trial["scores"]
    errors = [score["error"] for score in scores if score["error"] is not None]
    problem = next((score["problem"] for score in scores if score["problem"]), "")
    behind = problem or ("far behind, given up" if len(scores) < origins else "")
    remark = "; ".join(part for part in ("chosen" if trial["is_chosen"] else "", behind) if part)
    return {
        "name": text_of(trial),
        "errors": errors,
        "mean": sum(errors) / len(errors) if len(errors) == origins else None,
        **{f"origin_{number}": error for number, error in enumerate(errors, start=1)},
        "learnt": sum(score["learnt"] for score in scores),
        "cpu_seconds": sum(score["cpu_seconds"] for score in scores),
        "remark": remark,
    }
