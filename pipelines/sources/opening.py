"""Safe opening of untrusted raster and HDF5 files.

A file is opened with the one driver that its first bytes identify, never with GDAL's guess (a VRT named scene.tif can
read other files and fetch URLs). Of sidecar files only masks (.msk) are read, by `layered`; .aux.xml, .ovr, .tfw and .j2w
are not: the file itself and the config count. Overviews are ignored, since some are blank. Sizes are checked before memory
is allocated. GDAL reads some truncated files without an error, so every tile or strip must end inside the file. HDF5 links,
external storage and virtual data sets, which refer to other files, are refused.
"""

from __future__ import annotations

import functools
import math
import os
import stat
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import rasterio
from rasterio.errors import NotGeoreferencedWarning, RasterioError

from pipelines.errors import DriftlineError, MissingInput, SceneRefused
from pipelines.sources.hdf5_chunks import has_endless_heap
from pipelines.sources.tiff_blocks import DamagedDirectory, blocks_of

MAX_BAND_PX = 60_000**2  # pixels of one band; a Sentinel-2 tile at 10 m has 0.12e9, this is 3.6e9
MAX_BLOCK_BYTES = 1 << 28  # one tile, strip or chunk, which the decoder allocates in one piece
LARGE_BYTES = 1 << 25  # of such large pieces one at a time is decoded, whatever the number of threads
SUPPORTED_KINDS = "iuf"  # numpy kinds: integers and floats; other kinds are not measurements

large_reads = threading.Lock()

GDAL_OPTIONS = {
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",  # no sidecar files
    "GDAL_PAM_ENABLED": False,  # no .aux.xml, neither read nor written
    "CPL_VSIL_CURL_ALLOWED_EXTENSIONS": "{none}",  # no network
    "GDAL_CACHEMAX": 64,  # MB of decoded tiles, of one process; GDAL's default is 5 % of the machine's memory
}


@contextmanager
def open_raster(
    path: str | Path, indexes: tuple[int, ...] | None = None, scene_id: str | None = None
) -> Iterator[rasterio.DatasetReader]:
    """The GeoTIFF, COG or JPEG2000 at `path`, checked. `indexes` are the 1-based bands that will be read (None: all).

    Raises MissingInput if the file does not exist, else SceneRefused(driver, too-large, truncated, unreadable).
    A read error inside the `with` block raises SceneRefused(unreadable) too.
    """
    path, label = Path(path), scene_id or Path(path).name
    with (
        nullcontext() if _kept.get() else rasterio.Env(**GDAL_OPTIONS),
        refusing(path, label, "rasterio"),
        _kept_or_opened(str(path), lambda: _raster_dataset(path, label)) as dataset,
    ):
        check_raster(dataset, path, label, indexes)
        yield dataset


@contextmanager
def refusing(path: Path, label: str, library: str) -> Iterator[None]:
    """Inside the context every error that `library` raises on what is in the file becomes SceneRefused(unreadable).

    Libraries answer damaged files with errors of many classes (KeyError, RuntimeError, UnicodeDecodeError, MemoryError...). An
    error of the same classes that does not come out of the library is ours, and stays what it is.
    """
    try:
        yield
    except DriftlineError:
        raise
    except Exception as error:
        if not isinstance(error, OSError | RasterioError) and not _comes_from(error, library):
            raise
        raise SceneRefused(label, "unreadable", f"{path.name} cannot be read: {_cause(error)[:500]}") from error


def _comes_from(error: Exception, library: str) -> bool:
    frames = (frame.f_code.co_filename for frame, _ in traceback.walk_tb(error.__traceback__))
    return any(library in name for name in frames)


def _raster_dataset(path: Path, label: str) -> rasterio.DatasetReader:
    head = _first_bytes(path, label)
    if head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        driver, problem = "GTiff", _damaged_directory(path)
        if not problem and (pages := blocks_of(path).pages) > 1:
            detail = f"{path.name} holds {pages} images, of which only the first would be read"
            raise SceneRefused(
                label, "missing-band", f"{detail}; write each to a file of its own (gdal_translate GTIFF_DIR:2:FILE)"
            )
    elif head[:12] == b"\0\0\0\x0cjP  \r\n\x87\n" or head[:4] == b"\xff\x4f\xff\x51":
        driver, problem = "JP2OpenJPEG", _jpeg2000_outside_file(path)
    else:
        detail = f"{path.name} is neither GeoTIFF nor JPEG2000, whatever its name says"
        remedy = "other formats are not opened: convert it with gdal_translate if you trust it"
        raise SceneRefused(label, "driver", f"{detail}; {remedy}")
    if problem:
        raise SceneRefused(label, "truncated", f"{path.name}: {problem}; download it again")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)  # the config may state what the file does not
            return rasterio.open(path, driver=driver, sharing=False, OVERVIEW_LEVEL="NONE", GEOREF_SOURCES="INTERNAL")
    except RasterioError as error:
        raise SceneRefused(label, "unreadable", f"{path.name} cannot be read as {driver}: {_cause(error)}") from error


def block_bytes_of(dataset: rasterio.DatasetReader, index: int) -> int:
    """What one decoded block of the 1-based band takes, with the other bands that lie in it."""
    rows, columns = dataset.block_shapes[index - 1]
    in_block = dataset.count if is_interleaved(dataset) else 1
    return int(rows * columns * np.dtype(dataset.dtypes[index - 1]).itemsize * in_block)


def is_interleaved(dataset: rasterio.DatasetReader) -> bool:
    """Whether every block holds the pixels of all bands."""
    return dataset.interleaving is not None and dataset.interleaving.value.lower() == "pixel"


def decoding(block_bytes: int) -> AbstractContextManager[object]:
    """Inside the context, blocks of so many bytes may be decoded: one thread at a time where they are large."""
    return large_reads if block_bytes > LARGE_BYTES else nullcontext()


def _damaged_directory(path: Path) -> str:
    try:
        blocks_of(path)
    except DamagedDirectory as error:
        return str(error)
    return ""


def band_descriptions(dataset: rasterio.DatasetReader) -> tuple[str, ...]:
    """What an open raster calls its bands, "" where it does not say.

    A dataset that was opened without overviews has lost them (GDAL's GDALOverviewDataset), so the file is opened once more.
    """
    status = Path(dataset.name).stat()
    return _band_descriptions(dataset.name, dataset.driver, status.st_mtime_ns, status.st_ctime_ns)


@functools.lru_cache(maxsize=20_000)
def _band_descriptions(path: str, driver: str, mtime_ns: int, ctime_ns: int) -> tuple[str, ...]:
    with warnings.catch_warnings(), rasterio.Env(**GDAL_OPTIONS):
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(path, driver=driver, sharing=False) as dataset:
            return tuple(text or "" for text in dataset.descriptions)


_Kept = tuple[ExitStack, dict[str, Any]]
_kept: ContextVar[_Kept | None] = ContextVar("kept", default=None)


@contextmanager
def files_kept_open() -> Iterator[None]:
    """Inside the context, in this thread, every file is opened and checked once, at first use, and closed at the end.

    GDAL's options are set here, once: that takes as long as reading a small file.
    """
    if _kept.get() is not None:
        yield
        return
    with rasterio.Env(**GDAL_OPTIONS), ExitStack() as stack:
        token = _kept.set((stack, {}))
        try:
            yield
        finally:
            _kept.reset(token)


@contextmanager
def _kept_or_opened(path: str, open_file: Callable[[], h5py.File | rasterio.DatasetReader]) -> Iterator[Any]:
    kept = _kept.get()
    if kept is None:
        with open_file() as file:
            yield file
        return
    stack, files = kept
    if path not in files:
        files[path] = stack.enter_context(open_file())
    yield files[path]


def _first_bytes(path: Path, label: str) -> bytes:
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise SceneRefused(label, "unreadable", f"{path.name} is not a regular file")
        if status.st_size == 0:
            raise SceneRefused(label, "truncated", f"{path.name} has 0 bytes; download it again")
        with path.open("rb") as file:
            return file.read(16)
    except FileNotFoundError as error:
        raise MissingInput(f"no such file: {path}") from error
    except OSError as error:
        raise SceneRefused(label, "unreadable", f"{path.name}: {error.strerror}") from error


def check_raster(dataset: rasterio.DatasetReader, path: Path, label: str, indexes: tuple[int, ...] | None) -> None:
    """Raises SceneRefused(missing-band, wrong-dtype, too-large, truncated) for the 1-based bands `indexes` (None: all)."""
    check_size(label, path.name, (dataset.height, dataset.width))
    in_each_block = is_interleaved(dataset)
    indexes = indexes or dataset.indexes
    for index in indexes:
        if not 1 <= index <= dataset.count:
            raise SceneRefused(label, "missing-band", f"{path.name} has no band {index}, only {dataset.count}")
        dtype = np.dtype(dataset.dtypes[index - 1])
        if dtype.kind not in SUPPORTED_KINDS:
            raise SceneRefused(label, "wrong-dtype", f"band {index} of {path.name} holds {dtype}; expected integers or floats")
        block_bytes = block_bytes_of(dataset, index)
        if block_bytes > MAX_BLOCK_BYTES:
            detail = f"one block of {path.name} takes {block_bytes / 1e9:.2f} GB of memory"
            limit = f"the limit is {MAX_BLOCK_BYTES / 1e9:.2f} GB; rewrite it in tiles (gdal_translate -of COG)"
            raise SceneRefused(label, "too-large", f"{detail}, {limit}")
    if dataset.driver == "GTiff":
        blocks, size = blocks_of(path), path.stat().st_size
        for index in indexes[:1] if in_each_block else indexes:
            if problem := blocks.outside(index, size):
                raise SceneRefused(label, "truncated", f"{path.name}: {problem}; download it again")


def _jpeg2000_outside_file(path: Path) -> str:
    """Message if a box (ISO 15444-1, annex I) or the codestream extends past the end of the file; "" if not."""
    size = path.stat().st_size
    with path.open("rb") as file:
        position, end = 0, 0
        if file.read(4) != b"\xff\x4f\xff\x51":
            while position < size:
                file.seek(position)
                header = file.read(16)
                if len(header) < 8:
                    return f"the header of a box at byte {position} is cut off"
                length, kind = int.from_bytes(header[:4], "big"), header[4:8]
                length = {0: size - position, 1: int.from_bytes(header[8:16], "big")}.get(length, length)
                if length < 8 or position + length > size:
                    return f"box {kind!r} ends at byte {position + length}, the file has {size}"
                position += length
                if kind == b"jp2c":
                    end = position
            if not end:
                return "it holds no codestream"
        file.seek(max((end or size) - 2, 0))
        return "" if file.read(2) == b"\xff\xd9" else "the codestream has no end marker"


def check_size(label: str, name: str, shape_yx: tuple[int, int]) -> None:
    """Raises SceneRefused for a band of more than MAX_BAND_PX pixels (too-large) or of none (unreadable)."""
    pixels = shape_yx[0] * shape_yx[1]
    if pixels < 1:
        raise SceneRefused(label, "unreadable", f"{name} has no pixels: {shape_yx[0]} x {shape_yx[1]}")
    if pixels > MAX_BAND_PX:
        detail = f"{name} declares {shape_yx[0]} x {shape_yx[1]} pixels, the limit is {MAX_BAND_PX:.1e}; split it first"
        raise SceneRefused(label, "too-large", detail)


@contextmanager
def open_hdf5(path: str | Path, scene_id: str | None = None) -> Iterator[h5py.File]:
    """The HDF5 or netCDF-4 file at `path`, read-only. Raises MissingInput, SceneRefused(driver, truncated, unreadable)."""
    path, label = Path(path), scene_id or Path(path).name
    with refusing(path, label, "h5py"), _kept_or_opened(str(path), lambda: _hdf5_file(path, label)) as file:
        yield file


def _hdf5_file(path: Path, label: str) -> h5py.File:
    head = _first_bytes(path, label)
    if head[:8] != b"\x89HDF\r\n\x1a\n":
        hint = "; this is classic netCDF: convert it with nccopy -k nc4" if head[:3] == b"CDF" else ""
        raise SceneRefused(label, "driver", f"{path.name} is not HDF5 (or netCDF-4), whatever its name says{hint}")
    if has_endless_heap(path):
        raise SceneRefused(label, "unreadable", f"{path.name} has a damaged global heap; download it again")
    try:
        return h5py.File(path, "r", locking="best-effort", rdcc_nbytes=64 << 20)
    except (OSError, RuntimeError, KeyError, ValueError) as error:
        reason = "truncated" if "truncated" in str(error) else "unreadable"
        raise SceneRefused(label, reason, f"{path.name} cannot be read as HDF5: {error}") from error


def hdf5_data_set(file: h5py.File, name: str, label: str) -> h5py.Dataset:
    """The numeric data set `name` stored in this file itself. Raises SceneRefused(missing-band, driver, wrong-dtype)."""
    item: h5py.Group | h5py.Dataset = file
    for part in name.strip("/").split("/"):
        link = item.get(part, getlink=True) if isinstance(item, h5py.Group) else None
        if link is None:
            found = ", ".join(hdf5_data_sets(file)[:12]) or "none"
            raise SceneRefused(label, "missing-band", f"no data set {name!r} in {_file_name(file)}; there are: {found}")
        if not isinstance(link, h5py.HardLink):
            raise SceneRefused(label, "driver", f"{name!r} in {_file_name(file)} is a link, which may point to another file")
        item = item[part]
    if not isinstance(item, h5py.Dataset) or item.dtype.kind not in SUPPORTED_KINDS:
        kind = item.dtype if isinstance(item, h5py.Dataset) else "a group"
        raise SceneRefused(label, "wrong-dtype", f"{name!r} in {_file_name(file)} is {kind}; expected integers or floats")
    if item.is_virtual or item.external:
        raise SceneRefused(label, "driver", f"the pixels of {name!r} in {_file_name(file)} are stored in other files")
    if item.ndim >= 2:
        check_size(label, f"{name!r} in {_file_name(file)}", item.shape[-2:])
    if item.chunks and math.prod(item.chunks) * item.dtype.itemsize > MAX_BLOCK_BYTES:
        limit = f"a chunk may take {MAX_BLOCK_BYTES / 1e6:.0f} MB of memory; rewrite it in smaller ones (h5repack -l CHUNK=...)"
        raise SceneRefused(label, "too-large", f"a chunk of {name!r} in {_file_name(file)} is {item.chunks}; {limit}")
    return item


def hdf5_data_sets(file: h5py.File) -> list[str]:
    """Names of the data sets with at least two axes; links are not followed."""
    names: list[str] = []

    def note(name: str, item: h5py.Group | h5py.Dataset) -> None:
        is_named = isinstance(name, str)  # bytes: not UTF-8
        if is_named and isinstance(item, h5py.Dataset) and item.ndim >= 2 and item.dtype.kind in SUPPORTED_KINDS:
            names.append(name)

    file.visititems(note)
    return sorted(names)


def _file_name(file: h5py.File) -> str:
    return Path(os.fsdecode(file.filename)).name


def _cause(error: BaseException) -> str:
    """The innermost message of chained GDAL errors."""
    while error.__cause__ is not None:
        error = error.__cause__
    return " ".join(str(error).split())


def check_inside(folder: Path, path: Path, label: str) -> None:
    """Raises SceneRefused(driver) for a symbolic link that leads nowhere or out of its folder (which may itself be a link)."""
    if not path.is_symlink():
        return
    if not path.exists():  # or one of links in a circle
        raise SceneRefused(label, "driver", f"{path.name} is a link that leads nowhere; replace it with the file")
    if not path.resolve().is_relative_to(folder.resolve()):
        raise SceneRefused(label, "driver", f"{path.name} is a link that points out of {folder.name}; replace it with the file")
