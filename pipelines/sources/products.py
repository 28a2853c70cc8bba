"""Standard products by their file names: which bands are red and near infrared, how values are packed, which band masks clouds.

Names and packing: Landsat Collection 1 and 2 (USGS LSDS-1656, LSDS-1619), Sentinel-2 (ESA product specification 15), HLS 2.0
(user guide), MODIS and VIIRS vegetation indices (MOD13, VNP13 user guides), Planet (PlanetScope product specification),
CBERS-4 and 4A (INPE), Sentinel-1 RTC (Planetary Computer, HyP3, OPERA).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

FMASK_CLEAR = tuple(value for value in range(256) if not value & 0b11110)  # neither cloud, beside it, shadow nor snow


@dataclass(frozen=True)
class MaskBand:
    """A band that masks clouds: `kind` of the config's quality, and its `collection` or `valid_values` where it has them."""

    kind: str
    collection: int | None = None
    valid_values: tuple[int, ...] = ()


SCL, QA_PIXEL, BQA = MaskBand("scl"), MaskBand("landsat", 2), MaskBand("landsat", 1)
MASK_BANDS = {  # by name, without the resolution
    "SCL": SCL, "QA_PIXEL": QA_PIXEL, "BQA": BQA,
    "FMASK": MaskBand("mask", valid_values=FMASK_CLEAR),
    "CLM": MaskBand("mask", valid_values=(0,)),
    "CMASK": MaskBand("mask", valid_values=(127,)),
    "QA60": MaskBand("mask", valid_values=(0,)),
    "PIXEL_RELIABILITY": MaskBand("mask", valid_values=(0, 1)),
}  # fmt: skip


@dataclass(frozen=True)
class Product:
    """A standard product. Bands as the names of files have them; scale 1 and offset 0: as the files say."""

    name: str
    file_names: str  # regular expression
    red: str = ""
    nir: str = ""
    scale: float = 1.0
    offset: float = 0.0
    nodata: float | None = None
    in_file: tuple[tuple[str, ...], ...] = ()  # names of the bands of files with so many bands
    remark: str = ""


LANDSAT_SR = (2.75e-5, -0.2, 0.0)
OLI, TM = r"L[CO]0[89]", r"L[TE]0[457]"
L1 = "digital numbers of level 1: not comparable between dates without the sun's elevation; level 2 is reflectance"
SENTINEL2 = r"S2[ABC]_MSIL|S2[ABC]_\d{1,2}[A-Z]{3}_\d{8}|(?:^|/)(?:L2A_)?T\d{2}[A-Z]{3}_\d{8}T\d{6}_"
PRODUCTS = (
    Product("Landsat Collection 2 level 2 (OLI)", OLI + r"_L2S[PR]_\d{6}_\d{8}_\d{8}_02_", "SR_B4", "SR_B5", *LANDSAT_SR),
    Product("Landsat Collection 2 level 2 (TM, ETM+)", TM + r"_L2S[PR]_\d{6}_\d{8}_\d{8}_02_", "SR_B3", "SR_B4", *LANDSAT_SR),
    Product("Landsat level 1 (OLI)", r"L[CO](?:0[89]_L1|8\d{13})", "B4", "B5", nodata=0, remark=L1),
    Product("Landsat level 1 (TM, ETM+)", r"L[TE](?:0[457]_L1|[457]\d{13})", "B3", "B4", nodata=0, remark=L1),
    Product("HLS S30", r"HLS\.S30\.", "B04", "B8A", 1e-4, 0.0, -9999),
    Product("HLS L30", r"HLS\.L30\.", "B04", "B05", 1e-4, 0.0, -9999),
    Product("Sentinel-2", SENTINEL2, "B04", "B08", 1e-4, 0.0, 0),
    Product(
        "PlanetScope", r"\d{8}_\d{6}(?:_\d{2})?_[0-9a-f]{4}_[13][AB]_",
        "red", "nir", 1e-4, 0.0, 0,
        in_file=(
            ("blue", "green", "red", "nir"),
            ("coastal_blue", "blue", "green_i", "green", "yellow", "red", "rededge", "nir"),
        ),
        remark="the mask is in udm2 files, which a run cannot use; mask them before",
    ),
    Product("CBERS (MUX)", r"CBERS_4A?_MUX_", "BAND7", "BAND8", nodata=0),
    Product("CBERS (WFI, AWFI)", r"CBERS_4A?_A?WFI_", "BAND15", "BAND16", nodata=0),
    Product("CBERS (WPM)", r"CBERS_4A?_WPM_", "BAND3", "BAND4", nodata=0),
    Product("Sentinel-1 RTC", r"S1[ABC]_IW_|RTC-S1_", remark="backscatter as a power; set transform: log1p, or take decibels"),
    Product("MODIS or VIIRS vegetation indices", r"(?:M[OY]D|MCD|VNP|VJ1)\d{2}[A-Z]\w\."),
)  # fmt: skip
BASELINE = re.compile(r"S2[A-D]_MSIL[12][AC]_\d{8}T\d{6}_N(\d{4})_")  # processing baseline, in the names of SAFE folders
BASELINE_OFFSET = -0.1  # of reflectance, from processing baseline 04.00 on
BESIDE = re.compile(r"_(?:udm2?|DN_udm)\.tiff?$", re.IGNORECASE)  # masks of their own layout beside the images
# bands whose names hold a separator of file names
COMPOUND = re.compile(
    r"(?<![A-Za-z0-9])(?:SR_B\d{1,2}|ST_B\d{1,2}|QA_PIXEL|QA_RADSAT|SR_QA_AEROSOL|SR_CLOUD_QA|SR_ATMOS_OPACITY|ST_[A-Z]{2,5}"
    r"|(?:B\d{2}|B8A|SCL|AOT|WVP|TCI|CLD|SNW)_(?:10|20|60)m|AnalyticMS_SR(?:_8b)?|AnalyticMS|udm2?|DN_udm"
    r"|\d+m_(?:\d+_days|monthly)_[A-Za-z0-9_]+?(?=_doy|\.tif|$))(?![A-Za-z0-9])"
)


def product_of(names: Sequence[str]) -> Product | None:
    """The product that most of the paths are of; None if fewer than half are of any."""
    found = Counter(next((n for n, one in enumerate(PRODUCTS) if re.search(one.file_names, name)), -1) for name in names)
    best, count = found.most_common(1)[0] if found else (-1, 0)
    return PRODUCTS[best] if best >= 0 and count * 2 >= len(names) else None


def products_in(names: Sequence[str]) -> list[str]:
    """The names of all products that the file names are of."""
    kinds = (next((one.name for one in PRODUCTS if re.search(one.file_names, name)), "") for name in names)
    return [name for name in dict.fromkeys(kinds) if name]


def baselines_of(names: Sequence[str]) -> list[bool]:
    """Whether Sentinel-2 paths are of processing baseline 04.00 or later; paths that do not say are left out."""
    return [match[1] >= "0400" for name in names if (match := BASELINE.search(name))]


def with_baseline(product: Product | None, names: Sequence[str]) -> Product | None:
    """Sentinel-2 with the offset that the processing baseline in all of the paths has; other products as they are."""
    late = baselines_of(names)
    if product is None or not late or not all(late):
        return product
    return replace(product, name=f"{product.name} from processing baseline 04.00 on", offset=BASELINE_OFFSET)


def baseline_remark(names: Sequence[str], offset: float) -> str:
    """What the processing baselines of Sentinel-2 paths say against reading all with `offset` (of reflectance); "" if nothing."""
    late = baselines_of(names)
    if any(late) and not all(late):
        return (
            f"by their names {sum(late)} of {len(late)} Sentinel-2 files are of processing baseline 04.00 or later (offset "
            f"{BASELINE_OFFSET} of reflectance), the others before (0): unless they were harmonised, ingest them apart"
        )
    if late and late[0] != (offset != 0):
        there, state = (BASELINE_OFFSET, "state") if late[0] else (0, "do not state")
        is_of = f"by their names the Sentinel-2 files have the offset {there} of reflectance (processing baseline)"
        return f"{is_of}, the bands {offset:g}: {state} source.offset: {BASELINE_OFFSET}, unless they were harmonised"
    return ""


def band_word(band: str) -> str:
    """A band's name without resolution and composite: B04_10m -> B04, 250m_16_days_NDVI -> NDVI."""
    return re.sub(r"_(?:10|20|60)m$|^\d+m_(?:\d+_days|monthly)_", "", band)


def mask_band(bands: Sequence[str]) -> str | None:
    """The first band that masks clouds."""
    return next((band for band in bands if band_word(band).upper() in MASK_BANDS), None)
