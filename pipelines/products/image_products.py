"""What is published of drawn images: arrays, an index, and pictures beside the training images that are most like them.

Shapes: B new images, S completed test images, E completions of each, H rows, W columns; images are 0 or 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from pipelines.files import replacing
from pipelines.products.canvas import INK, MUTED, drawing
from pipelines.products.label_products import LabelLineage, write_index

ARRAYS, NEW, COMPLETED, QUICKLOOK = "images.npz", "new-images.png", "completions.png", "quicklook.png"
MOST_NEW, MOST_COMPLETED = 24, 10  # in a picture beside their neighbours; completed images
GAP_PX, GAP, DIM = 2, 0.5, 0.7  # between images, and its grey; of white in training images


@dataclass(frozen=True)
class Drawn:
    """New images, each with the training image that differs in the fewest pixels (`apart_B`).

    usual_U: how many pixels test images differ from the training image nearest to them: what can be expected without copying.
    """

    x_BHW: np.ndarray
    nats_B: np.ndarray
    near_BHW: np.ndarray
    apart_B: np.ndarray
    near_names: tuple[str, ...]
    usual_U: np.ndarray

    @property
    def median_apart(self) -> float:
        return float(np.median(self.apart_B))

    @property
    def usual(self) -> float | None:
        return float(np.median(self.usual_U)) if len(self.usual_U) else None


@dataclass(frozen=True)
class Completed:
    """Test images whose rows from `given_rows` on were drawn anew; `nats_SE` are those of the drawn rows."""

    x_SHW: np.ndarray
    names: tuple[str, ...]
    given_rows: int
    drawn_SEHW: np.ndarray
    nats_SE: np.ndarray


def write_images(drawn: Drawn, completed: Completed, lineage: LabelLineage, products: Path, pictures: Path) -> None:
    """`images.npz`, `index.json` and two pictures into `products`, all new images as `quicklook.png` into `pictures`."""
    arrays = {
        "new": drawn.x_BHW, "new_nats": drawn.nats_B, "nearest": drawn.near_BHW, "nearest_px": drawn.apart_B,
        "nearest_id": np.array(drawn.near_names, "U"), "completed_from": completed.x_SHW,
        "completed_id": np.array(completed.names, "U"), "completions": completed.drawn_SEHW,
        "completion_nats": completed.nats_SE, "given_rows": np.array(completed.given_rows),
    }  # fmt: skip
    with replacing(products / ARRAYS) as draft, draft.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)
    roles = {ARRAYS: "new images, their nearest training images, and completions, 0 or 1", NEW: "picture of new images"}
    with drawing(pictures / QUICKLOOK, size_of(drawn.x_BHW.shape, 0.36)) as figure:
        show(figure.subplots(), mosaic(drawn.x_BHW), "New images")
    with drawing(products / NEW, (7.6, 5.4)) as figure:
        draw_pairs(figure.subplots(), drawn)
    if len(completed.x_SHW):
        roles[COMPLETED] = "picture of completed test images"
        with drawing(products / COMPLETED, size_of(completed.drawn_SEHW.shape, 0.55)) as figure:
            draw_completed(figure.subplots(), completed)
    files = [{"file": name, "role": role} for name, role in roles.items()]
    write_index(lineage, products, (), len(drawn.x_BHW), ARRAYS, "", files=files)


def draw_pairs(axes: Axes, drawn: Drawn) -> None:
    """New images in the upper row of each pair, below, dimmer, the nearest training image."""
    count, columns = min(MOST_NEW, len(drawn.x_BHW)), 8
    rows = -(-count // columns)
    blank = np.full((2 * rows * columns, *drawn.x_BHW.shape[1:]), GAP)
    for n in range(count):
        at = 2 * columns * (n // columns) + n % columns
        blank[at], blank[at + columns] = drawn.x_BHW[n], DIM * drawn.near_BHW[n]
    usual = "" if drawn.usual is None else f"; of test images {drawn.usual:.0f}"
    title = f"New images; below, dimmer, the nearest training image: {drawn.median_apart:.0f} pixels differ in the median{usual}"
    show(axes, mosaic(blank, columns), title)


def draw_completed(axes: Axes, completed: Completed) -> None:
    """A line for each test image: the whole, what was given, the completions."""
    chosen = slice(0, MOST_COMPLETED)
    given_SHW = completed.x_SHW[chosen].astype(np.float64)
    given_SHW[:, completed.given_rows :] = GAP
    lines = [
        np.concatenate([whole[None], given[None], drawn_EHW])
        for whole, given, drawn_EHW in zip(completed.x_SHW[chosen], given_SHW, completed.drawn_SEHW[chosen], strict=True)
    ]
    show(axes, mosaic(np.concatenate(lines), len(lines[0])), "Test image, the rows that are given, and completions")


def mosaic(x_BHW: np.ndarray, columns: int | None = None) -> np.ndarray:
    """One image of all: 1 is white, gaps are grey."""
    count, height, width = x_BHW.shape
    columns = columns or max(1, round(count**0.5))
    rows = -(-count // columns)
    whole = np.full((rows * (height + GAP_PX) - GAP_PX, columns * (width + GAP_PX) - GAP_PX), GAP)
    for n, x_HW in enumerate(x_BHW):
        top, left = n // columns * (height + GAP_PX), n % columns * (width + GAP_PX)
        whole[top : top + height, left : left + width] = x_HW
    return whole


def size_of(shape: tuple[int, ...], each_in: float) -> tuple[float, float]:
    """Inches of a picture of so many images: of (B, H, W) in a square, of (S, E, H, W) a line for each S."""
    if len(shape) == 4:
        lines = min(shape[0], MOST_COMPLETED)
        return max(4.0, each_in * (shape[1] + 2) + 0.3), each_in * lines * shape[2] / shape[3] + 0.5
    columns = max(1, round(shape[0] ** 0.5))
    rows = -(-shape[0] // columns)
    return max(2.5, each_in * columns + 0.3), max(2.5, each_in * rows * shape[1] / shape[2] + 0.6)


def show(axes: Axes, image: np.ndarray, title: str) -> None:
    axes.imshow(image, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axes.set(xticks=[], yticks=[])
    axes.set_frame_on(False)
    axes.set_title(title, fontsize=8.5, color=INK if len(title) < 60 else MUTED, loc="left")
