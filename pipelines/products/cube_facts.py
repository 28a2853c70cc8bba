"""A few lines about a cube for a report; all of it is in `driftline info`."""

from __future__ import annotations

from pipelines.calendar import format_span
from pipelines.cube.history import describe


def cube_facts(uri: str, snapshot: str | None = None) -> dict[str, str]:
    """Label -> value of the cube's version `snapshot` (default: the newest)."""
    cube = describe(uri, snapshot)
    shape, grid = cube["shape"], cube["grid"]
    usable = cube["mean_valid_fraction"]
    first, last = (cube[end].replace("T", " ").removesuffix(" 00:00:00") for end in ("first", "last"))
    return {
        "cube": cube["uri"],
        "snapshot": cube["snapshot"],
        "dates": f"{shape['time']}, {first} to {last}, {format_span(cube['median_step_days'])} apart",
        "pixels": f"{shape['y']} x {shape['x']} of {abs(grid['resolution_xy'][0]):g} x {abs(grid['resolution_xy'][1]):g}",
        "bands": ", ".join(band["name"] for band in cube["bands"]),
        "usable share": f"{usable:.0%}" if usable is not None else "unknown",
    }
