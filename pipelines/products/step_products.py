"""What is published of labels of steps: a line for each span of one answer, and a picture of answered and known spans over time.

Shapes: N samples, T frames, K classes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Patch

from pipelines.products.canvas import INK, MUTED, drawing, tidy
from pipelines.products.charts import PALETTE
from pipelines.products.label_products import SEEN, place_of
from pipelines.samples.sample_store import SampleTable
from pipelines.samples.spans import classes_of, clock_of, spans_of
from pipelines.wording import harmless

Clock = Literal["frames", "seconds", "dates"]
MOST_LINES, BLANK = 20, "#e3e6ea"
HATCHES = ("", "////", "....", "xxxx")  # of classes beyond the colours
DAY_S = 86_400


@dataclass(frozen=True)
class Answered:
    """The valid steps of a sample: their moments (one more: the end), the known class (-1: none) and the answered one."""

    name: str
    moment_T: np.ndarray
    known_T: np.ndarray
    class_T: np.ndarray

    @property
    def wrong(self) -> float:
        """The share of the labelled steps that is answered otherwise; -1 without any."""
        is_known_T = self.known_T >= 0
        return float((self.class_T != self.known_T)[is_known_T].mean()) if is_known_T.any() else -1.0


def answered_steps(table: SampleTable, outputs: Sequence[str], answer_NTK: np.ndarray, clock: Clock) -> list[Answered]:
    """Of every sample; moments in `frames` of the file, or seconds (of `dates`: from the first frame).

    Labels of classes that are none of the outputs count as unknown.
    """
    found = []
    for n in range(len(table)):
        moment_T, end = clock_of(table, n, "frames" if clock == "frames" else "seconds")
        valid_T, known_T = table.valid_NT[n], np.full(len(moment_T), -1)
        if table.answer_N[n].startswith("{"):  # labels of whole samples are of no step
            unit, spans = spans_of(table, n)
            known_T = classes_of(table, n, unit, [one for one in spans if one[2] in outputs], outputs, Counter())
        moments = np.append(moment_T[valid_T], end)
        found.append(Answered(table.id_N[n], moments, known_T[valid_T], answer_NTK[n, valid_T].argmax(axis=1)))
    return found


def step_rows(
    table: SampleTable, outputs: Sequence[str], answer_NTK: np.ndarray, is_held_out_N: np.ndarray, clock: Clock
) -> list[dict[str, Any]]:
    """Rows of `labels.csv`: for each span of valid steps with one answer (and one known label) its ends, which can be read again
    as a table of labels, its steps, the label, and its probabilities (their mean)."""
    rows = []
    for n, one in enumerate(answered_steps(table, outputs, answer_NTK, clock)):
        own_TK = answer_NTK[n, table.valid_NT[n]]
        changes = np.flatnonzero(np.diff(one.class_T) | np.diff(one.known_T)) + 1
        for first, last in pairwise([0, *changes.tolist(), len(one.class_T)]):
            p_K, label = own_TK[first:last].mean(axis=0), int(one.class_T[first])
            known = outputs[one.known_T[first]] if one.known_T[first] >= 0 else ""
            row: dict[str, Any] = {
                **place_of(table, n),
                "from": _end(table, one.moment_T[first], clock),
                "to": _end(table, one.moment_T[last], clock),
            }
            row |= {"steps": last - first, "known": known, "label": outputs[label], "confidence": float(p_K[label])}
            row |= {f"p_{name}": float(p_K[k]) for k, name in enumerate(outputs)}
            rows.append({**row, "answered_by": SEEN[bool(is_held_out_N[n])]})
    return rows


def _end(table: SampleTable, moment: float, clock: Clock) -> str:
    """A moment as the tables of labels state it."""
    if clock != "dates":
        return f"{moment:.0f}" if clock == "frames" else f"{moment:.6g}"
    begin = np.datetime64(table.layout.settings["windows"]["begin"], "s")
    return str(begin + np.timedelta64(round(moment), "s")).removesuffix("T00:00:00")


def draw_steps(answered: Sequence[Answered], outputs: Sequence[str], clock: Clock, path: Path) -> None:
    """Writes a PNG: of at most MOST_LINES samples, those with most wrong answers first, what is known above what is answered."""
    chosen = sorted(answered, key=lambda one: -one.wrong)[:MOST_LINES]
    with drawing(path, (8.0, 0.36 * len(chosen) + 1.3)) as figure:
        axes = figure.subplots()
        for y, one in enumerate(chosen):
            for shift, class_T in ((-0.2, one.known_T), (0.2, one.class_T)):
                _draw_line(axes, y + shift, one.moment_T / (DAY_S if clock == "dates" else 1), class_T)
        axes.set_yticks(range(len(chosen)), [harmless(one.name)[:28] for one in chosen], fontsize=7)
        axes.invert_yaxis()
        axes.set_xlabel("days from the first frame" if clock == "dates" else clock, color=MUTED)
        tidy(axes, None)
        names = [Patch(**_style(k), label=harmless(name)) for k, name in enumerate(outputs)]
        figure.legend(
            handles=[*names, Patch(**_style(-1), label="not labelled")], loc="outside lower center", ncols=6, fontsize=8
        )
        figure.suptitle("Known labels (above) and answers (below)", fontsize=10, color=INK, x=0.01, ha="left")


def _draw_line(axes: Axes, y: float, moment_T: np.ndarray, class_T: np.ndarray) -> None:
    for (start, stop), k in zip(pairwise(moment_T.tolist()), class_T.tolist(), strict=True):
        axes.barh(y, stop - start, left=start, height=0.38, **_style(k))


def _style(k: int) -> dict[str, Any]:
    """How a span of class k (-1: not labelled) is filled: different for 64 classes."""
    if k < 0:
        return {"facecolor": BLANK, "edgecolor": INK, "lw": 0}
    return {"facecolor": PALETTE[k % len(PALETTE)], "edgecolor": INK, "lw": 0, "hatch": HATCHES[k // len(PALETTE) % len(HATCHES)]}
