"""NIfTI files as a source of volumes: one file of three or four dimensions, or a folder of files of three."""

from __future__ import annotations

import os
import tempfile
import threading
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import cast

import numpy as np

from pipelines.calendar import UNKNOWN_ORIGIN
from pipelines.errors import RequestError, SceneRefused
from pipelines.grid import Grid
from pipelines.scene import Asset, Band, Scene
from pipelines.sources.nifti_header import SUFFIXES, AffineChoice, NiftiHeader, open_nifti, read_nifti_header
from pipelines.sources.nifti_names import dates_in, files_of, numbers_in, only_file
from pipelines.sources.source import Listing, Resampling
from pipelines.sources.volumes import completed_band, require_grid, scene_of, stored_bytes

UNDATED = "no file states a date: times are seconds since the first frame"
BLOCK = 1 << 22
PACKED = b"\x1f\x8b"  # how gzip begins


@dataclass(frozen=True)
class Volumes:
    """What was found: `headers` per file, `moments` and `places` (file, volume in it) per time."""

    files: tuple[Path, ...]
    headers: tuple[NiftiHeader, ...]
    moments: tuple[np.datetime64, ...]
    places: tuple[tuple[int, int], ...]
    band: Band
    notes: tuple[str, ...]
    refused: tuple[SceneRefused, ...]


@dataclass(frozen=True)
class NiftiSource:
    """The volumes of a file, or of the files of a folder, as scenes; each is named by the number of its time.

    `pattern` has a `{date:...}` in the names of a folder's files; without it dates (20240131, 2024-01-31) are found in the names,
    else their last number is the place in the series, `frame_time` seconds apart.
    """

    path: Path
    requested: Band
    pattern: str = ""
    frame_time: float | None = None
    affine: AffineChoice = "auto"
    left_out: tuple[SceneRefused, ...] = field(default=(), repr=False)  # files that are refused before this reads them

    @property
    def bands(self) -> tuple[Band, ...]:
        return (self._volumes.band,)

    def dtype(self) -> np.dtype:
        return self._volumes.headers[0].stored

    def native_grid(self) -> Grid:
        return self._volumes.headers[0].grid

    def grid_of(self, scene: Scene, name: str) -> Grid:
        return self._volumes.headers[self._place(scene)[0]].grid

    def list_scenes(self) -> Listing:
        found = self._volumes
        scenes = [
            scene_of(t, moment, self.requested.name, [Asset(str(found.files[file]), "", volume)])
            for t, (moment, (file, volume)) in enumerate(zip(found.moments, found.places, strict=True))
        ]
        return Listing(scenes, [*found.refused, *self.left_out], [], list(found.notes), is_of_place=False)

    def read(
        self, scene: Scene, grid: Grid, names: tuple[str, ...], resampling: Resampling, rows: slice | None = None
    ) -> np.ndarray:
        """(names, z, y, x) as `Source.read` specifies; `rows` are slices. Raises SceneRefused."""
        file, volume = self._place(scene)
        path, header = self._volumes.files[file], self._volumes.headers[file]
        require_grid(scene, header.grid, grid)
        start, stop, _ = (rows or slice(None)).indices(grid.shape[0])
        plane = int(np.prod(grid.shape[1:]))
        first = header.offset + volume * header.volume_bytes + start * plane * header.dtype.itemsize
        try:
            values = _bytes_of(path, header, scene.id)[first : first + (stop - start) * plane * header.dtype.itemsize]
            stored = stored_bytes(np.frombuffer(values, header.dtype)).reshape(stop - start, *grid.shape[1:])
        except (OSError, ValueError) as e:
            detail = f"its voxels cannot be read ({type(e).__name__}); copy the file again"
            raise SceneRefused(scene.id, "truncated", detail) from None
        return stored.astype(header.stored, copy=False)[None]

    def _place(self, scene: Scene) -> tuple[int, int]:
        return self._volumes.places[int(scene.id.removeprefix("frame-"))]

    @cached_property
    def _volumes(self) -> Volumes:
        """Raises RequestError where nothing can be read."""
        path = only_file(self.path)
        if path.is_dir():
            return _folder(self)
        if not path.is_file():
            raise RequestError("no such file or folder as source.path names")
        try:
            header = read_nifti_header(path, "the file", self.affine, self.frame_time)
            _check_length(path, header, "the file")
        except SceneRefused as e:
            raise RequestError(f"the NIfTI file cannot be read, {e.reason}: {e.detail}") from e
        _check_b_values(path, header)
        step = header.frame_s or 0.0
        moments = tuple(UNKNOWN_ORIGIN + np.timedelta64(round(step * t * 1e9), "ns") for t in range(header.frames))
        places = tuple((0, t) for t in range(header.frames))
        notes = (*header.notes, UNDATED if header.frames > 1 else "no file states a date: the time is unknown")
        return Volumes((path,), (header,), moments, places, _band(self.requested, header), notes, ())


def _check_b_values(path: Path, header: NiftiHeader) -> None:
    """Raises RequestError if a file of b-values beside the volumes (FSL, BIDS) says that they are of several contrasts."""
    beside = path.with_name(path.name.removesuffix(".gz").removesuffix(".nii") + ".bval")
    if header.frames > 1 and beside.is_file() and len(kinds := set(beside.read_text("ascii", "replace").split())) > 1:
        raise RequestError(
            f"several contrasts: a file of b-values (.bval) lies beside the volumes and lists {len(kinds)} different ones, so "
            "they are no series in time; save those of one b-value as a file of their own"
        )


def _band(asked: Band, header: NiftiHeader) -> Band:
    return completed_band(asked, header.scale, header.intercept, None, "")


# ---------------------------------------------------------------- a folder of volumes


def _folder(source: NiftiSource) -> Volumes:
    """The files of a folder in order of time. Those on another grid, or that cannot be read, are refused."""
    paths = files_of(source.path)
    if not paths:
        raise RequestError(f"{source.path} holds no NIfTI file ({' or '.join(SUFFIXES)})")
    files, notes = _dated(source, paths)
    seen: list[tuple[Path, np.datetime64, NiftiHeader]] = []
    refused = []
    for number, (path, moment) in enumerate(files):
        label = f"file-{number:04d}"
        try:
            header = read_nifti_header(path, label, source.affine, source.frame_time)
            _check_length(path, header, label)
            if header.frames > 1:
                raise SceneRefused(label, "wrong-grid", f"it holds {header.frames} volumes; a folder's files hold one each")
            seen.append((path, moment, header))
        except SceneRefused as e:
            refused.append(e)
    if not seen:
        raise RequestError(f"none of the {len(files)} NIfTI files of the folder can be read: {refused[0]}")
    usual = _usual(seen)
    kept, off = [one for one in seen if _fits(one[2], usual)], [n for n, one in enumerate(seen) if not _fits(one[2], usual)]
    if off and len(kept) == 1:
        raise RequestError(
            f"the {len(seen)} volumes of the folder have grids (or types, or scales) of their own, and kind: nifti resamples "
            "nothing; visits of patients come onto one grid with `kind: visits` (docs/follow-up.md)"
        )
    refused += [
        SceneRefused(
            f"volume-{n:04d}",
            "wrong-grid",
            "it has another grid, type or scale than most; visits of patients come onto one grid with `kind: visits`",
        )
        for n in off
    ]
    notes += list(dict.fromkeys(note for one in kept for note in one[2].notes))
    band = _band(source.requested, usual)
    places = tuple((n, 0) for n in range(len(kept)))
    paths_, moments, headers = zip(*kept, strict=True)
    return Volumes(paths_, headers, moments, places, band, tuple(notes), tuple(refused))


def _usual(seen: list[tuple[Path, np.datetime64, NiftiHeader]]) -> NiftiHeader:
    counts = Counter({n: sum(_fits(other[2], one[2]) for other in seen) for n, one in enumerate(seen)})
    return seen[max(counts, key=lambda n: (counts[n], -n))][2]


def _fits(one: NiftiHeader, other: NiftiHeader) -> bool:
    same = (one.stored, one.scale, one.intercept) == (other.stored, other.scale, other.intercept)
    return same and one.grid.is_aligned(other.grid, tolerance_px=0.01)


def _dated(source: NiftiSource, paths: list[Path]) -> tuple[list[tuple[Path, np.datetime64]], list[str]]:
    """(files with their moments, in order; notes). By `pattern`, by dates in the names, by numbers in the names."""
    names = {path.relative_to(source.path).as_posix(): path for path in paths}
    if dates := dates_in(list(names), source.pattern):
        left, dated = len(names) - len(dates), _in_order([(names[name], moment) for name, moment in dates.items()])
        if source.pattern:
            return dated, [f"not used: {left} files that the pattern does not fit"] * bool(left)
        return dated, ["dates are those in the names of the files"]
    if len(paths) == 1:
        return [(paths[0], UNKNOWN_ORIGIN)], [UNDATED]
    order = numbers_in(list(names))
    if not order:
        remedy = "write source.pattern with {date:...}, or give every file a number of its own"
        raise RequestError(f"the names of the {len(paths)} NIfTI files of the folder have neither dates nor numbers: {remedy}")
    if source.frame_time is None:
        remedy = "state the seconds between two of them as source.frame_time"
        raise RequestError(f"the names of the {len(paths)} NIfTI files of the folder have numbers and no dates: {remedy}")
    first = min(order.values())
    step = [
        (names[name], UNKNOWN_ORIGIN + np.timedelta64(round((n - first) * source.frame_time * 1e9), "ns"))
        for name, n in order.items()
    ]
    return _in_order(step), [UNDATED, f"files are ordered by the last number of their names, {source.frame_time:g} s apart"]


def _in_order(files: Sequence[tuple[Path, np.datetime64]]) -> list[tuple[Path, np.datetime64]]:
    return sorted(files, key=lambda one: (one[1], str(one[0])))


# ---------------------------------------------------------------- voxels


def read_volume(
    path: Path, label: str, affine: AffineChoice = "auto", most_voxels: int = 1 << 28
) -> tuple[np.ndarray, NiftiHeader]:
    """(values_ZYX as stored, in the byte order of this machine; the header) of a file with one volume.

    Raises SceneRefused as `read_nifti_header`, and too-large beyond `most_voxels`, wrong-grid for several volumes.
    """
    header = read_nifti_header(path, label, affine)
    if header.frames > 1:
        raise SceneRefused(label, "wrong-grid", f"it holds {header.frames} volumes, expected one")
    if (voxels := int(np.prod(header.grid.shape))) > most_voxels:
        raise SceneRefused(
            label, "too-large", f"it has {voxels} voxels, the limit of a volume that is resampled is {most_voxels}"
        )
    _check_length(path, header, label)
    values = _bytes_of(path, header, label)[header.offset : header.file_bytes]
    return np.frombuffer(values.tobytes(), header.dtype).reshape(header.grid.shape).astype(header.stored, copy=False), header


def _check_length(path: Path, header: NiftiHeader, label: str) -> None:
    """Raises SceneRefused(truncated, wrong-grid) for more or fewer bytes than the header describes.

    The end of a packed file states its size (RFC 1952, ISIZE, modulo 2**32); one that states another is unpacked here.
    """
    with path.open("rb") as file:
        if file.read(2) == PACKED:
            file.seek(-4, os.SEEK_END)
            stated = int.from_bytes(file.read(4), "little")
            if (stated - header.file_bytes) % 2**32 < header.volume_bytes:
                return
    _bytes_of(path, header, label)


def _bytes_of(path: Path, header: NiftiHeader, label: str) -> np.ndarray:
    """The bytes of the unpacked file, uint8, mapped. Raises SceneRefused(truncated, unreadable)."""
    status = path.stat()
    try:
        with _unpacking:
            mapped = _mapped(path, status.st_size, status.st_mtime_ns, header.file_bytes + header.volume_bytes)
    except (OSError, EOFError, zlib.error) as e:
        raise SceneRefused(label, "truncated", f"the file cannot be unpacked ({type(e).__name__}); copy it again") from None
    if len(mapped) < header.file_bytes:
        detail = f"{len(mapped)} of the {header.file_bytes} bytes are there that its header describes; copy the file again"
        raise SceneRefused(label, "truncated", detail)
    if len(mapped) >= header.file_bytes + header.volume_bytes:
        detail = f"it holds more volumes than the {header.frames} that its header describes; correct the header"
        raise SceneRefused(label, "wrong-grid", detail)
    return mapped


_unpacking = threading.Lock()


@lru_cache(maxsize=2)
def _mapped(path: Path, size: int, mtime_ns: int, expected: int) -> np.ndarray:
    """A file as bytes; a packed one is unpacked into a file without a name, once, to the end, where its checksum is compared."""
    with path.open("rb") as file:
        if file.read(2) != PACKED:
            return cast(np.ndarray, np.memmap(path, np.uint8, "r"))
    with tempfile.TemporaryFile() as unpacked:
        written = 0
        with open_nifti(path) as packed:
            while block := packed.read(BLOCK):
                written += unpacked.write(block[: max(0, expected - written)])
        unpacked.flush()
        return cast(np.ndarray, np.memmap(unpacked, np.uint8, "r")) if written else np.empty(0, np.uint8)
