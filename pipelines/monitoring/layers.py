"""What the map shows, for the whole raster: read by rows from the regions that the blocks of a state have left."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from pipelines.errors import MissingInput
from pipelines.inference.regions import Plane, Regions
from pipelines.stored_files import files_at, is_remote


@dataclass(frozen=True)
class LayerRows:
    """A layer (Y, X) that is read when it is indexed: by rows, or by rows and columns."""

    regions: Regions
    plane: Plane

    @property
    def shape(self) -> tuple[int, ...]:
        return self.regions.shape

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(self.plane.dtype)

    def __getitem__(self, rows: slice) -> np.ndarray:
        return self.regions.read(self.plane, rows)

    def at(self, row: int, column: int) -> float:
        """The value of one pixel."""
        return float(self.regions.read(self.plane, slice(row, row + 1), slice(column, column + 1))[0, 0])

    def __array__(self, dtype: np.dtype | None = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self[:], dtype)


@dataclass(frozen=True)
class Layers:
    """The layers of a state by name. Those in a bucket are copied once to a temporary folder of this machine.

    `check` is given the copy, and raises where it is not one of the state.
    """

    regions: Regions
    check: Callable[[Regions], None] = Regions.require_whole

    @classmethod
    def open(cls, regions: Regions, check: Callable[[Regions], None] = Regions.require_whole) -> Layers:
        """Raises MissingInput if there are none."""
        if not regions.has_begun():
            raise MissingInput(f"{regions.uri}: no change layers here; run `driftline monitor CONFIG` first")
        return cls(regions, check)

    @property
    def dtypes(self) -> Mapping[str, np.dtype]:
        return {plane.name: np.dtype(plane.dtype) for plane in self.regions.planes}

    def map(self, name: str) -> LayerRows:
        return LayerRows(self._here, next(plane for plane in self.regions.planes if plane.name == name))

    @cached_property
    def _here(self) -> Regions:
        if not is_remote(self.regions.folder):
            return self.regions
        here = replace(self.regions, folder=tempfile.mkdtemp(prefix="driftline-layers-"))
        weakref.finalize(here, shutil.rmtree, here.folder, ignore_errors=True)  # with the last layer that is read from there
        for region in self.regions.parts:
            name = self.regions.name_of(region)
            with files_at(here.folder).writing(name) as draft:
                draft.write_bytes(self.regions.files.read(name))
        self.check(here)
        return here
