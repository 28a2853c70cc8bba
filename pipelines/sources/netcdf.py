"""Scenes from one netCDF-4 / HDF5 cube: one variable (time, y, x) per band, and a CF time coordinate.

Sentinel-2 reflectance since processing baseline 04.00 (from 25 January 2022) is stored with an offset of +1000: physical =
(stored - 1000) / 10000. Cubes that mix baselines must be harmonised first; set `offset: -0.1` for new ones.
(https://sentinels.copernicus.eu/web/sentinel/-/copernicus-sentinel-2-major-products-upgrade-upcoming)
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipelines.errors import MissingInput, RequestError, SceneRefused
from pipelines.scene import Asset, Scene
from pipelines.sources.hdf5 import Hdf5Layer, cf_times, open_plane
from pipelines.sources.layered import LayeredSource
from pipelines.sources.layers import BandRequest
from pipelines.sources.opening import hdf5_data_set, hdf5_data_sets, open_hdf5
from pipelines.sources.source import Listing, SameDate, compact_date, resolve_dates


@dataclass(frozen=True)
class NetcdfSource(LayeredSource):
    """One scene for every step of the time coordinate `time` of the file at `path`."""

    path: Path
    requested: BandRequest
    time: str = "time"
    same_date: SameDate = "refuse"

    def list_scenes(self) -> Listing:
        """The scenes of the file. Raises MissingInput (no file), RequestError (not a cube with the requested variables)."""
        if not self.path.exists():
            raise MissingInput(f"no such file: {self.path}")
        try:
            with open_hdf5(self.path) as file:
                times = cf_times(hdf5_data_set(file, self.time, self.path.name), self.path.name)
                self._check_variables(hdf5_data_sets(file))
                for name in self.requested.names:
                    shape = hdf5_data_set(file, self.requested.name_in_file(name), self.path.name).shape
                    if len(shape) != 3 or shape[0] != len(times):
                        raise RequestError(
                            f"{self.requested.name_in_file(name)!r} in {self.path.name} has the shape {shape}; "
                            f"expected (time, y, x) with {len(times)} times"
                        )
        except SceneRefused as error:
            raise RequestError(f"{self.path.name} is not a readable cube: {error.detail}") from error
        scenes, refused = [], []
        for index, observed_utc in enumerate(times):
            if np.isnat(observed_utc):
                refused.append(SceneRefused(f"{self.path.stem}[{index}]", "no-date", f"{self.time}[{index}] is not a date"))
                continue
            assets = {n: Asset(str(self.path), self.requested.name_in_file(n), index) for n in self.requested.names}
            scenes.append(Scene(f"{self.path.stem}_{compact_date(observed_utc)}", observed_utc, assets))
        return resolve_dates(scenes, refused, self.same_date)

    def _check_variables(self, found: list[str]) -> None:
        missing = [n for n in self.requested.names if self.requested.name_in_file(n).strip("/") not in found]
        if missing:
            names = ", ".join(self.requested.name_in_file(name) for name in missing)
            raise RequestError(f"{self.path.name} has no variable {names}; it has: {', '.join(found) or 'none'}")

    @contextmanager
    def _open(self, scene: Scene, name: str) -> Iterator[Hdf5Layer]:
        asset = scene.assets.get(name)
        if asset is None:
            raise SceneRefused(scene.id, "missing-band", f"no band {name!r}; the scene has: {', '.join(scene.assets)}")
        with open_hdf5(asset.path, scene.id) as file:
            yield open_plane(file, asset.variable, asset.index, self.requested, name, scene.id)
