"""What is published of sentences about samples: a table, the same as JSON, an index, and a picture of some samples.

Shapes: N samples, T frames, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.files import write_json
from pipelines.learning.caption_metrics import Captions
from pipelines.products.canvas import INK, MUTED, draw_series, drawing, shown_frames, title_row
from pipelines.products.label_charts import WRONG
from pipelines.products.label_products import SEEN, LabelLineage, place_of, write_index, write_rows
from pipelines.samples.caption_words import sentence_of, words_of
from pipelines.samples.sample_store import SampleTable
from pipelines.wording import harmless

TABLE, JSON = "captions.csv", "captions.json"
SURE = {True: "sure", False: "uncertain"}
MOST_FRAMES, MOST_SAMPLES = 8, 6  # in a picture


@dataclass(frozen=True)
class ShownCaption:
    """A sample for the picture: some of its valid frames, what is written of it, what is known ("": nothing)."""

    name: str
    image_THW: np.ndarray
    said: str
    known: str
    is_wrong: bool


def caption_rows(
    table: SampleTable, captions: Captions, is_held_out_N: np.ndarray, least_probability: float
) -> list[dict[str, Any]]:
    """Rows of `captions.csv`: sample, file and group, what is known, the sentence with its probability, the second likeliest.

    A sentence is uncertain where its probability is below `least_probability`. Known sentences are as they are compared: small
    letters.
    """
    rows = []
    for n in range(len(table)):
        (first, *others), p_W = captions.words_PW[n], captions.probability_PW[n]
        has_second = bool(others) and p_W[1] > 0
        rows.append(
            {
                **place_of(table, n),
                "known": sentence_of(words_of(table.answer_N[n])),
                "caption": sentence_of(first),
                "probability": float(p_W[0]),
                "certainty": SURE[bool(p_W[0] >= least_probability)],
                "second": sentence_of(others[0]) if has_second else "",
                "second_probability": float(p_W[1]) if has_second else "",
                "answered_by": SEEN[bool(is_held_out_N[n])],
            }
        )
    return rows


def write_captions(
    rows: Sequence[dict[str, Any]], lineage: LabelLineage, folder: Path, vocabulary: Sequence[str], least_probability: float
) -> None:
    """`captions.csv`, `captions.json` and `index.json`."""
    write_rows(rows, list(rows[0]), folder / TABLE)
    plain = [{**row, "second_probability": row["second_probability"] if row["second"] else None} for row in rows]
    write_json(folder / JSON, {"least_probability": least_probability, "captions": plain}, is_strict=True)
    role = "sentences, a line for each sample"
    write_index(lineage, folder, vocabulary, len(rows), TABLE, role, least_probability=least_probability)


def choose_shown(rows: Sequence[dict[str, Any]], most: int = MOST_SAMPLES) -> list[int]:
    """Rows for the picture: evenly over those answered by networks that have not seen them (else all), the least sure last."""
    held_out = [n for n, row in enumerate(rows) if row["answered_by"] == SEEN[True]] or list(range(len(rows)))
    order = sorted(held_out, key=lambda n: (-rows[n]["probability"], n))
    return [order[k] for k in np.unique(np.linspace(0, len(order) - 1, min(most, len(order))).astype(int))]


def shown_caption(table: SampleTable, image_NTCHW: np.ndarray, n: int, row: dict[str, Any]) -> ShownCaption:
    """Sample n by its first band, of volumes the middle slice."""
    kept = shown_frames(table.valid_NT[n], MOST_FRAMES)
    planes = [np.asarray(image_NTCHW[n, t, 0]) for t in kept]
    said = f"{row['caption']} ({row['probability']:.2f}{', uncertain' if row['certainty'] == SURE[False] else ''})"
    return ShownCaption(row["sample"], np.stack(planes), said, row["known"], row["known"] not in ("", row["caption"]))


def draw_captions(samples: Sequence[ShownCaption], path: Path, heading: str) -> None:
    """Writes a PNG: a row of frames for each sample under its sentence; where that is wrong, the known one too, in orange."""
    columns = max(len(one.image_THW) for one in samples)
    with drawing(path, (max(6.0, 1.15 * columns + 0.3), 1.75 * len(samples) + 0.6)) as figure:
        axes = figure.subplots(len(samples), columns, squeeze=False)
        for one, row in zip(samples, axes, strict=True):
            draw_series(row, one.image_THW)
            title_row(row[0], f"{harmless(one.name)[:24]}: {harmless(one.said)}")
            if one.is_wrong:
                known = row[0].text(
                    0,
                    -0.08,
                    f"is: {harmless(one.known)}",
                    transform=row[0].transAxes,
                    fontsize=8,
                    color=WRONG,
                    va="top",
                    parse_math=False,
                )
                known.set_in_layout(False)  # else the first frame gets all of its width
                row[0].set_xlabel(" ", fontsize=8)  # its height
        figure.suptitle(heading, fontsize=10, color=INK, x=0.01, ha="left")
        figure.supxlabel("In brackets: the probability of the sentence. Orange: what is known, where that differs.",
                         fontsize=8.5, color=MUTED)  # fmt: skip
