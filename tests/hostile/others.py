"""Hostile JPEG2000 files, files of other formats under false names, links of the file system, names."""

from __future__ import annotations

import gzip
import os
import struct
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import numpy as np

from tests.hostile import hdf5s, tiffs
from tests.hostile.case import SIDE, Case, cuts, flipped, pixels, put

JP2_BASES: dict[str, dict[str, object]] = {
    "plain": {"quality": 100, "reversible": True},
    "tiled": {"quality": 100, "reversible": True, "blockxsize": 32, "blockysize": 32},
    "layers": {"quality": 100, "reversible": True, "resolutions": 2, "progression": "RPCL"},
}


@cache
def jp2(name: str) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.jp2"
        tiffs.write(path, pixels(), **{"driver": "JP2OpenJPEG", **JP2_BASES[name]})
        return path.read_bytes()


def boxes(content: bytes) -> Iterator[int]:
    """Where boxes begin and end, and the markers of the codestream."""
    at = 0
    while at + 8 <= len(content):
        length, kind = struct.unpack_from(">I4s", content, at)
        yield at
        if kind == b"jp2c":
            yield from (at + 8 + n for n in range(0, 120, 8))
        at += length or len(content) - at
    yield at


def with_sizes(content: bytes, width: int, height: int, tile: int, components: int = 1) -> bytes:
    """Another size in the header box and in the codestream."""
    changed = bytearray(content)
    header, size = content.index(b"ihdr") + 4, content.index(b"\xff\x51") + 2
    struct.pack_into(">II", changed, header, height, width)
    struct.pack_into(">II", changed, size + 4, width, height)
    struct.pack_into(">II", changed, size + 20, tile, tile)
    if components != 1:
        struct.pack_into(">H", changed, header + 8, components)
        struct.pack_into(">H", changed, size + 36, components)
    return bytes(changed)


def jp2_cases() -> Iterator[Case]:
    bands = pixels()
    for name in JP2_BASES:
        content = jp2(name)
        for at, cut in cuts(content, list(boxes(content)), 30, name).items():
            yield Case("jp2", "cut-jp2", f"{name}-{at}", put(cut), "refused", bands)
        for at, changed in flipped(content, 30, name).items():
            yield Case("jp2", "flip-jp2", f"{name}-{at}", put(changed), "any", bands)
        start = content.index(b"jp2c") + 120
        for at, changed in flipped(content, 30, "head", name, until=start).items():
            yield Case("jp2", "header-jp2", f"{name}-{at}", put(changed), "any", bands)
    for width, height, tile in (
        (60_000, 60_000, 60_000), (59_999, 59_999, 32), (2**31 - 1, 1, 1), (2**32 - 1, 2**32 - 1, 2**32 - 1), (20_000, 20_000,
        20_000),
        (10_000, 10_000, 1), (0, 0, 1), (SIDE, SIDE, 0), (SIDE, SIDE, 2**31),
    ):  # fmt: skip
        for group in ("jp2", "jp2-warped"):
            content = with_sizes(jp2("tiled"), width, height, tile)
            yield Case(group, "bomb-jp2", f"declares-{width}x{height}-{tile}", put(content), "any", bands)
    yield Case("jp2", "bomb-jp2", "components", put(with_sizes(jp2("plain"), SIDE, SIDE, SIDE, 16_384)), "any", bands)


# ---------------------------------------------------------------- false names

VRT = (
    '<VRTDataset rasterXSize="64" rasterYSize="64"><SRS>EPSG:32633</SRS><GeoTransform>500000,10,0,5000000,0,-10</GeoTransform>'
    '<VRTRasterBand dataType="UInt16" band="1"><SimpleSource><SourceFilename relativeToVRT="{relative}">{target}</SourceFilename>'
    "<SourceBand>1</SourceBand></SimpleSource></VRTRasterBand></VRTDataset>"
)


def _zip(folder: str) -> bytes:
    path = Path(folder) / "a.zip"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("a.tif", tiffs.base("tiles"))
    return path.read_bytes()


@cache
def disguises() -> dict[str, bytes]:
    with tempfile.TemporaryDirectory() as folder:
        packed = _zip(folder)
    vrts = {
        f"vrt{n}": VRT.format(relative=relative, target=target).encode()
        for n, (relative, target) in enumerate(
            (
                (0, "{secret}"),
                (1, "../outside/secret.tif"),
                (0, "/vsicurl/{url}/a.tif"),
                (0, "/vsizip//etc/x.zip"),
                (0, "{url}/a.tif"),
            )
        )
    }
    good = tiffs.base("tiles")
    return {
        **vrts,
        "vrt-space": b"\n  " + vrts["vrt0"],
        "vrt-bom": b"\xef\xbb\xbf" + vrts["vrt0"],
        "vrt-python": VRT.format(relative=0, target="x").replace("<SimpleS",
        "<PixelFunctionLanguage>Python</PixelFunctionLanguage><SimpleS").encode(),
        "pdf": b"%PDF-1.7\n1 0 obj<</Type/Catalog/OpenAction<</S/URI/URI({url})>>>>endobj\n%%EOF",
        "envi": b"ENVI\nsamples = 64\nlines = 64\nbands = 1\ndata type = 12\ninterleave = bsq\nbyte order = 0\n",
        "raw": pixels().tobytes(),
        "text": b"hello, I am no raster\n",
        "html": b"<html><script>alert(1)</script>",
        "wms": b"<GDAL_WMS><Service name='TMS'><ServerUrl>{url}/${z}</ServerUrl></Service></GDAL_WMS>",
        "wcs": b"<WCS_GDAL><ServiceURL>{url}?</ServiceURL></WCS_GDAL>",
        "gti": b"<GDALTileIndexDataset><IndexDataset>{url}/a.gpkg</IndexDataset></GDALTileIndexDataset>",
        "stac": b'{"type": "FeatureCollection", "stac_version": "1.0.0", "features": []}',
        "png": b"\x89PNG\r\n\x1a\n" + bytes(60),
        "jpeg": b"\xff\xd8\xff\xe0" + bytes(60),
        "gif": b"GIF89a" + bytes(60),
        "grib": b"GRIB" + bytes(60),
        "ascii-grid": b"ncols 64\nnrows 64\nxllcorner 0\nyllcorner 0\ncellsize 1\n" + b"1 " * 4096,
        "netcdf-3": b"CDF\x01" + bytes(200),
        "hdf4": b"\x0e\x03\x13\x01" + bytes(200),
        "sqlite": b"SQLite format 3\0" + bytes(200),
        "zip": packed,
        "gzip": gzip.compress(good, mtime=0),
        "xz": b"\xfd7zXZ\0" + bytes(60),
        "elf": b"\x7fELF" + bytes(60),
        "script": b"#!/bin/sh\ntouch /tmp/driftline-was-here\n",
        "pickle": b"\x80\x04\x95\x1c\0\0\0\0\0\0\0\x8c\x05posix\x94\x8c\x06system\x94\x93\x94.",
        "nul": bytes(4096),
        "ones": b"\xff" * 4096,
        "tiff-magic": b"II*\0",
        "tiff-magic-vrt": b"II*\0" + vrts["vrt0"],
        "bigtiff-magic": b"II+\0\x08\0\0\0" + b"\xff" * 8,
        "tiff-mdi": b"EP*\0" + good[4:],
        "tiff-after-text": b"text\n" + good,
        "hdf5-magic": b"\x89HDF\r\n\x1a\n",
        "jp2-magic": b"\0\0\0\x0cjP  \r\n\x87\n",
        "j2k-magic": b"\xff\x4f\xff\x51",
        "empty": b"",
        "one-byte": b"I",
    }  # fmt: skip


def disguised(content: bytes) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        above = path.parent.parent
        outside = outside_tiff(path)
        url = (above / "url.txt").read_text() if (above / "url.txt").exists() else "http://127.0.0.1:9"
        path.write_bytes(content.replace(b"{secret}", str(outside).encode()).replace(b"{url}", url.encode()))
        if content[:4] == b"ENVI":
            path.with_suffix(".hdr").write_bytes(content)

    return make


def disguise_cases() -> Iterator[Case]:
    for what, content in disguises().items():
        for group in ("tif", "jp2", "h5"):
            yield Case(group, f"disguise-{group}", what, disguised(content), "refused", pixels())
    yield Case("tif", "disguise-tif", "hdf5", put(hdf5s.base("gzip")), "refused", pixels())
    yield Case("h5", "disguise-h5", "tiff", put(tiffs.base("tiles")), "refused", pixels())
    yield Case("jp2", "disguise-jp2", "tiff", put(tiffs.base("tiles")), "whole", pixels())


# ---------------------------------------------------------------- what is no file of the folder


def outside_tiff(path: Path) -> Path:
    found = path.parent.parent / "outside" / "secret.tif"
    found.parent.mkdir(exist_ok=True)
    if not found.exists():
        tiffs.write(found, np.full((1, SIDE, SIDE), 4242, "uint16"))
    return found


def linked_to(target: Callable[[Path], Path | str]) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        path.symlink_to(target(path))

    return make


def beside(suffix: str, make_it: Callable[[Path], None]) -> Callable[[Path], None]:
    """A good file with a file beside it."""

    def make(path: Path) -> None:
        path.write_bytes(tiffs.base("tiles"))
        make_it(path.with_name(path.name + suffix))

    return make


def _inside(path: Path) -> Path:
    found = path.parent / "kept" / f"{path.stem}.bin"
    found.parent.mkdir(exist_ok=True)
    found.write_bytes(tiffs.base("tiles"))
    return found


def _loop(path: Path) -> None:
    other = path.with_suffix(".again")
    path.symlink_to(other)
    other.symlink_to(path)


def _chain(path: Path) -> None:
    step = path.with_suffix(".step")
    step.symlink_to(outside_tiff(path))
    path.symlink_to(step)


def _mask(path: Path) -> None:
    outside = outside_tiff(path).with_name("mask.tif")
    if not outside.exists():
        tiffs.write(outside, np.zeros((1, SIDE, SIDE), "uint8"))
    path.symlink_to(outside)


def _unreadable(path: Path) -> None:
    path.write_bytes(tiffs.base("tiles"))
    path.chmod(0)


def _world(path: Path) -> None:
    path.write_bytes(tiffs.base("tiles"))
    path.with_suffix(".tfw").write_text("1\n0\n0\n-1\n0\n0\n")


LINKS: dict[str, tuple[str, Callable[[Path], None]]] = {
    "outside": ("refused", linked_to(outside_tiff)),
    "relative": ("refused", linked_to(lambda path: Path("../outside") / outside_tiff(path).name)),
    "chain": ("refused", _chain),
    "dangling": ("refused", linked_to(lambda path: "/nowhere/at/all.tif")),
    "loop": ("refused", _loop),
    "device": ("refused", linked_to(lambda path: "/dev/zero")),
    "random": ("refused", linked_to(lambda path: "/dev/urandom")),
    "passwd": ("refused", linked_to(lambda path: "/etc/passwd")),
    "memory": ("refused", linked_to(lambda path: "/proc/self/mem")),
    "standard-input": ("refused", linked_to(lambda path: "/dev/stdin")),
    "inside": ("whole", linked_to(_inside)),
    "fifo": ("refused", lambda path: os.mkfifo(path)),
    "folder": ("whole", lambda path: path.mkdir()),
    "hard": ("any", lambda path: os.link(outside_tiff(path), path)),
    "unreadable": ("whole", _unreadable),
    "mask-outside": ("refused", beside(".msk", _mask)),
    "mask-fifo": ("kept", beside(".msk", lambda path: os.mkfifo(path))),
    "mask-text": ("refused", beside(".msk", put(b"no mask"))),
    "mask-vrt": ("refused", beside(".msk", disguised(disguises()["vrt0"]))),
    "mask-bomb": ("refused", beside(".msk", lambda path: path.write_bytes(
        tiffs.craft(8192, 8192, (8192, 8192), [tiffs.zeros_deflated(8192 * 8192 * 2)])) and None)),
    "aux": ("kept", beside(".aux.xml", put(b"<PAMDataset><SRS>EPSG:4326</SRS></PAMDataset>"))),
    "overviews": ("kept", beside(".ovr", put(b"II*\0"))),
    "world": ("kept", _world),
}  # fmt: skip


def link_cases() -> Iterator[Case]:
    for what, (expected, make) in LINKS.items():
        yield Case("tif", "link-file", what, make, expected, pixels())  # type: ignore[arg-type]


# ---------------------------------------------------------------- names

NAMES: tuple[str | bytes, ...] = (
    "\x1b[31mred\x1b[0m", "\x1b]0;title\x07", "\x1b[2J", "line\nbreak", "carriage\rreturn", "tab\there", "bell\x07",
    "back\x08space",
    "del\x7f", "c1\x9b31m", "rtl\u202egnp", "zero\u200bwidth", "bom\ufeff", "nbsp\xa0", "line\u2028separator", "e\u0301 and \xe9",
    "\U0001f600", "\ufffe", "a" * 200, "\u00e9" * 100, " leading", "trailing ", "-rf", "--set", "*", "?", "[a-z]", "{date:%Y}",
    "{band}",
    "%s%n%d", "%00", "$(touch x)", "`touch x`", ";touch x;", "&&", "|cat", "<script>alert(1)<", "<img src=x onerror=alert(1)>",
    "[link](http:%2f%2fexample.com)", "![i](x)", "**bold**", "| a | b |", "'quote'", '"quote"', "\\back\\slash", "C:\\x", "..",
    "...", "#x",
    "a?b=c&d", "http:x", "vsicurl", "NUL", "con", "=cmd()", "+1", "@x", "~root", "null", "true", "1e309", "0x1F", "&lt;", "&#0;",
    b"\xff\xfe", b"caf\xe9", b"\xed\xa0\x80", b"\xc0\xaf", b"ok\x80",
)  # fmt: skip


def renamed(name: str | bytes) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        raw = name if isinstance(name, bytes) else name.encode()
        whole = os.fsencode(path.parent) + b"/" + path.name.split("_")[0].encode() + b"_" + raw + path.suffix.encode()
        with open(whole, "wb") as file:  # noqa: PTH123  # a name of bytes
            file.write(tiffs.base("tiles"))

    return make


def name_cases() -> Iterator[Case]:
    for number, name in enumerate(NAMES):
        is_text = isinstance(name, str)
        yield Case("tif", "name", f"name{number}", renamed(name), "kept" if is_text else "refused", pixels())


def cases() -> Iterator[Case]:
    yield from jp2_cases()
    yield from disguise_cases()
    yield from link_cases()
    yield from name_cases()
