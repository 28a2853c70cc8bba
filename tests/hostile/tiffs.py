"""Hostile GeoTIFFs: cuts, changed bits, wrong tags, sparse tiles, bombs, metadata."""

from __future__ import annotations

import os
import struct
import tempfile
import zlib
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import numpy as np
import rasterio
from rasterio.shutil import copy as copy_raster
from rasterio.windows import Window

from tests.hostile.case import GRID, SIDE, Case, cuts, drawn, flipped, pixels, put

TILED = {"tiled": True, "blockxsize": 16, "blockysize": 16}
BASES: dict[str, tuple[str, int, dict[str, object]]] = {  # name -> group, bands, options
    "strips": ("tif", 1, {"blockysize": 8}),
    "strips-deflate": ("tif", 1, {"blockysize": 8, "compress": "deflate"}),
    "strips-lzw": ("tif", 1, {"blockysize": 8, "compress": "lzw", "predictor": 2}),
    "strips-packbits": ("tif", 1, {"blockysize": 16, "compress": "packbits"}),
    "big-endian": ("tif", 1, {"blockysize": 8, "ENDIANNESS": "BIG"}),
    "tiles": ("tif", 1, TILED),
    "tiles-zstd": ("tif", 1, {**TILED, "compress": "zstd"}),
    "tiles-deflate": ("tif", 1, {**TILED, "compress": "deflate", "predictor": 2}),
    "bigtiff": ("tif", 1, {**TILED, "compress": "deflate", "BIGTIFF": "YES"}),
    "cog": ("tif", 1, {"driver": "COG"}),
    "planar": ("pair", 2, {**TILED, "interleave": "band", "compress": "lzw"}),
    "pixel": ("pair", 2, {**TILED, "interleave": "pixel", "compress": "deflate"}),
    "masked": ("pair", 2, {**TILED, "mask": True}),
}
SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 11: 4, 12: 8, 16: 8}


def write(path: Path, values: np.ndarray, **options: object) -> None:
    count, height, width = values.shape
    profile = {"driver": "GTiff", "crs": GRID.crs, "transform": GRID.affine, "dtype": values.dtype.name}
    is_cog, has_mask = options.get("driver") == "COG", bool(options.pop("mask", False))
    profile |= {} if is_cog else options
    plain = path.with_name(path.name + ".plain.tif") if is_cog else path
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(
        plain, "w", count=count, height=height, width=width, **profile
    ) as file:  # fmt: skip
        file.write(values)
        if has_mask:
            file.write_mask(np.full(values.shape[1:], 255, "uint8"))
    if is_cog:
        copy_raster(plain, path, driver="COG", blocksize=32, compress="deflate", overviews="IGNORE_EXISTING")
        plain.unlink()


@cache
def base(name: str) -> bytes:
    _, count, options = BASES[name]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.tif"
        write(path, pixels(count), **options)
        return path.read_bytes()


def directories(content: bytes) -> Iterator[tuple[int, list[tuple[int, int, int, int, int]]]]:
    """(offset, entries) of each image directory; an entry is (where it lies, tag, type, count, position of its values)."""
    order, is_big = ("<" if content[:2] == b"II" else ">"), content[2:4] in (b"+\0", b"\0+")
    count_format, offset_format, size, inline = ("Q", "Q", 20, 8) if is_big else ("H", "I", 12, 4)
    (at,) = struct.unpack_from(order + offset_format, content, 8 if is_big else 4)
    while at:
        (count,) = struct.unpack_from(order + count_format, content, at)
        first, entries = at + struct.calcsize(count_format), []
        for where in range(first, first + count * size, size):
            tag, kind, values = struct.unpack_from(order + "HH" + offset_format, content, where)
            position = where + size - inline
            if values * SIZES.get(kind, 1) > inline:
                (position,) = struct.unpack_from(order + offset_format, content, position)
            entries.append((where, tag, kind, values, position))
        yield at, entries
        (at,) = struct.unpack_from(order + offset_format, content, first + count * size)


def values_of(content: bytes, entry: tuple[int, int, int, int, int]) -> list[int]:
    order = "<" if content[:2] == b"II" else ">"
    _, _, kind, count, position = entry
    return list(struct.unpack_from(f"{order}{count}{ {3: 'H', 4: 'I', 16: 'Q'}[kind] }", content, position))


def edges(content: bytes) -> Iterator[int]:
    """Where directories, values of tags, strips and tiles begin and end."""
    for at, entries in directories(content):
        yield at
        blocks: dict[int, list[int]] = {}
        for where, tag, kind, count, position in entries:
            yield from (where, position, position + count * SIZES.get(kind, 1))
            if tag in (273, 279, 324, 325):
                blocks[tag] = values_of(content, (where, tag, kind, count, position))
        for offsets, counts in ((273, 279), (324, 325)):
            for start, length in zip(blocks.get(offsets, []), blocks.get(counts, []), strict=True):
                yield from (start, start + length)


def with_entry(content: bytes, where: int, kind: int | None, count: int | None, value: int | None) -> bytes:
    """The content with parts of the directory entry at `where` replaced; `value` in place of the values or their position."""
    order, is_big = ("<" if content[:2] == b"II" else ">"), content[2:4] in (b"+\0", b"\0+")
    form, changed = "Q" if is_big else "I", bytearray(content)
    for at, code, number in ((2, "H", kind), (4, form, count), (12 if is_big else 8, form, value)):
        if number is not None:
            struct.pack_into(order + code, changed, where + at, number)
    return bytes(changed)


def wrong_tags(content: bytes) -> Iterator[tuple[str, bytes]]:
    (_, entries), *_ = directories(content)
    for where, tag, _, _, _ in entries:
        yield f"{tag}-zero", with_entry(content, where, None, None, 0)
        yield f"{tag}-huge", with_entry(content, where, None, None, 0xFFFFFFF0)
        yield f"{tag}-many", with_entry(content, where, None, 0x0FFFFFFF, None)
        yield f"{tag}-none", with_entry(content, where, None, 0, None)
        yield f"{tag}-type", with_entry(content, where, 99, None, None)
        yield f"{tag}-long", with_entry(content, where, 4, None, 70_000)


def craft(
    width: int, height: int, block: tuple[int, int], blocks: list[bytes], compression: int = 8, tiled: bool = True, bands: int = 1
) -> bytes:
    """A TIFF of uint16, all blocks of `blocks` (one: repeated for all), with the georeferencing of the grid."""
    rows, columns = block
    number = -(-height // rows) * (-(-width // columns) if tiled else 1)
    payload = b"".join(blocks)
    starts, at = [], 8
    for one in blocks:
        starts.append(at)
        at += len(one)
    offsets = starts * number if len(blocks) == 1 else starts
    lengths = [len(one) for one in blocks] * (number if len(blocks) == 1 else 1)
    keys = (1, 1, 0, 3, 1024, 0, 1, 1, 1025, 0, 1, 1, 3072, 0, 1, 32633)
    tags: list[tuple[int, str, tuple[float, ...]]] = [
        (256, "I", (width,)), (257, "I", (height,)), (258, "H", (16,) * bands), (259, "H", (compression,)), (262, "H", (1,)),
        (277, "H", (bands,)),
    ]  # fmt: skip
    if tiled:
        tags += [(322, "I", (columns,)), (323, "I", (rows,)), (324, "I", tuple(offsets)), (325, "I", tuple(lengths))]
    else:
        tags += [(273, "I", tuple(offsets)), (278, "I", (rows,)), (279, "I", tuple(lengths))]
    tags += [(33550, "d", (10.0, 10.0, 0.0)), (33922, "d", (0, 0, 0, 500_000.0, 5_000_000.0, 0)), (34735, "H", keys)]
    tags.sort()
    extra, entries = b"", b""
    base_at = at + 2 + 12 * len(tags) + 4
    for tag, code, values in tags:
        raw = struct.pack(f"<{len(values)}{code}", *values)
        kind = {"H": 3, "I": 4, "d": 12}[code]
        if len(raw) <= 4:
            entries += struct.pack("<HHI", tag, kind, len(values)) + raw.ljust(4, b"\0")
        else:
            entries += struct.pack("<HHII", tag, kind, len(values), base_at + len(extra))
            extra += raw
    return b"II*\0" + struct.pack("<I", at) + payload + struct.pack("<H", len(tags)) + entries + bytes(4) + extra


@cache
def zeros_deflated(size: int) -> bytes:
    packer, done, parts = zlib.compressobj(9), 0, []
    while done < size:
        step = min(1 << 22, size - done)
        parts.append(packer.compress(bytes(step)))
        done += step
    return b"".join([*parts, packer.flush()])


def bombs() -> Iterator[tuple[str, Callable[[Path], None]]]:
    def later(build: Callable[[], bytes]) -> Callable[[Path], None]:
        return lambda path: path.write_bytes(build()) and None

    for side in (5000, 12_000, 20_000):
        size = side * side * 2
        yield f"one-tile-{side}", later(lambda side=side, size=size: craft(side, side, (side, side), [zeros_deflated(size)]))
        yield (
            f"one-strip-{side}",
            later(lambda side=side, size=size: craft(side, side, (side, side), [zeros_deflated(size)], tiled=False)),
        )
    for side in (8192, 16_384):  # the raster is small, its only tile is not
        size = side * side * 2
        yield f"small-in-tile-{side}", later(lambda side=side, size=size: craft(SIDE, SIDE, (side, side), [zeros_deflated(size)]))
    yield "tile-longer-than-it-says", later(lambda: craft(SIDE, SIDE, (SIDE, SIDE), [zeros_deflated(400_000_000)]))
    yield "strip-longer-than-it-says", later(lambda: craft(SIDE, SIDE, (SIDE, SIDE), [zeros_deflated(400_000_000)], tiled=False))
    yield "many-bands", later(lambda: craft(SIDE, SIDE, (SIDE, SIDE), [zeros_deflated(SIDE * SIDE * 2 * 8000)], bands=8000))
    yield "bands-65535", later(lambda: craft(2048, 2048, (2048, 2048), [zeros_deflated(10_000)], bands=65_535))
    yield "shared-tile", later(lambda: craft(40_000, 40_000, (256, 256), [zeros_deflated(256 * 256 * 2)]))
    yield "shared-strip", later(lambda: craft(30_000, 30_000, (1, 30_000), [zeros_deflated(60_000)], tiled=False))
    for width, height in ((70_000, 70_000), (1, 2**31 - 1), (2**31 - 1, 1), (2**32 - 1, 2**32 - 1), (59_999, 59_999), (0, 0)):
        yield (
            f"declares-{width}x{height}",
            later(lambda w=width, h=height: with_size(craft(SIDE, SIDE, (64, 64), [b"\0" * 9]), w, h)),
        )


def with_size(content: bytes, width: int, height: int) -> bytes:
    (_, entries), *_ = directories(content)
    at = {tag: where for where, tag, _, _, _ in entries}
    return with_entry(with_entry(content, at[256], None, None, width), at[257], None, None, height)


def chained(content: bytes, loops: bool) -> bytes:
    """A directory whose successor is itself, or thousands of successors."""
    (at, entries), *_ = directories(content)
    next_at, changed = at + 2 + 12 * len(entries), bytearray(content)
    if loops:
        changed[next_at : next_at + 4] = struct.pack("<I", at)
        return bytes(changed)
    body = content[at:next_at]
    while len(changed) % 2:
        changed += b"\0"
    for _ in range(3000):
        changed[next_at : next_at + 4] = struct.pack("<I", len(changed))
        next_at = len(changed) + len(body)
        changed += body + bytes(4)
    return bytes(changed)


def sparse(name: str, share: float) -> tuple[bytes, np.ndarray]:
    """(file of which only some blocks were written, (y, x) which pixels those are)."""
    _, count, options = BASES[name]
    values, is_written = pixels(count), np.zeros((SIDE, SIDE), bool)
    rng = drawn("sparse", name, share)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.tif"
        profile = {"driver": "GTiff", "crs": GRID.crs, "transform": GRID.affine, "dtype": "uint16", "sparse_ok": True, **options}
        with rasterio.open(path, "w", count=count, height=SIDE, width=SIDE, **profile) as file:
            for _, window in file.block_windows(1):
                if rng.random() < share:
                    rows, columns = window.toslices()
                    file.write(values[:, rows, columns], window=Window.from_slices(rows, columns))
                    is_written[rows, columns] = True
        return path.read_bytes(), is_written


def emptied(name: str, zero_offset: bool, zero_count: bool) -> tuple[bytes, np.ndarray]:
    """(file whose directory says of the last block that it was never written, which pixels are there)."""
    content = bytearray(base(name))
    (_, entries), *_ = directories(content)
    order = "<" if content[:2] == b"II" else ">"
    is_tiled = "block" in str(BASES[name][2]) and "tiled" in BASES[name][2]
    for where in entries:
        if where[1] in ((273, 324) if zero_offset else ()) + ((279, 325) if zero_count else ()):
            size = SIZES[where[2]]
            struct.pack_into(f"{order}{size}s", content, where[4] + (where[3] - 1) * size, bytes(size))
    is_there, rows = np.ones((SIDE, SIDE), bool), int(BASES[name][2].get("blockysize", 32))  # type: ignore[call-overload]
    is_there[SIDE - rows :, SIDE - 16 if is_tiled else 0 :] = False
    return bytes(content), is_there


def abandoned(path: Path, rows: int) -> None:
    """A file whose writer ended, without closing it, after `rows` rows."""
    child = os.fork()
    if child == 0:
        file = rasterio.open(
            path,
            "w",
            driver="GTiff",
            crs=GRID.crs,
            transform=GRID.affine,
            dtype="uint16",
            count=1,
            height=SIDE,
            width=SIDE,
            **TILED,
        )
        file.write(pixels()[:, :rows], window=Window(0, 0, SIDE, rows))
        os._exit(0)
    os.waitpid(child, 0)
    if not path.exists():
        path.write_bytes(b"")


WORDS = (
    "\x1b[31mred\x1b[0m",
    "line\nbreak",
    "<script>alert(1)</script>",
    "[x](javascript:alert(1))",
    "a" * 5000,
    "\u202egnp",
    "$(id)",
)


def said(text: str) -> Callable[[Path], None]:
    """A good file that says `text` wherever it may."""

    def make(path: Path) -> None:
        write(path, pixels(), **TILED)
        with rasterio.open(path, "r+") as file:
            file.set_band_description(1, text)
            file.update_tags(TIFFTAG_IMAGEDESCRIPTION=text, TIFFTAG_SOFTWARE=text, any=text)
            file.update_tags(1, comment=text)

    return make


def cases() -> Iterator[Case]:
    for name, (group, count, _) in BASES.items():
        content, bands = base(name), pixels(count)
        for at, cut in cuts(content, edges(content), 24, name).items():
            yield Case(group, "cut-tiff", f"{name}-{at}", put(cut), "refused", bands)
        for at, changed in flipped(content, 14, name).items():
            yield Case(group, "flip-tiff", f"{name}-{at}", put(changed), "any", bands)
        head = max(position for _, entries in directories(content) for *_, position in entries[:8])
        for at, changed in flipped(content, 14, "head", name, until=min(head + 64, len(content))).items():
            yield Case(group, "header-tiff", f"{name}-{at}", put(changed), "any", bands)
        if name != "masked":
            for share in (0.0, 0.3, 0.7):
                if name != "cog":
                    made, is_written = sparse(name, share)
                    yield Case(group, "sparse-tiff", f"{name}-{share:g}", put(made), "missing", bands, is_written)
    for name in ("strips", "strips-deflate", "tiles", "tiles-zstd", "bigtiff", "pixel", "big-endian"):
        for zero_offset, zero_count in ((True, True), (True, False), (False, True)):
            made, is_there = emptied(name, zero_offset, zero_count)
            group, count, _ = BASES[name]
            kind = f"{name}-{zero_offset:d}{zero_count:d}"
            yield Case(group, "emptied-tiff", kind, put(made), "missing", pixels(count), is_there)
    for name in ("strips-lzw", "tiles", "bigtiff"):
        for what, changed in wrong_tags(base(name)):
            yield Case("tif", "tag-tiff", f"{name}-{what}", put(changed), "any", pixels())
    for rows in (0, 16, 48):
        is_written = np.arange(SIDE)[:, None].repeat(SIDE, 1) < rows
        yield Case(
            "tif", "killed-tiff", f"rows{rows}", lambda path, rows=rows: abandoned(path, rows), "missing", pixels(), is_written
        )
    for what, make in bombs():
        is_plausible = what.startswith("small") or "longer" in what  # of the size of the others, once it is decoded
        yield Case("tif", "bomb-tiff", what, make, "any" if is_plausible else "refused", pixels())
        yield Case("tif-warped", "bomb-tiff", what, make, "any", pixels())
    yield Case("tif", "chain-tiff", "loop", put(chained(base("tiles"), True)), "any", pixels())
    yield Case("tif", "chain-tiff", "long", put(chained(base("tiles"), False)), "whole", pixels())
    for number, text in enumerate(WORDS):
        yield Case("tif", "metadata-tiff", f"words{number}", said(text), "kept", pixels())
