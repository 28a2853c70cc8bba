"""Label rasters of change: any codes, with or without georeferencing, onto the cube's grid.

Labels drawn on an image often carry no georeferencing and lie on that image's own pixels; images of the same site may
differ by a pixel in size. Classes are never interpolated: a label that lies on another grid is warped with nearest.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipelines.errors import MissingInput, RequestError, SceneRefused
from pipelines.grid import Grid
from pipelines.sources.layers import canonical_crs
from pipelines.sources.opening import open_raster
from pipelines.sources.resampling import lattice_offset, overlaps, resample

UNCHANGED, CHANGED, UNKNOWN = 0, 1, 255
MAX_SIZE_DIFFERENCE_PX = 1  # crops of one area, cut by coordinates, differ by this much; more is another area
MAX_LABEL_PX = 1 << 30  # the whole label is held in memory, a byte a pixel


@dataclass(frozen=True)
class Label:
    """What is known of a site. `label_YX` is uint8 on the cube's grid: 0 unchanged, 1 changed, 255 unknown.

    `notes` say what had to be done to the file to get there.
    """

    label_YX: np.ndarray
    notes: tuple[str, ...] = ()

    @property
    def changed_fraction(self) -> float:
        """Share of changed pixels among the known ones."""
        known = np.count_nonzero(self.label_YX != UNKNOWN)
        return float(np.count_nonzero(self.label_YX == CHANGED) / known) if known else float("nan")


def read_label(
    path: Path,
    grid: Grid,
    *,
    changed: tuple[int, ...],
    unchanged: tuple[int, ...],
    band: int = 1,
    grid_of: Grid | None = None,
) -> Label:
    """The label raster at `path` on `grid` (the cube's).

    `changed` and `unchanged` are the file's codes; every other code, its nodata and what lies outside are unknown.
    `grid_of` is the grid whose pixels are the label's (of a scene); None: the label has a georeference of its own.
    A site where nothing changed is one to learn from: one class is accepted, and noted, unless the file holds other codes
    too, which then are likely to be the other class. Raises MissingInput (no such file) and RequestError (not readable, not
    georeferenced, another shape, none of the codes).
    """
    if both := sorted(set(changed) & set(unchanged)):
        raise RequestError(f"labels: the codes {both} stand for changed and for unchanged; keep each in one list")
    classes_YX, own, found, nodata, bands = _read_codes(path, band, changed, unchanged)
    _check_codes(path, found, changed, unchanged, bands)
    if grid_of is not None:
        classes_YX, notes = _fit(classes_YX, grid_of.shape_yx, path)
        there = grid_of
    else:
        if own is None:
            raise RequestError(
                f"the label {path} has no georeferencing; set labels.grid_of to first or last: "
                "the scene on whose pixels it was drawn"
            )
        there, notes = own, ()
    if not overlaps(there, grid):
        raise RequestError(
            f"the label {path} lies at {_bounds(there)}, outside of the images at {_bounds(grid)}: "
            "it is of another site; correct labels.path"
        )
    if lattice_offset(there, grid) is None:
        notes = (
            *notes,
            f"{path.name} was warped (nearest) onto the cube's grid of {grid.shape_yx[0]} x {grid.shape_yx[1]} pixels",
        )
    layer = _ArrayLayer(classes_YX, there)
    label_YX = resample(layer, grid, slice(0, grid.shape_yx[0]), UNKNOWN, UNKNOWN, "nearest")
    others = {code: count for code, count in found.items() if code not in (*changed, *unchanged, nodata)}
    return Label(label_YX, (*notes, *_check_classes(path, label_YX, others)))


def _bounds(grid: Grid) -> str:
    return f"({', '.join(f'{v:.9g}' for v in grid.bounds_xy)}) in {grid.crs[:40]}"


@dataclass(frozen=True)
class _ArrayLayer:
    """Classes in memory as a `resampling.Layer`."""

    classes_YX: np.ndarray
    grid: Grid
    nodata: float | None = UNKNOWN
    scale_offset: tuple[float, float] = (1.0, 0.0)

    @property
    def dtype(self) -> np.dtype:
        return self.classes_YX.dtype

    def window(self, rows: slice, columns: slice) -> np.ndarray:
        return self.classes_YX[rows, columns]


def _read_codes(
    path: Path, band: int, changed: tuple[int, ...], unchanged: tuple[int, ...]
) -> tuple[np.ndarray, Grid | None, dict[float, int], float | None, int]:
    """(classes_YX uint8, the file's own grid, code -> pixels, its nodata, how many bands it has), strip by strip."""
    found: dict[float, int] = {}
    try:
        with open_raster(path, (band,)) as dataset:
            height, width = dataset.shape
            if height * width > MAX_LABEL_PX:
                raise RequestError(f"the label {path} has {height} x {width} pixels, the bound is {MAX_LABEL_PX}; cut it up")
            classes_YX = np.full((height, width), UNKNOWN, np.uint8)
            rows = max(1, (1 << 24) // width)
            for row in range(0, height, rows):
                codes_YX = dataset.read(band, window=((row, min(row + rows, height)), (0, width)))
                part_YX = classes_YX[row : row + rows]
                part_YX[np.isin(codes_YX, unchanged)] = UNCHANGED
                part_YX[np.isin(codes_YX, changed)] = CHANGED
                known = codes_YX[~np.isnan(codes_YX)] if codes_YX.dtype.kind == "f" else codes_YX  # NaN is no code
                for code, count in zip(*np.unique(known, return_counts=True), strict=True):
                    found[float(code)] = found.get(float(code), 0) + int(count)
            affine, crs = dataset.transform, dataset.crs
            nodata, bands = dataset.nodatavals[band - 1], dataset.count
            is_georeferenced = crs is not None and affine.determinant != 0 and not affine.is_identity
            own = Grid.from_affine(canonical_crs(crs.to_wkt()), affine, dataset.shape) if is_georeferenced else None
    except SceneRefused as error:
        raise RequestError(f"the label {path} cannot be used: {error.detail}") from error
    except MissingInput as error:
        raise MissingInput(f"no such label: {path}; correct labels.path, or leave the site out of source.sites") from error
    return classes_YX, own, found, nodata, bands


def _check_codes(path: Path, found: dict[float, int], changed: tuple[int, ...], unchanged: tuple[int, ...], bands: int) -> None:
    requested = {float(code) for code in (*changed, *unchanged)}
    if requested & found.keys():
        return
    elsewhere = f", or labels.band to the right one of its {bands} bands" if bands > 1 else ""
    raise RequestError(
        f"the label {path} has none of the codes {', '.join(f'{c:g}' for c in sorted(requested))}; it holds {_shown(found)}: "
        f"set labels.changed and labels.unchanged to what they mean{elsewhere}"
    )


def _check_classes(path: Path, label_YX: np.ndarray, others: dict[float, int]) -> tuple[str, ...]:
    """What is to be noted of the classes on the images. `others` are the file's codes that are in neither list, with pixels.

    Raises RequestError where a class is missing and one of these codes may be meant, and where nothing is known.
    """
    counts = {name: int(np.count_nonzero(label_YX == code)) for name, code in (("changed", CHANGED), ("unchanged", UNCHANGED))}
    missing = " and no ".join(name for name, count in counts.items() if not count)
    unknown = label_YX.size - sum(counts.values())
    if missing and (others or not any(counts.values())):
        held = f"; the file also holds the codes {_shown(others)}" if others else ""
        raise RequestError(
            f"the label {path} has no {missing} pixel on the images ({counts['changed']} changed, {counts['unchanged']} "
            f"unchanged, {unknown} unknown){held}: correct labels.changed and labels.unchanged, or leave the site out of "
            "source.sites"
        )
    notes = [f"{path.name} has no {missing} pixel"] if missing else []
    if unknown:
        codes = f"codes {_shown(others)} mean neither" if others else "nodata, or outside of the label"
        notes.append(f"{path.name}: {unknown / label_YX.size:.1%} of the pixels are unknown and left out ({codes})")
    return tuple(notes)


def _shown(found: dict[float, int]) -> str:
    """The most frequent codes, with how many pixels hold them."""
    common = sorted(found.items(), key=lambda item: -item[1])
    more = f" and {len(common) - 6} more" if len(common) > 6 else ""
    return ", ".join(f"{code:g} ({count} px)" for code, count in common[:6]) + more


def _fit(classes_YX: np.ndarray, shape_yx: tuple[int, int], path: Path) -> tuple[np.ndarray, tuple[str, ...]]:
    """The label cropped or padded with unknown, at its lower and right edges, to a scene's shape. Raises RequestError."""
    if classes_YX.shape == shape_yx:
        return classes_YX, ()
    height, width = classes_YX.shape
    if abs(height - shape_yx[0]) > MAX_SIZE_DIFFERENCE_PX or abs(width - shape_yx[1]) > MAX_SIZE_DIFFERENCE_PX:
        raise RequestError(
            f"the label {path} has {height} x {width} pixels, its scene {shape_yx[0]} x {shape_yx[1]}; they may "
            "differ by one pixel: set labels.grid_of to the scene it was drawn on, or correct labels.path"
        )
    fitted_YX = np.full(shape_yx, UNKNOWN, np.uint8)
    rows, columns = min(height, shape_yx[0]), min(width, shape_yx[1])
    fitted_YX[:rows, :columns] = classes_YX[:rows, :columns]
    return fitted_YX, (
        f"{path.name} has {height} x {width} pixels, its scene {shape_yx[0]} x {shape_yx[1]}: cut or padded with unknown",
    )
