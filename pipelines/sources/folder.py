"""Scenes from a folder of GeoTIFF, JPEG2000 or HDF5 files with date and band in their names.

Note: Landsat names hold the acquisition date first and the processing date second; `S2A_OPER` names hold only the
processing date. Sentinel-2 products since processing baseline 04.00 (25 January 2022) store reflectance with an offset:
physical = (stored - 1000) / 10000. A series across that day must be harmonised first, or cut at that day and given
`offset: -0.1`. Links that point out of the folder are refused; folders that are links are not searched.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio

from pipelines.errors import MissingInput, RequestError, SceneRefused
from pipelines.scene import Asset, Scene
from pipelines.sources.dates import parse_date
from pipelines.sources.file_names import propose_pattern
from pipelines.sources.hdf5 import open_plane
from pipelines.sources.layered import LayeredSource
from pipelines.sources.layers import BandRequest
from pipelines.sources.opening import check_inside, open_hdf5, open_raster
from pipelines.sources.pattern import FilePattern, Named, named
from pipelines.sources.resampling import Layer, RasterLayer
from pipelines.sources.source import Listing, SameDate, resolve_dates


@dataclass(frozen=True)
class FolderSource(LayeredSource):
    """One scene for every date (and other varying text of the name) that `pattern` finds below `path`.

    Without `{band}` in the pattern every file holds all bands in the requested order, then the quality band; a band whose
    name in the files is a number is that raster band (1-based). `variable` is the data set in HDF5 files, where `{band}`
    is replaced by the band's name in the files.
    """

    path: Path
    requested: BandRequest
    pattern: str
    variable: str | None = None
    same_date: SameDate = "refuse"

    def list_scenes(self) -> Listing:
        """The scenes found. Raises MissingInput (no folder), RequestError (the pattern is wrong or matches nothing)."""
        paths, misnamed = take_text_names(list_files(self.path))
        names, problems = self._match(paths)
        scenes: list[Scene] = []
        refused: list[SceneRefused] = []
        for key, files in sorted(names.items()):
            scene = self._scene(key, files)
            if isinstance(scene, SceneRefused):
                refused.append(scene)
            else:
                scenes.append(scene)
        return resolve_dates(scenes, [*refused, *problems, *misnamed], self.same_date)

    def _match(self, paths: list[str]) -> tuple[dict[str, dict[str, tuple[str, Named]]], list[SceneRefused]]:
        """Scene key -> band -> (path, parsed name), and refusals of files that match except for their date."""
        pattern = FilePattern(self.pattern)
        requested = tuple(self.requested.name_in_file(name) for name in self.requested.names) if pattern.has_band else None
        strict, loose = pattern.regex(requested), pattern.regex(requested, any_date=True)
        scenes: dict[str, dict[str, tuple[str, Named]]] = {}
        undated: dict[str, SceneRefused] = {}
        for path in paths:
            if match := strict.fullmatch(path):
                name = named(match)
                scenes.setdefault(name.key, {})[name.band] = (path, name)
            elif match := loose.fullmatch(path):
                detail = f"{named(match).date_text!r} in {path} is not a date of the format {pattern.date_format!r}"
                undated[named(match).key] = SceneRefused(scene_name(named(match).key), "no-date", detail)
        if not scenes:
            raise RequestError(self._nothing_found(pattern, paths))
        return scenes, [undated[key] for key in sorted(undated)]

    def _nothing_found(self, pattern: FilePattern, paths: list[str]) -> str:
        any_band = [name.band for path in paths if (name := pattern.match(path))]
        if any_band and pattern.has_band:
            requested = ", ".join(self.requested.name_in_file(name) for name in self.requested.names)
            return f"no file of {self.path} has one of the bands {requested}; the names have: {', '.join(sorted(set(any_band)))}"
        shown = ", ".join(paths[:3]) + (f" and {len(paths) - 3} more" if len(paths) > 3 else "") if paths else "no files"
        names = propose_pattern(paths)
        proposal = f"; try pattern: {names.pattern}" if names and names.pattern != self.pattern else ""
        return f"the pattern {self.pattern!r} matches none of the files below {self.path}, such as {shown}{proposal}"

    def _scene(self, key: str, files: dict[str, tuple[str, Named]]) -> Scene | SceneRefused:
        label = scene_name(key)
        pattern = FilePattern(self.pattern)
        date_text = next(iter(files.values()))[1].date_text
        observed_utc = parse_date(date_text, pattern.date_format)
        if observed_utc is None:
            return SceneRefused(label, "no-date", f"{date_text!r} in {key} is not a date of the format {pattern.date_format!r}")
        try:
            for path, _ in files.values():
                check_inside(self.path, self.path / path, label)
            assets = {name: self._asset(name, files, label) for name in self.requested.names}
        except SceneRefused as refusal:
            return refusal
        return Scene(label, observed_utc, assets)

    def _asset(self, name: str, files: dict[str, tuple[str, Named]], label: str) -> Asset:
        in_file = self.requested.name_in_file(name)
        if "{band}" in self.pattern:
            if in_file not in files:
                detail = f"no file for band {in_file}; {label} has {', '.join(sorted(files))}"
                raise SceneRefused(label, "missing-band", detail)
            path, index = files[in_file][0], 1
        else:
            path = files[""][0]
            index = int(in_file) if in_file.isdigit() else self.requested.names.index(name) + 1
        if self.variable is not None:
            is_shared = "{band}" not in self.pattern + self.variable
            return Asset(str(self.path / path), self.variable.replace("{band}", in_file), index - 1 if is_shared else 0)
        return Asset(str(self.path / path), "", index)

    def _open(self, scene: Scene, name: str) -> AbstractContextManager[Layer]:
        return open_band(scene, name, self.requested)


@contextmanager
def open_band(scene: Scene, name: str, requested: BandRequest) -> Iterator[Layer]:
    """Band `name` of a scene stored in raster or HDF5 files. Raises SceneRefused, MissingInput."""
    asset = scene.assets.get(name)
    if asset is None:
        raise SceneRefused(scene.id, "missing-band", f"no band {name!r}; the scene has: {', '.join(scene.assets)}")
    if asset.variable:
        with open_hdf5(asset.path, scene.id) as file:
            yield open_plane(file, asset.variable, asset.index, requested, name, scene.id)
    else:
        with open_raster(asset.path, (asset.index,), scene.id) as dataset:
            yield raster_layer(dataset, asset.index, requested, name, scene.id)


def raster_layer(dataset: rasterio.DatasetReader, index: int, requested: BandRequest, name: str, label: str) -> RasterLayer:
    """Band `index` of an open raster, on its own grid or the requested one. Raises SceneRefused(wrong-crs, wrong-grid)."""
    crs = dataset.crs.to_wkt() if dataset.crs else None
    affine = dataset.transform
    is_georeferenced = affine.determinant != 0 and not affine.is_identity  # GDAL returns either if the file states no transform
    transform = tuple(affine)[:6] if is_georeferenced else None
    read_as = requested.bits_of(name, np.dtype(dataset.dtypes[index - 1]))
    return RasterLayer(dataset, index, requested.grid(crs, transform, dataset.shape, label), read_as)


def list_files(folder: Path) -> list[str]:
    """Paths of the files below `folder`, with /, sorted, without hidden files and without folders that are links.

    Raises MissingInput for a folder that does not exist or cannot be read: skipping it would lose its scenes silently.
    """

    def refuse(error: OSError) -> None:
        raise MissingInput(f"the folder {error.filename} cannot be read: {error.strerror}; grant read permission") from error

    if not folder.is_dir():
        raise MissingInput(f"no such folder: {folder}" if not folder.exists() else f"{folder} is a file; a folder is expected")
    paths = []
    for here, folders, files in os.walk(folder, onerror=refuse):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        relative = Path(here).relative_to(folder)
        paths += [(relative / name).as_posix() for name in files if not name.startswith(".")]
    return sorted(paths)


def take_text_names(paths: list[str]) -> tuple[list[str], list[SceneRefused]]:
    """The paths that are valid UTF-8, and a refusal for each other one: neither a cube nor JSON could hold its name."""
    is_text = [not any("\udc80" <= c <= "\udcff" for c in path) for path in paths]
    shown = [ascii(path)[1:-1] for path, good in zip(paths, is_text, strict=True) if not good]
    refused = [SceneRefused(name, "unreadable", "the file name is not UTF-8; rename the file") for name in shown]
    return [path for path, good in zip(paths, is_text, strict=True) if good], refused


def scene_name(key: str) -> str:
    """The id of a scene from its key: without band and suffix, the separators around the band joined."""
    stem, _, suffix = key.rpartition(".")
    text = stem if stem and "/" not in suffix else key
    head, band, tail = text.partition("{band}")
    if not band:
        return text
    while head and tail and head[-1] in "_-./" and tail[0] in "_-./":
        tail = tail[1:]
    return (head + tail.replace("{band}", "")).strip("_-./") or text
