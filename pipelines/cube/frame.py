"""Attributes of a grid that xarray, rioxarray and GDAL read: CF grid mapping and the GeoZarr conventions."""

from typing import Any

from rasterio.crs import CRS

from pipelines.grid import Grid, parse_crs

# https://github.com/zarr-conventions: a convention is registered by its UUID
_CONVENTIONS = [
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


def frame_attributes(grid: Grid) -> dict[str, Any]:
    """Attributes of `spatial_ref`: CF-1.11 appendix F (`crs_wkt`) and GDAL's `GeoTransform`.

    GeoTransform is in GDAL's order (c, a, b, f, d, e) as text; `affine` holds the exact numbers of the grid.
    """
    a, b, c, d, e, f = grid.transform
    crs = parse_crs(grid.crs)
    geotransform = " ".join(repr(v) for v in (c, a, b, f, d, e))
    return {"crs_wkt": crs.to_wkt(), "spatial_ref": crs.to_wkt(), "GeoTransform": geotransform, "affine": list(grid.transform)}


def geozarr_attributes(grid: Grid) -> dict[str, Any]:
    """Georeferencing attributes of the group, in the `proj:` and `spatial:` conventions of GeoZarr."""
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
