"""A series of DICOM files as a source of volumes (docs/design/014-medical-sources.md)."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from pipelines.errors import RequestError, SceneRefused
from pipelines.grid import Grid
from pipelines.scene import Asset, Band, Scene
from pipelines.sources.dicom_alike import check_alike, kinds_without_pixels, require_images, without_copies
from pipelines.sources.dicom_cine import frame_times, is_cine, place_image
from pipelines.sources.dicom_files import (
    Header,
    Stored,
    keyed_uid,
    list_dicom_files,
    read_header,
    read_headers,
    require_pydicom,
    without_warnings,
)
from pipelines.sources.dicom_frames import Frame, UnreadableHeader, frames_of
from pipelines.sources.dicom_geometry import FEWEST, place_slices
from pipelines.sources.dicom_times import Order, describe_kinds, order_times
from pipelines.sources.isolation import isolated
from pipelines.sources.source import Listing, Resampling
from pipelines.sources.volumes import completed_band, require_grid, scene_of, stored_bytes

CONVERTED = np.dtype("float32")


@dataclass(frozen=True)
class Slot:
    """Where one slice of one time lies, and how its values become physical."""

    path: Path
    frame: Frame


@dataclass(frozen=True)
class Series:
    """What a chosen series holds: `slots[t]` are the slices of time t, the first along the normal first; None: missing."""

    grid: Grid
    band: Band
    dtype: np.dtype
    times_T: np.ndarray
    slots: tuple[tuple[Slot | None, ...], ...]
    is_converted: bool
    notes: tuple[str, ...]
    refused: tuple[SceneRefused, ...]


@dataclass(frozen=True)
class DicomSource:
    """One series of DICOM files below `path` (a folder, a DICOMDIR, a file) as scenes of one volume each.

    `series`: its number, its UID, or `#2` for the second of those that are listed; "" if there is one. `frame_time`: seconds
    between two volumes, in place of what the headers say. A scene is named by the number of its time.
    """

    path: Path
    requested: Band
    series: str = ""
    frame_time: float | None = None
    left_out: tuple[SceneRefused, ...] = field(default=(), repr=False)  # files that are refused before this reads them

    @property
    def bands(self) -> tuple[Band, ...]:
        return (self._series.band,)

    def dtype(self) -> np.dtype:
        return self._series.dtype

    def native_grid(self) -> Grid:
        return self._series.grid

    def grid_of(self, scene: Scene, name: str) -> Grid:
        return self._series.grid

    def list_scenes(self) -> Listing:
        series = self._series
        bad = {refusal.scene_id for refusal in series.refused}
        scenes = [
            scene_of(t, moment, self.requested.name, [_asset(slot) for slot in slots if slot])
            for t, (moment, slots) in enumerate(zip(series.times_T, series.slots, strict=True))
        ]
        return Listing(
            [scene for scene in scenes if scene.id not in bad], list(series.refused), [], list(series.notes), is_of_place=False
        )

    def read(
        self, scene: Scene, grid: Grid, names: tuple[str, ...], resampling: Resampling, rows: slice | None = None
    ) -> np.ndarray:
        """(names, [z,] y, x) as `Source.read` specifies; `rows` are along the first axis of space. Raises SceneRefused."""
        series = self._series
        require_grid(scene, series.grid, grid)
        rows, is_volume = rows or slice(None), series.grid.is_volume
        slots = self.slots_of(scene)[rows if is_volume else slice(None)]
        of_file: dict[Path, list[tuple[int, Frame]]] = defaultdict(list)
        for k, slot in enumerate(slots):
            if slot is None:
                raise SceneRefused(scene.id, "missing-slices", "a slice is missing")
            of_file[slot.path].append((k, slot.frame))
        volume_ZYX = np.empty((len(slots), *series.grid.shape_yx), series.dtype)
        for path, wanted in of_file.items():
            for k, stored_YX in decode_frames(path, wanted, scene.id):
                volume_ZYX[k] = self._as_cube(stored_YX, slots[k])
        return volume_ZYX[None] if is_volume else volume_ZYX[:, rows]

    def slots_of(self, scene: Scene) -> tuple[Slot | None, ...]:
        """The slices of a scene, the first along the normal first; None: missing."""
        return self._series.slots[int(scene.id.removeprefix("frame-"))]

    def _as_cube(self, stored_YX: np.ndarray, slot: Slot | None) -> np.ndarray:
        """Stored values of a file as those of the cube: the same, or physical ones; padding is the band's nodata, or NaN."""
        assert slot is not None
        values, nodata = slot.frame.values, self._series.band.nodata
        of_cube = stored_YX
        if self._series.is_converted:
            of_cube, nodata = (stored_YX * values.slope + values.intercept).astype(CONVERTED), np.nan
        if values.padding is None or nodata is None:
            return of_cube
        is_padding = (stored_YX >= values.padding[0]) & (stored_YX <= values.padding[1])
        return np.where(is_padding, of_cube.dtype.type(nodata), of_cube)

    @cached_property
    def _series(self) -> Series:
        """Raises RequestError for a folder without a series of volumes, or with several and no choice."""
        require_pydicom()
        with without_warnings():  # elements are converted when they are asked for
            return self._read_series()

    def _read_series(self) -> Series:
        paths = list_dicom_files(self.path)
        headers, refused = read_headers(paths)
        if not headers and refused:
            raise RequestError(f"no image can be read: {refused[0].reason}, {refused[0].detail}")
        if not headers:
            raise RequestError(f"there are DICOM files, and none with an image that can be read{kinds_without_pixels(paths)}")
        chosen, notes = choose_series(headers, self.series)
        require_images(chosen)
        chosen, copies = without_copies(chosen)
        notes += [*copies, *check_alike(chosen)]
        frames, faults = [], []
        for header in chosen:
            try:
                frames += frames_of(header)
            except UnreadableHeader as e:
                faults.append(f"file {header.number} of {len(paths)} (in order of name): {e}")
        if faults:
            more = f" (and {len(faults) - 1} more files)" if len(faults) > 1 else ""
            raise RequestError(f"{faults[0]}{more}")
        used = {header.number: header for header in chosen}
        uid = keyed_uid(str(chosen[0].get("FrameOfReferenceUID", "")))
        return build_series(frames, used, uid, self.requested, self.frame_time, [*refused, *self.left_out], notes)


def _asset(slot: Slot) -> Asset:
    tile = "" if slot.frame.tile is None else f"{slot.frame.tile[0]},{slot.frame.tile[1]}"
    return Asset(str(slot.path), tile, slot.frame.index)


# ---------------------------------------------------------------- which series


def list_series(path: Path) -> list[str]:
    """A line about each series below `path`. Raises RequestError where no file is DICOM."""
    with without_warnings():
        return describe_all(by_series(read_headers(list_dicom_files(path))[0]))


def by_series(headers: Sequence[Header]) -> dict[str, list[Header]]:
    """SeriesInstanceUID -> its headers, in an order that a de-identified copy has too: by what the headers say, not by names."""
    found: dict[str, list[Header]] = defaultdict(list)
    for header in headers:
        found[str(header.get("SeriesInstanceUID", ""))].append(header)
    return dict(sorted(found.items(), key=lambda one: _rank(one[1])))


def _rank(headers: Sequence[Header]) -> tuple[float, str, int, str]:
    numbers = [float(number) for header in headers if str(number := header.get("SeriesNumber", "")).lstrip("-").isdigit()]
    facts = [
        [str(header.get(name, "")) for name in ("AcquisitionTime", "ImagePositionPatient", "InstanceNumber", "Rows")]
        for header in headers
    ]
    return min(numbers, default=float("inf")), str(headers[0].get("Modality", "")), len(headers), str(min(facts))


def describe_all(found: Mapping[str, Sequence[Header]]) -> list[str]:
    return [f"  #{k} {describe_series(headers)}" for k, headers in enumerate(found.values(), 1)]


def choose_series(headers: Sequence[Header], wanted: str) -> tuple[list[Header], list[str]]:
    """The headers of the one series, or of the one that is `wanted`, and what was not used. Raises RequestError, with a list."""
    by_uid = by_series(headers)
    all_of_uid = list(by_uid.items())
    listed = "\n".join(describe_all(by_uid))
    if not wanted:
        if len(all_of_uid) > 1:
            remedy = "choose one by its number (source.series: 5), by its place (series: '#1') or by its SeriesInstanceUID"
            raise RequestError(f"there are {len(all_of_uid)} series: {remedy}:\n{listed}")
        return all_of_uid[0][1], []
    if wanted.startswith("#") and wanted[1:].isdigit() and 1 <= int(wanted[1:]) <= len(all_of_uid):
        found = [all_of_uid[int(wanted[1:]) - 1][1]]
    else:
        found = [one for uid, one in all_of_uid if uid == wanted]
    if not found:
        numbered = [[one for one in of_uid if str(one.get("SeriesNumber", "")) == wanted] for _, of_uid in all_of_uid]
        found = [one for one in numbered if one]
    if len(found) != 1:
        problem = (
            f"source.series {wanted[:20]!r} is none of them" if not found else f"{len(found)} series have the number {wanted}"
        )
        raise RequestError(f"{problem}; there are:\n{listed}")
    left = len(headers) - len(found[0])
    return found[0], [f"not used: {left} images of other series"] if left else []


def describe_series(headers: Sequence[Header]) -> str:
    """Number, kind and size of a series: nothing that names a person."""
    numbers = sorted({str(header.get("SeriesNumber", "without number")) for header in headers})
    modality, sizes = str(headers[0].get("Modality", "unknown"))[:4], defaultdict[str, int](int)
    for header in headers:
        sizes[f"{header.content.Rows} x {header.content.Columns}"] += 1
    frames = sum(int(header.get("NumberOfFrames", 1)) for header in headers)
    size = max(sizes, key=lambda one: sizes[one]) + (f" and {len(sizes) - 1} other sizes" if len(sizes) > 1 else "")
    return f"series {' and '.join(numbers[:3])}: {modality}, {len(headers)} files, {frames} frames of {size}"


# ---------------------------------------------------------------- the series


def build_series(
    frames: Sequence[Frame], files: Mapping[int, Header], frame_uid: str, requested: Band, frame_time: float | None,
    refused: list[SceneRefused], notes: list[str],
) -> Series:  # fmt: skip
    """The volumes, or images, of these frames. Raises RequestError, which begins with what the series is, if they make none."""
    about = f"series of {len(frames)} images of {describe_kinds(frames)}"
    try:
        if is_cine(frames):
            grid, of_slice, order, said = _as_images(frames, files, frame_time)
        else:
            grid, of_slice, order, said = _as_volumes(frames, frame_uid, frame_time)
        units = {frame.values.unit for frame in frames}
        if len(units) > 1:
            raise RequestError(f"mixed units: {', '.join(sorted(unit or 'none' for unit in units))}; export one of them")
    except RequestError as e:
        raise RequestError(f"{about}: {e}") from e
    depth = grid.shape[0] if grid.is_volume else 1
    slots: list[list[Slot | None]] = [[None] * depth for _ in order.times_T]
    for frame, k, t in zip(frames, of_slice, order.of_frame, strict=True):
        slots[int(t)][int(k)] = Slot(files[frame.file].path, frame)
    band, is_converted, how = _band_of(frames, requested)
    return Series(
        grid=grid,
        band=band,
        dtype=CONVERTED if is_converted else np.dtype(frames[0].values.dtype),
        times_T=order.times_T,
        slots=tuple(tuple(of_time) for of_time in slots),
        is_converted=is_converted,
        notes=(*notes, *said, *how, *_colours(files.values())),
        refused=(*refused, *_refusals(frames, order, depth)),
    )


Placed = tuple[Grid, np.ndarray, Order, list[str]]  # the grid, the slice of each frame, the times, notes


def _as_images(frames: Sequence[Frame], files: Mapping[int, Header], frame_time: float | None) -> Placed:
    header = files[frames[0].file]
    try:
        grid, notes = place_image(header, frames)
        times_T, said = frame_times(header, frames, frame_time)
    except RequestError:
        raise
    except Exception as e:  # pydicom converts on access and raises many kinds
        raise RequestError(f"an element of geometry or time has no valid value ({type(e).__name__})") from None
    return grid, np.zeros(len(frames), np.int64), Order(np.arange(len(frames)), times_T), [*notes, *said]


def _as_volumes(frames: Sequence[Frame], frame_uid: str, frame_time: float | None) -> Placed:
    slices = place_slices(frames, frame_uid)
    depth = slices.grid.shape[0]
    order = order_times(frames, slices.of_frame, depth, frame_time)
    notes = list(order.notes)
    if len(order.times_T) == 1 and 1 < depth < FEWEST:
        problem = f"missing slices: {depth} of one time, and nothing proves their spacing"
        raise RequestError(f"{problem}; export all slices (at least {FEWEST})")
    if depth == 1:
        notes.append("the volumes have one slice; its thickness is taken for the size of a voxel")
    elif depth < FEWEST:
        notes.append(f"the volumes have {depth} slices, whose distance nothing else proves")
    return slices.grid, slices.of_frame, order, notes


def _band_of(frames: Sequence[Frame], requested: Band) -> tuple[Band, bool, list[str]]:
    """(the band, whether values must be converted to physical ones, notes)."""
    scaling, first = {(frame.values.slope, frame.values.intercept) for frame in frames}, frames[0].values
    if len(scaling) > 1:
        note = f"scale and offset differ between images ({len(scaling)} pairs): values are converted to physical ones, float32"
        return completed_band(requested, 1.0, 0.0, None, first.unit), True, [note]
    nodata = None if first.padding is None else float(first.padding[0])
    return completed_band(requested, first.slope, first.intercept, nodata, first.unit), False, []


def _colours(headers: Iterable[Header]) -> list[str]:
    is_colour = any(
        int(header.get("SamplesPerPixel", 1)) > 1 or header.get("PhotometricInterpretation") == "PALETTE COLOR"
        for header in headers
    )
    return ["its colours are converted to grey (ITU-R BT.601)"] if is_colour else []


def _refusals(frames: Sequence[Frame], order: Order, depth: int) -> list[SceneRefused]:
    """The times of which a slice is missing, or whose pixel data are not whole."""
    refused = []
    for t, lacking in order.missing.items():
        shown = ", ".join(str(k + 1) for k in lacking[:3]) + (" ..." if len(lacking) > 3 else "")
        detail = f"{len(lacking)} of {depth} slices are not there ({shown}); the other times are whole"
        refused.append(SceneRefused(f"frame-{t:04d}", "missing-slices", detail))
    known = set(order.missing)
    for frame, t in zip(frames, order.of_frame, strict=True):
        if frame.fault and int(t) not in known:
            known.add(int(t))
            detail = f"file {frame.file} (in order of name): {frame.fault}; copy it again"
            refused.append(SceneRefused(f"frame-{int(t):04d}", "truncated", detail))
    return refused


# ---------------------------------------------------------------- pixels


def decode_frames(path: Path, wanted: Sequence[tuple[int, Frame]], scene_id: str) -> Iterator[tuple[int, np.ndarray]]:
    """(slice, stored values (y, x) in the byte order of this machine) of frames of one file; each frame is decoded once.

    Decoders run in a worker process (`isolation`). Raises SceneRefused(unreadable, driver).
    """
    file, images = wanted[0][1].file, {frame.index: frame.stored for _, frame in wanted}
    try:
        if all(images.values()):
            decoded = {index: _read_stored(path, stored) for index, stored in images.items() if stored}
        else:
            is_palette = wanted[0][1].values.is_palette
            decoded = isolated(_decode, path, sorted(images), is_palette, label=scene_id, paths=[path])
    except SceneRefused:  # its message names the file
        detail = f"file {file} (in order of name): its decoder was killed, took too long or needed too much memory; copy it again"
        raise SceneRefused(scene_id, "unreadable", detail) from None
    except Exception as e:  # decoders raise many kinds; their texts may repeat values of the header
        is_missing = isinstance(e, NotImplementedError | ImportError) or "plugin" in str(e)
        remedy = "no decoder reads its compression: pip install 'driftline[medical]'" if is_missing else "copy it again"
        detail = f"file {file} (in order of name) cannot be decoded ({type(e).__name__}); {remedy}"
        raise SceneRefused(scene_id, "driver" if is_missing else "unreadable", detail) from None
    for k, frame in wanted:
        stored_YX = decoded[frame.index]
        stored_YX = _luma(stored_YX) if stored_YX.ndim == 3 else stored_YX
        if frame.tile is not None:
            (row, column), (rows, columns) = frame.tile, frame.shape_yx
            stored_YX = stored_YX[row : row + rows, column : column + columns]
        if stored_YX.shape != frame.shape_yx:
            detail = f"file {file} decodes to {stored_YX.shape}, its header says {frame.shape_yx}"
            raise SceneRefused(scene_id, "unreadable", detail)
        yield k, stored_bytes(stored_YX)


def _read_stored(path: Path, stored: Stored) -> np.ndarray:
    """Values (y, x); unused bits hold anything, and take the sign, as decoders have it (PS3.5, 8.1.1)."""
    stored_YX = np.fromfile(path, stored.dtype, math.prod(stored.shape_yx), offset=stored.at).reshape(stored.shape_yx)
    if stored.unused_bits:
        stored_YX <<= stored.unused_bits
        stored_YX >>= stored.unused_bits
    return stored_YX


def _decode(path: Path, indices: Sequence[int], is_palette: bool) -> dict[int, np.ndarray]:
    """Frames (y, x) or (y, x, colour); of a palette the colours, not their numbers (PS3.3, C.7.6.3.1.5)."""
    from pydicom.pixels.processing import apply_color_lut
    from pydicom.pixels.utils import iter_pixels

    with without_warnings():
        decoded = dict(zip(indices, iter_pixels(path, indices=indices), strict=True))
        if is_palette:
            palette = read_header(path)[0]
            decoded = {index: apply_color_lut(stored_YX, palette)[..., :3] for index, stored_YX in decoded.items()}
    return decoded


def _luma(values_YXC: np.ndarray) -> np.ndarray:
    """Grey of colours (ITU-R BT.601), of the same dtype."""
    grey = values_YXC[..., :3].astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)
    rounded: np.ndarray = np.round(grey).astype(values_YXC.dtype)
    return rounded
