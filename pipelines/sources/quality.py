"""Quality masks: which pixels are usable according to a quality band. `usable(quality_YX)` is boolean, same shape."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class SclMask:
    """Sentinel-2 scene classification: usable are pixels of the classes `keep` more than `away_px` pixels from all others.

    Sen2Cor L2A PUM: 0 none, 1 saturated, 2 dark, 3 shadow, 4 vegetation, 5 bare, 6 water, 7 unclassified, 8-9 cloud,
    10 cirrus, 11 snow.
    """

    keep: tuple[int, ...] = (4, 5, 6, 7)
    away_px: int = 0
    band: str = "SCL"

    def usable(self, quality: np.ndarray) -> np.ndarray:
        return keep_away(~np.isin(quality, self.keep), self.away_px)


@dataclass(frozen=True)
class LandsatMask:
    """Landsat quality bits: unusable are fill, cloud, shadow, cirrus (at high confidence), and snow unless `keep_snow`.

    Collection 1 `BQA` (USGS LSDS-1873): bit 0 fill, 4 cloud, 5-6 cloud confidence, 7-8 shadow, 9-10 snow, 11-12 cirrus
    confidence, where 3 is high. Collection 2 `QA_PIXEL` (USGS LSDS-1619): bit 0 fill, 1 dilated cloud, 2 cirrus, 3 cloud,
    4 shadow, 5 snow.
    """

    collection: int = 2
    away_px: int = 0
    keep_snow: bool = False
    band: str = "QA_PIXEL"

    def usable(self, quality: np.ndarray) -> np.ndarray:
        bits = np.asarray(quality).astype(np.int64)
        if self.collection == 1:
            cloud, shadow, snow, cirrus = ((bits >> shift & 0b11) == 3 for shift in (5, 7, 9, 11))
            is_bad = (bits & 0b10001 != 0) | cloud | shadow | cirrus
        else:
            is_bad, snow = bits & 0b11111 != 0, bits & 0b100000 != 0
        return keep_away(is_bad if self.keep_snow else is_bad | snow, self.away_px)


@dataclass(frozen=True)
class ValueMask:
    """A mask band: usable are pixels with one of `valid_values` that are more than `away_px` pixels from all others."""

    band: str
    valid_values: tuple[int, ...] = (1,)
    away_px: int = 0

    def usable(self, quality: np.ndarray) -> np.ndarray:
        return keep_away(~np.isin(quality, self.valid_values), self.away_px)


QualityMask = SclMask | LandsatMask | ValueMask


def keep_away(is_bad: np.ndarray, away_px: int) -> np.ndarray:
    """True where no bad pixel is within `away_px` pixels (Euclidean, centre to centre); pixels beyond the edge count as good.

    >>> keep_away(np.array([[True, False, False]]), 1)
    array([[False, False,  True]])
    """
    if away_px <= 0 or not is_bad.any():
        return ~is_bad
    from scipy import ndimage  # takes longer to import than everything else that reads a scene

    is_away: np.ndarray = ndimage.distance_transform_edt(~is_bad) > away_px
    return is_away
