"""What is published of samples: a table of answers, an index, and pictures of what the networks looked at.

Shapes: N samples, K classes or numbers, T frames, H rows, W columns.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from pipelines.files import write_json, write_text
from pipelines.products.canvas import INK, MUTED, drawing, title_row
from pipelines.samples.sample_store import SampleTable
from pipelines.wording import harmless

TABLE, INDEX, LOOKED_AT = "labels.csv", "index.json", "looked-at.png"
SEEN = {True: "networks that have not seen its group", False: "all networks"}
MOST_FRAMES = 8  # of a sample in a picture


@dataclass(frozen=True)
class LabelLineage:
    """What a table was made from, for the index."""

    name: str
    task: str
    snapshot: str
    model_hash: str
    config_hash: str
    code_version: str


@dataclass(frozen=True)
class LookedAt:
    """Valid frames of a sample, their numbers, and where pixels speak for (positive) or against what was answered."""

    name: str
    text: str
    frame_T: np.ndarray
    image_THW: np.ndarray
    weight_THW: np.ndarray


def write_labels(
    rows: Sequence[Mapping[str, Any]], lineage: LabelLineage, folder: Path, outputs: Sequence[str], samples: int
) -> None:
    """`labels.csv` and `index.json`."""
    write_rows(rows, list(rows[0]), folder / TABLE)
    role = f"answers, a line for each {'span of frames with one answer' if 'from' in rows[0] else 'sample'}"
    write_index(lineage, folder, outputs, samples, TABLE, role)


def write_rows(rows: Sequence[Mapping[str, Any]], columns: Sequence[str], path: Path) -> None:
    """A CSV file. Texts from outside cannot become formulas of a spreadsheet."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, list(columns), lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: _cell(value) for key, value in row.items()} for row in rows)
    write_text(path, buffer.getvalue())


def write_index(
    lineage: LabelLineage, folder: Path, outputs: Sequence[str], samples: int, table: str, role: str, **more: Any
) -> None:
    """`index.json`: what lies beside it and what it was made from."""
    content = {
        "driftline_index": 1,
        "name": lineage.name,
        "task": lineage.task,
        "outputs": list(outputs),
        "samples": samples,
        "lineage": {
            "snapshot": lineage.snapshot,
            "model_hash": lineage.model_hash,
            "config_hash": lineage.config_hash,
            "code_version": lineage.code_version,
        },
        "files": [{"file": table, "role": role}],
        **more,
    }
    write_json(folder / INDEX, content, is_strict=True)


def _cell(value: Any) -> Any:
    if isinstance(value, str):
        text = harmless(value)
        return f"'{text}" if text.startswith(tuple("=+-@\t\r")) else text
    return f"{value:.6g}" if isinstance(value, float) else value


def place_of(table: SampleTable, n: int) -> dict[str, str]:
    """The first columns of a row: which sample, of which file and group, or block of a cube."""
    if table.layout.is_cut:
        return {"sample": table.id_N[n], "block": str(table.group_N[n]).removeprefix("block ")}
    return {"sample": table.id_N[n], "file": table.file_N[n], "group": table.group_N[n]}


def answer_rows(
    table: SampleTable, outputs: Sequence[str], answer_NK: np.ndarray, is_held_out_N: np.ndarray, *, is_number: bool,
    half_width: float | None = None,
) -> list[dict[str, Any]]:  # fmt: skip
    """Rows of `labels.csv`: sample, file and group (of a cube: block), what is known and answered, by whom.

    `half_width`: of the interval around a number.
    """
    rows = []
    for n in range(len(table)):
        row: dict[str, Any] = {**place_of(table, n), "known": table.answer_N[n]}
        if is_number:
            row |= {name: float(answer_NK[n, k]) for k, name in enumerate(outputs)}
            if half_width is not None:
                row |= {"low": float(answer_NK[n, 0]) - half_width, "high": float(answer_NK[n, 0]) + half_width}
        else:
            best = int(answer_NK[n].argmax())
            row |= {"label": outputs[best], "confidence": float(answer_NK[n, best])}
            row |= {f"p_{name}": float(answer_NK[n, k]) for k, name in enumerate(outputs)}
        rows.append({**row, "answered_by": SEEN[bool(is_held_out_N[n])]})
    return rows


def choose_shown(
    table: SampleTable, outputs: Sequence[str], answer_NK: np.ndarray, most: int, *, is_number: bool
) -> tuple[np.ndarray, list[str], np.ndarray]:
    """(numbers of the samples that a picture shows, what is said of each, if it is wrong): the least sure, or furthest off."""
    if is_number:
        known_N = np.array([float(text) if text else np.nan for text in table.answer_N])
        off_N = np.nan_to_num(np.abs(answer_NK[:, 0] - known_N), nan=-1.0)
        first = np.argsort(-off_N, kind="stable")[:most]
        texts = [f"{answer_NK[n, 0]:.3g}" + (f", is {known_N[n]:.3g}" if np.isfinite(known_N[n]) else "") for n in first]
        return first, texts, np.zeros(len(first), bool)
    first = np.argsort(answer_NK.max(axis=1), kind="stable")[:most]
    said = [outputs[int(answer_NK[n].argmax())] for n in first]
    is_wrong = np.array([table.answer_N[n] not in ("", label) for n, label in zip(first, said, strict=True)])
    texts = [f"{label} {answer_NK[n].max():.2f}" for n, label in zip(first, said, strict=True)]
    texts = [f"{text}, is {table.answer_N[n]}" if bad else text for text, bad, n in zip(texts, is_wrong, first, strict=True)]
    return first, texts, is_wrong


def draw_looked_at(samples: Sequence[LookedAt], path: Path) -> None:
    """Writes a PNG: for each sample a row of frames, and below (an image: beside) it what speaks for and against the answer."""
    columns = max(min(len(one.image_THW), MOST_FRAMES) for one in samples)
    is_beside = columns == 1
    size = (6.0, 2.6 * len(samples) + 0.4) if is_beside else (max(6.0, 1.25 * columns + 0.4), 2.75 * len(samples) + 0.4)
    with drawing(path, size) as figure:
        axes = figure.subplots(len(samples) * (1 if is_beside else 2), 2 if is_beside else columns, squeeze=False)
        pairs = axes[:, :, None] if is_beside else axes.reshape(len(samples), 2, columns)
        for one, (above, below) in zip(samples, pairs, strict=True):
            _draw_sample(one, above, below)
            title_row(above[0], f"{harmless(one.name)[:40]}: {harmless(one.text)}")
        figure.supxlabel("Orange: speaks for the answer. Purple: against it (integrated gradients).", fontsize=8.5, color=INK)


def _draw_sample(one: LookedAt, above: Sequence[Axes], below: Sequence[Axes]) -> None:
    """Frames into the axes `above`, frames with their weights into those `below`."""
    shown = np.unique(np.round(np.linspace(0, len(one.image_THW) - 1, len(above))).astype(int))
    low, high = np.percentile(one.image_THW, (1, 99))
    reach = float(np.percentile(np.abs(one.weight_THW), 99.5)) or 1.0
    for n, (picture, weights) in enumerate(zip(above, below, strict=True)):
        for axes in (picture, weights):
            axes.set(xticks=[], yticks=[])
            axes.set_frame_on(False)
        if n >= len(shown):
            continue
        frame, weight = one.image_THW[shown[n]], one.weight_THW[shown[n]]
        for axes in (picture, weights):
            axes.imshow(frame, cmap="gray", vmin=low, vmax=max(high, low + 1e-9))
        weights.imshow(weight, cmap="PuOr_r", vmin=-reach, vmax=reach, alpha=np.clip(np.abs(weight) / reach, 0, 0.85))
        if len(one.image_THW) > 1:
            picture.set_xlabel(f"frame {one.frame_T[shown[n]]}", fontsize=7, color=MUTED)
