"""Detects what a folder or file holds: the kind of source, its bands, dates and quality band, and irregularities.

Opens only a few files, all of them through `opening`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import h5py
import numpy as np
import rasterio

from pipelines.errors import MissingInput, RequestError, SceneRefused
from pipelines.sources.dates import parse_date, read_dates
from pipelines.sources.file_names import FilePattern, named, propose_pattern
from pipelines.sources.folder import list_files
from pipelines.sources.hdf5 import Hdf5Layer, cf_crs, cf_times, cf_transform, float_attribute, text_attribute
from pipelines.sources.opening import hdf5_data_set, hdf5_data_sets, open_hdf5, open_raster

Value = TypeVar("Value")

QUALITY_KINDS = {"SCL": "scl", "BQA": "landsat", "QA_PIXEL": "landsat"}
HDF5_SUFFIXES = (".nc", ".nc4", ".h5", ".hdf5", ".he5")


@dataclass(frozen=True)
class BandSample:
    """Properties of one band in its first file: dtype, shape, stated scale, offset and nodata, and sample values."""

    dtype: np.dtype
    shape_yx: tuple[int, int]
    nodata: float | None = None
    scale: float = 1.0
    offset: float = 0.0
    sample: np.ndarray = field(default_factory=lambda: np.empty(0), compare=False)


@dataclass(frozen=True)
class DetectedFormat:
    """What a folder or file holds. `source_lines` are the source's own config lines: (key, value, comment)."""

    kind: str
    path: Path
    bands: tuple[str, ...]
    dates: np.ndarray
    inspect_band: Callable[[str], BandSample]
    source_lines: tuple[tuple[str, object, str], ...] = ()
    shares_dates: bool = False
    differs_in_grid: bool = False

    @property
    def quality(self) -> str | None:
        return next((band for band in self.bands if band.upper() in QUALITY_KINDS), None)


def detect_format(path: Path) -> DetectedFormat:
    """What is at `path`. Raises MissingInput, or RequestError if no source can read it."""
    if not path.exists():
        raise MissingInput(f"no such folder or file: {path}")
    if path.is_file():
        return _netcdf(path, ())
    paths = list_files(path)
    names = propose_pattern(paths)
    if names and names.matched >= 2:
        return _folder(path, paths, names.pattern, names.bands)
    stack = _stack(path, paths)
    if stack:
        return stack
    cubes = [path / name for name in paths if name.lower().endswith(HDF5_SUFFIXES) and _is_cube(path / name)]
    if cubes:
        largest = max(cubes, key=lambda cube: cube.stat().st_size)
        return _netcdf(largest, tuple(cube.name for cube in cubes if cube != largest))
    shown = ", ".join(paths[:3]) + (f" and {len(paths) - 3} more" if len(paths) > 3 else "") if paths else "no files"
    raise RequestError(
        f"{path} holds nothing that a source can read; there are {shown}; expected rasters with a date in their names, "
        "multi-band GeoTIFFs with a text file of dates, or a netCDF-4 cube (time, y, x)"
    )


# ---------------------------------------------------------------- netCDF cubes


def _is_cube(path: Path) -> bool:
    try:
        return bool(_cube_variables(path)[1])
    except (SceneRefused, MissingInput):
        return False


def _cube_variables(path: Path) -> tuple[str, list[str], np.ndarray]:
    """(time coordinate, variables (time, y, x), dates) of a netCDF-4 file; no variables if it is not a cube."""
    with open_hdf5(path) as file:
        for name, item in file.items():
            if isinstance(item, h5py.Dataset) and item.ndim == 1 and "since" in text_attribute(item, "units"):
                steps = item.shape[0]
                sets = [n for n in hdf5_data_sets(file) if file[n].ndim == 3 and file[n].shape[0] == steps]
                return name, sets, cf_times(hdf5_data_set(file, name, path.name), path.name)
    return "time", [], np.empty(0, "datetime64[ns]")


def _netcdf(path: Path, others: tuple[str, ...]) -> DetectedFormat:
    try:
        time, variables, dates = _cube_variables(path)
    except SceneRefused as error:
        raise RequestError(f"{path.name} is not a readable cube: {error.detail}") from error
    if not variables:
        raise RequestError(f"{path.name} has no variable (time, y, x) with a CF time coordinate; no config can be proposed")

    def inspect_band(name: str) -> BandSample:
        with open_hdf5(path) as file:
            return _inspect_hdf5(hdf5_data_set(file, name, path.name), len(dates) // 2)

    beside = f"same folder: {', '.join(others)}" if others else ""
    source_lines: list[tuple[str, object, str]] = [("path", str(path), beside)]
    if time != "time":
        source_lines.append(("time", time, ""))
    source_lines += _georeferencing_lines(path, variables[0], None)
    return DetectedFormat("netcdf", path, tuple(variables), np.sort(dates[~np.isnat(dates)]), inspect_band, tuple(source_lines))


def _inspect_hdf5(data: h5py.Dataset, index: int) -> BandSample:
    layer = Hdf5Layer(data, index, None)  # type: ignore[arg-type]  # only values are used, not the grid
    height, width = data.shape[-2:]
    sample = layer.window(slice(0, min(height, 512)), slice(0, min(width, 512)))
    return BandSample(layer.dtype, (height, width), layer.nodata, *layer.scale_offset, sample)


def _georeferencing_lines(path: Path, name: str, product: dict[str, object] | None) -> list[tuple[str, object, str]]:
    """`crs` and `transform` lines for an HDF5 file without CF georeferencing."""
    with open_hdf5(path) as file:
        data = hdf5_data_set(file, name, path.name)
        lines: list[tuple[str, object, str]] = []
        known = product or {}
        if cf_crs(file, data) is None:
            lines.append(("crs", known.get("crs", "EPSG:4326"), "" if product else "GUESSED: the file does not state it; set it"))
        if cf_transform(data, path.name) is None:
            remark = "" if product else "GUESSED: the file does not state it; set it: (column, row) of a corner to x, y"
            lines.append(("transform", known.get("transform", [1, 0, 0, 0, -1, 0]), remark))
        return lines


# ---------------------------------------------------------------- folders of dated files


def _folder(path: Path, paths: list[str], pattern: str, bands: tuple[str, ...]) -> DetectedFormat:
    regex, date_format = FilePattern(pattern).regex(bands), FilePattern(pattern).date_format
    matches = [named(match) for name in paths if (match := regex.fullmatch(name))]
    files = [name for name in paths if regex.fullmatch(name)]
    dates = [date for key in {m.key: m.date_text for m in matches}.values() if (date := parse_date(key, date_format)) is not None]
    source_lines: list[tuple[str, object, str]] = [("path", str(path), ""), ("pattern", pattern, f"matches {len(files)} files")]
    if files[0].lower().endswith(HDF5_SUFFIXES):
        return _hdf5_folder(path, path / files[0], source_lines, np.sort(np.array(dates)))
    by_band: dict[str, Path] = {}
    for name, parsed in zip(files, matches, strict=True):
        by_band.setdefault(parsed.band, path / name)
    if not bands:
        bands = _band_names(path / files[0])

    def inspect_band(name: str) -> BandSample:
        shared = len(by_band) == 1 and "" in by_band
        return _inspect_raster(by_band[""] if shared else by_band[name], bands.index(name) + 1 if shared else 1)

    unique = np.unique(np.array(dates))
    first_of_scene = list({m.key: path / name for m, name in zip(matches, files, strict=True)}.values())
    grids = {_georeferencing_of(file) for file in first_of_scene[:: max(1, len(first_of_scene) // 5)][:6]} - {None}
    return DetectedFormat(
        "folder", path, bands, unique, inspect_band, tuple(source_lines), len(unique) < len(dates), len(grids) > 1
    )


def _band_names(path: Path) -> tuple[str, ...]:
    """Names for the bands of a multi-band file: their descriptions if valid as names, else b1, b2..."""
    with open_raster(path, (1,)) as dataset:
        found = tuple(re.sub(r"[^A-Za-z0-9_.-]+", "_", text or "").strip("_.-") for text in dataset.descriptions)
    return found if all(found) and len(set(found)) == len(found) else tuple(f"b{i}" for i in range(1, len(found) + 1))


def _georeferencing_of(path: Path) -> tuple[object, ...] | None:
    try:
        with open_raster(path, (1,)) as dataset:
            return dataset.crs.to_wkt() if dataset.crs else None, tuple(dataset.transform), dataset.shape
    except (SceneRefused, MissingInput):
        return None


def _inspect_raster(path: Path, index: int) -> BandSample:
    with open_raster(path, (index,)) as dataset:
        height, width = dataset.shape
        row, column = max(0, height // 2 - 256), max(0, width // 2 - 256)
        sample = dataset.read(index, window=rasterio.windows.Window(column, row, min(width, 512), min(height, 512)))
        tags = " ".join(f"{key}={value}" for key, value in dataset.tags().items())
        scale, offset, nodata = dataset.scales[index - 1], dataset.offsets[index - 1], dataset.nodatavals[index - 1]
        return BandSample(
            np.dtype(dataset.dtypes[index - 1]),
            (height, width),
            _tag_value(tags, "nodata", nodata),
            _tag_value(tags, "gain", scale) if scale == 1 else scale,
            _tag_value(tags, "offset", offset) if offset == 0 else offset,
            sample,
        )


def _tag_value(tags: str, word: str, otherwise: Value) -> float | Value:
    """The number that a text tag gives for `word`, in the notation of weather services: name="Gain">0.5<."""
    match = re.search(rf'(?i)\b{word}\b"?\s*[>=:]\s*(-?\d+(?:\.\d+)?)', tags)
    return float(match.group(1)) if match and otherwise in (None, 0.0, 1.0) else otherwise


def _hdf5_folder(path: Path, first: Path, source_lines: list[tuple[str, object, str]], dates: np.ndarray) -> DetectedFormat:
    with open_hdf5(first) as file:
        sets = [name for name in hdf5_data_sets(file) if min(file[name].shape[-2:]) >= 8]
        product = knmi_product(file)
    if not sets:
        raise RequestError(f"{first.name} holds no data set with at least 8 x 8 values; no config can be proposed")
    beside = f"also there: {', '.join(sets[1:6])}" if len(sets) > 1 else ""
    source_lines.append(("variable", sets[0], beside))
    source_lines += _georeferencing_lines(first, sets[0], product)

    def inspect_band(name: str) -> BandSample:
        with open_hdf5(first) as file:
            found = _inspect_hdf5(hdf5_data_set(file, sets[0], first.name), 0)
        known_values = product or {}
        nodata, scale, offset = (known_values.get(key, getattr(found, key)) for key in ("nodata", "scale", "offset"))
        return BandSample(found.dtype, found.shape_yx, nodata, scale, offset, found.sample)  # type: ignore[arg-type]

    name = "rain" if product and product["is_rain"] else re.sub(r"[^A-Za-z0-9]+", "_", sets[0]).strip("_") or "b1"
    return DetectedFormat(
        "folder", path, (name,), np.unique(dates), inspect_band, tuple(source_lines), len(np.unique(dates)) < len(dates)
    )


def knmi_product(file: h5py.File) -> dict[str, object] | None:
    """Georeferencing and packing in the KNMI HDF5 layout (KNMI HDF5 Data Format Specification 3.5); None for other files.

    The layout states lengths in km, also those of the ellipsoid; they are converted to metres.
    """
    geographic, projection = file.get("geographic"), file.get("geographic/map_projection")
    calibration = file.get("image1/calibration")
    if geographic is None or projection is None or calibration is None:
        return None
    in_m = re.sub(r"\+([ab])=(\d+\.?\d*)", lambda m: f"+{m[1]}={float(m[2]) * 1000:.0f}", text_attribute(projection, PROJ4))
    keys = ("geo_pixel_size_x", "geo_pixel_size_y", "geo_column_offset", "geo_row_offset")
    size_x, size_y, column, row = (float_attribute(geographic, key) or 0.0 for key in keys)
    formula = re.search(r"GEO=(-?[\d.]+)\*PV([+-][\d.]+)", text_attribute(calibration, "calibration_formulas"))
    return {
        "crs": in_m,
        "transform": [size_x * 1000, 0, column * size_x * 1000, 0, size_y * 1000, row * size_y * 1000],
        "scale": float(formula[1]) if formula else 1.0,
        "offset": float(formula[2]) if formula else 0.0,
        "nodata": float_attribute(calibration, "calibration_missing_data"),
        "is_rain": "PRECIPITATION" in text_attribute(file["image1"], "image_geo_parameter"),
    }


PROJ4 = "projection_proj4_params"


# ---------------------------------------------------------------- stacks


def _stack(path: Path, paths: list[str]) -> DetectedFormat | None:
    """Multi-band rasters and a text file with as many dates; None if there is no such pair."""
    for text in paths:
        is_text = Path(text).suffix.lower() in ("", ".txt", ".csv", ".dat") and (path / text).stat().st_size < 1 << 20
        dates = _dates_or_none(path / text) if is_text else None
        if not dates or len(dates) < 3:
            continue
        files: dict[str, str] = {}
        for name in paths:
            if name.lower().endswith((".tif", ".tiff")) and _count(path / name) == len(dates):
                files[re.sub(r"[^A-Za-z0-9_.-]+", "_", Path(name).stem).strip("_.-") or f"b{len(files)}"] = name
        if files:
            return _detected_stack(path, text, dates, _short(files))
    return None


def _detected_stack(path: Path, text: str, dates: list[np.datetime64 | None], files: dict[str, str]) -> DetectedFormat:
    def inspect_band(name: str) -> BandSample:
        return _inspect_raster(path / files[name], max(1, len(dates) // 2))

    known = np.unique(np.array([date for date in dates if date is not None]))
    source_lines = (("path", str(path), ""), ("dates", text, f"{len(dates)} dates"), ("files", files, ""))
    return DetectedFormat("stack", path, tuple(files), known, inspect_band, source_lines)


def _short(files: dict[str, str]) -> dict[str, str]:
    """The names without their common prefix: sinop-crop-ndvi, sinop-crop-evi -> ndvi, evi."""
    parts = [re.split(r"[_-]", name) for name in files]
    last = [part[-1] for part in parts]
    has_common_head = len(files) > 1 and len({tuple(part[:-1]) for part in parts}) == 1
    is_name = all(re.match(r"[A-Za-z0-9]", name) for name in last)
    return dict(zip(last, files.values(), strict=True)) if has_common_head and is_name else files


def _dates_or_none(path: Path) -> list[np.datetime64 | None] | None:
    try:
        return read_dates(path)
    except RequestError:
        return None


def _count(path: Path) -> int:
    try:
        with open_raster(path, (1,)) as dataset:
            return int(dataset.count)
    except (SceneRefused, MissingInput):
        return 0
