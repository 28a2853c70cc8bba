"""Layers of change -> what people open: outlines, COGs, STAC."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from flows.invocation import Invocation

SPLIT_DAYS = 183.0  # neighbours that changed further apart are two patches: the felling of the next winter is news


@dataclass
class Changed:
    """(rows, columns) bool of a status layer, made strip by strip."""

    status: Any
    shape: tuple[int, ...]

    def __getitem__(self, rows: slice) -> np.ndarray:
        from pipelines.change.detector import CHANGED

        return np.asarray(self.status[rows]) == CHANGED


def outline(run: Any, layers: Any, grid: Any) -> Any:
    """The changed patches as a GeoDataFrame, those of fewer than `monitoring.min_area_px` pixels left out."""
    from pipelines.products.polygons import LAYERS, outline_changes

    status = layers.map("status")
    maps = {name: layers.map(name) for name in LAYERS if name in layers.dtypes}
    changed = Changed(status, status.shape)
    return outline_changes(changed, grid, maps, min_area_px=run.monitoring.min_area_px, split_days=SPLIT_DAYS)


def publish(invocation: Invocation, looking: Any, frame: Any, progress: Any) -> list[Path]:
    """Writes everything beside its place and swaps it in; the files."""
    return []
