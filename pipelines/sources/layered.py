"""What every source of files does alike, once it can list its scenes and open a band of one."""

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
    """The `Source` protocol over two things that differ by kind of file: `list_scenes`, and `_open`, the band of a scene."""

    path: Path
    requested: BandRequest

    def list_scenes(self) -> Listing:
        raise TypeError(f"{type(self).__name__} does not say which scenes it has")

    def _open(self, scene: Scene, name: str) -> AbstractContextManager[Layer]:
        raise TypeError(f"{type(self).__name__} does not say how a band is opened")

    @cached_property
    def _described(self) -> SourceInfo:
        return describe(self.path.name, self.requested, self.list_scenes(), self._open)

    @property
    def bands(self) -> tuple[Band, ...]:
        return self._described.bands

    def dtype(self) -> np.dtype:
        return self._described.dtype

    def native_grid(self) -> Grid:
        return self._described.grid

    def grid_of(self, scene: Scene, name: str) -> Grid:
        return grid_of(self._open, scene, name)

    def read(
        self, scene: Scene, grid: Grid, names: tuple[str, ...], resampling: Resampling, rows: slice | None = None
    ) -> np.ndarray:
        return read_layers(self._open, self._described, scene, grid, names, resampling, rows)
