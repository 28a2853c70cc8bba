"""The part of the `Source` protocol that all file sources share."""

from __future__ import annotations

from contextlib import AbstractContextManager
from functools import cached_property
from pathlib import Path

import numpy as np

from pipelines.grid import Grid
from pipelines.scene import Band, Scene
from pipelines.sources.layers import BandRequest, SourceInfo, describe, grid_of, read_layers
from pipelines.sources.resampling import Layer
from pipelines.sources.source import Listing, Resampling


class LayeredSource:
    """Implements `Source` on top of two methods per kind of file: `list_scenes`, and `_open` for one band of a scene."""

    path: Path
    requested: BandRequest

    def list_scenes(self) -> Listing:
        raise TypeError(f"{type(self).__name__} must implement list_scenes")

    def _open(self, scene: Scene, name: str) -> AbstractContextManager[Layer]:
        raise TypeError(f"{type(self).__name__} must implement _open")

    @cached_property
    def _info(self) -> SourceInfo:
        return describe(self.path.name, self.requested, self.list_scenes(), self._open)

    @property
    def bands(self) -> tuple[Band, ...]:
        return self._info.bands

    def dtype(self) -> np.dtype:
        return self._info.dtype

    def native_grid(self) -> Grid:
        return self._info.grid

    def grid_of(self, scene: Scene, name: str) -> Grid:
        return grid_of(self._open, scene, name)

    def read(
        self, scene: Scene, grid: Grid, names: tuple[str, ...], resampling: Resampling, rows: slice | None = None
    ) -> np.ndarray:
        return read_layers(self._open, self._info, scene, grid, names, resampling, rows)
