"""Where the pixels of a cube lie: attributes and axes in the CF and GeoZarr conventions."""

import numpy as np
from rasterio.crs import CRS
from zarr.core.common import JSON

from pipelines.grid import Grid, ImagePlane, PatientFrame, parse_crs

_CONVENTIONS = [  # https://github.com/zarr-conventions: a convention is registered by its UUID
    {
        "uuid": "f17cb550-5864-4468-aeb7-f3180cfb622f",
        "name": "proj:",
        "description": "Coordinate reference system information for geospatial data",
        "spec_url": "https://github.com/zarr-conventions/geo-proj/blob/v1/README.md",
    },
    {
        "uuid": "689b58e2-cf7b-45e0-9fff-9cfc0883d6b4",
        "name": "spatial:",
        "description": "Spatial coordinate information",
        "spec_url": "https://github.com/zarr-conventions/spatial/blob/v1/README.md",
    },
]


def describe_axis(grid: Grid, name: str) -> tuple[np.ndarray, dict[str, JSON]]:
    """Coordinates of the centres along an axis, and their attributes; of rotated grids the distance from the first corner."""
    if not grid.is_straight:
        step, size = grid.spacing[grid.dims.index(name)], grid.shape[grid.dims.index(name)]
        return step * (np.arange(size) + 0.5), {"long_name": "distance along a rotated axis; spatial_ref has the position"}
    if isinstance(grid.frame, PatientFrame):
        return grid.centres(name), {"long_name": f"patient coordinate {name} (LPS)", "units": "mm", "axis": name.upper()}
    if isinstance(grid.frame, ImagePlane):
        return grid.centres(name), {"long_name": f"{name} in the image, from its upper left corner", "units": grid.unit}
    of_crs = {"x": "projection_x_coordinate", "y": "projection_y_coordinate", "z": "height"}
    return grid.centres(name), {"standard_name": of_crs[name], "axis": name.upper()}


def frame_attributes(grid: Grid) -> dict[str, JSON]:
    """What the coordinates are in, and `affine`, the exact transform of the grid."""
    exact: dict[str, JSON] = {"affine": list(grid.transform)}
    if isinstance(grid.frame, PatientFrame):
        return {"patient_frame": "LPS", "units": "mm", "frame_of_reference_uid": grid.frame.uid, **exact}
    if isinstance(grid.frame, ImagePlane):
        return {"image_plane": grid.frame.unit, **exact}
    frame: dict[str, JSON] = {"crs_wkt": grid.wkt, "spatial_ref": grid.wkt}
    if not grid.is_volume:  # CF-1.11, appendix F, and GDAL's GeoTransform, which is text in another order
        a, b, c, d, e, f = grid.transform
        frame["GeoTransform"] = " ".join(map(repr, (c, a, b, f, d, e)))
    return frame | exact


def geozarr_attributes(grid: Grid) -> dict[str, JSON]:
    """Georeferencing attributes of the group, in the `proj:` and `spatial:` conventions of GeoZarr; {} for what has none."""
    if grid.is_volume or not grid.is_on_earth:
        return {}
    crs = parse_crs(grid.crs)
    authority = crs.to_authority()
    is_exact = authority is not None and CRS.from_authority(*authority) == crs  # PROJ also returns near matches
    code = {"proj:code": ":".join(authority)} if authority and is_exact else {}
    return {
        "zarr_conventions": _CONVENTIONS,
        **code,
        "proj:wkt2": crs.to_wkt(version="WKT2_2019"),
        "spatial:dimensions": ["y", "x"],
        "spatial:transform_type": "affine",
        "spatial:transform": list(grid.transform),
        "spatial:shape": list(grid.shape_yx),
        "spatial:bbox": list(grid.bounds_xy),
        "spatial:registration": "pixel",
    }
