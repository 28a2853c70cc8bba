"""What is published of boxes: a table in pixels of the files, an index, and a picture of samples with their boxes.

Shapes: N samples, X boxes, T frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from pipelines.products.canvas import INK, MUTED, draw_series, drawing, shown_frames, title_row
from pipelines.products.label_products import SEEN, LabelLineage, write_index, write_rows
from pipelines.samples.boxes import Boxes, FilePlaces
from pipelines.samples.sample_store import SampleTable
from pipelines.wording import harmless

TABLE = "boxes.csv"
COLUMNS = ("sample", "file", "group", "frame", "top", "left", "bottom", "right", "label", "score", "answered_by")
MOST_FRAMES, MOST_SAMPLES = 6, 5  # in a picture
TEXT_PX = 5  # a box nearer to the upper edge has its text inside
KNOWN = "#0072B2"  # Okabe & Ito (2008)
FOUND = "#D55E00"


@dataclass(frozen=True)
class Shown:
    """A sample for the picture: its valid frames, boxes whose frames are numbers in `image_THW`."""

    name: str
    image_THW: np.ndarray
    found: Boxes
    known: Boxes


def box_rows(table: SampleTable, outputs: Sequence[str], boxes: Boxes, is_held_out_N: np.ndarray) -> list[dict[str, Any]]:
    """Rows of `boxes.csv`, in whole pixels and frames of the files, both ends inside: as a table of known boxes is read.

    A sample without a box has a row that names it alone. Raises RequestError where the store lacks the sizes of the files.
    """
    places = FilePlaces(table.layout, table.facts)
    order = np.lexsort((-boxes.score_X, boxes.frame_X, boxes.sample_X))
    of_sample: list[list[int]] = [[] for _ in range(len(table))]
    for x in order.tolist():
        of_sample[int(boxes.sample_X[x])].append(x)
    rows: list[dict[str, Any]] = []
    for n, own in enumerate(of_sample):
        named = {"sample": table.id_N[n], "file": table.file_N[n], "group": table.group_N[n]}
        by = {"answered_by": SEEN[bool(is_held_out_N[n])]}
        rows += [{**named, **_cells(places, boxes, x, outputs), **by} for x in own] or [{**named, **by}]
    return rows


def _cells(places: FilePlaces, boxes: Boxes, x: int, outputs: Sequence[str]) -> dict[str, Any]:
    """The cells of a row that say where box x is, and what."""
    n = int(boxes.sample_X[x])
    _, height, width = places.shape(n)
    top, left, bottom, right = places.in_file(n, boxes.edges_X4[x])
    first = min(int(top), height - 1), min(int(left), width - 1)
    last = max(int(np.ceil(bottom)) - 1, first[0]), max(int(np.ceil(right)) - 1, first[1])
    return {
        "frame": int(places.kept(n)[boxes.frame_X[x]]),
        "top": first[0],
        "left": first[1],
        "bottom": last[0],
        "right": last[1],
        "label": outputs[int(boxes.class_X[x])],
        "score": float(boxes.score_X[x]),
    }


def write_boxes(
    rows: Sequence[dict[str, Any]], lineage: LabelLineage, folder: Path, outputs: Sequence[str], samples: int, least: float
) -> None:
    """`boxes.csv` and `index.json`."""
    write_rows(rows, COLUMNS, folder / TABLE)
    counts = {name: sum(row.get("label") == name for row in rows) for name in outputs}
    role = "boxes, a line for each: first and last row and column in pixels of the file, frames from 0; samples without a box"
    write_index(lineage, folder, outputs, samples, TABLE, role, boxes=counts, least_score=least)


def choose_shown(found: Boxes, known: Boxes, index_P: np.ndarray) -> list[int]:
    """Samples for the picture, evenly over those of `index_P` that have a known or found box."""
    with_boxes = index_P[np.isin(index_P, np.concatenate([found.sample_X, known.sample_X]))]
    several = with_boxes if len(with_boxes) else index_P
    chosen: list[int] = several[np.unique(np.linspace(0, len(several) - 1, min(MOST_SAMPLES, len(several))).astype(int))].tolist()
    return chosen


def shown_sample(table: SampleTable, image_NTCHW: np.ndarray, n: int, found: Boxes, known: Boxes) -> Shown:
    """Sample n by its first band."""
    kept = shown_frames(table.valid_NT[n], MOST_FRAMES)
    image_THW = np.stack([np.asarray(image_NTCHW[n, t, 0]) for t in kept])
    number = {int(t): i for i, t in enumerate(kept)}

    def own(boxes: Boxes) -> Boxes:
        chosen = boxes.chosen((boxes.sample_X == n) & np.isin(boxes.frame_X, kept))
        frame_X = np.array([number[int(t)] for t in chosen.frame_X], np.int64)
        return Boxes(chosen.sample_X, frame_X, chosen.edges_X4, chosen.class_X, chosen.score_X)

    return Shown(str(table.id_N[n]), image_THW, own(found), own(known))


def draw_boxes(samples: Sequence[Shown], outputs: Sequence[str], path: Path, heading: str) -> None:
    """Writes a PNG: a row of frames for each sample; found boxes orange with class and score, known ones blue and dashed."""
    columns = max(len(one.image_THW) for one in samples)
    with drawing(path, (max(4.5, 1.55 * columns + 0.3), 1.95 * len(samples) + 0.7)) as figure:
        axes = figure.subplots(len(samples), columns, squeeze=False)
        for one, row in zip(samples, axes, strict=True):
            draw_series(row, one.image_THW)
            for t in range(len(one.image_THW)):
                _outline(row[t], one.known, t, KNOWN, (), "--")
                _outline(row[t], one.found, t, FOUND, outputs, "-")
            title_row(row[0], harmless(one.name)[:40])
        figure.suptitle(heading, fontsize=10, color=INK, x=0.01, ha="left")
        figure.supxlabel("Orange: found, with class and score. Blue, dashed: known.", fontsize=8.5, color=MUTED)


def _outline(axis: Axes, boxes: Boxes, t: int, colour: str, outputs: Sequence[str], style: str) -> None:
    for x in np.flatnonzero(boxes.frame_X == t).tolist():
        top, left, bottom, right = boxes.edges_X4[x] - 0.5  # the centre of the first pixel is 0 on the axes
        axis.add_patch(Rectangle((left, top), right - left, bottom - top, fill=False, ec=colour, lw=1.1, ls=style))
        if outputs:
            text, is_low = f"{harmless(outputs[int(boxes.class_X[x])])} {boxes.score_X[x]:.2f}", top > TEXT_PX
            axis.text(left, top, text, color=colour, fontsize=6, va="bottom" if is_low else "top", clip_on=True)
