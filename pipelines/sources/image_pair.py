"""Two images of one place as a source of two scenes.

What both state of their values (dtype, nodata, scale, offset, unit) may differ, so both are read as physical values, float32,
NaN where a pixel is missing: nodata, not finite, or masked by the file's mask, its alpha band or the `.msk` file beside it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pipelines.errors import RequestError
from pipelines.grid import Grid, parse_crs
from pipelines.scene import Asset, Band, Scene
from pipelines.sources.facts import FileFacts
from pipelines.sources.images import Image, ImageBand, canonical
from pipelines.sources.layers import RasterLayer
from pipelines.sources.resampling import lattice_offset, masked_window, overlaps, resample
from pipelines.sources.source import DecodesFiles, Listing, Resampling

FEWEST_BANDS = 3  # that are compared, where there are so many
UNKNOWN_DATES = (np.datetime64("1970-01-01", "ns"), np.datetime64("1970-01-02", "ns"))  # of images without a date
TURN = 360.0  # degrees of longitude
METRES_PER_DEGREE = 111_320.0


@dataclass(frozen=True)
class PairSource(DecodesFiles):
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
        return tuple(Band(name, unit=band.facts.unit) for name, band in zip(self.names, self._of(self.before), strict=True))

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
            with band.open(scene.id) as stored:
                layer = PhysicalLayer(stored, band)
                planes.append(np.ma.getdata(resample(layer, layer.facts, grid, rows, resampling)))  # NaN where missing
        return np.stack(planes)

    def stored(self, date: int, x_CN: np.ndarray) -> np.ndarray:
        """The values in the files of BEFORE (0) or AFTER (1), float64, of physical values x_CN of the bands."""
        facts = [band.facts for band in self._of((self.before, self.after)[date])]
        x_CN = np.stack([(x_N.astype(np.float64) - f.offset) / (f.scale or 1) for x_N, f in zip(x_CN, facts, strict=True)])
        return np.rint(x_CN) if all(f.dtype.kind != "f" for f in facts) else x_CN

    def _band(self, scene: Scene, name: str) -> ImageBand:
        image = self.before if scene.id.startswith("before/") else self.after
        return self._of(image)[self.names.index(name)]

    def _of(self, image: Image) -> list[ImageBand]:
        by_name = {canonical(name): band for name, band in image.bands.items()}
        return [by_name[canonical(name)] for name in self.names]


@dataclass(frozen=True)
class PhysicalLayer:
    """A band as physical values (`pipelines.sources.layers.Layer`): float32, NaN where missing."""

    stored: RasterLayer
    band: ImageBand

    @property
    def grid(self) -> Grid:
        return self.band.grid

    @property
    def facts(self) -> FileFacts:
        return FileFacts(np.dtype("float32"), self.grid)

    def masked(self, rows: slice, columns: slice) -> np.ndarray | None:
        return None  # NaN in `window`

    def window(self, rows: slice, columns: slice) -> np.ndarray:
        facts = self.band.facts
        stored = masked_window(self.stored, facts, rows, columns).astype(np.float64)
        return (np.ma.filled(stored, np.nan) * facts.scale + facts.offset).astype(np.float32)


def pair_images(
    before: Image, after: Image, wanted: Sequence[str] | None = None, dates: Sequence[np.datetime64] | None = None
) -> PairSource:
    """The source of both images. `wanted`: the bands to compare, in this order; default: all that both have.

    Raises RequestError: no band in common or one of `wanted` missing, other units, no overlap, AFTER before BEFORE.
    """
    before, after = by_colour_or_number(before, on_side_of(after, before))
    names, notes = common_bands(before, after, wanted)
    if not overlaps(after.grid, before.grid):
        raise RequestError(
            f"{before.path} and {after.path} do not overlap: they lie at {_outline(before.grid)} and {_outline(after.grid)}; "
            "name two images of one place"
        )
    chosen, text = choose_dates(before, after, dates)
    source = PairSource(before, after, names, chosen)
    notes = [*notes, *compare_values(source), *compare_grids(source), *text]
    return dataclasses.replace(source, notes=tuple(notes))


def by_colour_or_number(before: Image, after: Image) -> tuple[Image, Image]:
    """Both images; by number where the bands of one have names by their colours only, and those of the other none."""
    if (before.is_numbered and after.is_coloured) or (after.is_numbered and before.is_coloured):
        return by_number(before), by_number(after)
    return before, after


def by_number(image: Image) -> Image:
    return dataclasses.replace(image, bands={str(band.index): band for band in image.bands.values()}, is_numbered=True)


def on_side_of(image: Image, other: Image) -> Image:
    """The image in the turn of longitudes of the other: 350 is -10 where the other lies there."""
    (left, _, right, _), (west, _, east, _) = image.grid.bounds_xy, other.grid.bounds_xy
    turns = round((west + east - left - right) / 2 / TURN)
    if not turns or not all(parse_crs(one.grid.crs).is_geographic for one in (image, other)):
        return image
    return dataclasses.replace(image, bands={name: _turned(band, turns) for name, band in image.bands.items()})


def _turned(band: ImageBand, turns: int) -> ImageBand:
    a, b, c, d, e, f = tuple(band.grid.affine)[:6]
    moved = Grid(band.grid.crs, (a, b, c + TURN * turns, d, e, f), band.grid.shape_yx)
    return dataclasses.replace(band, grid=moved)


def common_bands(before: Image, after: Image, wanted: Sequence[str] | None) -> tuple[tuple[str, ...], list[str]]:
    """(the bands to compare, what is left out)."""
    images = {"BEFORE": before, "AFTER": after}
    there = "; ".join(f"{word} ({one.path}) has {', '.join(one.bands)}" for word, one in images.items())
    known = {word: {canonical(name) for name in one.bands} for word, one in images.items()}
    if before.is_numbered and after.is_numbered and len(before.bands) != len(after.bands):
        remedy = "give the bands names (descriptions) in the files"
        raise RequestError(f"the files name no bands, and their numbers differ, so they cannot be matched: {there}; {remedy}")
    if wanted is not None:
        if twice := [name for n, name in enumerate(wanted) if canonical(name) in map(canonical, wanted[:n])]:
            raise RequestError(f"{', '.join(twice)} is named twice: name each band once with --bands")
        for word, has in known.items():
            if missing := [name for name in wanted if canonical(name) not in has]:
                raise RequestError(f"{word} lacks {', '.join(missing)}: {there}")
    there_too = {canonical(name): band for name, band in after.bands.items()}
    both = {
        name: max(pixel_m2(band.grid), pixel_m2(there_too[canonical(name)].grid))
        for name, band in before.bands.items()
        if canonical(name) in there_too
    }
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


def pixel_m2(grid: Grid) -> float:
    """The area of a pixel in square metres, near enough to compare grids of several CRSs."""
    crs, (_, bottom, _, top) = parse_crs(grid.crs), grid.bounds_xy
    if crs.is_geographic:
        return grid.pixel_size * METRES_PER_DEGREE**2 * max(float(np.cos(np.radians((bottom + top) / 2))), 0.01)
    return grid.pixel_size * float(crs.linear_units_factor[1]) ** 2


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
        units = one.facts.unit, other.facts.unit
        if all(units) and units[0] != units[1]:
            remedy = "convert one of them, or compare other bands with --bands"
            raise RequestError(f"band {name} is in {units[0]} in {one.path} and in {units[1]} in {other.path}; {remedy}")
        both = (one.facts, other.facts)
        stated = [(f"scale {facts.scale:g}, offset {facts.offset:g}", f"stored as {facts.dtype}") for facts in both]
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
            if lattice_offset(band.grid, grid) is None:
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
