"""Everything that a file says of one band, and how its values become those of the cube's band."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from pipelines.errors import SceneRefused
from pipelines.grid import Grid
from pipelines.scene import Band, is_storable
from pipelines.sources.metadata_files import ProductMetadata

RELATIVE = 1e-6  # scales and offsets that differ by less are the same number, written with fewer digits
NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")
NUMBERS = re.compile(rf"[\s\[{{(]*{NUMBER.pattern}(?:[\s,;]+{NUMBER.pattern})*[\s\]}})]*")


@dataclass(frozen=True)
class FileFacts:
    """What a file says of one band. Values are stored ones: physical = stored * scale + offset.

    `nodata` holds every value that means missing; so does NaN, and whatever is outside `valid_range` (inclusive). `mask` names
    the mask beside the values, "" without one. `planes` is the number of bands or planes that lie in the same array of the
    file, an alpha band not counted. `codes` names what says that values are codes (a palette, flag_values), "" for measurements.
    `unread`: what seems to state other values in a way that nothing defines, as `key=value`. `product`: what the metadata of its
    product state, which count for the product's own files alone. `said`: what was assumed.
    """

    dtype: np.dtype
    grid: Grid
    scale: float = 1.0
    offset: float = 0.0
    nodata: tuple[float, ...] = ()
    valid_range: tuple[float, float] | None = None
    mask: str = ""
    unit: str = ""
    description: str = ""
    planes: int = 1
    codes: str = ""
    unread: tuple[str, ...] = ()
    product: ProductMetadata | None = None
    said: tuple[str, ...] = ()

    def with_request(self, band: Band) -> FileFacts:
        """These facts with those that the config states in their place; 1, 0 and "" state nothing. `nodata` is added."""
        nodata = self.nodata if band.nodata is None else (band.nodata, *(v for v in self.nodata if v != band.nodata))
        return dataclasses.replace(
            self,
            scale=self.scale if band.scale == 1 else band.scale,
            offset=self.offset if band.offset == 0 else band.offset,
            nodata=nodata,
            unit=band.unit or self.unit,
        )

    def contradiction(self, band: Band) -> str:
        """Why a config's scale cannot be combined with the file's offset, "" if it can."""
        is_half_stated = band.scale != 1 and band.offset == 0 and self.offset != 0
        if not is_half_stated or is_close(band.scale, self.scale):
            return ""
        return (
            f"source.scale {band.scale:g} of band {band.name} contradicts the file, which states scale {self.scale:g} and offset "
            f"{self.offset:g}; take it out, or state source.offset as well"
        )

    def is_missing(self, values: np.ndarray) -> np.ndarray:
        """Where stored `values` are missing by value, bool of their shape."""
        is_float = values.dtype.kind == "f"
        missing: np.ndarray = ~np.isfinite(values) if is_float else np.zeros(values.shape, bool)
        for value in self.nodata:
            if is_storable(value, values.dtype) and not (is_float and math.isnan(value)):
                missing |= values == values.dtype.type(value)
        if self.valid_range is not None:
            low, high = self.valid_range
            missing |= (values < low) | (values > high)
        return missing


def is_close(one: float, other: float) -> bool:
    return math.isclose(one, other, rel_tol=RELATIVE, abs_tol=1e-12)


def stated_values(numbers_of: Callable[[str], Sequence[float]]) -> tuple[tuple[float, ...], tuple[float, float] | None]:
    """(missing values, valid range) by the CF attributes of which `numbers_of` gives the numbers (CF-1.11, 2.5.1)."""
    missing = dict.fromkeys((*numbers_of("_FillValue"), *numbers_of("missing_value")))
    both, least, most = (numbers_of(f"valid_{key}") for key in ("range", "min", "max"))
    low, high = both if len(both) == 2 else ((*least, -math.inf)[0], (*most, math.inf)[0])
    return tuple(missing), None if (low, high) == (-math.inf, math.inf) else (low, high)


def numbers_in(text: str) -> list[float]:
    """
    >>> numbers_in("{-2000,10000}")
    [-2000.0, 10000.0]
    """
    return [float(number) for number in NUMBER.findall(text)]


def step_to(facts: FileFacts, band: Band) -> tuple[float, float]:
    """(factor, shift) from the file's stored values to the cube's: (1, 0) where both say the same."""
    factor, shift = facts.scale / band.scale, (facts.offset - band.offset) / band.scale
    return 1.0 if is_close(factor, 1) else factor, 0.0 if abs(shift) < RELATIVE else shift


def why_not(facts: FileFacts, band: Band, dtype: np.dtype) -> tuple[str, str] | None:
    """(reason, detail) why a scene with these facts cannot enter a cube with this band and dtype; None if it can."""
    if facts.dtype != dtype:
        return "wrong-dtype", f"band {band.name} holds {facts.dtype}, the other scenes {dtype}; convert or remove it"
    if facts.unit and band.unit and facts.unit != band.unit:
        return "wrong-unit", f"band {band.name} is in {facts.unit!r}, the cube in {band.unit!r}; convert it, or state source.unit"
    if not (math.isfinite(facts.scale) and facts.scale and math.isfinite(facts.offset)):
        stated = f"band {band.name} has scale {facts.scale:g} and offset {facts.offset:g}, which leave nothing of its values"
        return "wrong-scale", f"{stated}; correct the file, or state source.scale and source.offset"
    factor, shift = step_to(facts, band)
    is_whole = round(factor) != 0 and abs(factor - round(factor)) < RELATIVE and abs(shift - round(shift)) < 1e-3
    is_whole &= dtype.itemsize < 8 or (factor, shift) == (1, 0)  # of 64 bits, what does not fit could not be seen
    if dtype.kind != "f" and not is_whole:
        there = f"band {band.name} has scale {facts.scale:g} and offset {facts.offset:g}"
        remedy = "stored values would not stay whole numbers: convert it, or state source.scale and source.offset"
        return "wrong-scale", f"{there}, the cube {band.scale:g} and {band.offset:g}; {remedy}"
    return None


def convert(values: np.ma.MaskedArray, facts: FileFacts, band: Band, label: str) -> np.ma.MaskedArray:
    """Stored `values` of a file as the cube stores them, dtype kept; missing ones, and those that do not fit, are masked and
    have the band's nodata where it has one. Raises SceneRefused(wrong-dtype, wrong-unit, wrong-scale)."""
    dtype = values.dtype
    if refused := why_not(facts, band, dtype):
        raise SceneRefused(label, *refused)
    data, missing = np.ma.getdata(values), np.ma.getmaskarray(values)
    factor, shift = step_to(facts, band)
    if (factor, shift) != (1, 0):
        exact = data * np.float64(factor) + shift if dtype.kind == "f" else data.astype(np.int64) * round(factor) + round(shift)
        if dtype.kind != "f":
            limits = np.iinfo(dtype)
            missing = missing | (exact < limits.min) | (exact > limits.max)
            exact = np.where(missing, data, exact)
        data = exact.astype(dtype)
    if band.nodata is not None and is_storable(band.nodata, dtype):
        is_filled = missing & np.isfinite(data) if dtype.kind == "f" else missing
        data = np.where(is_filled, dtype.type(band.nodata), data) if is_filled.any() else data
    return np.ma.MaskedArray(data, missing)
