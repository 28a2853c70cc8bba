"""Pictures without a position: PNG, JPEG, BMP, TIFF and label images, opened by their first bytes, refused unless whole.

Pillow reads 16-bit colours of a PNG as 8 bits and stops quietly at the end of some truncated files, and GDAL ignores how a
picture is turned (EXIF); each file is read by the one that does it right.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
from PIL import Image, ImageOps, UnidentifiedImageError
from rasterio.errors import NotGeoreferencedWarning, RasterioError

from pipelines.errors import MissingInput, SceneRefused
from pipelines.sources.opening import GDAL_OPTIONS, open_raster

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
MAX_PICTURE_PX = 1 << 28  # of one picture, which is decoded in one piece
ORIENTATION = 274  # TIFF tag, and EXIF's
GREY, COLOURS = ("gray",), ("red", "green", "blue")
TURNS = {2: "mirrored", 3: "turned by 180°", 4: "mirrored", 5: "mirrored", 6: "turned by 90°", 7: "mirrored", 8: "turned by 90°"}


@dataclass(frozen=True)
class Picture:
    """`planes_BYX` of `components` (gray, or red, green, blue), in the dtype of the file; `notes`: what was done."""

    planes_BYX: np.ndarray
    components: tuple[str, ...]
    notes: tuple[str, ...] = ()


def read_picture(path: Path, label: str = "") -> Picture:
    """The picture, upright. Raises MissingInput, SceneRefused(driver, truncated, unreadable, too-large, wrong-dtype)."""
    label = label or path.name
    kind = _kind(path, label)
    if kind == "TIFF":
        return _read_tiff(path, label)
    if kind == "PNG" and _png_bits(path) == (16, True):
        return _of_planes(_read_deep_png(path, label), path, label, ("16 bits a colour",))
    with _opened(path, kind, label) as image:
        notes = []
        turn = image.getexif().get(ORIENTATION, 1)
        if turn in TURNS:
            image = ImageOps.exif_transpose(image)
            notes.append(f"{TURNS[turn]} as its EXIF orientation says")
        if "gamma" in image.info:
            notes.append("a gamma is stated, and not applied")
        if image.mode == "P":
            notes.append("colours of a palette are converted to red, green and blue")
            image = image.convert("RGBA" if "transparency" in image.info else "RGB")
        if image.mode in ("LA", "RGBA", "La", "RGBa"):
            notes.append("transparency is ignored")
            image = image.convert("L" if image.mode.startswith("L") else "RGB")
        if image.mode == "1":
            image = image.convert("L")
        if image.mode not in ("L", "RGB", "I;16", "I;16B", "I"):
            raise SceneRefused(
                label, "wrong-dtype", f"{path.name} has pixels of the kind {image.mode}; convert it to grey or RGB"
            )
        values = np.asarray(image)
    if values.dtype == np.int32:  # Pillow's I, of a 16-bit PNG
        values = values.astype(np.uint16)
    planes = values[None] if values.ndim == 2 else np.moveaxis(values, 2, 0)
    return _of_planes(np.ascontiguousarray(planes.astype(planes.dtype.newbyteorder("="))), path, label, tuple(notes))


def read_codes(path: Path) -> tuple[np.ndarray, tuple[str, ...]]:
    """((rows, columns) codes of a label image, notes): numbers of a palette, or grey values. Raises as `read_picture`."""
    kind = _kind(path, path.name)
    if kind == "PNG" and _png_bits(path) != (16, True):
        with _opened(path, kind, path.name) as image:
            if image.mode == "P":
                return np.asarray(image), ("codes are the numbers of the palette, not its colours",)
    picture = read_picture(path)
    if len(picture.planes_BYX) > 1:
        red, green, blue = picture.planes_BYX
        if not (np.array_equal(red, green) and np.array_equal(red, blue)):
            detail = f"{path.name} has colours: a mask or label image has one code per pixel; save it with a palette or in grey"
            raise SceneRefused(path.name, "wrong-dtype", detail)
    return picture.planes_BYX[0], picture.notes


def _of_planes(planes_BYX: np.ndarray, path: Path, label: str, notes: tuple[str, ...]) -> Picture:
    names = {1: GREY, 2: GREY, 3: COLOURS, 4: COLOURS}.get(len(planes_BYX))
    if names is None:
        detail = f"{path.name} has {len(planes_BYX)} bands; a picture is grey or red, green, blue (kind: folder reads others)"
        raise SceneRefused(label, "missing-band", detail)
    return Picture(planes_BYX[: len(names)], names, notes)


def _kind(path: Path, label: str) -> str:
    if not path.is_file():
        raise MissingInput(f"no such file: {path}")
    with path.open("rb") as file:
        head = file.read(8)
        file.seek(max(path.stat().st_size - 12, 0))
        tail = file.read()
    if head == b"\x89PNG\r\n\x1a\n":
        kind, is_whole = "PNG", tail[4:8] == b"IEND"
    elif head[:3] == b"\xff\xd8\xff":
        kind, is_whole = "JPEG", b"\xff\xd9" in tail
    elif head[:2] == b"BM":
        kind, is_whole = "BMP", int.from_bytes(head[2:6], "little") <= path.stat().st_size
    elif head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return "TIFF"
    else:
        raise SceneRefused(label, "driver", f"{path.name} is none of PNG, JPEG, BMP and TIFF, whatever its name says")
    if not is_whole:
        raise SceneRefused(label, "truncated", f"{path.name} has no end; copy it again")
    return kind


@contextmanager
def _opened(path: Path, kind: str, label: str) -> Iterator[Image.Image]:
    try:
        with warnings.catch_warnings(), Image.open(path, formats=[kind]) as image:
            warnings.simplefilter("error")
            if image.width * image.height > MAX_PICTURE_PX:
                detail = f"{path.name} declares {image.height} x {image.width} pixels, the limit is {MAX_PICTURE_PX:.1e}"
                raise SceneRefused(label, "too-large", detail)
            image.load()
            yield image
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as e:
        raise SceneRefused(label, "too-large", f"{path.name} declares more pixels than a picture may have") from e
    except (OSError, UnidentifiedImageError, ValueError, SyntaxError, EOFError, IndexError, UserWarning) as e:
        reason = "truncated" if "truncated" in str(e) else "unreadable"
        raise SceneRefused(label, reason, f"{path.name} cannot be read as {kind} ({type(e).__name__}); copy it again") from e


def _png_bits(path: Path) -> tuple[int, bool]:
    """(bits a sample, whether it has colours), of the header (PNG, 11.2.2)."""
    with path.open("rb") as file:
        head = file.read(26)
    return head[24], head[25] in (2, 6)


def _read_deep_png(path: Path, label: str) -> np.ndarray:
    try:
        with warnings.catch_warnings(), rasterio.Env(**GDAL_OPTIONS):
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with rasterio.open(path, driver="PNG", sharing=False) as dataset:
                if dataset.width * dataset.height > MAX_PICTURE_PX:
                    raise SceneRefused(label, "too-large", f"{path.name} declares {dataset.height} x {dataset.width} pixels")
                values: np.ndarray = dataset.read()
                return values
    except RasterioError as e:
        raise SceneRefused(label, "unreadable", f"{path.name} cannot be read as PNG; copy it again") from e


def _read_tiff(path: Path, label: str) -> Picture:
    turn = _tiff_orientation(path)
    if turn not in (0, 1):
        raise SceneRefused(
            label, "driver", f"{path.name} states the orientation {turn}; write it upright (ImageMagick -auto-orient)"
        )
    with open_raster(path, None, label) as dataset:
        if dataset.count > 1 and len(set(dataset.dtypes)) > 1:
            raise SceneRefused(label, "wrong-dtype", f"the bands of {path.name} differ in dtype")
        if dataset.width * dataset.height > MAX_PICTURE_PX:
            raise SceneRefused(label, "too-large", f"{path.name} declares {dataset.height} x {dataset.width} pixels")
        notes = ("its position on Earth is not used (kind: folder uses it)",) if dataset.crs else ()
        return _of_planes(dataset.read(), path, label, notes)


def _tiff_orientation(path: Path) -> int:
    """Tag 274 of the first directory of a classic TIFF (TIFF 6.0, section 8); 0 where there is none."""
    with path.open("rb") as file:
        head = file.read(8)
        order = "little" if head[:2] == b"II" else "big"
        if head[2:4] not in (b"*\0", b"\0*"):
            return 0
        file.seek(int.from_bytes(head[4:8], order))  # type: ignore[arg-type]
        count = int.from_bytes(file.read(2), order)  # type: ignore[arg-type]
        for entry in (file.read(12) for _ in range(count)):
            if int.from_bytes(entry[:2], order) == ORIENTATION:  # type: ignore[arg-type]
                return int.from_bytes(entry[8:10], order)  # type: ignore[arg-type]
    return 0
