"""Sources whose files hold many dates: a netCDF-4 cube, or stacks of raster bands beside a text file with the dates.

Cubes that mix Sentinel-2's processing baselines (see `folder`) must be harmonised first.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np

from pipelines.errors import MissingInput, RequestError, SceneRefused
from pipelines.scene import Asset, Scene
from pipelines.sources.cf import axes_of
from pipelines.sources.cf_times import CfTimes, cf_times
from pipelines.sources.dates import detect_date, format_date, read_dates
from pipelines.sources.folder import list_files, not_searched
from pipelines.sources.isolation import isolate, isolated
from pipelines.sources.layered import LayeredSource
from pipelines.sources.layers import BandRequest
from pipelines.sources.opening import (
    band_descriptions,
    check_inside,
    hdf5_data_set,
    hdf5_data_sets,
    is_interleaved,
    open_hdf5,
    open_raster,
)
from pipelines.sources.source import Listing, SameDate, compact_date, resolve_dates


@isolate
def _descriptions(path: Path) -> tuple[str, ...]:
    with open_raster(path, (1,)) as dataset:
        return band_descriptions(dataset)


@isolate
def _is_interleaved(path: Path) -> bool:
    with open_raster(path, (1,)) as dataset:
        return is_interleaved(dataset)


@dataclass(frozen=True)
class NetcdfSource(LayeredSource):
    """Scenes from one netCDF-4 / HDF5 cube: one variable (time, y, x) per band, one scene per step of the coordinate `time`."""

    path: Path
    requested: BandRequest
    time: str = "time"
    same_date: SameDate = "refuse"
    planes_are_bands: ClassVar[bool] = False

    def list_scenes(self) -> Listing:
        """The scenes of the file. Raises MissingInput (no file), RequestError (not a cube with the requested variables)."""
        if not self.path.exists():
            raise MissingInput(f"no such file: {self.path}")
        try:
            times, unused = isolated(self._read_times, label=self.path.name, paths=[self.path])
        except SceneRefused as error:
            raise RequestError(f"{self.path.name} is not a readable cube: {error.detail}") from error
        scenes, refused = [], []
        for index, observed_utc in enumerate(times.values):
            if np.isnat(observed_utc):
                detail = f"step {index} of {self.time} is no date: {times.problems.get(index, 'its value is missing')}"
                refused.append(SceneRefused(f"{self.path.stem}[{index}]", "no-date", detail))
                continue
            assets = {n: Asset(str(self.path), self.requested.name_in_file(n), index) for n in self.requested.names}
            scenes.append(Scene(f"{self.path.stem}_{compact_date(observed_utc)}", observed_utc, assets))
        return resolve_dates(scenes, refused, self.same_date, unused, times.notes)

    def _read_times(self) -> tuple[CfTimes, list[str]]:
        """(times of the steps, variables with a value for every date that are no band).

        Raises SceneRefused, RequestError (a variable is missing or has other axes).
        """
        with open_hdf5(self.path) as file:
            times = cf_times(hdf5_data_set(file, self.time, self.path.name), self.path.name)
            found, variables = hdf5_data_sets(file), self.requested.names_in_files
            if missing := [name for name in variables if name.strip("/") not in found]:
                there = ", ".join(found) or "none"
                raise RequestError(f"{self.path.name} has no variable {', '.join(missing)}; it has: {there}")
            for name in variables:
                data = hdf5_data_set(file, name, self.path.name)
                axes = axes_of(data, self.path.name)
                if axes.plane is None or axes.planes(data) != len(times.values):
                    expected = f"expected (time, y, x) with {len(times.values)} times"
                    raise RequestError(f"{name!r} in {self.path.name} has the shape {data.shape}; {expected}")
            dated = [name for name in found if file[name].ndim > 2 and len(times.values) in file[name].shape]
        used = {name.strip("/") for name in variables}
        return times, [f"variable {name}" for name in dated if name not in used]


@dataclass(frozen=True)
class StackSource(LayeredSource):
    """One scene for every line of the file `dates`; raster band i of each of `files` (band -> file) is line i.

    The quality band, if any, is one of `files`. Paths are relative to `path`.
    """

    path: Path
    requested: BandRequest
    files: Mapping[str, str] = field(hash=False)
    dates: str
    same_date: SameDate = "refuse"
    planes_are_bands: ClassVar[bool] = False

    def list_scenes(self) -> Listing:
        """The scenes of the stacks. Raises MissingInput, RequestError (band without file; unequal counts)."""
        if not self.path.is_dir():
            raise MissingInput(f"no such folder: {self.path}")
        dates, notes = read_dates(self.path / self.dates)
        paths = {name: self._file(name, dates) for name in self.requested.names}
        scenes, refused = [], []
        for index, observed_utc in enumerate(dates, start=1):
            if observed_utc is None:
                detail = f"entry {index} of {self.dates} is not a date"
                refused.append(SceneRefused(f"{self.path.name}[{index}]", "no-date", detail))
                continue
            assets = {name: Asset(str(path), "", index) for name, path in paths.items()}
            scenes.append(Scene(f"{self.path.resolve().name}_{compact_date(observed_utc)}", observed_utc, assets))
        used = {self.dates, *(self.files[self.requested.name_in_file(name)] for name in self.requested.names)}
        rest = [path for path in list_files(self.path) if path not in used and path.removesuffix(".msk") not in used]
        unused = [*not_searched(self.path), *rest]
        return resolve_dates(scenes, refused, self.same_date, unused, notes)

    def repeated_bytes(self) -> int:
        paths = {self.path / self.files[self.requested.name_in_file(name)] for name in self.requested.names}
        return sum(path.stat().st_size for path in sorted(paths) if _is_interleaved(path))

    def _file(self, name: str, dates: list[np.datetime64 | None]) -> Path:
        in_file = self.requested.name_in_file(name)
        if in_file not in self.files:
            raise RequestError(f"band {in_file!r} has no file in source.files; there are: {', '.join(self.files) or 'none'}")
        path = self.path / self.files[in_file]
        try:
            check_inside(self.path, path, path.name)
            stated = [detect_date(text) for text in _descriptions(path)]
        except SceneRefused as error:
            raise RequestError(f"the file of band {name} cannot be used: {error}") from error
        if len(stated) != len(dates):
            raise RequestError(
                f"{path.name} has {len(stated)} raster bands, {self.dates} has {len(dates)} dates; expected equal numbers"
            )
        for index, (said, listed) in enumerate(zip(stated, dates, strict=True), start=1):
            if said is not None and listed is not None and said != listed:
                other = (
                    f"band {index} of {path.name} is described as {format_date(said)}, {self.dates} says {format_date(listed)}"
                )
                raise RequestError(f"{other}; put the dates in the order of the bands")
        return path
