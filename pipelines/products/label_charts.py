"""Pictures of samples and of scores of whole sequences."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pipelines.products.canvas import INK, MUTED, drawing, title
from pipelines.wording import harmless

MOST_SAMPLES = 24
WRONG = "#D55E00"  # Okabe & Ito (2008)


def draw_samples(
    image_NHW: np.ndarray, names: Sequence[str], texts: Sequence[str], is_wrong_N: np.ndarray, path: Path, heading: str
) -> None:
    """Writes a PNG: samples by one frame each, with what is answered; wrong answers in orange."""
    count = min(len(names), MOST_SAMPLES)
    columns = min(6, count)
    rows = -(-count // columns)
    with drawing(path, (1.7 * columns + 0.3, 2.15 * rows + 0.6)) as figure:
        axes = figure.subplots(rows, columns, squeeze=False).ravel()
        for n, axis in enumerate(axes):
            axis.set(xticks=[], yticks=[])
            axis.set_frame_on(False)
            if n >= count:
                continue
            low, high = np.percentile(image_NHW[n], (1, 99))
            axis.imshow(image_NHW[n], cmap="gray", vmin=low, vmax=max(high, low + 1e-9))
            axis.set_xlabel(harmless(texts[n]), fontsize=7.5, color=WRONG if is_wrong_N[n] else INK)
            axis.set_title(harmless(names[n])[:24], fontsize=7, color=MUTED)
        figure.suptitle(heading, fontsize=10, color=INK, x=0.01, ha="left")


def draw_numbers(known_P: np.ndarray, answer_P: np.ndarray, path: Path, name: str, left_out: str) -> None:
    """Writes a PNG: held-out answers against what is known, with the line of equality; `left_out`: groups or blocks."""
    with drawing(path, (4.6, 4.4)) as figure:
        axes = figure.subplots()
        low, high = float(min(known_P.min(), answer_P.min())), float(max(known_P.max(), answer_P.max()))
        axes.plot([low, high], [low, high], color=MUTED, lw=1)
        axes.scatter(known_P, answer_P, s=9, color="#0072B2", alpha=min(1.0, 60 / max(len(known_P), 1) ** 0.5 / 2), linewidths=0)
        axes.set(xlabel=f"known {name}", ylabel=f"answered {name}", aspect="equal")
        title(axes, f"Samples in {left_out} left out")
