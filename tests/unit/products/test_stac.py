import json

import numpy as np
import pystac
import pystac.validation
import pytest

from pipelines.grid import Grid
from pipelines.products.cog import write_forecast_cogs
from pipelines.products.footprint import box, footprint
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


@pytest.mark.parametrize(("days", "text"), [(10, "P10D"), (5 / 1440, "PT5M"), (1.25, "P1DT6H"), (0, "P0D")])
def test_durations_are_iso_8601(days, text):
    assert duration(days) == text
