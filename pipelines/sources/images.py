"""A file or a folder as one image, its bands by name."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
from pyproj import CRS
from rasterio.enums import ColorInterp

from pipelines.errors import MissingInput, RequestError, SceneRefused
from pipelines.grid import Grid
from pipelines.scene import Band
from pipelines.sources.dates import find_dates, parse_date
from pipelines.sources.facts import FileFacts
from pipelines.sources.file_names import KNOWN_BAND, show_some
from pipelines.sources.isolation import isolate
from pipelines.sources.layers import BandRequest, RasterLayer, alpha_of, open_raster_layer
from pipelines.sources.opening import band_descriptions, check_inside, open_raster

SUFFIXES = (".tif", ".tiff", ".jp2", ".j2k")
NO_MEASUREMENT = re.compile(r"SCL|QA_PIXEL|BQA|CLD\w*|MSK\w*|TCI\d?|AOT|WVP", re.IGNORECASE)  # codes, composites, atmosphere
COLOURS = {ColorInterp.red: "red", ColorInterp.green: "green", ColorInterp.blue: "blue"}
POSITION = "write it into the file, e.g. gdal_edit -a_srs EPSG:32635 -a_ullr LEFT TOP RIGHT BOTTOM"


@dataclass(frozen=True)
class ImageBand:
    """Where a band lies, what its file states (`facts`), and what masks it: the band `alpha` (1-based), the file `mask_path`."""

    path: str
    index: int
    grid: Grid
    facts: FileFacts
    alpha: int | None = None
    mask_path: str = ""

    @contextmanager
    def open(self, label: str) -> Iterator[RasterLayer]:
        """The band, open for reading. Raises SceneRefused."""
        with open_raster(self.path, (self.index,), label) as dataset, open_mask(self.mask_path, label) as mask_file:
            yield open_raster_layer(dataset, self.index, BandRequest(()), "", label, self.alpha, mask_file)


@dataclass(frozen=True)
class Image:
    """The bands of a file or folder by name. `is_numbered`: the files name no bands, so these are the numbers 1, 2, ...

    `left_out`: bands that are no measurements. `date`: from the name; None if it holds none. `is_coloured`: nothing but their
    colour interpretation names the bands.
    """

    path: Path
    bands: Mapping[str, ImageBand]
    date: np.datetime64 | None = None
    left_out: tuple[str, ...] = ()
    is_numbered: bool = False
    is_coloured: bool = False

    @property
    def grid(self) -> Grid:
        """The grid of the finest band."""
        return min((band.grid for band in self.bands.values()), key=lambda grid: grid.pixel_size)


def read_image(path: Path, nodata: float | None = None) -> Image:
    """What the file, or the files directly in the folder, state. `nodata`: missing too, beside what they state.

    Raises MissingInput (nothing there, no raster in the folder), RequestError (unreadable, without a position, a band twice,
    files of several dates).
    """
    files, bands, origin = image_files(path), dict[str, ImageBand](), dict[str, tuple[str, str]]()
    names = band_names([file.stem for file in files])
    for file, name in zip(files, names, strict=True):
        try:
            if path.is_dir():  # a link that is named itself is followed
                check_inside(path, file, file.name)
            found = read_bands(file, name, nodata)
        except SceneRefused as e:
            raise RequestError(f"{file}: {e.detail}") from e
        for band, about in found:
            if canonical(band) in origin:
                other = origin[canonical(band)]
                twice = f"bands {bands[other[1]].index} and {about.index} of {file.name}"
                both = twice if other[0] == file.name else f"{other[0]} and {file.name}"
                remedy = "an image holds each band once: name the files of one date, or a folder that holds no others"
                if len(files) == 1:
                    remedy = "an image holds each band once: correct the descriptions of the bands"
                raise RequestError(f"{path}: {both} both hold band {band}; {remedy}")
            origin[canonical(band)], bands[band] = (file.name, band), about
    left_out = tuple(band for band in bands if NO_MEASUREMENT.fullmatch(band))
    kept = {band: about for band, about in bands.items() if band not in left_out}
    if not kept:
        raise RequestError(f"{path} holds {', '.join(left_out)} only, which are no measurements to compare")
    is_numbered = set(kept) == set(map(str, range(1, len(kept) + 1)))
    is_described = any(about.facts.description for about in kept.values())
    is_coloured = len(files) == 1 and set(COLOURS.values()) <= set(kept) and not is_described
    return Image(path, kept, date_of(path, files), left_out, is_numbered, is_coloured)


def image_files(path: Path) -> list[Path]:
    """The file, or the rasters directly in the folder, sorted. Raises MissingInput."""
    if not path.exists():
        near = path.parent if path.parent.is_dir() else None
        there = "" if near is None else f"; in {near} there are: {show_some(sorted(one.name for one in near.iterdir()), 5)}"
        raise MissingInput(f"no file or folder at {path}{there}")
    if path.is_file():
        return [path]
    files = sorted(one for one in path.iterdir() if one.suffix.lower() in SUFFIXES and not one.name.startswith("."))
    if not files:
        below = next((one.parent for one in sorted(path.rglob("*")) if one.suffix.lower() in SUFFIXES), None)
        remedy = "name a GeoTIFF or JPEG2000 file, or a folder with one per band" if below is None else f"did you mean {below}?"
        raise MissingInput(f"{path} holds no GeoTIFF or JPEG2000 file; {remedy}")
    return files


def band_names(stems: Sequence[str]) -> list[str]:
    """The band in each file name: the last word that is a known band, else what distinguishes the names; "" of a lone file.

    >>> band_names(["S2_20180605_B04", "S2_20180605_B8A"]), band_names(["site_red", "site_thermal"]), band_names(["before"])
    (['B04', 'B8A'], ['red', 'thermal'], [''])
    """
    words = [re.split(r"[_\-. ]+", stem) for stem in stems]
    known = [next((word for word in reversed(one) if KNOWN_BAND.fullmatch(word)), "") for one in words]
    shortest = min(map(len, words))
    start = next((n for n in range(shortest) if len({one[n] for one in words}) > 1), shortest)
    stop = next((n for n in range(shortest - start) if len({one[-1 - n] for one in words}) > 1), shortest - start)
    different = ["_".join(one[start : len(one) - stop]) for one in words]
    return [band or rest for band, rest in zip(known, different, strict=True)]


@isolate
def read_bands(file: Path, name: str, nodata: float | None) -> list[tuple[str, ImageBand]]:
    """(name, band) of a file, without its alpha band: its description, else `name`, else its colour, else its number.

    Raises SceneRefused, RequestError (no position on Earth, colours of a palette).
    """
    mask = Path(f"{file}.msk")
    mask_path = str(mask) if mask.is_file() else ""
    with open_raster(file) as dataset, open_mask(mask_path, file.name) as mask_file:
        alpha = alpha_of(dataset)
        indexes, kinds = [n for n in dataset.indexes if n != alpha], dataset.colorinterp
        if ColorInterp.palette in kinds:
            remedy = "values of a palette are no measurements; compare the original, or gdal_translate -expand rgb"
            raise RequestError(f"{file} holds numbers of colours in a palette; {remedy}")
        bands = []
        for n in indexes:
            layer = open_layer(file, dataset, n, alpha, mask_file)
            own = band_descriptions(dataset)[n - 1].strip()
            numbered = f"{name}{n}" if name and len(indexes) > 1 else name or COLOURS.get(kinds[n - 1], str(n))
            facts = dataclasses.replace(layer.facts.with_request(Band("", nodata=nodata)), description=own)
            bands.append((own or numbered, ImageBand(str(file), n, layer.grid, facts, alpha, mask_path)))
        return bands


def open_layer(
    file: Path, dataset: rasterio.DatasetReader, index: int, alpha: int | None, mask_file: rasterio.DatasetReader | None
) -> RasterLayer:
    """Raises RequestError (no position on Earth), SceneRefused (a mask of another size)."""
    try:
        layer = open_raster_layer(dataset, index, BandRequest(()), "", file.name, alpha, mask_file)
    except SceneRefused as e:
        if dataset.crs and (e.reason == "wrong-crs" or mask_file is not None):
            raise SceneRefused(e.scene_id, e.reason, e.detail.replace("; set source.crs to the CRS that they are in", "")) from e
        raise RequestError(f"{file} {'has no position on Earth' if dataset.crs else 'has no CRS'}; {POSITION}") from e
    if CRS.from_user_input(layer.grid.crs).get_geod() is None:
        raise RequestError(f"the CRS of {file} is of no place on Earth ({layer.grid.crs[:60]}); {POSITION}")
    return layer


@contextmanager
def open_mask(path: str, label: str) -> Iterator[rasterio.DatasetReader | None]:
    """The mask beside a raster, None for ""."""
    with ExitStack() as stack:
        yield stack.enter_context(open_raster(path, None, label)) if path else None


def date_of(path: Path, files: Sequence[Path]) -> np.datetime64 | None:
    """The first date in the name of the folder or of the files; None if there is none. Raises RequestError for several."""
    of_files = {file.name: date for file in files if (date := first_date(file.name)) is not None}
    by_day = {str(date)[:10]: name for name, date in of_files.items()}
    if len(by_day) > 1:
        shown = show_some([f"{day} ({name})" for day, name in sorted(by_day.items())], 5)
        raise RequestError(f"the names in {path} hold different dates: {shown}; name a folder that holds the files of one date")
    return first_date(path.name) or next(iter(of_files.values()), None)


def first_date(text: str) -> np.datetime64 | None:
    return next((parse_date(text[place], form) for form, place in find_dates(text)), None)


def canonical(band: str) -> str:
    """B4, b4 and B04 are one band."""
    return re.sub(r"(?<=[a-z])0+(?=\d)", "", band.casefold())
