"""Scenes: one acquisition of an area, its bands and where they are stored, and the values that fill what is missing."""

import json
from dataclasses import dataclass, field, replace

import numpy as np


@dataclass(frozen=True)
class Band:
    """One measured quantity. Physical value = stored value * scale + offset; `nodata` is a stored value, `unit` free text."""

    name: str
    scale: float = 1.0
    offset: float = 0.0
    nodata: float | None = None
    unit: str = ""
    valid_range: tuple[float, float] | None = None  # inclusive, in stored values; values outside are invalid

    def completed(self, other: "Band") -> "Band":
        """This band, with the scale, offset, nodata and unit of `other` where its own are 1, 0, None and ""."""
        return replace(
            self,
            scale=other.scale if self.scale == 1 else self.scale,
            offset=other.offset if self.offset == 0 else self.offset,
            nodata=other.nodata if self.nodata is None else self.nodata,
            unit=self.unit or other.unit,
        )


def bands_from_json(text: str) -> tuple[Band, ...]:
    """The bands that a cube states in the attribute `bands` of its image."""
    bands = []
    for entry in json.loads(text):
        nodata, valid_range = entry["nodata"], entry.get("valid_range")
        entry |= {"nodata": None if nodata is None else float(nodata), "valid_range": tuple(valid_range) if valid_range else None}
        bands.append(Band(**entry))
    return tuple(bands)


@dataclass(frozen=True)
class Asset:
    """Where one band of a scene is stored: a file, and the position in it.

    `index` is the 1-based raster band of a GeoTIFF, or the 0-based time index of a netCDF/HDF5 variable (`variable`).
    is_step: of a file in a folder, `index` counts its times, not its bands.
    """

    path: str
    variable: str = ""
    index: int = 1
    is_step: bool = False


@dataclass(frozen=True)
class Scene:
    """One acquisition: its id, its time (UTC), and the asset of each band and of the quality band.

    `parts` holds the scenes of one mosaic (adjacent scenes of one date); then `assets` is empty. `label`: what the cube stores as
    its source, where the names of its files must not be stored.
    """

    id: str
    observed_utc: np.datetime64
    assets: dict[str, Asset] = field(hash=False)
    parts: tuple["Scene", ...] = ()
    label: str = ""

    @property
    def paths(self) -> list[str]:
        """The files of the scene, each once."""
        return list(dict.fromkeys(asset.path for part in self.parts or (self,) for asset in part.assets.values()))


def is_storable(value: float, dtype: np.dtype) -> bool:
    """True if `dtype` can hold `value`."""
    if dtype.kind == "f":
        return not np.isfinite(value) or abs(value) <= np.finfo(dtype).max
    limits = np.iinfo(dtype)
    return bool(np.isfinite(value)) and float(value).is_integer() and limits.min <= value <= limits.max


def fill_value(nodata: float | None, dtype: np.dtype) -> float:
    """Value of pixels outside a scene: its nodata; without one NaN for floats, 0 for integers."""
    if nodata is not None and is_storable(nodata, dtype):
        return nodata
    return np.nan if dtype.kind == "f" else 0
