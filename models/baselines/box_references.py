"""A reference for boxes without a network: what is brighter than Otsu's threshold and connected, named by a random forest.

Otsu 1979 on each frame by itself, components of pixels that touch with a side or a corner; a forest (Breiman 2001) that has seen
thumbnails of known boxes names each component, and its share of votes is the score. Objects that are darker than what
surrounds them, or that touch each other, are not told apart. Shapes: X boxes, F features, K classes.
"""

from __future__ import annotations

import numpy as np
import torch
from torch.nn.functional import interpolate

from models.baselines.change_indices import otsu_threshold

THUMBNAIL_PX = 8
LEAST_PX = 9  # of a component


def bright_components(image_YX: np.ndarray) -> np.ndarray:
    """edges_X4 (top, left, bottom, right) of the connected bright parts of a frame."""
    from scipy.ndimage import find_objects, label

    bright_YX = image_YX > otsu_threshold(torch.from_numpy(np.asarray(image_YX, np.float32)))
    parts_YX, _ = label(bright_YX, structure=np.ones((3, 3)))
    sizes = np.bincount(parts_YX.ravel())
    boxes = [
        (rows.start, columns.start, rows.stop, columns.stop)
        for number, (rows, columns) in enumerate(find_objects(parts_YX), start=1)
        if sizes[number] >= LEAST_PX
    ]
    return np.array(boxes, np.float64).reshape(-1, 4)


def thumbnails(image_YX: np.ndarray, edges_X4: np.ndarray) -> np.ndarray:
    """features_XF: each box at 8 x 8 pixels, its height and its width."""
    rows = []
    for top, left, bottom, right in np.round(edges_X4).astype(int):
        part = np.ascontiguousarray(image_YX[top : max(bottom, top + 1), left : max(right, left + 1)], np.float32)
        small = interpolate(torch.from_numpy(part)[None, None], (THUMBNAIL_PX, THUMBNAIL_PX), mode="bilinear", antialias=True)
        rows.append(np.concatenate([small.numpy().ravel(), [bottom - top, right - left]]))
    return np.array(rows, np.float32).reshape(-1, THUMBNAIL_PX**2 + 2)
