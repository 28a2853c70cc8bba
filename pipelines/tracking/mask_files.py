"""Masks per date from GeoTIFF or PNG files of one grid, or from what a monitor run left."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipelines.calendar import from_days
from pipelines.errors import MissingInput, RequestError
from pipelines.grid import Grid, parse_crs
from pipelines.sources.dates import find_dates, parse_date
from pipelines.sources.file_names import FilePattern
from pipelines.sources.isolation import isolate
from pipelines.sources.opening import open_raster
from pipelines.sources.pictures import read_codes

if TYPE_CHECKING:  # with scipy, which takes more memory than a worker may have
    from pipelines.tracking.tracks import When

SUFFIXES = (".tif", ".tiff", ".jp2", ".png")
NOT_SEEN = 255  # driftline's own masks and labels
MANY_CODES = 20  # more of them are an image unless most neighbours share a code, as the pixels of objects do


@dataclass(frozen=True)
class MaskFile:
    """A mask of one date (UTC), or of the frame with this number."""

    path: Path
    date: When

    @property
    def is_picture(self) -> bool:
        """True for a format that has no position."""
        return self.path.suffix.lower() == ".png"


@dataclass(frozen=True)
class MonitorMasks:
    """The dates of change, recovery and last acquisition of a monitor run: at each, what had changed and not recovered."""

    folder: Path

    def layer(self, name: str = "change_date") -> Path:
        return self.folder / "products" / f"{name}.tif"


@dataclass(frozen=True)
class DatedMask:
    """`mask_YX`: bool, or integer codes of objects where a file holds more than one; `seen_YX`: bool, None: all of it.

    `date`: a number where no date is known.
    """

    date: When
    mask_YX: np.ndarray
    seen_YX: np.ndarray | None
    source: str


def find_masks(paths: Sequence[Path], pattern: str | None = None) -> list[MaskFile] | MonitorMasks:
    """What `paths` (files, a folder of masks, or the folder of a monitor run) name, oldest first.

    `pattern` is matched against the path below the folder (or the file's name), such as `*_{date:%Y%m%d}.tif`; without one, the
    date is the first that stands in the file's name. `{frame}` in place of a date: the number of the frame.

    Raises MissingInput, RequestError (no date, one twice, fewer than two).
    """
    if len(paths) == 1 and MonitorMasks(paths[0]).layer().is_file() and pattern is None:
        return MonitorMasks(paths[0])
    files: list[MaskFile] = []
    place = f"that fits {pattern!r}" if pattern else "in its name"
    for path, name, is_named in _candidates(paths):
        date = _date_of(name, pattern)
        if date is not None:
            files.append(MaskFile(path, date))
        elif is_named:
            raise RequestError(f"{path.name} has no date {place}; say where it stands: --pattern '*_{{date:%Y%m%d}}.tif'")
    if len(files) < 2:
        found = f"only one mask ({files[0].path.name}) with a date" if files else "no mask with a date"
        raise RequestError(
            f"{', '.join(map(str, paths[:3]))}: {found} {place}; objects are followed through two dates or more. Name a folder "
            "of masks, two or more files, or a monitor run; --pattern '*_{date:%Y%m%d}.tif' says where the date stands"
        )
    files.sort(key=lambda file: (file.date, str(file.path)))
    for one, other in pairwise(files):
        if one.date == other.date:
            of = one.date.astype("datetime64[s]") if isinstance(one.date, np.datetime64) else f"frame {one.date:g}"
            raise RequestError(
                f"{one.path.name} and {other.path.name} are both of {of}; "
                "give one mask per date, or a --pattern that fits only one of them"
            )
    return files


def _candidates(paths: Sequence[Path]) -> Iterator[tuple[Path, str, bool]]:
    """(file, path below the named folder, whether the file itself was named)."""
    for path in paths:
        if path.is_dir():
            for file in sorted(path.rglob("*")):
                if file.suffix.lower() in SUFFIXES and file.is_file():
                    yield file, file.relative_to(path).as_posix(), False
        elif path.exists():
            yield path, path.name, True
        else:
            raise MissingInput(f"no such file or folder: {path}")


def _date_of(name: str, pattern: str | None) -> When | None:
    if pattern is not None and "{frame}" in pattern:
        numbered = FilePattern(pattern.replace("{frame}", "{step}"), ("step",)).match(name)
        return float(numbered.step) if numbered and numbered.step.isdigit() else None
    if pattern is not None:
        fields = FilePattern(pattern)
        if not fields.date_format:
            raise RequestError(
                f"the pattern {pattern!r} has no date; write {{date:%Y%m%d}} where the date stands, or {{frame}} for a number"
            )
        named = fields.match(name)
        return parse_date(named.date_text, fields.date_format) if named else None
    base = name.rsplit("/", 1)[-1]
    dates = find_dates(base)
    return parse_date(base[dates[0][1]], dates[0][0]) if dates else None


def grid_of(masks: list[MaskFile] | MonitorMasks) -> Grid:
    """The grid of all masks. Raises RequestError where one lies elsewhere, or is not georeferenced."""
    first, *rest = [file.path for file in masks] if isinstance(masks, list) else [masks.layer()]
    expected = _grid(first)
    for path in rest:
        grid = _grid(path)
        if not expected.is_aligned(grid):
            raise RequestError(
                f"{path.name} is {_describe(grid)}, {first.name} is {_describe(expected)}; "
                "bring all masks onto one grid first (gdalwarp -r near ...)"
            )
    return expected


def check_shapes(masks: list[MaskFile] | MonitorMasks) -> None:
    """Raises RequestError where frames differ in rows or columns, or are georeferenced: those are measured on the ellipsoid."""
    if isinstance(masks, MonitorMasks):
        raise RequestError(f"{masks.folder} is a run on a map, and its sizes are in m²: leave --spacing-mm out")
    shapes = {}
    for file in masks:
        shapes[file.path.name], has_crs = _shape(file.path)
        if has_crs:
            raise RequestError(
                f"{file.path.name} has a CRS and a place on Earth, so its sizes are in m²: leave --spacing-mm out (or, where "
                "that CRS is a mistake, write the mask out without it)"
            )
    (first, expected), *rest = shapes.items()
    for name, shape in rest:
        if shape != expected:
            sizes = f"{name} is {shape[0]} x {shape[1]} px, {first} {expected[0]} x {expected[1]}"
            raise RequestError(f"{sizes}; cut them alike first")


def are_pictures(masks: list[MaskFile] | MonitorMasks) -> bool:
    """True if no mask can have a position on Earth."""
    return isinstance(masks, list) and all(file.is_picture for file in masks)


@isolate
def _shape(path: Path) -> tuple[tuple[int, int], bool]:
    """(rows and columns, whether it has a CRS)."""
    if path.suffix.lower() == ".png":
        return read_codes(path)[0].shape, False
    with open_raster(path) as raster:
        return raster.shape, raster.crs is not None


@isolate
def _grid(path: Path) -> Grid:
    if path.suffix.lower() == ".png":
        raise RequestError(f"{path.name} has no position on Earth, other masks have: give masks of one kind")
    with open_raster(path) as raster:
        if raster.crs is None:
            raise RequestError(
                f"{path.name} has no CRS, so its objects have no place and no size in m²; set it first (gdal_edit.py -a_srs ...) "
                "or give the size of a pixel: --spacing-mm 0.5,0.5"
            )
        return Grid.from_affine(raster.crs.to_wkt(), raster.transform, raster.shape)


def _describe(grid: Grid) -> str:
    epsg, (rows, columns), corner = parse_crs(grid.crs).to_epsg(), grid.shape_yx, (grid.transform[2], grid.transform[5])
    start, name = f"({corner[0]:.10g}, {corner[1]:.10g})", f"EPSG:{epsg}" if epsg else "another CRS"
    return f"{rows} x {columns} px from {start} of {grid.resolution_xy[0]:g} in {name}"


def read_masks(masks: list[MaskFile] | MonitorMasks, code: int | None = None) -> Iterator[DatedMask]:
    """The masks, oldest first, one in memory at a time.

    What counts as an object: every code but 0 and nodata; with `code`, that one. Not seen: NaN, nodata (unless that is 0), and
    255 in uint8 files without nodata if a file of the series holds 1. Raises RequestError for an image that is no mask.
    """
    if isinstance(masks, MonitorMasks):
        yield from _monitor_masks(masks)
        return
    codes: set[int] = set()
    for file in masks:
        values, seen, _ = _read_codes(file.path, code)
        codes |= set(np.unique(values[seen]).tolist())
    is_hiding = {1, NOT_SEEN} <= codes
    has_objects = len(codes - {0} - ({NOT_SEEN} if is_hiding else set())) > 1
    for file in masks:
        values, seen, may_hide = _read_codes(file.path, code)
        if is_hiding and may_hide:
            seen &= values != NOT_SEEN
            values[~seen] = 0
        plain = values if has_objects else values != 0
        yield DatedMask(file.date, plain if code is None else values == code, None if seen.all() else seen, file.path.name)


@isolate
def _read_codes(path: Path, code: int | None) -> tuple[np.ndarray, np.ndarray, bool]:
    """(int64 codes, 0 where not seen; seen; whether 255 may stand for not seen). Raises RequestError: the values are no codes.

    With a `code` any whole numbers are."""
    if path.suffix.lower() == ".png":
        codes, nodata = read_codes(path)[0], None
        return _checked_codes(path, codes, nodata, code)
    with open_raster(path, (1,)) as raster:
        if raster.count > 1:
            raise RequestError(f"{path.name} has {raster.count} bands: a mask has one; write it out (gdal_translate -b 1 ...)")
        values, nodata = raster.read(1), raster.nodata
    return _checked_codes(path, values, nodata, code)


def _checked_codes(path: Path, values: np.ndarray, nodata: float | None, code: int | None) -> tuple[np.ndarray, np.ndarray, bool]:
    seen = np.isfinite(values)
    if nodata is not None and not np.isnan(nodata) and nodata != 0:  # a mask whose nodata is 0 calls its background so
        seen &= values != nodata
    found = np.unique(values[seen])
    is_whole = bool(((found == np.round(found)) & (np.abs(found.astype(np.float64)) < 2**53)).all())
    if not is_whole or (code is None and found.size > MANY_CODES and not _has_objects(np.where(seen, values, 0))):
        span = f"{found.size} different values from {found[0]:g} to {found[-1]:g}"
        raise RequestError(
            f"{path.name} holds {span}: that is an image, not a mask; compare it with a threshold first "
            f"(gdal_calc.py -A {path.name} --calc='A>0.5' ...), or pick one value: --code K"
        )
    return np.where(seen, values, 0).astype(np.int64), seen, values.dtype == np.uint8 and nodata is None


def _has_objects(code_YX: np.ndarray) -> bool:
    """Whether most pixels have the code of their neighbour to the right, where both have one."""
    left, right = code_YX[:, :-1], code_YX[:, 1:]
    pairs = (left != 0) & (right != 0)
    return not pairs.any() or bool((left == right)[pairs].mean() > 0.4)


def _monitor_masks(run: MonitorMasks) -> Iterator[DatedMask]:
    """At each date of change or recovery and at the last acquisition: what had changed by then and had not recovered. Raises
    RequestError where nothing ever changed."""
    changed_day = _days(run.layer())
    recovered_day = _days(run.layer("recovered_date")) if run.layer("recovered_date").is_file() else np.inf
    seen = np.isfinite(changed_day)
    if run.layer("status").is_file():
        seen = _values(run.layer("status"))[0] != 0
    days = np.unique(changed_day[np.isfinite(changed_day)])
    if days.size == 0:
        raise RequestError(f"{run.folder}: nothing has changed in this run so far, so there is nothing to follow")
    # one date before the first change, so that the first patch is new and not merely there
    days = np.concatenate([[days[0] - 1], days, np.ravel(recovered_day), _last_acquisition(run.layer())])
    days = np.unique(days[np.isfinite(days)])
    for day, date in zip(days, from_days(days), strict=True):
        mask = (changed_day <= day) & (recovered_day > day)
        yield DatedMask(date, mask, None if seen.all() else seen, f"{run.folder.name} {day:g}")


@isolate
def _last_acquisition(path: Path) -> list[float]:
    """[whole days since 1970-01-01 of the last monitored date], as the file's tags say; [] if they do not."""
    with open_raster(path, (1,)) as raster:
        acquired = raster.tags().get("DRIFTLINE_ISSUED_UTC", "")
    return [float(np.datetime64(acquired[:10], "D").astype(np.int64))] if acquired else []


@isolate
def _values(path: Path) -> tuple[np.ndarray, float | None]:
    with open_raster(path, (1,)) as raster:
        return raster.read(1), raster.nodata


def _days(path: Path) -> np.ndarray:
    """Days since 1970-01-01 float64, inf where there is none."""
    values, nodata = _values(path)
    return np.where(values != nodata, values, np.inf).astype(np.float64)
