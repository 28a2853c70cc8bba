"""A grid in words, and why a band that lies on another one than the cube's is refused."""

from __future__ import annotations

from pipelines.grid import Grid, PatientFrame

RESAMPLE_IT = "set cube.on_other_grid: reproject to resample it"


def why_not_on(name: str, there: Grid, grid: Grid) -> tuple[str, str] | None:
    """(reason, detail) why band `name`, which lies on `there`, is not copied to a cube on `grid`; None if it can be."""
    if there.is_aligned(grid):
        return None
    is_coarser = covers_same_area(there, grid) and there.shape != grid.shape
    remedy = f"list a band like {name} first, or {RESAMPLE_IT}" if is_coarser else RESAMPLE_IT
    remedy = "volumes are not resampled: register them first" if grid.is_volume else remedy
    return frame_or_grid(there, grid), f"band {name} is on {outline(there)}; the cube is on {outline(grid)}; {remedy}"


def frame_or_grid(there: Grid, grid: Grid) -> str:
    return "wrong-grid" if there.has_same_frame(grid) else "wrong-crs"


def outline(grid: Grid) -> str:
    """A grid in one line: CRS or patient, shape, resolution and bounds."""
    bounds = ", ".join(f"{v:.10g}" for v in (grid.bounds if grid.is_volume else grid.bounds_xy))
    frame, shape = grid.frame, " x ".join(map(str, grid.shape))
    if not isinstance(frame, str):
        what = "a frame of a patient" if isinstance(frame, PatientFrame) else "the plane of an image"
        return f"{what}, {shape} pixels of {' x '.join(f'{v:.6g}' for v in grid.spacing)} {grid.unit}"
    crs = frame if len(frame) < 40 else frame.replace('"', "'").split(",")[0] + "...]"
    a, b, _, d, e, _ = grid.transform
    turns = {"rotated": b != 0 or d != 0, "rows from the south": e > 0, "columns from the east": a < 0}
    turned = "".join(f", {turn}" for turn, is_so in turns.items() if is_so)
    return f"{crs} {shape} pixels of {abs(grid.resolution_xy[0]):.9g} at ({bounds}{turned})"


def covers_same_area(there: Grid, grid: Grid) -> bool:
    if not there.has_same_frame(grid):
        return False
    tolerance = 0.5 * max(there.spacing[-1], grid.spacing[-1])
    return all(abs(a - b) <= tolerance for a, b in zip(there.bounds, grid.bounds, strict=True))
