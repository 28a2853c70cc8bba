"""What files beside rasters state of their values: the metadata of Sentinel-2 products, and GDAL's .aux.xml.

Their text is searched for a few elements and not parsed as XML: no entity is expanded, and nothing that they name is opened.
Sentinel-2: product specification 15, 4.6. GDAL: persistent auxiliary metadata (gdal.org, doxygen, gdalpamdataset).
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

PRODUCT_FILES = ("MTD_MSIL2A.xml", "MTD_MSIL1C.xml")
MAX_BYTES = 4 << 20
FOLDERS_UP = 5  # from a band of a .SAFE to its root
OTHER_LAYERS = re.compile(r"(?<![A-Za-z0-9])(?:SCL|AOT|WVP|TCI|CLD|SNW|PVI|QI)(?![A-Za-z0-9])")  # with values of their own
NUMBER = r"\s*(-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?)\s*<"


@dataclass(frozen=True)
class ProductMetadata:
    """Reflectance = stored * scale + offset, as a Sentinel-2 product states it. `nodata`: stored values that are missing."""

    name: str
    baseline: str
    scale: float
    offset: float
    nodata: tuple[float, ...] = ()


def product_metadata(path: Path) -> ProductMetadata | None:
    """What the product that a band's file is of says: in its .SAFE, or beside the file if its path has the product's date."""
    if OTHER_LAYERS.search(path.name):
        return None
    safe = safe_of(path)
    for name in PRODUCT_FILES:
        beside = (safe or path.parent) / name
        text = _text_of(beside)
        date = re.search(r"<PRODUCT_START_TIME>\s*(\d{4})-(\d\d)-(\d\d)T", text)
        is_of_file = safe is not None or (date is not None and re.search("[-_]?".join(date.groups()), str(path)))
        quantity = re.search(rf"<(?:BOA_)?QUANTIFICATION_VALUE\b[^>]*>{NUMBER}", text)
        offsets = set(re.findall(rf"<(?:BOA|RADIO)_ADD_OFFSET\b[^>]*>{NUMBER}", text)) or {"0"}
        if not is_of_file or quantity is None or float(quantity[1]) <= 0 or len(offsets) > 1:
            continue
        baseline = re.search(r"<PROCESSING_BASELINE>\s*(\d\d\.\d\d)\s*<", text)
        missing = re.findall(rf"<SPECIAL_VALUE_TEXT>\s*NODATA\s*</SPECIAL_VALUE_TEXT>\s*<SPECIAL_VALUE_INDEX>{NUMBER}", text)
        scale, nodata = 1 / float(quantity[1]), tuple(map(float, missing))
        return ProductMetadata(name, baseline[1] if baseline else "", scale, float(offsets.pop()) * scale, nodata)
    return None


def safe_of(path: Path) -> Path | None:
    """The .SAFE that a file lies in."""
    return next((one for one in [*path.parents][:FOLDERS_UP] if one.suffix == ".SAFE"), None)


def product_paths(band: str) -> tuple[str, ...]:
    """Where the metadata of the product may lie that a band as the agency delivers it (JPEG 2000) is of; () for other files."""
    if not band.lower().endswith(".jp2"):
        return ()
    path = Path(band)
    return tuple(str((safe_of(path) or path.parent) / name) for name in PRODUCT_FILES)


def product_files(paths: Iterable[str], used: Iterable[str]) -> set[str]:
    """Those of the paths (relative, with /) that are metadata of products whose files are used."""
    found = {path for path in paths if path.rpartition("/")[2] in PRODUCT_FILES}
    folders = {str(folder) for path in used for folder in PurePosixPath(path).parents} if found else set()
    return {path for path in found if str(PurePosixPath(path).parent) in folders}


def auxiliary_values(path: Path, index: int) -> tuple[tuple[str, float], ...]:
    """("nodata" | "scale" | "offset", value) of the 1-based band in the raster's .aux.xml, which is not read otherwise."""
    text = _text_of(Path(f"{path}.aux.xml"))
    bands = re.findall(rf'<PAMRasterBand band="{index}">(.*?)</PAMRasterBand>', text, re.DOTALL)
    elements = {"nodata": "NoDataValue", "scale": "Scale", "offset": "Offset"}
    found = {key: re.search(rf"<{name}\b[^>]*>{NUMBER}", " ".join(bands)) for key, name in elements.items()}
    return tuple((key, float(match[1])) for key, match in found.items() if match)


def _text_of(path: Path) -> str:
    """The file without its comments; "" if there is none, it is a link, or it is larger than MAX_BYTES."""
    try:
        status = path.lstat()
        if not path.is_file() or path.is_symlink() or status.st_size > MAX_BYTES:
            return ""
        return _read(str(path), status.st_mtime_ns)
    except OSError:
        return ""


@functools.lru_cache(maxsize=64)
def _read(path: str, mtime_ns: int) -> str:
    text = Path(path).read_bytes()[:MAX_BYTES].decode("utf-8", "replace")
    return re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)
