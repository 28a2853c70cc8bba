"""Band requests, source information and band-wise reading, shared by all file sources."""

from __future__ import annotations

import dataclasses
import functools
import logging
import re
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

import numpy as np
from rasterio.crs import CRS
from rasterio.errors import RasterioError

from pipelines.errors import MissingInput, RequestError, SceneRefused
from pipelines.grid import Grid, parse_crs
from pipelines.scene import Band, Scene
from pipelines.sources.resampling import Layer, resample
from pipelines.sources.source import Listing, Resampling

log = logging.getLogger(__name__)

MAX_READ_BYTES = 4 << 30  # one call of `read`
PROBED_SCENES = 7  # spread over the series; the most frequent dtype wins


@dataclass(frozen=True)
class BandRequest:
    """What is requested from the files, with values that override or complete what the files state.

    `in_file` maps a band's name to its name in the files where they differ. `quality` is the name of the quality band.
    `read_as` reinterprets the stored bits; `crs` and `transform` (see `Grid`) override the georeferencing of the files.
    """

    bands: tuple[Band, ...]
    in_file: Mapping[str, str] = field(default_factory=dict, hash=False)
    quality: str | None = None
    read_as: str | None = None
    crs: str | None = None
    transform: tuple[float, float, float, float, float, float] | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the bands, then the quality band if there is one that is not among them."""
        names = tuple(band.name for band in self.bands)
        return names if self.quality is None or self.quality in names else (*names, self.quality)

    def name_in_file(self, name: str) -> str:
        return self.in_file.get(name, name)

    def bits_of(self, name: str, stored: np.dtype) -> np.dtype | None:
        """The dtype as which the bits of a band are read; None: the file's own dtype (always for the quality band).

        Raises RequestError if its size differs from that of `stored`.
        """
        if self.read_as is None or all(band.name != name for band in self.bands):
            return None
        read_as = np.dtype(self.read_as)
        if stored.itemsize != read_as.itemsize:
            raise RequestError(
                f"read_as: {read_as} has {read_as.itemsize} bytes, the files hold {stored} with {stored.itemsize}; "
                "bits can only be reinterpreted as a dtype of the same size"
            )
        return read_as

    def grid(self, crs: str | None, transform: tuple[float, ...] | None, shape_yx: tuple[int, int], label: str) -> Grid:
        """The grid of a file with `crs` and `transform` (None: not stated). Raises SceneRefused(wrong-crs, wrong-grid)."""
        crs, transform = self.crs or crs, self.transform or transform
        if not crs:
            also = "" if transform is not None else " and no transform; if you know them, set source.transform and"
            raise SceneRefused(label, "wrong-crs", f"the file has no CRS{also or '; if you know it, set'} source.crs")
        if transform is None:
            raise SceneRefused(
                label, "wrong-grid", "the file is not georeferenced; if you know its position, set source.transform"
            )
        a, b, c, d, e, f = (float(v) for v in transform)
        try:
            return Grid(canonical_crs(crs), (a, b, c, d, e, f), shape_yx)
        except RasterioError as error:
            raise SceneRefused(label, "wrong-crs", f"PROJ cannot parse {crs[:80]!r}: {error}") from error


@functools.lru_cache(maxsize=256)
def canonical_crs(crs: str) -> str:
    """EPSG:n if that code is equivalent to `crs`, else WKT. Raises rasterio's CRSError for text that PROJ cannot parse.

    A WKT that states an EPSG code may differ from that code only by TOWGS84 (a shift to WGS 84, not part of the CRS).
    Cached, since the lookup takes 40 ms.
    """
    parsed = parse_crs(crs)
    stated = re.search(r'(?:AUTHORITY\["EPSG", *"|ID\["EPSG", *)(\d+)"?\]\s*\]\s*$', parsed.to_wkt())
    code = int(stated.group(1)) if stated else parsed.to_epsg(confidence_threshold=100)
    if code is not None:
        known = CRS.from_epsg(code)
        if known == parsed or _projection(known) == _projection(parsed):
            return f"EPSG:{code}"
    wkt: str = parsed.to_wkt()
    return wkt


def _projection(crs: CRS) -> list[str]:
    return sorted(part for part in crs.to_proj4().split() if not part.startswith(("+towgs84", "+type", "+no_defs")))


OpenLayer = Callable[[Scene, str], AbstractContextManager[Layer]]


@dataclass(frozen=True)
class SourceInfo:
    """Properties of the files: bands with their nodata, the dtype, and the grid of the first readable scene."""

    bands: tuple[Band, ...]
    dtype: np.dtype
    grid: Grid


def describe(label: str, requested: BandRequest, listing: Listing, open_layer: OpenLayer) -> SourceInfo:
    """Properties of a series from a few scenes: their most frequent dtype, and the first grid and nodata found with it.

    Raises RequestError if none of the scenes can be read, or if their bands differ in dtype.
    """
    scenes = [part for scene in listing.scenes for part in (scene.parts or (scene,))]
    dtypes: dict[str, np.dtype] = {}
    problems = list(listing.refused)
    picks = sorted(set(np.linspace(0, len(scenes) - 1, PROBED_SCENES).round().astype(int))) if scenes else []
    for index in [*picks, *(i for i in range(len(scenes)) if i not in picks)]:
        if len(dtypes) >= min(PROBED_SCENES, len(scenes)) or (dtypes and index not in picks):
            break
        try:
            dtypes[scenes[index].id] = _dtype_of(scenes[index], requested.bands[0].name, open_layer)
        except (SceneRefused, MissingInput) as error:
            problems.append(
                error if isinstance(error, SceneRefused) else SceneRefused(scenes[index].id, "unreadable", str(error))
            )
    if not dtypes:
        shown = "\n".join(f"  {problem}" for problem in problems[:3]) or "  there are no scenes"
        raise RequestError(f"none of the {len(scenes) + len(listing.refused)} scenes of {label} can be read:\n{shown}")
    dtype = Counter(dtypes.values()).most_common(1)[0][0]
    for scene in scenes:
        try:
            if _dtype_of(scene, requested.bands[0].name, open_layer) == dtype:
                info = _describe_scene(scene, requested, dtype, open_layer)
                return _with_nodata_of(info, [scenes[index] for index in picks if scenes[index] is not scene], open_layer)
        except (SceneRefused, MissingInput) as error:
            log.debug("%s is not used to describe the series: %s", scene.id, error)
    raise RequestError(
        f"no scene of {label} has all of the bands {', '.join(requested.names)}:\n  {problems[0] if problems else ''}"
    )


def _dtype_of(scene: Scene, name: str, open_layer: OpenLayer) -> np.dtype:
    with open_layer(scene, name) as layer:
        return layer.dtype.newbyteorder("=")


def _describe_scene(scene: Scene, requested: BandRequest, dtype: np.dtype, open_layer: OpenLayer) -> SourceInfo:
    bands, grid = [], None
    for band in requested.bands:
        with open_layer(scene, band.name) as layer:
            if layer.dtype.newbyteorder("=") != dtype:
                raise RequestError(
                    f"bands differ in dtype: {requested.bands[0].name} is {dtype}, {band.name} is {layer.dtype} in {scene.id}; "
                    "a cube has one dtype: remove one of them"
                )
            bands.append(_completed(band, layer, dtype))
            grid = grid or layer.grid
    assert grid is not None
    return SourceInfo(tuple(bands), dtype, grid)


def _completed(band: Band, layer: Layer, dtype: np.dtype) -> Band:
    """`band` with missing nodata, and scale and offset of 1 and 0, completed from the file."""
    nodata = _nodata_of(layer, dtype) if band.nodata is None else band.nodata
    if nodata is not None and not is_storable(nodata, dtype):
        raise RequestError(f"nodata {nodata:g} of band {band.name} does not fit into {dtype}, the dtype of the files")
    scale, offset = band.scale, band.offset
    if (scale, offset) == (1.0, 0.0):
        scale, offset = layer.scale_offset
    return dataclasses.replace(band, nodata=nodata, scale=scale, offset=offset)


def _with_nodata_of(info: SourceInfo, others: list[Scene], open_layer: OpenLayer) -> SourceInfo:
    """`info` with missing nodata taken from the first of `others` that states one.

    A crop without fill pixels may state no nodata; without this, the fill of the next scene would count as data.
    """
    bands = list(info.bands)
    for scene in others:
        silent = [index for index, band in enumerate(bands) if band.nodata is None]
        try:
            for index in silent:
                with open_layer(scene, bands[index].name) as layer:
                    bands[index] = dataclasses.replace(bands[index], nodata=_nodata_of(layer, info.dtype))
        except (SceneRefused, MissingInput) as error:
            log.debug("%s states no nodata: %s", scene.id, error)
    return dataclasses.replace(info, bands=tuple(bands))


def _nodata_of(layer: Layer, dtype: np.dtype) -> float | None:
    """The file's nodata, if it is a value of `dtype`."""
    is_usable = layer.nodata is not None and np.isfinite(layer.nodata) and is_storable(layer.nodata, dtype)
    return float(layer.nodata) if is_usable and layer.nodata is not None else None


def is_storable(value: float, dtype: np.dtype) -> bool:
    """True if `dtype` can hold `value`."""
    if dtype.kind == "f":
        return not np.isfinite(value) or abs(value) <= np.finfo(dtype).max
    limits = np.iinfo(dtype)
    return bool(np.isfinite(value)) and float(value).is_integer() and limits.min <= value <= limits.max


def grid_of(open_layer: OpenLayer, scene: Scene, name: str) -> Grid:
    try:
        with open_layer(scene, name) as layer:
            return layer.grid
    except MissingInput as error:
        raise SceneRefused(scene.id, "unreadable", f"{error}; it existed when the scenes were listed") from error


def read_layers(
    open_layer: OpenLayer,
    info: SourceInfo,
    scene: Scene,
    grid: Grid,
    names: tuple[str, ...],
    resampling: Resampling,
    rows: slice | None,
) -> np.ndarray:
    """(names, rows, x) as `Source.read` specifies. Raises SceneRefused."""
    if scene.parts:
        raise ValueError(f"{scene.id} is a mosaic: read its parts")
    rows = slice(0, grid.shape_yx[0]) if rows is None else slice(*rows.indices(grid.shape_yx[0]))
    requested_bytes = len(names) * (rows.stop - rows.start) * grid.shape_yx[1] * info.dtype.itemsize
    if requested_bytes > MAX_READ_BYTES:
        raise RequestError(
            f"one read of {requested_bytes / 1e9:.1f} GB, the limit is {MAX_READ_BYTES / 1e9:.1f} GB; read fewer rows"
        )
    bands = {band.name: band for band in info.bands}
    planes = []
    for name in names:
        try:
            with open_layer(scene, name) as layer:
                if name in bands and layer.dtype.newbyteorder("=") != info.dtype:
                    detail = f"band {name} holds {layer.dtype}, the other scenes {info.dtype}; convert or remove it"
                    raise SceneRefused(scene.id, "wrong-dtype", detail)
                nodata = bands[name].nodata if name in bands else layer.nodata
                planes.append(resample(layer, grid, rows, fill_value(nodata, layer.dtype), nodata, resampling))
        except MissingInput as error:
            raise SceneRefused(scene.id, "unreadable", f"{error}; it existed when the scenes were listed") from error
    return planes[0][None] if len(planes) == 1 else np.stack(planes)


def fill_value(nodata: float | None, dtype: np.dtype) -> float:
    """Value of pixels outside a scene: its nodata; without one NaN for floats, 0 for integers."""
    if nodata is not None and is_storable(nodata, dtype):
        return nodata
    return np.nan if dtype.kind == "f" else 0
