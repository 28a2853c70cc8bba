import json

import numpy as np
import pystac
import pystac.validation
import pytest
import shapely
from pyproj import Transformer

from pipelines.grid import Grid
from pipelines.products.cog import write_forecast_cogs
from pipelines.products.footprint import box, footprint, joined_box
from pipelines.products.stac import duration, forecast_item, projection, write_collection


@pytest.fixture
def collection(make_staged, dates, lineage, tmp_path):
    staged, grid = make_staged()
    folder = tmp_path / "run" / "products"
    cogs = write_forecast_cogs(staged, grid, dates, {"ndvi": "1"}, lineage, folder)
    items = [
        forecast_item(grid, date, cog, [field for field in staged.fields if field.target == k], {"ndvi": "1"}, lineage)
        for k, (date, cog) in enumerate(zip(dates, cogs, strict=True))
    ]
    pictures = {"Quicklook": folder.parent / "quicklook.png"}
    return write_collection(folder, "demo", "forecast", "A forecast.", items, pictures=pictures, metrics={"mae": 0.05})


def validate(thing) -> None:
    """Against the schemas that pystac ships; those of extensions lie on the network and are left out."""
    content = thing.to_dict(include_self_link=False, transform_hrefs=False)
    content["stac_extensions"] = []
    pystac.validation.validate_dict(content)


def test_collection_and_items_are_valid_stac_1_1(collection):
    read = pystac.Collection.from_file(str(collection))
    assert json.loads(collection.read_text())["stac_version"] == "1.1.0"
    validate(read)
    items = list(read.get_items())
    assert [item.id for item in items] == ["forecast_2020-06-15", "forecast_2020-06-25T1005"]
    for item in items:
        validate(item)
        assert item.get_collection().id == "demo"


def test_every_link_and_asset_is_relative_and_there(collection):
    for path in collection.parent.glob("*.json"):
        content = json.loads(path.read_text())
        for link in content["links"]:
            assert link["href"].startswith("./")
            assert (path.parent / link["href"]).exists()
    content = json.loads(collection.read_text())
    assert content["assets"]["quicklook"]["href"] == "../quicklook.png"


def test_items_tell_where_they_come_from(collection):
    item = json.loads((collection.parent / "forecast_2020-06-25T1005.json").read_text())
    properties = item["properties"]
    assert properties["datetime"] == "2020-06-25T10:05:00Z"
    assert properties["forecast:reference_datetime"] == "2020-06-05T00:00:00Z"
    assert properties["forecast:horizon"] == "P20DT10H5M"
    assert properties["proj:code"] == "EPSG:32635"
    assert properties["proj:shape"] == [40, 60]
    assert properties["driftline:cube_snapshot"] == "SNAP"
    assert properties["driftline:model_hash"] == "MODEL"
    assert properties["driftline:config_hash"] == "CONFIG"
    assert properties["driftline:derived_from"] == ["scene a", "scene <b>"]
    bands = item["assets"]["forecast"]["bands"]
    assert [band["name"] for band in bands] == ["ndvi", "ndvi_lower", "ndvi_upper"]
    assert bands[0]["nodata"] == "nan"


def test_a_crs_without_a_code_is_given_as_wkt():
    sinusoidal = "+proj=sinu +lon_0=0 +x_0=0 +y_0=0 +R=6371007.181 +units=m +no_defs"
    folder = projection(Grid(sinusoidal, (232.0, 0, -6e6, 0, -232.0, -1.3e6), (10, 10)))
    assert folder["proj:code"] is None
    assert "Sinusoidal" in folder["proj:wkt2"]


def test_the_footprint_holds_the_place():
    polygon = footprint(Grid("EPSG:4326", (0.5, 0, 10.0, 0, -0.5, 50.0), (4, 6)))
    assert box(polygon) == [10.0, 48.0, 13.0, 50.0]
    ring = np.array(polygon["coordinates"][0])
    assert (ring[0] == ring[-1]).all()
    x, y = ring[:, 0], ring[:, 1]
    assert (x[:-1] * y[1:] - x[1:] * y[:-1]).sum() > 0  # counter-clockwise (RFC 7946, 3.1.6)


EDGE_X, EDGE_Y = Transformer.from_crs("EPSG:4326", "EPSG:32660", always_xy=True).transform(180.0, 16.0)
PLACES = [  # grid, box, kind
    (Grid("EPSG:32660", (10.0, 0, EDGE_X - 240, 0, -10.0, EDGE_Y + 160), (32, 60)), None, "MultiPolygon"),
    (Grid("EPSG:4326", (0.5, 0, 200.0, 0, -0.5, 20.0), (4, 6)), [-160, 18, -157, 20], "Polygon"),
    (Grid("EPSG:4326", (0.5, 0, 179.0, 0, -0.5, 20.0), (4, 6)), [179, 18, -178, 20], "MultiPolygon"),
    (Grid("EPSG:4326", (5.0, 0, -2.5, 0, -5.0, 92.5), (37, 72)), [-180, -90, 180, 90], "Polygon"),
    (Grid("EPSG:4326", (5.0, 0, -180.0, 0, 5.0, -90.0), (36, 72)), [-180, -90, 180, 90], "Polygon"),
    (Grid("EPSG:3413", (25e3, 0, -1e6, 0, -25e3, 1e6), (80, 80)), None, None),  # the pole lies inside
]


@pytest.mark.parametrize(("grid", "bounds", "kind"), PLACES)
def test_footprints_keep_to_longitudes_and_latitudes_and_to_the_grid(grid, bounds, kind):
    found = footprint(grid)
    west, south, east, north = box(found)
    assert kind in (None, found["type"])
    assert bounds is None or box(found) == pytest.approx(bounds)
    assert -180 <= west <= 180
    assert -180 <= east <= 180
    assert -90 <= south < north <= 90
    outline = shapely.geometry.shape(found)
    assert outline.is_valid
    height, width = grid.shape_yx
    inside = [grid.affine @ (width * share, height * share) for share in (0.1, 0.45, 0.9)]
    lon, lat = Transformer.from_crs(grid.crs, "EPSG:4326", always_xy=True).transform(*zip(*inside, strict=True))
    assert all(outline.covers(shapely.Point((x + 180) % 360 - 180, y)) for x, y in zip(lon, lat, strict=True))
    if west > east:
        assert all(x >= west or x <= east for x in ((x + 180) % 360 - 180 for x in lon))


@pytest.mark.parametrize(
    ("boxes", "whole"),
    [
        ([[1, 2, 3, 4], [2, 1, 5, 3]], [1, 1, 5, 4]),
        ([[179, 0, -179, 1], [178, 0, 179.5, 1]], [178, 0, -179, 1]),
        ([[179, 0, -179, 1], [-179.5, 0, -178, 1]], [179, 0, -178, 1]),
    ],
)
def test_boxes_are_joined_across_the_180th_meridian(boxes, whole):
    assert joined_box(boxes) == whole


@pytest.mark.parametrize(("days", "text"), [(10, "P10D"), (5 / 1440, "PT5M"), (1.25, "P1DT6H"), (0, "P0D")])
def test_durations_are_iso_8601(days, text):
    assert duration(days) == text
