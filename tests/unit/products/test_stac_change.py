import json

import numpy as np
import pystac
import pystac.validation
import pytest

from pipelines.grid import Grid
from pipelines.products.cog import Lineage, write_layers
from pipelines.products.layers import CHANGE_LAYERS, MASK_CLASSES
from pipelines.products.polygons import outline_changes, write_polygons
from pipelines.products.stac import change_item, write_collection


def site(name: str, folder, x: float) -> dict:
    grid = Grid("EPSG:32635", (10.0, 0.0, x, 0.0, -10.0, 5000000.0), (6, 8))
    mask = np.zeros(grid.shape_yx, np.uint8)
    mask[2:4, 3:5], mask[0, 0] = 1, 255
    probability = np.where(mask == 255, np.nan, 0.1 + 0.8 * mask).astype(np.float32)
    lineage = Lineage(f"SNAP-{name}", "MODEL", "CONFIG", "0.1.0", "2018-01-01T00:00:00Z", ("before", "after <b>"))
    arrays: dict[str, np.ndarray] = {"probability": probability, "mask": mask}
    rasters = write_layers(arrays, CHANGE_LAYERS, grid, "", lineage, folder, prefix=f"{name}_")
    vectors = write_polygons(outline_changes(mask, grid), folder, f"{name}_changes")
    start = "2016-01-01T00:00:00Z"
    return change_item(name, f"Change in {name}", grid, start, CHANGE_LAYERS, rasters, vectors, "", lineage, {"patches": 1})


@pytest.fixture
def collection(tmp_path):
    folder = tmp_path / "run" / "products"
    items = [site("paris", folder, 500000.0), site("rennes", folder, 600000.0)]
    pictures = {"Quicklook": tmp_path / "run" / "paris.png"}
    return write_collection(folder, "demo", "change", "Change.", items, pictures=pictures, metrics={"f1": 0.4})


def validate(thing) -> None:
    """Against the schemas that pystac ships; those of extensions lie on the network and are left out."""
    content = thing.to_dict(include_self_link=False, transform_hrefs=False)
    content["stac_extensions"] = []
    pystac.validation.validate_dict(content)


def test_collection_and_items_are_valid_stac_1_1(collection):
    read = pystac.Collection.from_file(str(collection))
    validate(read)
    items = list(read.get_items())
    assert [item.id for item in items] == ["paris", "rennes"]
    for item in items:
        validate(item)
    assert len(read.extent.spatial.bboxes) == 3  # the whole, then each place
    whole = read.extent.spatial.bboxes[0]
    boxes = np.array([item.bbox for item in items])
    assert (whole[0], whole[2]) == (boxes[:, 0].min(), boxes[:, 2].max())


def test_every_link_and_asset_is_relative_and_there(collection):
    for name in ("paris", "rennes"):
        item = json.loads((collection.parent / f"{name}.json").read_text())
        for reference in [*item["links"], *item["assets"].values()]:
            assert reference["href"].startswith("./")
            assert (collection.parent / reference["href"]).exists()
    assert json.loads(collection.read_text())["assets"]["paris"]["href"] == "../paris.png"


def test_items_tell_where_they_come_from_and_when(collection):
    properties = json.loads((collection.parent / "paris.json").read_text())["properties"]
    assert properties["driftline:cube_snapshot"] == "SNAP-paris"
    assert properties["driftline:model_hash"] == "MODEL"
    assert properties["driftline:derived_from"] == ["before", "after <b>"]
    assert properties["driftline:patches"] == 1
    assert (properties["start_datetime"], properties["end_datetime"]) == ("2016-01-01T00:00:00Z", "2018-01-01T00:00:00Z")
    shared = json.loads(collection.read_text())
    assert shared["driftline:model_hash"] == "MODEL"
    assert "driftline:cube_snapshot" not in shared  # each place has its own


def test_classes_can_be_read_by_the_extension(collection):
    from pystac.extensions.classification import ClassificationExtension

    item = pystac.Item.from_file(str(collection.parent / "paris.json"))
    band = item.assets["mask"].extra_fields["bands"][0]
    assert [entry["value"] for entry in band["classification:classes"]] == [0, 1, 255]
    assert band["nodata"] == 255
    assert [entry.get("nodata", False) for entry in band["classification:classes"]] == [False, False, True]
    item.assets["mask"].extra_fields["classification:classes"] = band["classification:classes"]
    read = ClassificationExtension.ext(item.assets["mask"]).classes
    assert [c.name for c in read or []] == [c.name for c in MASK_CLASSES]
    assert item.assets["probability"].extra_fields["bands"][0]["unit"] == "1"


def test_polygons_are_assets_with_their_own_media_types(collection):
    assets = json.loads((collection.parent / "paris.json").read_text())["assets"]
    assert assets["patches_gpkg"]["type"] == "application/geopackage+sqlite3"
    assert assets["patches_parquet"]["type"] == "application/vnd.apache.parquet"
    assert assets["patches_geojson"]["type"] == "application/geo+json"
    assert assets["mask_names"]["roles"] == ["metadata"]
