"""The part of the `Source` protocol that all file sources share: opening a band, the properties of a series, reading."""

from __future__ import annotations

import dataclasses
import logging
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from pipelines.errors import MissingInput, RequestError, SceneRefused
from pipelines.grid import Grid
from pipelines.scene import Asset, Band, Scene, fill_value, is_storable
from pipelines.sources.layers import BandRequest, Layer, open_hdf5_layer, open_raster_layer
from pipelines.sources.opening import check_inside, open_hdf5, open_raster
from pipelines.sources.resampling import resample
from pipelines.sources.source import Listing, Resampling

log = logging.getLogger(__name__)

MAX_READ_BYTES = 4 << 30  # one call of `read`
PROBED_SCENES = 7  # spread over the series; the most frequent dtype wins


@dataclass(frozen=True)
class SourceInfo:
    """Properties of a series of files: bands with their nodata, the dtype, and the grid of the first readable scene."""

    bands: tuple[Band, ...]
    dtype: np.dtype
    grid: Grid


class LayeredSource(ABC):
    """Implements `Source` for scenes in raster and HDF5 files; a kind of source adds its fields and `list_scenes`."""

    path: Path
    requested: BandRequest

    @abstractmethod
    def list_scenes(self) -> Listing: ...

    @property
    def bands(self) -> tuple[Band, ...]:
        return self._info.bands

    def dtype(self) -> np.dtype:
        return self._info.dtype

    def native_grid(self) -> Grid:
        return self._info.grid

    def grid_of(self, scene: Scene, name: str) -> Grid:
        with self._open(scene, name) as layer:
            return layer.grid

    def read(
        self, scene: Scene, grid: Grid, names: tuple[str, ...], resampling: Resampling, rows: slice | None = None
    ) -> np.ndarray:
        """(names, rows, x) as `Source.read` specifies. Raises SceneRefused, RequestError (more than MAX_READ_BYTES)."""
        if scene.parts:
            raise ValueError(f"{scene.id} is a mosaic: read its parts")
        rows = slice(*(rows or slice(None)).indices(grid.shape_yx[0]))
        size = len(names) * (rows.stop - rows.start) * grid.shape_yx[1] * self.dtype().itemsize
        if size > MAX_READ_BYTES:
            raise RequestError(f"one read of {size / 1e9:.1f} GB, the limit is {MAX_READ_BYTES / 1e9:.1f} GB; read fewer rows")
        bands = {band.name: band for band in self.bands}
        planes = []
        for name in names:
            with self._open(scene, name) as layer:
                if name in bands and layer.dtype.newbyteorder("=") != self.dtype():
                    detail = f"band {name} holds {layer.dtype}, the other scenes {self.dtype()}; convert or remove it"
                    raise SceneRefused(scene.id, "wrong-dtype", detail)
                nodata = bands[name].nodata if name in bands else layer.nodata
                planes.append(resample(layer, grid, rows, fill_value(nodata, layer.dtype), nodata, resampling))
        return planes[0][None] if len(planes) == 1 else np.stack(planes)

    @contextmanager
    def _open(self, scene: Scene, name: str) -> Iterator[Layer]:
        """Band `name` of a scene, on its own grid or the requested one. Raises SceneRefused."""
        asset = scene.assets.get(name)
        if asset is None:
            raise SceneRefused(scene.id, "missing-band", f"no band {name!r}; the scene has: {', '.join(scene.assets)}")
        try:
            if asset.variable:
                with open_hdf5(asset.path, scene.id) as file:
                    yield open_hdf5_layer(file, asset.variable, asset.index, self.requested, name, scene.id)
            else:
                with open_raster(asset.path, (asset.index,), scene.id) as dataset:
                    yield open_raster_layer(dataset, asset.index, self.requested, name, scene.id)
        except MissingInput as error:
            raise SceneRefused(scene.id, "unreadable", f"{error}; it existed when the scenes were listed") from error

    @cached_property
    def _info(self) -> SourceInfo:
        """From a few scenes: their most frequent dtype, and the first grid and nodata found with it.

        Raises RequestError if none of the scenes can be read, or if their bands differ in dtype.
        """
        listing = self.list_scenes()
        scenes = [part for scene in listing.scenes for part in (scene.parts or (scene,))]
        picks = np.unique(np.linspace(0, len(scenes) - 1, PROBED_SCENES).round().astype(int)).tolist() if scenes else []
        dtypes: dict[int, np.dtype] = {}
        problems = list(listing.refused)
        for index in [*picks, *(index for index in range(len(scenes)) if index not in picks)]:
            if dtypes and index not in picks:
                break
            try:
                dtypes[index] = self._dtype_of(scenes[index])
            except SceneRefused as refusal:
                problems.append(refusal)
        if not dtypes:
            shown = "\n".join(f"  {problem}" for problem in problems[:3]) or "  there are no scenes"
            total = len(scenes) + len(listing.refused)
            raise RequestError(f"none of the {total} scenes of {self.path.name} can be read:\n{shown}")
        dtype = Counter(dtypes.values()).most_common(1)[0][0]
        for scene in scenes:
            try:
                if self._dtype_of(scene) == dtype:
                    return self._describe(scene, [scenes[index] for index in picks if scenes[index] is not scene], dtype)
            except SceneRefused as refusal:
                log.debug("%s is not used to describe the series: %s", scene.id, refusal)
        names, problem = ", ".join(self.requested.names), problems[0] if problems else ""
        raise RequestError(f"no scene of {self.path.name} has all of the bands {names}:\n  {problem}")

    def _dtype_of(self, scene: Scene) -> np.dtype:
        with self._open(scene, self.requested.bands[0].name) as layer:
            return layer.dtype.newbyteorder("=")

    def _describe(self, scene: Scene, others: list[Scene], dtype: np.dtype) -> SourceInfo:
        """The bands with nodata, scale (1) and offset (0) completed from the files of `scene`, and its grid."""
        bands, grids = [], []
        for band in self.requested.bands:
            with self._open(scene, band.name) as layer:
                if layer.dtype.newbyteorder("=") != dtype:
                    raise RequestError(
                        f"bands differ in dtype: {self.requested.bands[0].name} is {dtype}, {band.name} is {layer.dtype} in "
                        f"{scene.id}; a cube has one dtype: remove one of them"
                    )
                is_packed = (band.scale, band.offset) != (1.0, 0.0)
                scale, offset = (band.scale, band.offset) if is_packed else layer.scale_offset
                grids.append(layer.grid)
            nodata = self._stated_nodata(band.name, [scene, *others], dtype) if band.nodata is None else band.nodata
            if nodata is not None and not is_storable(nodata, dtype):
                raise RequestError(f"nodata {nodata:g} of band {band.name} does not fit into {dtype}, the dtype of the files")
            bands.append(dataclasses.replace(band, nodata=nodata, scale=scale, offset=offset))
        return SourceInfo(tuple(bands), dtype, grids[0])

    def _stated_nodata(self, name: str, scenes: list[Scene], dtype: np.dtype) -> float | None:
        """The nodata of the first file that states one, if it is a value of `dtype`.

        A crop without fill pixels may state none; then the fill of the next scene would count as data.
        """
        for scene in scenes:
            with suppress(SceneRefused), self._open(scene, name) as layer:
                if layer.nodata is not None and np.isfinite(layer.nodata) and is_storable(layer.nodata, dtype):
                    return float(layer.nodata)
        return None


def locate_bands(folder: Path, requested: BandRequest, files: Mapping[str, str], label: str) -> dict[str, Asset]:
    """The asset of every requested band, from `files`: name of the band in the files -> path relative to `folder`.

    One file of the name "" holds all bands in the requested order, or at the raster band that is their name in the files.
    Raises SceneRefused (missing-band; driver: a link that points out of `folder`).
    """
    for path in files.values():
        check_inside(folder, folder / path, label)
    assets = {}
    for position, (name, in_file) in enumerate(zip(requested.names, requested.names_in_files, strict=True), start=1):
        if "" in files:
            assets[name] = Asset(str(folder / files[""]), "", int(in_file) if in_file.isdigit() else position)
        elif in_file in files:
            assets[name] = Asset(str(folder / files[in_file]))
        else:
            detail = f"no file for band {in_file}; {label} has {', '.join(sorted(files))}"
            raise SceneRefused(label, "missing-band", detail)
    return assets
