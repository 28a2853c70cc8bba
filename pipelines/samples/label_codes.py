"""The codes of a label raster, read strip by strip."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from pipelines.errors import MissingInput, RequestError
from pipelines.grid import Grid
from pipelines.sources.isolation import isolate
from pipelines.sources.layers import canonical_crs
from pipelines.sources.opening import open_raster

UNKNOWN = 255  # of a label raster
MAX_LABEL_PX = 1 << 30  # the whole label is held in memory, a byte a pixel
STRIP_PX = 1 << 24  # of it read at a time


@dataclass(frozen=True)
class LabelSettings:
    """How a label raster is read: the codes of each class, its band, and whose grid it lies on (`own`: its georeferencing).

    Class k of `names` becomes k. `key`: what the config calls the codes. all_classes: a raster that lacks a class and holds
    codes of none is taken for a mistake.
    """

    codes: tuple[tuple[int, ...], ...]
    names: tuple[str, ...]
    key: str
    band: int = 1
    grid_of: Literal["own", "first", "last"] = "own"
    all_classes: bool = False


def change_labels(
    changed: tuple[int, ...], unchanged: tuple[int, ...], band: int = 1, grid_of: Literal["own", "first", "last"] = "own"
) -> LabelSettings:
    """Those of change: 0 unchanged, 1 changed."""
    codes, key = (unchanged, changed), "labels.changed and labels.unchanged"
    return LabelSettings(codes, ("unchanged", "changed"), key, band, grid_of, all_classes=True)


@isolate
def read_codes(path: Path, settings: LabelSettings) -> tuple[np.ndarray, Grid | None, dict[float, int]]:
    """(classes_YX uint8, the file's own grid, its codes of no class with pixels), strip by strip.

    Raises SceneRefused, MissingInput, RequestError.
    """
    found: Counter[float] = Counter()
    try:
        with open_raster(path, (settings.band,)) as dataset:
            height, width = dataset.shape
            if height * width > MAX_LABEL_PX:
                raise RequestError(f"the label {path} has {height} x {width} pixels, the bound is {MAX_LABEL_PX}; cut it up")
            classes_YX = np.full((height, width), UNKNOWN, np.uint8)
            rows = max(1, STRIP_PX // width)
            for row in range(0, height, rows):
                codes_YX = dataset.read(settings.band, window=((row, min(row + rows, height)), (0, width)))
                part_YX = classes_YX[row : row + rows]
                for number, own_codes in enumerate(settings.codes):
                    part_YX[np.isin(codes_YX, own_codes)] = number
                codes, counts = np.unique(codes_YX[~np.isnan(codes_YX)], return_counts=True)  # NaN is no code
                found.update(dict(zip(codes.tolist(), counts.tolist(), strict=True)))
            affine, crs, bands = dataset.transform, dataset.crs, dataset.count
            nodata = dataset.nodatavals[settings.band - 1]
            is_georeferenced = crs is not None and affine.determinant != 0 and not affine.is_identity
            own = Grid.from_affine(canonical_crs(crs.to_wkt()), affine, dataset.shape) if is_georeferenced else None
    except MissingInput as error:
        raise MissingInput(f"no such label: {path}; correct labels.path, or leave the site out of source.sites") from error
    requested = [code for own_codes in settings.codes for code in own_codes]
    if not any(code in found for code in requested):
        elsewhere = f", or labels.band to the right one of its {bands} bands" if bands > 1 else ""
        raise RequestError(
            f"the label {path} has none of the codes {', '.join(f'{code:g}' for code in sorted(requested))}; it holds "
            f"{show_codes(found)}: set {settings.key} to what they mean{elsewhere}"
        )
    others = {code: count for code, count in found.items() if code not in (*requested, nodata)}
    return classes_YX, own, others


def show_codes(found: Mapping[float, int]) -> str:
    """The most frequent codes, with how many pixels hold them."""
    common = sorted(found.items(), key=lambda item: -item[1])
    more = f" and {len(common) - 6} more" if len(common) > 6 else ""
    return ", ".join(f"{code:g} ({count} px)" for code, count in common[:6]) + more
