"""The part of the `Source` protocol that all file sources share: opening a band, the properties of a series, reading."""

from __future__ import annotations

import copy
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
import rasterio

from pipelines.errors import MissingInput, RequestError, SceneRefused
from pipelines.grid import Grid
from pipelines.scene import Asset, Band, Scene
from pipelines.sources.facts import convert
from pipelines.sources.isolation import isolated
from pipelines.sources.layers import BandRequest, Hdf5Layer, Layer, alpha_of, open_hdf5_layer, open_raster_layer
from pipelines.sources.opening import band_descriptions, check_inside, check_raster, open_hdf5, open_raster
from pipelines.sources.resampling import resample
from pipelines.sources.source import DecodesFiles, Listing, Resampling
from pipelines.sources.survey import Seen, SourceInfo, is_plain, look_at, refusals_of, remarks_on, summarise

MAX_READ_BYTES = 4 << 30  # one call of `read`
MANY_BYTES = 32 << 20  # from here on the bands are read in threads


class LayeredSource(DecodesFiles, ABC):
    """Implements `Source` for scenes in raster and HDF5 files; a kind of source adds its fields and `list_scenes`.

    `planes_are_bands`: what lies beside a band in the same file is another band, not another date.
    """

    path: Path
    requested: BandRequest
    planes_are_bands: ClassVar[bool] = True

    @abstractmethod
    def list_scenes(self) -> Listing: ...

    def repeated_bytes(self) -> int:
        """Bytes of the files that every scene reads whole, since their blocks hold the pixels of all dates."""
        return 0

    @property
    def bands(self) -> tuple[Band, ...]:
        return self._info.bands

    def dtype(self) -> np.dtype:
        return self._info.dtype

    def native_grid(self) -> Grid:
        return self._info.grid

    def grid_of(self, scene: Scene, name: str) -> Grid:
        paths = [scene.assets[name].path] if name in scene.assets else []
        return isolated(self._grid_of, scene, name, label=scene.id, paths=paths)

    def _grid_of(self, scene: Scene, name: str) -> Grid:
        with self.open_layer(scene, name) as layer:
            return layer.grid

    def for_cube(self, bands: tuple[Band, ...], dtype: np.dtype, grid: Grid) -> Self:
        """This source, whose scenes become those of a cube that is there; no file is opened for it."""
        fitted = copy.copy(self)
        fitted.__dict__["_info"] = SourceInfo(bands, dtype, grid)
        return fitted

    def remarks(self, scenes: Sequence[Scene], only_on: Grid | None = None) -> tuple[list[str], list[SceneRefused]]:
        """(what differs between the files of `scenes` and the bands, in words; the scenes that are refused for it).

        only_on: the grid that scenes must be on, where they are not reprojected.
        """
        if not scenes:
            return [], []
        info, seen = self._info, self.look_at(scenes)
        lines = remarks_on(seen, info, self.requested, counts_planes=self.planes_are_bands)
        return lines, refusals_of(seen, info, self.requested, only_on)

    def look_at(self, scenes: Sequence[Scene]) -> list[Seen]:
        """What the files of `scenes` (of mosaics: of their parts) say; they are opened unless that is known."""
        known = self.__dict__.get("_seen")
        if known is None:
            return look_at(self, scenes)
        wanted = {part.id for scene in scenes for part in (scene.parts or (scene,))}
        return [one for one in known if one.scene.id in wanted]

    def to_read_again(self, scenes: Sequence[Scene]) -> list[str]:
        """Ids of the scenes that a version before the record of each file (`FileFacts`) may have read wrongly."""
        plain = {one.scene.id for one in look_at(self, scenes) if is_plain(one, self._info, self.requested)}
        return [scene.id for scene in scenes if not all(part.id in plain for part in (scene.parts or (scene,)))]

    def read(
        self, scene: Scene, grid: Grid, names: tuple[str, ...], resampling: Resampling, rows: slice | None = None
    ) -> np.ma.MaskedArray:
        """(names, rows, x) as `Source.read` specifies, masked where it is missing or outside.

        Raises SceneRefused, RequestError (more than MAX_READ_BYTES).
        """
        if scene.parts:
            raise ValueError(f"{scene.id} is a mosaic: read its parts")
        rows = slice(*(rows or slice(None)).indices(grid.shape_yx[0]))
        size = len(names) * (rows.stop - rows.start) * grid.shape_yx[1] * self.dtype().itemsize
        if size > MAX_READ_BYTES:
            raise RequestError(f"one read of {size / 1e9:.1f} GB, the limit is {MAX_READ_BYTES / 1e9:.1f} GB; read fewer rows")
        if len(names) == 1:
            return self._read_plane(scene, names[0], grid, rows, resampling)[None]
        shape = (len(names), rows.stop - rows.start, *grid.shape_yx[1:])
        image, missing = np.empty(shape, self.dtype()), np.empty(shape, bool)  # np.ma.stack would hold everything twice

        def fill(n: int) -> None:
            plane = self._read_plane(scene, names[n], grid, rows, resampling)
            if plane.dtype != image.dtype:
                raise SceneRefused(scene.id, "wrong-dtype", f"{names[n]} holds {plane.dtype}, the bands {image.dtype}")
            image[n], missing[n] = np.ma.getdata(plane), np.ma.getmaskarray(plane)

        with ThreadPoolExecutor(os.cpu_count()) as pool:  # where few scenes fit into memory, they alone would leave cores idle
            list((pool.map if size >= MANY_BYTES else map)(fill, range(len(names))))
        return np.ma.MaskedArray(image, missing)

    def _read_plane(self, scene: Scene, name: str, grid: Grid, rows: slice, resampling: Resampling) -> np.ma.MaskedArray:
        band = next((band for band in self.bands if band.name == name), None)
        with self.open_layer(scene, name) as layer:
            facts = layer.facts
            if band is None:  # the quality band, whose values the quality mask interprets
                return resample(layer, facts, grid, rows, resampling)
            asked = self.requested.band(name)
            if refused := self._info.why_not(facts, band, asked):
                raise SceneRefused(scene.id, *refused)
            facts = facts.with_request(replace(asked, nodata=band.nodata))
            return convert(resample(layer, facts, grid, rows, resampling), facts, band, scene.id)

    @contextmanager
    def open_layer(self, scene: Scene, name: str) -> Iterator[Layer]:
        """Band `name` of a scene, on its own grid or the requested one. Raises SceneRefused."""
        asset = scene.assets.get(name)
        if asset is None:
            raise SceneRefused(scene.id, "missing-band", f"no band {name!r}; the scene has: {', '.join(scene.assets)}")
        try:
            if asset.variable:
                with open_hdf5(asset.path, scene.id) as file:
                    layer = open_hdf5_layer(file, asset.variable, asset.index, self.requested, name, scene.id)
                    layer = replace(layer, is_step=asset.is_step)
                    self._check_planes(layer, scene, name, asset)
                    yield layer
            else:
                with ExitStack() as stack:
                    dataset = stack.enter_context(open_raster(asset.path, (asset.index,) if self._is_placed else (1,), scene.id))
                    index, alpha = (asset.index, None) if self._is_placed else self._choose_band(dataset, scene, name, asset)
                    check_raster(dataset, Path(asset.path), scene.id, (index,))
                    mask = Path(f"{asset.path}.msk")
                    check_inside(self.path, mask, scene.id)
                    mask_file = stack.enter_context(open_raster(mask, None, scene.id)) if mask.is_file() else None
                    yield open_raster_layer(dataset, index, self.requested, name, scene.id, alpha, mask_file)
        except MissingInput as error:
            raise SceneRefused(scene.id, "unreadable", f"{error}; it existed when the scenes were listed") from error

    @property
    def _is_placed(self) -> bool:
        return not self.planes_are_bands

    def _beside(self, scene: Scene, asset: Asset) -> dict[str, str]:
        """Name -> name in the files, of the bands that are requested from the same array of the same file."""
        same = [n for n, other in scene.assets.items() if (other.path, other.variable) == (asset.path, asset.variable)]
        return {name: self.requested.name_in_file(name) for name in same}

    def _choose_band(self, dataset: rasterio.DatasetReader, scene: Scene, name: str, asset: Asset) -> tuple[int, int | None]:
        """(1-based band of the file, its alpha band unless that is requested itself): by number, description or position.

        Raises SceneRefused(missing-band) if that is not clear.
        """
        beside, alpha = self._beside(scene, asset), alpha_of(dataset)
        if dataset.count == len(beside) == asset.index == 1 and not beside[name].isdigit():
            return 1, None if alpha == 1 else alpha  # whatever it is called: reading that would open the file once more
        descriptions = band_descriptions(dataset)
        described = [plain_name(text) for text in descriptions]
        places: dict[str, int] = {}
        for one, in_file in beside.items():
            if in_file.isdigit():
                places[one] = int(in_file)
            elif described.count(plain_name(in_file)) == 1:
                places[one] = described.index(plain_name(in_file)) + 1
        by_description = [one for one in places if not beside[one].isdigit()]
        count = dataset.count - (alpha is not None and dataset.count > len(beside))
        of_data = [index for index in dataset.indexes if index != alpha or count == dataset.count]
        if name not in places:
            has_one_each = len(beside) == 1 and "{band}" in getattr(self, "pattern", "")
            if by_description or not (has_one_each or count == len(beside)):
                raise SceneRefused(scene.id, "missing-band", unclear_bands(Path(asset.path).name, count, descriptions, beside))
            places[name] = of_data[asset.index - 1] if asset.index <= len(of_data) else asset.index
        taken = {*places.values()} | ({*of_data[: len(beside)]} if len(places) < len(beside) else set())
        return places[name], None if alpha in taken else alpha

    def _check_planes(self, layer: Hdf5Layer, scene: Scene, name: str, asset: Asset) -> None:
        """Raises SceneRefused(missing-band) for a data set with other planes than the requested bands."""
        beside, planes = self._beside(scene, asset), layer.facts.planes
        if self.planes_are_bands and planes != len(beside) and not beside[name].isdigit():
            text = f"{asset.variable!r} in {Path(asset.path).name} has {planes} planes, the config names {len(beside)}"
            remedy = "write the number of the plane as the band's source (1 is the first), or read its times with kind: netcdf"
            raise SceneRefused(scene.id, "missing-band", f"{text} of it ({', '.join(beside)}); {remedy}")

    def __getstate__(self) -> dict[str, object]:
        """Without `_seen`, what the files of every scene say: only the process that planned the work needs it."""
        return {key: value for key, value in self.__dict__.items() if key != "_seen"}

    @cached_property
    def _info(self) -> SourceInfo:
        """The most frequent properties of all scenes. Raises RequestError if no scene can be read, or bands differ in dtype."""
        listing = self.list_scenes()
        seen = self.__dict__["_seen"] = look_at(self, listing.scenes)
        return summarise(seen, self.requested, listing.refused, self.path.name, are_described=self.planes_are_bands)


def plain_name(text: str) -> str:
    """A band's name for comparison: letters and digits only, small.

    >>> plain_name("SR_B4 ") == plain_name("sr-b4")
    True
    """
    return re.sub(r"[^a-z0-9]+", "_", text.casefold()).strip("_") or "?"


def unclear_bands(file: str, count: int, descriptions: Sequence[str], beside: Mapping[str, str]) -> str:
    called = ", ".join(text or "without a name" for text in descriptions) if any(descriptions) else "without names"
    first = next(iter(beside))
    remedy = f'write the number of each: {{name: {first}, source: "1"}}'
    return f"{file} has {count} bands ({called}), the config names {', '.join(beside.values())} of it; {remedy}"


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
