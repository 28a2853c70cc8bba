"""The text of `driftline info` and `driftline history`; programs use `--json`."""

from collections.abc import Iterator
from typing import Any

LATEST = 5  # dates, and scenes of a version, that are listed


def info_lines(cube: dict[str, Any]) -> Iterator[str]:
    """Lines about a cube, from what `pipelines.cube.history.describe` returns."""
    from pipelines.calendar import format_span
    from pipelines.products.frames import crs_labels

    shape, grid, words = cube["shape"], cube["grid"], crs_labels(cube["grid"]["crs"])
    width, height = (abs(size) for size in grid["resolution_xy"])
    yield f"cube:      {cube['uri']}"
    yield f"snapshot:  {cube['snapshot']}, {cube['versions']} version{'s' * (cube['versions'] != 1)}; see `driftline history`"
    if shape["time"]:
        apart = f", {format_span(cube['median_step_days'])} apart (median)" if cube["median_step_days"] else ""
        yield f"dates:     {shape['time']}, {format_date(cube['first'])} to {format_date(cube['last'])} UTC{apart}"
        yield f"usable:    {cube['mean_valid_fraction']:.0%} of the pixels on average"
    else:
        yield "dates:     none"
    yield f"pixels:    {shape['y']} x {shape['x']} (rows x columns) of {width:g} x {height:g} {words['crs_unit']}"
    yield f"CRS:       {words['crs']}"
    yield f"bounds:    {', '.join(f'{edge:.10g}' for edge in grid['bounds_xy'])} (left, bottom, right, top)"
    for number, band in enumerate(cube["bands"]):
        yield f"{'bands:' if not number else '':<11}{format_band(band)}"
    size = f"{cube['stored_bytes'] / 1e6:.1f} MB on disk, {cube['pixel_bytes'] / 1e6:.1f} MB uncompressed"
    yield f"stored:    {cube['dtype']}, chunks {' x '.join(str(n) for n in cube['chunks'])} (time, band, y, x), {size}"
    if shape["time"]:
        yield "latest:"
    for date in cube["dates"][-LATEST:]:
        yield f"  {format_date(date['time']):<20} {date['valid_fraction']:>4.0%} usable  {date['scene_id']}"


def format_band(band: dict[str, Any]) -> str:
    """`NDVI: stored x 0.0001, nodata -3000, unit 1`."""
    offset = f" + {band['offset']:g}" if band["offset"] else ""
    value = f"stored x {band['scale']:g}{offset}" if band["scale"] != 1 or offset else "as stored"
    nodata = f", nodata {band['nodata']:g}" if isinstance(band["nodata"], int | float) else f", nodata {band['nodata'] or 'none'}"
    return f"{band['name']}: {value}{nodata}" + (f", in {band['unit']}" if band["unit"] else "")


def history_lines(versions: list[Any]) -> Iterator[str]:
    """Lines about a cube's versions, newest first: one each, then the scenes added, replaced or refused."""
    for version in versions:
        yield f"{version.snapshot}  {version.written_utc:%Y-%m-%d %H:%M:%S} UTC  {version.message}"
        for word, scenes in (("added", version.added), ("replaced", version.replaced)):
            if scenes:
                yield f"  {word}: {some_of(scenes)}"
        for scene_id, reason, detail in version.refused[:LATEST]:
            yield f"  refused: {scene_id}, {reason}: {detail}"
        if len(version.refused) > LATEST:
            yield f"  and {len(version.refused) - LATEST} more refused; all of them: --json"


def some_of(scenes: tuple[str, ...]) -> str:
    """All names, or the first and the last of many."""
    return ", ".join(scenes) if len(scenes) <= LATEST else f"{scenes[0]}, {scenes[1]} ... {scenes[-1]}"


def format_date(date: str) -> str:
    """An ISO 8601 date, with the time of day unless it is midnight."""
    return date.replace("T", " ").removesuffix(" 00:00:00")
