"""Where scenes come from: one class per kind of source, each with its own check. `kind` says which one a config means."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, PositiveFloat

from configs import schema
from configs.paths import BELOW_SOURCE, READ
from configs.schema import Finding, InputPath, LocalPath, Name, Sections, Strict, UtcDate, missing_file, suggest
from configs.yaml_positions import Key

# what strptime reads and a file name can hold; %Z, %c, %x... depend on the locale
DATE_DIRECTIVES = "YmdHMSfjybBz"
COMPONENTS = ("gray", "red", "green", "blue")  # what frames of videos and pictures have


def _named_band(band: object) -> object:
    return {"name": band} if isinstance(band, str) else band


class BandConfig(Strict):
    """A band of the cube. Physical value = stored * scale + offset."""

    name: Name = Field(description="the name of the band in the cube and in the rest of the config")
    source: str | None = Field(None, description="its name in the files, where that differs from `name`")
    scale: float | None = Field(None, description="default: the source's `scale`")
    offset: float | None = Field(None, description="default: the source's `offset`")
    nodata: float | None = Field(None, description="default: the source's `nodata`")
    unit: str | None = Field(None, description="default: the source's `unit`")
    valid_range: tuple[float, float] | None = Field(None, description="default: the source's `valid_range`")


class SourceDefaults(Strict):
    """What every kind of source has: bands, how their values are stored, where the pixels lie."""

    bands: list[Annotated[BandConfig, BeforeValidator(_named_band)]] = Field(
        min_length=1, description="names, or mappings where a band differs from the defaults below"
    )
    scale: float = Field(1.0, description="physical value = stored * scale + offset; 1: what the files say")
    offset: float = Field(0.0, description="physical value = stored * scale + offset; 0: what the files say")
    nodata: float | None = Field(None, description="stored value of missing pixels, beside what the files call missing")
    unit: str = Field("", description="of the physical values, e.g. mm; for tables and pictures; default: what the files say")
    valid_range: tuple[float, float] | None = Field(None, description="inclusive, in stored values; outside is not valid")
    read_as: Literal["int16", "uint16", "uint8", "int32", "float32"] | None = Field(
        None, description="reinterpret the stored bits as this dtype of the same size, for files with a wrongly declared dtype"
    )
    crs: str | None = Field(None, description="for files whose CRS is missing or wrong: EPSG code, PROJ string or WKT")
    transform: tuple[float, float, float, float, float, float] | None = Field(
        None, description="affine (a, b, c, d, e, f) from (column, row) of the upper-left pixel corner to x, y"
    )

    def check(self, sections: Sections) -> Iterator[Finding]:
        seen: set[str] = set()
        for index, band in enumerate(self.bands):
            if band.name in seen:
                yield Finding(("source", "bands", index), f"band {band.name!r} is listed twice", "give every band its own name")
            seen.add(band.name)
            if (self.scale if band.scale is None else band.scale) == 0:
                key = ("source", "scale") if band.scale is None else ("source", "bands", index, "scale")
                yield Finding(key, "a scale of 0 leaves nothing of the values", "1 for values as they are stored")
            yield from schema.check_range(("source", "bands", index), band.valid_range)
        yield from schema.check_range(("source",), self.valid_range)
        if self.transform and self.transform[0] * self.transform[4] == self.transform[1] * self.transform[3]:
            remedy = "order: a, b, c, d, e, f with x = a*column + b*row + c and y = d*column + e*row + f"
            yield Finding(("source", "transform"), "this affine has no area", remedy)
        elif self.transform and (order := order_of(self.transform)):
            problem = f"as an affine these numbers make sheared pixels; they are in the order of {order[0]}"
            yield Finding(("source", "transform"), problem, f"write {list(order[1])}")
        yield from schema.check_crs(("source", "crs"), self.crs)

    def names_in_files(self) -> dict[Key, str]:
        """Key -> how the band is called in the files."""
        return {("source", "bands", index): band.source or band.name for index, band in enumerate(self.bands)}


def order_of(numbers: tuple[float, ...]) -> tuple[str, tuple[float, ...]] | None:
    """(whose order it is, the numbers as an affine) of six numbers that make right-angled pixels in another order only."""

    def is_square(a: float, b: float, d: float, e: float) -> bool:
        return abs(a * b + d * e) <= 1e-3 * abs(a * e - b * d)

    a, b, c, d, e, f = numbers
    if is_square(a, b, d, e):
        return None
    if is_square(b, c, e, f):
        return "GDAL (c, a, b, f, d, e)", (b, c, a, e, f, d)
    if is_square(a, c, b, d):
        return "a world file (a, d, b, e, c, f of the centre)", (a, c, e - (a + c) / 2, b, d, f - (b + d) / 2)
    return None


class NetcdfSource(SourceDefaults):
    """A netCDF-4 / HDF5 cube with one variable per band and a time coordinate."""

    kind: Literal["netcdf"]
    path: InputPath = Field(description="the netCDF file")
    time: str = Field("time", description="name of the time coordinate")

    def check_files(self, sections: Sections) -> Iterator[Finding]:
        yield from missing_file(("source", "path"), Path(self.path))


class FolderSource(SourceDefaults):
    """A folder of GeoTIFF, JPEG2000 or HDF5 files, date (and band) in the file name.

    `pattern` is matched against the path below `path`: `{date:%Y%m%d}`, `{band}` and `*` (anything but `/`).
    A file that holds several bands has no `{band}`; they are found by their descriptions, by number (`source: "4"`), or in file
    order where `bands` names all of them.
    """

    kind: Literal["folder"]
    path: InputPath = Field(description="the folder; files in folders below it count too")
    pattern: str = Field(description="where date and band are in the path, e.g. `{date:%Y%m%d}_{band}.tif`")
    variable: str | None = Field(None, description="data set inside each HDF5/netCDF file, e.g. image1/image_data")

    def check(self, sections: Sections) -> Iterator[Finding]:
        yield from super().check(sections)
        yield from _check_pattern(self.pattern)

    def check_files(self, sections: Sections) -> Iterator[Finding]:
        no_folder = list(schema.missing_folder(Path(self.path)))
        yield from no_folder
        if not no_folder and not any(_check_pattern(self.pattern)):
            yield from _check_names(self, quality_band(sections))


class StackSource(SourceDefaults):
    """Multi-band rasters, one per band, whose raster bands are dates; the dates stand in a text file, one a line."""

    kind: Literal["stack"]
    path: InputPath = Field(description="the folder of the rasters")
    files: Annotated[dict[Name, LocalPath], BELOW_SOURCE] = Field(description="band -> file name below `path`")
    dates: Annotated[LocalPath, BELOW_SOURCE] = Field(
        description="text or CSV file below `path`; of several columns of dates the one whose heading says so"
    )

    def check(self, sections: Sections) -> Iterator[Finding]:
        yield from super().check(sections)
        requested, quality = set(self.names_in_files().values()), quality_band(sections)
        extra = {quality} if quality is not None else set()
        for name in sorted((requested | extra) - set(self.files)):
            yield Finding(("source", "files"), f"no file is named for band {name!r}", f"add `{name}: FILE.tif`")
        for name in sorted(set(self.files) - requested - extra):
            remedy = f"add it to bands, or take it out; bands are {', '.join(sorted(requested))}"
            yield Finding(("source", "files", name), f"{name!r} is not one of the bands", remedy)

    def check_files(self, sections: Sections) -> Iterator[Finding]:
        path, no_folder = Path(self.path), list(schema.missing_folder(Path(self.path)))
        yield from no_folder
        if not no_folder:
            for band, name in self.files.items():
                yield from missing_file(("source", "files", band), path / name)
            yield from missing_file(("source", "dates"), path / self.dates)


class MemorySource(SourceDefaults):
    """An xarray Dataset that was passed to the Python API (`driftline.train`), which writes this config; no file holds it."""

    kind: Literal["memory"]

    def check_files(self, sections: Sections) -> Iterator[Finding]:
        remedy = "name a source of files, or call driftline.train(dataset, ...) again"
        yield Finding(("source", "kind"), "the scenes were in memory and are not there any more", remedy)


class VolumeDefaults(SourceDefaults):
    """What sources of volumes of a patient have: one band, and a position that the files state."""

    bands: list[Annotated[BandConfig, BeforeValidator(_named_band)]] = Field(
        [BandConfig(name="intensity")], min_length=1, max_length=1, description="the name of the one band, or a mapping"
    )
    path: InputPath = Field(description="a folder, or one file")
    frame_time: float | None = Field(
        None, gt=0, description="seconds between two volumes, where the files do not say it, or say it wrongly"
    )

    def check(self, sections: Sections) -> Iterator[Finding]:
        yield from super().check(sections)
        for name in ("read_as", "crs", "transform", "scale", "offset"):
            if getattr(self, name) != type(self).model_fields[name].default:
                yield Finding(
                    ("source", name), f"has no meaning for {getattr(self, 'kind', '')}: the files state it", "take it out"
                )
        for name in ("quality", "grid"):
            if sections.get(name) is not None:
                yield Finding((name,), "is for images of places, not for volumes of a patient", "take it out")
        if getattr(sections.get("cube"), "on_other_grid", None) == "reproject":
            yield Finding(("cube", "on_other_grid"), "volumes are not resampled", "take it out, and register the volumes first")

    def check_files(self, sections: Sections) -> Iterator[Finding]:
        yield from schema.missing_original(Path(self.path))


class DicomSource(VolumeDefaults):
    """A series of DICOM files: a folder, a DICOMDIR or one file. Of several series one is chosen."""

    kind: Literal["dicom"]
    series: int | str | None = Field(
        None, description="which of several: its number, its SeriesInstanceUID, or `#2` for the second of the list"
    )


class NiftiSource(VolumeDefaults):
    """A NIfTI file of three or four dimensions, or a folder of files of three, with dates or numbers in their names."""

    kind: Literal["nifti"]
    pattern: str | None = Field(
        None, description="of a folder: where the date is in the names, e.g. `visit_{date:%Y%m%d}.nii.gz`"
    )
    affine: Literal["auto", "sform", "qform"] = Field(
        "auto", description="which counts where both contradict each other; auto refuses such a file"
    )

    def check(self, sections: Sections) -> Iterator[Finding]:
        yield from super().check(sections)
        if self.pattern is not None:
            yield from _check_pattern(self.pattern)


class MaskBox(Strict):
    """A part of every frame that must not be used."""

    box: tuple[int, int, int, int] = Field(
        description="first row, first column, one past the last row, one past the last column; zero-based, from the upper left"
    )


class PictureDefaults(SourceDefaults):
    """What sources of frames without a position have: grey or colours, masks, times from the first frame."""

    bands: list[Annotated[BandConfig, BeforeValidator(_named_band)]] = Field(
        [BandConfig(name="gray")], min_length=1, description="gray (luma of colours), red, green, blue; `source` says which"
    )
    frame_time: float | None = Field(None, gt=0, description="seconds between two frames, in place of what files say")
    start: UtcDate | None = Field(None, description="moment of the first frame, UTC; default: not known, times count from it")
    pixel_mm: tuple[PositiveFloat, PositiveFloat] | None = Field(None, description="size of a pixel (y, x), if it is known")
    mask: list[MaskBox] = Field([], description="overlays and borders: stored as 0 and never used")
    mask_file: Annotated[LocalPath | None, READ] = Field(None, description="picture of the frames' size; not 0: masked")

    def check(self, sections: Sections) -> Iterator[Finding]:
        yield from super().check(sections)
        for name in ("read_as", "crs", "transform"):
            if getattr(self, name) != type(self).model_fields[name].default:
                yield Finding(("source", name), "has no meaning for frames without a position", "take it out")
        for name in ("quality", "grid"):
            if sections.get(name) is not None:
                yield Finding((name,), "is for images of places, not for frames without a position", "take it out")
        for name, value in (("on_other_grid", "reproject"), ("same_date", "mosaic")):
            if getattr(sections.get("cube"), name, None) == value:
                yield Finding(("cube", name), "frames without a position are not resampled", "take it out")
        for key, component in self.names_in_files().items():
            if component not in COMPONENTS:
                remedy = f"one of {', '.join(COMPONENTS)}, or {{name: {component}, source: gray}}"
                yield Finding(key, f"frames have no band {component!r}", remedy)
        for index, one in enumerate(self.mask):
            if not (0 <= one.box[0] < one.box[2] and 0 <= one.box[1] < one.box[3]):
                remedy = "order: first row, first column, one past the last row, one past the last column"
                yield Finding(("source", "mask", index, "box"), f"{list(one.box)} has no area", remedy)

    def check_files(self, sections: Sections) -> Iterator[Finding]:
        if self.mask_file is not None:
            yield from missing_file(("source", "mask_file"), Path(self.mask_file))


class VideoSource(PictureDefaults):
    """A video file (AVI, MP4, MOV, MKV, WebM, GIF), or one clip of a folder of them. Needs driftline[video]."""

    kind: Literal["video"]
    path: InputPath = Field(description="the file, or a folder of clips")
    clip: str = Field(
        "", description="of a folder: the name of the clip, or `#2` for the second; clips are never put one after the other"
    )
    stream: int | None = Field(None, ge=0, description="number of the video stream, from 0, where there are several")

    def check_files(self, sections: Sections) -> Iterator[Finding]:
        yield from super().check_files(sections)
        yield from schema.missing_original(Path(self.path))


class PicturesSource(PictureDefaults):
    """A folder of PNG, JPEG, BMP or TIFF files without a position, one a frame; a date or the frame's number in the name."""

    kind: Literal["images"]
    path: InputPath = Field(description="the folder; files in folders below it count too")
    pattern: str = Field(description="where number or date are in the path: `frame_{frame}.png`, `{date:%Y%m%d%H%M%S}.jpg`")
    times: Annotated[LocalPath | None, BELOW_SOURCE] = Field(
        None, description="text file below `path`, a line for each {frame} in order: seconds, or dates"
    )

    def check(self, sections: Sections) -> Iterator[Finding]:
        yield from super().check(sections)
        has_frame, key = "{frame}" in self.pattern, ("source", "pattern")
        if has_frame == ("{date:" in self.pattern):
            yield Finding(key, "the pattern needs either {frame} or {date:...}", "for example frame_{frame}.png")
        if has_frame and (self.frame_time is None) == (self.times is None):
            problem = "numbers of frames need one of frame_time and times"
            yield Finding(("source", "frame_time"), problem, "seconds between frames, or a text file with one time a line")
        for name in ("frame_time", "times", "start") if not has_frame else ():
            if getattr(self, name) is not None:
                yield Finding(("source", name), "has no meaning where the names hold dates", "take it out")

    def check_files(self, sections: Sections) -> Iterator[Finding]:
        yield from super().check_files(sections)
        yield from schema.missing_images(Path(self.path), sections)


Source = Annotated[
    NetcdfSource | FolderSource | StackSource | MemorySource | DicomSource | NiftiSource | VideoSource | PicturesSource,
    Field(discriminator="kind"),
]


def quality_band(sections: Sections) -> str | None:
    """The band that the quality mask is made from, if there is one."""
    quality = sections.get("quality")
    return None if quality is None else quality.band


def _check_pattern(pattern: str) -> Iterator[Finding]:
    key: Key = ("source", "pattern")
    fields = re.findall(r"\{([^{}:]*)(?::([^{}]*))?\}", pattern)
    names = [name for name, _ in fields]
    if "date" not in names:
        yield Finding(key, "the pattern has no {date}, so scenes have no date", "for example {date:%Y%m%d}_{band}.tif")
    for name, form in fields:
        if name not in ("date", "band"):
            known = "only {date:...} and {band} are read; * stands for the rest"
            yield Finding(key, f"unknown field {{{name}}}", suggest(name, ["date", "band"], known, "{{{}}}".format))
        elif name == "date":
            yield from _check_date_form(key, form)
    if set("{}") & set(re.sub(r"\{[^{}]*\}", "", pattern)):
        yield Finding(key, "a brace is not closed", "for example {date:%Y%m%d}_{band}.tif")
    if names.count("date") > 1 or names.count("band") > 1:
        yield Finding(key, "a field stands twice in the pattern", "replace the second one with *")


def _check_date_form(key: Key, form: str) -> Iterator[Finding]:
    directives = re.findall(r"%(.?)", form)
    wrong = [d for d in directives if d not in DATE_DIRECTIVES]
    known = "%Y %m %d %H %M %S %f %j (day of year) %y %b %B %z (+0200)"
    for directive in wrong:
        yield Finding(key, f"unknown date directive %{directive}", f"Python's strptime directives: {known}")
    if not directives:
        yield Finding(key, "{date} needs its form", "for example {date:%Y%m%d} for 20200630")
    elif not wrong:
        has = set(directives)
        if not has & {"Y", "y"}:
            yield Finding(
                key, f"{{date:{form}}} has no year", "it needs a year, and a day where the names have one: %Y%m%d, or %Y%j"
            )


def _check_names(source: FolderSource, quality: str | None) -> Iterator[Finding]:
    """Whether the pattern fits file names below the folder, their dates can be read, and every band is in some name."""
    from pipelines.sources.dates import parse_date
    from pipelines.sources.file_names import FilePattern, propose_pattern
    from pipelines.sources.folder import list_files

    pattern = FilePattern(source.pattern)
    paths = list_files(Path(source.path))
    fitting = [name for path in paths if (name := pattern.match(path))]
    if any(parse_date(name.date_text, pattern.date_format) for name in fitting):
        if pattern.has_band:
            yield from _check_bands_in_names(source, quality, sorted({name.band for name in fitting}))
    elif paths:  # without any file the scenes may still be on their way; the source says so
        naming = propose_pattern(paths)
        remedy = f"try {naming.pattern}" if naming and naming.pattern != source.pattern else "write it as the names are"
        undated = next((name for path in paths if (name := pattern.match(path, any_date=True))), None)
        if undated:
            problem = f"no date in the names has the form {pattern.date_format!r}; the first is {undated.date_text!r}"
        else:
            shown = ", ".join(repr(path) for path in paths[:3])
            problem = f"it fits none of the {len(paths)} files below {source.path}; there are: {shown}"
        yield Finding(("source", "pattern"), problem, remedy)


def _check_bands_in_names(source: FolderSource, quality: str | None, there: list[str]) -> Iterator[Finding]:
    requested = source.names_in_files() | ({} if quality is None else {("quality", "band"): quality})
    for key, name in requested.items():
        if name not in there:
            remedy = suggest(name, there, f"the names hold {', '.join(there)}")
            yield Finding(key, f"no file below {source.path} is of band {name!r}", remedy)
