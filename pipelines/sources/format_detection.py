"""Detects what a folder or file holds: the kind of source, its bands, dates and quality band, and irregularities.

Opens only a few files, all of them through `opening`, in workers.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import h5py
import numpy as np
import rasterio

from pipelines.errors import MissingInput, RequestError, SceneRefused
from pipelines.grid import Grid
from pipelines.sources import cf
from pipelines.sources.cf import assumed_crs, cf_crs, cf_transform
from pipelines.sources.cf_attributes import float_attribute, packing, text_attribute
from pipelines.sources.cf_times import cf_times
from pipelines.sources.dates import parse_date, read_dates
from pipelines.sources.file_names import KNOWN_BAND, SEPARATORS, FileNames, FilePattern, propose_pattern, show_some
from pipelines.sources.folder import list_files
from pipelines.sources.isolation import isolate
from pipelines.sources.layers import check_degrees
from pipelines.sources.opening import band_descriptions, hdf5_data_set, hdf5_data_sets, open_hdf5, open_raster
from pipelines.sources.other_notations import of_radar
from pipelines.sources.products import Product, baseline_remark, mask_band, product_of, products_in, with_baseline

Value = TypeVar("Value")
SourceLine = tuple[str, object, str]  # key, value and comment of a line of the config

HDF5_SUFFIXES = (".nc", ".nc4", ".h5", ".hdf5", ".he5")


@dataclass(frozen=True)
class BandSample:
    """Properties of one band in its first file: dtype, shape, stated scale, offset and nodata, pixel size (None: not known)."""

    dtype: np.dtype
    shape_yx: tuple[int, int]
    nodata: float | None = None
    scale: float = 1.0
    offset: float = 0.0
    pixel_m: float | None = None


@dataclass(frozen=True)
class DetectedFormat:
    """What a folder or file holds. `source_lines` are the source's own config lines."""

    kind: str
    path: Path
    bands: tuple[str, ...]
    dates: np.ndarray
    inspect_band: Callable[[str], BandSample]
    source_lines: tuple[SourceLine, ...] = ()
    shares_dates: bool = False
    differs_in_grid: bool = False
    product: Product | None = None
    notes: tuple[str, ...] = ()

    @property
    def quality(self) -> str | None:
        return mask_band(self.bands)


def detect_format(path: Path) -> DetectedFormat:
    """What is at `path`. Raises MissingInput, or RequestError if no source can read it."""
    if not path.exists():
        raise MissingInput(f"no such folder or file: {path}")
    if path.is_file():
        return _netcdf(path, ())
    paths = list_files(path)
    names = propose_pattern(paths)
    if names and names.matched >= 2:
        return _folder(path, paths, names)
    if stack := _stack(path, paths):
        return stack
    hdf5_files = [path / name for name in paths if name.lower().endswith(HDF5_SUFFIXES)]
    cubes = [file for file in hdf5_files if _or_none(_read_cube, file) is not None]
    if cubes:
        largest = max(cubes, key=lambda cube: cube.stat().st_size)
        return _netcdf(largest, tuple(cube.name for cube in cubes if cube != largest))
    raise RequestError(
        f"{path} holds nothing that a source can read; there are {show_some(paths)}; expected rasters with a date in their "
        "names, multi-band GeoTIFFs with a text file of dates, or a netCDF-4 cube (time, y, x)"
    )


def _or_none(read: Callable[[Path], Value], path: Path) -> Value | None:
    """What `read` finds in the file; None if the file cannot be opened or holds something else."""
    try:
        return read(path)
    except (SceneRefused, RequestError):
        return None


# ---------------------------------------------------------------- netCDF cubes


@isolate
def _read_cube(path: Path) -> tuple[str, list[str], np.ndarray]:
    """(time coordinate, variables (time, y, x), dates) of a netCDF-4 file. Raises RequestError if it is not a cube."""
    try:
        with open_hdf5(path) as file:
            for name, item in file.items():
                if isinstance(item, h5py.Dataset) and item.ndim == 1 and "since" in text_attribute(item, "units"):
                    dates = cf_times(hdf5_data_set(file, name, path.name), path.name).values
                    sets = [n for n in hdf5_data_sets(file) if _counts(file[n], len(dates), path.name)]
                    if sets:
                        return name, sets, dates
                    break
    except SceneRefused as error:
        raise RequestError(f"{path.name} is not a readable cube: {error.detail}") from error
    raise RequestError(f"{path.name} has no variable (time, y, x) with a CF time coordinate; no config can be proposed")


def _counts(data: h5py.Dataset, dates: int, label: str) -> bool:
    """True if the planes of a data set are as many as the dates."""
    try:
        axes = cf.axes_of(data, label)
    except SceneRefused:
        return False
    return axes.plane is not None and axes.planes(data) == dates


def _netcdf(path: Path, others: tuple[str, ...]) -> DetectedFormat:
    time, variables, dates = _read_cube(path)
    lines: list[SourceLine] = [("path", str(path), f"also there: {', '.join(others)}" if others else "")]
    if time != "time":
        lines.append(("time", time, ""))
    lines += _georeferencing_lines(path, variables[0], None)
    known = np.sort(dates[~np.isnat(dates)])
    return DetectedFormat("netcdf", path, tuple(variables), known, lambda name: _inspect_hdf5(path, name), tuple(lines))


@isolate
def _inspect_hdf5(path: Path, name: str) -> BandSample:
    with open_hdf5(path) as file:
        data = hdf5_data_set(file, name, path.name)
        nodata, _ = cf.stated(data)
        shape_yx = cf.axes_of(data, path.name).shape_yx(data)
        said = of_radar(data).completing(*packing(data), nodata)
        return BandSample(cf.value_dtype(data), shape_yx, next(iter(said.nodata), None), said.scale, said.offset)


@isolate
def _georeferencing_lines(path: Path, name: str, product: _KnmiProduct | None) -> list[SourceLine]:
    """`crs` and `transform` lines for an HDF5 file without CF georeferencing."""
    guessed = "" if product else "GUESSED: the file does not state it; set it"
    lines: list[SourceLine] = []
    with open_hdf5(path) as file:
        data = hdf5_data_set(file, name, path.name)
        axes = cf.axes_of(data, path.name)
        crs = cf_crs(data, axes) or assumed_crs(data, axes)
        transform = cf_transform(data, axes, crs, path.name)
        if crs is None:
            lines.append(("crs", product.crs if product else "EPSG:4326", guessed))
            if transform is not None and product is None:
                check_degrees(Grid("EPSG:4326", transform, axes.shape_yx(data)), path.name)
        if transform is None:
            remark = f"{guessed}: (column, row) of a corner to x, y" if guessed else ""
            lines.append(("transform", product.transform if product else [1, 0, 0, 0, -1, 0], remark))
    return lines


# ---------------------------------------------------------------- folders of dated files


def _folder(path: Path, paths: list[str], names: FileNames) -> DetectedFormat:
    pattern = FilePattern(names.pattern)
    matched = {path / name: parsed for name in paths if (parsed := pattern.match(name, names.bands))}
    first, matched_names = next(iter(matched)), [name.relative_to(path).as_posix() for name in matched]
    lines: list[SourceLine] = [("path", str(path), ""), ("pattern", names.pattern, f"matches {len(matched)} files")]
    texts = {parsed.key: parsed.date_text for parsed in matched.values()}.values()
    dates = [date for text in texts if (date := parse_date(text, pattern.date_format)) is not None]
    known = np.unique(np.array(dates))
    if first.name.lower().endswith(HDF5_SUFFIXES):
        found = _hdf5_folder(path, first, known, lines)
    else:
        by_band = {parsed.band: file for file, parsed in reversed(matched.items())}
        bands = names.bands or _band_names(first, names.pattern, product_of([first.relative_to(path).as_posix()]))
        position = {name: (by_band[name], 1) if names.bands else (first, index) for index, name in enumerate(bands, start=1)}
        first_of_scene = list({parsed.key: file for file, parsed in matched.items()}.values())
        grids = {_or_none(_georeferencing_of, file) for file in first_of_scene[:: max(1, len(first_of_scene) // 5)][:6]}
        found = DetectedFormat("folder", path, bands, known, lambda name: _inspect_raster(*position[name]), tuple(lines))
        product = with_baseline(product_of(matched_names), matched_names)
        found = dataclasses.replace(found, differs_in_grid=len(grids - {None}) > 1, product=product)
    kinds = products_in(matched_names)
    notes = [f"the names are of several products ({', '.join(kinds)}), whose bands differ: take one"] if len(kinds) > 1 else []
    if unplaced := [name for name in paths if path / name not in matched]:
        notes.append(f"the pattern does not match {len(unplaced)} of {len(paths)} files: {show_some(unplaced)}")
    if mixed := baseline_remark(matched_names, found.product.offset if found.product else 0.0):
        notes.append(mixed)
    if zone := re.search(r"%[HMS]\}([+-]\d\d:?\d\d)(?!\d)", names.pattern):
        remedy = "write %z in its place, before the }, and times become UTC"
        notes.append(f"the names state the time zone {zone[1]}, which is not taken off: {remedy}")
    if not re.search(r"%[djHMS]", names.pattern):
        notes.append("the names have no day: scenes are dated to the first day of the month or year")
    return dataclasses.replace(found, shares_dates=len(known) < len(dates), notes=(*found.notes, *notes))


@isolate
def _band_names(path: Path, pattern: str, product: Product | None) -> tuple[str, ...]:
    """Names for the bands of a file: their descriptions if valid as names, else (of one band) what `pattern` says, or b1..."""
    with open_raster(path, (1,)) as dataset:
        found = tuple(map(_as_name, band_descriptions(dataset)))
    of_product = next((names for names in (product.in_file if product else ()) if len(names) == len(found)), ())
    found = of_product if of_product and not any(found) else found
    known = [part for part in SEPARATORS.split(pattern) if KNOWN_BAND.fullmatch(part)]
    found = (tuple(known[:1]) or found) if found == ("",) else found
    return found if all(found) and len(set(found)) == len(found) else tuple(f"b{i}" for i in range(1, len(found) + 1))


def _as_name(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", text).strip("_.-")


@isolate
def _georeferencing_of(path: Path) -> tuple[object, ...]:
    with open_raster(path, (1,)) as dataset:
        return dataset.crs.to_wkt() if dataset.crs else None, tuple(dataset.transform), dataset.shape


@isolate
def _inspect_raster(path: Path, index: int) -> BandSample:
    with open_raster(path, (index,)) as dataset:
        tags = " ".join(f"{key}={value}" for key, value in dataset.tags().items())
        scale, offset, nodata = dataset.scales[index - 1], dataset.offsets[index - 1], dataset.nodatavals[index - 1]
        return BandSample(
            np.dtype(dataset.dtypes[index - 1]),
            dataset.shape,
            _tag_value(tags, "nodata", nodata),
            _tag_value(tags, "gain", scale) if scale == 1 else scale,
            _tag_value(tags, "offset", offset) if offset == 0 else offset,
            None if dataset.crs is None else _metres(dataset.crs) * abs(dataset.transform.determinant) ** 0.5,
        )


def _metres(crs: rasterio.crs.CRS) -> float:
    """The length of the CRS's unit, of degrees that at the equator."""
    return float(crs.linear_units_factor[1]) if crs.is_projected else 111_320.0


def _tag_value(tags: str, word: str, otherwise: Value) -> float | Value:
    """The number that a text tag gives for `word`, in the notation of weather services: name="Gain">0.5<."""
    match = re.search(rf'(?i)\b{word}\b"?\s*[>=:]\s*(-?\d+(?:\.\d+)?)', tags)
    return float(match.group(1)) if match and otherwise in (None, 0.0, 1.0) else otherwise


@isolate
def _image_sets(path: Path) -> tuple[list[str], _KnmiProduct | None]:
    """The data sets of at least 8 x 8 values, and what the KNMI layout states."""
    with open_hdf5(path) as file:
        return [name for name in hdf5_data_sets(file) if min(file[name].shape[-2:]) >= 8], _knmi_product(file)


def _hdf5_folder(path: Path, first: Path, dates: np.ndarray, lines: list[SourceLine]) -> DetectedFormat:
    sets, product = _image_sets(first)
    if not sets:
        raise RequestError(f"{first.name} holds no data set with at least 8 x 8 values; no config can be proposed")
    lines = [*lines, ("variable", sets[0], f"also there: {', '.join(sets[1:6])}" if len(sets) > 1 else "")]
    lines += _georeferencing_lines(first, sets[0], product)

    name = "rain" if product and product.is_rain else re.sub(r"[^A-Za-z0-9]+", "_", sets[0]).strip("_") or "b1"
    return DetectedFormat("folder", path, (name,), dates, lambda name: _inspect_hdf5(first, sets[0]), tuple(lines))


@dataclass(frozen=True)
class _KnmiProduct:
    crs: str
    transform: list[float]
    is_rain: bool


def _knmi_product(file: h5py.File) -> _KnmiProduct | None:
    """Georeferencing in the KNMI HDF5 layout (KNMI HDF5 Data Format Specification 3.5); None for other files.

    The layout states lengths in km, also those of the ellipsoid; they are converted to metres.
    """
    groups = [file.get(name) for name in ("geographic", "geographic/map_projection", "image1/calibration")]
    if any(group is None for group in groups):
        return None
    geographic, projection, _ = groups
    proj4 = text_attribute(projection, "projection_proj4_params")
    keys = ("geo_pixel_size_x", "geo_pixel_size_y", "geo_column_offset", "geo_row_offset")
    size_x, size_y, column, row = (float_attribute(geographic, key) or 0.0 for key in keys)
    return _KnmiProduct(
        crs=re.sub(r"\+([ab])=(\d+\.?\d*)", lambda m: f"+{m[1]}={float(m[2]) * 1000:.0f}", proj4),
        transform=[size_x * 1000, 0, column * size_x * 1000, 0, size_y * 1000, row * size_y * 1000],
        is_rain="PRECIPITATION" in text_attribute(file["image1"], "image_geo_parameter"),
    )


# ---------------------------------------------------------------- stacks


def _stack(path: Path, paths: list[str]) -> DetectedFormat | None:
    """Multi-band rasters and a text file with as many dates; None if there is no such pair."""
    for text in paths:
        is_text = Path(text).suffix.lower() in ("", ".txt", ".csv", ".dat") and (path / text).stat().st_size < 1 << 20
        dates, _ = (_or_none(read_dates, path / text) if is_text else None) or ((), ())
        if dates and len(dates) >= 3 and (files := _rasters_with(len(dates), path, paths)):
            return _detected_stack(path, text, dates, files)
    return None


def _detected_stack(path: Path, text: str, dates: Sequence[np.datetime64 | None], files: dict[str, str]) -> DetectedFormat:
    known = np.unique(np.array([date for date in dates if date is not None]))
    lines: tuple[SourceLine, ...] = (("path", str(path), ""), ("dates", text, f"{len(dates)} dates"), ("files", files, ""))
    middle = max(1, len(dates) // 2)
    return DetectedFormat("stack", path, tuple(files), known, lambda name: _inspect_raster(path / files[name], middle), lines)


def _rasters_with(bands: int, path: Path, paths: list[str]) -> dict[str, str]:
    """Rasters of so many bands by name, without a common prefix: sinop-crop-ndvi, sinop-crop-evi -> ndvi, evi."""
    files: dict[str, str] = {}
    for name in paths:
        if name.lower().endswith((".tif", ".tiff")) and _or_none(_count_bands, path / name) == bands:
            files[_as_name(Path(name).stem) or f"b{len(files)}"] = name
    parts = [re.split(r"[_-]", name) for name in files]
    last = [part[-1] for part in parts]
    has_common_head = len(files) > 1 and len({tuple(part[:-1]) for part in parts}) == 1
    is_name = all(re.match(r"[A-Za-z0-9]", name) for name in last)
    return dict(zip(last, files.values(), strict=True)) if has_common_head and is_name else files


@isolate
def _count_bands(path: Path) -> int:
    with open_raster(path, (1,)) as dataset:
        return int(dataset.count)
