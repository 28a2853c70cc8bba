"""Whether a source fits a cube that is there, and which of its scenes an earlier version may have read wrongly."""

from pipelines.cube import store
from pipelines.errors import CubeMismatch
from pipelines.grid import Grid
from pipelines.scene import Band, Scene
from pipelines.sources.layered import LayeredSource
from pipelines.sources.source import Source


def match_cube(uri: str, grid: Grid | None, source: Source) -> tuple[Source, Grid]:
    """The source, whose scenes become those of the existing cube, and the cube's grid.

    Raises CubeMismatch if `grid`, the dtype, or a band's name, scale, offset or nodata differs. Units and valid ranges may. Of a
    source of files only what the config states must be equal: what a file says is compared, scene by scene, when it is read.
    """
    existing, bands, dtype = store.read_layout(uri)
    if grid is not None and not grid.is_aligned(existing):
        raise CubeMismatch(
            f"the cube at {uri} has the grid {existing.frame}, {existing.transform}, {existing.shape}; "
            f"requested {grid.frame}, {grid.transform}, {grid.shape}: omit the grid, or name a new cube (cube.uri)"
        )
    if isinstance(source, LayeredSource):
        asked = source.requested
        stored = asked.read_as or dtype
        by_name = {band.name: band for band in bands}
        wanted = tuple(band.completed(by_name.get(band.name, band)) for band in asked.bands)
        source = source.for_cube(wanted, dtype, existing)
    else:
        stored, wanted = source.dtype(), source.bands
    remedy = "name a new cube (cube.uri) or use the bands of this one"
    if dtype != stored:
        raise CubeMismatch(f"the cube at {uri} stores {dtype}, the source has {stored}: {remedy}")
    here, there = ([_comparable(band) for band in of] for of in (bands, wanted))
    if here != there:
        found = f"the cube at {uri} has the bands (name, scale, offset, nodata) {here}"
        raise CubeMismatch(f"{found}, the source has {there}: {remedy}")
    return source, existing


def doubted(source: Source, scenes: list[Scene], unchanged: tuple[str, ...]) -> list[str]:
    """Ids of the unchanged scenes that an earlier version may have read wrongly."""
    if not isinstance(source, LayeredSource):
        return []
    kept = set(unchanged)
    return source.to_read_again([scene for scene in scenes if scene.id in kept])


def _comparable(band: Band) -> tuple[str, float, float, str]:
    return band.name, band.scale, band.offset, str(None if band.nodata is None else float(band.nodata))
