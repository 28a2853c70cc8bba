"""What files state of their values outside of the places of GDAL and CF: radar HDF5 (ODIM, KNMI), tags of weather services.

ODIM: EUMETNET OPERA data information model 2.4, table 13. KNMI: HDF5 Data Format Specification 3.5.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import h5py
import numpy as np

from pipelines.sources.cf_attributes import float_attribute, text_attribute
from pipelines.sources.facts import is_close, numbers_in
from pipelines.wording import harmless

SCALES = ("scale_factor", "scalefactor", "scale", "gain", "slope")
OFFSETS = ("add_offset", "offset", "intercept")
MISSING = ("_fillvalue", "missing_value", "nodata", "no_data", "nodata_value")
READ = ("scale_factor", "add_offset", "_FillValue", "missing_value")  # as CF spells them


@dataclass(frozen=True)
class Notation:
    """Physical value = stored * scale + offset; 1 and 0 where nothing is stated. `nodata`: stored values that are missing.

    `undetect`: the stored value of radar pixels that were measured and hold no echo.
    """

    scale: float = 1.0
    offset: float = 0.0
    nodata: tuple[float, ...] = ()
    undetect: float | None = None

    def completing(self, scale: float, offset: float, nodata: tuple[float, ...]) -> Notation:
        """What GDAL or CF states; where that is no packing, this one. The values that mean missing count together."""
        is_unstated = (scale, offset) == (1, 0)
        both = tuple(dict.fromkeys((*nodata, *self.nodata)))
        scale, offset = (self.scale, self.offset) if is_unstated else (scale, offset)
        return Notation(scale, offset, both, self.undetect)

    def no_echo(self) -> str:
        """What becomes of pixels without an echo; "" where the file does not tell them from others."""
        if self.undetect is None or self.undetect in self.nodata:
            return ""
        value = self.undetect * self.scale + self.offset
        return f"state undetect {self.undetect:g} (no echo): these pixels are not missing, they have the value {value:g}"


def of_radar(data: h5py.Dataset) -> Notation:
    """Gain, offset and nodata of ODIM (`what` beside the data set or one level above), or the formula of KNMI's calibration."""
    if (calibration := _group(data.parent, "calibration")) is not None:
        formula = re.search(r"GEO=(-?[\d.]+)\*PV([+-][\d.]+)", text_attribute(calibration, "calibration_formulas"))
        missing = (float_attribute(calibration, f"calibration_{key}") for key in ("missing_data", "out_of_image"))
        scale, offset = (float(formula[1]), float(formula[2])) if formula else (1.0, 0.0)
        return Notation(scale, offset, tuple(dict.fromkeys(value for value in missing if value is not None)))
    stated: dict[str, float] = {}
    for group in (data.parent.parent, data.parent):
        if (what := _group(group, "what")) is not None:
            values = {key: float_attribute(what, key) for key in ("gain", "offset", "nodata", "undetect")}
            stated |= {key: value for key, value in values.items() if value is not None}
    nodata = (stated["nodata"],) if "nodata" in stated else ()
    return Notation(stated.get("gain", 1.0), stated.get("offset", 0.0), nodata, stated.get("undetect"))


def of_tags(band: Mapping[str, str], file: Mapping[str, str]) -> Notation:
    """CF's packing in the tags of a band, else the XML items Gain, Offset and Nodata of weather services in those of the file."""
    scale, offset = (
        [*numbers_in(band.get(key, "")), otherwise][0] for key, otherwise in (("scale_factor", 1.0), ("add_offset", 0.0))
    )
    if (scale, offset) != (1, 0):
        return Notation(scale, offset)
    texts = " ".join(file.values())
    items = {word: re.search(rf'name="{word}"[^>]*>\s*(-?\d+(?:\.\d+)?)\s*<', texts) for word in ("Gain", "Offset", "Nodata")}
    found = {word: float(match[1]) for word, match in items.items() if match}
    nodata = (found["Nodata"],) if "Nodata" in found else ()
    return Notation(found.get("Gain", 1.0), found.get("Offset", 0.0), nodata)


def kind_of(key: str) -> str:
    """Which fact the key of an attribute or tag seems to state: scale, offset, nodata, or ""."""
    kinds = {"scale": SCALES, "offset": OFFSETS, "nodata": MISSING}
    return next((kind for kind, words in kinds.items() if key.rpartition(":")[2].lower() in words), "")


def unread(stated: Iterable[tuple[str, object]], known: Notation) -> tuple[str, ...]:
    """Attributes or tags that seem to state a packing or a missing value other than `known`, as `key=value`."""
    found = []
    for key, value in stated:
        numbers = np.asarray(numbers_in(value) if isinstance(value, str) else value).reshape(-1)[:1]
        if numbers.size != 1 or numbers.dtype.kind not in "iuf":
            continue
        number, kind = float(numbers[0]), kind_of(key)
        is_other = (
            (kind == "scale" and not is_close(number, known.scale))
            or (kind == "offset" and not is_close(number, known.offset))
            or (kind == "nodata" and number not in known.nodata)
        )
        if is_other:
            found.append(f"{harmless(key, 40)}={number:.10g}")
    return tuple(found)


def unread_attributes(data: h5py.Dataset, known: Notation) -> tuple[str, ...]:
    keys = [key for key in data.attrs if key not in READ and key.lower() in (*SCALES, *OFFSETS, *MISSING)]
    return unread([(key, data.attrs[key]) for key in keys], known)


def _group(parent: h5py.Group, name: str) -> h5py.Group | None:
    is_there = isinstance(parent.get(name, getlink=True), h5py.HardLink) and isinstance(parent[name], h5py.Group)
    return parent[name] if is_there else None
