"""Scenes from stacks: one multi-band raster per band, whose raster bands are dates, and a text file with the dates."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from pipelines.errors import MissingInput, RequestError, SceneRefused
from pipelines.scene import Asset, Scene
from pipelines.sources.dates import read_dates
from pipelines.sources.folder import raster_layer
from pipelines.sources.layered import LayeredSource
from pipelines.sources.layers import BandRequest
from pipelines.sources.opening import check_inside, open_raster
from pipelines.sources.resampling import RasterLayer
from pipelines.sources.source import Listing, SameDate, compact_date, resolve_dates


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

    def list_scenes(self) -> Listing:
        """The scenes of the stacks. Raises MissingInput, RequestError (band without file; unequal counts)."""
        if not self.path.is_dir():
            raise MissingInput(f"no such folder: {self.path}")
        dates = read_dates(self.path / self.dates)
        paths = {name: self._file(name) for name in self.requested.names}
        for name, path in paths.items():
            self._check_length(name, path, len(dates))
        scenes, refused = [], []
        for index, observed_utc in enumerate(dates, start=1):
            if observed_utc is None:
                detail = f"entry {index} of {self.dates} is not a date"
                refused.append(SceneRefused(f"{self.path.name}[{index}]", "no-date", detail))
                continue
            assets = {name: Asset(str(path), "", index) for name, path in paths.items()}
            scenes.append(Scene(f"{self.path.resolve().name}_{compact_date(observed_utc)}", observed_utc, assets))
        return resolve_dates(scenes, refused, self.same_date)

    def _file(self, name: str) -> Path:
        in_file = self.requested.name_in_file(name)
        if in_file not in self.files:
            raise RequestError(f"band {in_file!r} has no file in source.files; there are: {', '.join(self.files) or 'none'}")
        return self.path / self.files[in_file]

    def _check_length(self, name: str, path: Path, dates: int) -> None:
        try:
            check_inside(self.path, path, path.name)
            with open_raster(path, (1,)) as dataset:
                count = dataset.count
        except SceneRefused as error:
            raise RequestError(f"the file of band {name} cannot be used: {error}") from error
        if count != dates:
            raise RequestError(f"{path.name} has {count} raster bands, {self.dates} has {dates} dates; expected equal numbers")

    @contextmanager
    def _open(self, scene: Scene, name: str) -> Iterator[RasterLayer]:
        asset = scene.assets.get(name)
        if asset is None:
            raise SceneRefused(scene.id, "missing-band", f"no band {name!r}; the scene has: {', '.join(scene.assets)}")
        with open_raster(asset.path, (asset.index,), scene.id) as dataset:
            yield raster_layer(dataset, asset.index, self.requested, name, scene.id)
