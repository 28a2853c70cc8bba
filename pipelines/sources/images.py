"""A file or a folder as one image, its bands by name; and two images as a source of two scenes.

What two images of one place state of their values (dtype, nodata, scale, offset, unit) may differ, so both are read as physical
values, float32, NaN where a pixel is missing: nodata, not finite, or masked by the file's own mask or alpha band.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.windows import Window

from pipelines.errors import MissingInput, RequestError, SceneRefused
from pipelines.grid import Grid
from pipelines.scene import Asset, Band, Scene
from pipelines.sources.dates import find_dates, parse_date
from pipelines.sources.file_names import KNOWN_BAND, show_some
from pipelines.sources.layers import BandRequest, open_raster_layer
from pipelines.sources.opening import check_inside, open_raster
from pipelines.sources.resampling import overlaps, resample
from pipelines.sources.source import Listing, Resampling

SUFFIXES = (".tif", ".tiff", ".jp2", ".j2k")
NO_MEASUREMENT = re.compile(r"SCL|QA_PIXEL|BQA|CLD\w*|MSK\w*|TCI|AOT|WVP", re.IGNORECASE)  # codes, composites, atmosphere
FEWEST_BANDS = 3  # that are compared, where there are so many
UNKNOWN_DATES = (np.datetime64("1970-01-01", "ns"), np.datetime64("1970-01-02", "ns"))  # of images without a date

# ---------------------------------------------------------------- one image


@dataclass(frozen=True)
class ImageBand:
    """Where a band lies, and what its file states. Physical value = stored value * scale + offset."""

    path: str
    index: int
    grid: Grid
    dtype: str
    nodata: float | None = None
    scale: float = 1.0
    offset: float = 0.0
    unit: str = ""
    is_masked: bool = False  # by a mask or an alpha band in the file


@dataclass(frozen=True)
class Image:
    """The bands of a file or folder by name. `is_numbered`: the files name no bands, so these are the numbers 1, 2, ...

    `left_out`: bands that are no measurements. `date`: from the name; None if it holds none.
    """

    path: Path
    bands: Mapping[str, ImageBand]
    date: np.datetime64 | None = None
    left_out: tuple[str, ...] = ()
    is_numbered: bool = False

    @property
    def grid(self) -> Grid:
        """The grid of the finest band."""
        return min((band.grid for band in self.bands.values()), key=lambda grid: grid.pixel_size)


def read_image(path: Path, nodata: float | None = None) -> Image:
    """What the file, or the files directly in the folder, state. `nodata`: in place of what they state.

    Raises MissingInput (nothing there, no raster in the folder), RequestError (unreadable, without a position, a band twice).
    """
    files, bands, origin = image_files(path), dict[str, ImageBand](), dict[str, str]()
    names = band_names([file.stem for file in files])
    for file, name in zip(files, names, strict=True):
        try:
            check_inside(path if path.is_dir() else path.parent, file, file.name)
            found = dict(read_bands(file, name, nodata))
        except SceneRefused as e:
            raise RequestError(f"{file}: {e.detail}") from e
        for band, about in found.items():
            if canonical(band) in origin:
                other = origin[canonical(band)]
                remedy = "an image holds each band once: name the files of one date, or a folder that holds no others"
                raise RequestError(f"{path}: {other} and {file.name} both hold band {band}; {remedy}")
            origin[canonical(band)], bands[band] = file.name, about
    left_out = tuple(band for band in bands if NO_MEASUREMENT.fullmatch(band))
    kept = {band: about for band, about in bands.items() if band not in left_out}
    if not kept:
        raise RequestError(f"{path} holds {', '.join(left_out)} only, which are no measurements to compare")
    is_numbered = set(kept) == set(map(str, range(1, len(kept) + 1)))
    return Image(path, kept, date_of(path, files), left_out, is_numbered)


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


def read_bands(file: Path, name: str, nodata: float | None) -> Iterator[tuple[str, ImageBand]]:
    """(name, band) of a file, without alpha bands: its description, else `name`, with a number where there are several.

    Raises SceneRefused, RequestError (no position on Earth).
    """
    with open_raster(file) as dataset:
        alpha = [n for n in dataset.indexes if dataset.colorinterp[n - 1] == ColorInterp.alpha]
        indexes = [n for n in dataset.indexes if n not in alpha]
        try:
            layers = {n: open_raster_layer(dataset, n, BandRequest(()), name, file.name) for n in indexes}
        except SceneRefused as e:
            problem = "has no CRS" if e.reason == "wrong-crs" else "has no position on Earth"
            remedy = "write it into the file, e.g. gdal_edit -a_srs EPSG:32635 -a_ullr LEFT TOP RIGHT BOTTOM"
            raise RequestError(f"{file} {problem}; {remedy}") from e
        with rasterio.open(file, driver=dataset.driver, sharing=False) as whole:  # OVERVIEW_LEVEL hides descriptions
            descriptions = whole.descriptions
        for n, layer in layers.items():
            own = (descriptions[n - 1] or "").strip()
            numbered = f"{name}{n}" if name and len(indexes) > 1 else name or str(n)
            is_masked = bool(alpha) or MaskFlags.per_dataset in dataset.mask_flag_enums[n - 1]
            stated = layer.nodata if nodata is None else nodata
            unit = (dataset.units[n - 1] or "").strip()
            yield (
                own or numbered,
                ImageBand(str(file), n, layer.grid, layer.dtype.name, stated, *layer.scale_offset, unit, is_masked),
            )


def date_of(path: Path, files: Sequence[Path]) -> np.datetime64 | None:
    """The first date in the name of the folder or of the first file; None if there is none."""
    for text in dict.fromkeys([path.name, files[0].name]):
        for form, place in find_dates(text):
            return parse_date(text[place], form)
    return None


def canonical(band: str) -> str:
    """B4, b4 and B04 are one band."""
    return re.sub(r"(?<=[a-z])0+(?=\d)", "", band.casefold())


# ---------------------------------------------------------------- two images


@dataclass(frozen=True)
class PairSource:
    """Two scenes, on the grid of the finest compared band of `before`. `names`: the compared bands, as they are called there.

    `notes`: what a reader must know of the comparison. It implements `pipelines.sources.source.Source`.
    """

    before: Image
    after: Image
    names: tuple[str, ...]
    dates: tuple[np.datetime64, np.datetime64]
    notes: tuple[str, ...] = ()

    @property
    def bands(self) -> tuple[Band, ...]:
        return tuple(Band(name, unit=band.unit) for name, band in zip(self.names, self._of(self.before), strict=True))

    def dtype(self) -> np.dtype:
        return np.dtype("float32")

    def native_grid(self) -> Grid:
        return min((band.grid for band in self._of(self.before)), key=lambda grid: grid.pixel_size)

    @property
    def is_dated(self) -> bool:
        """False where nobody knows when the images were taken."""
        return self.dates != UNKNOWN_DATES

    def list_scenes(self) -> Listing:
        scenes = []
        for word, image, date in zip(("before", "after"), (self.before, self.after), self.dates, strict=True):
            files = zip(self.names, self._of(image), strict=True)
            scenes.append(Scene(f"{word}/{image.path.name}", date, {name: Asset(b.path, "", b.index) for name, b in files}))
        return Listing(scenes)

    def grid_of(self, scene: Scene, name: str) -> Grid:
        return self._band(scene, name).grid

    def read(
        self, scene: Scene, grid: Grid, names: tuple[str, ...], resampling: Resampling, rows: slice | None = None
    ) -> np.ndarray:
        """(names, rows, x) as `Source.read` specifies, physical values."""
        rows = slice(*(rows or slice(None)).indices(grid.shape_yx[0]))
        planes = []
        for name in names:
            band = self._band(scene, name)
            with open_raster(band.path, (band.index,), scene.id) as dataset:
                planes.append(resample(PhysicalLayer(dataset, band), grid, rows, np.nan, np.nan, resampling))
        return np.stack(planes)

    def _band(self, scene: Scene, name: str) -> ImageBand:
        image = self.before if scene.id.startswith("before/") else self.after
        return self._of(image)[self.names.index(name)]

    def _of(self, image: Image) -> list[ImageBand]:
        by_name = {canonical(name): band for name, band in image.bands.items()}
        return [by_name[canonical(name)] for name in self.names]


@dataclass(frozen=True)
class PhysicalLayer:
    """A band as physical values (`pipelines.sources.layers.Layer`): float32, NaN where missing."""

    dataset: rasterio.DatasetReader
    band: ImageBand

    @property
    def grid(self) -> Grid:
        return self.band.grid

    @property
    def dtype(self) -> np.dtype:
        return np.dtype("float32")

    @property
    def nodata(self) -> float:
        return float("nan")

    @property
    def scale_offset(self) -> tuple[float, float]:
        return 1.0, 0.0

    def window(self, rows: slice, columns: slice) -> np.ndarray:
        window, band = Window(columns.start, rows.start, columns.stop - columns.start, rows.stop - rows.start), self.band
        stored = self.dataset.read(band.index, window=window)
        is_missing = ~np.isfinite(stored)
        if band.nodata is not None:
            is_missing |= stored == band.nodata
        if band.is_masked:
            is_missing |= self.dataset.read_masks(band.index, window=window) == 0
        values = np.where(is_missing, np.nan, stored) * band.scale + band.offset
        return values.astype(np.float32)


def pair_images(
    before: Image, after: Image, wanted: Sequence[str] | None = None, dates: Sequence[np.datetime64] | None = None
) -> PairSource:
    """The source of both images. `wanted`: the bands to compare, in this order; default: all that both have.

    Raises RequestError: no band in common or one of `wanted` missing, other units, no overlap, AFTER before BEFORE.
    """
    names, notes = common_bands(before, after, wanted)
    if not overlaps(after.grid, before.grid):
        raise RequestError(
            f"{before.path} and {after.path} do not overlap: they lie at {_outline(before.grid)} and {_outline(after.grid)}; "
            "name two images of one place"
        )
    chosen, text = choose_dates(before, after, dates)
    source = PairSource(before, after, names, chosen)
    notes = [*notes, *compare_values(source), *compare_grids(source), *text]
    return PairSource(before, after, names, chosen, tuple(notes))


def common_bands(before: Image, after: Image, wanted: Sequence[str] | None) -> tuple[tuple[str, ...], list[str]]:
    """(the bands to compare, what is left out)."""
    images = {"BEFORE": before, "AFTER": after}
    there = "; ".join(f"{word} ({one.path}) has {', '.join(one.bands)}" for word, one in images.items())
    known = {word: {canonical(name) for name in one.bands} for word, one in images.items()}
    if before.is_numbered and after.is_numbered and len(before.bands) != len(after.bands):
        remedy = "give the bands names (descriptions) in the files"
        raise RequestError(f"the files name no bands, and their numbers differ, so they cannot be matched: {there}; {remedy}")
    if wanted is not None:
        for word, has in known.items():
            if missing := [name for name in wanted if canonical(name) not in has]:
                raise RequestError(f"{word} lacks {', '.join(missing)}: {there}")
    both = {name: band.grid.pixel_size for name, band in before.bands.items() if canonical(name) in known["AFTER"]}
    if not both:
        raise RequestError(f"no band is in both images: {there}; bands are matched by their descriptions or file names")
    names = tuple(wanted or finest_bands(both))
    used, notes = {canonical(name) for name in names}, []
    if coarser := [name for name in both if canonical(name) not in used and wanted is None]:
        notes.append(f"only bands of the finest pixels are compared; --bands adds coarser ones: {', '.join(coarser)}")
    if before.is_numbered and after.is_numbered:
        notes.append("the files name no bands: they are matched by their numbers")
    for word, one in images.items():
        if rest := [*(name for name in one.bands if canonical(name) not in used), *one.left_out]:
            notes.append(f"not compared, of {word}: {', '.join(rest)}")
    return names, notes


def finest_bands(pixel_sizes: Mapping[str, float]) -> list[str]:
    """The bands of the finest pixel size that `FEWEST_BANDS` of them reach; all where it takes all.

    A coarser band, resampled, blurs the change and weighs as much as a fine one; a lone panchromatic band sees too little.

    >>> finest_bands({"B01": 60, "B02": 10, "B03": 10, "B04": 10, "B11": 20}), finest_bands({"B8": 15, "B4": 30, "B5": 30})
    (['B02', 'B03', 'B04'], ['B8', 'B4', 'B5'])
    """
    sizes = sorted(pixel_sizes.values())
    largest = sizes[min(FEWEST_BANDS, len(sizes)) - 1] * 1.01
    return [name for name, size in pixel_sizes.items() if size <= largest]


def compare_values(source: PairSource) -> list[str]:
    """How the stored values of both images differ. Raises RequestError for other units, which nothing here converts."""
    notes: dict[str, list[str]] = {}
    for name, one, other in zip(source.names, source._of(source.before), source._of(source.after), strict=True):
        if one.unit and other.unit and one.unit != other.unit:
            remedy = "convert one of them, or compare other bands with --bands"
            raise RequestError(f"band {name} is in {one.unit} in {one.path} and in {other.unit} in {other.path}; {remedy}")
        stated = [(f"scale {b.scale:g}, offset {b.offset:g}", f"stored as {b.dtype}") for b in (one, other)]
        for first, then in zip(*stated, strict=True):
            if first != then:
                what = "physical values are compared" if first.startswith("scale") else "each date is normalised by itself"
                notes.setdefault(f"{first} in BEFORE, {then} in AFTER: {what}", []).append(name)
    return [f"{', '.join(names)}: {text}" for text, names in notes.items()]


def compare_grids(source: PairSource) -> list[str]:
    """Which bands are resampled onto the grid of the finest one of BEFORE."""
    grid, notes = source.native_grid(), []
    for word, image in (("BEFORE", source.before), ("AFTER", source.after)):
        other: dict[str, list[str]] = {}
        for name, band in zip(source.names, source._of(image), strict=True):
            if not band.grid.is_aligned(grid):
                other.setdefault(_outline(band.grid), []).append(name)
        notes += [f"{word}: {', '.join(names)} resampled (bilinear) from {text}" for text, names in other.items()]
    return [*notes, f"the grid is that of BEFORE's finest band: {_outline(grid)}"] if notes else []


def choose_dates(
    before: Image, after: Image, dates: Sequence[np.datetime64] | None
) -> tuple[tuple[np.datetime64, np.datetime64], list[str]]:
    """(both dates, what is to be said of them): those given, else those in the names, else UNKNOWN_DATES."""
    if dates is not None:
        first, last = dates
    elif before.date is None or after.date is None or before.date == after.date:
        remedy = "--dates BEFORE,AFTER states them"
        return UNKNOWN_DATES, [f"the names do not date the images, so rasters and STAC carry 1970-01-01 and 1970-01-02; {remedy}"]
    else:
        first, last = before.date, after.date
    if first >= last:
        days = [str(day)[:10] for day in (first, last)]
        remedy = "change their order, or state the dates with --dates BEFORE,AFTER"
        raise RequestError(f"BEFORE ({before.path}) is of {days[0]}, AFTER ({after.path}) of {days[1]}; {remedy}")
    text = "the dates are those in the names, which may be of processing; --dates BEFORE,AFTER states others"
    return (first, last), [] if dates is not None else [text]


def _outline(grid: Grid) -> str:
    shape, bounds = " x ".join(map(str, grid.shape_yx)), ", ".join(f"{edge:.7g}" for edge in grid.bounds_xy)
    return f"{shape} pixels of {grid.resolution_xy[0]:.6g} in {grid.crs[:40]} ({bounds})"
